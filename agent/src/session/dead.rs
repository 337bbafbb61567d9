//! Dead letters: input that was refused, as JSON for people and tools.
//!
//! `{"reason": "...", "source": "...", "topic": "...", "received_ns": 0, "payload_bytes": 0, "payload": "..."}`; a payload
//! that is no UTF-8 text is in `payload_base64` instead; a long one is cut, and `payload_cut` is true.

use bytes::Bytes;
use serde::Serialize;

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
        payload_base64: if text.is_none() { Some(base64(kept)) } else { None },
        payload_cut: kept.len() < payload.len(),
    };
    serde_json::to_vec(&letter).unwrap_or_default().into()
}

/// Base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let index = (group >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_payload_is_kept_as_text_or_base64_and_cut_when_long() {
        let letter: serde_json::Value =
            serde_json::from_slice(&body("why", "site", Some(b"a/b"), b"{]", 5)).unwrap();
        assert_eq!(letter["payload"], "{]");
        assert_eq!((&letter["reason"], &letter["topic"]), (&"why".into(), &"a/b".into()));
        let long: serde_json::Value =
            serde_json::from_slice(&body("why", "site", None, &[0xFF; 60_000], 5)).unwrap();
        assert_eq!(long["payload_base64"].as_str().unwrap().len(), PAYLOAD_LEN_MAX * 4 / 3);
        assert_eq!((&long["payload_cut"], &long["payload_bytes"]), (&true.into(), &60_000.into()));
    }
}
