//! Telemetry: messages as Arrow columns, in memory and in Parquet files. No Python in here.
//!
//! | file | what it is |
//! |---|---|
//! | `decode` | one payload straight into columns: JSON, CBOR, MessagePack, numbers, packed structs, Sparkplug B |
//! | `column` | columns that learn their types |
//! | `kind` | types that are given |
//! | `pattern` | filters with named levels, one column each |
//! | `rows` | messages to record batches |
//! | `capture`, `keep` | a subscription that becomes a table or files, on a thread of its own |
//! | `record`, `read`, `replay` | Parquet files: written, read, and published again |
//! | `delivery` | QoS, retain flag and properties of recorded messages |
//! | `filter` | which rows |
//! | `messages` | the rows of a batch as the messages that they were |
//! | `summary` | a table in words and in HTML |
//! | `table` | batches that widened on the way, as one table |
//!
//! Everything is bounded: [`Limits`] has the nesting and the number of values of one payload, the columns of a table,
//! and the rows and bytes of a batch.

mod capture;
mod column;
mod decode;
mod delivery;
mod error;
mod filter;
mod keep;
mod kind;
mod messages;
mod pattern;
mod read;
mod record;
mod replay;
mod rows;
mod summary;
mod table;

pub use capture::{Capture, CaptureOptions, CaptureTarget, Progress};
pub use decode::{Decoder, Packed};
pub use error::{DecodeError, TelemetryError};
pub use filter::Filter;
pub use keep::Keep;
pub use kind::Kind;
pub use messages::Messages;
pub use pattern::Pattern;
pub use read::{FileBatches, read, read_decoded};
pub use record::{RecordOptions, Recorder};
pub use replay::{Replay, ReplayOptions};
pub use rows::{Counts, Limits, OnError, Rows, RowsOptions};
pub use summary::{Series, Summary};
pub use table::{Table, type_name};
