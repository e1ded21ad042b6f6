//! Looking ahead: the routes of the next publications are fetched from memory together.
//!
//! Who publishes to a hundred thousand topics finds few of their routes in the processor's caches. Looked up one by one, each
//! makes the shard wait for memory several times, and that is a third of all it does then. But a read brings many packets,
//! and so does another shard; what their look-ups wait for can be waited for at once. Where the cache of routes is small
//! nothing is looked ahead for.

use smallvec::SmallVec;

use super::shard::{Envelope, Shard};
use crate::{
    codec::{Cut, PacketType, frame},
    router::PREFETCH_MAX,
};

type Topics<'a> = SmallVec<[&'a [u8]; PREFETCH_MAX]>;

impl Shard {
    /// Fetches what the first publications in `bytes` will need; returns how many bytes those are, or all if there is
    /// nothing to gain.
    #[inline]
    pub(super) fn look_ahead(&self, bytes: &[u8]) -> usize {
        if self.cache.len() < ROUTES_MIN { bytes.len() } else { self.look_at_packets(bytes) }
    }

    /// Fetches what the publications in a batch of another shard will need.
    pub fn look_ahead_of(&self, batch: &[Envelope]) {
        if self.cache.len() < ROUTES_MIN {
            return;
        }
        for some in batch.chunks(PREFETCH_MAX) {
            let topics = some.iter().filter_map(|envelope| match envelope {
                Envelope::Publish(message) | Envelope::Durable { message, member: None, .. } => Some(message.topic()),
                Envelope::Run(run) => Some(run.topic()),
                _ => None,
            });
            self.prefetch_routes(&topics.map(str::as_bytes).collect());
        }
    }

    #[inline(never)]
    fn look_at_packets(&self, bytes: &[u8]) -> usize {
        let (mut topics, mut used) = (Topics::new(), 0);
        while topics.len() < PREFETCH_MAX
            && let Ok(Cut::Frame(frame, length)) = frame::cut(bytes.get(used..).unwrap_or_default(), u32::MAX)
        {
            used += length;
            // Whether it is well-formed is seen when it is its turn.
            if frame.header >> 4 == PacketType::Publish as u8
                && let [high, low, rest @ ..] = frame.body
                && let Some(topic) = rest.get(..usize::from(u16::from_be_bytes([*high, *low])))
                && !topic.is_empty()
                && topics.last() != Some(&topic)
            {
                topics.push(topic);
            }
        }
        self.prefetch_routes(&topics);
        // What is no whole packet is looked at again when it is one.
        if topics.len() < PREFETCH_MAX { bytes.len() } else { used }
    }

    fn prefetch_routes(&self, topics: &Topics<'_>) {
        // One alone waits as long either way.
        if topics.len() > 1 {
            let hashes = topics.iter().map(|topic| self.shared.interest.hasher().bytes(topic));
            self.cache.prefetch(&hashes.collect::<SmallVec<[u64; PREFETCH_MAX]>>());
        }
    }
}

/// Fewer routes than this (a megabyte) are in the processor's caches.
const ROUTES_MIN: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        broker::{Hooks, Settings, Shared},
        router::ShardId,
    };

    fn shard() -> Shard {
        let now = Instant::now();
        Shard::new(ShardId(0), Shared::new(Settings::default(), Hooks::default(), 1, 1, now), now, 1)
    }

    fn publish(topic: &str) -> Vec<u8> {
        let len = topic.len() as u8;
        [&[0x30, len + 3, 0, len], topic.as_bytes(), b"!"].concat()
    }

    #[test]
    fn looking_ahead_stops_behind_as_many_topics_as_are_fetched_at_once() {
        let shard = shard();
        let packets: Vec<Vec<u8>> = (0..40).map(|number| publish(&format!("a/{}", number / 2))).collect();
        let bytes = packets.concat();
        let first: usize = packets.iter().take(2 * PREFETCH_MAX - 1).map(Vec::len).sum();
        assert_eq!(shard.look_at_packets(&bytes), first);
        assert_eq!(shard.look_at_packets(&bytes[..first - 1]), first - 1);
        assert_eq!(shard.look_ahead(&bytes), bytes.len(), "there are no routes to be fetched");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_looked_at_within_its_bounds(bytes in vec(any::<u8>(), 0..200), whole in 0usize..30) {
            let shard = shard();
            let packets: Vec<u8> = (0..whole).flat_map(|number| publish(&number.to_string())).chain(bytes).collect();
            let looked_at = shard.look_at_packets(&packets);
            prop_assert!(looked_at <= packets.len());
            prop_assert!(looked_at > 0 || packets.is_empty());
        }
    }
}
