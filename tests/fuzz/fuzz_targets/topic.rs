//! Topic names, filters and matching against a naive reading of section 4.7.

#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)] // each fuzzer uses one of the functions
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::topic(data));
