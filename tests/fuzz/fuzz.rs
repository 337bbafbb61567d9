//! All fuzz targets in one program: FUZZ_TARGET names the one that runs.
#![no_main]

use std::sync::OnceLock;

#[path = "../src/fuzz.rs"]
mod fuzz;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn named() -> fn(&[u8]) {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match fuzz::TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, body)) => *body,
        None => {
            eprintln!("FUZZ_TARGET is {name:?}; there are {:?}", fuzz::TARGETS.map(|(known, _)| known));
            std::process::exit(2);
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.get_or_init(named)(data));
