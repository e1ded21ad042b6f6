//! Subscription trie: filter -> `T`; finds every filter that matches a topic, without allocating.
//!
//! Nodes are 32 bytes in one arena and point to each other by index. The first literal child of a node is kept inside
//! it, so chains cost nothing but nodes; all further children are in one hash index for the whole trie, under
//! (node, level number), so a node with 100,000 children is as quick as one with two. `+` is a field, and what is
//! stored under `x/#` is a field of `x`. Matching is a depth-first walk whose stack holds at most one untried `+` branch
//! per topic level.

use std::mem;

use smallvec::SmallVec;

use super::{
    index::Index,
    levels::Levels,
    slab::{NONE, Slab},
};

/// A map from topic filters to values that can be asked which filters match a topic (section 4.7).
#[derive(Debug)]
pub struct FilterTrie<T> {
    levels: Levels,
    nodes: Vec<Node>,
    /// Literal children but for each node's first.
    edges: Index,
    seed: u64,
    values: Slab<T>,
    /// First free node, or [`NONE`]; the next one is in its `parent`.
    free: u32,
    nodes_free: usize,
}

impl<T> FilterTrie<T> {
    /// An empty trie. `seed` keeps hostile filters from being crafted to collide.
    pub fn new(seed: u64) -> Self {
        Self {
            levels: Levels::new(seed),
            nodes: vec![Node::new(NONE, NONE)],
            edges: Index::new(),
            seed,
            values: Slab::new(),
            free: NONE,
            nodes_free: 0,
        }
    }

    /// Number of filters.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no filter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is stored under exactly `filter`.
    pub fn get(&self, filter: &str) -> Option<&T> {
        let (node, kind) = self.find(filter)?;
        self.values.get(self.nodes[node as usize].slot(kind))
    }

