//! Which mailboxes a received message goes to.
//!
//! Filters are matched here, by topic. In front of the matching there is a bounded cache from topic to mailboxes, and
//! in front of that the topic of the last message: devices send many messages to few topics.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use smallvec::SmallVec;

use super::{AckPolicy, Message, held::Held, mailbox::Mailbox};
use crate::{
    codec::{Text, TopicFilter},
    router::FilterTrie,
    session::client::AckHandle,
};

/// The mailboxes of a client and their filters.
#[derive(Debug)]
pub(super) struct Dispatch {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Filters, shared ones by the filter their group shares.
    trie: FilterTrie<Targets>,
    /// How many mailboxes have a filter, shared ones by their whole name.
    users: HashMap<Text, usize>,
    /// Where messages go that match nothing, if the application has asked for them.
    unmatched: Option<MailboxId>,
    /// Where they wait otherwise.
    held: Held,
    cache: HashMap<Text, Targets, foldhash::fast::RandomState>,
    last_topic: Vec<u8>,
    last: Targets,
    /// Mailboxes something is staged for.
    dirty: Vec<MailboxId>,
    /// Messages that several consumers have to acknowledge, and how many still do.
    shared_acks: HashMap<AckHandle, usize>,
    /// Messages that no consumer is going to acknowledge.
    released: Vec<AckHandle>,
    dropped: u64,
}

/// Names a mailbox of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MailboxId(u32);

/// What one read brought for one mailbox.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) messages: VecDeque<Message>,
}

#[derive(Debug)]
struct Slot {
    mailbox: Arc<Mailbox>,
    filters: Vec<TopicFilter>,
    staged: VecDeque<Message>,
}

type Targets = SmallVec<[MailboxId; 2]>;

