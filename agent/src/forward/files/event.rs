//! A record as a line: CloudEvents 1.0, JSON event format, structured mode.

use crate::config::LaneName;
use crate::forward::cloudevents::Envelope;
use crate::forward::log::{Content, Item};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::IgnoredAny;

#[derive(Serialize)]
struct Head<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'static str,
    subject: &'a str,
    time: &'a str,
    datacontenttype: &'static str,
    /// Extension: the lane.
    lane: &'static str,
    /// Extension: position in the lane's log, as text since CloudEvents' integers have 32 bits.
    position: String,
}

/// Writes lines; keeps its buffers.
pub(super) struct Line {
    envelope: Envelope,
    text: Vec<u8>,
}

impl Line {
    pub(super) fn new(gateway: &str) -> Self {
        Self { envelope: Envelope::new(gateway), text: Vec::new() }
    }

    /// `item` as a line, its end included.
    pub(super) fn of(&mut self, item: &Item, lane: LaneName) -> &[u8] {
        let (kind, content_type) = self.envelope.fill(item);
        let payload = item.content.payload();
        let head = Head {
            specversion: "1.0",
            id: &self.envelope.id,
            source: &self.envelope.source,
            r#type: kind,
            subject: &self.envelope.key,
            time: &self.envelope.time,
            datacontenttype: content_type,
            lane: lane.as_str(),
            position: item.offset.to_string(),
        };
        self.text.clear();
        // No type here refuses to be written, and memory takes what it is given.
        let _ = serde_json::to_writer(&mut self.text, &head);
        self.text.pop();
        // The gateway's own JSON is on one line; what others sent is kept to the bit.
        let own = matches!(item.content, Content::Output { .. } | Content::DeadLetter(_));
        if own && !payload.contains(&b'\n') && serde_json::from_slice::<IgnoredAny>(payload).is_ok() {
            self.text.extend_from_slice(b",\"data\":");
            self.text.extend_from_slice(payload);
            self.text.extend_from_slice(b"}\n");
        } else {
            self.text.extend_from_slice(b",\"data_base64\":\"");
            self.text.extend_from_slice(STANDARD.encode(payload).as_bytes());
            self.text.extend_from_slice(b"\"}\n");
        }
        &self.text
    }
}
