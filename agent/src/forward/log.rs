//! The two logs as lanes read them: records of the wanted kinds, everything else passed over.

use crate::config::LaneName;
use crate::journal;
use crate::outputs;
use crate::record::{Output, OutputKind, Record, RecordKind, SensorKey};
use bytes::Bytes;
use spindle_common::wire::{self, Message};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A record on its way out.
#[derive(Debug, Clone)]
pub struct Item {
    /// Position in its log.
    pub offset: u64,
    /// Whose it is.
    pub key: Arc<SensorKey>,
    /// Event time, UTC ns.
    pub time_ns: i64,
    /// What it is.
    pub content: Content,
}

/// What goes out.
#[derive(Debug, Clone)]
pub enum Content {
    /// A wire block as it came.
    Block(Bytes),
    /// A node's burst of raw samples as it came.
    Burst(Bytes),
    /// A JSON message as it came.
    Json {
        /// The message.
        body: Bytes,
        /// Index of its first sample.
        first_sample: u64,
    },
    /// Refused input with its reason, JSON.
    DeadLetter(Bytes),
    /// An output of the pipeline, JSON.
    Output {
        /// What it is.
        kind: OutputKind,
        /// Its deterministic id.
        ce_id: Arc<str>,
        /// The record.
        json: Bytes,
    },
}

impl Content {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        match self {
            Self::Block(body) | Self::Burst(body) | Self::Json { body, .. } | Self::DeadLetter(body) => body,
            Self::Output { json, .. } => json,
        }
    }
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Wanted items were appended; everything before this position has been looked at.
    To(u64),
    /// There is nothing at or after the position yet.
    Idle,
    /// The position was evicted; this is the oldest one left.
    Evicted(u64),
    /// The log is closed and nothing is left.
    Closed,
}

/// A log that a lane reads.
pub trait Log: Send {
    /// Appends the wanted items at or after `from`, about `bytes_max` of them, without waiting.
    ///
    /// # Errors
    /// What the log says, for people; it is tried again later.
    fn read(&mut self, from: u64, bytes_max: usize, items: &mut VecDeque<Item>) -> Result<Progress, String>;
}

/// The lanes of a destination with what each reads, in the order of their turns.
pub type Lanes = Vec<(LaneName, Box<dyn Log>)>;

/// The views of a journal and an outputs log that the `wanted` lanes have.
#[must_use]
pub fn lanes(
    wanted: &[LaneName],
    journal: &journal::JournalReader,
    outputs: impl Fn() -> outputs::OutputReader,
) -> Lanes {
    let of_journal = |kinds| -> Box<dyn Log> { Box::new(JournalLog::new(journal.clone(), kinds)) };
    let of_outputs = |kinds| -> Box<dyn Log> { Box::new(OutputsLog::new(outputs(), kinds)) };
    let log = |lane| match lane {
        LaneName::Alerts => of_outputs(&[OutputKind::Alert]),
        LaneName::Features => of_outputs(&[OutputKind::Features, OutputKind::Rollup, OutputKind::Spectrum]),
        LaneName::Dlq => of_journal(&[RecordKind::DeadLetter]),
        LaneName::Raw => of_journal(&[RecordKind::Block, RecordKind::Json, RecordKind::Node]),
    };
    LaneName::ALL.into_iter().filter(|lane| wanted.contains(lane)).map(|lane| (lane, log(lane))).collect()
}

/// The journal's records of some kinds as a lane's log.
#[derive(Debug)]
pub struct JournalLog {
    reader: journal::JournalReader,
    wanted: &'static [RecordKind],
}

impl JournalLog {
    /// What `reader` gives, of the `wanted` kinds: of [`RecordKind::Block`], [`RecordKind::Json`],
    /// [`RecordKind::DeadLetter`], and [`RecordKind::Node`], of which only bursts are taken.
    #[must_use]
    pub fn new(reader: journal::JournalReader, wanted: &'static [RecordKind]) -> Self {
        Self { reader, wanted }
    }
}

impl Log for JournalLog {
    fn read(&mut self, from: u64, bytes_max: usize, items: &mut VecDeque<Item>) -> Result<Progress, String> {
        match self.reader.read(from, bytes_max, Duration::ZERO).map_err(|error| error.to_string())? {
            journal::Read::Batch(view) => {
                items.extend(view.iter().filter_map(|record| journal_item(record, self.wanted)));
                Ok(Progress::To(view.next()))
            }
            journal::Read::Idle => Ok(Progress::Idle),
            journal::Read::Evicted { next } => Ok(Progress::Evicted(next)),
            journal::Read::Closed => Ok(Progress::Closed),
        }
    }
}

/// The outputs of some kinds as a lane's log.
#[derive(Debug)]
pub struct OutputsLog {
    reader: outputs::OutputReader,
    wanted: &'static [OutputKind],
}

impl OutputsLog {
    /// What `reader` gives, of the `wanted` kinds.
    #[must_use]
    pub fn new(reader: outputs::OutputReader, wanted: &'static [OutputKind]) -> Self {
        Self { reader, wanted }
    }
}

impl Log for OutputsLog {
    fn read(&mut self, from: u64, bytes_max: usize, items: &mut VecDeque<Item>) -> Result<Progress, String> {
        match self.reader.read(from, bytes_max, Duration::ZERO).map_err(|error| error.to_string())? {
            outputs::Read::Batch(batch) => {
                let next = batch.last().map_or(from, |output| output.id + 1);
                let wanted = batch.into_iter().filter(|output| self.wanted.contains(&output.kind));
                items.extend(wanted.map(output_item));
                Ok(Progress::To(next))
            }
            outputs::Read::Idle => Ok(Progress::Idle),
            outputs::Read::Evicted { next } => Ok(Progress::Evicted(next)),
            outputs::Read::Closed => Ok(Progress::Closed),
        }
    }
}

fn output_item(output: Output) -> Item {
    let Output { id, kind, key, time_ns, ce_id, json } = output;
    Item { offset: id, key, time_ns, content: Content::Output { kind, ce_id, json } }
}

/// The record on its way out, when it is of a `wanted` kind.
fn journal_item(record: &Record, wanted: &[RecordKind]) -> Option<Item> {
    if !wanted.contains(&record.kind) {
        return None;
    }
    let body = record.body.clone();
    let content = match record.kind {
        RecordKind::Block => Content::Block(body),
        RecordKind::Json => Content::Json { body, first_sample: record.first_sample },
        RecordKind::DeadLetter => Content::DeadLetter(body),
        RecordKind::Node if matches!(wire::decode(&body), Ok(Message::Burst(_))) => Content::Burst(body),
        RecordKind::Gap | RecordKind::Node | RecordKind::Context => return None,
    };
    Some(Item { offset: record.offset, key: record.key.clone(), time_ns: record.time_ns, content })
}