impl Dispatch {
    /// No mailboxes. `seed` keeps a server from choosing topics that collide.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            trie: FilterTrie::new(seed),
            users: HashMap::new(),
            unmatched: None,
            held: Held::default(),
            cache: HashMap::default(),
            last_topic: Vec::new(),
            last: Targets::new(),
            dirty: Vec::new(),
            shared_acks: HashMap::new(),
            released: Vec::new(),
            dropped: 0,
        }
    }

    /// The mailbox for what no filter matches.
    pub(super) fn add_unmatched(&mut self, mailbox: Arc<Mailbox>) -> MailboxId {
        let id = self.add(mailbox, &[]);
        self.unmatched = Some(id);
        id
    }

    /// A mailbox for what `filters` match, beginning with what came before anybody had asked for it.
    pub(super) fn add(&mut self, mailbox: Arc<Mailbox>, filters: &[TopicFilter]) -> MailboxId {
        let slot = Some(Slot { mailbox, filters: filters.to_vec(), staged: VecDeque::new() });
        let at = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(at as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        let id = MailboxId(at);
        for filter in filters {
            *self.users.entry(filter.as_text().clone()).or_default() += 1;
            self.trie.entry_or_default(plain(filter)).push(id);
        }
        self.forget();
        self.claim(id, filters);
        id
    }

    /// Whether some mailbox has the filter.
    pub(super) fn is_used(&self, filter: &TopicFilter) -> bool {
        self.users.contains_key(filter.as_str())
    }

    /// Removes a mailbox; gives the filters that no other mailbox has.
    pub(super) fn remove(&mut self, id: MailboxId) -> Vec<TopicFilter> {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return Vec::new() };
        self.free.push(id.0);
        self.unmatched = self.unmatched.filter(|unmatched| *unmatched != id);
        self.dirty.retain(|dirty| *dirty != id);
        self.released.extend(slot.staged.iter().filter_map(Message::ack_handle));
        self.forget();
        for filter in &slot.filters {
            let Some(targets) = self.trie.get_mut(plain(filter)) else { continue };
            targets.retain(|target| *target != id);
            if targets.is_empty() {
                self.trie.remove(plain(filter));
            }
        }
        slot.filters.into_iter().filter(|filter| self.is_last_user(filter)).collect()
    }

    /// Stages a message for each mailbox it is for. Returns its handle if it is to be acknowledged at once: no
    /// consumer wants to do it, or none is there.
    #[inline]
    pub(super) fn route(&mut self, message: Message) -> Option<AckHandle> {
        if message.topic_bytes() != self.last_topic {
            self.look_up(&message);
        }
        let (first, others) = match self.last.as_slice() {
            [] => {
                self.dropped += self.held.push(message, &mut self.released);
                return None;
            }
            [only] => (*only, Targets::new()),
            [first, others @ ..] => (*first, Targets::from_slice(others)),
        };
        let ack = message.ack_handle();
        let mut waiting = 0;
        for other in others {
            waiting += usize::from(self.stage(other, message.clone()));
        }
        waiting += usize::from(self.stage(first, message));
        if waiting > 1 {
            self.shared_acks.extend(ack.map(|ack| (ack, waiting)));
        }
        ack.filter(|_| waiting == 0)
    }

    /// One consumer is done with a message: whether all are.
    pub(super) fn acknowledge(&mut self, handle: AckHandle) -> bool {
        let Some(waiting) = self.shared_acks.get_mut(&handle) else { return true };
        *waiting -= 1;
        if *waiting > 0 {
            return false;
        }
        self.shared_acks.remove(&handle);
        true
    }

    /// A connection has begun, on a session that was there before or on a new one.
    pub(super) fn connected(&mut self, now: Instant, session_present: bool) {
        self.dropped += self.held.connected(now, session_present, &mut self.released);
    }

    /// The connection is gone: handles of it that several consumers share need not be counted any further.
    pub(super) fn connection_lost(&mut self) {
        self.shared_acks.retain(|handle, _| handle.is_exactly_once());
        self.held.connection_lost();
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.held.deadline()
    }

    /// Gives up waiting for subscriptions to messages that match none.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.held.release(now, &mut self.released);
    }

    /// A message that is to be acknowledged because no consumer will do it.
    pub(super) fn poll_released(&mut self) -> Option<AckHandle> {
        self.released.pop()
    }

    /// Whether there is something for [`Self::take_staged`].
    pub(super) fn has_staged(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes what is staged, one delivery a mailbox, behind what waits for it already. `spare` gives and takes back queues.
    pub(super) fn take_staged(&mut self, into: &mut Vec<Delivery>, spare: &mut Vec<VecDeque<Message>>) {
        let before = into.len();
        for id in self.dirty.drain(..) {
            let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else { continue };
            let mut known = into.iter_mut().take(before);
            if let Some(waiting) = known.find(|delivery| Arc::ptr_eq(&delivery.mailbox, &slot.mailbox)) {
                waiting.messages.append(&mut slot.staged);
                continue;
            }
            let messages = std::mem::replace(&mut slot.staged, spare.pop().unwrap_or_default());
            into.push(Delivery { mailbox: Arc::clone(&slot.mailbox), messages });
        }
    }

    /// The mailboxes of `filter`.
    pub(super) fn mailboxes_of(&self, filter: &TopicFilter) -> Vec<Arc<Mailbox>> {
        let slots = self.slots.iter().flatten().filter(|slot| slot.filters.contains(filter));
        slots.map(|slot| Arc::clone(&slot.mailbox)).collect()
    }

    /// All mailboxes.
    pub(super) fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.slots.iter().flatten().map(|slot| Arc::clone(&slot.mailbox)).collect()
    }

    /// Messages that matched nothing and were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Stages what waited for such a mailbox.
    fn claim(&mut self, id: MailboxId, filters: &[TopicFilter]) {
        let matches = |topic: &str| filters.iter().any(|filter| filter.matches(topic));
        for (message, is_unacknowledged) in self.held.claim(matches) {
            let ack = message.ack_handle().filter(|_| is_unacknowledged);
            if !self.stage(id, message) {
                self.released.extend(ack);
            }
        }
    }

    /// Whether the consumer of the mailbox acknowledges by itself.
    fn stage(&mut self, id: MailboxId, message: Message) -> bool {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else { return false };
        if slot.staged.is_empty() {
            self.dirty.push(id);
        }
        let acknowledges = slot.mailbox.options().ack != AckPolicy::Auto && message.ack_handle().is_some();
        slot.staged.push_back(message);
        acknowledges
    }

    fn look_up(&mut self, message: &Message) {
        let topic = message.topic();
        self.last = match self.cache.get(topic) {
            Some(targets) => targets.clone(),
            None => self.match_filters(topic),
        };
        self.last_topic.clear();
        self.last_topic.extend_from_slice(topic.as_bytes());
    }

    fn match_filters(&mut self, topic: &str) -> Targets {
        let mut targets = Targets::new();
        self.trie.for_each_match(topic, |found| {
            for id in found {
                if !targets.contains(id) {
                    targets.push(*id);
                }
            }
        });
        if targets.is_empty() {
            targets.extend(self.unmatched);
        }
        if self.cache.len() >= CACHED_TOPICS_MAX {
            self.cache.clear();
        }
        if let Ok(topic) = Text::try_from(topic) {
            self.cache.insert(topic, targets.clone());
        }
        targets
    }

    fn is_last_user(&mut self, filter: &TopicFilter) -> bool {
        let Some(users) = self.users.get_mut(filter.as_str()) else { return true };
        *users -= 1;
        if *users > 0 {
            return false;
        }
        self.users.remove(filter.as_str());
        true
    }

    fn forget(&mut self) {
        self.cache.clear();
        self.last_topic.clear();
        self.last.clear();
    }
}

/// The filter that topics are matched with.
fn plain(filter: &TopicFilter) -> &str {
    filter.shared().map_or(filter.as_str(), |shared| shared.filter)
}

/// Topics remembered; a client that sees more of them matches filters again.
const CACHED_TOPICS_MAX: usize = 16_384;
