//! Deadlines of a shard: a binary heap of lazy entries.
//!
//! Activity never touches the heap. A connection or session has one entry at its earliest known deadline; when that
//! fires, the owner looks at its true deadline and either acts or is put back. A heap and not a wheel: entries are
//! one per owner, re-armed at most once a keep-alive, and exact deadlines make virtual time exact.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use super::{
    moment::{Epoch, Moment},
    slots::{ConnId, Key},
};
use crate::router::SessionKey;

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// CONNECT deadline, keep-alive, stall.
    Conn(ConnId),
    /// Will delay, session expiry.
    Session(SessionKey),
    /// A scan of the retained messages that has had its turn and is to go on.
    Scan(SessionKey),
    /// Those who wait for a turn of the shard.
    Turn,
    /// `$SYS` topics.
    Sys,
    /// Expired retained and queued messages.
    Sweep,
    /// The rest of a sweep through the cached routes.
    Routes,
}

/// The heap.
#[derive(Debug)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
    epoch: Epoch,
}

/// A moment and whose it is, in 16 bytes: there is one for each connection. Its order is that of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The moment, and in the two lowest bits which kind of owner.
    at_and_kind: u64,
    generation: u32,
    index: u32,
}

impl Entry {
    fn new(at: Moment, timer: Timer) -> Self {
        let (kind, (generation, index)) = match timer {
            Timer::Conn(id) => (0, id.parts()),
            Timer::Session(key) => (1, key.parts()),
            Timer::Scan(key) => (2, key.parts()),
            Timer::Turn => (2, SessionKey::first(NOBODY).parts()),
            Timer::Sys => (HOUSEKEEPING, SessionKey::first(SYS).parts()),
            Timer::Sweep => (HOUSEKEEPING, SessionKey::first(SWEEP).parts()),
            Timer::Routes => (HOUSEKEEPING, SessionKey::first(ROUTES).parts()),
        };
        Self { at_and_kind: at.get() << 2 | kind, generation: generation.get(), index }
    }

    fn at(self, epoch: Epoch) -> Instant {
        epoch.instant(Moment::from_get(self.at_and_kind >> 2))
    }

    fn is_housekeeping(self) -> bool {
        self.at_and_kind & 3 == HOUSEKEEPING
    }

    fn timer(self) -> Timer {
        let generation = self.generation.try_into().expect("generations are not 0");
        match self.at_and_kind & 3 {
            0 => Timer::Conn(ConnId::new(generation, self.index)),
            1 => Timer::Session(SessionKey::new(generation, self.index)),
            2 if self.index == NOBODY => Timer::Turn,
            2 => Timer::Scan(SessionKey::new(generation, self.index)),
            _ if self.index == SYS => Timer::Sys,
            _ if self.index == SWEEP => Timer::Sweep,
            _ => Timer::Routes,
        }
    }
}

impl Timers {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { heap: BinaryHeap::new(), epoch }
    }

    /// Adds an entry.
    pub(crate) fn arm(&mut self, at: Instant, timer: Timer) {
        self.push(self.epoch.moment(at), timer);
    }

    /// Takes the earliest entry that is due, and when it was.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Moment, Timer)> {
        let Reverse(entry) = self.heap.peek()?;
        let at = Moment::from_get(entry.at_and_kind >> 2);
        if at > self.epoch.moment(now) {
            return None;
        }
        let entry = self.heap.pop()?.0;
        // After a burst of connections the memory goes back.
        if self.heap.capacity() > HEAP_KEPT && self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to(self.heap.len() * 2);
        }
        Some((at, entry.timer()))
    }

    /// When the next entry is due that is not the broker's own housekeeping. Looks through the heap; for tests.
    pub(crate) fn next_of_clients(&self) -> Option<Instant> {
        let first = match self.heap.peek() {
            Some(Reverse(entry)) if !entry.is_housekeeping() => Some(*entry),
            _ => self.heap.iter().map(|entry| entry.0).filter(|entry| !entry.is_housekeeping()).min(),
        };
        first.map(|entry| entry.at(self.epoch))
    }

    /// When the next entry is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at(self.epoch))
    }

    fn push(&mut self, at: Moment, timer: Timer) {
        self.heap.push(Reverse(Entry::new(at, timer)));
    }
}

