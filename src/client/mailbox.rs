//! The bounded queue between the client's task and one consumer of messages.
//!
//! The task fills it in batches: one lock and at most one wake for all that one read brought. A consumer takes single
//! messages, up to some number, or the whole queue by a swap. Waking happens on the edge from empty to not empty,
//! and only if somebody waits or a hook is set.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::{Mutex, MutexGuard};

use super::{Error, Message};
use crate::{codec::Text, session::client::AckHandle};

/// Bounds of a mailbox, and what happens at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxOptions {
    /// Messages at most. Default 65,536.
    pub messages_max: usize,
    /// Bytes at most. Default 64 MiB. A single larger message still fits into an empty mailbox.
    pub bytes_max: usize,
    /// What happens at the bounds.
    pub overflow: Overflow,
    /// When QoS 1 and 2 messages are acknowledged.
    pub ack: AckPolicy,
}

/// What happens when a mailbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The client stops reading the socket until there is room: nothing is lost, and everything waits.
    #[default]
    Block,
    /// The oldest messages go.
    DropOldest,
    /// New messages go.
    DropNew,
    /// A message replaces the waiting one of the same topic; beyond the bound the oldest go.
    LatestPerTopic,
    /// The subscription ends with [`Error::Overflow`].
    Error,
}

/// When a QoS 1 or 2 message is acknowledged to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckPolicy {
    /// When it is in the mailbox.
    #[default]
    Auto,
    /// When the consumer asks for the next one.
    Processed,
    /// When the consumer says so.
    Manual,
}

impl Default for MailboxOptions {
    fn default() -> Self {
        Self { messages_max: 65_536, bytes_max: 64 << 20, overflow: Overflow::Block, ack: AckPolicy::Auto }
    }
}

/// Called when a mailbox is no longer empty, or is closed. Runs on the client's task: it must be short.
pub type ReadyHook = Arc<dyn Fn() + Send + Sync>;

/// A bounded queue of messages with one producer.
pub(super) struct Mailbox {
    options: MailboxOptions,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// With [`Overflow::LatestPerTopic`]: where each topic's message is, counted from the first message ever.
    latest: HashMap<Text, u64>,
    /// Number of the message at the front, so counted.
    first: u64,
    consumer: Option<Waker>,
    producer: Option<Waker>,
    hook: Option<ReadyHook>,
    dropped: u64,
    end: Option<End>,
}

enum End {
    Closed,
    Failed(Error),
}

impl Mailbox {
    pub(super) fn new(options: MailboxOptions) -> Arc<Self> {
        Arc::new(Self { options, queue: Mutex::new(Queue::default()) })
    }

    pub(super) fn options(&self) -> &MailboxOptions {
        &self.options
    }

    /// Moves `batch` in. What is left in it did not fit: `producer` is woken when there is room. Messages that were
    /// dropped and must be acknowledged nevertheless go to `unclaimed`.
    pub(super) fn deliver(&self, batch: &mut VecDeque<Message>, unclaimed: &mut Vec<AckHandle>, producer: &Waker) {
        let mut queue = self.queue.lock();
        let was_empty = queue.messages.is_empty();
        if was_empty && self.takes_whole(batch, &queue) {
            queue.bytes = batch.iter().map(Message::cost_bytes).sum();
            std::mem::swap(&mut queue.messages, batch);
        } else {
            while let Some(message) = batch.pop_front() {
                if let Some(refused) = queue.admit(message, &self.options, unclaimed) {
                    batch.push_front(refused);
                    queue.producer = Some(producer.clone());
                    break;
                }
            }
        }
        let is_edge = (was_empty && !queue.messages.is_empty()) || queue.end.is_some();
        wake_consumer(queue, is_edge);
    }

