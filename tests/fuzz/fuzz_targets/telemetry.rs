//! Payloads of any bytes into columns, by every decoder.

#![no_main]

#[path = "../telemetry.rs"]
#[allow(dead_code)] // each fuzzer uses one of the functions
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::decode(data));
