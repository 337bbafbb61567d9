//! What a long backlog costs: how long the gateway takes to start on it, and its memory then.

use crate::agent::Agent;
use crate::node::Script;
use anyhow::{Context, Result};
use serde::Serialize;
use spindle_agent::config::{Journal as Settings, Synchronous};
use spindle_agent::journal::inspect::Kept;
use spindle_agent::journal::{Journal, State};
use spindle_agent::record::{Record, RecordKind, SensorKey};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Blocks of a commit.
const BATCH: u32 = 512;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Bytes on disk.
    pub backlog_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// From the start of the process to its word that it is up, ms.
    pub start_ms: u128,
    /// Opening the journal alone, ms.
    pub open_ms: u128,
    /// The same with an empty journal, ms.
    pub start_empty_ms: u128,
    /// Resident memory 5 s after the start, KiB.
    pub rss_kib: u64,
    /// The same with an empty journal, KiB.
    pub rss_empty_kib: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "backlog            {} MiB in {} segments", self.backlog_bytes >> 20, self.segments)?;
        writeln!(f, "journal opens in   {} ms", self.open_ms)?;
        writeln!(f, "gateway starts in  {} ms, empty {} ms", self.start_ms, self.start_empty_ms)?;
        writeln!(f, "resident           {} MiB, empty {} MiB", self.rss_kib >> 10, self.rss_empty_kib >> 10)
    }
}

/// Fills a journal with `bytes` of blocks and starts a gateway on it, and one on nothing.
///
/// # Errors
/// When the disk is full or the gateway does not start.
pub fn measure(bytes: u64) -> Result<Report> {
    let toml = "[source.listener]\nbind = \"127.0.0.1:0\"\n\n[journal]\nsize_max = \"200 GiB\"\n";
    let mut empty = Agent::new(toml)?;
    let (start_empty_ms, rss_empty_kib) = start(&mut empty)?;
    let mut agent = Agent::new(toml)?;
    let dir = agent.data().join("journal");
    let settings = Settings {
        size_max: bytesize::ByteSize::gib(200),
        synchronous: Synchronous::Off,
        ..Settings::default()
    };
    let (mut journal, _) = Journal::open(&dir, &settings)?;
    let key = Arc::new(SensorKey { site: "site".into(), machine: "machine".into(), sensor: "n1-acc".into() });
    let script = Script::new("n1", u32::MAX);
    let mut state = Kept::new(State::default());
    let mut seq = 0;
    while journal.totals().bytes < bytes {
        let mut records = Vec::new();
        for _ in 0..BATCH {
            let (time_ns, body) = (i64::from(seq) * 125_000_000, script.block(seq)?);
            let (key, kind) = (key.clone(), RecordKind::Block);
            records.push(Record {
                offset: 0,
                kind,
                key,
                time_ns,
                flags: 0,
                first_sample: 0,
                arrival_ns: time_ns,
                body,
            });
            seq += 1;
        }
        journal.append(records, &mut state).map_err(|error| error.source)?;
    }
    let backlog_bytes = journal.disk_len();
    journal.close();
    let begin = Instant::now();
    let opened = Journal::open(&dir, &settings)?;
    let open_ms = begin.elapsed().as_millis();
    drop(opened);
    let segments = spindle_agent::journal::inspect::segments(&dir)?.len();
    let (start_ms, rss_kib) = start(&mut agent)?;
    Ok(Report { backlog_bytes, segments, start_ms, open_ms, start_empty_ms, rss_kib, rss_empty_kib })
}

fn start(agent: &mut Agent) -> Result<(u128, u64)> {
    let begin = Instant::now();
    agent.start()?;
    let start_ms = begin.elapsed().as_millis();
    std::thread::sleep(Duration::from_secs(5));
    let pid = agent.process()?.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let rss = line.trim().trim_end_matches(" kB").parse()?;
    agent.kill();
    Ok((start_ms, rss))
}
