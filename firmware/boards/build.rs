//! Every board's: gives the linker the board's memory map.

use std::path::Path;

fn main() {
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    if let Err(error) = std::fs::copy("memory.x", Path::new(&out).join("memory.x")) {
        println!("cargo::error=cannot copy memory.x to {out}: {error}");
    }
    println!("cargo::rustc-link-search={out}");
    println!("cargo::rerun-if-changed=memory.x");
    // Sections begin where the map says, not at the next page.
    println!("cargo::rustc-link-arg-bins=--nmagic");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    if std::env::var_os("CARGO_FEATURE_DEFMT").is_some() {
        println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    }
}
