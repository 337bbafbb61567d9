//! Dead letters: input that was refused, as JSON for people and tools.
//!
//! `{"reason": "...", "source": "...", "topic": "...", "received_ns": 0, "payload_bytes": 0, "payload": "..."}`; a payload
//! that is no UTF-8 text is in `payload_base64` instead; a long one is cut, and `payload_cut` is true.

use crate::config;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Most bytes of the payload that are kept.
const PAYLOAD_LEN_MAX: usize = 48 * 1024;
/// Most bytes of the topic that are kept.
const TOPIC_LEN_MAX: usize = 512;

/// Bytes that the journal needs for a letter besides its body, about: header and key.
pub(super) const OVERHEAD: usize = 64;

/// What a source may still fill the journal with: so a flood of garbage cannot evict good data.
#[derive(Debug)]
pub(super) struct Budget {
    per_s: u64,
    burst: u64,
    left: u64,
    filled_ns: u64,
    /// Not kept since the budget was full last.
    dropped: u64,
}

impl Budget {
    /// A full one.
    pub(super) fn new(config: &config::Session) -> Self {
        let burst = config.dead_letters_burst.as_u64();
        Self { per_s: config.dead_letters_per_s.as_u64(), burst, left: burst, filled_ns: 0, dropped: 0 }
    }

    /// Whether a letter of about `bytes` may be kept. Says once an episode that letters are not kept, and how many at its end.
    pub(super) fn take(&mut self, bytes: usize, mono_ns: u64, source: &str) -> bool {
        let passed_ns = u128::from(mono_ns.saturating_sub(self.filled_ns));
        let more = u64::try_from(passed_ns * u128::from(self.per_s) / 1_000_000_000).unwrap_or(u64::MAX);
        if more > 0 {
            self.filled_ns = mono_ns;
            self.left = self.left.saturating_add(more).min(self.burst);
        }
        if self.left == self.burst && self.dropped > 0 {
            tracing::info!(source, dropped = self.dropped, "refused messages are kept again");
            self.dropped = 0;
        }
        let bytes = bytes as u64;
        if bytes <= self.left {
            self.left -= bytes;
            return true;
        }
        if self.dropped == 0 {
            tracing::warn!(source, "too many refused messages: they are counted, and few of them are kept");
        }
        self.dropped += 1;
        false
    }
}

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
    fn a_flood_is_kept_up_to_the_burst_and_then_at_the_rate() {
        let config = config::Session {
            dead_letters_per_s: bytesize::ByteSize::b(100),
            dead_letters_burst: bytesize::ByteSize::b(1000),
            ..config::Session::default()
        };
        let mut budget = Budget::new(&config);
        let mut kept = |mono_ns| (0..1000).filter(|_| budget.take(10, mono_ns, "site")).count();
        assert_eq!(kept(0), 100);
        assert_eq!(kept(500_000_000), 5);
        assert_eq!(kept(1_500_000_000), 10);
        assert_eq!(kept(3_600_000_000_000), 100);
    }

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
