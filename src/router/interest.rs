//! Interest: which shards want a topic? Shared by all shards, read on a route-cache miss only.
//!
//! A shard adds a filter with its first local subscriber and removes it with its last, so this table sees few of the
//! SUBSCRIBEs. Exact filters are in a striped map; wildcard filters are in one trie behind a lock: a path-copied trie
//! would read without a lock, but copying a node with 100,000 children per SUBSCRIBE (`device/+/...`) costs more than
//! the misses it spares. The lock stays off the hot path because routes are cached under a [`Generation`].

use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::SeedableRandomState;
use parking_lot::RwLock;

use super::{
    generation::{Generation, Generations, HashedTopic, Stripes, TopicHasher, is_exact},
    levels::hash_state,
    shards::{ShardId, ShardSet},
    shared::{Groups, Joining, Member, SharedGroups, SharedStrategy},
    trie::FilterTrie,
};

/// Filters of all shards, and the shared groups over them.
///
/// ```
/// use ferromq::router::{Interest, ShardId, SharedStrategy};
///
/// let interest = Interest::new(42, SharedStrategy::RoundRobin);
/// interest.add("plant/+/temp", ShardId(2));
/// assert!(interest.targets("plant/7/temp").contains(ShardId(2)));
/// ```
#[derive(Debug)]
pub struct Interest {
    generations: Generations,
    exact: DashMap<Box<str>, ShardSet, SeedableRandomState>,
    wildcard: RwLock<FilterTrie<ShardSet>>,
    shared: SharedGroups,
}

impl Interest {
    /// An empty table. `seed` should be random in production; `strategy` is that of all shared groups.
    pub fn new(seed: u64, strategy: SharedStrategy) -> Self {
        Self {
            generations: Generations::new(TopicHasher::new(seed)),
            exact: DashMap::with_capacity_and_hasher_and_shard_amount(0, hash_state(seed), EXACT_STRIPES),
            wildcard: RwLock::new(FilterTrie::new(seed)),
            shared: SharedGroups::new(seed, strategy),
        }
    }

    /// The hasher that topics, client identifiers and stripes are to be hashed with.
    pub const fn hasher(&self) -> &TopicHasher {
        self.generations.hasher()
    }

    /// The present generation of a topic's route; to be read before [`Self::targets`] and [`Self::groups`].
    #[inline]
    pub fn generation(&self, stripes: Stripes) -> Generation {
        self.generations.current(stripes)
    }

    /// See [`Generations::changes`].
    #[inline]
    pub fn changes(&self) -> u64 {
        self.generations.changes()
    }

    /// As [`Self::generation`], for a topic whose stripes are not at hand.
    pub fn generation_of(&self, topic: HashedTopic<'_>) -> Generation {
        self.generation(self.hasher().stripes(topic))
    }

    /// `shard` wants the topics that `filter` matches. When this returns, no route without it is served from a cache.
    /// Whether that is news.
    pub fn add(&self, filter: &str, shard: ShardId) -> bool {
        let news = if is_exact(filter) {
            self.exact.entry(filter.into()).or_default().insert(shard)
        } else {
            self.wildcard.write().entry_or_default(filter).insert(shard)
        };
        if news {
            self.generations.bump(filter);
        }
        news
    }

    /// `shard` no longer wants the topics that `filter` matches. Whether that is news.
    pub fn remove(&self, filter: &str, shard: ShardId) -> bool {
        let news =
            if is_exact(filter) { self.remove_exact(filter, shard) } else { self.remove_wildcard(filter, shard) };
        if news {
            self.generations.bump(filter);
        }
        news
    }

    /// The shards that want `topic`.
    pub fn targets(&self, topic: &str) -> ShardSet {
        let mut targets = self.exact.get(topic).map_or(ShardSet::EMPTY, |shards| *shards);
        self.wildcard.read().for_each_match(topic, |shards| targets = targets.union(*shards));
        targets
    }

    /// The shared groups that want `topic`: each takes one copy for one of its members.
    pub fn groups(&self, topic: &str) -> Groups {
        self.shared.matching(topic)
    }

    /// A session joins the shared group `group` over `filter` (`$share/group/filter`). It counts as offline until
    /// [`Member::set_online`] says otherwise.
    ///
    /// A session that subscribes again keeps its member and calls [`Member::set_options`] instead.
    pub fn join(&self, group: &str, filter: &str, joining: Joining) -> Arc<Member> {
        let client_hash = self.hasher().text(&joining.client_id);
        let (member, founded) = self.shared.join(group, filter, joining, client_hash);
        if founded {
            self.generations.bump(filter);
        }
        member
    }

    /// A member leaves its group; whether it was still in it. When this returns, the group chooses it no more.
    pub fn leave(&self, member: &Member) -> bool {
        let Some(left) = self.shared.leave(member) else { return false };
        if left.dissolved {
            self.generations.bump(left.group.filter());
        }
        true
    }

