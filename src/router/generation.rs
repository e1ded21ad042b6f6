//! Generations: a cached route is valid while a number has not moved.
//!
//! Counters are striped by what a filter can match, so that one SUBSCRIBE does not void every cached route:
//! an exact filter moves the stripe of its text; a wildcard filter moves the stripe of its literal levels before the
//! first wildcard, up to three of them (`site/7/+/temp` moves the stripe of `site/7`); only a filter that starts with a
//! wildcard moves a counter that every topic reads. A topic's [`Generation`] is the sum of the counters that it reads.
//! Counters only grow, so two sums read one after the other by one thread are equal exactly if every counter is.
//!
//! # Why no stale route is served
//! A writer changes a table under that table's lock and only then adds one to a counter (Release). A reader loads the
//! counters (Acquire), then computes the route under the same lock, then caches it with what it loaded. Say the route
//! misses the change. Then the reader's critical section came before the writer's, so its load of the counter happened
//! before the writer's addition and got an older number: every load after the writer is done gets a newer one, and the
//! cached route is refused. Conversely, a reader that loaded the new number has acquired the change with it. The cost of
//! the other order, new route with old number, is one needless recomputation.
//!
//! "After the writer is done" means any order that the program can observe: same thread, a message between shards, or a
//! SUBACK that travelled through a client.

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    ops::Add,
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::{SharedSeed, quality::SeedableRandomState};

/// Hashes topics and client identifiers; all parts that share a hash need the same hasher.
#[derive(Clone)]
pub struct TopicHasher(SeedableRandomState);

impl TopicHasher {
    /// A hasher whose `seed` should be random in production: topics are chosen by strangers.
    pub fn new(seed: u64) -> Self {
        Self(SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()))
    }

    /// `topic` with its hash: computed once per publish, then handed around.
    #[inline]
    pub fn topic<'a>(&self, topic: &'a str) -> HashedTopic<'a> {
        HashedTopic { text: topic, hash: self.text(topic) }
    }

    /// The hash of any text, for instance of a client identifier.
    #[inline]
    pub fn text(&self, text: &str) -> u64 {
        self.bytes(text.as_bytes())
    }

    /// The hash of a text of which it is not known yet whether it is one.
    #[inline]
    pub(crate) fn bytes(&self, text: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(text);
        hasher.finish()
    }

    /// The counters that concern a topic. Kept beside a cached route, so that a hit need not take the topic apart.
    pub fn stripes(&self, topic: HashedTopic<'_>) -> Stripes {
        let mut stripes = [stripe(topic.hash, 0); STRIPES_PER_TOPIC];
        let prefixes = ends_of_levels(topic.text).take(PREFIX_LEVELS_MAX).enumerate();
        for (index, end) in prefixes {
            stripes[index + 1] = self.prefix_stripe(topic.text, end, index + 1);
        }
        Stripes(stripes)
    }

    fn prefix_stripe(&self, text: &str, end: usize, levels: usize) -> u16 {
        stripe(self.text(&text[..end]), levels)
    }
}

impl fmt::Debug for TopicHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed stays out of logs.
        f.write_str("TopicHasher")
    }
}

/// A topic name and its hash.
#[derive(Debug, Clone, Copy)]
pub struct HashedTopic<'a> {
    text: &'a str,
    hash: u64,
}

impl<'a> HashedTopic<'a> {
    /// The topic.
    pub const fn as_str(self) -> &'a str {
        self.text
    }

    /// Its hash.
    pub const fn hash(self) -> u64 {
        self.hash
    }
}

/// The counters that a topic reads, see [`TopicHasher::stripes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripes([u16; STRIPES_PER_TOPIC]);

/// The state of everything that could change a topic's route, as one number. Generations of two independent
/// [`Generations`] may be added: the sum stands still exactly while both do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

impl Add for Generation {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// The counters behind [`Generation`]; shared by reference, all methods take `&self`.
#[derive(Debug)]
pub struct Generations {
    hasher: TopicHasher,
    /// All changes.
    changes: AtomicU64,
    /// Changes of filters that start with a wildcard.
    leading: AtomicU64,
    stripes: Box<[AtomicU64; STRIPES]>,
}

impl Generations {
    /// Counters at zero. Readers must compute their [`Stripes`] with the same `hasher`.
    pub fn new(hasher: TopicHasher) -> Self {
        let (changes, leading) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { hasher, changes, leading, stripes: Box::new([const { AtomicU64::new(0) }; STRIPES]) }
    }

    /// The hasher whose stripes these counters understand.
    pub const fn hasher(&self) -> &TopicHasher {
        &self.hasher
    }