    /// Moves messages in beyond the bounds: the last ones there will be.
    pub(super) fn force(&self, messages: VecDeque<Message>) {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            queue.dropped += messages.len() as u64;
            return;
        }
        let is_edge = queue.messages.is_empty() && !messages.is_empty();
        for message in messages {
            queue.push(message);
        }
        wake_consumer(queue, is_edge);
    }

    /// The oldest message, and a few more for `batch` if no policy could still change them; `Ready(None)` when none
    /// will ever come.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>, batch: &mut VecDeque<Message>) -> Poll<Option<Message>> {
        let mut queue = self.queue.lock();
        if let Some(message) = queue.pop() {
            if self.options.overflow == Overflow::Block {
                batch.extend(std::iter::from_fn(|| queue.pop()).take(BATCH_MESSAGES));
            }
            self.wake_producer(queue);
            return Poll::Ready(Some(message));
        }
        if queue.end.is_some() {
            return Poll::Ready(None);
        }
        if !queue.consumer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            queue.consumer = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn try_next(&self) -> Option<Message> {
        let mut queue = self.queue.lock();
        let message = queue.pop();
        self.wake_producer(queue);
        message
    }

    /// Moves up to `max` messages to the end of `into`; how many.
    pub(super) fn drain_into(&self, into: &mut Vec<Message>, max: usize) -> usize {
        let mut queue = self.queue.lock();
        let count = queue.messages.len().min(max);
        into.reserve(count);
        into.extend(std::iter::from_fn(|| queue.pop()).take(count));
        self.wake_producer(queue);
        count
    }

    /// Exchanges the whole queue for `empty`, in constant time.
    pub(super) fn swap(&self, empty: &mut VecDeque<Message>) {
        debug_assert!(empty.is_empty(), "messages in it would be delivered twice");
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.messages, empty);
        queue.bytes = 0;
        queue.first += empty.len() as u64;
        queue.latest.clear();
        self.wake_producer(queue);
    }

    /// No more messages will come; those inside may still be taken. Returns nothing new if it was closed before.
    pub(super) fn close(&self, failure: Option<Error>) {
        let mut queue = self.queue.lock();
        if queue.end.is_none() {
            queue.end = Some(failure.map_or(End::Closed, End::Failed));
        }
        wake_consumer(queue, true);
    }

    /// Closes, and takes out what nobody will take any more.
    pub(super) fn abandon(&self) -> VecDeque<Message> {
        self.close(None);
        let mut messages = VecDeque::new();
        self.swap(&mut messages);
        self.queue.lock().dropped += messages.len() as u64;
        messages
    }

    pub(super) fn set_hook(&self, hook: Option<ReadyHook>) {
        let mut queue = self.queue.lock();
        let is_ready = !queue.messages.is_empty() || queue.end.is_some();
        queue.hook = hook;
        wake_consumer(queue, is_ready);
    }

    pub(super) fn failure(&self) -> Option<Error> {
        match &self.queue.lock().end {
            Some(End::Failed(error)) => Some(error.clone()),
            _ => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue.lock().end.is_some()
    }

    pub(super) fn pending(&self) -> usize {
        self.queue.lock().messages.len()
    }

    /// When the oldest message was received, Unix time in microseconds.
    pub(super) fn oldest_us(&self) -> Option<u64> {
        self.queue.lock().messages.front().map(Message::received_at_us)
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    pub(super) fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// Whether the batch can become the queue as it is: no policy has to look at its messages.
    fn takes_whole(&self, batch: &VecDeque<Message>, queue: &Queue) -> bool {
        let bytes_bound: usize = batch.iter().map(Message::cost_bytes).sum();
        queue.end.is_none()
            && self.options.overflow != Overflow::LatestPerTopic
            && batch.len() <= self.options.messages_max
            && bytes_bound <= self.options.bytes_max
    }

    fn wake_producer(&self, mut queue: MutexGuard<'_, Queue>) {
        // Half empty: one wake for many messages, and the socket is read in large steps.
        let has_room =
            queue.messages.len() <= self.options.messages_max / 2 && queue.bytes <= self.options.bytes_max / 2;
        let producer = if has_room { queue.producer.take() } else { None };
        drop(queue);
        if let Some(producer) = producer {
            producer.wake();
        }
    }
}

/// Messages taken out under one lock.
const BATCH_MESSAGES: usize = 64;

impl Queue {
    /// Takes the message in by the policy; gives it back if it has to wait.
    fn admit(&mut self, message: Message, options: &MailboxOptions, unclaimed: &mut Vec<AckHandle>) -> Option<Message> {
        if self.end.is_some() {
            self.discard(&message, unclaimed);
            return None;
        }
        if options.overflow == Overflow::LatestPerTopic {
            return self.admit_latest(message, options, unclaimed);
        }
        if self.has_room(&message, options) {
            self.push(message);
            return None;
        }
        match options.overflow {
            Overflow::Block => return Some(message),
            Overflow::DropNew => self.discard(&message, unclaimed),
            Overflow::DropOldest | Overflow::LatestPerTopic => {
                self.make_room(&message, options, unclaimed);
                self.push(message);
            }
            Overflow::Error => {
                self.end = Some(End::Failed(Error::Overflow { messages: self.messages.len() }));
                self.discard(&message, unclaimed);
            }
        }
        None
    }

    fn admit_latest(
        &mut self,
        message: Message,
        options: &MailboxOptions,
        unclaimed: &mut Vec<AckHandle>,
    ) -> Option<Message> {
        let topic = Text::try_from(message.topic()).unwrap_or_default();
        let known = self.latest.get(&topic).and_then(|number| usize::try_from(number - self.first).ok());
        if let Some(waiting) = known.and_then(|at| self.messages.get_mut(at)) {
            self.bytes = self.bytes - waiting.cost_bytes() + message.cost_bytes();
            let replaced = std::mem::replace(waiting, message);
            self.discard(&replaced, unclaimed);
            return None;
        }
        self.make_room(&message, options, unclaimed);
        self.latest.insert(topic, self.first + self.messages.len() as u64);
        self.push(message);
        None
    }

    fn has_room(&self, message: &Message, options: &MailboxOptions) -> bool {
        self.messages.is_empty()
            || (self.messages.len() < options.messages_max && self.bytes + message.cost_bytes() <= options.bytes_max)
    }

    fn make_room(&mut self, message: &Message, options: &MailboxOptions, unclaimed: &mut Vec<AckHandle>) {
        while !self.has_room(message, options) {
            let Some(oldest) = self.pop() else { return };
            self.discard(&oldest, unclaimed);
        }
    }

    fn discard(&mut self, message: &Message, unclaimed: &mut Vec<AckHandle>) {
        self.dropped += 1;
        unclaimed.extend(message.ack_handle());
    }

    fn push(&mut self, message: Message) {
        self.bytes += message.cost_bytes();
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.cost_bytes();
        self.first += 1;
        if !self.latest.is_empty() {
            self.latest.remove(message.topic());
        }
        Some(message)
    }
}

/// Unlocks, then wakes who waits and calls the hook, if there is something new to see.
fn wake_consumer(mut queue: MutexGuard<'_, Queue>, is_edge: bool) {
    if !is_edge {
        return;
    }
    let (waker, hook) = (queue.consumer.take(), queue.hook.clone());
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
    if let Some(hook) = hook {
        hook();
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue.lock();
        f.debug_struct("Mailbox")
            .field("options", &self.options)
            .field("pending", &queue.messages.len())
            .field("dropped", &queue.dropped)
            .finish_non_exhaustive()
    }
}
