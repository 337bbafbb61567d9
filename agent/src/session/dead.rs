//! Dead letters: input that was refused, as JSON for people and tools.
//!
//! `{"reason": "...", "source": "...", "topic": "...", "received_ns": 0, "payload_bytes": 0, "payload": "..."}`; a payload
//! that is no UTF-8 text is in `payload_base64` instead; a long one is cut, and `payload_cut` is true.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Most bytes of the payload that are kept.
const PAYLOAD_LEN_MAX: usize = 48 * 1024;
/// Most bytes of the topic that are kept.
const TOPIC_LEN_MAX: usize = 512;

#[derive(Serialize)]
struct DeadLetter<'a> {
    reason: &'a str,
    source: &'a str,
    topic: Option<String>,
    received_ns: i64,
    payload_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    payload_cut: bool,
}

/// The body of a dead letter.
pub(super) fn body(
    reason: &str,
    source: &str,
    topic: Option<&[u8]>,
    payload: &[u8],
    received_ns: i64,
) -> Bytes {
    let kept = payload.get(..PAYLOAD_LEN_MAX).unwrap_or(payload);
    let text = std::str::from_utf8(kept).ok();
    let letter = DeadLetter {
        reason,
        source,
        topic: topic
            .map(|topic| String::from_utf8_lossy(topic.get(..TOPIC_LEN_MAX).unwrap_or(topic)).into_owned()),
        received_ns,
        payload_bytes: payload.len(),
        payload: text,
        payload_base64: if text.is_none() { Some(STANDARD.encode(kept)) } else { None },
        payload_cut: kept.len() < payload.len(),
    };
    serde_json::to_vec(&letter).unwrap_or_default().into()
}

/// A dead letter read back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refused {
    /// Why it was refused.
    pub reason: String,
    /// The source that it came by.
    pub source: String,
    /// Its MQTT topic; none on a serial line.
    pub topic: Option<String>,
    /// Its length as it came.
    pub payload_bytes: u64,
    payload: Option<String>,
    payload_base64: Option<String>,
    /// Whether only its beginning is kept.
    pub payload_cut: bool,
}

impl Refused {
    /// Reads the body of a dead letter.
    ///
    /// # Errors
    /// It is none.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// What is kept of the payload.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        match (&self.payload, &self.payload_base64) {
            (Some(text), _) => text.clone().into(),
            (None, Some(text)) => STANDARD.decode(text).unwrap_or_default().into(),
            (None, None) => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_kept_as_text_or_base64_and_cut_when_long() {
        let letter: serde_json::Value =
            serde_json::from_slice(&body("why", "site", Some(b"a/b"), b"{]", 5)).unwrap();
        assert_eq!(letter["payload"], "{]");
        for payload in [&b"{]"[..], &[0xFF, 0, 1]] {
            let read = Refused::read(&body("why", "site", Some(b"a/b"), payload, 5)).unwrap();
            assert_eq!((&read.payload()[..], read.topic.as_deref()), (payload, Some("a/b")));
        }
        assert_eq!((&letter["reason"], &letter["topic"]), (&"why".into(), &"a/b".into()));
        let long: serde_json::Value =
            serde_json::from_slice(&body("why", "site", None, &[0xFF; 60_000], 5)).unwrap();
        assert_eq!(long["payload_base64"].as_str().unwrap().len(), PAYLOAD_LEN_MAX * 4 / 3);
        assert_eq!((&long["payload_cut"], &long["payload_bytes"]), (&true.into(), &60_000.into()));
    }
}
