//! Route cache: recent topics -> where they go, valid while their generation holds. One per shard, no locks.
//!
//! Bounded by entries and by bytes, since topics are chosen by strangers. Eviction is CLOCK: a hit writes one byte instead
//! of the list surgery of LRU. New entries start as if not used for a while, so that a stream of topics used once does not
//! push out those used again. What is not used for some time goes without being pushed ([`RouteCache::sweep`]), so that a
//! broker at rest holds no routes.
//!
//! Of a hundred thousand topics few are in the processor's caches, so what counts is how many lines of memory a hit waits
//! for one after the other. Topic, generation and value are one allocation; index and list before it are small.

use std::{ops::Deref, sync::Arc};

use smallvec::SmallVec;

use super::{
    generation::{Generation, HashedTopic, Stripes},
    index::Index,
};

/// What a [`RouteCache`] may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Most topics.
    pub entries_max: usize,
    /// Most bytes, by the cache's own reckoning: topics, fixed cost per entry, and what the caller charges for values.
    pub bytes_max: usize,
}

/// Values for recent topics.
///
/// ```
/// use ferromq::router::{CacheLimits, Interest, RouteCache, ShardId, ShardSet, SharedStrategy};
///
/// let interest = Interest::new(42, SharedStrategy::RoundRobin);
/// let mut cache = RouteCache::new(CacheLimits { entries_max: 1024, bytes_max: 1 << 20 });
/// let mut route = |name: &str| -> ShardSet {
///     let topic = interest.hasher().topic(name);
///     if let Some(targets) = cache.get(topic, |stripes| interest.generation(stripes)) {
///         return ***targets;
///     }
///     let stripes = interest.hasher().stripes(topic);
///     let generation = interest.generation(stripes); // first the generation, then the route
///     let targets = interest.targets(name);
///     cache.insert(topic, stripes, generation, targets, 0);
///     targets
/// };
/// assert!(route("a/b").is_empty());
/// interest.add("a/+", ShardId(1));
/// assert!(route("a/b").contains(ShardId(1)));
/// ```
#[derive(Debug)]
pub struct RouteCache<V> {
    limits: CacheLimits,
    /// Topic hash -> place in `entries` and `ages`.
    places: Index,
    entries: Vec<Arc<Cached<V>>>,
    /// 0 when it was used since the hand or a sweep came by; else one more than sweeps that have found it unused.
    ages: Vec<u8>,
    /// Next entry that eviction looks at.
    hand: usize,
    /// Entries before it are yet to be looked at by the sweep that is under way.
    unswept: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
}

impl<V> RouteCache<V> {
    /// An empty cache.
    pub fn new(limits: CacheLimits) -> Self {
        let (places, entries, ages) = (Index::new(), Vec::new(), Vec::new());
        Self { limits, places, entries, ages, hand: 0, unswept: 0, bytes: 0, hits: 0, misses: 0 }
    }

    /// The value for `topic`, if it was cached and its generation is still what `current` says.
    #[inline]
    pub fn get(
        &mut self,
        topic: HashedTopic<'_>,
        current: impl FnOnce(Stripes) -> Generation,
    ) -> Option<&Arc<Cached<V>>> {
        let place = self.place(topic).map(|place| place as usize);
        let Some(entry) = place.and_then(|place| self.entries.get(place)) else {
            self.misses += 1;
            return None;
        };
        if entry.generation != current(entry.stripes) {
            self.misses += 1;
            return None;
        }
        self.hits += 1;
        if let Some(age) = place.and_then(|place| self.ages.get_mut(place)) {
            *age = 0;
        }
        Some(entry)
    }

    /// Has the memory fetched that looking up these topics will need: all at once, where look-ups one by one would wait for
    /// it again and again. Changes nothing else.
    pub fn prefetch(&self, hashes: &[u64]) {
        let slots = hashes.iter().fold(0, |all, hash| all ^ self.places.touch(*hash));
        let places = hashes.iter().filter_map(|hash| self.places.guess(*hash));
        let found = |at: u32| self.entries.get(at as usize).zip(self.ages.get(at as usize));
        let found: SmallVec<[_; PREFETCH_MAX]> = places.filter_map(found).collect();
        // An entry has three cache lines.
        let touch = |entry: &Cached<V>| entry.hash ^ u64::from(*entry.topic.last().unwrap_or(&0)) ^ entry.bytes as u64;
        let lines = found.iter().fold(0, |all, (entry, age)| all ^ touch(entry) ^ u64::from(**age));
        std::hint::black_box((slots, lines));
    }

