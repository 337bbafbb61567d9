//! What it costs that nothing is lost: commits over load, fsync against none in the same run, a backlog beside live data, and many
//! idle nodes.

use super::{Size, chain};
use crate::agent::{Agent, Verb};
use crate::flood::Client;
use crate::kafka::Kafka;
use crate::metrics::Metrics;
use crate::mosquitto::Mosquitto;
use crate::node::Script;
use crate::wait;
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::time::{Duration, Instant};

const MIB: f64 = (1 << 20) as f64;

/// Commits at one load.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Commits {
    /// Blocks a second that came; 0: as fast as they are taken.
    pub blocks_per_second: f64,
    /// Time of a commit: half of them take no longer, by the classes of the gateway's own histogram.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// Records in a commit, on the average.
    pub records_per_commit: f64,
}

/// A backlog beside live data.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Backlog {
    /// Blocks that had waited when Kafka came.
    pub blocks: u64,
    /// Live blocks a second meanwhile.
    pub live_per_second: f64,
    /// Blocks a second that went to Kafka until nothing was left.
    pub drained_per_second: f64,
    /// CPU time of the agent per sample, µs: without Kafka, and while the backlog drained (per sample delivered).
    pub cpu_us_per_sample: [f64; 2],
}

/// What one run measured.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// At several loads, the last as fast as the chain goes.
    pub commits: Vec<Commits>,
    /// Samples per CPU-second with synchronous=FULL, by round.
    pub full: Vec<f64>,
    /// The same with OFF, taken in turn.
    pub off: Vec<f64>,
    /// What FULL costs of them: 1 less the ratio of the medians.
    pub cost: f64,
    /// See there.
    pub backlog: Backlog,
}

