//! Kafka by librdkafka: idempotent, acks=all, nothing given up.
//!
//! One thread works four lanes over one producer: alerts, features, dead letters, raw, in this order and each in turns of
//! at most [`TURN_RECORDS`], so that a backlog of raw blocks never makes an alert late. librdkafka retries what is passing
//! by itself, without end and in order; what it hands back failed is sorted by [`fault`].

mod client;
pub mod fault;

pub use client::{check_property, check_secret_name};

use super::cloudevents::Envelope;
use super::cursor::CursorStore;
use super::lane::{Decision, Fault, Lane};
use super::log::{Item, JournalLog, Log, OutputsLog, Progress};
use super::{Destination, ForwardError, LaneStats, Stats};
use crate::clock::Clock;
use crate::config::KafkaForward;
use crate::journal::JournalReader;
use crate::outputs::OutputReader;
use client::{Producer, Reports};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most records of one lane before the next lane's turn.
const TURN_RECORDS: usize = 256;
/// About how many bytes a lane reads from its log at a time.
const READ_BYTES: usize = 1 << 20;
/// How long the thread rests when there is nothing to do.
const REST: Duration = Duration::from_millis(4);
/// How often cursors are saved.
const SAVE_INTERVAL_NS: u64 = 200_000_000;
/// How long a stop waits for what is under way.
const DRAIN_NS_MAX: u64 = 4_000_000_000;
/// Wait before a new producer after a fatal error.
const REBUILD_INTERVAL_NS: u64 = 1_000_000_000;
/// Bits of the opaque that hold the lane; the rest holds the serial number.
const LANE_SHIFT: u32 = 60;

/// The logs that the four lanes read.
pub struct Logs {
    /// Blocks and JSON messages of the journal; none when raw is not forwarded.
    pub raw: Option<Box<dyn Log>>,
    /// Features and rollups of the outputs.
    pub features: Box<dyn Log>,
    /// Alerts of the outputs.
    pub alerts: Box<dyn Log>,
    /// Dead letters of the journal.
    pub dlq: Box<dyn Log>,
}

impl Logs {
    /// The lanes' views of a journal and an outputs log.
    #[must_use]
    pub fn new(config: &KafkaForward, journal: &JournalReader, outputs: impl Fn() -> OutputReader) -> Self {
        use crate::record::{OutputKind, RecordKind};
        let of_journal = |wanted| Box::new(JournalLog::new(journal.clone(), wanted));
        Self {
            raw: config.raw.then(|| {
                of_journal(&[RecordKind::Block, RecordKind::Json, RecordKind::Node]) as Box<dyn Log>
            }),
            features: Box::new(OutputsLog::new(outputs(), &[OutputKind::Features, OutputKind::Rollup])),
            alerts: Box::new(OutputsLog::new(outputs(), &[OutputKind::Alert])),
            dlq: of_journal(&[RecordKind::DeadLetter]),
        }
    }
}

struct LaneRunner {
    name: &'static str,
    topic: String,
    stats: fn(&Stats) -> &LaneStats,
    log: Box<dyn Log>,
    lane: Lane,
    rewinds: u64,
    items: VecDeque<Item>,
    /// Everything before is in `items`, under way or passed over.
    read_to: u64,
    read_failing: bool,
}

