#![no_main]

#[path = "../../src/fuzz.rs"]
#[allow(dead_code, reason = "each target runs one of the bodies")]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::rice_decode(data));
