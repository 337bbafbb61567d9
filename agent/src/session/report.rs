//! What is known of each node, for people and for commands; and orders to nodes. Nothing of this is durable: a node tells it again
//! at each connect.

use super::node::Node;
use super::twins::Speaker;
use super::{Session, ToNode, to_node};
use crate::clock::Now;
use crate::record::SensorKey;
use crate::source::{SourceId, topic};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spindle_common::id::StreamId;
use spindle_common::settings::{Settings, Step};
use spindle_common::wire::messages::{Lifetime, MoreStatus, Request, TimeSource};
use spindle_common::wire::{self, Message};
use std::collections::VecDeque;

/// Answers of a node that are remembered; a command that waits looks for its own many times a second.
const ANSWERS_MAX: usize = 8;

/// A message that was heard.
#[derive(Debug, Clone)]
struct Heard {
    payload: Bytes,
    utc_ns: i64,
}

/// What a node has said of itself since the gateway started.
#[derive(Debug, Default)]
pub(super) struct News {
    /// When it was heard last; births do not count, for a broker retains them.
    heard_ns: Option<i64>,
    offline: bool,
    birth: Option<Heard>,
    status: Option<Heard>,
    in_force: Option<Heard>,
    time_source: Option<TimeSource>,
    answers: VecDeque<AnswerReport>,
}

impl News {
    /// Notes a message.
    pub(super) fn take(&mut self, message: &Message<'_>, payload: &Bytes, utc_ns: i64) {
        let heard = || Some(Heard { payload: payload.clone(), utc_ns });
        match message {
            Message::Birth(_) => {
                self.birth = heard();
                return;
            }
            Message::Offline(_) => {
                self.offline = true;
                return;
            }
            Message::Status(_) => self.status = heard(),
            Message::InForce(_) => self.in_force = heard(),
            Message::TimePair(pair) => self.time_source = Some(pair.source),
            Message::Answer(answer) => {
                if self.answers.len() >= ANSWERS_MAX {
                    self.answers.pop_front();
                }
                self.answers.push_back(AnswerReport {
                    id: answer.id,
                    outcome: answer.outcome.into(),
                    text: answer.text.to_owned(),
                    heard_ns: utc_ns,
                });
            }
            _ => {}
        }
        self.offline = false;
        self.heard_ns = Some(utc_ns);
    }
}

/// What is asked of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Say birth, settings and status again.
    Report,
    /// Blink.
    Identify,
    /// Test a sensor.
    SelfTest {
        /// Which.
        stream: u8,
    },
    /// Restart.
    Reboot,
    /// Take these settings.
    Set {
        /// All of them.
        settings: Box<Settings>,
    },
}

/// How a node answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderOutcome {
    /// Done.
    Done,
    /// Tried, and failed.
    Failed,
    /// Not done.
    Refused,
}

impl From<wire::messages::Outcome> for OrderOutcome {
    fn from(outcome: wire::messages::Outcome) -> Self {
        match outcome {
            wire::messages::Outcome::Done => Self::Done,
            wire::messages::Outcome::Failed => Self::Failed,
            wire::messages::Outcome::Refused => Self::Refused,
        }
    }
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerReport {
    /// The order's id.
    pub id: u32,
    /// How it ended.
    pub outcome: OrderOutcome,
    /// For people.
    pub text: String,
    /// When it came, UTC ns.
    pub heard_ns: i64,
}

/// All that is known of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// `site/machine/node`.
    pub key: String,
    /// The node's name.
    pub node: String,
    /// The way it came: a source's name; none when it was not heard since the gateway started.
    pub source: Option<String>,
    /// When it was heard last, UTC ns, births aside; none when not since the gateway started.
    pub heard_ns: Option<i64>,
    /// Whether its broker said since that its connection is lost.
    pub offline: bool,
    /// Its newest boot, hexadecimal.
    pub boot: Option<String>,
    /// Its birth.
    pub birth: Option<BirthReport>,
    /// Its last status.
    pub status: Option<StatusReport>,
    /// The settings that it said are in force.
    pub settings: Option<SettingsReport>,
    /// Its clock as the gateway knows it.
    pub clock: Option<ClockReport>,
    /// Set while two boards use its id, or it comes by two ways.
    #[serde(default)]
    pub twins: Option<TwinsReport>,
    /// Its last answers, the newest last.
    pub answers: Vec<AnswerReport>,
    /// Its sensors.
    pub streams: Vec<StreamReport>,
}

