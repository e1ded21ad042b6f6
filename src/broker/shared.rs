//! What the shards of one broker share: settings and hooks, the interest table, the retained store, a few counters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};

use super::{durable::Durable, hooks::Hooks, limits::Settings, message::Message, stats::Stats};
use crate::{
    router::{Interest, RetainedStore, SHARDS_MAX, ShardId},
    store::{Life, StoreError},
};

/// The shared part of a broker.
#[derive(Debug)]
pub struct Shared {
    pub(crate) settings: Settings,
    pub(crate) hooks: Hooks,
    pub(crate) interest: Interest,
    pub(crate) retained: RwLock<RetainedStore<Arc<Message>>>,
    /// Connections with a completed CONNECT, on all shards.
    pub(crate) connected: AtomicUsize,
    /// Each shard's last counters, for `$SYS`.
    published_stats: Mutex<Vec<Stats>>,
    shards: usize,
    /// The store and what was loaded from it.
    pub(crate) durable: Option<Arc<Durable>>,
    pub(crate) started: Instant,
}

impl Shared {
    /// The shared part of a broker with this many shards (1 to 64). `seed` goes into every hash, since topics and
    /// client identifiers are chosen by strangers: random in production, fixed in simulation.
    ///
    /// Without a store, even if there is one among the hooks: that takes [`Self::with_store`].
    pub fn new(settings: Settings, hooks: Hooks, shards: usize, seed: u64, now: Instant) -> Arc<Self> {
        if hooks.store.is_some() {
            tracing::warn!("the store is not used: the broker was started without the time of day");
        }
        Arc::new(Self::assemble(settings, hooks, shards, seed, now, RetainedStore::new(seed), None))
    }

    /// The shared part of a broker that goes on where the last one over the same store stopped; without a store among
    /// the hooks it is as [`Self::new`]. `unix_time` is the time since the Unix epoch at `now`: deadlines that have passed
    /// meanwhile are met at the first [`Shard::handle_timeout`](super::Shard::handle_timeout). All shards must exist
    /// before any of them handles anything.
    pub fn with_store(
        settings: Settings,
        hooks: Hooks,
        shards: usize,
        seed: u64,
        now: Instant,
        unix_time: Duration,
    ) -> Result<Arc<Self>, StoreError> {
        let mut retained = RetainedStore::new(seed);
        let count = shards.clamp(1, SHARDS_MAX);
        let life = Life { seed, shards: u8::try_from(count).expect("there are at most 64 shards") };
        let open = |store| Durable::open(store, life, (now, unix_time), &mut retained).map(Arc::new);
        let durable = hooks.store.clone().map(open).transpose()?;
        Ok(Arc::new(Self::assemble(settings, hooks, shards, seed, now, retained, durable)))
    }

    fn assemble(
        settings: Settings,
        hooks: Hooks,
        shards: usize,
        seed: u64,
        now: Instant,
        retained: RetainedStore<Arc<Message>>,
        durable: Option<Arc<Durable>>,
    ) -> Self {
        let shards = shards.clamp(1, SHARDS_MAX);
        Self {
            interest: Interest::new(seed, settings.shared_strategy),
            retained: RwLock::new(retained),
            connected: AtomicUsize::new(0),
            published_stats: Mutex::new(vec![Stats::default(); shards]),
            shards,
            started: now,
            settings,
            hooks,
            durable,
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The shard whose connections and sessions carry this client identifier.
    pub fn home(&self, client_id: &str) -> ShardId {
        ShardId((self.client_hash(client_id) % self.shards as u64) as u8)
    }

    /// The retained messages that match `filter`, at most `max`, as they are now.
    pub fn retained(&self, filter: &str, max: usize) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        let mut cursor = None;
        loop {
            cursor = self.retained.read().scan(filter, cursor, RETAINED_SLICE, |_, message| {
                if found.len() < max {
                    found.push(Arc::clone(message));
                }
            });
            if cursor.is_none() || found.len() >= max {
                return found;
            }
        }
    }

    /// How many distinct filters and shared groups the sessions of all shards subscribe to.
    pub fn filters(&self) -> usize {
        self.interest.len() + self.interest.groups_len()
    }

    /// How many connections have completed CONNECT.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    pub(crate) fn client_hash(&self, client_id: &str) -> u64 {
        self.interest.hasher().text(client_id)
    }

    /// Records one shard's counters and returns the sum of all.
    pub(crate) fn exchange_stats(&self, shard: ShardId, stats: Stats) -> Stats {
        let mut all = self.published_stats.lock();
        if let Some(slot) = all.get_mut(usize::from(shard.0)) {
            *slot = stats;
        }
        let mut sum = Stats::default();
        all.iter().for_each(|stats| sum.add(stats));
        sum
    }
}

/// Nodes of the retained tree looked at under one lock.
pub(crate) const RETAINED_SLICE: usize = 1024;