    /// Number of distinct filters, those of shared groups not counted.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.read().len()
    }

    /// Whether no shard wants anything but through shared groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of shared groups.
    pub fn groups_len(&self) -> usize {
        self.shared.len()
    }

    fn remove_exact(&self, filter: &str, shard: ShardId) -> bool {
        let mut news = false;
        self.exact.remove_if_mut(filter, |_, shards| {
            news = shards.remove(shard);
            shards.is_empty()
        });
        news
    }

    fn remove_wildcard(&self, filter: &str, shard: ShardId) -> bool {
        let mut wildcard = self.wildcard.write();
        let Some(shards) = wildcard.get_mut(filter) else { return false };
        let news = shards.remove(shard);
        if shards.is_empty() {
            wildcard.remove(filter);
        }
        news
    }
}

/// Locks of the exact filters. A number of its own, not the processors': what an operation costs is the same everywhere.
const EXACT_STRIPES: usize = 64;

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    fn interest() -> Interest {
        Interest::new(5, SharedStrategy::RoundRobin)
    }

    #[test]
    fn targets_are_the_union_over_matching_filters() {
        let interest = interest();
        assert!(interest.add("a/b", ShardId(1)));
        assert!(interest.add("a/b", ShardId(2)));
        assert!(!interest.add("a/b", ShardId(2)));
        assert!(interest.add("a/+", ShardId(3)));
        assert!(interest.add("#", ShardId(4)));
        assert_eq!(interest.targets("a/b"), [1, 2, 3, 4].map(ShardId).into_iter().collect());
        assert_eq!(interest.targets("a/c"), [3, 4].map(ShardId).into_iter().collect());
        assert_eq!(interest.targets("$SYS/x"), ShardSet::EMPTY);
        assert!(interest.remove("a/b", ShardId(1)) && !interest.remove("a/b", ShardId(1)));
        assert!(interest.remove("#", ShardId(4)) && !interest.remove("x/#", ShardId(4)));
        assert_eq!(interest.targets("a/b"), [2, 3].map(ShardId).into_iter().collect());
        assert_eq!(interest.len(), 2);
        interest.remove("a/b", ShardId(2));
        interest.remove("a/+", ShardId(3));
        assert!(interest.is_empty());
    }

    #[test]
    fn only_news_moves_the_generation() {
        let interest = interest();
        let topic = interest.hasher().topic("a/b");
        let start = interest.generation_of(topic);
        interest.add("a/b", ShardId(1));
        let added = interest.generation_of(topic);
        assert_ne!(start, added);
        interest.add("a/b", ShardId(1));
        interest.remove("a/b", ShardId(2));
        interest.remove("a/+", ShardId(1));
        assert_eq!(interest.generation_of(topic), added);
        interest.remove("a/b", ShardId(1));
        assert_ne!(interest.generation_of(topic), added);
    }

    #[test]
    fn the_generation_moves_only_after_the_change_is_made() {
        let interest = interest();
        let topic = interest.hasher().topic("a/b");
        interest.add("a/b", ShardId(9));
        for filter in ["a/b", "a/+"] {
            let start = interest.generation_of(topic);
            let started = AtomicBool::new(false);
            // While a reader holds the table, the change cannot be made; a generation that moved by now would be cached
            // with the route from before the change.
            let exact = interest.exact.get("a/b").expect("just added");
            let wildcard = interest.wildcard.read();
            thread::scope(|scope| {
                scope.spawn(|| {
                    started.store(true, Ordering::SeqCst);
                    interest.add(filter, ShardId(1));
                });
                while !started.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                for _ in 0..10_000 {
                    assert_eq!(interest.generation_of(topic), start, "{filter}");
                    thread::yield_now();
                }
                drop((exact, wildcard));
            });
            assert_ne!(interest.generation_of(topic), start, "{filter}");
        }
    }

    #[test]
    fn only_the_first_and_last_member_of_a_group_move_the_generation() {
        let interest = interest();
        let topic = interest.hasher().topic("a/b");
        let joining = |n: u64| Joining {
            shard: ShardId(0),
            session: crate::router::SessionKey::first(n as u32),
            client_id: format!("c{n}").into(),
            options: n,
        };
        let start = interest.generation_of(topic);
        let first = interest.join("g", "a/+", joining(1));
        let founded = interest.generation_of(topic);
        assert_ne!(start, founded);
        let second = interest.join("g", "a/+", joining(2));
        second.set_online(true);
        assert!(interest.leave(&first));
        assert!(!interest.leave(&first));
        assert_eq!(interest.generation_of(topic), founded);
        assert_eq!((interest.groups("a/b").len(), interest.groups_len()), (1, 1));
        assert!(interest.leave(&second));
        assert_ne!(interest.generation_of(topic), founded);
        assert_eq!((interest.groups("a/b").len(), interest.groups_len()), (0, 0));
    }
}