/// Two boards with one id, or one board by two ways: they take turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinsReport {
    /// Since when, UTC ns.
    pub since_ns: i64,
    /// Boots that take turns, hexadecimal.
    pub boots: Vec<String>,
    /// Sources by which they come.
    pub sources: Vec<String>,
}

/// What a birth said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BirthReport {
    /// When it came, UTC ns; a retained one comes again.
    pub heard_ns: i64,
    /// Which run, hexadecimal.
    pub boot: String,
    /// The board's type.
    pub board: String,
    /// The firmware's version.
    pub firmware: String,
    /// Why it started, in words.
    pub reset_cause: String,
    /// Text of the last panic; empty if none.
    pub last_panic: String,
    /// Version of the settings in force; 0: those built in.
    pub settings_version: u32,
    /// Blocks that its ring holds.
    pub ring_capacity: u16,
    /// Counters over its resets, where it keeps them.
    pub lifetime: Option<Lifetime>,
}

/// What a status said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// When it came, UTC ns.
    pub heard_ns: i64,
    /// Blocks held.
    pub ring_used: u16,
    /// Blocks dropped because the ring was full.
    pub dropped: u32,
    /// Messages sent again.
    pub resent: u32,
    /// Connections made.
    pub connects: u32,
    /// Answers dropped, messages of the gateway dropped, bytes lost on the serial line; where it counts them.
    pub more: Option<[u32; 3]>,
}

/// Settings in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsReport {
    /// When they were told, UTC ns.
    pub heard_ns: i64,
    /// The settings.
    pub settings: Settings,
}

/// A node's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClockReport {
    /// (tick, UTC) pairs in the fit.
    pub pairs: usize,
    /// By how much its tick is longer than it should be, parts per million.
    pub drift_ppm: f64,
    /// Median of the pairs' error bounds, ns.
    pub error_ns: u32,
    /// Farthest that a pair lies off the fitted line, ns.
    pub off_line_ns: i64,
    /// Where the node's UTC comes from, in words.
    pub source: String,
    /// Whether the last pair was refused or doubtful.
    pub doubtful: bool,
}

/// A sensor of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Its number.
    pub stream: u8,
    /// Its name: the third part of its key.
    pub sensor: String,
    /// Its type.
    pub model: String,
    /// Axes that it sends.
    pub axes: String,
    /// Nominal rate, Hz.
    pub rate_nominal_hz: f64,
    /// True rate: measured by the node, and corrected by its clock's drift, Hz.
    pub rate_true_hz: Option<f64>,
    /// m/s² per count.
    pub scale: f32,
    /// Bits of its converter.
    pub bits: u8,
    /// Samples per channel and block.
    pub block_samples: u16,
    /// How it reports.
    pub step: Option<Step>,
    /// Samples per channel taken since boot.
    pub taken: Option<u64>,
    /// Of them kept back, as its settings say.
    pub withheld: Option<u64>,
    /// Of them lost in the sensor's FIFO and from the full ring.
    pub lost: Option<u64>,
    /// Bursts released, and missed.
    pub bursts: Option<[u32; 2]>,
    /// Errors on its bus.
    pub bus_errors: Option<u32>,
    /// °C.
    pub temperature_c: Option<f64>,
}

impl Session {
    /// What is known of all nodes, or of those that `name` names: a node's name, or its whole key.
    #[must_use]
    pub fn reports(&self, name: Option<&str>, now: Now) -> Vec<NodeReport> {
        let named = |node: &&Node| name.is_none_or(|name| is_named(&node.key, name));
        let mut nodes: Vec<_> = self.nodes.iter().flatten().filter(named).collect();
        nodes.sort_by_key(|node| &node.key);
        let report = |node: &Node| NodeReport {
            twins: node.twins.found(now.mono_ns).map(|(speakers, since_ns)| {
                let mut boots: Vec<_> =
                    speakers.iter().map(|speaker| format!("{:016x}", speaker.boot.0)).collect();
                let source = |speaker: &Speaker| self.sources.get(usize::from(speaker.source.0)).cloned();
                let mut sources: Vec<_> = speakers.iter().filter_map(source).collect();
                for names in [&mut boots, &mut sources] {
                    names.sort();
                    names.dedup();
                }
                TwinsReport { since_ns, boots, sources }
            }),
            ..node.report(self.sources.get(usize::from(node.origin.0)).cloned())
        };
        nodes.into_iter().map(report).collect()
    }

