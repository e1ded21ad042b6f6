//! One direction of a connection: what waits to be forwarded, and when it may be.

use std::{collections::VecDeque, time::Instant};

use bytes::{Buf, Bytes, BytesMut};

/// Bytes on their way, in order.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Read, and no whole packet yet.
    pub(super) partial: BytesMut,
    queue: VecDeque<Held>,
    /// What others may overtake.
    overtaken: Vec<Overtaken>,
    /// When the last of the queue is due.
    last_due: Option<Instant>,
    bytes: usize,
    /// The sender has finished: so shall the receiver, after what waits.
    pub(super) is_finished: bool,
    /// The receiver takes nothing any more.
    pub(super) is_closed: bool,
    /// After what waits, both ends are closed.
    pub(super) is_cut: bool,
}

#[derive(Debug)]
struct Held {
    due: Instant,
    bytes: Bytes,
}

#[derive(Debug)]
struct Overtaken {
    /// How many may still pass it.
    left: u32,
    until: Instant,
    bytes: Bytes,
}

impl Line {
    /// Forwards bytes when they are due, and not before what is ahead of them.
    pub(super) fn push(&mut self, now: Instant, due: Instant, bytes: Bytes) {
        self.enqueue(due, bytes);
        for overtaken in &mut self.overtaken {
            overtaken.left -= 1;
        }
        self.release(now);
    }

    /// Forwards bytes after `by` others, or when that takes too long.
    pub(super) fn push_after(&mut self, by: u32, until: Instant, bytes: Bytes) {
        self.bytes += bytes.len();
        self.overtaken.push(Overtaken { left: by, until, bytes });
    }

    /// Lets go of what has been overtaken often enough, or for long enough.
    pub(super) fn release(&mut self, now: Instant) {
        let is_over = |overtaken: &mut Overtaken| overtaken.left == 0 || overtaken.until <= now;
        for Overtaken { bytes, .. } in self.overtaken.extract_if(.., is_over).collect::<Vec<_>>() {
            self.bytes -= bytes.len();
            self.enqueue(now, bytes);
        }
    }

    fn enqueue(&mut self, due: Instant, bytes: Bytes) {
        let due = self.last_due.map_or(due, |last| last.max(due));
        self.last_due = Some(due);
        self.bytes += bytes.len();
        self.queue.push_back(Held { due, bytes });
    }

    /// What may be forwarded now.
    pub(super) fn front(&self, now: Instant) -> Option<&[u8]> {
        self.queue.front().filter(|held| held.due <= now).map(|held| &held.bytes[..])
    }

    /// So much of [`Self::front`] has been.
    pub(super) fn advance(&mut self, count: usize) {
        let Some(front) = self.queue.front_mut() else { return };
        front.bytes.advance(count);
        self.bytes -= count;
        if front.bytes.is_empty() {
            self.queue.pop_front();
        }
    }

    /// When something else may be.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let queued = self.queue.front().map(|held| held.due);
        self.overtaken.iter().map(|overtaken| overtaken.until).chain(queued).min()
    }

    /// Packets, or pieces of them, that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.overtaken.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Throws everything away.
    pub(super) fn discard(&mut self) {
        self.partial.clear();
        self.queue.clear();
        self.overtaken.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn drain(line: &mut Line, now: Instant) -> String {
        let mut text = String::new();
        line.release(now);
        while let Some(front) = line.front(now) {
            text.push_str(std::str::from_utf8(front).unwrap());
            let count = front.len();
            line.advance(count);
        }
        text
    }

    #[test]
    fn a_delay_holds_back_what_is_behind_it() {
        let (mut line, now) = (Line::default(), Instant::now());
        let later = now + Duration::from_secs(5);
        line.push(now, now, Bytes::from_static(b"a"));
        line.push(now, later, Bytes::from_static(b"b"));
        line.push(now, now, Bytes::from_static(b"c"));
        assert_eq!((drain(&mut line, now), line.deadline(), line.bytes()), ("a".into(), Some(later), 2));
        assert_eq!((drain(&mut line, later), line.is_empty(), line.bytes()), ("bc".into(), true, 0));
    }

    #[test]
    fn what_is_overtaken_comes_after_others_or_after_a_while() {
        let (mut line, now) = (Line::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        line.push_after(2, later, Bytes::from_static(b"a"));
        line.push(now, now, Bytes::from_static(b"b"));
        assert_eq!(drain(&mut line, now), "b");
        line.push(now, now, Bytes::from_static(b"c"));
        assert_eq!(drain(&mut line, now), "ca");
        line.push_after(2, later, Bytes::from_static(b"d"));
        assert_eq!((drain(&mut line, now), line.deadline()), (String::new(), Some(later)));
        assert_eq!((drain(&mut line, later), line.bytes()), ("d".into(), 0));
    }
}
