//! CloudEvents 1.0, Kafka protocol binding, binary mode: what a record is stands in its headers, the payload stays as it is.
//! Ids are deterministic, so a record that goes out twice can be recognised.

use super::log::{Content, Item};
use crate::record::{OutputKind, SensorKey};
use rdkafka::message::{Header, OwnedHeaders};
use spindle_common::wire;
use std::fmt::Write;

/// `ce_type` of each kind of record.
pub mod types {
    /// A wire block as it came.
    pub const BLOCK: &str = "io.spindle.raw.block.v1";
    /// A node's burst of raw samples around a trigger, as it came.
    pub const BURST: &str = "io.spindle.raw.burst.v1";
    /// A JSON message of another maker's sensor as it came.
    pub const JSON: &str = "io.spindle.raw.json.v1";
    /// Features of one window.
    pub const FEATURES: &str = "io.spindle.features.v1";
    /// A rollup of the downsampled signal.
    pub const ROLLUP: &str = "io.spindle.rollup.v1";
    /// An averaged spectrum.
    pub const SPECTRUM: &str = "io.spindle.spectrum.v1";
    /// A change of an alert.
    pub const ALERT: &str = "io.spindle.alert.v1";
    /// Refused input, or a record that could not be delivered.
    pub const DEAD_LETTER: &str = "io.spindle.deadletter.v1";
}

/// Content type of a wire block.
pub const CONTENT_TYPE_BLOCK: &str = "application/vnd.spindle.block";
/// Content type of a wire burst.
pub const CONTENT_TYPE_BURST: &str = "application/vnd.spindle.burst";
/// Content type of everything else.
pub const CONTENT_TYPE_JSON: &str = "application/json";

/// Writes key, id, time and headers of records; keeps its buffers.
#[derive(Debug)]
pub struct Envelope {
    gateway: String,
    pub(super) source: String,
    /// `site/machine/sensor`.
    pub key: String,
    /// `ce_id`.
    pub id: String,
    pub(super) time: String,
}

impl Envelope {
    /// For the gateway of this name.
    #[must_use]
    pub fn new(gateway: &str) -> Self {
        Self {
            gateway: gateway.into(),
            source: format!("/spindle/{gateway}"),
            key: String::new(),
            id: String::new(),
            time: String::new(),
        }
    }

    /// Fills in `item`'s key and id and returns its headers.
    pub fn address(&mut self, item: &Item) -> OwnedHeaders {
        let (kind, content_type) = self.fill(item);
        self.headers(kind, content_type)
    }

    /// Fills in `item`'s key, id and time; gives its type and content type.
    pub(super) fn fill(&mut self, item: &Item) -> (&'static str, &'static str) {
        self.set_key(&item.key);
        self.id.clear();
        self.time.clear();
        write_time(item.time_ns, &mut self.time);
        match &item.content {
            Content::Block(body) => {
                self.block_id(body, item.offset);
                (types::BLOCK, CONTENT_TYPE_BLOCK)
            }
            Content::Burst(body) => {
                self.block_id(body, item.offset);
                (types::BURST, CONTENT_TYPE_BURST)
            }
            Content::Json { first_sample, .. } => {
                let _ = write!(self.id, "{}/{first_sample}", self.key);
                (types::JSON, CONTENT_TYPE_JSON)
            }
            Content::DeadLetter(_) => {
                let _ = write!(self.id, "{}/dlq/{}", self.gateway, item.offset);
                (types::DEAD_LETTER, CONTENT_TYPE_JSON)
            }
            Content::Output { kind, ce_id, .. } => {
                self.id.push_str(ce_id);
                let kind = match kind {
                    OutputKind::Features => types::FEATURES,
                    OutputKind::Rollup => types::ROLLUP,
                    OutputKind::Alert => types::ALERT,
                    OutputKind::Spectrum => types::SPECTRUM,
                };
                (kind, CONTENT_TYPE_JSON)
            }
        }
    }

    /// Fills in key and id of the dead letter that goes out for an undeliverable `item` and returns its headers.
    pub fn address_undeliverable(&mut self, item: &Item, lane: &str) -> OwnedHeaders {
        self.set_key(&item.key);
        self.id.clear();
        let _ = write!(self.id, "{}/undeliverable/{lane}/{}", self.gateway, item.offset);
        self.time.clear();
        write_time(item.time_ns, &mut self.time);
        self.headers(types::DEAD_LETTER, CONTENT_TYPE_JSON)
    }

    fn set_key(&mut self, key: &SensorKey) {
        self.key.clear();
        for part in [&*key.site, "/", &*key.machine, "/", &*key.sensor] {
            self.key.push_str(part);
        }
    }

    /// `{node}/{boot:016x}/{stream}/{seq}`, for blocks and bursts, which share their numbers. The journal holds only those that
    /// decode; were one not to, its offset names it.
    fn block_id(&mut self, body: &[u8], offset: u64) {
        let id = &mut self.id;
        let _ = match wire::decode(body) {
            Ok(wire::Message::Block(block) | wire::Message::Burst(wire::Burst { block, .. })) => {
                let header = block.header;
                write!(id, "{}/{:016x}/{}/{}", header.node, header.boot.0, header.stream.0, header.seq.0)
            }
            _ => write!(id, "{}/journal/{offset}", self.gateway),
        };
    }

    fn headers(&self, kind: &str, content_type: &str) -> OwnedHeaders {
        OwnedHeaders::new_with_capacity(6)
            .insert(Header { key: "ce_specversion", value: Some("1.0") })
            .insert(Header { key: "ce_id", value: Some(self.id.as_str()) })
            .insert(Header { key: "ce_source", value: Some(self.source.as_str()) })
            .insert(Header { key: "ce_type", value: Some(kind) })
            .insert(Header { key: "ce_time", value: Some(self.time.as_str()) })
            .insert(Header { key: "content-type", value: Some(content_type) })
    }
}

/// Appends `time_ns` (UTC ns since 1970) as RFC 3339.
pub fn write_time(time_ns: i64, out: &mut String) {
    let _ = write!(out, "{}", jiff::Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or_default());
}
