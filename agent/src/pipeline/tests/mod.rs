//! Tests of the pipeline on synthesised blocks.

mod clock;
mod determinism;
mod golden;
mod lines;
mod measures;
mod quality;
mod runner;
mod schema;
mod signals;
mod spectra;
mod steps;

use super::*;
use bytes::Bytes;
use serde_json::Value;
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::wire::{BlockHeader, Encoding};
use spindle_common::wire::{Samples, encode_block};

/// A round UTC for starts.
pub(super) const START_NS: i64 = 1_790_000_000_000_000_000;

pub(super) const SCALE: f32 = 0.122e-3 * 9.806_65;

pub(super) fn config() -> Config {
    let text = "[gateway]\nname = \"g\"\ndata_dir = \"/nowhere\"\n";
    toml::from_str(text).expect("a small configuration")
}

pub(super) fn key() -> Arc<SensorKey> {
    Arc::new(SensorKey { site: "s".into(), machine: "m".into(), sensor: "a".into() })
}

/// A sensor's blocks as journal records.
#[derive(Debug, Clone)]
pub(super) struct Board {
    pub(super) key: Arc<SensorKey>,
    pub(super) boot: u64,
    pub(super) rate_nominal_hz: f64,
    pub(super) rate_hz: f64,
    pub(super) bits: u8,
    pub(super) scale: f32,
    pub(super) block_len: usize,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            key: key(),
            boot: 7,
            rate_nominal_hz: 26_667.0,
            rate_hz: 26_667.0,
            bits: 16,
            scale: SCALE,
            block_len: 512,
        }
    }

    /// UTC of a sample.
    pub(super) fn time_of(&self, sample: u64) -> i64 {
        START_NS + (sample as f64 * 1e9 / self.rate_hz).round() as i64
    }

    /// A block of `counts` (planar) that starts at `first_sample`.
    pub(super) fn block(&self, first_sample: u64, counts: &[i32], axes: usize) -> Record {
        let header = BlockHeader {
            node: "n",
            boot: BootId(self.boot),
            stream: StreamId(0),
            seq: Seq(first_sample as u32),
            first_sample,
            tick: first_sample,
            tick_hz: 1_000_000,
            rate_nominal_mhz: (self.rate_nominal_hz * 1000.0).round() as u32,
            rate_measured_mhz: 0,
            scale: self.scale,
            bits: self.bits,
            axes: axes as u8,
            samples: (counts.len() / axes) as u16,
            flags: 0,
            encoding: if self.bits > 16 { Encoding::Raw24 } else { Encoding::Raw16 },
            decimation: 1,
        };
        let mut body = vec![0; 64 * 1024];
        let len = encode_block(&header, Samples::I32(counts), &mut body).expect("a valid block");
        body.truncate(len);
        self.record(RecordKind::Block, first_sample, body.into())
    }

    pub(super) fn record(&self, kind: RecordKind, first_sample: u64, body: Bytes) -> Record {
        Record {
            offset: 0,
            kind,
            key: Arc::clone(&self.key),
            time_ns: self.time_of(first_sample),
            flags: 0,
            first_sample: 0,
            arrival_ns: 0,
            body,
        }
    }

    pub(super) fn gap(&self, first_sample: u64, samples: u64) -> Record {
        let gap = Gap { node: "n".into(), boot: self.boot, stream: 0, first_sample, samples };
        let body = postcard::to_stdvec(&gap).expect("a gap can be written");
        self.record(RecordKind::Gap, first_sample, body.into())
    }

    /// Blocks of a signal in m/s² over the seconds since sample 0, one function per axis, for samples `range`.
    pub(super) fn blocks(&self, range: std::ops::Range<u64>, axes: &[&dyn Fn(f64) -> f64]) -> Vec<Record> {
        let mut records = Vec::new();
        let mut first = range.start;
        while first < range.end {
            let len = (range.end - first).min(self.block_len as u64);
            let mut counts = Vec::new();
            for axis in axes {
                counts.extend((first..first + len).map(|sample| {
                    let limit = f64::from(1 << (self.bits - 1));
                    let value = axis(sample as f64 / self.rate_hz) / f64::from(self.scale);
                    value.round().clamp(-limit, limit - 1.0) as i32
                }));
            }
            records.push(self.block(first, &counts, axes.len()));
            first += len;
        }
        records
    }
}

/// Numbers the records as a journal would.
pub(super) fn number(mut records: Vec<Record>) -> Vec<Record> {
    for (offset, record) in (1..).zip(&mut records) {
        record.offset = offset;
    }
    records
}

/// Runs records through a new pipeline.
pub(super) fn run(config: &Config, records: Vec<Record>) -> Vec<Output> {
    let mut pipeline = Pipeline::new(config);
    let mut out = Vec::new();
    for record in &number(records) {
        pipeline.push(record, &mut out);
    }
    out
}

pub(super) fn of_kind(outputs: &[Output], kind: OutputKind) -> Vec<Value> {
    let wanted = outputs.iter().filter(|output| output.kind == kind);
    wanted.map(|output| serde_json::from_slice(&output.json).expect("valid JSON")).collect()
}

pub(super) fn number_at(value: &Value, pointer: &str) -> f64 {
    let found = value.pointer(pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {pointer} of {value}"))
}

#[track_caller]
pub(super) fn assert_near(found: f64, expected: f64, relative: f64) {
    assert!(
        (found / expected - 1.0).abs() <= relative,
        "found {found}, expected {expected} within {relative}"
    );
}

pub(super) use crate::record::OutputKind;
