//! PUBLISH in place against its owned form.

#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)] // each fuzzer uses one of the functions
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::publish(data));