/// Kafka as a destination.
pub struct KafkaDestination {
    config: KafkaForward,
    gateway: String,
    clock: Clock,
    cursors: CursorStore,
    saved: Vec<(&'static str, u64)>,
    saved_ns: u64,
    lanes: Vec<LaneRunner>,
    dlq_topic: String,
    envelope: Envelope,
    stats: Arc<Stats>,
    reports: Reports,
    decided: Vec<(usize, Option<Code>)>,
}

enum End {
    Stopped,
    Fatal,
}

impl KafkaDestination {
    /// Prepares the destination: checks the configuration, reads the cursors in `data_dir`. Connects to nothing yet.
    ///
    /// # Errors
    /// A property or secret file that is refused; a cursor file that cannot be read.
    pub fn new(
        config: &KafkaForward,
        gateway: &str,
        data_dir: &Path,
        logs: Logs,
        clock: Clock,
    ) -> Result<Self, ForwardError> {
        client::access(config, gateway).map_err(ForwardError::Configuration)?;
        let cursors = CursorStore::open(data_dir, "kafka")?;
        let stats = Arc::new(Stats::default());
        let prefix = &config.topic_prefix;
        let bytes_max = config.queue_size.as_u64();
        let mut lanes = Vec::new();
        let mut add = |name: &'static str, log, stats_of: fn(&Stats) -> &LaneStats| {
            let cursor = cursors.load(name)?;
            stats_of(&stats).cursor.store(cursor, Ordering::Relaxed);
            lanes.push(LaneRunner {
                name,
                topic: format!("{prefix}.{name}.v1"),
                stats: stats_of,
                log,
                lane: Lane::new(cursor, bytes_max),
                rewinds: 0,
                items: VecDeque::new(),
                read_to: cursor,
                read_failing: false,
            });
            Ok::<_, ForwardError>(())
        };
        add("alerts", logs.alerts, |stats| &stats.alerts)?;
        add("features", logs.features, |stats| &stats.features)?;
        add("dlq", logs.dlq, |stats| &stats.dlq)?;
        if let Some(raw) = logs.raw {
            add("raw", raw, |stats| &stats.raw)?;
        }
        Ok(Self {
            config: config.clone(),
            gateway: gateway.into(),
            clock,
            cursors,
            saved: Vec::new(),
            saved_ns: 0,
            lanes,
            dlq_topic: format!("{prefix}.dlq.v1"),
            envelope: Envelope::new(gateway),
            stats,
            reports: Reports::default(),
            decided: Vec::new(),
        })
    }

    /// Works with one producer until the stop or a fatal error of it.
    fn session(&mut self, producer: &Producer, stop: &AtomicBool) -> Result<End, ForwardError> {
        let mut stop_at_ns = None;
        loop {
            let now_ns = self.clock.now().mono_ns;
            if stop_at_ns.is_none() && stop.load(Ordering::Relaxed) {
                stop_at_ns = Some(now_ns + DRAIN_NS_MAX);
            }
            let mut busy = false;
            for index in 0..self.lanes.len() {
                busy |= self.turn(index, producer, now_ns);
            }
            producer.poll(Duration::ZERO);
            busy |= self.take_reports(now_ns);
            if self.note_problem() && producer.client().fatal_error().is_some() {
                return Ok(End::Fatal);
            }
            if now_ns.saturating_sub(self.saved_ns) >= SAVE_INTERVAL_NS {
                self.saved_ns = now_ns;
                self.save()?;
            }
            let settled = !busy && self.lanes.iter().all(|runner| runner.lane.pending() == 0);
            if stop_at_ns.is_some_and(|at_ns| settled || now_ns >= at_ns) {
                return Ok(End::Stopped);
            }
            if !busy {
                producer.poll(REST);
            }
        }
    }

    /// One lane's turn; whether it did anything.
    fn turn(&mut self, index: usize, producer: &Producer, now_ns: u64) -> bool {
        let mut did = false;
        for _ in 0..TURN_RECORDS {
            let runner = &mut self.lanes[index];
            if !runner.lane.may_send(now_ns) || (runner.items.is_empty() && !runner.read(&self.stats)) {
                break;
            }
            did = true;
            let Some(item) = runner.items.front() else { continue };
            let decision = runner.lane.decide(item.offset);
            let sent = match &decision {
                Decision::Skip => true,
                Decision::SendAlone if runner.lane.pending() > 0 => return false,
                Decision::DeadLetter(reason) => {
                    let payload = undeliverable(item, runner.name, &runner.topic, reason);
                    let headers = self.envelope.address_undeliverable(item, runner.name);
                    let opaque = opaque(index, runner.lane.serial_next());
                    let record = BaseRecord::with_opaque_to(&self.dlq_topic, opaque)
                        .key(&self.envelope.key)
                        .payload(&payload)
                        .timestamp(timestamp_ms(item.time_ns))
                        .headers(headers);
                    match producer.send(record) {
                        Ok(()) => {
                            runner.lane.sent(item.offset, payload.len(), &decision);
                            (runner.stats)(&self.stats).dead.fetch_add(1, Ordering::Relaxed);
                            true
                        }
                        Err((error, _)) => runner.refused(&error, now_ns, &self.stats),
                    }
                }
                Decision::Send | Decision::SendAlone => {
                    let headers = self.envelope.address(item);
                    let payload = item.content.payload();
                    let opaque = opaque(index, runner.lane.serial_next());
                    let record = BaseRecord::with_opaque_to(&runner.topic, opaque)
                        .key(&self.envelope.key)
                        .payload(&payload[..])
                        .timestamp(timestamp_ms(item.time_ns))
                        .headers(headers);
                    match producer.send(record) {
                        Ok(()) => {
                            runner.lane.sent(item.offset, payload.len(), &decision);
                            true
                        }
                        Err((error, _)) => runner.refused(&error, now_ns, &self.stats),
                    }
                }
            };
            if !sent {
                return false;
            }
            runner.pass_front(&self.stats);
        }
        did
    }

