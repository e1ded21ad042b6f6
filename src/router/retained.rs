//! Retained messages: topic -> message, and all messages that a filter matches, in bounded slices.
//!
//! An exact index serves PUBLISH with RETAIN and filters without wildcards in one lookup. For wildcards there is a tree
//! by level, so `plant/+/temp` looks at the children of `plant` only.
//!
//! # Scanning in slices
//! A scan that matches 100,000 messages must not stop the shard, so it is done in slices, and topics may come and go
//! between them. Children of a node are visited in the order of their level *number* (see [`Levels`]), and a
//! [`ScanCursor`] is the path of numbers that was visited last. A level keeps its number as long as any topic uses it, so
//! the path of a topic that exists throughout the scan never changes, and neither does its place relative to the cursor:
//! it is visited exactly once. The cursor moves forward only, in an order on paths that does not depend on what is
//! stored; what it points to may be gone, the scan goes on with what follows. A topic that comes or goes during the scan
//! is visited or not, as chance will have it.

use std::{
    collections::{BTreeMap, btree_map},
    hash::{BuildHasher, Hasher},
    mem,
    ops::Bound,
};

use foldhash::fast::SeedableRandomState;
use smallvec::SmallVec;

use super::{
    index::Index,
    levels::{Levels, hash_state},
    slab::{NONE, Slab},
};

/// Messages by topic.
#[derive(Debug)]
pub struct RetainedStore<M> {
    hasher: SeedableRandomState,
    /// Topic hash -> node.
    exact: Index,
    levels: Levels,
    /// The tree by level. Nodes and their messages lie together, since most nodes are leaves. The root has key 0.
    nodes: Slab<Node<M>>,
    changes: u64,
}

impl<M> RetainedStore<M> {
    /// An empty store. `seed` keeps hostile topics from being crafted to collide.
    pub fn new(seed: u64) -> Self {
        let (hasher, levels) = (hash_state(seed), Levels::new(seed));
        Self { hasher, exact: Index::new(), levels, nodes: only_root(), changes: 0 }
    }

    /// How often a message was replaced or taken out: while this stays, what was found once is still there.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.exact.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message of `topic`.
    pub fn get(&self, topic: &str) -> Option<&M> {
        self.record(topic).map(|record| &record.message)
    }

    /// Keeps `message` for `topic` and returns the one that it replaces.
    pub fn insert(&mut self, topic: &str, message: M) -> Option<M> {
        let hash = self.hash(topic);
        if let Some(record) = self.find(hash, topic).and_then(|node| self.nodes[node].record.as_mut()) {
            self.changes += 1;
            return Some(mem::replace(&mut record.message, message));
        }
        let node = self.make(topic);
        self.nodes[node].record = Some(Record { topic: topic.into(), message });
        self.exact.insert(hash, node);
        None
    }

    /// Takes out the message of `topic`.
    pub fn remove(&mut self, topic: &str) -> Option<M> {
        let node = self.find(self.hash(topic), topic)?;
        self.remove_record(node)
    }