    /// Makes the message that orders something of a node; the answer will have the id.
    ///
    /// # Errors
    /// There is no such node, or no way to it, in words.
    pub fn order(&mut self, name: &str, order: &Order, now: Now) -> Result<(u32, ToNode), String> {
        let mut named = self.nodes.iter().flatten().filter(|node| is_named(&node.key, name));
        let Some(node) = named.next() else {
            return Err(format!("there is no node {name}; `spindle node list` shows those that are known"));
        };
        if let Some(other) = named.next() {
            return Err(format!("{name} is {} and {}: write which", node.key, other.key));
        }
        if node.origin == SourceId(u16::MAX) {
            return Err(format!(
                "{} has not been heard since the gateway started: the way to it is not known",
                node.key
            ));
        }
        // Never 0, which is the gateway's own question, nor one of before a restart, most likely.
        if self.order_id == 0 {
            self.order_id = (now.utc_ns / 1_000_000) as u32;
        }
        self.order_id = self.order_id.wrapping_add(1).max(1);
        let id = self.order_id;
        let topic = topic::to_node(&node.key, "cmd");
        let name = &*node.key.sensor;
        let request = match order {
            Order::Report => Request::Report,
            Order::Identify => Request::Identify,
            Order::SelfTest { stream } => Request::SelfTest { stream: StreamId(*stream) },
            Order::Reboot => Request::Reboot,
            Order::Set { settings } => {
                let set = wire::Set { node: name, id, settings: (**settings).clone() };
                let message = to_node(node.origin, topic, |out| set.encode(out), true);
                return message
                    .map(|message| (id, message))
                    .ok_or_else(|| "settings are out of range".into());
            }
        };
        let command = wire::Command { node: name, id, request };
        let message = to_node(node.origin, topic, |out| command.encode(out), true);
        message.map(|message| (id, message)).ok_or_else(|| "the order cannot be written".into())
    }
}

fn is_named(key: &SensorKey, name: &str) -> bool {
    *key.sensor == *name || key.to_string() == name
}

impl Node {
    fn report(&self, source: Option<String>) -> NodeReport {
        let boot = self.newest();
        let mut streams = Vec::new();
        let birth = self.news.birth.as_ref().and_then(|heard| match wire::decode(&heard.payload) {
            Ok(Message::Birth(birth)) => {
                streams.extend(birth.streams.iter().map(of_info));
                Some(of_birth(&birth, heard.utc_ns))
            }
            _ => None,
        });
        let status = self.news.status.as_ref().and_then(|heard| match wire::decode(&heard.payload) {
            Ok(Message::Status(status)) => {
                add_status(&mut streams, &status);
                Some(of_status(&status, heard.utc_ns))
            }
            _ => None,
        });
        let settings = self.news.in_force.as_ref().and_then(|heard| match wire::decode(&heard.payload) {
            Ok(Message::InForce(in_force)) => {
                Some(SettingsReport { heard_ns: heard.utc_ns, settings: in_force.settings })
            }
            _ => None,
        });
        if let Some(boot) = boot {
            for known in &boot.streams {
                let Some(stream) = streams.iter_mut().find(|stream| stream.stream == known.index) else {
                    continue;
                };
                let measured_hz = f64::from(known.measured_mhz) / 1000.0;
                let is_known = known.measured_mhz > 0 && boot.fit.utc_ns(0).is_some();
                stream.rate_true_hz = is_known.then(|| measured_hz / (1.0 + boot.fit.drift()));
            }
        }
        NodeReport {
            key: self.key.to_string(),
            node: self.key.sensor.to_string(),
            source,
            heard_ns: self.news.heard_ns,
            offline: self.news.offline,
            boot: boot.map(|boot| format!("{:016x}", boot.id.0)),
            birth,
            status,
            settings,
            clock: boot.and_then(|boot| self.clock(boot)),
            twins: None,
            answers: self.news.answers.iter().cloned().collect(),
            streams,
        }
    }