    /// Books the delivery reports; whether there were any.
    fn take_reports(&mut self, now_ns: u64) -> bool {
        let mut decided = std::mem::take(&mut self.decided);
        self.reports.take(&mut decided);
        for &(opaque, failure) in &decided {
            let (lane, serial) = (opaque >> LANE_SHIFT, (opaque & ((1 << LANE_SHIFT) - 1)) as u64);
            let Some(runner) = self.lanes.get_mut(lane) else { continue };
            match failure {
                None => runner.delivered(serial, &self.stats),
                Some(code) => runner.failed(serial, code, now_ns, &self.stats),
            }
        }
        let any = !decided.is_empty();
        if any {
            if decided.iter().any(|(_, failure)| failure.is_none())
                && self.stats.problem.lock().take().is_some()
            {
                tracing::info!("kafka: delivering again");
            }
            for runner in &mut self.lanes {
                runner.follow(&self.stats);
            }
        }
        self.decided = decided;
        any
    }

    /// Takes note of a problem of the client as a whole; whether there was one.
    fn note_problem(&self) -> bool {
        let Some((code, reason)) = self.reports.take_problem() else { return false };
        let whose = fault::of_code(code);
        let text = match whose {
            Fault::Configuration => format!("{reason}: {}", fault::advice(code)),
            _ => reason,
        };
        say_problem(&self.stats, whose, &text);
        true
    }

    /// Saves the cursors that moved.
    fn save(&mut self) -> Result<(), ForwardError> {
        let now: Vec<(&'static str, u64)> =
            self.lanes.iter().map(|runner| (runner.name, runner.lane.cursor())).collect();
        if now != self.saved {
            self.cursors.save(&now)?;
            self.saved = now;
        }
        for runner in &mut self.lanes {
            runner.lane.tidy();
            runner.follow(&self.stats);
        }
        Ok(())
    }

    fn create_topics(&self, access: &rdkafka::ClientConfig) {
        let mut names: Vec<&str> = self.lanes.iter().map(|runner| runner.topic.as_str()).collect();
        names.push(&self.dlq_topic);
        names.sort_unstable();
        names.dedup();
        if let Err(reason) = client::create_topics(access, &self.config, &names) {
            tracing::info!("kafka: topics were not created ({reason}); going on with those that exist");
        }
    }
}

impl Destination for KafkaDestination {
    fn name(&self) -> &str {
        "kafka"
    }

    fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<(), ForwardError> {
        let access = client::access(&self.config, &self.gateway).map_err(ForwardError::Configuration)?;
        loop {
            self.reports = Reports::default();
            let producer = client::producer(&access, &self.config, self.reports.clone())
                .map_err(ForwardError::Configuration)?;
            if !stop.load(Ordering::Relaxed) {
                self.create_topics(&access);
            }
            let end = self.session(&producer, stop)?;
            drop(producer);
            let now_ns = self.clock.now().mono_ns;
            for runner in &mut self.lanes {
                runner.lane.abandon(now_ns);
                runner.follow(&self.stats);
            }
            self.save()?;
            match end {
                End::Stopped => return Ok(()),
                End::Fatal => {
                    tracing::warn!(
                        "kafka: the producer failed for good; a new one takes over at the cursors"
                    );
                    let until_ns = now_ns + REBUILD_INTERVAL_NS;
                    while self.clock.now().mono_ns < until_ns && !stop.load(Ordering::Relaxed) {
                        std::thread::sleep(REST);
                    }
                }
            }
        }
    }
}

impl LaneRunner {
    /// Reads more; whether anything came of it.
    fn read(&mut self, stats: &Stats) -> bool {
        match self.log.read(self.read_to, READ_BYTES, &mut self.items) {
            Ok(Progress::To(next)) => {
                self.read_failing = false;
                self.read_to = next;
                if self.items.is_empty() {
                    self.lane.skip_to(next);
                }
                true
            }
            Ok(Progress::Evicted(next)) => {
                let lost = next.saturating_sub(self.read_to);
                tracing::warn!(
                    lane = self.name,
                    from = self.read_to,
                    to = next,
                    "evicted before it could be forwarded"
                );
                (self.stats)(stats).evicted.fetch_add(lost, Ordering::Relaxed);
                self.read_to = next;
                self.lane.skip_to(next);
                true
            }
            Ok(Progress::Idle | Progress::Closed) => false,
            Err(reason) => {
                if !self.read_failing {
                    tracing::error!(
                        lane = self.name,
                        position = self.read_to,
                        "cannot read the log: {reason}"
                    );
                }
                self.read_failing = true;
                false
            }
        }
    }

