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
    /// A scan of the retained messages that has had its turn and is to go on.
    Scan(SessionKey),
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

    /// Takes the earliest entry that is due, and when it was.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// When the next entry is due that is not the broker's own housekeeping. Looks through the heap; for tests.
    pub(crate) fn next_of_clients(&self) -> Option<Instant> {
        let is_housekeeping = |timer: &Timer| matches!(timer, Timer::Sys | Timer::Sweep);
        match self.heap.peek() {
            Some(Reverse((at, timer))) if !is_housekeeping(timer) => Some(*at),
            _ => self.heap.iter().filter(|entry| !is_housekeeping(&entry.0.1)).map(|entry| entry.0.0).min(),
        }
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

    /// An entry has fired; whether it is the one that counts. One that an earlier entry has replaced is over: were it
    /// armed again, its owner would have two for ever.
    pub(crate) fn fired(&mut self, at: Instant) -> bool {
        self.0.take_if(|armed| *armed == at).is_some()
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
        let (first, _) = timers.pop_due(start + Duration::from_secs(2)).expect("it is due");
        assert!(armed.fired(first));
        assert_eq!(timers.next(), at(5));
    }

    #[test]
    fn an_entry_that_was_replaced_is_not_armed_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut timers, mut armed) = (Timers::default(), Armed::default());
        armed.ensure(&mut timers, Some(at(5)), Timer::Sys);
        for stall in 1..1000 {
            // Each time something earlier comes up, and is over when it fires.
            armed.ensure(&mut timers, Some(at(stall)), Timer::Sys);
            while let Some((due, _)) = timers.pop_due(at(stall)) {
                if armed.fired(due) {
                    armed.ensure(&mut timers, Some(at(stall + 5)), Timer::Sys);
                }
            }
            assert!(timers.heap.len() <= 7, "{} entries for one owner", timers.heap.len());
        }
    }
}
