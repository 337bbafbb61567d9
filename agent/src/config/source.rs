//! Ways in.

use super::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Ways in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// TLS to the broker; absent: what goes over the network, the password too, can be read by everyone on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<MqttTls>,
    /// Unacknowledged messages that the broker may have under way to the gateway (MQTT 5 receive maximum).
    #[serde(default = "default_inflight")]
    pub receive_maximum: u16,
    /// How long the broker keeps the session of an absent gateway.
    #[serde(default = "default_session_expiry", with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub session_expiry: Duration,
    /// MQTT keep-alive.
    #[serde(default = "default_keep_alive", with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub keep_alive: Duration,
}

/// TLS to a broker. All files are PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttTls {
    /// Certificates of the authorities that may vouch for the broker; no others are believed.
    pub ca_file: PathBuf,
    /// The gateway's own certificate (and what is between it and its authority), for a broker that asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// The private key of `cert_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Name or IP address that the broker's certificate must be for; default the host in `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// The built-in listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerSource {
    /// Address and port; port 0 lets the kernel choose, the log says which.
    #[schemars(with = "schema::AddressText")]
    pub bind: SocketAddr,
    /// Most clients at a time.
    #[serde(default = "default_clients_max")]
    pub clients_max: usize,
}

/// A serial port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SerialSource {
    /// Device file.
    pub device: PathBuf,
    /// Bits per second.
    #[serde(default = "default_baud")]
    pub baud: u32,
}

/// How one maker's JSON becomes samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonChannel {
    /// Axis letter in results.
    pub axis: String,
    /// Member name, or JSON pointer (`/data/ax`).
    pub field: String,
}

/// Time stamp of a JSON mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonTime {
    /// Member name, or JSON pointer.
    pub field: String,
    /// How it is written.
    pub format: TimeFormat,
}

/// How a time stamp is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
