//! Why a file cannot be used: which one, what is wrong with it, and what to do.

use std::{io, path::PathBuf, sync::Arc};

/// Why a store or spool cannot be opened or written. Cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Somebody has it open.
    #[error("{} is in use by another process, or twice in this one: end the other user, or name another path", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Something else is in it.
    #[error("{} holds {found}, not {wanted}: name another path", path.display())]
    OtherContents {
        /// The file.
        path: PathBuf,
        /// What is in it.
        found: String,
        /// What should be.
        wanted: &'static str,
    },
    /// It is another client's.
    #[error("{} belongs to the client {found:?}, not to {wanted:?}: each client needs a path of its own", path.display())]
    OtherOwner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked for it.
        wanted: String,
    },
    /// A newer program has written it.
    #[error(
        "{} was written by a newer version (its format is {found}, {known} is the newest known here): use that version, or name \
         another path",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest format that this program reads.
        known: u16,
    },
    /// What it holds makes no sense.
    #[error("{} is damaged: {what}; move it aside and start anew, or put a copy in its place", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk, or what one may use of it, is full.
    #[error("{}: the disk is full: make room, and what waits is written", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// It is open, and somebody has taken what was in it.
    #[error("{} was given to somebody already: each user opens it for itself", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl DiskError {
    /// Whether the same attempt, made again later, may succeed.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Full { .. } | Self::Io { .. })
    }
}
