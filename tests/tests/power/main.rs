//! The power goes at any moment, and any call to the disk fails: what was acknowledged is there. The file operations of
//! this process are recorded below SQLite and Rust's standard library (`hooks`), a model says what a disk may hold after a
//! cut (`spindle_tests::disk`), and the gateway's storage is opened on that.
//!
//! `SPINDLE_CUTS=N` sets how many seeds are tried, `SPINDLE_CUT_SEED=S` tries the seed S alone;
//! `SPINDLE_FAULT_STRIDE=1` lets every call fail in a run of its own and not each fifth.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod cuts;
mod faults;
mod hooks;
mod world;
