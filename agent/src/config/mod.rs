//! The gateway's configuration: one TOML file, unknown keys refused, durations and sizes with units, secrets only by the
//! names of files. [`load`] reports everything that is wrong at once, each with its line and what would be right.

mod api;
mod check;
mod error;
mod forward;
mod load;
mod measures;
mod rooms;
pub mod schema;
mod source;
mod walk;

pub use api::Api;
pub use error::{ConfigErrors, Problem};
pub use forward::{Compression, FilesFormat, FilesForward, Forward, KafkaForward, LaneName};
pub use load::{load, parse};
pub use measures::{Band, Quantity, Spectrum};
pub use rooms::{
    Anomaly, Journal, LimitRule, Log, LogFormat, Outputs, Pipeline, Session, Severity, Synchronous,
};
pub use source::{
    AccelerationUnit, JsonChannel, JsonMapping, JsonTime, ListenerSource, MqttSource, MqttTls, SerialSource,
    Sources, TimeFormat,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spindle_common::hardware::Machine;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The configuration that `spindle init` writes: commented, and it works as it is.
pub const TEMPLATE: &str = include_str!("template.toml");

/// `gateway.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Metrics, health and readiness over HTTP.
    #[serde(default)]
    pub api: Api,
    /// Logging.
    #[serde(default)]
    pub log: Log,
    /// The machines of `gateway.hardware_configs`, by name: read with the configuration, since results depend on them.
    #[serde(skip)]
    #[schemars(skip)]
    pub machines: BTreeMap<String, Machine>,
}

/// Who this gateway is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Name; part of MQTT client ids and of CloudEvents' source.
    pub name: String,
    /// Folder for journal, outputs and cursors; made if missing, readable by its user only.
    pub data_dir: PathBuf,
    /// Folder with `boards/`, `sensors/`, `machines/`, `nodes/`, the one that firmware is built from; optional. With it, a node
    /// whose birth contradicts its file is told in the log and counted; its data is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_configs: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