    /// Shows `visit` the messages whose topic `filter` matches, from `cursor` on (from the start without one), until
    /// `steps_max` nodes of the tree have been looked at. Returns where to go on, or `None` when all have been seen; a slice
    /// may well match nothing and still have to be followed by another.
    ///
    /// A topic that starts with `$` is not matched by a filter that starts with a wildcard [MQTT-4.7.2-1].
    pub fn scan<'a>(
        &'a self,
        filter: &str,
        cursor: Option<ScanCursor>,
        steps_max: usize,
        mut visit: impl FnMut(&'a str, &'a M),
    ) -> Option<ScanCursor> {
        if !filter.contains(['+', '#']) {
            if let Some(record) = self.record(filter) {
                visit(&record.topic, &record.message);
            }
            return None;
        }
        let steps = self.steps_of(filter)?;
        let mut scan = Scan { store: self, steps, stack: SmallVec::new(), path: SmallVec::new() };
        match cursor {
            None => scan.descend(&self.nodes[ROOT], None),
            Some(ScanCursor(path)) => scan.resume(&path),
        }
        for _ in 0..steps_max.max(1) {
            let node = scan.next()?;
            if scan.is_hidden() {
                continue;
            }
            let node = &self.nodes[node];
            if let Some(record) = node.record.as_ref().filter(|_| scan.is_match()) {
                visit(&record.topic, &record.message);
            }
            if !node.children.is_empty() {
                scan.descend(node, None);
            }
        }
        Some(ScanCursor(scan.path))
    }

    /// Removes the messages that `expired` says so of, looking at `steps_max` nodes of the tree from `cursor` on (from the
    /// start without one). Returns where to go on, or `None` when all have been seen.
    ///
    /// Messages keep their place as long as their topic has one, so one that exists throughout the sweep is looked at
    /// once.
    pub fn sweep(
        &mut self,
        cursor: Option<SweepCursor>,
        steps_max: usize,
        mut expired: impl FnMut(&M) -> bool,
    ) -> Option<SweepCursor> {
        let start = cursor.map_or(ROOT, |SweepCursor(node)| node);
        let reach = u32::try_from(steps_max.max(1)).unwrap_or(u32::MAX);
        let end = self.nodes.end().min(start.saturating_add(reach));
        for at in start..end {
            let record = self.nodes.get(at).and_then(|node| node.record.as_ref());
            if record.is_some_and(|record| expired(&record.message)) {
                self.remove_record(at);
            }
        }
        (end < self.nodes.end()).then_some(SweepCursor(end))
    }

    fn record(&self, topic: &str) -> Option<&Record<M>> {
        let node = self.find(self.hash(topic), topic)?;
        self.nodes[node].record.as_ref()
    }

    /// The node that holds the message of `topic`.
    fn find(&self, hash: u64, topic: &str) -> Option<u32> {
        self.exact.find(hash, |node| self.nodes[node].record.as_ref().is_some_and(|record| *record.topic == *topic))
    }

    fn hash(&self, topic: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(topic.as_bytes());
        hasher.finish()
    }

    fn remove_record(&mut self, at: u32) -> Option<M> {
        let Record { topic, message } = self.nodes[at].record.take()?;
        self.changes += 1;
        self.exact.remove(self.hash(&topic), |node| node == at);
        self.prune(at);
        if self.is_empty() {
            // Only the root is left: give the arena back.
            self.nodes = only_root();
        }
        Some(message)
    }

    /// The node of `topic`, made if missing.
    fn make(&mut self, topic: &str) -> u32 {
        let mut at = ROOT;
        for text in topic.split('/') {
            let known = self.levels.find(text).and_then(|level| self.nodes[at].children.get(level));
            at = known.unwrap_or_else(|| {
                let level = self.levels.acquire(text);
                let child = self.nodes.insert(Node::new(at, level));
                self.nodes[at].children.insert(level, child);
                child
            });
        }
        at
    }

    /// Frees `at` and its ancestors as far as they lead nowhere.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at].is_idle() {
            let Node { parent, level, .. } = self.nodes.remove(at);
            self.nodes[parent].children.remove(level);
            self.levels.release(level);
            at = parent;
        }
    }

    /// What `filter` asks at each level; `None` if it holds a level that no topic has.
    fn steps_of(&self, filter: &str) -> Option<SmallVec<[Step; LEVELS_INLINE]>> {
        let step = |text: &str| match text {
            "+" => Some(Step::Plus),
            "#" => Some(Step::Multi),
            _ => self.levels.find(text).map(Step::Level),
        };
        filter.split('/').map(step).collect()
    }
}

/// Where a scan goes on: the levels, as numbers, of what was looked at last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanCursor(SmallVec<[u32; LEVELS_INLINE]>);

/// Where a sweep goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepCursor(u32);

/// A depth-first walk over the nodes that a filter reaches.
struct Scan<'a, M> {
    store: &'a RetainedStore<M>,
    steps: SmallVec<[Step; LEVELS_INLINE]>,
    /// Per depth, the children not yet looked at.
    stack: SmallVec<[Siblings<'a>; LEVELS_INLINE]>,
    /// Levels of the node looked at last.
    path: SmallVec<[u32; LEVELS_INLINE]>,
}

impl<'a, M> Scan<'a, M> {
    /// The next node in order; its children follow only if they are asked for by [`Self::descend`].
    fn next(&mut self) -> Option<u32> {
        loop {
            if let Some((level, child)) = self.stack.last_mut()?.next() {
                self.path.truncate(self.stack.len() - 1);
                self.path.push(level);
                return Some(child);
            }
            self.stack.pop();
        }
    }

    /// Puts those children of `node` on the stack that the filter reaches and whose level comes after `after`.
    fn descend(&mut self, node: &'a Node<M>, after: Option<u32>) {
        let children = &node.children;
        let siblings = match self.step(self.stack.len()) {
            None => Siblings::One(None),
            Some(Step::Level(level)) => {
                let ahead = after.is_none_or(|after| level > after);
                Siblings::One(children.get(level).filter(|_| ahead).map(|child| (level, child)))
            }
            Some(Step::Plus | Step::Multi) => children.after(after),
        };
        self.stack.push(siblings);
    }

