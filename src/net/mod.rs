//! To be written.

pub mod ws;
