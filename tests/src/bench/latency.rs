//! The chain in real time: how old a window's features are when a consumer of Kafka has them.

use super::chain;
use crate::agent::{Agent, Verb};
use crate::kafka::Kafka;
use crate::mosquitto::Mosquitto;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time from the last sample of a window to its features at a consumer.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Latency {
    /// Feature records measured.
    pub records: usize,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Largest.
    pub max_ms: f64,
}

/// Lets `boards` boards of 26,667 Hz run in real time for about `seconds`. A record's time has a resolution of 1 ms.
///
/// # Errors
/// When a part fails or no features come.
pub fn real_time(boards: u64, seconds: u64) -> Result<Latency> {
    let kafka = Kafka::start()?;
    let broker = Mosquitto::start(chain::BROKER)?;
    let mut agent = Agent::started(&chain::config(&broker.address(), &kafka.address()))?;
    let arguments = chain::simulate(&broker.address(), boards, seconds * 26_667, "real");
    let mut load = Verb::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut reader = kafka.reader("bench.features.v1")?;
    let start = Instant::now();
    let mut ages_ms = Vec::new();
    while start.elapsed() < Duration::from_secs(seconds + 1) {
        let Some(record) = reader.next(Duration::from_millis(100))? else { continue };
        // The topic is made at its first record, and the first consumer waits for its metadata: not the steady state.
        let steady = start.elapsed() > Duration::from_secs(5);
        if steady && record.header("ce_type").contains("features") {
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3;
            ages_ms.push(now_ms - record.timestamp_ms as f64);
        }
    }
    load.process().wait(Duration::from_secs(30))?;
    agent.stop()?;
    ensure!(ages_ms.len() >= 10, "only {} feature records came in {seconds} s", ages_ms.len());
    ages_ms.sort_by(f64::total_cmp);
    let at = |quantile: f64| ages_ms[((ages_ms.len() - 1) as f64 * quantile).round() as usize];
    Ok(Latency { records: ages_ms.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) })
}
