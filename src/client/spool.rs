//! Where a client keeps what must survive its process: the trait, and the file.
//!
//! A publication with QoS 1 or 2 is accepted into memory and into the spool at one time; the spool's thread commits a few
//! milliseconds later, everything that has come meanwhile in one transaction. The next process with the same client
//! identifier finds there what was not done.

use std::fmt;

use crate::{
    disk::DiskError,
    session::client::{Change, Spooled},
};

/// Keeps the changes of one client's session.
pub trait Spool: Send + Sync + fmt::Debug {
    /// What the last process has left. Called once, before anything is submitted.
    fn load(&self) -> Result<Spooled, DiskError>;

    /// Takes a batch of changes; they count from 1. Must not block.
    fn submit(&self, batch: u64, changes: Vec<Change>);

    /// Asks to be told, on whatever thread, which batches are committed, or why none can be.
    fn on_commit(&self, tell: SpoolListener);

    /// Why nothing can be committed at present, if so.
    fn failure(&self) -> Option<DiskError>;

    /// Commits what was submitted, and lets go of what it holds. May take its time.
    fn close(&self);
}

/// What is called on commits, and on failures.
pub type SpoolListener = Box<dyn Fn(Result<u64, DiskError>) + Send + Sync>;
