//! When to try again: exponential back-off with full jitter.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use super::Reconnect;

/// The waits between attempts.
#[derive(Debug)]
pub(super) struct Backoff {
    settings: Reconnect,
    attempts: u32,
    random: u64,
}

impl Backoff {
    pub(super) fn new(settings: Reconnect) -> Self {
        let random = settings.seed.unwrap_or_else(random);
        Self { settings, attempts: 0, random }
    }

    /// The next wait, or `None` when all attempts are spent.
    pub(super) fn next(&mut self) -> Option<Duration> {
        if self.settings.attempts_max.is_some_and(|max| self.attempts >= max) {
            return None;
        }
        let exponent = i32::try_from(self.attempts).unwrap_or(i32::MAX);
        self.attempts = self.attempts.saturating_add(1);
        let bound = self.settings.min.as_secs_f64() * self.settings.factor.max(1.0).powi(exponent);
        let bound = bound.min(self.settings.max.as_secs_f64());
        Some(Duration::from_secs_f64(bound * self.unit()))
    }

    /// A connection lasted: the next loss begins with short waits again.
    pub(super) fn reset(&mut self, connected_for: Duration) {
        if connected_for >= self.settings.stable_after {
            self.attempts = 0;
        }
    }

    /// A random number from 0 to 1 (SplitMix64: well mixed from any seed, and two lines).
    #[allow(clippy::cast_precision_loss)] // 53 bits are kept
    fn unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A random number. A hasher of the standard library is keyed at random: entropy without another crate.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(seed: u64) -> Backoff {
        Backoff::new(Reconnect { seed: Some(seed), ..Reconnect::default() })
    }

    #[test]
    fn waits_are_jittered_below_a_bound_that_doubles_to_thirty_seconds() {
        for seed in 0..200 {
            let mut backoff = seeded(seed);
            for attempt in 0..40 {
                let bound = (0.1 * 2f64.powi(attempt)).min(30.0);
                assert!(backoff.next().unwrap().as_secs_f64() <= bound);
            }
        }
        let longest = (0..200).map(|seed| seeded(seed).next().unwrap()).max().unwrap();
        assert!(longest > Duration::from_millis(90), "jitter must reach up to the bound, was {longest:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| (0..10).map_while(|_| seeded(seed).next()).collect::<Vec<_>>();
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }

    #[test]
    fn a_lasting_connection_starts_anew_and_attempts_run_out() {
        let mut backoff = Backoff::new(Reconnect { attempts_max: Some(2), ..Reconnect::default() });
        assert!(backoff.next().is_some() && backoff.next().is_some());
        backoff.reset(Duration::from_secs(1));
        assert!(backoff.next().is_none());
        backoff.reset(Duration::from_secs(10));
        assert!(backoff.next().is_some());
    }
}
