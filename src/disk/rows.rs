//! Changes of rows that are to be written: the last word on each, in the order of the keys.
//!
//! Most of what a broker or client has to remember is over soon after it began. A row that is made and removed before
//! the next transaction begins never reaches the file.

use std::collections::{BTreeMap, btree_map::Entry};

use smallvec::SmallVec;

/// The key of a row: its kind in the first byte, then whatever orders the rows of that kind.
pub(crate) type Key = SmallVec<[u8; 24]>;

/// A value that is encoded when it is written.
pub(crate) trait Encode {
    fn encode(&self, out: &mut Vec<u8>);
}

/// Changes of rows.
#[derive(Debug)]
pub(crate) struct Rows<V> {
    changes: BTreeMap<Key, Change<V>>,
    /// Everything whose key begins so goes, but for what `changes` says.
    prefixes: Vec<Key>,
}

/// What becomes of one row.
#[derive(Debug)]
pub(crate) enum Change<V> {
    /// The file has none with this key.
    New(V),
    /// The file may have one.
    Put(V),
    Remove,
}

impl<V> Rows<V> {
    pub(crate) const fn new() -> Self {
        Self { changes: BTreeMap::new(), prefixes: Vec::new() }
    }

    /// A row that is not there.
    pub(crate) fn add(&mut self, key: Key, value: V) {
        match self.changes.entry(key) {
            Entry::Occupied(mut entry) => drop(entry.insert(Change::Put(value))),
            Entry::Vacant(entry) => drop(entry.insert(Change::New(value))),
        }
    }

    /// A row, in place of one that may be there.
    pub(crate) fn put(&mut self, key: Key, value: V) {
        match self.changes.entry(key) {
            Entry::Occupied(mut entry) => {
                let is_new = matches!(entry.get(), Change::New(_));
                entry.insert(if is_new { Change::New(value) } else { Change::Put(value) });
            }
            Entry::Vacant(entry) => drop(entry.insert(Change::Put(value))),
        }
    }

    /// The row goes, if there is one; whether the file may have it.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        match self.changes.entry(key) {
            Entry::Occupied(entry) if matches!(entry.get(), Change::New(_)) => {
                entry.remove();
                return false;
            }
            Entry::Occupied(mut entry) => drop(entry.insert(Change::Remove)),
            Entry::Vacant(entry) => drop(entry.insert(Change::Remove)),
        }
        true
    }

    /// All rows go whose keys begin so; the file has none of them if `in_file` is false.
    pub(crate) fn remove_all(&mut self, prefix: Key, in_file: bool) {
        let rest = self.changes.range(prefix.clone()..);
        let keys: Vec<_> = rest.map(|(key, _)| key).take_while(|key| key.starts_with(&prefix)).cloned().collect();
        for key in keys {
            self.changes.remove(&key);
        }
        if in_file {
            self.prefixes.push(prefix);
        }
    }

    /// Whether the file is as it should be.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.prefixes.is_empty()
    }

    /// It is now.
    pub(crate) fn clear(&mut self) {
        self.changes.clear();
        self.prefixes.clear();
    }

    pub(super) fn prefixes(&self) -> &[Key] {
        &self.prefixes
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = (&Key, &Change<V>)> {
        self.changes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::from_slice(text.as_bytes())
    }

    #[test]
    fn what_is_over_before_it_was_written_leaves_nothing() {
        let mut rows = Rows::new();
        rows.add(key("a"), 1);
        rows.put(key("a"), 2);
        assert!(!rows.remove(key("a")));
        assert!(rows.is_empty());
        rows.put(key("b"), 1);
        assert!(rows.remove(key("b")));
        assert!(!rows.is_empty());
        // The file may still have the first one.
        rows.add(key("b"), 2);
        assert!(rows.remove(key("b")));
        assert!(!rows.is_empty());
    }

    #[test]
    fn a_prefix_takes_what_was_changed_before_and_leaves_what_comes_after() {
        let mut rows = Rows::new();
        rows.add(key("s1"), 1);
        rows.add(key("t1"), 2);
        rows.remove_all(key("s"), true);
        rows.put(key("s2"), 3);
        let left: Vec<_> = rows.changes().map(|(key, _)| key.to_vec()).collect();
        assert_eq!(left, [b"s2".to_vec(), b"t1".to_vec()]);
        assert_eq!(rows.prefixes(), [key("s")]);
    }
}