    /// The front item is under way or needs no sending.
    fn pass_front(&mut self, stats: &Stats) {
        let Some(item) = self.items.pop_front() else { return };
        self.lane.skip_to(item.offset + 1);
        if self.items.is_empty() {
            self.lane.skip_to(self.read_to);
        }
        let stats = (self.stats)(stats);
        stats.sent.fetch_add(1, Ordering::Relaxed);
        stats.in_flight.store(self.lane.pending() as u64, Ordering::Relaxed);
    }

    /// The client did not take the front item; always false, for it was not sent.
    fn refused(&mut self, error: &KafkaError, now_ns: u64, stats: &Stats) -> bool {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        match (fault::of_code(code), self.items.front()) {
            (Fault::Record, Some(item)) => {
                let reason = format!("{code} ({} bytes)", item.content.payload().len());
                tracing::warn!(lane = self.name, position = item.offset, key = %item.key, "undeliverable: {reason}");
                self.lane.condemn(item.offset, reason);
            }
            (Fault::Configuration, _) => {
                self.lane.hold(now_ns);
                say_problem(stats, Fault::Configuration, &error.to_string());
            }
            _ => {}
        }
        false
    }

    fn delivered(&mut self, serial: u64, stats: &Stats) {
        if let Some(bytes) = self.lane.delivered(serial) {
            let stats = (self.stats)(stats);
            stats.delivered.fetch_add(1, Ordering::Relaxed);
            stats.delivered_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn failed(&mut self, serial: u64, code: Code, now_ns: u64, stats: &Stats) {
        let whose = fault::of_code(code);
        let reason = code.to_string();
        self.lane.failed(serial, whose, &reason, now_ns);
        (self.stats)(stats).failed.fetch_add(1, Ordering::Relaxed);
        if whose == Fault::Configuration {
            say_problem(stats, whose, &format!("topic {}: {reason}: {}", self.topic, fault::advice(code)));
        }
    }

    /// Follows the lane when it went back, and shows where it stands.
    fn follow(&mut self, stats: &Stats) {
        if self.rewinds != self.lane.rewinds() {
            self.rewinds = self.lane.rewinds();
            self.items.clear();
            self.read_to = self.lane.next();
        }
        let stats = (self.stats)(stats);
        stats.cursor.store(self.lane.cursor(), Ordering::Relaxed);
        stats.in_flight.store(self.lane.pending() as u64, Ordering::Relaxed);
    }
}

/// Shows a problem and logs it once per episode.
fn say_problem(stats: &Stats, whose: Fault, text: &str) {
    let mut problem = stats.problem.lock();
    if problem.as_deref() == Some(text) {
        return;
    }
    match whose {
        Fault::Configuration => tracing::error!("kafka: {text}; trying again slowly, nothing is lost"),
        _ if problem.is_none() => tracing::warn!("kafka: {text}; waiting, the journal keeps what comes"),
        _ => tracing::debug!("kafka: {text}"),
    }
    *problem = Some(text.to_owned());
}

/// The dead letter of a record that Kafka will not take; like the session's, with where the record still stands.
fn undeliverable(item: &Item, lane: &str, topic: &str, reason: &str) -> Vec<u8> {
    let letter = serde_json::json!({
        "reason": format!("undeliverable: {reason}"),
        "source": "forward",
        "topic": topic,
        "lane": lane,
        "position": item.offset,
        "key": item.key.to_string(),
        "payload_bytes": item.content.payload().len(),
    });
    letter.to_string().into_bytes()
}

fn opaque(lane: usize, serial: u64) -> usize {
    // Serial numbers would have to reach 2^60 to touch the lane's bits.
    lane << LANE_SHIFT | serial as usize
}

/// Kafka's time stamp; zero and less would mean "now" or "none" to the client.
fn timestamp_ms(time_ns: i64) -> i64 {
    (time_ns / 1_000_000).max(1)
}

#[cfg(test)]
mod tests;
