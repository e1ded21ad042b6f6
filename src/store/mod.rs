//! What outlasts the broker: one trait through which shards record every change of what must survive, an engine in
//! memory, and one on a disk (`DiskStore`, with the feature `durable`). Sans-IO: the trait neither waits nor asks for the
//! time.
//!
//! A broker appends [`Record`]s to *logs*: each shard has one for its sessions, and all share one for retained messages
//! ([`LogId::SHARED`]). [`Store::submit`] takes a batch and returns a [`Ticket`] at once; the engine commits when and where
//! it likes, and whatever vouches for the batch (PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, ...) leaves the broker only after
//! that. [`Contents`] is the meaning of the records: an engine that keeps records may replay them into one.
//!
//! # What an engine promises
//! 1. A batch is committed whole or not at all.
//! 2. The batches of one log are committed in the order of their tickets.
//! 3. What was committed is in the next [`Store::load`]; what was submitted and not committed may be, or not, but never
//!    without everything that was submitted before it to the same log.
//! 4. Everything committed before [`Store::load`] comes before everything submitted after it, whatever the logs.
//!
//! Nothing is promised about the order between two logs; the broker asks for none.
//!
//! To add an engine: a file here (or beside the broker) that implements [`Store`], and one line in
//! `tests/store_contract`.

mod contents;
mod memory;
mod record;

#[cfg(feature = "durable")]
mod disk;
#[cfg(feature = "durable")]
mod rows;
#[cfg(feature = "durable")]
mod stage;

use std::fmt;

#[cfg(feature = "durable")]
pub use disk::DiskStore;

pub use contents::{Contents, DeliveryContents, MessageContents, Progress, Relay, SessionContents};
pub use memory::MemoryStore;
pub use record::{Handover, Id, Life, Message, Record, SessionState, ShareMember, SubscriptionState, WillState};

use crate::disk::DiskError;

/// A storage engine.
pub trait Store: Send + Sync + fmt::Debug {
    /// Appends a batch to a log. Must not block: an engine that has to wait commits on a thread of its own.
    fn submit(&self, log: LogId, batch: Vec<Record>) -> Ticket;

    /// The greatest ticket of the log such that it and all before it are committed.
    fn committed(&self, log: LogId) -> Ticket;

    /// Asks to be told, on whatever thread, when [`Self::committed`] of a log has grown after [`Self::submit`] had
    /// returned; several tickets may be told at once. The shell then has that shard's `Shard::handle_committed` called,
    /// and that of every shard for [`LogId::SHARED`]. An engine whose batches are committed when `submit` returns has
    /// nothing to tell. A second call replaces the first.
    fn on_commit(&self, tell: CommitListener) {
        drop(tell);
    }

    /// What is committed. Called once, before anything is submitted; may take its time.
    fn load(&self) -> Result<Contents, StoreError>;

    /// The broker has ended and submits nothing more: commits what was submitted, and lets go of what it holds. May take
    /// its time.
    fn close(&self) {}
}

/// What is called on commits.
pub type CommitListener = Box<dyn Fn(LogId, Ticket) + Send + Sync>;

/// A log of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u8);

impl LogId {
    /// The log that all shards write to: retained messages, and what is settled at start-up.
    pub const SHARED: Self = Self(u8::MAX);
}

/// A place in a log: grows with every batch of it, from 1. The default, 0, stands for nothing and is always committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// Why contents cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine cannot read.
    #[error("the store cannot be read: {0}")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What it reads makes no sense.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// Its file cannot be used.
    #[error("the store {0}")]
    Disk(#[from] DiskError),
}
