//! Kafka by librdkafka: idempotent, acks=all, nothing given up.
//!
//! One thread works the lanes over one producer: alerts, features, dead letters, raw, in this order and each in turns of
//! at most [`TURN_RECORDS`], so that a backlog of raw blocks never makes an alert late. librdkafka retries what is passing
//! by itself, without end and in order; what it hands back failed is sorted by [`fault`].

mod again;
mod client;
pub mod fault;
mod limits;

pub use client::{check_property, check_secret_name};

use super::cloudevents::Envelope;
use super::lane::{Decision, Fault};
use super::letters::Letters;
use super::log::{Item, Lanes};
use super::runner::{Keeper, LaneRunner, Problems};
use super::{Destination, ForwardError, Stats};
use crate::clock::{Clock, Now};
use crate::config::KafkaForward;
use again::Again;
use client::{Producer, Reports};
use limits::Limits;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most records of one lane before the next lane's turn.
const TURN_RECORDS: usize = 256;
/// How long the thread rests when there is nothing to do.
const REST: Duration = Duration::from_millis(4);
/// How long a stop waits for what is under way.
const DRAIN_NS_MAX: u64 = 4_000_000_000;
/// Wait before a new producer after a fatal error.
const REBUILD_INTERVAL_NS: u64 = 1_000_000_000;
/// How often topics that are missing are asked for again.
const TOPICS_INTERVAL_NS: u64 = 20_000_000_000;
/// When UTC goes back by more, a new producer takes over.
const CLOCK_BACK_NS: i128 = 1_000_000_000;
/// Bits of the opaque that hold the lane; the rest holds the serial number.
const LANE_SHIFT: u32 = 60;

/// Kafka as a destination.
pub struct KafkaDestination {
    config: KafkaForward,
    gateway: String,
    clock: Clock,
    keeper: Keeper,
    lanes: Vec<LaneRunner>,
    /// The lanes' topics.
    topics: Vec<String>,
    limits: Vec<Limits>,
    dlq_topic: String,
    envelope: Envelope,
    stats: Arc<Stats>,
    problems: Problems,
    letters: Letters,
    again: Again,
    reports: Reports,
    decided: Vec<(usize, Option<Code>)>,
    /// Some topic does not exist as far as is known, or takes something else than it told; and when to ask again.
    topics_unclear: bool,
    topics_due_ns: u64,
}

