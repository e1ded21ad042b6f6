//! Hash index of small integers: hash -> where the thing with that hash is kept.
//!
//! The things themselves (a node, a level's text, a cached route) carry their own keys, so the index holds eight bytes
//! each and asks the caller which of the candidates is meant: one cache line here, one there. A general map keeps its
//! keys a second time and touches two lines of its own before it can compare.
//!
//! Open addressing with linear probing; removal shifts back what follows, so there are no tombstones and long-lived
//! tables do not degrade.

use super::slab::NONE;

/// Values below [`NONE`] under hashes; the caller tells equal hashes apart.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// A power of two of them, or none; never all in use.
    slots: Box<[Slot]>,
    len: usize,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The value under `hash` that `is_meant`.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_meant: impl Fn(u32) -> bool) -> Option<u32> {
        self.position(hash, is_meant).map(|at| self.slots[at].value)
    }

    /// What stands where the search for `hash` begins. Whoever asks for several one after the other waits for memory once,
    /// since no answer depends on the one before.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u32 {
        let mask = self.slots.len().wrapping_sub(1);
        self.slots.get(tag(hash) as usize & mask).map_or(NONE, |slot| slot.value)
    }

    /// The first value under a hash that looks like this one: most likely the one that is meant.
    #[inline]
    pub(crate) fn guess(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Adds `value` under `hash`; it must not be there yet.
    pub(crate) fn insert(&mut self, hash: u64, value: u32) {
        debug_assert_ne!(value, NONE, "reserved for empty slots");
        if self.len + self.len / 3 >= self.slots.len() {
            self.resize((self.len + 1) * 2);
        }
        self.len += 1;
        self.place(Slot { tag: tag(hash), value });
    }

    /// Puts `value` in the place of the value under `hash` that `is_meant`.
    pub(crate) fn replace(&mut self, hash: u64, is_meant: impl Fn(u32) -> bool, value: u32) {
        let at = self.position(hash, is_meant).expect("what is replaced is there");
        self.slots[at].value = value;
    }

    /// Takes out the value under `hash` that `is_meant`.
    pub(crate) fn remove(&mut self, hash: u64, is_meant: impl Fn(u32) -> bool) -> Option<u32> {
        let mut hole = self.position(hash, is_meant)?;
        let value = self.slots[hole].value;
        let mask = self.slots.len() - 1;
        let mut at = (hole + 1) & mask;
        while self.slots[at].value != NONE {
            // What sits at or after the hole as seen from its home may move into the hole.
            let home = self.slots[at].tag as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.slots[hole] = Slot::EMPTY;
        self.len -= 1;
        // Grown at three quarters, shrunk at an eighth: never both in a few operations.
        if self.len == 0 || self.slots.len() > SHRINK_MIN && self.len < self.slots.len() / 8 {
            self.resize(self.len * 2);
        }
        Some(value)
    }

    #[inline]
    fn position(&self, hash: u64, is_meant: impl Fn(u32) -> bool) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let tag = tag(hash);
        let mut at = tag as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.value == NONE {
                return None;
            }
            if slot.tag == tag && is_meant(slot.value) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.tag as usize & mask;
        while self.slots[at].value != NONE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Makes room for `count` values at a load of at most three quarters. Tags suffice to find the new places.
    fn resize(&mut self, count: usize) {
        let size = if count == 0 { 0 } else { count.next_power_of_two().max(SLOTS_MIN) };
        let old = std::mem::replace(&mut self.slots, vec![Slot::EMPTY; size].into());
        old.into_iter().filter(|slot| slot.value != NONE).for_each(|slot| self.place(slot));
    }
}

/// Eight bytes, so that a cache line holds the usual probe.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Half of the hash: the low bits are the home, the others spare the caller most comparisons.
    tag: u32,
    value: u32,
}

impl Slot {
    const EMPTY: Self = Self { tag: 0, value: NONE };
}

const fn tag(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

const SLOTS_MIN: usize = 8;
/// Below this, memory is not worth giving back (8 KiB).
const SHRINK_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn an_index_holds_what_a_map_does(
            changes in vec((any::<bool>(), 0u32..60), 0..400),
            // Few homes and few tags: long runs, wrapping around the end, equal tags.
            homes in 1u64..70,
        ) {
            let mut index = Index::new();
            let mut map = BTreeSet::new();
            let hash = |value: u32| (u64::from(value) % homes).wrapping_mul(0x0101_0101_0000_0000).rotate_left(7);
            for (inserts, value) in changes {
                if inserts && map.insert(value) {
                    index.insert(hash(value), value);
                } else if !inserts {
                    let removed = index.remove(hash(value), |other| other == value);
                    prop_assert_eq!(removed.is_some(), map.remove(&value));
                }
                prop_assert_eq!(index.len(), map.len());
                for value in 0..60 {
                    let found = index.find(hash(value), |other| other == value);
                    prop_assert_eq!(found, map.contains(&value).then_some(value));
                }
            }
        }
    }

    #[test]
    fn an_index_grows_and_shrinks_with_what_it_holds() {
        let mut index = Index::new();
        let hash = |value: u32| u64::from(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..10_000).for_each(|value| index.insert(hash(value), value));
        let full = index.slots.len();
        assert!((13_000..40_000).contains(&full), "{full}");
        for value in 0..9_990 {
            assert_eq!(index.remove(hash(value), |other| other == value), Some(value));
        }
        assert!(index.slots.len() <= SHRINK_MIN, "{}", index.slots.len());
        for value in 9_990..10_000 {
            index.replace(hash(value), |other| other == value, value + 1_000_000);
            let found = index.remove(hash(value), |other| other == value + 1_000_000);
            assert_eq!(found, Some(value + 1_000_000));
        }
        assert_eq!((index.len(), index.slots.len()), (0, 0));
    }
}
