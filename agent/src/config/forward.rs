//! Ways out.

use super::schema;
use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Ways out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Kafka.
    pub kafka: Option<KafkaForward>,
    /// Folders of files.
    pub files: Vec<FilesForward>,
}

/// What goes out, each on a lane of its own, in the order of their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaneName {
    /// Changes of alerts.
    Alerts,
    /// Features and rollups.
    Features,
    /// Refused input.
    Dlq,
    /// Blocks, bursts and JSON messages as they came.
    Raw,
}

impl LaneName {
    /// All, in the order of their turns.
    pub const ALL: [Self; 4] = [Self::Alerts, Self::Features, Self::Dlq, Self::Raw];

    /// As in the configuration, in topics, file names and the cursor's file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alerts => "alerts",
            Self::Features => "features",
            Self::Dlq => "dlq",
            Self::Raw => "raw",
        }
    }
}

/// A folder that takes records as files of newline-delimited JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesForward {
    /// Unique name; its cursors are kept under it.
    pub name: String,
    /// The folder; made if missing. No other writer may use it.
    pub dir: PathBuf,
    /// `ndjson`: a CloudEvent (JSON format) a line.
    #[serde(default)]
    pub format: FilesFormat,
    /// What goes there.
    #[serde(default = "default_files_lanes")]
    pub lanes: Vec<LaneName>,
    /// Size at which a file is finished.
    #[serde(default = "default_rotate_size")]
    #[schemars(with = "schema::SizeText")]
    pub rotate_size: ByteSize,
    /// Age at which a file is finished.
    #[serde(default = "default_rotate_age", with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub rotate_age: Duration,
    /// Most bytes that its files may take together. When they do, nothing more is written, and it says so, until someone takes
    /// finished files away: it deletes none.
    #[serde(default = "default_files_size_max")]
    #[schemars(with = "schema::SizeText")]
    pub size_max: ByteSize,
}

/// Form of the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FilesFormat {
    /// A CloudEvent (JSON format) a line.
    #[default]
    Ndjson,
}

/// Kafka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What goes there: a topic each.
    #[serde(default = "default_kafka_lanes")]
    pub lanes: Vec<LaneName>,
    /// Most bytes under way in the producer, per topic.
    #[serde(default = "default_queue_size")]
    #[schemars(with = "schema::SizeText")]
    pub queue_size: ByteSize,
    /// Partitions of topics that the gateway creates.
    #[serde(default = "default_partitions")]
    pub partitions: i32,
    /// Replicas of topics that the gateway creates; -1 leaves it to the broker.
    #[serde(default = "default_replication")]
    pub replication: i32,
    /// Files that hold secret properties, by property: `"sasl.password" = "/etc/spindle/kafka.password"`.
    #[serde(default)]
    pub secret_files: BTreeMap<String, PathBuf>,
    /// Further librdkafka properties (`security.protocol`, ...); those that the guarantees rest on are refused.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Compression of Kafka batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

fn default_topic_prefix() -> String {
    "spindle".into()
}
fn default_kafka_lanes() -> Vec<LaneName> {
    LaneName::ALL.to_vec()
}
fn default_files_lanes() -> Vec<LaneName> {
    vec![LaneName::Alerts, LaneName::Features, LaneName::Dlq]
}
fn default_rotate_size() -> ByteSize {
    ByteSize::mib(64)
}
fn default_rotate_age() -> Duration {
    Duration::from_secs(3600)
}
fn default_files_size_max() -> ByteSize {
    ByteSize::gib(4)
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