/// Measures all of it.
///
/// # Errors
/// When a part fails.
pub fn measure(size: Size) -> Result<Report> {
    let mut commits = Vec::new();
    for blocks_per_second in [20, 200, 1000] {
        commits.push(at_load(blocks_per_second)?);
    }
    let (mut full, mut off) = (Vec::new(), Vec::new());
    for round in 0..6 {
        let is_full = round % 2 == 0;
        let setting = if is_full { "" } else { "[journal]\nsynchronous = \"off\"\n" };
        let (ran, _, metrics) = chain::full_speed_with(size.boards, size.blocks / 2, setting)?;
        let rate = ran.samples as f64 / ran.agent_cpu_seconds;
        if is_full {
            full.push(rate)
        } else {
            off.push(rate)
        }
        if round == 4 {
            commits.push(of_metrics(0.0, &metrics)?);
        }
    }
    let cost = 1.0 - median(&full) / median(&off);
    Ok(Report { commits, full, off, cost, backlog: backlog(size.blocks / 4)? })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn of_metrics(blocks_per_second: f64, metrics: &Metrics) -> Result<Commits> {
    let name = "spindle_journal_commit_seconds";
    let records = metrics.value("spindle_journal_records_total")?;
    Ok(Commits {
        blocks_per_second,
        p50_ms: metrics.quantile(name, 0.5)? * 1e3,
        p99_ms: metrics.quantile(name, 0.99)? * 1e3,
        records_per_commit: records / metrics.value("spindle_journal_commits_total")?,
    })
}

/// Ten seconds of blocks at a steady pace, without Kafka.
fn at_load(blocks_per_second: u32) -> Result<Commits> {
    let broker = Mosquitto::start(chain::BROKER)?;
    let config = format!("[[source.mqtt]]\nname = \"bench\"\naddress = \"{}\"\n", broker.address());
    let mut agent = Agent::started(&config)?;
    agent.process()?.wait_for_log("subscribed", wait::PATIENCE)?;
    let mut client = Client::connect(broker.port(), "bench-paced")?;
    let script = Script::new("paced", blocks_per_second * 10);
    let topic = format!("spindle/v1/{}/raw", script.key());
    let start = Instant::now();
    for seq in 0..script.blocks {
        let due = Duration::from_secs(1) * seq / blocks_per_second;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        client.publish(&topic, &script.block(seq)?)?;
        client.settle()?;
    }
    let rate = f64::from(script.blocks) / start.elapsed().as_secs_f64();
    let api = agent.api()?;
    let blocks = f64::from(script.blocks);
    let metrics = wait::until("all blocks", wait::PATIENCE, || {
        let metrics = Metrics::of(api)?;
        Ok((metrics.value("spindle_session_blocks_total")? >= blocks).then_some(metrics))
    })?;
    agent.stop()?;
    of_metrics(rate, &metrics)
}

/// Lets `blocks` wait while Kafka is away, then lets it come while as many come live at a tenth of the speed.
fn backlog(blocks: u64) -> Result<Backlog> {
    let mut kafka = Kafka::start()?;
    let broker = Mosquitto::start(chain::BROKER)?;
    let mut agent = Agent::started(&chain::config(&broker.address(), &kafka.address()))?;
    agent.process()?.wait_for_log("subscribed", wait::PATIENCE)?;
    let api = agent.api()?;
    kafka.kill();
    let stored = |least: f64| {
        wait::until("the blocks to be stored", Duration::from_secs(600), || {
            let metrics = Metrics::of(api)?;
            let read = metrics.value("spindle_pipeline_lag_records")? == 0.0;
            Ok((metrics.value("spindle_session_blocks_total")? >= least && read).then_some(()))
        })
    };
    let play = |speed: &str, blocks: u64| {
        let args = chain::simulate(&broker.address(), 4, blocks / 4 * chain::BLOCK.0, speed);
        Verb::start(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let blocks = blocks / 4 * 4;
    let before = agent.process()?.cpu_s()?;
    let load = play("full", blocks)?;
    stored(blocks as f64)?;
    load.finish(wait::PATIENCE)?;
    let alone = agent.process()?.cpu_s()?;

    let live = play("real", 1_000_000)?;
    let delivered = |metrics: &Metrics| {
        metrics.value("spindle_forward_delivered_records_total{destination=\"kafka\",lane=\"raw\"}")
    };
    let of_live = |metrics: &Metrics| metrics.value("spindle_session_blocks_total");
    kafka.start_again()?;
    let first = wait::until("Kafka to take records again", Duration::from_secs(120), || {
        let metrics = Metrics::of(api)?;
        Ok((delivered(&metrics)? > 0.0).then_some(metrics))
    })?;
    let (start, cpu) = (Instant::now(), agent.process()?.cpu_s()?);
    let last = wait::until("the backlog to drain", Duration::from_secs(600), || {
        let metrics = Metrics::of(api)?;
        Ok((delivered(&metrics)? >= of_live(&metrics)? - 50.0).then_some(metrics))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let drained = delivered(&last)? - delivered(&first)?;
    ensure!(drained > 0.0, "the backlog was gone before it could be measured: let more blocks wait");
    let draining = agent.process()?.cpu_s()? - cpu;
    drop(live);
    agent.stop()?;
    Ok(Backlog {
        blocks,
        live_per_second: (of_live(&last)? - of_live(&first)?) / seconds,
        drained_per_second: drained / seconds,
        cpu_us_per_sample: [
            (alone - before) * 1e6 / (blocks * chain::BLOCK_SAMPLES) as f64,
            draining * 1e6 / (drained * chain::BLOCK_SAMPLES as f64),
        ],
    })
}

/// Many nodes that have said who they are and then little.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Nodes {
    /// So many.
    pub count: u64,
    /// Resident memory when they have been idle for ten seconds, and without them.
    pub memory_bytes: [u64; 2],
    /// Share of a CPU that the idle gateway takes.
    pub cpu_idle: f64,
    /// How long a scrape takes.
    pub scrape_ms: f64,
    /// Until the gateway is up again after a restart.
    pub restart_seconds: f64,
}

/// Lets `count` nodes send a block each, and waits.
///
/// # Errors
/// When a part fails.
pub fn nodes(count: u64) -> Result<Nodes> {
    let port = crate::tools::free_port()?;
    let mut agent = Agent::started(&format!(
        "[source.listener]\nbind = \"127.0.0.1:{port}\"\n\n[session]\nnodes_max = {}\n",
        count.max(1)
    ))?;
    let (api, empty) = (agent.api()?, resident(agent.process()?.pid())?);
    let mut client = Client::connect(port, "bench-nodes")?;
    for index in 0..count {
        let script = Script { block_samples: 256, ..Script::new(&format!("n{index}"), 1) };
        client.publish(&format!("spindle/v1/{}/raw", script.key()), &script.block(0)?)?;
    }
    client.settle()?;
    wait::until("all nodes", Duration::from_secs(300), || {
        let metrics = Metrics::of(api)?;
        let known = metrics.value("spindle_session_nodes")? >= count as f64;
        Ok((known && metrics.value("spindle_pipeline_lag_records")? == 0.0).then_some(()))
    })?;
    let (start, cpu) = (Instant::now(), agent.process()?.cpu_s()?);
    std::thread::sleep(Duration::from_secs(10));
    let cpu_idle = (agent.process()?.cpu_s()? - cpu) / start.elapsed().as_secs_f64();
    let idle = resident(agent.process()?.pid())?;
    let start = Instant::now();
    Metrics::of(api)?;
    let scrape_ms = start.elapsed().as_secs_f64() * 1e3;
    agent.stop()?;
    let start = Instant::now();
    agent.start()?;
    let restart_seconds = start.elapsed().as_secs_f64();
    agent.stop()?;
    Ok(Nodes { count, memory_bytes: [idle, empty], cpu_idle, scrape_ms, restart_seconds })
}

fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:>10} {:>10} {:>18}", "commits at", "p50 ms", "p99 ms", "records a commit")?;
        for at in &self.commits {
            let load = match at.blocks_per_second {
                0.0 => "full speed".to_owned(),
                rate => format!("{rate:.0} blocks/s"),
            };
            writeln!(
                f,
                "{load:<28} {:>10.1} {:>10.1} {:>18.1}",
                at.p50_ms, at.p99_ms, at.records_per_commit
            )?;
        }
        let mut row = |name: &str, value: String| writeln!(f, "{name:<52} {value:>20}");
        row("samples per CPU-second, synchronous=FULL", format!("{:.2} M", median(&self.full) / 1e6))?;
        row("  synchronous=OFF, in turn with it", format!("{:.2} M", median(&self.off) / 1e6))?;
        row("  durability's cost (at most 15 %)", format!("{:.1} %", self.cost * 100.0))?;
        let backlog = &self.backlog;
        row("blocks that waited for Kafka", backlog.blocks.to_string())?;
        row("  live blocks/s while they drained", format!("{:.0}", backlog.live_per_second))?;
        row("  blocks/s to Kafka until none was left", format!("{:.0}", backlog.drained_per_second))?;
        let [alone, draining] = backlog.cpu_us_per_sample;
        row("agent CPU per sample while Kafka is away", format!("{alone:.3} us"))?;
        row("  per sample delivered while they drained", format!("{draining:.3} us"))
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<52} {value:>20}");
        let [idle, empty] = self.memory_bytes.map(|bytes| bytes as f64 / MIB);
        row("nodes, idle", self.count.to_string())?;
        row("resident memory", format!("{idle:.0} MiB"))?;
        row("  without them", format!("{empty:.0} MiB"))?;
        row("share of a CPU", format!("{:.1} %", self.cpu_idle * 100.0))?;
        row("a scrape", format!("{:.0} ms", self.scrape_ms))?;
        row("up again after a restart in", format!("{:.2} s", self.restart_seconds))
    }
}
