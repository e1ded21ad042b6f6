//! The queue of messages that wait for room in the window or for their client: bounded by count and by bytes.
//!
//! Several messages may stand in it as one entry ([`Stored::count`]); they count, and leave, as the messages they are.

use std::{collections::VecDeque, time::Instant};

use super::Stored;
use crate::codec::QoS;

/// Messages waiting, oldest first.
#[derive(Debug)]
pub struct Queue<M> {
    entries: VecDeque<M>,
    /// Messages, of which an entry may be several.
    len: usize,
    bytes: usize,
    /// Those of QoS 0 among them.
    once: usize,
}

/// The bounds of a queue and what happens at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages at most.
    pub messages_max: usize,
    /// Bytes at most, as [`Stored::bytes`] counts them.
    pub bytes_max: usize,
    /// Make room by dropping the oldest instead of refusing the new.
    pub drop_oldest: bool,
}

/// The queue was full, and these were dropped.
#[derive(Debug, PartialEq, Eq)]
pub enum Full<M> {
    /// The new message.
    New(M),
    /// The oldest ones, to make room for the new.
    Oldest(Vec<M>),
}

impl<M: Stored> Queue<M> {
    /// An empty queue; takes no heap.
    pub const fn new() -> Self {
        Self { entries: VecDeque::new(), len: 0, bytes: 0, once: 0 }
    }

    /// Messages that a store has kept, oldest first. They were within the limits once.
    pub fn restore(messages: impl IntoIterator<Item = M>) -> Self {
        let mut queue = Self::new();
        messages.into_iter().for_each(|message| queue.append(message));
        queue
    }

    /// Appends a message, or several as one, within `limits`.
    pub fn push(&mut self, message: M, limits: &QueueLimits) -> Result<(), Full<M>> {
        let (count, bytes) = (message.count(), message.bytes());
        let fits = |queue: &Self| {
            queue.len.saturating_add(count) <= limits.messages_max
                && queue.bytes.saturating_add(bytes) <= limits.bytes_max
        };
        if fits(self) {
            self.append(message);
            return Ok(());
        }
        if !limits.drop_oldest || bytes > limits.bytes_max || count > limits.messages_max {
            return Err(Full::New(message));
        }
        let mut dropped = Vec::new();
        while !fits(self) {
            dropped.extend(self.pop());
        }
        self.append(message);
        Err(Full::Oldest(dropped))
    }

    /// The oldest message, with those behind it that wait as one with it.
    pub fn front(&self) -> Option<&M> {
        self.entries.front()
    }

    /// Takes the oldest message.
    pub fn pop(&mut self) -> Option<M> {
        self.pop_several(1)
    }

    /// Takes the oldest message and, if several wait as one, up to `count` of them.
    pub fn pop_several(&mut self, count: usize) -> Option<M> {
        if let Some(first) = self.entries.front_mut()?.split(count) {
            self.forget(&first);
            return Some(first);
        }
        let entry = self.entries.pop_front()?;
        self.forget(&entry);
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        Some(entry)
    }

    /// Moves the entries that `take` picks to `taken`.
    pub fn withdraw(&mut self, take: &mut impl FnMut(&M) -> bool, taken: &mut Vec<M>) {
        for entry in std::mem::take(&mut self.entries) {
            if take(&entry) {
                self.forget(&entry);
                taken.push(entry);
            } else {
                self.entries.push_back(entry);
            }
        }
    }

    /// Removes what has expired.
    pub fn sweep(&mut self, now: Instant, mut dropped: impl FnMut(M)) {
        let mut expired = Vec::new();
        self.withdraw(&mut |message| message.expires_at().is_some_and(|at| at <= now), &mut expired);
        expired.into_iter().for_each(&mut dropped);
    }

