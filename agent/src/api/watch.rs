//! What is looked at from outside while the gateway runs: live, ready, and the numbers behind both. Nothing here can hold up the
//! gateway: the session is asked with a limit of time, and what it said last is told when it does not answer.

use super::control::{Ask, Request, Response};
use super::metrics::Metrics;
use crate::clock::Clock;
use crate::config::Config;
use crate::forward::Stats as ForwardStats;
use crate::journal::{JournalReader, Read};
use crate::outputs::{self, StandingAlert};
use crate::pipeline::RunnerMonitor;
use crate::session::observe::Observation;
use crate::source::SourceState;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long the session may take to answer; it may be committing.
const SESSION_MAX: Duration = Duration::from_millis(500);
/// A thread whose loop has not come round for so long is wedged. Waiting for a disk that refuses is none of it: that loop goes on.
pub const SILENT_MAX: Duration = Duration::from_secs(60);

/// The parts of a running gateway that can be looked at.
#[derive(Debug)]
pub struct Watch {
    /// The gateway's name.
    pub gateway: String,
    /// Counters of sources, session and journal.
    pub metrics: Arc<Metrics>,
    /// Counters of the pipeline.
    pub pipeline: RunnerMonitor,
    /// Counters of each destination, by its name.
    pub forward: Vec<(String, Arc<ForwardStats>)>,
    /// Sources by their names.
    pub sources: Vec<(String, Arc<SourceState>)>,
    /// Reads the journal.
    pub journal: JournalReader,
    /// The way to the session.
    pub session: mpsc::Sender<Ask>,
    /// The time.
    pub clock: Clock,
    data_dir: PathBuf,
    journal_size_max: u64,
    outputs_size_max: u64,
    series_max: usize,
    last: Mutex<(u64, Arc<Observation>)>,
}

/// What lies on disk, and how old it is.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    /// Records from the oldest that is left.
    pub journal_records: u64,
    /// Age of the oldest, by when it came.
    pub journal_age: Option<Duration>,
    /// By destination and lane: age of the oldest record that is not delivered.
    pub lane_ages: Vec<(String, &'static str, Duration)>,
    /// Alerts that stand, and how many there are in all.
    pub alerts: Option<(Vec<StandingAlert>, u64)>,
}

/// Sources and clocks to watch with.
#[derive(Debug)]
pub struct Parts {
    /// See [`Watch::metrics`].
    pub metrics: Arc<Metrics>,
    /// See [`Watch::pipeline`].
    pub pipeline: RunnerMonitor,
    /// See [`Watch::forward`].
    pub forward: Vec<(String, Arc<ForwardStats>)>,
    /// See [`Watch::sources`].
    pub sources: Vec<(String, Arc<SourceState>)>,
    /// See [`Watch::journal`].
    pub journal: JournalReader,
    /// See [`Watch::session`].
    pub session: mpsc::Sender<Ask>,
}

impl Watch {
    /// A gateway made of `parts`.
    #[must_use]
    pub fn new(config: &Config, clock: &Clock, parts: Parts) -> Self {
        let Parts { metrics, pipeline, forward, sources, journal, session } = parts;
        Self {
            gateway: config.gateway.name.clone(),
            metrics,
            pipeline,
            forward,
            sources,
            journal,
            session,
            clock: clock.clone(),
            data_dir: config.gateway.data_dir.clone(),
            journal_size_max: config.journal.size_max.as_u64(),
            outputs_size_max: config.outputs.size_max.as_u64(),
            series_max: config.api.series_max,
            last: Mutex::default(),
        }
    }

    /// Most bytes of the journal and of the outputs log.
    #[must_use]
    pub const fn sizes_max(&self) -> (u64, u64) {
        (self.journal_size_max, self.outputs_size_max)
    }

    /// The session's books and clocks, and how old this knowledge is.
    pub async fn observe(&self) -> (Arc<Observation>, Duration) {
        let (reply, answer) = oneshot::channel();
        let request = Request::Observe { series_max: self.series_max };
        let asked = async {
            self.session.send(Ask { request, reply }).await.ok()?;
            answer.await.ok()
        };
        let answer = timeout(SESSION_MAX, asked).await;
        let now_ns = self.clock.now().mono_ns;
        let mut last = self.last.lock();
        if let Ok(Some(Response::Observed(observation))) = answer {
            *last = (now_ns, Arc::from(observation));
        }
        (last.1.clone(), Duration::from_nanos(now_ns.saturating_sub(last.0)))
    }

    /// What lies on disk. Blocks: not for the I/O thread.
    #[must_use]
    pub fn disk(&self) -> Disk {
        let mut disk =
            Disk { journal_bytes: folder_bytes(&self.data_dir.join("journal")), ..Disk::default() };
        if let (Ok(oldest), Ok(next)) = (self.journal.oldest_offset(), self.journal.next_offset()) {
            disk.journal_records = next.saturating_sub(oldest);
            disk.journal_age = self.age(oldest, next);
            for (destination, stats) in &self.forward {
                for (lane, stats) in stats.lanes().into_iter().filter(|(lane, _)| is_of_journal(lane)) {
                    let cursor = stats.cursor.load(Ordering::Relaxed);
                    if cursor > 0 {
                        let age = self.age(cursor.max(oldest), next).unwrap_or_default();
                        disk.lane_ages.push((destination.clone(), lane, age));
                    }
                }
            }
        }
        disk.alerts = outputs::standing(&self.data_dir, self.series_max).ok();
        disk
    }