enum End {
    Stopped,
    Fatal,
    /// UTC went back.
    ClockBack,
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
        lanes: Lanes,
        clock: Clock,
    ) -> Result<Self, ForwardError> {
        client::access(config, gateway).map_err(ForwardError::Configuration)?;
        let keeper = Keeper::open(data_dir, NAME)?;
        let stats = Arc::new(Stats::default());
        let prefix = &config.topic_prefix;
        let mut runners = Vec::new();
        for (name, log) in lanes {
            let cursor = keeper.load(name)?;
            stats.lane(name).cursor.store(cursor, Ordering::Relaxed);
            runners.push(LaneRunner::new(name, log, cursor, config.queue_size.as_u64()));
        }
        Ok(Self {
            config: config.clone(),
            gateway: gateway.into(),
            clock,
            keeper,
            topics: runners.iter().map(|runner| format!("{prefix}.{}.v1", runner.name.as_str())).collect(),
            limits: runners.iter().map(|_| Limits::default()).collect(),
            lanes: runners,
            dlq_topic: format!("{prefix}.dlq.v1"),
            envelope: Envelope::new(gateway),
            problems: Problems::new(NAME, stats.clone()),
            stats,
            letters: Letters::open(data_dir)?,
            again: Again::default(),
            reports: Reports::default(),
            decided: Vec::new(),
            topics_unclear: false,
            topics_due_ns: 0,
        })
    }

    /// Works with one producer until the stop or a fatal error of it.
    fn session(&mut self, producer: &Producer, access: &rdkafka::ClientConfig, stop: &AtomicBool) -> End {
        let mut stop_at_ns = None;
        let ahead_of = |now: Now| i128::from(now.utc_ns) - i128::from(now.mono_ns);
        let mut utc_ahead_ns = ahead_of(self.clock.now());
        loop {
            let now = self.clock.now();
            let now_ns = now.mono_ns;
            // librdkafka (2.12) waits until a time of day: its threads would stand still for as long as UTC went back.
            let ahead_ns = ahead_of(now);
            if ahead_ns < utc_ahead_ns - CLOCK_BACK_NS {
                return End::ClockBack;
            }
            utc_ahead_ns = ahead_ns;
            if stop_at_ns.is_none() && stop.load(Ordering::Relaxed) {
                stop_at_ns = Some(now_ns + DRAIN_NS_MAX);
            }
            let mut busy = false;
            for index in 0..self.lanes.len() {
                busy |= self.turn(index, producer, now);
            }
            self.send_again(producer, now);
            producer.poll(Duration::ZERO);
            busy |= self.take_reports(now_ns);
            if self.note_problem() && producer.client().fatal_error().is_some() {
                return End::Fatal;
            }
            self.keeper.save_now_and_then(&mut self.lanes, &self.stats, now_ns);
            if self.topics_unclear && now_ns >= self.topics_due_ns && stop_at_ns.is_none() {
                self.prepare_topics(access);
            }
            let settled = !busy && self.lanes.iter().all(|runner| runner.lane.pending() == 0);
            if stop_at_ns.is_some_and(|at_ns| settled || now_ns >= at_ns) {
                return End::Stopped;
            }
            if !busy {
                std::thread::sleep(REST);
            }
        }
    }

    /// One lane's turn; whether it did anything.
    fn turn(&mut self, index: usize, producer: &Producer, now: Now) -> bool {
        let mut did = false;
        for _ in 0..TURN_RECORDS {
            let runner = &mut self.lanes[index];
            if !runner.lane.may_send(now.mono_ns) || (runner.items.is_empty() && !runner.read(&self.stats)) {
                break;
            }
            did = true;
            let Some(item) = runner.items.front() else { continue };
            let mut decision = runner.lane.decide(item.offset);
            if decision == Decision::Send && !self.limits[index].takes(item.content.payload().len()) {
                decision = Decision::SendAlone;
            }
            let opaque = opaque(index, runner.lane.serial_next());
            let alone = matches!(decision, Decision::SendAlone | Decision::SendRestamped);
            if alone && runner.lane.pending() > 0 {
                return false;
            }
            let sent = match &decision {
                Decision::Skip => Ok(()),
                Decision::DeadLetter(reason) => {
                    let (name, topic) = (runner.name.as_str(), &self.topics[index]);
                    // First the list that people work on: it must not lack what Kafka has been told of.
                    if let Err(error) = self.letters.add(NAME, name, item, topic, reason) {
                        runner.lane.hold(now.mono_ns);
                        self.problems.say(
                            Some(runner.name),
                            Fault::Passing,
                            "cannot note an undeliverable record",
                            &error.to_string(),
                        );
                        return false;
                    }
                    let payload = undeliverable(item, name, topic, reason);
                    let headers = self.envelope.address_undeliverable(item, name);
                    let record = BaseRecord::with_opaque_to(&self.dlq_topic, opaque)
                        .key(&self.envelope.key)
                        .payload(&payload)
                        .timestamp(timestamp_ms(self.limits[index].stamp(item.time_ns, now.utc_ns)))
                        .headers(headers);
                    producer.send(record).map_err(|(error, _)| error).map(|()| {
                        runner.lane.sent(item.offset, payload.len(), &decision);
                        self.stats.lane(runner.name).dead.fetch_add(1, Ordering::Relaxed);
                    })
                }
                Decision::Send | Decision::SendAlone | Decision::SendRestamped => {
                    let limits = &mut self.limits[index];
                    if decision == Decision::SendRestamped && limits.refused(item.time_ns, now.utc_ns) {
                        let (lane, key) = (runner.name.as_str(), &item.key);
                        tracing::warn!(lane, %key, "kafka refuses the record's time, which is far off: sent with the \
                             time of sending, as all that are as far off; ce_time keeps the record's own");
                    }
                    let time_ns = limits.stamp(item.time_ns, now.utc_ns);
                    let headers = self.envelope.address(item);
                    let payload = item.content.payload();
                    let record = BaseRecord::with_opaque_to(&self.topics[index], opaque)
                        .key(&self.envelope.key)
                        .payload(&payload[..])
                        .timestamp(timestamp_ms(time_ns))
                        .headers(headers);
                    producer.send(record).map_err(|(error, _)| error).map(|()| {
                        runner.lane.sent(item.offset, payload.len(), &decision);
                        let restamped = u64::from(time_ns != item.time_ns);
                        self.stats.lane(runner.name).restamped.fetch_add(restamped, Ordering::Relaxed);
                    })
                }
            };
            match sent {
                Ok(()) => runner.pass_front(&self.stats),
                Err(error) => {
                    refused(runner, &error, now.mono_ns, &mut self.problems);
                    return false;
                }
            }
        }
        did
    }

    /// Books the delivery reports; whether there were any.
    fn take_reports(&mut self, now_ns: u64) -> bool {
        let mut decided = std::mem::take(&mut self.decided);
        self.reports.take(&mut decided);
        for &(opaque, failure) in &decided {
            let (lane, serial) = (opaque >> LANE_SHIFT, (opaque & ((1 << LANE_SHIFT) - 1)) as u64);
            let Some(runner) = self.lanes.get_mut(lane) else {
                self.again.decided(serial, failure, &self.letters);
                continue;
            };
            match failure {
                None => {
                    runner.delivered(serial, &self.stats);
                    self.problems.over(runner.name);
                }
                Some(code) => {
                    let whose = fault::of_code(code);
                    let reason = code.to_string();
                    runner.lane.failed(serial, whose, &reason, now_ns);
                    self.stats.lane(runner.name).failed.fetch_add(1, Ordering::Relaxed);
                    if whose == Fault::Configuration {
                        let what = format!("topic {}: {}", self.topics[lane], fault::advice(code));
                        self.problems.say(Some(runner.name), whose, &what, &reason);
                    }
                    // A refused record as well: the topic takes something else than it told.
                    self.topics_unclear |=
                        fault::is_missing_topic(code) || matches!(whose, Fault::Record | Fault::Time);
                }
            }
        }
        let any = !decided.is_empty();
        if any {
            for runner in &mut self.lanes {
                runner.follow(&self.stats);
            }
        }
        self.decided = decided;
        any
    }

    /// Takes note of a problem of the client as a whole; whether there was one.
    fn note_problem(&mut self) -> bool {
        let Some((code, reason)) = self.reports.take_problem() else { return false };
        let whose = fault::of_client(code, &reason);
        let what = match whose {
            Fault::Configuration => fault::advice(code),
            _ => "kafka does not answer",
        };
        self.problems.say(None, whose, what, &reason);
        true
    }

    /// Creates the topics that are missing and learns what they take; asks again later when that does not succeed.
    fn prepare_topics(&mut self, access: &rdkafka::ClientConfig) {
        let mut names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        names.push(&self.dlq_topic);
        names.sort_unstable();
        names.dedup();
        let result = client::prepare_topics(access, &self.config, &names);
        if let Err(reason) = &result
            && !self.topics_unclear
        {
            tracing::info!("kafka: topics were not created ({reason}); going on with those that exist");
        }
        self.topics_unclear = result.is_err();
        self.topics_due_ns = self.clock.now().mono_ns + TOPICS_INTERVAL_NS;
        for (name, told) in result.unwrap_or_default() {
            for (topic, limits) in self.topics.iter().zip(&mut self.limits) {
                if *topic == name {
                    *limits = told.clone();
                }
            }
        }
    }
}