    /// Messages waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a message of QoS 0 is: later ones wait behind it.
    #[inline]
    pub fn has_once(&self) -> bool {
        self.once > 0
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &M> {
        self.entries.iter()
    }

    /// The messages alone.
    pub fn into_messages(self) -> impl Iterator<Item = M> {
        self.entries.into_iter()
    }

    fn append(&mut self, entry: M) {
        self.len += entry.count();
        self.bytes += entry.bytes();
        self.once += once(&entry);
        self.entries.push_back(entry);
    }

    fn forget(&mut self, entry: &M) {
        self.len -= entry.count();
        self.bytes -= entry.bytes();
        self.once -= once(entry);
    }
}

impl<M: Stored> Default for Queue<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// How many of its messages have QoS 0.
fn once(entry: &impl Stored) -> usize {
    if entry.qos() == QoS::AtMostOnce { entry.count() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::QoS;

    /// Messages of these sizes as one.
    #[derive(Debug, PartialEq, Eq, Clone)]
    struct Several(Vec<usize>);

    impl Stored for Several {
        fn qos(&self) -> QoS {
            QoS::AtLeastOnce
        }
        fn bytes(&self) -> usize {
            self.0.iter().sum()
        }
        fn expires_at(&self) -> Option<Instant> {
            None
        }
        fn count(&self) -> usize {
            self.0.len()
        }
        fn split(&mut self, count: usize) -> Option<Self> {
            (count < self.0.len()).then(|| Self(self.0.drain(..count).collect()))
        }
    }

    #[test]
    fn several_that_wait_as_one_count_and_leave_as_the_messages_they_are() {
        let limits = QueueLimits { messages_max: 6, bytes_max: 100, drop_oldest: false };
        let mut queue = Queue::new();
        queue.push(Several(vec![1, 2, 3, 4]), &limits).unwrap();
        assert_eq!((queue.len(), queue.bytes()), (4, 10));
        assert_eq!(queue.push(Several(vec![5; 3]), &limits), Err(Full::New(Several(vec![5; 3]))), "all or nothing");
        queue.push(Several(vec![5, 6]), &limits).unwrap();
        assert_eq!(queue.pop(), Some(Several(vec![1])));
        assert_eq!(queue.pop_several(2), Some(Several(vec![2, 3])));
        assert_eq!((queue.len(), queue.bytes()), (3, 15));
        assert_eq!(queue.pop_several(9), Some(Several(vec![4])), "no further than one entry");
        assert_eq!(queue.pop_several(9), Some(Several(vec![5, 6])));
        assert_eq!((queue.len(), queue.bytes(), queue.pop()), (0, 0, None));
    }

    #[test]
    fn the_oldest_of_several_that_wait_as_one_make_room_one_by_one() {
        let limits = QueueLimits { messages_max: 4, bytes_max: 10, drop_oldest: true };
        let mut queue = Queue::new();
        queue.push(Several(vec![1, 2, 3]), &limits).unwrap();
        let dropped = queue.push(Several(vec![6]), &limits);
        assert_eq!(dropped, Err(Full::Oldest(vec![Several(vec![1]), Several(vec![2])])), "no more than must go");
        assert_eq!((queue.len(), queue.bytes()), (2, 9));
        assert_eq!(queue.push(Several(vec![1; 5]), &limits), Err(Full::New(Several(vec![1; 5]))), "never fits");
    }

    #[derive(Debug, PartialEq, Eq, Clone, Copy)]
    struct Sized(usize);

    impl Stored for Sized {
        fn qos(&self) -> QoS {
            QoS::AtLeastOnce
        }
        fn bytes(&self) -> usize {
            self.0
        }
        fn expires_at(&self) -> Option<Instant> {
            None
        }
    }

    const fn limits(drop_oldest: bool) -> QueueLimits {
        QueueLimits { messages_max: 3, bytes_max: 10, drop_oldest }
    }

    #[test]
    fn the_new_message_is_refused_when_count_or_bytes_are_spent() {
        let mut queue = Queue::new();
        assert_eq!(queue.push(Sized(4), &limits(false)), Ok(()));
        assert_eq!(queue.push(Sized(7), &limits(false)), Err(Full::New(Sized(7))));
        assert_eq!(queue.push(Sized(3), &limits(false)), Ok(()));
        assert_eq!(queue.push(Sized(3), &limits(false)), Ok(()));
        assert_eq!(queue.push(Sized(0), &limits(false)), Err(Full::New(Sized(0))));
        assert_eq!((queue.len(), queue.bytes()), (3, 10));
    }

    #[test]
    fn the_oldest_make_room_when_so_asked() {
        let mut queue = Queue::new();
        for bytes in [4, 3, 3] {
            queue.push(Sized(bytes), &limits(true)).unwrap();
        }
        assert_eq!(queue.push(Sized(6), &limits(true)), Err(Full::Oldest(vec![Sized(4), Sized(3)])));
        assert_eq!((queue.len(), queue.bytes()), (2, 9));
        assert_eq!(queue.push(Sized(11), &limits(true)), Err(Full::New(Sized(11))));
    }
}
