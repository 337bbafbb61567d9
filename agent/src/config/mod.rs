//! The gateway's configuration: one TOML file, unknown keys refused, durations and sizes with units.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `gateway.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this gateway is and where it keeps its data.
    pub gateway: Gateway,
    /// Ways in.
    #[serde(default)]
    pub source: Sources,
    /// Order, duplicates, clocks.
    #[serde(default)]
    pub session: Session,
    /// The durable log.
    #[serde(default)]
    pub journal: Journal,
    /// From samples to features.
    #[serde(default)]
    pub pipeline: Pipeline,
    /// Anomaly score from robust baselines.
    #[serde(default)]
    pub anomaly: Anomaly,
    /// Limit rules.
    #[serde(default, rename = "rule")]
    pub rules: Vec<LimitRule>,
    /// Features, rollups and alerts on disk.
    #[serde(default)]
    pub outputs: Outputs,
    /// Ways out.
    #[serde(default)]
    pub forward: Forward,
    /// Logging.
    #[serde(default)]
    pub log: Log,
}

/// Who this gateway is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Name; part of MQTT client ids and of CloudEvents' source.
    pub name: String,
    /// Folder for journal, outputs and cursors; made if missing, readable by its user only.
    pub data_dir: PathBuf,
    /// Folder with `boards/`, `sensors/`, `machines/`, `nodes/`; optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_configs: Option<PathBuf>,
}

/// Ways in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// MQTT brokers of the site.
    pub mqtt: Vec<MqttSource>,
    /// Built-in MQTT listener.
    pub listener: Option<ListenerSource>,
    /// Serial ports.
    pub serial: Vec<SerialSource>,
    /// JSON from other makers' sensors, over any MQTT way in.
    pub json: Vec<JsonMapping>,
}

/// A broker to which the gateway is a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttSource {
    /// Name in logs and metrics.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
    /// Client id; default `spindle-` and the gateway's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// File that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Unacknowledged messages that the broker may have under way to the gateway (MQTT 5 receive maximum).
    #[serde(default = "default_inflight")]
    pub receive_maximum: u16,
    /// How long the broker keeps the session of an absent gateway.
    #[serde(default = "default_session_expiry", with = "humantime_serde")]
    pub session_expiry: Duration,
    /// MQTT keep-alive.
    #[serde(default = "default_keep_alive", with = "humantime_serde")]
    pub keep_alive: Duration,
}

/// The built-in listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSource {
    /// Address and port; port 0 lets the kernel choose, the log says which.
    pub bind: SocketAddr,
    /// Most clients at a time.
    #[serde(default = "default_clients_max")]
    pub clients_max: usize,
}

/// A serial port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialSource {
    /// Device file.
    pub device: PathBuf,
    /// Bits per second.
    #[serde(default = "default_baud")]
    pub baud: u32,
}

/// How one maker's JSON becomes samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonMapping {
    /// Name in logs and dead letters.
    pub name: String,
    /// MQTT topic with placeholders: `plant/{machine}/{sensor}/acc`; a placeholder fills one level.
    pub topic: String,
    /// Site; `{site}` in the topic wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Machine; `{machine}` in the topic wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Sensor; `{sensor}` in the topic wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensor: Option<String>,
    /// One entry a channel: JSON pointer or plain member name of a number or an array of numbers.
    pub channels: Vec<JsonChannel>,
    /// Unit of the values.
    pub unit: AccelerationUnit,
    /// Sample rate in Hz.
    pub rate_hz: f64,
    /// Where the first sample's time stamp is; absent: time of arrival, flagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<JsonTime>,
    /// Full scale in `unit`, for the saturation flag; optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_scale: Option<f64>,
}

/// A channel of a JSON mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonChannel {
    /// Axis letter in results.
    pub axis: String,
    /// Member name, or JSON pointer (`/data/ax`).
    pub field: String,
}

/// Time stamp of a JSON mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonTime {
    /// Member name, or JSON pointer.
    pub field: String,
    /// How it is written.
    pub format: TimeFormat,
}

/// How a time stamp is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// RFC 3339 text.
    Rfc3339,
    /// Seconds since 1970, fraction allowed.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
    /// Microseconds since 1970.
    UnixUs,
    /// Nanoseconds since 1970.
    UnixNs,
}

/// Unit of acceleration in a JSON message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccelerationUnit {
    /// m/s².
    #[serde(rename = "m/s2")]
    MetrePerSecondSquared,
    /// Standard gravity, 9.80665 m/s².
    #[serde(rename = "g")]
    G,
    /// A thousandth of it.
    #[serde(rename = "mg")]
    MilliG,
}

impl AccelerationUnit {
    /// m/s² per unit.
    #[must_use]
    pub const fn to_si(self) -> f64 {
        match self {
            Self::MetrePerSecondSquared => 1.0,
            Self::G => 9.806_65,
            Self::MilliG => 9.806_65e-3,
        }
    }
}