    /// What is stored under exactly `filter`.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut T> {
        let (node, kind) = self.find(filter)?;
        self.values.get_mut(self.nodes[node as usize].slot(kind))
    }

    /// Stores `value` under `filter` and returns what was there.
    pub fn insert(&mut self, filter: &str, value: T) -> Option<T> {
        let (node, kind) = self.make(filter);
        let slot = self.nodes[node as usize].slot_mut(kind);
        if *slot == NONE {
            *slot = self.values.insert(value);
            return None;
        }
        Some(mem::replace(&mut self.values[*slot], value))
    }

    /// What is stored under `filter`, put there first if need be.
    pub fn entry_or_default(&mut self, filter: &str) -> &mut T
    where
        T: Default,
    {
        let (node, kind) = self.make(filter);
        let slot = self.nodes[node as usize].slot_mut(kind);
        if *slot == NONE {
            *slot = self.values.insert(T::default());
        }
        &mut self.values[*slot]
    }

    /// Takes out what is stored under `filter`, and the nodes that only led there.
    pub fn remove(&mut self, filter: &str) -> Option<T> {
        let (node, kind) = self.find(filter)?;
        let slot = mem::replace(self.nodes[node as usize].slot_mut(kind), NONE);
        if slot == NONE {
            return None;
        }
        let value = self.values.remove(slot);
        self.prune(node);
        self.compact();
        Some(value)
    }

    /// Shows `visit` the value of every filter that matches `topic`, each once, in no order that means something.
    ///
    /// A topic that starts with `$` is not matched by a filter that starts with a wildcard [MQTT-4.7.2-1]; `a/#` matches
    /// `a` too (section 4.7.1.2).
    pub fn for_each_match<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a T)) {
        if self.is_empty() {
            return;
        }
        let system = topic.starts_with('$');
        let mut walk = Walk { rest: Some(topic), levels: SmallVec::new() };
        let mut untried: SmallVec<[(u32, u32); LEVELS_INLINE]> = SmallVec::new();
        let (mut at, mut depth) = (ROOT, 0u32);
        loop {
            let node = &self.nodes[at as usize];
            let wildcards = depth > 0 || !system;
            if node.multi != NONE && wildcards {
                visit(&self.values[node.multi]);
            }
            if walk.ends_at(depth) {
                if node.value != NONE {
                    visit(&self.values[node.value]);
                }
            } else {
                if node.plus != NONE && wildcards {
                    untried.push((node.plus, depth + 1));
                }
                // A level that no filter has, or a node that only `+` or `#` follow: nothing to look up.
                let child = match walk.level(depth, &self.levels) {
                    Some(level) => self.child(at, level),
                    None => NONE,
                };
                if child != NONE {
                    (at, depth) = (child, depth + 1);
                    continue;
                }
            }
            let Some(next) = untried.pop() else { return };
            (at, depth) = next;
        }
    }

    /// All filters with their values, in no order that means something.
    pub fn iter(&self) -> impl Iterator<Item = (String, &T)> {
        let live = (0..).zip(&self.nodes).filter(|(_, node)| node.level != FREE);
        live.flat_map(move |(at, node)| {
            let own = self.values.get(node.value).map(|value| (self.filter_of(at, false), value));
            let multi = self.values.get(node.multi).map(|value| (self.filter_of(at, true), value));
            own.into_iter().chain(multi)
        })
    }

    /// The literal child of `at` under `level`, or [`NONE`].
    #[inline]
    fn child(&self, at: u32, level: u32) -> u32 {
        let node = &self.nodes[at as usize];
        if node.first_level == level {
            return node.first;
        }
        if node.others == 0 {
            return NONE;
        }
        self.edges.find(self.edge_hash(at, level), |child| self.is_edge(at, level, child)).unwrap_or(NONE)
    }

    #[inline]
    fn is_edge(&self, at: u32, level: u32, child: u32) -> bool {
        let child = &self.nodes[child as usize];
        child.level == level && child.parent == at
    }

    /// One multiplication whose halves are folded together.
    #[inline]
    fn edge_hash(&self, at: u32, level: u32) -> u64 {
        let edge = u64::from(at) << 32 | u64::from(level);
        let product = u128::from(edge ^ self.seed) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        product as u64 ^ (product >> 64) as u64
    }

    /// The node that stands for `filter` and which of its values is meant.
    fn find(&self, filter: &str) -> Option<(u32, Kind)> {
        let mut at = ROOT;
        let mut levels = filter.split('/').peekable();
        while let Some(text) = levels.next() {
            if text == "#" && levels.peek().is_none() {
                return Some((at, Kind::Multi));
            }
            at = match text {
                "+" => self.nodes[at as usize].plus,
                _ => self.child(at, self.levels.find(text)?),
            };
            if at == NONE {
                return None;
            }
        }
        Some((at, Kind::Own))
    }

    /// As [`Self::find`], but makes the nodes that are missing.
    fn make(&mut self, filter: &str) -> (u32, Kind) {
        let mut at = ROOT;
        let mut levels = filter.split('/').peekable();
        while let Some(text) = levels.next() {
            if text == "#" && levels.peek().is_none() {
                return (at, Kind::Multi);
            }
            at = if text == "+" { self.make_plus(at) } else { self.make_child(at, text) };
        }
        (at, Kind::Own)
    }

    fn make_plus(&mut self, at: u32) -> u32 {
        let plus = self.nodes[at as usize].plus;
        if plus != NONE {
            return plus;
        }
        let plus = self.allocate(Node::new(at, PLUS));
        self.nodes[at as usize].plus = plus;
        plus
    }

    fn make_child(&mut self, at: u32, text: &str) -> u32 {
        if let Some(level) = self.levels.find(text) {
            let child = self.child(at, level);
            if child != NONE {
                return child;
            }
        }
        let level = self.levels.acquire(text);
        let child = self.allocate(Node::new(at, level));
        let parent = &mut self.nodes[at as usize];
        if parent.first_level == NONE {
            (parent.first_level, parent.first) = (level, child);
        } else {
            parent.others += 1;
            self.edges.insert(self.edge_hash(at, level), child);
        }
        child
    }

    fn allocate(&mut self, node: Node) -> u32 {
        if self.free == NONE {
            let at = u32::try_from(self.nodes.len()).ok().filter(|at| *at != NONE);
            self.nodes.push(node);
            return at.expect("memory ends before four billion nodes");
        }
        let at = self.free;
        self.free = self.nodes[at as usize].parent;
        self.nodes_free -= 1;
        self.nodes[at as usize] = node;
        at
    }

    /// Frees `at` and its ancestors as far as they lead nowhere.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_idle() {
            let Node { parent: up, level, .. } = self.nodes[at as usize];
            let parent = &mut self.nodes[up as usize];
            if level == PLUS {
                parent.plus = NONE;
            } else {
                if parent.first_level == level {
                    (parent.first_level, parent.first) = (NONE, NONE);
                } else {
                    parent.others -= 1;
                    self.edges.remove(self.edge_hash(up, level), |child| child == at);
                }
                self.levels.release(level);
            }
            self.nodes[at as usize] = Node::new(self.free, FREE);
            self.free = at;
            self.nodes_free += 1;
            at = up;
        }
    }

    /// Gives memory back when three quarters of the arena are free: moves the live nodes together.
    fn compact(&mut self) {
        let live = self.nodes.len() - self.nodes_free;
        if !is_sparse(live, self.nodes.len()) {
            return;
        }
        let mut moved = vec![NONE; self.nodes.len()];
        let mut nodes = Vec::with_capacity(live);
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.level != FREE) {
            moved[at] = nodes.len() as u32;
            nodes.push(*node);
        }
        let to = |at: u32| if at == NONE { NONE } else { moved[at as usize] };
        let mut values = Slab::new();
        let mut keep = |slot: u32| if slot == NONE { NONE } else { values.insert(self.values.remove(slot)) };
        for node in &mut nodes {
            (node.parent, node.plus, node.first) = (to(node.parent), to(node.plus), to(node.first));
            (node.value, node.multi) = (keep(node.value), keep(node.multi));
        }
        self.edges = Index::new();
        (self.nodes, self.values, self.free, self.nodes_free) = (nodes, values, NONE, 0);
        for at in 1..self.nodes.len() as u32 {
            let Node { parent, level, .. } = self.nodes[at as usize];
            if level != PLUS && self.nodes[parent as usize].first != at {
                self.edges.insert(self.edge_hash(parent, level), at);
            }
        }
    }

    /// The filter that leads to `at`, with `#` behind it if `multi`.
    fn filter_of(&self, mut at: u32, multi: bool) -> String {
        let mut levels: SmallVec<[&str; 16]> = SmallVec::new();
        if multi {
            levels.push("#");
        }
        while at != ROOT {
            let node = &self.nodes[at as usize];
            levels.push(if node.level == PLUS { "+" } else { self.levels.text(node.level) });
            at = node.parent;
        }
        levels.reverse();
        levels.join("/")
    }
}

