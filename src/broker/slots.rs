//! A slab whose keys carry a generation, so that a key kept too long finds nothing instead of a stranger.

use std::marker::PhantomData;

/// Key of a connection inside its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    /// The key as a number, for instance as a poll token.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Index of the slot: small, and reused after the connection is gone.
    pub const fn index(self) -> usize {
        (self.0 & 0xFFFF_FFFF) as usize
    }
}

/// A key that a [`Slots`] hands out.
pub(crate) trait Key: Copy {
    fn from_bits(bits: u64) -> Self;
    fn bits(self) -> u64;
}

impl Key for ConnId {
    fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
    fn bits(self) -> u64 {
        self.0
    }
}

impl Key for crate::router::SessionKey {
    fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
    fn bits(self) -> u64 {
        self.0
    }
}

/// The slab.
#[derive(Debug)]
pub(crate) struct Slots<K, T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    key: PhantomData<K>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<K: Key, T> Slots<K, T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), key: PhantomData }
    }

    pub(crate) fn insert(&mut self, value: T) -> K {
        if let Some(index) = self.free.pop() {
            let entry = self.entries.get_mut(index as usize).expect("a free index lies inside the slab");
            entry.value = Some(value);
            return K::from_bits(u64::from(entry.generation) << 32 | u64::from(index));
        }
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 entries");
        self.entries.push(Entry { generation: 1, value: Some(value) });
        K::from_bits(1 << 32 | u64::from(index))
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let (index, generation) = split(key);
        let entry = self.entries.get(index)?;
        if entry.generation == generation { entry.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (index, generation) = split(key);
        let entry = self.entries.get_mut(index)?;
        if entry.generation == generation { entry.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let (index, generation) = split(key);
        let entry = self.entries.get_mut(index)?;
        if entry.generation != generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1).max(1);
        self.free.push(index as u32);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let key = K::from_bits(u64::from(entry.generation) << 32 | index as u64);
            entry.value.as_ref().map(|value| (key, value))
        })
    }

    pub(crate) fn keys(&self) -> Vec<K> {
        self.iter().map(|(key, _)| key).collect()
    }
}

fn split<K: Key>(key: K) -> (usize, u32) {
    ((key.bits() & 0xFFFF_FFFF) as usize, (key.bits() >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_after_its_slot_is_reused() {
        let mut slots: Slots<ConnId, &str> = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.index(), second.index());
        assert_eq!((slots.get(first), slots.get(second)), (None, Some(&"second")));
        assert_eq!((slots.remove(first), slots.keys().len()), (None, 1));
    }
}
