//! Ways out.

use super::schema;
use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Ways out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Kafka.
    pub kafka: Option<KafkaForward>,
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
    /// Whether raw blocks are forwarded (features and alerts always are).
    #[serde(default = "default_true")]
    pub raw: bool,
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
