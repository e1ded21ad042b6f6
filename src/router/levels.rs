//! Topic levels as numbers: each distinct level text is kept once and compared as a `u32` ever after.
//!
//! A topic is looked up level by level in several nodes of a trie; interning pays the text comparison once per level
//! instead of once per node, and a level that nobody subscribed to ends the search at once.

use std::hash::{BuildHasher, Hasher};

use foldhash::{SharedSeed, fast::SeedableRandomState};
use smallvec::SmallVec;

use super::{index::Index, slab::Slab};

/// Level texts in use, each under a number, with the count of their users.
#[derive(Debug)]
pub(super) struct Levels {
    hasher: SeedableRandomState,
    numbers: Index,
    texts: Slab<Level>,
}

impl Levels {
    pub(super) fn new(seed: u64) -> Self {
        Self { hasher: hash_state(seed), numbers: Index::new(), texts: Slab::new() }
    }

    /// The number of `text`, if it is in use.
    #[inline]
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.find_hashed(self.hash(text.as_bytes()), text)
    }

    /// The number of `text`, which has one user more now.
    pub(super) fn acquire(&mut self, text: &str) -> u32 {
        let hash = self.hash(text.as_bytes());
        if let Some(number) = self.find_hashed(hash, text) {
            self.texts[number].users += 1;
            return number;
        }
        let number = self.texts.insert(Level { text: SmallVec::from_slice(text.as_bytes()), users: 1 });
        self.numbers.insert(hash, number);
        number
    }

    /// Takes one user away; the text is forgotten with its last user.
    pub(super) fn release(&mut self, number: u32) {
        let level = &mut self.texts[number];
        level.users -= 1;
        if level.users == 0 {
            let level = self.texts.remove(number);
            self.numbers.remove(self.hash(&level.text), |other| other == number);
        }
    }

    pub(super) fn text(&self, number: u32) -> &str {
        std::str::from_utf8(&self.texts[number].text).expect("a level is made from text")
    }

    pub(super) fn starts_with(&self, number: u32, start: u8) -> bool {
        self.texts[number].text.first() == Some(&start)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    #[inline]
    fn find_hashed(&self, hash: u64, text: &str) -> Option<u32> {
        self.numbers.find(hash, |number| *self.texts[number].text == *text.as_bytes())
    }

    #[inline]
    fn hash(&self, text: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.finish()
    }
}

/// Short texts are kept in place: comparing one is one cache line, not two.
#[derive(Debug)]
struct Level {
    text: SmallVec<[u8; 16]>,
    users: u32,
}

/// A hash state for tables of this module; `seed` keeps hostile texts from being crafted to collide.
pub(super) fn hash_state(seed: u64) -> SeedableRandomState {
    SeedableRandomState::with_seed(seed, SharedSeed::global_fixed())
}

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
}
