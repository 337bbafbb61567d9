//! Puts the memory map where the linker looks.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=memory.x");
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    if let Err(error) = std::fs::copy("memory.x", Path::new(&out).join("memory.x")) {
        println!("cargo::error=cannot copy memory.x: {error}");
    }
    println!("cargo:rustc-link-search={out}");
    if std::env::var_os("CARGO_FEATURE_DEFMT").is_some() {
        println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    }
}
