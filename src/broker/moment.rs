//! Points in time as half of what an `Instant` takes: there are several for each connection.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// Nanoseconds since an [`Epoch`], and one. 146 years fit beside the two bits that timers add; what is later counts as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(NonZeroU64);

/// What a shard counts time from. What was before it counts as it: that is past, and that is all that matters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) const fn new(start: Instant) -> Self {
        Self(start)
    }

    #[inline]
    pub(crate) fn moment(self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.0);
        let nanoseconds = since.as_secs().saturating_mul(1_000_000_000).saturating_add(since.subsec_nanos().into());
        Moment::new(nanoseconds)
    }

    pub(crate) fn instant(self, moment: Moment) -> Instant {
        self.0 + Duration::from_nanos(moment.0.get() - 1)
    }
}

impl Moment {
    /// Later by this much.
    pub(crate) fn after(self, milliseconds: u64) -> Self {
        Self::new((self.0.get() - 1).saturating_add(milliseconds.saturating_mul(1_000_000)))
    }

    /// As a number below 2^62.
    pub(super) const fn get(self) -> u64 {
        self.0.get()
    }

    /// What [`Self::get`] has given.
    pub(super) fn from_get(number: u64) -> Self {
        Self::new(number.saturating_sub(1))
    }

    fn new(nanoseconds: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanoseconds.min(NANOSECONDS_MAX)))
    }
}

const NANOSECONDS_MAX: u64 = (1 << 62) - 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_order_and_exactness_and_end_somewhere() {
        let start = Instant::now();
        let epoch = Epoch::new(start);
        for nanoseconds in [0, 1, 999_999_999, 1_000_000_001, u64::from(u32::MAX) * 1_000_000_000] {
            let at = start + Duration::from_nanos(nanoseconds);
            assert_eq!(epoch.instant(epoch.moment(at)), at);
            assert_eq!(epoch.moment(at).after(1500), epoch.moment(at + Duration::from_millis(1500)));
        }
        assert!(epoch.moment(start) < epoch.moment(start + Duration::from_nanos(1)));
        assert_eq!(epoch.moment(start), Epoch::new(start + Duration::from_secs(1)).moment(start));
        assert_eq!(epoch.moment(start).after(u64::MAX).get(), (1 << 62) - 1);
        assert_eq!(size_of::<Option<Moment>>(), 8);
    }
}
