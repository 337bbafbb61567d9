//! What `simulate` shows while it runs and at its end.

use super::parts::OffsetDropped;
use crate::cli::count;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use spindle_firmware::host::{Board, Drained};
use std::io::IsTerminal;
use std::time::Duration;

/// How one node did.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NodeReport {
    /// Its name.
    node: String,
    /// `site/machine/sensor` of its first sensor.
    key: String,
    /// Samples per channel that its sensors produced.
    samples_produced: u64,
    /// Samples per channel that the gateway acknowledged.
    samples_acknowledged: u64,
    /// Samples per channel lost in FIFO overruns.
    samples_lost_overrun: u64,
    /// Samples per channel in blocks that the full ring dropped.
    samples_dropped: u64,
    /// Blocks made.
    blocks: u32,
    /// Blocks sent again.
    blocks_resent: u32,
    /// Connections made.
    connects: u32,
    /// Whether every block was acknowledged.
    complete: bool,
}

impl NodeReport {
    /// From the node's last counters.
    pub(super) fn new(node: String, key: String, samples_produced: u64, drained: &Drained) -> Self {
        let counters = &drained.counters;
        Self {
            node,
            key,
            samples_produced,
            samples_acknowledged: counters.samples_acked,
            samples_lost_overrun: counters.streams.iter().map(|stream| stream.lost_overrun).sum(),
            samples_dropped: counters.streams.iter().map(|stream| stream.lost_ring).sum(),
            blocks: counters.sealed,
            blocks_resent: counters.uplink.resent,
            connects: counters.uplink.connects,
            complete: drained.complete && counters.dropped == 0,
        }
    }
}

/// How all did.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// Whether every block of every node was acknowledged.
    pub(super) complete: bool,
    seconds: f64,
    samples_produced: u64,
    samples_acknowledged: u64,
    samples_lost_overrun: u64,
    samples_dropped: u64,
    blocks: u64,
    blocks_resent: u64,
    /// Offsets in the manifest that were not sent.
    offset_dropped: Vec<OffsetDropped>,
    nodes: Vec<NodeReport>,
}

impl Report {
    /// Sums the nodes up.
    pub(super) fn new(nodes: Vec<NodeReport>, elapsed: Duration, offset_dropped: Vec<OffsetDropped>) -> Self {
        let sum = |of: fn(&NodeReport) -> u64| nodes.iter().map(of).sum();
        Self {
            complete: nodes.iter().all(|node| node.complete),
            seconds: elapsed.as_secs_f64(),
            samples_produced: sum(|node| node.samples_produced),
            samples_acknowledged: sum(|node| node.samples_acknowledged),
            samples_lost_overrun: sum(|node| node.samples_lost_overrun),
            samples_dropped: sum(|node| node.samples_dropped),
            blocks: sum(|node| node.blocks.into()),
            blocks_resent: sum(|node| node.blocks_resent.into()),
            offset_dropped,
            nodes,
        }
    }

    /// Prints it.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        for node in self.nodes.iter().filter(|node| !node.complete) {
            println!(
                "{}: {} of {} samples acknowledged, {} dropped by the full ring",
                node.key, node.samples_acknowledged, node.samples_produced, node.samples_dropped
            );
        }
        println!(
            "{}, {} samples per channel produced, {} acknowledged, {} lost in FIFO overruns, {} dropped; {} blocks, \
             {} sent again; {:.1} s",
            count(self.nodes.len(), "node", "nodes"),
            self.samples_produced,
            self.samples_acknowledged,
            self.samples_lost_overrun,
            self.samples_dropped,
            self.blocks,
            self.blocks_resent,
            self.seconds
        );
        Ok(())
    }
}

/// A bar on a terminal; nothing elsewhere.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    boards: usize,
    total: Option<u64>,
    duration: Option<Duration>,
}

impl Progress {
    /// Shows what is known beforehand: samples to play, or time, or only the number of boards.
    pub(super) fn start(quiet: bool, boards: usize, total: Option<u64>, duration: Option<Duration>) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let length = total.or(duration.map(|duration| duration.as_secs())).unwrap_or(boards as u64);
            let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}");
            ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, boards, total, duration }
    }

    /// Moves the bar.
    pub(super) fn show<'b>(
        &self,
        done: &[NodeReport],
        running: impl Iterator<Item = &'b Board>,
        elapsed: Duration,
    ) {
        let Some(bar) = &self.bar else { return };
        let mut acknowledged: u64 = done.iter().map(|node| node.samples_acknowledged).sum();
        let (mut boards, mut connected, mut backlog) = (0, 0, 0u64);
        for board in running {
            let counters = board.counters();
            acknowledged += counters.samples_acked;
            boards += 1;
            connected += u32::from(counters.connected);
            backlog +=
                u64::from(counters.sealed.saturating_sub(counters.acked).saturating_sub(counters.dropped));
        }
        bar.set_position(match (self.total, self.duration) {
            (Some(_), _) => acknowledged,
            (None, Some(_)) => elapsed.as_secs(),
            (None, None) => done.len() as u64,
        });
        let millions = acknowledged as f64 / 1e6;
        bar.set_message(format!(
            "{millions:.2} M samples, {connected}/{boards} linked, {}/{} done, {backlog} blocks wait",
            done.len(),
            self.boards
        ));
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
