//! `tests/bench`: what the whole chain does in a second and what it costs.

pub mod bare;

use crate::process::{self, Process};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::process::Command;
use std::time::Duration;

/// Measures a bare subscriber, in a process of its own, on `count` messages taken from `messages` in turn.
///
/// # Errors
/// When broker or subscriber fail.
pub fn bare_subscriber(port: u16, messages: &[Bytes], count: u64) -> Result<bare::Bare> {
    let folder = process::folder("bare")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-subscriber", &port.to_string(), &count.to_string()]);
    let mut subscriber = Process::spawn("bare subscriber", &mut command, &folder.path().join("log"))?;
    subscriber.wait_for_log("ready", Duration::from_secs(20))?;
    bare::publish(port, messages, count)?;
    subscriber.wait(Duration::from_secs(60))?;
    let log = subscriber.log();
    let line =
        log.lines().find(|line| line.starts_with('{')).with_context(|| format!("it printed: {log}"))?;
    Ok(serde_json::from_str(line)?)
}