/// Remembers the earliest entry an owner has in the heap, so that it has few.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Armed(Option<Moment>);

impl Armed {
    /// Makes sure that an entry at or before `at` is in the heap.
    #[inline]
    pub(crate) fn ensure(&mut self, timers: &mut Timers, at: Option<Moment>, timer: Timer) {
        let Some(at) = at else { return };
        if self.0.is_none_or(|armed| at < armed) {
            timers.push(at, timer);
            self.0 = Some(at);
        }
    }

    /// An entry has fired; whether it is the one that counts. One that an earlier entry has replaced is over: were it
    /// armed again, its owner would have two for ever.
    pub(crate) fn fired(&mut self, at: Moment) -> bool {
        self.0.take_if(|armed| *armed == at).is_some()
    }
}

/// The kind of what is nobody's, and its two numbers.
const HOUSEKEEPING: u64 = 3;
/// No session has this index.
const NOBODY: u32 = u32::MAX;
const SYS: u32 = 0;
const SWEEP: u32 = 1;
const ROUTES: u32 = 2;

/// Entries that are not worth giving back (64 KiB).
const HEAP_KEPT: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_fire_in_order_and_an_owner_arms_only_what_is_earlier() {
        let start = Instant::now();
        let epoch = Epoch::new(start);
        let at = |seconds| Some(epoch.moment(start + Duration::from_secs(seconds)));
        let (mut timers, mut armed) = (Timers::new(epoch), Armed::default());
        armed.ensure(&mut timers, at(5), Timer::Sys);
        armed.ensure(&mut timers, at(9), Timer::Sys);
        armed.ensure(&mut timers, at(2), Timer::Sys);
        assert_eq!(timers.heap.len(), 2);
        assert_eq!(timers.next(), Some(start + Duration::from_secs(2)));
        assert_eq!(timers.pop_due(start), None);
        let (first, _) = timers.pop_due(start + Duration::from_secs(2)).expect("it is due");
        assert!(armed.fired(first));
        assert_eq!(timers.next(), Some(start + Duration::from_secs(5)));
    }

    #[test]
    fn an_entry_that_was_replaced_is_not_armed_again() {
        let start = Instant::now();
        let epoch = Epoch::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut timers, mut armed) = (Timers::new(epoch), Armed::default());
        let moment = |seconds| Some(epoch.moment(at(seconds)));
        armed.ensure(&mut timers, moment(5), Timer::Sys);
        for stall in 1..1000 {
            // Each time something earlier comes up, and is over when it fires.
            armed.ensure(&mut timers, moment(stall), Timer::Sys);
            while let Some((due, _)) = timers.pop_due(at(stall)) {
                if armed.fired(due) {
                    armed.ensure(&mut timers, moment(stall + 5), Timer::Sys);
                }
            }
            assert!(timers.heap.len() <= 7, "{} entries for one owner", timers.heap.len());
        }
    }

    #[test]
    fn entries_keep_their_owners_and_a_burst_leaves_no_memory() {
        let start = Instant::now();
        let mut timers = Timers::new(Epoch::new(start));
        let generation = std::num::NonZeroU32::MAX;
        let (conn, key) = (ConnId::new(generation, u32::MAX), SessionKey::new(generation, 7));
        let owners = [
            Timer::Conn(conn),
            Timer::Session(key),
            Timer::Scan(key),
            Timer::Turn,
            Timer::Sys,
            Timer::Sweep,
            Timer::Routes,
        ];
        for (n, timer) in (0..).zip(owners) {
            timers.arm(start + Duration::from_nanos(n), timer);
        }
        assert_eq!(timers.next_of_clients(), Some(start));
        let later = start + Duration::from_secs(1);
        for timer in owners {
            assert_eq!(timers.pop_due(later).map(|(_, timer)| timer), Some(timer));
        }
        (0..50_000).for_each(|_| timers.arm(start, Timer::Conn(conn)));
        while timers.pop_due(later).is_some() {}
        assert!(timers.heap.capacity() <= HEAP_KEPT, "{}", timers.heap.capacity());
    }
}
