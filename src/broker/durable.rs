//! What the shards of a broker with a store share: the store, the time of day, the log of retained messages, and, until
//! the shards have taken it, what was loaded.
//!
//! Before any shard runs, what the last broker left half done is settled in one batch ([`recover`]): messages that one
//! shard's log still answers for to another shard are given to the sessions they were for. No shard submits anything
//! until that batch is committed, so a second crash finds either all of it or nothing.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::message::Message;
use crate::{
    codec::{QoS, Text, topic},
    router::{RetainedStore, TopicHasher},
    store::{
        Contents, Handover, Id, Life, LogId, Record, Relay, SessionContents, Store, StoreError, SubscriptionState,
        Ticket,
    },
};

/// The shared part.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) store: Arc<dyn Store>,
    /// A moment and its Unix time.
    clock: (Instant, Duration),
    /// The batch that everything else builds on, in the shared log.
    pub(crate) recovery: Ticket,
    /// Shards name things above this.
    pub(crate) count_max: u64,
    shared_log: Mutex<SharedLog>,
    /// What each shard is to take at its start.
    shares: Mutex<Vec<Share>>,
}

/// Records of the shared log in the order in which what they tell of happened.
#[derive(Debug, Default)]
struct SharedLog {
    records: Vec<Record>,
    last: Ticket,
}

/// The sessions of one shard, and the messages of all.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) sessions: Vec<(Text, SessionContents)>,
    pub(crate) messages: Arc<BTreeMap<Id, Arc<Message>>>,
}

impl Durable {
    /// Loads a store, settles what was left half done, and fills `retained`.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        life: Life,
        clock: (Instant, Duration),
        retained: &mut RetainedStore<Arc<Message>>,
    ) -> Result<Self, StoreError> {
        let mut contents = store.load()?;
        let batch = recover(&contents, life);
        for record in &batch {
            contents.apply(LogId::SHARED, record.clone());
        }
        let recovery = store.submit(LogId::SHARED, batch);
        let mut durable = Self {
            store,
            clock,
            recovery,
            count_max: contents.count_max,
            shared_log: Mutex::new(SharedLog { records: Vec::new(), last: recovery }),
            shares: Mutex::default(),
        };
        for (topic, message) in std::mem::take(&mut contents.retained) {
            retained.insert(&topic, Arc::new(durable.message(message)));
        }
        durable.shares = Mutex::new(durable.split(contents, life));
        Ok(durable)
    }

    /// What a shard is to take; empty the second time.
    pub(crate) fn take_share(&self, shard: usize) -> Share {
        self.shares.lock().get_mut(shard).map(std::mem::take).unwrap_or_default()
    }

    /// Adds to the shared log. To be called under the lock that orders what the record tells of.
    pub(crate) fn record_shared(&self, record: Record) {
        self.shared_log.lock().records.push(record);
    }

    /// Submits what is in the shared log, whoever put it there; the ticket of all that was ever in it.
    pub(crate) fn submit_shared(&self) -> Ticket {
        // The lock is held while submitting, so that batches go out in the order of their records.
        let mut log = self.shared_log.lock();
        if !log.records.is_empty() {
            let batch = std::mem::take(&mut log.records);
            log.last = self.store.submit(LogId::SHARED, batch);
        }
        log.last
    }

    /// Unix time in milliseconds of a moment.
    pub(crate) fn unix_ms(&self, at: Instant) -> u64 {
        let (base, unix) = self.clock;
        let unix = unix + at.saturating_duration_since(base);
        let unix = unix.saturating_sub(base.saturating_duration_since(at));
        u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of a Unix time in milliseconds. What lies before the start, or further back than can be told, is
    /// past all the same.
    pub(crate) fn instant(&self, unix_ms: u64) -> Instant {
        let (base, unix) = self.clock;
        let at = Duration::from_millis(unix_ms);
        match at.checked_sub(unix) {
            Some(later) => base.checked_add(later).unwrap_or(base + FAR),
            None => base.checked_sub(unix.saturating_sub(at)).unwrap_or(base),
        }
    }

    /// A message as the broker keeps it.
    pub(crate) fn message(&self, message: crate::store::Message) -> Message {
        let payload = &message.payload;
        let mut kept = Message::of(&message.topic, &message.properties, payload, || payload.clone());
        (kept.qos, kept.retain) = (message.qos, message.retain);
        kept.expires_at = message.expires_at.map(|at| self.instant(at));
        kept
    }

    /// A message as the store keeps it.
    pub(crate) fn stored(&self, message: &Message) -> crate::store::Message {
        crate::store::Message {
            topic: Text::try_from(message.topic()).unwrap_or_default(),
            payload: message.payload_bytes(),
            properties: Bytes::copy_from_slice(message.properties()),
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at.map(|at| self.unix_ms(at)),
        }
    }

    /// Deals the sessions out to the shards that are their home now.
    fn split(&self, contents: Contents, life: Life) -> Vec<Share> {
        let messages = contents.messages.into_iter().map(|(id, kept)| (id, Arc::new(self.message(kept.message))));
        let messages: Arc<BTreeMap<_, _>> = Arc::new(messages.collect());
        let share = || Share { sessions: Vec::new(), messages: Arc::clone(&messages) };
        let mut shares: Vec<Share> = (0..life.shards).map(|_| share()).collect();
        let hasher = TopicHasher::new(life.seed);
        for (client_id, session) in contents.sessions {
            if let Some(share) = shares.get_mut(home(&hasher, life, &client_id)) {
                share.sessions.push((client_id, session));
            }
        }
        shares
    }
}

