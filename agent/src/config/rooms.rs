//! What lies between: session, journal, pipeline, rules; and the log.

use super::{Band, Spectrum, schema};
use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Order, duplicates, clocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Blocks per node that may wait for an earlier one.
    pub reorder_blocks_max: usize,
    /// How long they may wait.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub reorder_wait: Duration,
    /// Most nodes known at a time, and most JSON sensors. A new node takes the place of the longest silent one, if that was silent
    /// for 10 minutes; else it is refused, and counted: a flood of new names must not push out those that work.
    pub nodes_max: usize,
    /// Bytes of refused messages that a source may fill the journal with, a second, in the long run; those beyond it are counted
    /// and not kept.
    #[schemars(with = "schema::SizeText")]
    pub dead_letters_per_s: ByteSize,
    /// Bytes of refused messages that a source may bring at once.
    #[schemars(with = "schema::SizeText")]
    pub dead_letters_burst: ByteSize,
    /// A node whose UTC differs from the gateway's by more is flagged.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub clock_error_max: Duration,
    /// Bound of this machine's own clock error, told to nodes that ask the gateway for the time. 10 ms suits NTP over a network;
    /// with PTP or a time server near by it is less.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub clock_error: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            reorder_blocks_max: 64,
            reorder_wait: Duration::from_secs(2),
            nodes_max: 10_000,
            dead_letters_per_s: ByteSize::kib(8),
            dead_letters_burst: ByteSize::mib(4),
            clock_error_max: Duration::from_secs(300),
            clock_error: Duration::from_millis(10),
        }
    }
}

/// The durable log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Most disk space; the oldest segments are evicted, and counted, when it is reached.
    #[schemars(with = "schema::SizeText")]
    pub size_max: ByteSize,
    /// Size at which a segment is closed.
    #[schemars(with = "schema::SizeText")]
    pub segment_size: ByteSize,
    /// Most bytes in one commit. A commit takes what has come while the one before it was written, so an idle gateway commits
    /// each message at once and a busy one many together.
    #[schemars(with = "schema::SizeText")]
    pub commit_bytes_max: ByteSize,
    /// Bytes of the newest records kept in memory for live readers.
    #[schemars(with = "schema::SizeText")]
    pub tail_size: ByteSize,
    /// `full` (default) or, for measurements only, `off`.
    pub synchronous: Synchronous,
}

/// SQLite's synchronous setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Synchronous {
    /// fsync at every commit: what the guarantees need.
    Full,
    /// No fsync: guarantees void; only to measure what they cost.
    Off,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            size_max: ByteSize::gib(8),
            segment_size: ByteSize::mib(256),
            commit_bytes_max: ByteSize::mib(4),
            tail_size: ByteSize::mib(64),
            synchronous: Synchronous::Full,
        }
    }
}

/// From samples to features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// Length of a feature window; a whole number of samples is made of it at the nominal rate.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub window: Duration,
    /// Velocity RMS band, Hz: lower and upper limit.
    pub velocity_band_hz: [f64; 2],
    /// Displacement band, Hz: lower and upper limit.
    pub displacement_band_hz: [f64; 2],
    /// Acceleration above this is high-frequency acceleration, Hz; not measured where it is above 0.4 of the sample rate.
    pub high_frequency_hz: f64,
    /// A mean that moves by more than this from one window to the next, and by more than the vibration, is flagged, m/s².
    pub bias_shift_max: f64,
    /// Target rate of the downsampled signal, Hz; the largest whole decimation that keeps at least this rate is used.
    pub downsample_hz: f64,
    /// Length of the rollups of the downsampled signal.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub rollup: Duration,
    /// Windows with less than this share of their samples give no features, only a quality record.
    pub coverage_min: f64,
    /// Bands whose acceleration RMS is measured.
    #[serde(rename = "band")]
    pub bands: Vec<Band>,
    /// Averaged spectra.
    pub spectrum: Spectrum,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(1),
            velocity_band_hz: [10.0, 1000.0],
            displacement_band_hz: [10.0, 1000.0],
            high_frequency_hz: 5000.0,
            bias_shift_max: 0.5,
            downsample_hz: 100.0,
            rollup: Duration::from_secs(1),
            coverage_min: 0.5,
            bands: Vec::new(),
            spectrum: Spectrum::default(),
        }
    }
}

/// Anomaly score from robust baselines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Anomaly {
    /// Whether scores are computed.
    pub enabled: bool,
    /// Windows of history that the median and MAD are taken over.
    pub history_windows: usize,
    /// Windows before the first score; until then a record says `learning`.
    pub learning_windows: usize,
}

impl Default for Anomaly {
    fn default() -> Self {
        Self { enabled: true, history_windows: 600, learning_windows: 30 }
    }
}

/// A limit on one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitRule {
    /// Unique name.
    pub name: String,
    /// Sensors, as `site/machine/sensor` with `*` for any.
    #[serde(default = "default_any")]
    pub sensor: String,
    /// Axis letter or `*`.
    #[serde(default = "default_star")]
    pub axis: String,
    /// Feature, such as `velocity_rms`, `acceleration_rms`, `peak`, `kurtosis`, `anomaly_score`, or `band:NAME`.
    pub feature: String,
    /// Unit in which the limit is written; must be the feature's own.
    pub unit: String,
    /// Above this the alert is due.
    pub above: f64,
    /// How far below the limit the value must fall to clear it.
    #[serde(default)]
    pub deadband: f64,
    /// How long the value must stay above, in event time.
    #[serde(default = "default_on_delay", with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub on_delay: Duration,
    /// Priority of the alert.
    #[serde(default)]
    pub severity: Severity,
}

/// Priority of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For information.
    Advisory,
    /// Look soon.
    #[default]
    Warning,
    /// Look now.
    Alarm,
}

/// Features, rollups and alerts on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outputs {
    /// Most bytes kept; the oldest features and rollups are evicted, and counted, when it is reached, alerts last.
    #[schemars(with = "schema::SizeText")]
    pub size_max: ByteSize,
    /// Bytes of the newest records kept in memory for live readers.
    #[schemars(with = "schema::SizeText")]
    pub tail_size: ByteSize,
}

impl Default for Outputs {
    fn default() -> Self {
        Self { size_max: ByteSize::gib(1), tail_size: ByteSize::mib(16) }
    }
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter of tracing's.
    pub level: String,
    /// Lines for people, or JSON.
    pub format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Human }
    }
}

fn default_any() -> String {
    "*/*/*".into()
}
fn default_star() -> String {
    "*".into()
}
fn default_on_delay() -> Duration {
    Duration::from_secs(3)
}
