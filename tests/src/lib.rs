//! The harness of the end-to-end tests: real servers, the real `spindle` program, faults between them, and what came
//! out at the end. Everything that it starts has its own folder and ports from the kernel, so tests run in parallel,
//! and is ended when its value is dropped or when the test process dies.
#![allow(
    clippy::disallowed_methods,
    reason = "the harness waits on real time for other processes and has threads of its own"
)]

pub mod agent;
pub mod bench;
pub mod crash;
pub mod disk;
pub mod evaluate;
pub mod flood;
#[allow(clippy::panic, reason = "a fuzz target says by a panic what it found")]
pub mod fuzz;
pub mod kafka;
pub mod line;
pub mod metrics;
pub mod mosquitto;
pub mod node;
pub mod obedient;
pub mod process;
pub mod proxy;
pub mod pty;
pub mod qemu;
pub mod raw;
pub mod simulation;
pub mod tools;
pub mod wait;
