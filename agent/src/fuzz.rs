//! What the fuzz targets of `tests/fuzz` do with their input, where it takes what only this crate sees. Each panics when a decoder
//! does what it never should; a test of the harness replays the corpora through the same functions.

#![allow(clippy::panic, clippy::missing_panics_doc, reason = "a fuzz target says by a panic what it found")]

use crate::api::control::Request;
use crate::clock::Now;
use crate::config::{self, AccelerationUnit, JsonChannel, JsonMapping, JsonTime, TimeFormat};
use crate::journal::{State, Stateful};
use crate::session::json::{Mapping, SAMPLES_MAX};
use crate::session::{Session, Work};
use crate::source::{Incoming, SourceId, Token};
use bytes::Bytes;
use spindle_common::hardware::Catalog;
use spindle_common::wire::crc32c;
use std::sync::Arc;

pub use crate::journal::{fuzz_frame as journal_frame, fuzz_state as journal_state};
pub use crate::source::listener::fuzz_packets as listener_packets;

fn mapping(format: TimeFormat) -> JsonMapping {
    let channel = |axis: &str, field: &str| JsonChannel { axis: axis.into(), field: field.into() };
    JsonMapping {
        name: "any".into(),
        topic: "plant/{machine}/{sensor}".into(),
        site: Some("works".into()),
        machine: None,
        sensor: None,
        channels: vec![channel("x", "x"), channel("y", "/d/y")],
        unit: AccelerationUnit::G,
        rate_hz: 100.0,
        time: Some(JsonTime { field: "t".into(), format }),
        full_scale: Some(16.0),
    }
}

/// Any bytes as a message of another maker's sensor.
pub fn json_mapping(data: &[u8]) {
    for format in [TimeFormat::Rfc3339, TimeFormat::UnixS, TimeFormat::UnixNs] {
        if let Ok(found) = Mapping::new(&mapping(format)).decode(data) {
            assert_eq!(found.values.len(), found.axes * found.samples);
            assert!((1..=SAMPLES_MAX).contains(&found.samples));
            assert!(found.values.iter().all(|value| value.is_finite()));
        }
    }
}

/// Any text as `gateway.toml`.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text, "gateway.toml") {
        Ok(config) => assert!(config.session.nodes_max > 0),
        Err(errors) => {
            assert!(!errors.problems.is_empty());
            assert!(!errors.to_string().is_empty());
        }
    }
}

/// Any text as a file of `hardware-configs`, in each of its folders.
pub fn hardware(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for folder in ["boards", "sensors", "machines", "nodes"] {
        let file = (format!("hardware-configs/{folder}/a.toml"), text.to_owned());
        if let Err(errors) = Catalog::parse([file]) {
            assert!(!errors.is_empty());
        }
    }
}

/// Any bytes as a line on the control socket.
pub fn control_request(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let again = serde_json::to_vec(&request).map(|line| serde_json::from_slice::<Request>(&line).ok());
        let again = again.ok().flatten();
        // A number that JSON cannot hold (a setting's NaN) cannot come in either.
        assert_eq!(again, Some(request));
    }
}

/// Any messages, one after the other, to a whole session: a byte of topic, two of length, and so many bytes of payload, to which the
/// right checksum is added when the topic's byte says so. What is held, known and kept stays within its limits.
pub fn session_messages(data: &[u8]) {
    let config = config::Session { nodes_max: 4, reorder_blocks_max: 4, ..config::Session::default() };
    let mappings = [mapping(TimeFormat::UnixMs)];
    let mut session = Session::new(
        &config,
        &mappings,
        vec!["site".into(), "line".into()],
        State::default(),
        Arc::default(),
    );
    let mut rest = data;
    let (mut packet, mut now) = (0_u16, Now { utc_ns: 1_800_000_000_000_000_000, mono_ns: 0 });
    while let Some((&[topic, low, high], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (payload, after) = after.split_at(len);
        rest = after;
        let mut payload = payload.to_vec();
        if topic & 0x80 != 0 {
            payload.extend_from_slice(&crc32c(&payload).to_le_bytes());
        }
        let name = match topic & 0x0F {
            0 => None,
            1 => Some("plant/mill/s".to_owned()),
            2 => Some("plant/mill".to_owned()),
            3 => Some(String::from_utf8_lossy(&payload).into_owned()),
            4 => Some("spindle/v1/a/b/n/birth".to_owned()),
            5 => Some("spindle/v1/a/b/n/status".to_owned()),
            6 => Some("spindle/v1/a/b/n/time".to_owned()),
            7 => Some("spindle/v1/a/b/n/features".to_owned()),
            8 => Some("spindle/v1/a/b/n/burst".to_owned()),
            other => Some(format!("spindle/v1/a/m{other}/n/raw")),
        };
        packet = packet.wrapping_add(1);
        let source = SourceId(u16::from(name.is_none()));
        let token = (topic & 0x40 != 0).then_some(Token { source, connection: 1, packet });
        let topic_bytes = name.map(Bytes::from);
        let redelivered = topic & 0x20 != 0;
        now.mono_ns += u64::from(topic & 0x10) * 100_000_000;
        let incoming = Incoming { source, topic: topic_bytes, payload: payload.into(), redelivered, token };
        let mut work = Work::default();
        session.take(incoming, now, &mut work);
        session.expire(now, &mut work);
        let _ = session.to_nodes();
    }
    let snapshot = session.snapshot();
    assert!(snapshot.nodes.len() <= 4 && snapshot.json.len() <= 4);
    for (key, book) in &snapshot.books {
        let found = u128::from(book.accepted) + u128::from(book.withheld);
        assert!(found <= u128::from(u64::MAX), "{key:?}");
    }
    let _ = (session.reports(None, now), session.observe(2));
}
