//! Topics -> targets: which shards, which sessions, which members of shared groups, which retained messages.
//!
//! Two levels, because a publish must not take a lock that a SUBSCRIBE storm also takes:
//!
//! | part | whose | answers |
//! |---|---|---|
//! | [`FilterTrie`] | each shard's own | filter -> local subscribers |
//! | [`Interest`] | shared by all shards | which shards (and which shared groups) want this topic? |
//! | [`RouteCache`] | each shard's own | the answers for recent topics, valid while their [`Generation`] holds |
//! | [`RetainedStore`] | whoever keeps retained messages | topic -> message, and the messages a filter matches |
//!
//! A publish hashes its topic once ([`TopicHasher::topic`]); the cache, the generation stripes and the hash strategies
//! of shared groups all use that hash.
//!
//! Filters and topics are taken as plain text that `codec::topic` has checked: levels are bounded and wildcards stand
//! where they may. There is no clock and no randomness here; hash seeds and random numbers are arguments.

mod cache;
mod generation;
mod index;
mod interest;
mod levels;
mod retained;
mod shards;
mod shared;
mod slab;
mod trie;

pub use cache::{CacheLimits, Cached, PREFETCH_MAX, RouteCache};
pub use generation::{Generation, Generations, HashedTopic, Stripes, TopicHasher};
pub(crate) use index::Index;
pub use interest::Interest;
pub use retained::{RetainedStore, ScanCursor, SweepCursor};
pub use shards::{SHARDS_MAX, SessionKey, ShardId, ShardSet};
pub use shared::{Choice, Group, GroupHandle, Groups, Joining, Member, SharedStrategy};
pub use trie::FilterTrie;
