//! Values under small integer keys: O(1) insert and remove, freed keys are used again.

use std::mem;

/// A vector with holes. Keys are `u32`, because everything that points into a slab is packed beside three others.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// First free slot, or [`NONE`].
    free: u32,
    len: usize,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// One past the highest key ever in use since the slab was last empty.
    pub(super) fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free == NONE {
            let key = u32::try_from(self.slots.len()).ok().filter(|key| *key != NONE);
            self.slots.push(Slot::Used(value));
            return key.expect("memory ends before four billion entries");
        }
        let key = self.free;
        let slot = &mut self.slots[key as usize];
        let Slot::Free { next } = mem::replace(slot, Slot::Used(value)) else {
            unreachable!("the free list holds only free slots")
        };
        self.free = next;
        key
    }

    /// Takes the value out. The memory of all slots is given back when the last value leaves.
    pub(super) fn remove(&mut self, key: u32) -> T {
        let slot = mem::replace(&mut self.slots[key as usize], Slot::Free { next: self.free });
        let Slot::Used(value) = slot else { unreachable!("a key is removed once") };
        self.free = key;
        self.len -= 1;
        if self.len == 0 {
            *self = Self::new();
        }
        value
    }

    #[inline]
    pub(super) fn get(&self, key: u32) -> Option<&T> {
        match self.slots.get(key as usize) {
            Some(Slot::Used(value)) => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        match self.slots.get_mut(key as usize) {
            Some(Slot::Used(value)) => Some(value),
            _ => None,
        }
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, key: u32) -> &T {
        self.get(key).expect("a key in use")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, key: u32) -> &mut T {
        self.get_mut(key).expect("a key in use")
    }
}

#[derive(Debug)]
enum Slot<T> {
    Used(T),
    Free { next: u32 },
}

/// The key that is never issued.
pub(super) const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_keys_are_used_again_and_an_empty_slab_holds_no_memory() {
        let mut slab = Slab::new();
        let keys: Vec<u32> = (0..4).map(|n| slab.insert(n)).collect();
        assert_eq!(slab.remove(keys[1]), 1);
        assert_eq!(slab.remove(keys[2]), 2);
        assert_eq!(slab.get(keys[1]), None);
        assert_eq!(slab.insert(20), keys[2]);
        assert_eq!(slab.insert(10), keys[1]);
        assert_eq!(slab.end(), 4);
        assert_eq!((slab[keys[1]], slab[keys[2]], slab.len()), (10, 20, 4));
        for key in keys {
            slab.remove(key);
        }
        assert_eq!((slab.len(), slab.end(), slab.slots.capacity()), (0, 0, 0));
    }
}