    fn clock(&self, boot: &super::boot::Boot) -> Option<ClockReport> {
        let pairs = boot.fit.pairs();
        let mut errors: Vec<u32> = pairs.iter().map(|pair| pair.error_ns).collect();
        errors.sort_unstable();
        let off = |pair: &spindle_common::time::Pair| {
            boot.fit.utc_ns(pair.tick).map_or(0, |fitted| fitted.saturating_sub(pair.utc_ns).saturating_abs())
        };
        Some(ClockReport {
            pairs: pairs.len(),
            drift_ppm: boot.fit.drift() * 1e6,
            error_ns: *errors.get(errors.len() / 2)?,
            off_line_ns: pairs.iter().map(off).max()?,
            source: self.news.time_source.map_or("not known since the gateway started", source_words).into(),
            doubtful: boot.doubtful,
        })
    }
}

const fn source_words(source: TimeSource) -> &'static str {
    match source {
        TimeSource::Host => "its host",
        TimeSource::Sntp => "SNTP",
        TimeSource::Gateway => "the gateway",
        TimeSource::Ptp => "PTP",
    }
}

/// A reset cause in words.
#[must_use]
pub const fn reset_words(cause: wire::messages::ResetCause) -> &'static str {
    use wire::messages::ResetCause;
    match cause {
        ResetCause::Unknown => "unknown",
        ResetCause::PowerOn => "power on",
        ResetCause::Pin => "reset pin",
        ResetCause::Software => "software",
        ResetCause::Watchdog => "watchdog",
        ResetCause::BrownOut => "brown-out",
        ResetCause::Panic => "panic",
    }
}

fn of_birth(birth: &wire::Birth<'_>, heard_ns: i64) -> BirthReport {
    BirthReport {
        heard_ns,
        boot: format!("{:016x}", birth.boot.0),
        board: birth.board.into(),
        firmware: birth.firmware.into(),
        reset_cause: reset_words(birth.reset_cause).into(),
        last_panic: birth.last_panic.into(),
        settings_version: birth.settings_version,
        ring_capacity: birth.ring_capacity,
        lifetime: birth.lifetime,
    }
}

fn of_info(info: &wire::StreamInfo<'_>) -> StreamReport {
    StreamReport {
        stream: info.stream.0,
        sensor: info.sensor.into(),
        model: info.model.into(),
        axes: info.axes.into(),
        rate_nominal_hz: f64::from(info.rate_nominal_mhz) / 1000.0,
        scale: info.scale,
        bits: info.bits,
        block_samples: info.block_samples,
        ..StreamReport::default()
    }
}

fn of_status(status: &wire::Status<'_>, heard_ns: i64) -> StatusReport {
    let more = |more: &MoreStatus| [more.answers_dropped, more.inbox_dropped, more.line_errors];
    StatusReport {
        heard_ns,
        ring_used: status.ring_used,
        dropped: status.dropped,
        resent: status.resent,
        connects: status.connects,
        more: status.more.as_ref().map(more),
    }
}

fn add_status(streams: &mut [StreamReport], status: &wire::Status<'_>) {
    for (at, counters) in status.streams.iter().enumerate() {
        let Some(stream) = streams.iter_mut().find(|stream| stream.stream == counters.stream.0) else {
            continue;
        };
        stream.taken = Some(counters.taken);
        stream.lost = Some(counters.lost_overrun.saturating_add(counters.lost_ring));
        stream.bus_errors = Some(counters.bus_errors);
        let has_thermometer = counters.temperature_centi_c != i16::MIN;
        stream.temperature_c = has_thermometer.then(|| f64::from(counters.temperature_centi_c) / 100.0);
        if let Some(step) = status.more.as_ref().and_then(|more| more.steps.get(at)) {
            stream.step = Some(step.step);
            stream.withheld = Some(step.withheld);
            stream.bursts = Some([step.bursts, step.bursts_missed]);
        }
    }
}
