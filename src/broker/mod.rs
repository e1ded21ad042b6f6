//! The sans-IO broker: one [`Shard`] is the whole behaviour of one thread's share of the clients.
//!
//! Bytes, envelopes, verdicts and time go in by `open`, `receive`, `closed`, `handle_*`; filled outboxes, and what
//! [`Shard::poll_output`] returns, come out. Nothing here knows of sockets, clocks or threads, so the same code runs
//! under real traffic and in the simulator.

mod ahead;
mod conn;
mod connect;
mod deliver;
mod delivery;
mod disconnect;
mod durable;
mod frames;
mod gathering;
mod hooks;
mod input;
mod journal;
mod limits;
mod message;
mod moment;
mod outbox;
mod peer;
mod permit;
mod publish;
mod reasons;
mod restore;
mod route;
mod run;
mod session;
mod shard;
mod shared;
mod slots;
mod stats;
mod subscribe;
mod subscribers;
mod subscriptions;
mod sys;
mod timers;
mod turns;
mod vouch;
mod will;
mod wire;

#[cfg(test)]
mod tests;

pub use hooks::{Event, EventSink, Hooks};
pub use journal::Receipt;
pub use limits::{Capabilities, DropPolicy, SessionLimits, Settings, SlowConsumer};
pub use message::Message;
pub use outbox::Outbox;
pub use peer::{Address, Peer};
pub use reasons::{DropReason, EndReason};
pub use run::Run;
pub use shard::{ClientInfo, Envelope, Handoff, Output, Shard, TransportEnd};
pub use shared::Shared;
pub use slots::ConnId;
pub use stats::{HOLDERS_MAX, Holder, Stats};
