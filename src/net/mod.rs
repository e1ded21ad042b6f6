//! Sockets around the sans-IO core: listeners, transports, and shards on threads.
//!
//! One thread runs one [`broker::Shard`](crate::broker::Shard) with its own readiness source (epoll, kqueue), without an
//! asynchronous runtime: bytes are read into one buffer of the shard, handled at once, and what they caused is written
//! at the end of the tick, one system call for each connection. [`duplex`] connects a client of the same process
//! without sockets.

pub mod duplex;
pub mod listener;
pub mod tls;
pub mod ws;

pub(crate) mod blocking;
mod inbox;
pub(crate) mod interpose;
pub(crate) mod shard;
mod transport;
mod trim;

pub use shard::{Lodging, NetStats};