    /// Age of the record at `offset`; none where there is none, or it cannot be read.
    fn age(&self, offset: u64, next: u64) -> Option<Duration> {
        if offset >= next {
            return None;
        }
        let Ok(Read::Batch(batch)) = self.journal.read(offset, 1, Duration::ZERO) else { return None };
        let arrival_ns = batch.records().first()?.arrival_ns;
        let age_ns = self.clock.now().utc_ns.saturating_sub(arrival_ns);
        Some(Duration::from_nanos(u64::try_from(age_ns).unwrap_or(0)))
    }

    /// Whether all threads' loops come round, and since when each has not.
    #[must_use]
    pub fn health(&self) -> (bool, Value) {
        let now_ns = self.clock.now().mono_ns;
        let silent = |turn_ns: u64| Duration::from_nanos(now_ns.saturating_sub(turn_ns));
        let turns = &self.metrics.turns;
        let threads = [("ingest", silent(turns.ingest.get())), ("pipeline", silent(turns.pipeline.get()))];
        let wedged: Vec<String> = threads
            .iter()
            .filter(|(_, silent)| *silent > SILENT_MAX)
            .map(|(name, silent)| {
                format!("thread {name} has not come round for {} s: does the disk hang?", silent.as_secs())
            })
            .collect();
        let seconds: serde_json::Map<_, _> =
            threads.iter().map(|(name, silent)| ((*name).to_owned(), json!(silent.as_secs_f64()))).collect();
        (wedged.is_empty(), json!({ "live": wedged.is_empty(), "reasons": wedged, "silent_s": seconds }))
    }

    /// Whether data that comes now is taken and kept, and why not. Destinations are told beside it: while one is away the gateway
    /// does its work.
    #[must_use]
    pub fn ready(&self) -> (bool, Value) {
        let mut reasons = Vec::new();
        if let Some(problem) = self.metrics.journal.problem.lock().clone() {
            reasons.push(format!("journal does not commit: {problem}"));
        }
        if !self.health().0 {
            reasons.push("a thread is wedged: see /health".into());
        }
        for (name, state) in &self.sources {
            if let Some(problem) = state.problem() {
                reasons.push(format!("source {name}: {problem}"));
            }
        }
        let destinations: serde_json::Map<_, _> =
            self.forward.iter().map(|(name, stats)| (name.clone(), json!(*stats.problem.lock()))).collect();
        let ready = reasons.is_empty();
        (ready, json!({ "ready": ready, "reasons": reasons, "destinations": destinations }))
    }
}

/// Whether a lane reads the journal; the others read the outputs log.
#[must_use]
pub fn is_of_journal(lane: &str) -> bool {
    matches!(lane, "raw" | "dlq")
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(clock: &Clock, data_dir: &Path) -> (Watch, Arc<SourceState>) {
        let text = format!("[gateway]\nname = \"g\"\ndata_dir = {data_dir:?}\n");
        let config: Config = toml::from_str(&text).unwrap();
        std::fs::create_dir_all(data_dir.join("journal")).unwrap();
        let (source, _end) = crate::source::handle();
        let parts = Parts {
            metrics: Arc::default(),
            pipeline: RunnerMonitor::default(),
            forward: vec![("kafka".into(), Arc::default())],
            sources: vec![("site".into(), source.state.clone())],
            journal: JournalReader::open_read_only(&data_dir.join("journal")).unwrap(),
            // Nobody answers: as while the session waits for its disk.
            session: mpsc::channel(1).0,
        };
        (Watch::new(&config, clock, parts), source.state)
    }

    #[test]
    fn a_thread_that_does_not_come_round_is_not_healthy() {
        let (clock, dir) = (Clock::manual(0), tempfile::tempdir().unwrap());
        let (watch, _) = watch(&clock, dir.path());
        assert!(watch.health().0);
        clock.advance(SILENT_MAX + Duration::from_secs(1));
        watch.metrics.turns.ingest.set(clock.now().mono_ns);
        let (good, said) = watch.health();
        assert!(!good && !watch.ready().0);
        assert_eq!(said["reasons"][0], "thread pipeline has not come round for 61 s: does the disk hang?");
        watch.metrics.turns.pipeline.set(clock.now().mono_ns);
        assert!(watch.health().0);
    }

    #[test]
    fn a_journal_that_refuses_or_a_source_that_is_down_is_not_ready_and_kafka_away_is() {
        let (clock, dir) = (Clock::manual(0), tempfile::tempdir().unwrap());
        let (watch, source) = watch(&clock, dir.path());
        assert_eq!(watch.ready().1["reasons"][0], "source site: not connected yet");
        source.up();
        *watch.forward[0].1.problem.lock() = Some("brokers are away".into());
        let (ready, said) = watch.ready();
        assert!(ready);
        assert_eq!(said["destinations"]["kafka"], "brokers are away");
        *watch.metrics.journal.problem.lock() = Some("no space left".into());
        assert_eq!(watch.ready().1["reasons"][0], "journal does not commit: no space left");
    }

    #[tokio::test]
    async fn what_the_session_said_last_is_told_while_it_does_not_answer() {
        let (clock, dir) = (Clock::manual(0), tempfile::tempdir().unwrap());
        let (watch, _) = watch(&clock, dir.path());
        let before = Observation { sensors_more: 7, ..Observation::default() };
        *watch.last.lock() = (clock.now().mono_ns, Arc::new(before));
        clock.advance(Duration::from_secs(9));
        let (observation, age) = watch.observe().await;
        assert_eq!((observation.sensors_more, age), (7, Duration::from_secs(9)));
    }
}
