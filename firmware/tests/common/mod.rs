//! A gateway of the smallest kind, written from the wire format: takes each block in order, notes gaps only when the node
//! has said that what is missing will never come, acknowledges.
#![allow(dead_code, reason = "each test binary uses its own part")]

use spindle_common::id::Seq;
use spindle_common::settings::Settings;
use spindle_common::wire::block::flags;
use spindle_common::wire::{Ack, AxisFeatures, Message, StepStatus, TimeTell, decode};
use std::collections::BTreeMap;

/// Blocks of one stream as they were accepted: samples by index, interleaved.
#[derive(Debug, Default, Clone)]
pub(crate) struct Stream {
    pub(crate) samples: BTreeMap<u64, Vec<i32>>,
    pub(crate) blocks: u64,
    pub(crate) flags: u16,
    pub(crate) overruns: u64,
    pub(crate) rate_measured_mhz: u32,
    pub(crate) ticks: Vec<(u64, u64)>,
    /// What numbered messages stand for: first sample, samples, and whether they were sent as such.
    pub(crate) covered: Vec<(u64, u64, bool)>,
    pub(crate) features: Vec<AxisFeatures>,
    pub(crate) bursts: Vec<(u64, Vec<i32>)>,
}

impl Stream {
    /// Index behind the last sample.
    pub(crate) fn end(&self) -> u64 {
        self.samples.last_key_value().map_or(0, |(first, samples)| first + samples.len() as u64 / self.axes())
    }

    /// Notes what a message stands for: behind all that came before.
    fn cover(&mut self, first: u64, count: u64, whole: bool) {
        if let Some((before, len, _)) = self.covered.last() {
            assert!(first >= before + len, "{first} after {before} + {len}");
        }
        self.covered.push((first, count, whole));
    }

    /// Samples that no message stands for, up to `taken`.
    pub(crate) fn missing(&self, taken: u64) -> u64 {
        taken - self.covered.iter().map(|(_, count, _)| count).sum::<u64>()
    }

    fn axes(&self) -> u64 {
        3
    }

    /// Samples held.
    pub(crate) fn len(&self) -> u64 {
        self.samples.values().map(|samples| samples.len() as u64 / self.axes()).sum()
    }

