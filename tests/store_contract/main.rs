//! What every storage engine must do, and what a broker makes of one: nothing is acknowledged before it is committed,
//! and a crash at any point loses nothing that was.

#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions, these are their helpers

mod contents;
mod crash;
mod delayed;
mod engine;
mod held;
mod restart;
mod rng;
mod world;
