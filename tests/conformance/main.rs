//! Conformance with MQTT 5.0 and MQTT 3.1.1: each normative statement by a test that names it.
//!
//! `statements_v5.tsv` and `statements_v311.tsv` list the statements of appendix B of both specifications with the
//! tests that cover them; [`statements`] holds the tables against the tests. The server's statements are tested on
//! `broker::Shard` through [`harness`], on one shard and on three, with bytes made by [`wire`]; the client's on
//! `ClientSession` in [`client`], [`client_exchange`] and [`client_packets`]. [`bad_input`] is the table of everything a
//! hostile peer may send.

mod auth;
mod bad_input;
mod client;
mod client_exchange;
mod client_packets;
mod connect;
mod encoding;
mod flow;
mod harness;
mod hostile;
mod publish;
mod retained;
mod session;
mod shared;
mod statements;
mod subscribe;
mod will;
mod wire;
