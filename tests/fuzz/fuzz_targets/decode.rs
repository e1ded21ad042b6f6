//! Whole packets from any bytes, in any pieces.

#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)] // each fuzzer uses one of the functions
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::decode(data));
