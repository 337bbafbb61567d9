//! The whole chain at full speed: `spindle simulate`, Mosquitto, `spindle run`, Kafka.

use crate::agent::{Agent, Verb};
use crate::kafka::{Counter, Kafka};
use crate::metrics::Metrics;
use crate::mosquitto::Mosquitto;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::path::Path;
use std::time::{Duration, Instant};

/// Samples per channel and channels of a block.
pub const BLOCK: (u64, u64) = (512, 3);

/// Samples of all channels in a block.
pub const BLOCK_SAMPLES: u64 = BLOCK.0 * BLOCK.1;

/// What the chain did at full speed.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Throughput {
    /// Blocks in Kafka's raw topic.
    pub blocks: u64,
    /// Feature and rollup records in Kafka.
    pub feature_records: u64,
    /// Samples of all channels.
    pub samples: u64,
    /// From the first block to the last record in Kafka.
    pub seconds: f64,
    /// CPU time of the agent, all its threads, from before the first block until it is idle again.
    pub agent_cpu_seconds: f64,
    /// Most resident memory of the agent.
    pub memory_peak_bytes: u64,
    /// What the gateway's data folder takes on disk at the end.
    pub disk_bytes: u64,
}

/// Plays `blocks` blocks from `boards` boards through the chain. Returns also the first of the messages as they are in
/// Kafka's raw topic.
///
/// # Errors
/// When a part fails or something is missing at the end.
pub fn full_speed(boards: u64, blocks: u64) -> Result<(Throughput, Vec<Bytes>)> {
    let (throughput, messages, _) = full_speed_with(boards, blocks, "")?;
    Ok((throughput, messages))
}

/// [`full_speed`] with `more` lines of configuration; gives also what the gateway told at the end.
///
/// # Errors
/// See [`full_speed`].
pub fn full_speed_with(boards: u64, blocks: u64, more: &str) -> Result<(Throughput, Vec<Bytes>, Metrics)> {
    let kafka = Kafka::start()?;
    let broker = Mosquitto::start(BROKER)?;
    let config = format!("{}\n{more}", config(&broker.address(), &kafka.address()));
    let mut agent = Agent::started(&config)?;
    let cpu_before = agent.process()?.cpu_s()?;
    let samples_each = blocks / boards * BLOCK.0;
    let load = Verb::start(
        &simulate(&broker.address(), boards, samples_each, "full")
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    )?;
    let counter = kafka.counter()?;
    let expected = blocks / boards * boards;
    let (seconds, feature_records) = wait_until_all(&counter, expected, load)?;
    let agent_cpu_seconds = agent.process()?.cpu_s()? - cpu_before;
    let throughput = Throughput {
        blocks: expected,
        feature_records,
        samples: expected * BLOCK_SAMPLES,
        seconds,
        agent_cpu_seconds,
        memory_peak_bytes: agent.process()?.memory_peak_bytes()?,
        disk_bytes: disk_bytes(&agent.data())?,
    };
    let metrics = Metrics::of(agent.api()?)?;
    agent.stop()?;
    Ok((throughput, first_messages(&kafka)?, metrics))
}

/// Mosquitto with a window that lets the gateway commit in groups.
pub(super) const BROKER: &str = "max_inflight_messages 1000\nmax_queued_messages 0";

pub(super) fn config(broker: &str, kafka: &str) -> String {
    format!(
        "[[source.mqtt]]\nname = \"bench\"\naddress = \"{broker}\"\n\n\
         [forward.kafka]\nbrokers = \"{kafka}\"\ntopic_prefix = \"bench\"\n"
    )
}

/// Arguments of `spindle simulate`.
pub(super) fn simulate(broker: &str, boards: u64, samples_each: u64, speed: &str) -> Vec<String> {
    let args = ["simulate", "--broker", broker, "--boards", &boards.to_string(), "--speed", speed];
    let args = args.into_iter().map(str::to_owned);
    args.chain(["--samples".to_owned(), samples_each.to_string()]).collect()
}

/// Waits for all blocks and until no feature came for two seconds; gives the time of the last record and the features.
fn wait_until_all(counter: &Counter, blocks: u64, mut load: Verb) -> Result<(f64, u64)> {
    let mut first = None;
    let mut last = (Instant::now(), 0, 0);
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let (raw, features) = (counter.records("bench.raw.v1")?, counter.records("bench.features.v1")?);
        if raw > 0 {
            first.get_or_insert_with(Instant::now);
        }
        if (raw, features) != (last.1, last.2) {
            last = (Instant::now(), raw, features);
        }
        let quiet = last.0.elapsed();
        if raw >= blocks && features > 0 && quiet > Duration::from_secs(2) {
            break;
        }
        ensure!(quiet < Duration::from_secs(60), "nothing new in Kafka for 60 s at {raw} of {blocks} blocks");
    }
    ensure!(last.1 == blocks, "{} blocks in Kafka instead of {blocks}", last.1);
    load.process().wait(Duration::from_secs(20))?;
    let first = first.context("no block came")?;
    Ok((last.0.duration_since(first).as_secs_f64(), last.2))
}

fn first_messages(kafka: &Kafka) -> Result<Vec<Bytes>> {
    let mut reader = kafka.reader("bench.raw.v1")?;
    let mut messages = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while messages.len() < 4000 && Instant::now() < deadline {
        match reader.next(Duration::from_secs(1))? {
            Some(record) => messages.push(Bytes::from(record.value)),
            None if messages.is_empty() => {}
            None => break,
        }
    }
    ensure!(!messages.is_empty(), "no raw record could be read back");
    Ok(messages)
}

/// Bytes that `folder` takes on disk, as blocks are allocated.
fn disk_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
