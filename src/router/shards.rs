//! Names of shards and of sessions inside them, and sets of shards as one machine word.

use std::{fmt, num::NonZeroU32};

/// A shard of this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

/// A session inside its shard. Opaque here: the shard that issued it knows what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// Tells it from others that had the same index; never 0, so that a key that may be absent takes no more room.
    pub generation: NonZeroU32,
    /// Where it is kept.
    pub index: u32,
}

impl SessionKey {
    /// The key under which the first session at `index` would be known.
    pub const fn first(index: u32) -> Self {
        Self { generation: NonZeroU32::MIN, index }
    }
}

/// A set of shards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ShardSet(u64);

impl ShardSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// The set that holds only `shard`.
    pub const fn only(shard: ShardId) -> Self {
        Self(bit(shard))
    }

    /// Adds `shard`; whether it was missing.
    pub const fn insert(&mut self, shard: ShardId) -> bool {
        let before = self.0;
        self.0 |= bit(shard);
        before != self.0
    }

    /// Takes `shard` out; whether it was there.
    pub const fn remove(&mut self, shard: ShardId) -> bool {
        let before = self.0;
        self.0 &= !bit(shard);
        before != self.0
    }

    /// Whether `shard` is in the set.
    pub const fn contains(self, shard: ShardId) -> bool {
        self.0 & bit(shard) != 0
    }

    /// Whether no shard is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of shards in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The set without `shard`.
    #[must_use]
    pub const fn without(self, shard: ShardId) -> Self {
        Self(self.0 & !bit(shard))
    }

    /// Every shard of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The shards in ascending order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> + Clone {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let shard = u8::try_from(left.trailing_zeros()).expect("a trailing zero count is at most 64");
            if usize::from(shard) == SHARDS_MAX {
                return None;
            }
            left &= left - 1;
            Some(ShardId(shard))
        })
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        let mut set = Self::EMPTY;
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|shard| shard.0)).finish()
    }
}

const fn bit(shard: ShardId) -> u64 {
    assert!((shard.0 as usize) < SHARDS_MAX, "a shard number is below SHARDS_MAX");
    1 << shard.0
}

/// Most shards a broker may have: a set of them is one word, so that merging routes is one instruction.
pub const SHARDS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_inserted_in_ascending_order() {
        let mut set = ShardSet::EMPTY;
        assert!(set.is_empty());
        assert!(set.insert(ShardId(63)));
        assert!(set.insert(ShardId(0)));
        assert!(set.insert(ShardId(5)));
        assert!(!set.insert(ShardId(5)));
        assert_eq!(set.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 5, 63]);
        assert_eq!(set.len(), 3);
        assert!(set.contains(ShardId(63)) && !set.contains(ShardId(62)));
        assert_eq!(set.without(ShardId(5)), [ShardId(0), ShardId(63)].into_iter().collect());
        assert!(set.remove(ShardId(0)) && !set.remove(ShardId(0)));
        assert_eq!(set.union(ShardSet::only(ShardId(1))).len(), 3);
        assert_eq!(format!("{set:?}"), "{5, 63}");
    }

    #[test]
    #[should_panic(expected = "below SHARDS_MAX")]
    fn a_shard_number_out_of_range_is_our_fault() {
        let _ = ShardSet::only(ShardId(64));
    }
}
