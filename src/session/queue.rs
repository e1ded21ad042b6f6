//! The queue of messages that wait for room in the window or for their client: bounded by count and by bytes.

use std::{collections::VecDeque, time::Instant};

use super::Stored;
use crate::codec::QoS;

/// Messages waiting, oldest first.
#[derive(Debug)]
pub struct Queue<M> {
    messages: VecDeque<M>,
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
        Self { messages: VecDeque::new(), bytes: 0, once: 0 }
    }

    /// Messages that a store has kept, oldest first. They were within the limits once.
    pub fn restore(messages: impl IntoIterator<Item = M>) -> Self {
        let messages: VecDeque<M> = messages.into_iter().collect();
        let bytes = messages.iter().map(Stored::bytes).sum();
        let once = messages.iter().filter(|message| is_once(*message)).count();
        Self { messages, bytes, once }
    }

    /// Appends a message within `limits`.
    pub fn push(&mut self, message: M, limits: &QueueLimits) -> Result<(), Full<M>> {
        let bytes = message.bytes();
        let fits = |queue: &Self| {
            queue.messages.len() < limits.messages_max && queue.bytes.saturating_add(bytes) <= limits.bytes_max
        };
        if fits(self) {
            self.append(message, bytes);
            return Ok(());
        }
        if !limits.drop_oldest || bytes > limits.bytes_max || limits.messages_max == 0 {
            return Err(Full::New(message));
        }
        let mut dropped = Vec::new();
        while !fits(self) {
            dropped.extend(self.pop());
        }
        self.append(message, bytes);
        Err(Full::Oldest(dropped))
    }

    /// The oldest message.
    pub fn front(&self) -> Option<&M> {
        self.messages.front()
    }

    /// Takes the oldest message.
    pub fn pop(&mut self) -> Option<M> {
        let message = self.messages.pop_front()?;
        self.forget(&message);
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
        Some(message)
    }

    /// Moves the messages that `take` picks to `taken`.
    pub fn withdraw(&mut self, take: &mut impl FnMut(&M) -> bool, taken: &mut Vec<M>) {
        for message in std::mem::take(&mut self.messages) {
            if take(&message) {
                self.forget(&message);
                taken.push(message);
            } else {
                self.messages.push_back(message);
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
        self.messages.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
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
        self.messages.iter()
    }

    /// The messages alone.
    pub fn into_messages(self) -> impl Iterator<Item = M> {
        self.messages.into_iter()
    }

    fn append(&mut self, message: M, bytes: usize) {
        self.bytes += bytes;
        self.once += usize::from(is_once(&message));
        self.messages.push_back(message);
    }

    fn forget(&mut self, message: &M) {
        self.bytes -= message.bytes();
        self.once -= usize::from(is_once(message));
    }
}

impl<M: Stored> Default for Queue<M> {
    fn default() -> Self {
        Self::new()
    }
}

fn is_once(message: &impl Stored) -> bool {
    message.qos() == QoS::AtMostOnce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::QoS;

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