    /// Caches `value`, which was computed after `generation` was read. `value_bytes` is what the value owns on the heap.
    /// What exceeds the cache by itself is not kept, but returned like everything else.
    pub fn insert(
        &mut self,
        topic: HashedTopic<'_>,
        stripes: Stripes,
        generation: Generation,
        value: V,
        value_bytes: usize,
    ) -> Arc<Cached<V>> {
        if let Some(place) = self.place(topic) {
            self.remove(place as usize);
        }
        let bytes = ENTRY_BYTES + size_of::<Cached<V>>() + Cached::<V>::topic_bytes(topic.as_str()) + value_bytes;
        let hash = topic.hash();
        let topic = SmallVec::from_slice(topic.as_str().as_bytes());
        let cached = Arc::new(Cached { generation, hash, stripes, topic, value, bytes });
        if bytes > self.limits.bytes_max || self.limits.entries_max == 0 {
            return cached;
        }
        while self.entries.len() >= self.limits.entries_max || self.bytes + bytes > self.limits.bytes_max {
            self.evict();
        }
        let place = u32::try_from(self.entries.len()).expect("memory ends before four billion entries");
        self.places.insert(hash, place);
        self.bytes += bytes;
        self.entries.push(Arc::clone(&cached));
        self.ages.push(1);
        cached
    }

    /// Number of topics, those included whose generation has passed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes held, as [`CacheLimits::bytes_max`] counts them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often [`Self::get`] found a valid value.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// How often it did not.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// Forgets everything but the counters, and gives the memory back.
    pub fn clear(&mut self) {
        (self.places, self.entries, self.ages) = (Index::new(), Vec::new(), Vec::new());
        (self.hand, self.unswept, self.bytes) = (0, 0, 0);
    }

    /// To be called every so often: forgets what was not used since the call before the last, and gives the memory back.
    /// Looks at `entries_max` entries; whether all have been looked at, or this is to be called again for the rest.
    pub fn sweep(&mut self, entries_max: usize) -> bool {
        if self.unswept == 0 {
            self.unswept = self.entries.len();
        }
        for _ in 0..entries_max {
            // From the end, so that what is moved into the place of one that goes has been looked at.
            let Some(place) = self.unswept.checked_sub(1) else { break };
            self.unswept = place;
            match self.ages.get_mut(place) {
                Some(age) if *age < SWEEPS_KEPT => *age += 1,
                Some(_) => self.remove(place),
                None => {}
            }
        }
        if self.unswept == 0 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
            self.ages.shrink_to(self.ages.len() * 2);
        }
        self.unswept == 0
    }

    /// Takes out the first entry from the hand on that was not used since the hand last came by.
    fn evict(&mut self) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let age = &mut self.ages[self.hand];
            if *age > 0 {
                return self.remove(self.hand);
            }
            *age = 1;
            self.hand += 1;
        }
    }

    #[inline]
    fn place(&self, topic: HashedTopic<'_>) -> Option<u32> {
        self.places.find(topic.hash(), |place| {
            let entry = &self.entries[place as usize];
            entry.hash == topic.hash() && *entry.topic == *topic.as_str().as_bytes()
        })
    }

    fn remove(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.ages.swap_remove(place);
        self.bytes -= entry.bytes;
        self.places.remove(entry.hash, |other| other as usize == place);
        if let Some(moved) = self.entries.get(place) {
            let from = self.entries.len();
            self.places.replace(moved.hash, |other| other as usize == from, place as u32);
        }
    }
}

/// A value with what it stands for. In the order in which a hit looks at it.
#[derive(Debug)]
#[repr(C)]
pub struct Cached<V> {
    generation: Generation,
    hash: u64,
    stripes: Stripes,
    /// In place unless it is long.
    topic: SmallVec<[u8; TOPIC_INLINE_BYTES]>,
    value: V,
    bytes: usize,
}

impl<V> Cached<V> {
    /// The topic, as bytes.
    #[inline]
    pub fn topic(&self) -> &[u8] {
        &self.topic
    }

    /// Its hash.
    #[inline]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The counters that its generation is of.
    #[inline]
    pub const fn stripes(&self) -> Stripes {
        self.stripes
    }

    /// The generation that it stands for.
    #[inline]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// What is neither in the entry nor the value's.
    fn topic_bytes(topic: &str) -> usize {
        if topic.len() > TOPIC_INLINE_BYTES { topic.len() } else { 0 }
    }
}

impl<V> Deref for Cached<V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        &self.value
    }
}

/// As many as a processor waits for at a time.
pub const PREFETCH_MAX: usize = 16;

/// Most topics are shorter.
const TOPIC_INLINE_BYTES: usize = 40;

/// Sweeps that an entry outlives without being used: one that was used just before the first has a whole interval.
const SWEEPS_KEPT: u8 = 2;

