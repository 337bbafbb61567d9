//! What the journal holds and what the pipeline puts out: the two logs' records, shared by all rooms.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// `site/machine/sensor`: names a sensor's records in every topic and file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SensorKey {
    /// The site.
    pub site: Arc<str>,
    /// The machine.
    pub machine: Arc<str>,
    /// The sensor.
    pub sensor: Arc<str>,
}

impl fmt::Display for SensorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.site, self.machine, self.sensor)
    }
}

/// What a journal record is. The numbers are stored and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A wire block as it came (`body` is the whole wire message).
    Block = 1,
    /// A JSON message of another maker's sensor as it came, accepted by a mapping.
    Json = 2,
    /// Input that was refused, with its reason; goes to the dead letters. `body` is a JSON object, see `session`.
    DeadLetter = 3,
    /// Samples known to be lost before the gateway. `body` is postcard of [`Gap`].
    Gap = 4,
    /// Any other wire message of a node, as it came: birth, status, time pair, features, burst, answer, offline.
    Node = 5,
    /// Machine context, as it came.
    Context = 6,
}

/// One record of the journal.
#[derive(Debug, Clone)]
pub struct Record {
    /// Position in the journal: dense, from 1.
    pub offset: u64,
    /// What it is.
    pub kind: RecordKind,
    /// Whose it is.
    pub key: Arc<SensorKey>,
    /// UTC of the first sample (blocks, gaps, JSON) or of the message, ns since 1970, by the node's fitted clock.
    pub time_ns: i64,
    /// Time stamp's quality and what the session found; see [`record_flags`].
    pub flags: u16,
    /// JSON records: index of the message's first sample in its sensor's life, as the session counted. Else 0.
    pub first_sample: u64,
    /// When the gateway received it, UTC ns. For staleness only: nothing that goes out may depend on it.
    pub arrival_ns: i64,
    /// See [`RecordKind`].
    pub body: Bytes,
}

/// Bits of [`Record::flags`].
pub mod record_flags {
    /// No (tick, UTC) pair was known: the time is anchored at the arrival of the node's first block.
    pub const CLOCK_ARRIVAL: u16 = 1 << 0;
    /// The node's clock jumped or disagrees with the gateway's by more than the configured bound.
    pub const CLOCK_DOUBTFUL: u16 = 1 << 1;
    /// Came after its place in the order had been given up (a gap was recorded); raw only, not in the features.
    pub const LATE: u16 = 1 << 2;
}

/// Body of a [`RecordKind::Gap`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gap {
    /// The node's name.
    pub node: String,
    /// Which run.
    pub boot: u64,
    /// Which sensor.
    pub stream: u8,
    /// Index of the first lost sample (per channel) since boot.
    pub first_sample: u64,
    /// Lost samples per channel.
    pub samples: u64,
}

/// A batch of consecutive journal records, as committed together or as read together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// In order of offset, without holes, never empty.
    pub records: Vec<Record>,
}

/// What an output is, and with that its Kafka topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OutputKind {
    /// Features of one window.
    Features = 1,
    /// A rollup (1 s and longer) of the downsampled signal.
    Rollup = 2,
    /// A change of an alert's state.
    Alert = 3,
    /// An averaged spectrum.
    Spectrum = 4,
}

/// One record of the outputs log.
#[derive(Debug, Clone)]
pub struct Output {
    /// Position in the outputs log: dense, from 1; given at commit.
    pub id: u64,
    /// What it is.
    pub kind: OutputKind,
    /// Whose it is.
    pub key: Arc<SensorKey>,
    /// Event time, UTC ns: end of the window, or when the alert changed.
    pub time_ns: i64,
    /// Deterministic id for `ce_id`: the same input gives the same id.
    pub ce_id: Arc<str>,
    /// The record as JSON, ready to be sent.
    pub json: Bytes,
}
