//! Why telemetry could not be decoded, written or read.

use std::{io, path::PathBuf};

use arrow_schema::ArrowError;
use parquet::errors::ParquetError;

/// What went wrong with a table, a file or a setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// A payload is not what the decoder expects, and `on_error` is `raise`.
    #[error("message {row} on {topic:?} cannot be decoded: {fault}")]
    Decode {
        /// Topic of the message.
        topic: String,
        /// Its number, counted from 0 since decoding began.
        row: u64,
        /// What the decoder found.
        fault: DecodeError,
    },
    /// A decoder, schema, filter or duration that cannot be.
    #[error("{0}")]
    Settings(String),
    /// A file could not be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Parquet could not be written or read.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the library said.
        source: ParquetError,
    },
    /// A table does not hold what it should.
    #[error("{0}")]
    Arrow(#[from] ArrowError),
    /// The subscription ended by itself.
    #[error(transparent)]
    Client(#[from] crate::client::Error),
}

/// Why one payload could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub(crate) String);

impl DecodeError {
    pub(crate) fn new(fault: impl ToString) -> Self {
        Self(fault.to_string())
    }
}

impl TelemetryError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn parquet(path: &std::path::Path) -> impl FnOnce(ParquetError) -> Self {
        let path = path.to_owned();
        move |source| Self::Parquet { path, source }
    }
}