/// One level of one or more filters.
#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    /// Number of the level that leads here from the parent; or [`PLUS`], or [`FREE`], or [`NONE`] for the root.
    level: u32,
    /// Child under `+`.
    plus: u32,
    /// One literal child.
    first: u32,
    /// The level that leads to `first`.
    first_level: u32,
    /// Number of literal children in the edge index.
    others: u32,
    /// Value of the filter that ends here.
    value: u32,
    /// Value of the filter that ends here with `/#`.
    multi: u32,
}

impl Node {
    const fn new(parent: u32, level: u32) -> Self {
        Self { parent, level, plus: NONE, first: NONE, first_level: NONE, others: 0, value: NONE, multi: NONE }
    }

    /// Whether nothing is stored here or below.
    const fn is_idle(&self) -> bool {
        self.plus == NONE && self.first == NONE && self.others == 0 && self.value == NONE && self.multi == NONE
    }

    const fn slot(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Own => self.value,
            Kind::Multi => self.multi,
        }
    }

    const fn slot_mut(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Own => &mut self.value,
            Kind::Multi => &mut self.multi,
        }
    }
}

/// Which of a node's two values a filter names.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Own,
    Multi,
}

/// A topic taken apart as far as the walk has come; each level is looked up once, however many branches reach it.
struct Walk<'a> {
    /// What is not yet taken apart.
    rest: Option<&'a str>,
    /// Numbers of the levels taken apart; [`NONE`] for a level that no filter has.
    levels: SmallVec<[u32; LEVELS_INLINE]>,
}