/// Order, duplicates, clocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Blocks per node that may wait for an earlier one.
    pub reorder_blocks_max: usize,
    /// How long they may wait.
    #[serde(with = "humantime_serde")]
    pub reorder_wait: Duration,
    /// Most nodes known at a time; the longest silent one is forgotten first.
    pub nodes_max: usize,
    /// A node whose UTC differs from the gateway's by more is flagged.
    #[serde(with = "humantime_serde")]
    pub clock_error_max: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            reorder_blocks_max: 64,
            reorder_wait: Duration::from_secs(2),
            nodes_max: 10_000,
            clock_error_max: Duration::from_secs(300),
        }
    }
}

/// The durable log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Most disk space; the oldest segments are evicted, and counted, when it is reached.
    pub size_max: ByteSize,
    /// Size at which a segment is closed.
    pub segment_size: ByteSize,
    /// Most bytes in one commit.
    pub commit_bytes_max: ByteSize,
    /// Longest wait for a fuller commit while others wait behind it; an idle gateway commits at once.
    #[serde(with = "humantime_serde")]
    pub commit_delay_max: Duration,
    /// Bytes of the newest records kept in memory for live readers.
    pub tail_size: ByteSize,
    /// `full` (default) or, for measurements only, `off`.
    pub synchronous: Synchronous,
}

/// SQLite's synchronous setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
            commit_delay_max: Duration::from_millis(5),
            tail_size: ByteSize::mib(64),
            synchronous: Synchronous::Full,
        }
    }
}

/// From samples to features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// Length of a feature window; a whole number of samples is made of it at the nominal rate.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Velocity RMS band, Hz: lower and upper limit.
    pub velocity_band_hz: [f64; 2],
    /// Target rate of the downsampled signal, Hz; the largest whole decimation that keeps at least this rate is used.
    pub downsample_hz: f64,
    /// Length of the rollups of the downsampled signal.
    #[serde(with = "humantime_serde")]
    pub rollup: Duration,
    /// Windows with less than this share of their samples give no features, only a quality record.
    pub coverage_min: f64,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(1),
            velocity_band_hz: [10.0, 1000.0],
            downsample_hz: 100.0,
            rollup: Duration::from_secs(1),
            coverage_min: 0.5,
        }
    }
}

/// Anomaly score from robust baselines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Feature, such as `velocity_rms`, `acceleration_rms`, `peak`, `kurtosis`, `anomaly_score`.
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
    pub on_delay: Duration,
    /// Priority of the alert.
    #[serde(default)]
    pub severity: Severity,
}

/// Priority of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outputs {
    /// Most bytes kept; the oldest features and rollups are evicted, and counted, when it is reached, alerts last.
    pub size_max: ByteSize,
    /// Bytes of the newest records kept in memory for live readers.
    pub tail_size: ByteSize,
}

impl Default for Outputs {
    fn default() -> Self {
        Self { size_max: ByteSize::gib(1), tail_size: ByteSize::mib(16) }
    }
}

/// Ways out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Kafka.
    pub kafka: Option<KafkaForward>,
}

/// Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaForward {
    /// `HOST:PORT`, comma-separated; `mock` starts librdkafka's mock cluster in this process (demo only).
    pub brokers: String,
    /// `lz4`, `zstd` or `none`.
    #[serde(default)]
    pub compression: Compression,
    /// Prefix of the four topics.
    #[serde(default = "default_topic_prefix")]
    pub topic_prefix: String,
    /// Whether raw blocks are forwarded (features and alerts always are).
    #[serde(default = "default_true")]
    pub raw: bool,
    /// Most bytes under way in the producer, per topic.
    #[serde(default = "default_queue_size")]
    pub queue_size: ByteSize,
    /// Partitions of topics that the gateway creates.
    #[serde(default = "default_partitions")]
    pub partitions: i32,
    /// Replicas of topics that the gateway creates; -1 leaves it to the broker.
    #[serde(default = "default_replication")]
    pub replication: i32,
    /// Files that hold secret properties, by property: `"sasl.password" = "/etc/spindle/kafka.password"`.
    #[serde(default)]
    pub secret_files: std::collections::BTreeMap<String, PathBuf>,
    /// Further librdkafka properties (`security.protocol`, ...); those that the guarantees rest on are refused.
    #[serde(default)]
    pub properties: std::collections::BTreeMap<String, String>,
}

/// Compression of Kafka batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// LZ4.
    #[default]
    Lz4,
    /// Zstandard.
    Zstd,
    /// None.
    None,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter of tracing's.
    pub level: String,
    /// Lines for people, or JSON.
    pub format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

fn default_inflight() -> u16 {
    1000
}
fn default_session_expiry() -> Duration {
    Duration::from_secs(7 * 24 * 3600)
}
fn default_keep_alive() -> Duration {
    Duration::from_secs(10)
}
fn default_clients_max() -> usize {
    256
}
fn default_baud() -> u32 {
    921_600
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
fn default_topic_prefix() -> String {
    "spindle".into()
}
fn default_true() -> bool {
    true
}
fn default_queue_size() -> ByteSize {
    ByteSize::mib(64)
}
fn default_partitions() -> i32 {
    12
}
fn default_replication() -> i32 {
    -1
}