/// What index, list and counts spend on an entry at their lowest load but for shrinking.
const ENTRY_BYTES: usize = 24 + 2 * size_of::<usize>() + 2 + 2 * size_of::<usize>();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{Generations, TopicHasher};

    struct Bench {
        generations: Generations,
        cache: RouteCache<u32>,
    }

    impl Bench {
        fn new(entries_max: usize, bytes_max: usize) -> Self {
            let generations = Generations::new(TopicHasher::new(9));
            Self { generations, cache: RouteCache::new(CacheLimits { entries_max, bytes_max }) }
        }

        fn get(&mut self, topic: &str) -> Option<u32> {
            let topic = self.generations.hasher().topic(topic);
            self.cache.get(topic, |stripes| self.generations.current(stripes)).map(|value| ***value)
        }

        fn insert(&mut self, topic: &str, value: u32) {
            let topic = self.generations.hasher().topic(topic);
            let stripes = self.generations.hasher().stripes(topic);
            self.cache.insert(topic, stripes, self.generations.current(stripes), value, 0);
            self.check();
        }

        fn check(&self) {
            let cache = &self.cache;
            assert!(cache.len() <= cache.limits.entries_max && cache.bytes() <= cache.limits.bytes_max);
            assert_eq!((cache.places.len(), cache.ages.len()), (cache.len(), cache.len()));
            assert_eq!(cache.bytes(), cache.entries.iter().map(|entry| entry.bytes).sum::<usize>());
            for (at, entry) in cache.entries.iter().enumerate() {
                assert_eq!(cache.places.find(entry.hash, |place| place as usize == at), Some(at as u32));
            }
        }
    }

    #[test]
    fn a_value_is_served_until_its_generation_passes() {
        let mut bench = Bench::new(10, 10_000);
        assert_eq!(bench.get("a/b"), None);
        bench.insert("a/b", 1);
        assert_eq!(bench.get("a/b"), Some(1));
        bench.generations.bump("a/+");
        assert_eq!(bench.get("a/b"), None);
        bench.insert("a/b", 2);
        assert_eq!(bench.get("a/b"), Some(2));
        assert_eq!((bench.cache.hits(), bench.cache.misses(), bench.cache.len()), (2, 2, 1));
        bench.cache.clear();
        assert_eq!((bench.get("a/b"), bench.cache.bytes()), (None, 0));
    }

    #[test]
    fn entries_in_use_survive_a_stream_of_topics_used_once() {
        let mut bench = Bench::new(100, 1 << 20);
        for n in 0..50 {
            bench.insert(&format!("hot/{n}"), n);
        }
        for n in 0..10_000u32 {
            bench.insert(&format!("cold/{n}"), n);
            bench.get(&format!("hot/{}", n % 50));
        }
        let hot = (0..50).filter(|n| bench.get(&format!("hot/{n}")) == Some(*n)).count();
        assert!(hot >= 40, "{hot}");
    }

    #[test]
    fn bytes_are_bounded_whatever_the_length_of_topics() {
        let mut bench = Bench::new(1000, 4096);
        for n in 0..500 {
            bench.insert(&"x".repeat(n * 7 % 1500), n as u32);
        }
        assert!(bench.cache.len() > 1);
        bench.insert(&"y".repeat(5000), 1);
        assert_eq!(bench.get(&"y".repeat(5000)), None);
        assert!(!bench.cache.is_empty());
    }

    #[test]
    fn what_is_not_used_for_two_sweeps_goes_and_its_memory_with_it() {
        let mut bench = Bench::new(100_000, 1 << 30);
        for n in 0..10_000 {
            bench.insert(&format!("once/{n}"), n);
        }
        bench.insert("often", 1);
        for left in [10_001, 1, 1, 1] {
            assert_eq!(bench.get("often"), Some(1));
            let mut steps = 1;
            while !bench.cache.sweep(1000) {
                steps += 1;
                // Others have their turn meanwhile, and use the cache.
                bench.insert("new", 2);
                assert_eq!(bench.get("new"), Some(2));
            }
            assert!(steps <= 12, "{steps} steps of a thousand");
            let new = usize::from(bench.get("new").is_some());
            assert_eq!(bench.cache.len(), left + new);
            bench.check();
        }
        (0..3).for_each(|_| assert!(bench.cache.sweep(1000)));
        assert!(bench.cache.is_empty() && bench.cache.bytes() == 0);
        assert_eq!((bench.cache.entries.capacity(), bench.cache.places.len()), (0, 0));
    }

    #[test]
    fn a_cache_of_no_entries_keeps_nothing() {
        let mut bench = Bench::new(0, 4096);
        bench.insert("a", 1);
        assert_eq!(bench.get("a"), None);
    }

    #[test]
    fn topics_with_equal_hashes_are_told_apart() {
        let mut bench = Bench::new(10, 10_000);
        bench.insert("a", 1);
        Arc::get_mut(&mut bench.cache.entries[0]).unwrap().topic = SmallVec::from_slice(b"b");
        assert_eq!(bench.get("a"), None);
        bench.insert("a", 2);
        assert_eq!((bench.get("a"), bench.cache.len()), (Some(2), 2));
    }
}