/// The first batch of a broker: who it is, and what the last one's relays come to.
fn recover(contents: &Contents, life: Life) -> Vec<Record> {
    let mut records = Vec::new();
    let mut count = contents.count_max;
    for (id, relay) in &contents.relays {
        let taken = contents.taken.get(&(LogId(relay.to), id.log()));
        if taken.is_none_or(|taken| taken < id) {
            for (client_id, handover) in heirs(contents, relay) {
                count += 1;
                let delivery = Id::new(count, LogId::SHARED);
                records.push(Record::Queued { client_id, delivery, message: relay.message, handover });
            }
        }
    }
    // Last, since it forgets the relays and with them what only they refer to.
    records.push(Record::Life(life));
    records
}

/// The sessions that a relay was for, and how each is to have the message.
fn heirs(contents: &Contents, relay: &Relay) -> Vec<(Text, Handover)> {
    let Some(message) = contents.messages.get(&relay.message).map(|kept| &kept.message) else { return Vec::new() };
    let mut heirs = Vec::new();
    if let Some(member) = &relay.member {
        // The member that was chosen, or, if it has left, any other.
        let of = |client_id: &Text| {
            let session = contents.sessions.get(client_id)?;
            let subscription = session.subscriptions.get(&member.filter)?;
            Some((client_id.clone(), handover(message, &[*subscription], Some(&member.filter))))
        };
        heirs.extend(of(&member.client_id).or_else(|| contents.sessions.keys().find_map(of)));
    } else if let Some(last) = contents.life {
        let hasher = TopicHasher::new(last.seed);
        for (client_id, session) in &contents.sessions {
            if home(&hasher, last, client_id) != usize::from(relay.to) {
                continue;
            }
            // `$share/...` cannot match here: no client may publish to such a topic and be routed by it.
            let matching = session
                .subscriptions
                .iter()
                .filter(|(filter, _)| !filter.starts_with("$share/") && topic::matches(filter, &message.topic));
            let matching: Vec<_> = matching.map(|(_, subscription)| *subscription).collect();
            if !matching.is_empty() {
                heirs.push((client_id.clone(), handover(message, &matching, None)));
            }
        }
    }
    heirs.retain(|(_, handover)| handover.qos != QoS::AtMostOnce);
    heirs
}

/// One delivery by all of a session's subscriptions that match.
fn handover(message: &crate::store::Message, by: &[SubscriptionState], share: Option<&Text>) -> Handover {
    let qos = by.iter().map(|subscription| subscription.options.qos).max().unwrap_or_default();
    Handover {
        qos: qos.min(message.qos),
        retain: message.retain && by.iter().any(|subscription| subscription.options.retain_as_published),
        ids: by.iter().filter_map(|subscription| subscription.id).collect(),
        share: share.cloned(),
    }
}

fn home(hasher: &TopicHasher, life: Life, client_id: &str) -> usize {
    (hasher.text(client_id) % u64::from(life.shards.max(1))) as usize
}

/// Further ahead than any interval of the protocol reaches.
const FAR: Duration = Duration::from_hours(200 * 365 * 24);
