//! `tests/bench`: what the whole chain does in a second and what it costs.

pub mod backlog;
pub mod bare;
pub mod chain;
pub mod durability;
pub mod firmware;
pub mod latency;

use crate::mosquitto::Mosquitto;
use crate::process::{self, Process};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::fmt;
use std::process::Command;
use std::time::Duration;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Boards at full speed.
    pub boards: u64,
    /// Their blocks in all.
    pub blocks: u64,
    /// Boards in real time.
    pub real_time_boards: u64,
    /// For so long.
    pub real_time_seconds: u64,
}

/// Everything that one run measured.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Report {
    /// The chain at full speed.
    pub chain: chain::Throughput,
    /// The chain in real time.
    pub latency: latency::Latency,
    /// A bare subscriber on the same messages.
    pub bare: bare::Bare,
    /// Samples a second through the whole chain.
    pub samples_per_second: f64,
    /// Samples per second of the agent's CPU time.
    pub samples_per_cpu_second: f64,
    /// The same of the bare subscriber.
    pub bare_samples_per_cpu_second: f64,
    /// Bytes on disk per sample.
    pub disk_bytes_per_sample: f64,
}

/// Measures everything.
///
/// # Errors
/// When a part of it fails.
pub fn run(size: Size) -> Result<Report> {
    let (chain, messages) = chain::full_speed(size.boards, size.blocks)?;
    let bare = bare_subscriber(&messages, 100_000)?;
    let latency = latency::real_time(size.real_time_boards, size.real_time_seconds)?;
    let samples = chain.samples as f64;
    Ok(Report {
        chain,
        latency,
        bare,
        samples_per_second: samples / chain.seconds,
        samples_per_cpu_second: samples / chain.agent_cpu_seconds,
        bare_samples_per_cpu_second: (bare.messages * chain::BLOCK_SAMPLES) as f64 / bare.cpu_seconds,
        disk_bytes_per_sample: chain.disk_bytes as f64 / samples,
    })
}

/// Measures a bare subscriber, in a process of its own, on `count` messages taken from `messages` in turn.
///
/// # Errors
/// When broker or subscriber fail.
pub fn bare_subscriber(messages: &[Bytes], count: u64) -> Result<bare::Bare> {
    let broker = Mosquitto::start(chain::BROKER)?;
    let folder = process::folder("bare")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-subscriber", &broker.port().to_string(), &count.to_string()]);
    let mut subscriber = Process::spawn("bare subscriber", &mut command, &folder.path().join("log"))?;
    subscriber.wait_for_log("ready", Duration::from_secs(20))?;
    bare::publish(broker.port(), messages, count)?;
    subscriber.wait(Duration::from_secs(60))?;
    let log = subscriber.log();
    let line =
        log.lines().find(|line| line.starts_with('{')).with_context(|| format!("it printed: {log}"))?;
    Ok(serde_json::from_str(line)?)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |value: f64| value / 1e6;
        let (chain, latency) = (&self.chain, &self.latency);
        writeln!(f, "boards -> Mosquitto -> spindle run (journal with fsync, pipeline) -> Kafka acks=all;")?;
        writeln!(f, "{} blocks of 512 x 3 int16, {} feature records\n", chain.blocks, chain.feature_records)?;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<52} {value:>20}");
        row("samples per second", format!("{:.2} M", mega(self.samples_per_second)))?;
        row("samples per CPU-second of the agent", format!("{:.2} M", mega(self.samples_per_cpu_second)))?;
        row(
            "  a bare rumqttc subscriber, same messages",
            format!("{:.2} M", mega(self.bare_samples_per_cpu_second)),
        )?;
        row("last sample of a window to its features, p50", format!("{:.0} ms", latency.p50_ms))?;
        row("  p99", format!("{:.0} ms", latency.p99_ms))?;
        row(
            "peak memory of the agent",
            format!("{:.0} MiB", chain.memory_peak_bytes as f64 / f64::from(1 << 20)),
        )?;
        row("disk per sample", format!("{:.2} B", self.disk_bytes_per_sample))
    }
}