    /// Asserts that every sample held equals what was produced, at its index.
    pub(crate) fn assert_equals(&self, produced: &[i32]) {
        for (&first, samples) in &self.samples {
            let from = (first * self.axes()) as usize;
            assert_eq!(&produced[from..from + samples.len()], samples.as_slice(), "block at {first}");
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) boot: Option<u64>,
    pub(crate) node: String,
    pub(crate) next: u32,
    pub(crate) streams: BTreeMap<u8, Stream>,
    pub(crate) duplicates: u64,
    pub(crate) ahead: u64,
    pub(crate) given_up: u64,
    pub(crate) births: u64,
    pub(crate) statuses: u64,
    pub(crate) answers: Vec<(u32, String)>,
    pub(crate) taken: BTreeMap<u8, u64>,
    pub(crate) lost_overrun: BTreeMap<u8, u64>,
    pub(crate) lost_ring: BTreeMap<u8, u64>,
    pub(crate) steps: BTreeMap<u8, StepStatus>,
    pub(crate) settings: Option<Settings>,
    pub(crate) axes: BTreeMap<u8, String>,
    pub(crate) pairs: Vec<(u64, i64, u32)>,
    /// While set, nothing is acknowledged.
    pub(crate) deaf: bool,
}

impl Gateway {
    /// Takes a message; the answer is an encoded ack.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        match decode(bytes).expect("the node sends only valid messages") {
            Message::Birth(birth) => {
                self.births += 1;
                self.new_boot(birth.node, birth.boot.0);
                self.axes = birth.streams.iter().map(|s| (s.stream.0, s.axes.to_owned())).collect();
                assert!(birth.lifetime.is_some(), "births are of version 2");
            }
            Message::InForce(force) => self.settings = Some(force.settings),
            Message::TimePair(pair) => self.pairs.push((pair.tick, pair.utc_ns, pair.error_ns)),
            Message::TimeAsk(ask) => {
                #[allow(clippy::disallowed_methods, reason = "a gateway's clock")]
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                let now_ns = now.as_nanos() as i64;
                let tell = TimeTell {
                    node: ask.node,
                    boot: ask.boot,
                    id: ask.id,
                    tick: ask.tick,
                    received_ns: now_ns,
                    sent_ns: now_ns,
                    error_ns: 1000,
                };
                let mut bytes = vec![0; 128];
                let len = tell.encode(&mut bytes).unwrap();
                bytes.truncate(len);
                return Some(bytes);
            }
            Message::Features(features) => {
                if !self.is_next(features.seq) {
                    return None;
                }
                let stream = self.streams.entry(features.stream.0).or_default();
                stream.cover(features.first_sample, features.samples.into(), false);
                stream.features.extend(&features.axes);
                stream.flags |= features.flags;
            }
            Message::Burst(burst) => {
                if !self.is_next(burst.block.header.seq) {
                    return None;
                }
                let mut planar = vec![0; burst.block.header.len()];
                burst.block.decode_samples(&mut planar).unwrap();
                let stream = self.streams.entry(burst.block.header.stream.0).or_default();
                stream.bursts.push((burst.block.header.first_sample, planar));
            }
            Message::Status(status) => {
                self.statuses += 1;
                self.new_boot(status.node, status.boot.0);
                if Seq(self.next).precedes(status.oldest) {
                    self.given_up += u64::from(status.oldest.since(Seq(self.next)));
                    self.next = status.oldest.0;
                }
                let more = status.more.as_ref().expect("statuses are of version 2");
                self.steps =
                    more.steps.iter().zip(&status.streams).map(|(step, s)| (s.stream.0, *step)).collect();
                for stream in &status.streams {
                    self.taken.insert(stream.stream.0, stream.taken);
                    self.lost_overrun.insert(stream.stream.0, stream.lost_overrun);
                    self.lost_ring.insert(stream.stream.0, stream.lost_ring);
                }
            }
            Message::Block(block) => {
                let header = block.header;
                assert_eq!(Some(header.boot.0), self.boot, "birth comes first");
                if !self.is_next(header.seq) {
                    return (header.seq.precedes(Seq(self.next)) && !self.deaf).then(|| self.ack()).flatten();
                }
                {
                    let mut planar = vec![0; header.len()];
                    block.decode_samples(&mut planar).unwrap();
                    let (axes, frames) = (usize::from(header.axes), usize::from(header.samples));
                    let interleaved = (0..frames)
                        .flat_map(|frame| (0..axes).map(move |axis| axis * frames + frame))
                        .map(|at| planar[at]);
                    let stream = self.streams.entry(header.stream.0).or_default();
                    stream.cover(header.first_sample, header.covered(), header.decimation == 1);
                    assert!(header.first_sample >= stream.end(), "samples never go back");
                    stream.samples.insert(header.first_sample, interleaved.collect());
                    stream.blocks += 1;
                    stream.flags |= header.flags;
                    stream.overruns += u64::from(header.flags & flags::OVERRUN != 0);
                    stream.rate_measured_mhz = header.rate_measured_mhz;
                    stream.ticks.push((header.first_sample, header.tick));
                }
            }
            Message::Answer(answer) => {
                self.answers.push((answer.id, format!("{:?} {}", answer.outcome, answer.text)))
            }
            _ => return None,
        }
        (!self.deaf).then(|| self.ack()).flatten()
    }

    /// Whether a numbered message is the one that is waited for; it then is no more.
    fn is_next(&mut self, seq: Seq) -> bool {
        if seq.precedes(Seq(self.next)) {
            self.duplicates += 1;
        } else if seq != Seq(self.next) {
            self.ahead += 1;
        } else {
            self.next = self.next.wrapping_add(1);
            return true;
        }
        false
    }

    pub(crate) fn ack(&self) -> Option<Vec<u8>> {
        let ack =
            Ack { node: &self.node, boot: spindle_common::id::BootId(self.boot?), next: Seq(self.next) };
        let mut bytes = vec![0; 128];
        let len = ack.encode(&mut bytes).unwrap();
        bytes.truncate(len);
        Some(bytes)
    }

    fn new_boot(&mut self, node: &str, boot: u64) {
        if self.boot != Some(boot) {
            (self.boot, self.next) = (Some(boot), 0);
            self.streams.clear();
            self.node = node.to_owned();
        }
    }
}