    /// The present generation for a topic with these stripes. Read it before computing a route that is to be cached.
    #[inline]
    pub fn current(&self, stripes: Stripes) -> Generation {
        let leading = self.leading.load(Ordering::Acquire);
        let sum = |sum: u64, stripe: u16| sum.wrapping_add(self.stripes[usize::from(stripe)].load(Ordering::Acquire));
        Generation(stripes.0.into_iter().fold(leading, sum))
    }

    /// How many changes there have been: while that stands still, so does every generation. To be read before the
    /// generation that it is to stand for.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Voids the cached routes of all topics that `filter` matches (and of some others). To be called after the change
    /// is visible to readers, and before the change is reported to anyone.
    pub fn bump(&self, filter: &str) {
        let counter = match literal_levels(filter) {
            None => self.stripe(stripe(self.hasher.text(filter), 0)),
            Some(0) => &self.leading,
            Some(levels) => {
                let levels = levels.min(PREFIX_LEVELS_MAX);
                let end = ends_of_levels(filter).nth(levels - 1).expect("a filter has its literal levels");
                self.stripe(self.hasher.prefix_stripe(filter, end, levels))
            }
        };
        counter.fetch_add(1, Ordering::Release);
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn stripe(&self, stripe: u16) -> &AtomicU64 {
        &self.stripes[usize::from(stripe)]
    }
}

/// Whether `filter` holds no wildcard, so that it matches one topic only.
pub(super) fn is_exact(filter: &str) -> bool {
    !filter.contains(['+', '#'])
}

/// Number of levels before the first wildcard; `None` if there is no wildcard.
fn literal_levels(filter: &str) -> Option<usize> {
    let wildcard = filter.find(['+', '#'])?;
    Some(filter[..wildcard].matches('/').count())
}

/// Where each level of `text` ends.
fn ends_of_levels(text: &str) -> impl Iterator<Item = usize> {
    // Topics are short: a plain loop is through before a search for many bytes at once has been set up.
    let slashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
    slashes.map(|(at, _)| at).chain([text.len()])
}

/// Each kind of stripe (exact, prefix of 1, 2, 3 levels) uses other bits of the hash, so that a change of the exact
/// filter `a` does not void what lies under `a/`.
const fn stripe(hash: u64, kind: usize) -> u16 {
    (hash >> (kind as u32 * STRIPES.trailing_zeros())) as u16 & (STRIPES as u16 - 1)
}

/// 8 KiB of counters: a change voids about one cached route in a thousand besides those it concerns.
const STRIPES: usize = 1024;
/// Filters are usually told apart within three levels (`site/line/device`); each more costs every publish one load.
const PREFIX_LEVELS_MAX: usize = 3;
const STRIPES_PER_TOPIC: usize = 1 + PREFIX_LEVELS_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(filter: &str, topic: &str) -> bool {
        let generations = Generations::new(TopicHasher::new(3));
        let hasher = generations.hasher();
        let stripes = hasher.stripes(hasher.topic(topic));
        let before = generations.current(stripes);
        generations.bump(filter);
        before != generations.current(stripes)
    }

    #[test]
    fn a_filter_moves_the_generation_of_what_it_matches() {
        let filters =
            ["#", "+", "+/+", "a/#", "a/+", "a/b/c/d/#", "a/b/c", "a", "/", "/+", "//#", "a/b/c/d/e/+", "a//#"];
        let topics =
            ["a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a/b/c/d/e/f", "/", "//", "//x", "a/", "a//", "a//b"];
        let naive = |filter: &str, topic: &str| {
            let (mut levels, mut rest) = (filter.split('/'), topic.split('/'));
            loop {
                match (levels.next(), rest.next()) {
                    (Some("#"), _) | (None, None) => return true,
                    (Some(level), Some(text)) if level == "+" || level == text => {}
                    _ => return false,
                }
            }
        };
        for filter in filters {
            for topic in topics.into_iter().filter(|topic| naive(filter, topic)) {
                assert!(moved(filter, topic), "{filter} {topic}");
            }
        }
    }

    #[test]
    fn a_filter_leaves_the_generation_of_most_other_topics_alone() {
        for filter in ["device/7/#", "device/7/+/temp", "a/b/c/7/#", "device/7/temp", "device"] {
            let others = (100..1100).filter(|n| moved(filter, &format!("device/{n}/temp"))).count();
            assert!(others < 50, "{filter} voids {others} of 1000");
        }
    }

    #[test]
    fn literal_levels_are_those_before_the_first_wildcard() {
        let cases = [
            ("a/b", None),
            ("#", Some(0)),
            ("+/a", Some(0)),
            ("a/#", Some(1)),
            ("/+", Some(1)),
            ("a/b/+/c/#", Some(2)),
        ];
        for (filter, expected) in cases {
            assert_eq!(literal_levels(filter), expected, "{filter}");
        }
    }
}
