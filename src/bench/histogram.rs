//! Times in buckets that are never wider than 1/256 of what they hold: two medians that are told apart differ by that.

/// Counts of values; what is read out is at most 0.4 % too large.
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Histogram {
    /// An empty one; 116 KiB.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into(), count: 0, sum: 0, min: u64::MAX, max: 0 }
    }

    /// Counts a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Counts all that another one has.
    pub fn add(&mut self, other: &Self) {
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 of none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The least; 0 of none.
    pub fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The greatest.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that this share of all, 0 to 1, does not exceed.
    #[allow(clippy::cast_sign_loss)] // a share of a count is not negative
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(at).min(self.max);
            }
        }
        self.max
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (half, most) = (self.quantile(0.5), self.quantile(0.99));
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("p50", &half)
            .field("p99", &most)
            .finish_non_exhaustive()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Below [`STEPS`] every value has its own; above, each power of two has that many.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(STEPS.trailing_zeros() + 1);
    ((value >> shift) + u64::from(shift) * STEPS) as usize
}

/// The greatest value of a bucket.
fn upper(at: usize) -> u64 {
    let at = at as u64;
    let shift = (at / STEPS).saturating_sub(1);
    ((at - shift * STEPS + 1) << shift).wrapping_sub(1)
}

const STEPS: u64 = 256;
const BUCKETS: usize = (STEPS * 58) as usize;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_known_values() {
        let mut histogram = Histogram::new();
        assert_eq!((histogram.quantile(0.5), histogram.min(), histogram.max()), (0, 0, 0));
        (1..=1_000).for_each(|value| histogram.record(value * 1_000));
        for (share, exact) in [(0.0, 1_000), (0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let found = histogram.quantile(share);
            assert!(found >= exact && found - exact <= exact / 250, "{share}: {found} for {exact}");
        }
        assert_eq!((histogram.min(), histogram.max(), histogram.count()), (1_000, 1_000_000, 1_000));
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(value in 0..u64::MAX >> 1) {
            let at = bucket(value);
            prop_assert!(at < BUCKETS);
            prop_assert!(upper(at) >= value && upper(at) - value <= value / 256);
            prop_assert!(at == 0 || upper(at - 1) < value);
        }
    }
}