impl Walk<'_> {
    #[inline]
    fn ends_at(&self, depth: u32) -> bool {
        self.rest.is_none() && self.levels.len() == depth as usize
    }

    /// The number of the level at `depth`, which is at most one further than before.
    #[inline]
    fn level(&mut self, depth: u32, levels: &Levels) -> Option<u32> {
        if let Some(known) = self.levels.get(depth as usize) {
            return (*known != NONE).then_some(*known);
        }
        let rest = self.rest?;
        // Levels are short: a plain loop finds their end before a search for many bytes at once has been set up.
        let text = match rest.bytes().position(|byte| byte == b'/') {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                &rest[..end]
            }
            None => self.rest.take()?,
        };
        let number = levels.find(text);
        self.levels.push(number.unwrap_or(NONE));
        number
    }
}

/// Whether so little of `capacity` is used that giving memory back is worth the copy. A quarter, so that the next
/// growing or shrinking is as many operations away as there are nodes to copy.
const fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > SPARSE_MIN && len < capacity / 4
}

/// Below this, memory is not worth giving back (32 KiB).
const SPARSE_MIN: usize = 1024;
const ROOT: u32 = 0;
/// Level of a node that `+` leads to.
const PLUS: u32 = NONE - 1;
/// Level of a node that is free.
const FREE: u32 = NONE - 2;
/// Topics of up to this many levels are matched without touching the heap (the default bound on levels).
const LEVELS_INLINE: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(trie: &FilterTrie<&'static str>, topic: &str) -> Vec<&'static str> {
        let mut found = Vec::new();
        trie.for_each_match(topic, |value| found.push(*value));
        found.sort_unstable();
        found
    }

    fn trie_of(filters: &[&'static str]) -> FilterTrie<&'static str> {
        let mut trie = FilterTrie::new(7);
        for filter in filters {
            assert_eq!(trie.insert(filter, *filter), None);
        }
        trie
    }

    #[test]
    fn the_examples_of_section_4_7_match_as_written() {
        let trie = trie_of(&["sport/tennis/player1/#", "sport/#", "#", "sport/tennis/+", "sport/+", "+/+", "/+", "+"]);
        assert_eq!(
            matches(&trie, "sport/tennis/player1"),
            ["#", "sport/#", "sport/tennis/+", "sport/tennis/player1/#"]
        );
        assert_eq!(matches(&trie, "sport/tennis/player1/ranking"), ["#", "sport/#", "sport/tennis/player1/#"]);
        assert_eq!(matches(&trie, "sport"), ["#", "+", "sport/#"]);
        assert_eq!(matches(&trie, "sport/"), ["#", "+/+", "sport/#", "sport/+"]);
        assert_eq!(matches(&trie, "/finance"), ["#", "+/+", "/+"]);
    }

    #[test]
    fn a_leading_wildcard_does_not_match_a_dollar_topic() {
        let trie = trie_of(&["#", "+/monitor/Clients", "$SYS/#", "$SYS/monitor/+", "+/#"]);
        assert_eq!(matches(&trie, "$SYS/monitor/Clients"), ["$SYS/#", "$SYS/monitor/+"]);
        assert_eq!(matches(&trie, "a/$b"), ["#", "+/#"]);
        assert_eq!(matches(&trie, "$"), Vec::<&str>::new());
    }

    #[test]
    fn empty_levels_are_levels() {
        let trie = trie_of(&["/", "//", "+/", "a//b", "a/+/b", "//#"]);
        // `//#` is `/` and `/#`: it matches its parent `/`, as `a/#` matches `a`.
        assert_eq!(matches(&trie, "/"), ["+/", "/", "//#"]);
        assert_eq!(matches(&trie, "//"), ["//", "//#"]);
        assert_eq!(matches(&trie, "a//b"), ["a/+/b", "a//b"]);
    }

    #[test]
    fn removal_frees_every_node_level_and_edge() {
        let filters = ["a/b/c", "a/b/+", "a/+/#", "a/x", "a/y", "a/z", "#", "+", "a"];
        let mut trie = trie_of(&filters);
        assert_eq!(trie.len(), filters.len());
        assert_eq!(trie.remove("a/b"), None);
        assert_eq!(trie.remove("a/#"), None);
        for filter in filters {
            assert_eq!(trie.remove(filter), Some(filter));
            assert_eq!(trie.remove(filter), None);
        }
        assert!(trie.is_empty() && trie.edges.len() == 0);
        assert_eq!((trie.levels.len(), trie.nodes.len() - trie.nodes_free), (0, 1));
        assert!(trie.nodes[0].is_idle());
    }

    #[test]
    fn freed_nodes_are_used_again() {
        let mut trie = FilterTrie::new(7);
        for n in 0..100 {
            trie.insert(&format!("device/{n}/+"), n);
            trie.remove(&format!("device/{n}/+"));
        }
        assert!(trie.nodes.len() <= 4, "{}", trie.nodes.len());
    }

    #[test]
    fn memory_is_given_back_after_a_storm_and_the_rest_still_matches() {
        let mut trie = FilterTrie::new(7);
        let filter = |n: u32| format!("site/{}/{n}/+/#", n % 10);
        for n in 0..20_000 {
            trie.insert(&filter(n), n);
        }
        for n in (0..20_000).filter(|n| n % 100 != 3) {
            assert_eq!(trie.remove(&filter(n)), Some(n));
        }
        assert_eq!(trie.len(), 200);
        assert!(trie.nodes.len() < 4_000 && trie.values.end() < 4_000, "{} {}", trie.nodes.len(), trie.values.end());
        for n in (0..20_000).filter(|n| n % 100 == 3) {
            assert_eq!(trie.get(&filter(n)), Some(&n));
            let mut found = Vec::new();
            trie.for_each_match(&format!("site/{}/{n}/x/y/z", n % 10), |value| found.push(*value));
            assert_eq!(found, [n]);
        }
        assert_eq!(trie.iter().count(), 200);
        assert!(trie.iter().all(|(text, n)| text == filter(*n)));
    }

    #[test]
    fn values_are_reached_by_their_filter() {
        let mut trie = FilterTrie::<u32>::new(7);
        *trie.entry_or_default("a/#") += 1;
        *trie.entry_or_default("a/#") += 1;
        *trie.entry_or_default("a") += 5;
        *trie.get_mut("a").expect("just made") += 1;
        assert_eq!((trie.get("a/#"), trie.get("a"), trie.get("a/+")), (Some(&2), Some(&6), None));
        assert_eq!(trie.insert("a", 9), Some(6));
        assert_eq!(trie.len(), 2);
    }

    #[test]
    fn topics_deeper_than_the_inline_scratch_still_match() {
        let deep = vec!["x"; 300].join("/");
        let mut trie = FilterTrie::new(7);
        trie.insert(&deep, 1);
        trie.insert(&format!("{deep}/#"), 2);
        trie.insert(&vec!["+"; 300].join("/"), 3);
        let mut found = Vec::new();
        trie.for_each_match(&deep, |value| found.push(*value));
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3]);
    }

    #[test]
    fn a_node_is_half_a_cache_line() {
        assert_eq!(size_of::<Node>(), 32);
    }
}
