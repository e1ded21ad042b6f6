//! The sans-IO broker: one [`Shard`] is the whole behaviour of one thread's share of the clients.
//!
//! Bytes, envelopes, verdicts and time go in by `open`, `receive`, `closed`, `handle_*`; filled outboxes, and what
//! [`Shard::poll_output`] returns, come out. Nothing here knows of sockets, clocks or threads, so the same code runs
//! under real traffic and in the simulator.

mod reasons;

pub use reasons::{DropReason, EndReason};
