//! Topic levels as numbers: each distinct level text is kept once and compared as a `u32` ever after.
//!
//! A topic is looked up level by level in several nodes of a trie; interning pays the text comparison once per level
//! instead of once per node, and a level that nobody subscribed to ends the search at once.

use std::{collections::HashMap, sync::Arc};

use foldhash::{SharedSeed, fast::SeedableRandomState};

use super::slab::Slab;

/// Level texts in use, each under a number, with the count of their users.
#[derive(Debug)]
pub(super) struct Levels {
    numbers: HashMap<Arc<str>, u32, SeedableRandomState>,
    texts: Slab<Level>,
}

impl Levels {
    pub(super) fn new(seed: u64) -> Self {
        Self { numbers: HashMap::with_hasher(hash_state(seed)), texts: Slab::new() }
    }

    /// The number of `text`, if it is in use.
    #[inline]
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The number of `text`, which has one user more now.
    pub(super) fn acquire(&mut self, text: &str) -> u32 {
        if let Some(number) = self.find(text) {
            self.texts[number].users += 1;
            return number;
        }
        let text: Arc<str> = text.into();
        let number = self.texts.insert(Level { text: Arc::clone(&text), users: 1 });
        self.numbers.insert(text, number);
        number
    }

    /// Takes one user away; the text is forgotten with its last user.
    pub(super) fn release(&mut self, number: u32) {
        let level = &mut self.texts[number];
        level.users -= 1;
        if level.users > 0 {
            return;
        }
        let level = self.texts.remove(number);
        self.numbers.remove(&level.text);
        let (len, capacity) = (self.numbers.len(), self.numbers.capacity());
        if is_sparse(len, capacity) {
            self.numbers.shrink_to(len * 2);
        }
    }

    pub(super) fn text(&self, number: u32) -> &str {
        &self.texts[number].text
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }
}

#[derive(Debug)]
struct Level {
    text: Arc<str>,
    users: u32,
}

/// A hash state for maps of this module; `seed` keeps hostile texts from being crafted to collide.
pub(super) fn hash_state(seed: u64) -> SeedableRandomState {
    SeedableRandomState::with_seed(seed, SharedSeed::global_fixed())
}

/// Whether so little of `capacity` is used that giving memory back is worth the copy. A quarter, so that the next
/// shrinking or growing is at least `len` operations away and the cost per operation stays constant.
pub(super) const fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > SPARSE_MIN && len < capacity / 4
}

/// Below this, memory is not worth giving back.
const SPARSE_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_lives_as_long_as_it_has_users() {
        let mut levels = Levels::new(1);
        let plant = levels.acquire("plant");
        assert_eq!(levels.acquire("plant"), plant);
        assert_ne!(levels.acquire(""), plant);
        assert_eq!((levels.text(plant), levels.len()), ("plant", 2));
        levels.release(plant);
        assert_eq!(levels.find("plant"), Some(plant));
        levels.release(plant);
        assert_eq!(levels.find("plant"), None);
        assert_eq!(levels.len(), 1);
    }

    #[test]
    fn the_map_shrinks_after_a_storm() {
        let mut levels = Levels::new(1);
        let numbers: Vec<u32> = (0..10_000).map(|n| levels.acquire(&n.to_string())).collect();
        for number in &numbers[..9_990] {
            levels.release(*number);
        }
        assert!(levels.numbers.capacity() <= 2 * SPARSE_MIN, "{}", levels.numbers.capacity());
        assert_eq!(levels.find("9999"), Some(numbers[9_999]));
    }
}