/// Name in logs, metrics, the cursor's file and the list of dead letters.
const NAME: &str = "kafka";

impl Destination for KafkaDestination {
    fn name(&self) -> &str {
        NAME
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
                self.prepare_topics(&access);
            }
            let end = self.session(&producer, &access, stop);
            drop(producer);
            self.again.abandon();
            let now_ns = self.clock.now().mono_ns;
            for runner in &mut self.lanes {
                runner.lane.abandon(now_ns);
                runner.follow(&self.stats);
            }
            self.keeper.save(&mut self.lanes, &self.stats);
            match end {
                End::Stopped => return Ok(()),
                End::ClockBack => {
                    tracing::warn!(
                        "kafka: this machine's clock went back; a new producer takes over at the cursors"
                    );
                }
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

/// The client did not take the lane's front item.
fn refused(runner: &mut LaneRunner, error: &KafkaError, now_ns: u64, problems: &mut Problems) {
    let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
    match (fault::of_code(code), runner.items.front()) {
        (Fault::Record, Some(item)) => {
            let reason = format!("{code} ({} bytes)", item.content.payload().len());
            tracing::warn!(
                lane = runner.name.as_str(), position = item.offset, key = %item.key, "undeliverable: {reason}"
            );
            runner.lane.condemn(item.offset, reason);
        }
        (Fault::Configuration, _) => {
            runner.lane.hold(now_ns);
            problems.say(Some(runner.name), Fault::Configuration, fault::advice(code), &error.to_string());
        }
        _ => {}
    }
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
