//! Any text as a condition on rows, a layout, a type, a filter with names.

#![no_main]

#[path = "../telemetry.rs"]
#[allow(dead_code)] // each fuzzer uses one of the functions
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::words(data));
