//! FerroMQ: an MQTT 3.1, 3.1.1 and 5.0 engine.
//!
//! The crate is a sans-IO core with shells around it. Read it from the bottom up:
//!
//! | module | what it is | may know of |
//! |---|---|---|
//! | [`codec`] | bytes <-> packets | `bytes` only |
//! | [`session`] | one session machine for broker and client | `codec` |
//! | [`router`] | topics -> targets | `codec::topic` |
//! | [`disk`] | files with transactions | `codec` |
//! | [`store`], [`auth`] | traits for what lasts and who may | `codec` |
//! | [`broker`] | one shard's whole behaviour, without sockets or a clock | the above |
//! | [`config`] | typed configuration | `broker` settings |
//! | [`clock`] | the time that shells ask for | nothing |
//! | [`net`] | sockets, shards on threads | `broker`, `clock` |
//! | [`faults`] | what a test does to packets | `net`, `client` |
//! | [`server`] | the assembled broker | everything below |
//! | [`client`] | the asynchronous client | `session`, `net` transports |
//! | [`mod@bench`] | load for a broker | `session` |
//! | `telemetry` | messages as Arrow columns and Parquet files | `client` |
//!
//! `ARCHITECTURE.md` tells why; `tests/architecture.rs` enforces the table.

pub mod auth;
pub mod broker;
pub mod codec;
pub mod disk;
pub mod router;
pub mod session;
pub mod store;

#[cfg(feature = "net")]
pub mod client;
#[cfg(feature = "net")]
pub mod clock;
#[cfg(any(feature = "config", feature = "net"))]
pub mod config;
#[cfg(feature = "net")]
pub mod faults;
#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "net")]
pub mod server;

#[cfg(feature = "telemetry")]
pub mod telemetry;

#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "python")]
mod python;
