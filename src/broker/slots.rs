//! A slab whose keys carry a generation, so that a key kept too long finds nothing instead of a stranger.

use std::{marker::PhantomData, num::NonZeroU32};

use crate::router::SessionKey;

/// Key of a connection inside its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Never 0, so that an `Option<ConnId>` takes no more room.
    generation: NonZeroU32,
    index: u32,
}

impl ConnId {
    /// The key as a number, for instance as a poll token.
    pub const fn as_u64(self) -> u64 {
        (self.generation.get() as u64) << 32 | self.index as u64
    }

    /// Index of the slot: small, and reused after the connection is gone.
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// A key that a [`Slots`] hands out.
pub(crate) trait Key: Copy {
    fn new(generation: NonZeroU32, index: u32) -> Self;
    fn parts(self) -> (NonZeroU32, u32);
}

impl Key for ConnId {
    fn new(generation: NonZeroU32, index: u32) -> Self {
        Self { generation, index }
    }
    fn parts(self) -> (NonZeroU32, u32) {
        (self.generation, self.index)
    }
}

impl Key for SessionKey {
    fn new(generation: NonZeroU32, index: u32) -> Self {
        Self { generation, index }
    }
    fn parts(self) -> (NonZeroU32, u32) {
        (self.generation, self.index)
    }
}

/// The slab: chunks of entries, so that it grows without moving anything and gives back what a burst has left.
#[derive(Debug)]
pub(crate) struct Slots<K, T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks with a free entry, as far as that is known; the last one is filled next.
    open: Vec<u32>,
    /// Of the entry that was inserted last. One count for all, so that a chunk may be forgotten with its entries.
    generation: NonZeroU32,
    key: PhantomData<K>,
}

/// [`CHUNK`] entries, or none: then it takes no memory but this.
#[derive(Debug)]
struct Chunk<T> {
    entries: Box<[Entry<T>]>,
    /// How many are in use.
    len: u32,
    /// Where a free entry may be found soonest.
    free: u32,
    /// Whether it stands in [`Slots::open`].
    is_open: bool,
}

#[derive(Debug)]
struct Entry<T> {
    generation: NonZeroU32,
    value: Option<T>,
}

impl<K: Key, T> Slots<K, T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), open: Vec::new(), generation: NonZeroU32::MAX, key: PhantomData }
    }

    pub(crate) fn insert(&mut self, value: T) -> K {
        let at = self.open_chunk();
        self.generation = self.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let chunk = self.chunks.get_mut(at).expect("an open chunk lies inside the slab");
        if chunk.entries.is_empty() {
            chunk.entries = (0..CHUNK).map(|_| Entry { generation: NonZeroU32::MIN, value: None }).collect();
        }
        let within = (chunk.free as usize..CHUNK).find(|n| chunk.entries[*n].value.is_none()).expect("an open chunk");
        chunk.entries[within] = Entry { generation: self.generation, value: Some(value) };
        chunk.len += 1;
        chunk.free = within as u32 + 1;
        if chunk.len as usize == CHUNK {
            chunk.is_open = false;
            self.open.pop();
        }
        K::new(self.generation, (at * CHUNK + within) as u32)
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let (index, generation) = split(key);
        let entry = self.chunks.get(index / CHUNK)?.entries.get(index % CHUNK)?;
        if entry.generation == generation { entry.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (index, generation) = split(key);
        let entry = self.chunks.get_mut(index / CHUNK)?.entries.get_mut(index % CHUNK)?;
        if entry.generation == generation { entry.value.as_mut() } else { None }
    }

    /// What is at an index, and its key.
    pub(crate) fn at(&self, index: u32) -> Option<(K, &T)> {
        let entry = self.chunks.get(index as usize / CHUNK)?.entries.get(index as usize % CHUNK)?;
        entry.value.as_ref().map(|value| (K::new(entry.generation, index), value))
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let (index, generation) = split(key);
        let (at, within) = (index / CHUNK, index % CHUNK);
        let chunk = self.chunks.get_mut(at)?;
        let entry = chunk.entries.get_mut(within)?;
        if entry.generation != generation {
            return None;
        }
        let value = entry.value.take()?;
        chunk.len -= 1;
        chunk.free = chunk.free.min(within as u32);
        if !chunk.is_open {
            chunk.is_open = true;
            self.open.push(at as u32);
        }
        // One empty chunk stays, so that one client that comes and goes does not make and drop it each time.
        if chunk.len == 0 && at > 0 {
            chunk.entries = Box::default();
            chunk.free = 0;
            self.forget_empty_tail();
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            chunk.entries.iter().enumerate().filter_map(move |(within, entry)| {
                let key = K::new(entry.generation, (at * CHUNK + within) as u32);
                entry.value.as_ref().map(|value| (key, value))
            })
        })
    }

    pub(crate) fn keys(&self) -> Vec<K> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// A chunk with a free entry; it is the last of `open`.
    fn open_chunk(&mut self) -> usize {
        if let Some(at) = self.open.last() {
            return *at as usize;
        }
        let at = self.chunks.len();
        assert!(at * CHUNK <= u32::MAX as usize - CHUNK, "memory ends before four billion entries");
        self.chunks.push(Chunk { entries: Box::default(), len: 0, free: 0, is_open: true });
        self.open.push(at as u32);
        at
    }

    /// Chunks without entries at the end are not filled again before those before them.
    fn forget_empty_tail(&mut self) {
        let used = self.chunks.iter().rposition(|chunk| chunk.len > 0).map_or(1, |at| at + 1);
        // The front of `open` names chunks in no order; a pass over it is paid by the entries of a whole chunk.
        if self.chunks.len() - used > used + TAIL_CHUNKS_MAX {
            self.open.retain(|at| (*at as usize) < used);
            self.chunks.truncate(used);
            self.chunks.shrink_to_fit();
        }
    }
}

fn split<K: Key>(key: K) -> (usize, NonZeroU32) {
    let (generation, index) = key.parts();
    (index as usize, generation)
}

/// Entries that are allocated together: a few KiB.
const CHUNK: usize = 64;

/// Empty chunks at the end that are not worth forgetting (40 bytes each).
const TAIL_CHUNKS_MAX: usize = 1024;

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

    #[test]
    fn a_burst_leaves_no_chunks_behind_and_all_entries_are_found_meanwhile() {
        let mut slots: Slots<ConnId, usize> = Slots::new();
        let keys: Vec<_> = (0..200_000).map(|n| slots.insert(n)).collect();
        assert!(keys.iter().enumerate().all(|(n, key)| slots.get(*key) == Some(&n) && key.index() == n));
        let (stay, go): (Vec<_>, Vec<_>) = keys.into_iter().enumerate().partition(|(n, _)| *n == 3 || *n == 5_000);
        for (n, key) in &go {
            assert_eq!(slots.remove(*key), Some(*n));
        }
        let held = slots.chunks.iter().map(|chunk| chunk.entries.len()).sum::<usize>();
        assert!(held <= 3 * CHUNK, "{held} entries for two");
        assert!(slots.chunks.len() < 2 * TAIL_CHUNKS_MAX, "{} chunks", slots.chunks.len());
        assert!(stay.iter().all(|(n, key)| slots.get(*key) == Some(n)));
        assert!(go.iter().all(|(_, key)| slots.get(*key).is_none()));
        let again: Vec<_> = (0..1_000).map(|n| slots.insert(n)).collect();
        assert!(again.iter().enumerate().all(|(n, key)| slots.get(*key) == Some(&n)));
        assert_eq!(slots.iter().count(), 1_002);
    }
}
