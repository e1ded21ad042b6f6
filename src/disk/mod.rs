//! What lies in files: the part that the broker's store and the client's spool share. One file is one redb database with
//! a head that says whose it is, and one table of rows; changes are collected in memory and written by a thread of their
//! own, everything that waits in one transaction.
//!
//! Without the feature `durable` only the errors are there, so that whoever passes them on need not know.

mod error;

#[cfg(feature = "durable")]
mod committer;
#[cfg(feature = "durable")]
mod fields;
#[cfg(feature = "durable")]
mod file;
#[cfg(feature = "durable")]
mod rows;

pub use error::DiskError;

#[cfg(feature = "durable")]
pub(crate) use committer::{Committer, Stage};
#[cfg(feature = "durable")]
pub(crate) use fields::{Fields, put_bytes, put_text};
#[cfg(feature = "durable")]
pub(crate) use file::{File, Head};
#[cfg(feature = "durable")]
pub(crate) use rows::{Encode, Key, Rows};

/// What a commit outlasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The machine: every commit ends with `fsync`, as far as system and disk keep that promise.
    #[default]
    Fsync,
    /// The process: commits are handed to the system, which writes them in its own time. A crash of the machine, or a
    /// power cut, may lose the last ones, and may leave a file that cannot be opened.
    Process,
}

/// Files that tests have on full disks.
#[cfg(all(test, feature = "durable"))]
pub(crate) fn full_disks() -> &'static parking_lot::Mutex<Vec<std::path::PathBuf>> {
    &file::tests::FULL
}
