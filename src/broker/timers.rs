//! Deadlines of a shard: a binary heap of lazy entries.
//!
//! Activity never touches the heap. A connection or session has one entry at its earliest known deadline; when that
//! fires, the owner looks at its true deadline and either acts or is put back. A heap and not a wheel: entries are
//! one per owner, re-armed at most once a keep-alive, and exact deadlines make virtual time exact.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use super::slots::ConnId;
use crate::router::SessionKey;

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// CONNECT deadline, keep-alive, stall.
    Conn(ConnId),
    /// Will delay, session expiry.
    Session(SessionKey),
    /// `$SYS` topics.
    Sys,
    /// Expired retained and queued messages.
    Sweep,
}

/// The heap.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
}

impl Timers {
    /// Adds an entry.
    pub(crate) fn arm(&mut self, at: Instant, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    /// Takes the earliest entry that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }

    /// When the next entry is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

/// Remembers the earliest entry an owner has in the heap, so that it has few.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Armed(Option<Instant>);

impl Armed {
    /// Makes sure that an entry at or before `at` is in the heap.
    pub(crate) fn ensure(&mut self, timers: &mut Timers, at: Option<Instant>, timer: Timer) {
        let Some(at) = at else { return };
        if self.0.is_none_or(|armed| at < armed) {
            timers.arm(at, timer);
            self.0 = Some(at);
        }
    }

    /// The entry has fired.
    pub(crate) fn fired(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_fire_in_order_and_an_owner_arms_only_what_is_earlier() {
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        let (mut timers, mut armed) = (Timers::default(), Armed::default());
        armed.ensure(&mut timers, at(5), Timer::Sys);
        armed.ensure(&mut timers, at(9), Timer::Sys);
        armed.ensure(&mut timers, at(2), Timer::Sys);
        assert_eq!(timers.heap.len(), 2);
        assert_eq!(timers.next(), at(2));
        assert_eq!(timers.pop_due(start), None);
        assert_eq!(timers.pop_due(start + Duration::from_secs(2)), Some(Timer::Sys));
        assert_eq!(timers.next(), at(5));
    }
}