    /// Goes to where `path` was looked at last, or to where it would be if it has gone since.
    fn resume(&mut self, path: &[u32]) {
        let mut node = &self.store.nodes[ROOT];
        for level in path {
            self.descend(node, Some(*level));
            self.path.push(*level);
            let reached = match self.step(self.path.len() - 1) {
                // The number may have been given to another text since.
                Some(Step::Level(wanted)) => wanted == *level,
                Some(Step::Plus | Step::Multi) => true,
                None => false,
            };
            let child = node.children.get(*level).filter(|_| reached);
            let Some(child) = child.filter(|_| !self.is_hidden()) else { return };
            node = &self.store.nodes[child];
        }
        self.descend(node, None);
    }

    /// What the filter asks of the level below `depth` levels.
    fn step(&self, depth: usize) -> Option<Step> {
        let beyond = || self.steps.last().filter(|step| **step == Step::Multi);
        self.steps.get(depth).or_else(beyond).copied()
    }

    /// Whether the filter ends at the node looked at last; `a/#` ends at `a` and at everything below.
    fn is_match(&self) -> bool {
        match self.steps.last() {
            Some(Step::Multi) => self.path.len() + 1 >= self.steps.len(),
            _ => self.path.len() == self.steps.len(),
        }
    }

    /// Whether the node looked at last is the top of a `$` tree and the filter starts with a wildcard.
    fn is_hidden(&self) -> bool {
        let [top] = self.path[..] else { return false };
        !matches!(self.steps[0], Step::Level(_)) && self.store.levels.starts_with(top, b'$')
    }
}

/// What a filter asks at one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Level(u32),
    Plus,
    Multi,
}

#[derive(Debug)]
struct Record<M> {
    topic: Box<str>,
    message: M,
}

#[derive(Debug)]
struct Node<M> {
    parent: u32,
    /// Number of the level that leads here.
    level: u32,
    children: Children,
    /// The topic that ends here, if it has a message.
    record: Option<Record<M>>,
}

impl<M> Node<M> {
    const fn new(parent: u32, level: u32) -> Self {
        Self { parent, level, children: Children::None, record: None }
    }

    /// Whether nothing is stored here or below.
    fn is_idle(&self) -> bool {
        self.record.is_none() && self.children.is_empty()
    }
}

fn only_root<M>() -> Slab<Node<M>> {
    let mut nodes = Slab::new();
    let root = nodes.insert(Node::new(NONE, NONE));
    debug_assert_eq!(root, ROOT, "the first key of a slab");
    nodes
}

/// Children by level number, in order.
#[derive(Debug)]
enum Children {
    None,
    /// Most nodes have one child at most.
    One(u32, u32),
    Many(BTreeMap<u32, u32>),
}

impl Children {
    fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn get(&self, level: u32) -> Option<u32> {
        match self {
            Self::None => None,
            Self::One(only, child) => (*only == level).then_some(*child),
            Self::Many(children) => children.get(&level).copied(),
        }
    }

    fn insert(&mut self, level: u32, child: u32) {
        match self {
            Self::None => *self = Self::One(level, child),
            Self::One(other, sibling) => {
                *self = Self::Many(BTreeMap::from([(*other, *sibling), (level, child)]));
            }
            Self::Many(children) => {
                children.insert(level, child);
            }
        }
    }

    fn remove(&mut self, level: u32) {
        match self {
            Self::None => {}
            Self::One(..) => *self = Self::None,
            Self::Many(children) => {
                children.remove(&level);
                if children.len() == 1 {
                    let (level, child) = children.pop_first().expect("one child is left");
                    *self = Self::One(level, child);
                }
            }
        }
    }

    fn after(&self, after: Option<u32>) -> Siblings<'_> {
        match self {
            Self::None => Siblings::One(None),
            Self::One(level, child) => {
                let ahead = after.is_none_or(|after| *level > after);
                Siblings::One(ahead.then_some((*level, *child)))
            }
            Self::Many(children) => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                Siblings::Many(children.range((from, Bound::Unbounded)))
            }
        }
    }
}

/// Children still to be looked at, as (level, node).
enum Siblings<'a> {
    One(Option<(u32, u32)>),
    Many(btree_map::Range<'a, u32, u32>),
}

impl Siblings<'_> {
    fn next(&mut self) -> Option<(u32, u32)> {
        match self {
            Self::One(only) => only.take(),
            Self::Many(range) => range.next().map(|(level, child)| (*level, *child)),
        }
    }
}

const ROOT: u32 = 0;
/// Deeper topics are scanned just the same, with scratch on the heap.
const LEVELS_INLINE: usize = 8;

#[cfg(test)]
mod tests;
