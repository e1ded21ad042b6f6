//! Setting up a broker.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::Arc,
    thread,
    time::Duration,
};

use super::{Broker, BrokerHandle};
use crate::{
    broker::{Hooks, Settings, Shared},
    clock::Clock,
    faults::Faults,
    net::{
        listener::{BindError, ListenerConfig, bind},
        shard::{Lodging, Shards, spawn},
    },
    router::SHARDS_MAX,
    store::{Store, StoreError},
};

/// What a broker is made from. Without listeners it is reached by [`Broker::connect_memory`] only.
#[derive(Debug)]
pub struct BrokerBuilder {
    settings: Settings,
    hooks: Hooks,
    listeners: Vec<ListenerConfig>,
    shards: usize,
    seed: Option<u64>,
    drain_timeout: Duration,
    clock: Clock,
    faults: Option<Faults>,
    lodging: Lodging,
    #[cfg(feature = "durable")]
    store: Option<(std::path::PathBuf, crate::disk::Durability)>,
}

impl Default for BrokerBuilder {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            hooks: Hooks::default(),
            listeners: Vec::new(),
            shards: 1,
            seed: None,
            drain_timeout: DRAIN_TIMEOUT,
            clock: Clock::system(),
            faults: None,
            lodging: Lodging::default(),
            #[cfg(feature = "durable")]
            store: None,
        }
    }
}

impl BrokerBuilder {
    /// Capabilities and bounds; the defaults are made for the open network.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Authentication, authorisation, events.
    #[must_use]
    pub fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// Adds a listener: a [`ListenerConfig`], or a [`ListenerUrl`](crate::net::listener::ListenerUrl) for the defaults.
    #[must_use]
    pub fn listen(mut self, listener: impl Into<ListenerConfig>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// How many threads share the clients, 64 at most; 0 takes as many as there are cores. Default 1. One of them does it
    /// all until it is busy.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// When one thread runs the shards of others; for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn lodging(mut self, lodging: Lodging) -> Self {
        self.lodging = lodging;
        self
    }

    /// Seeds what is random, hashes included; without it, the seed is. A known seed is for tests.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long [`Broker::shutdown`] waits for what is unsent. Default 5 s.
    #[must_use]
    pub fn drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.drain_timeout = drain_timeout;
        self
    }

    /// Where the time comes from; one that can be advanced is for tests. Default: the system.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Has all connections go through faults, for tests; the broker then lives by their clock.
    #[must_use]
    pub fn faults(mut self, faults: &Faults) -> Self {
        self.clock = faults.clock().clone();
        self.faults = Some(faults.clone());
        self
    }

    /// Keeps persistent sessions, their messages and retained messages in a directory, in place of the store of the
    /// hooks. Nothing is acknowledged before it is there, and the next broker goes on with it.
    #[cfg(feature = "durable")]
    #[must_use]
    pub fn store(mut self, directory: impl Into<std::path::PathBuf>, durability: crate::disk::Durability) -> Self {
        self.store = Some((directory.into(), durability));
        self
    }

    /// Starts it. When this returns, all listeners accept connections.
    pub fn start(mut self) -> Result<Broker, StartError> {
        self.open_store()?;
        let count = match self.shards {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let count = count.min(SHARDS_MAX);
        let seed = self.seed.unwrap_or_else(random_seed);
        let now = self.clock.now();
        let bound = self.listeners.iter().map(|listener| bind(listener, count)).collect::<Result<Vec<_>, _>>()?;
        let (authenticator, authorizer) = (self.hooks.authenticator.clone(), self.hooks.authorizer.clone());
        let store = self.hooks.store.clone();
        let unix_time = self.clock.unix_time();
        let shared = Shared::with_store(self.settings, self.hooks, count, seed, now, unix_time)?;
        let interposer = self.faults.as_ref().map(Faults::interposer);
        let (shards, polls) =
            Shards::new(&shared, authenticator, authorizer, seed, &self.clock, interposer, self.lodging)
                .map_err(StartError::Poll)?;
        if let Some(store) = &store {
            follow(&shards, store.as_ref());
        }
        let mut broker = Broker {
            handle: BrokerHandle::new(Arc::clone(&shards), shared),
            listeners: Vec::new(),
            threads: Vec::new(),
            socket_files: Vec::new(),
            drain_timeout: self.drain_timeout,
            store,
        };
        for listener in bound {
            shards.listen(listener.sockets, &listener.info).map_err(StartError::Poll)?;
            broker.listeners.push(listener.url);
            broker.socket_files.extend(listener.socket_file);
        }
        for (index, poll) in polls.into_iter().enumerate() {
            // If one cannot be had, dropping the broker ends those before it.
            let thread = spawn(Arc::clone(&shards), index, poll).map_err(StartError::Thread)?;
            broker.threads.push(thread);
        }
        Ok(broker)
    }
}

impl BrokerBuilder {
    #[cfg(feature = "durable")]
    fn open_store(&mut self) -> Result<(), StoreError> {
        if let Some((directory, durability)) = &self.store {
            self.hooks.store = Some(Arc::new(crate::store::DiskStore::open(directory, *durability)?));
        }
        Ok(())
    }

    #[cfg(not(feature = "durable"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // there is none to open
    fn open_store(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Has the shards told what the store commits.
fn follow(shards: &Arc<Shards>, store: &dyn Store) {
    let shards = Arc::downgrade(shards);
    store.on_commit(Box::new(move |log, _| {
        if let Some(shards) = shards.upgrade() {
            let shard = usize::from(log.0);
            shards.committed((shard < shards.len()).then_some(shard));
        }
    }));
}

/// Why a broker could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener could not be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A readiness source could not be had.
    #[error("no readiness source for a shard: {0}; raise the limit on open files, or use fewer shards")]
    Poll(io::Error),
    /// A thread could not be had.
    #[error("no thread for a shard: {0}; raise the limit on processes, or use fewer shards")]
    Thread(io::Error),
}

/// The standard library seeds its hash tables from the system's random source.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A client on a slow link takes a few seconds for what is on its way to it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
