//! What has come of one publisher's numbered messages: how many, how often, in what order.

use std::collections::BTreeSet;

/// One stream of numbers that should come as 0, 1, 2 and so on, each once.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// All below have come, or are missing.
    next: u32,
    missing: BTreeSet<u32>,
    received: u64,
    duplicates: u64,
    late: u64,
}

impl Tracker {
    /// A number has come.
    #[inline]
    pub(super) fn record(&mut self, number: u32) {
        if number == self.next {
            self.next += 1;
            self.received += 1;
            return;
        }
        if number > self.next {
            // Beyond the bound a number that comes late counts as one that came twice; of so many, most are lost.
            let room = MISSING_MAX.saturating_sub(self.missing.len());
            self.missing.extend((self.next..number).take(room));
            self.next = number + 1;
            self.received += 1;
        } else if self.missing.remove(&number) {
            self.late += 1;
            self.received += 1;
        } else {
            self.duplicates += 1;
        }
    }

    /// Different numbers that have come.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Times that one came again.
    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Numbers that came after a greater one.
    pub(super) fn late(&self) -> u64 {
        self.late
    }
}

/// Missing numbers remembered of one stream.
const MISSING_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_repetitions_and_disorder_are_told_apart() {
        let mut tracker = Tracker::default();
        for number in [0, 1, 1, 4, 2, 5, 4, 5] {
            tracker.record(number);
        }
        assert_eq!((tracker.received(), tracker.duplicates(), tracker.late()), (5, 3, 1));
        assert_eq!(tracker.missing.iter().copied().collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_gap_without_end_takes_bounded_memory() {
        let mut tracker = Tracker::default();
        tracker.record(u32::MAX - 1);
        assert_eq!((tracker.missing.len(), tracker.received()), (MISSING_MAX, 1));
    }
}
