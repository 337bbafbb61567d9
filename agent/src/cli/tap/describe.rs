//! One line, or one JSON object, for each thing that flows.

use crate::record::{Gap, Record, RecordKind};
use serde_json::{Value, json};
use spindle_common::wire::{self, Block, Message};
use std::fmt;

/// The kinds by which `--kind` selects.
pub(super) const KINDS: [&str; 18] = [
    "block", "json", "dead", "gap", "context", "birth", "status", "time", "features", "burst", "answer",
    "offline", "ack", "cmd", "set", "settings", "timeask", "timetell",
];

/// What is shown of one message or record.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) time_ns: Option<i64>,
    pub(super) key: String,
    pub(super) kind: String,
    text: String,
    fields: Value,
}

impl Line {
    pub(super) fn json(&self) -> Value {
        let time = self.time_ns.map(crate::cli::time_text);
        json!({ "time": time, "key": self.key, "kind": self.kind, "value": self.fields })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(time_ns) = self.time_ns {
            // Date and zone are the same for hours: the time of day, UTC, is enough for a screen.
            let time = crate::cli::time_text(time_ns);
            write!(f, "{} ", time.get(11..23).unwrap_or(&time))?;
        }
        write!(f, "{} {} {}", self.key, self.kind, self.text)
    }
}

/// The kind's word of a journal record; nodes' messages have the message's.
pub(super) const fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Block => "block",
        RecordKind::Json => "json",
        RecordKind::DeadLetter => "dead",
        RecordKind::Gap => "gap",
        RecordKind::Node => "node",
        RecordKind::Context => "context",
    }
}

pub(super) fn describe_record(record: &Record) -> Line {
    let (kind, text, fields) = match record.kind {
        RecordKind::Block | RecordKind::Node => describe_message(&record.body),
        RecordKind::Gap => match postcard::from_bytes::<Gap>(&record.body) {
            Ok(gap) => {
                let text = format!(
                    "{} samples lost from {} on, boot {:016x}",
                    gap.samples, gap.first_sample, gap.boot
                );
                ("gap", text, json!(gap))
            }
            Err(error) => ("gap", format!("unreadable: {error}"), Value::Null),
        },
        RecordKind::Json | RecordKind::DeadLetter | RecordKind::Context => {
            let text = String::from_utf8_lossy(&record.body);
            let fields = serde_json::from_str(&text).unwrap_or(Value::Null);
            (kind_name(record.kind), shorten(&text), fields)
        }
    };
    Line { time_ns: Some(record.time_ns), key: record.key.to_string(), kind: kind.into(), text, fields }
}

pub(super) fn describe_wire(topic: &str, payload: &[u8]) -> Line {
    let rest = topic.strip_prefix("spindle/v1/").unwrap_or(topic);
    let key = rest.rsplit_once('/').map_or(rest, |(key, _)| key).to_owned();
    let (kind, text, fields) = describe_message(payload);
    Line { time_ns: None, key, kind: kind.into(), text, fields }
}

/// What bytes are, if they are a message of a board's: its kind and a line of text.
pub(in crate::cli) fn describe_bytes(bytes: &[u8]) -> (&'static str, String) {
    let (kind, text, _) = describe_message(bytes);
    (kind, text)
}

fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 160;
    let flat = text.replace(['\n', '\r'], " ");
    match flat.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}... ({} bytes)", &flat[..end], text.len()),
        None => flat,
    }
}

fn describe_message(bytes: &[u8]) -> (&'static str, String, Value) {
    let message = match wire::decode(bytes) {
        Ok(message) => message,
        Err(error) => {
            return (
                "unreadable",
                format!("{} bytes: {error}", bytes.len()),
                json!({ "error": error.to_string() }),
            );
        }
    };
    match message {
        Message::Block(block) => describe_block("block", &block),
        Message::Burst(burst) => describe_block("burst", &burst.block),
        Message::Birth(birth) => {
            let streams: Vec<String> =
                birth.streams.iter().map(|s| format!("{} ({} {})", s.sensor, s.model, s.axes)).collect();
            let text = format!(
                "boot {:016x}, {} firmware {}, reset {:?}, sensors {}",
                birth.boot.0,
                birth.board,
                birth.firmware,
                birth.reset_cause,
                streams.join(", ")
            );
            ("birth", text, json!(birth))
        }
        Message::Status(status) => {
            let text = format!(
                "ring {} blocks, seq {} to {}, dropped {}, resent {}, connects {}",
                status.ring_used,
                status.oldest.0,
                status.next.0,
                status.dropped,
                status.resent,
                status.connects
            );
            ("status", text, json!(status))
        }
        Message::Features(features) => {
            let axes: Vec<String> = features
                .axes
                .iter()
                .map(|axis| format!("{:.2} m/s2 {:.2} mm/s", axis.rms, axis.velocity_rms))
                .collect();
            ("features", format!("seq {} {}", features.seq.0, axes.join(" | ")), json!(features))
        }
        Message::TimePair(pair) => {
            let text = format!(
                "tick {} = {} within {} ns ({:?})",
                pair.tick,
                crate::cli::time_text(pair.utc_ns),
                pair.error_ns,
                pair.source
            );
            ("time", text, json!(pair))
        }
        Message::Ack(ack) => {
            ("ack", format!("boot {:016x}, all before {} is durable", ack.boot.0, ack.next.0), json!(ack))
        }
        Message::Command(command) => ("cmd", format!("{} {:?}", command.id, command.request), json!(command)),
        Message::Answer(answer) => {
            ("answer", format!("{} {:?} {}", answer.id, answer.outcome, answer.text), json!(answer))
        }
        Message::Offline(offline) => ("offline", format!("boot {:016x}", offline.boot.0), json!(offline)),
        Message::Set(set) => ("set", format!("{} version {}", set.id, set.settings.version), json!(set)),
        Message::InForce(in_force) => {
            ("settings", format!("version {} in force", in_force.settings.version), json!(in_force))
        }
        Message::TimeAsk(ask) => ("timeask", format!("{} at tick {}", ask.id, ask.tick), json!(ask)),
        Message::TimeTell(tell) => {
            let text = format!("{} received at {}", tell.id, crate::cli::time_text(tell.received_ns));
            ("timetell", text, json!(tell))
        }
    }
}

fn describe_block(kind: &'static str, block: &Block<'_>) -> (&'static str, String, Value) {
    let header = block.header;
    let mut samples = vec![0.0_f32; header.len()];
    let levels: Vec<[f32; 2]> = match block.decode_f32(header.scale, &mut samples) {
        Ok(()) => samples.chunks_exact(usize::from(header.samples)).map(levels).collect(),
        Err(error) => {
            return (kind, format!("seq {}: {error}", header.seq.0), json!({ "error": error.to_string() }));
        }
    };
    let shown: Vec<String> = levels.iter().map(|[rms, peak]| format!("{rms:.2}/{peak:.1}")).collect();
    let text = format!(
        "seq {} first {} {}x{} rms/peak {} m/s2{}",
        header.seq.0,
        header.first_sample,
        header.axes,
        header.samples,
        shown.join(" "),
        flag_words(header.flags),
    );
    let fields = json!({
        "header": header,
        "rms": levels.iter().map(|level| level[0]).collect::<Vec<_>>(),
        "peak": levels.iter().map(|level| level[1]).collect::<Vec<_>>(),
        "unit": "m/s2",
    });
    (kind, text, fields)
}

/// RMS and largest magnitude, mean removed.
fn levels(channel: &[f32]) -> [f32; 2] {
    let len = channel.len().max(1) as f32;
    let mean = channel.iter().sum::<f32>() / len;
    let square: f32 = channel.iter().map(|x| (x - mean) * (x - mean)).sum();
    let peak = channel.iter().fold(0.0_f32, |peak, x| peak.max((x - mean).abs()));
    [(square / len).sqrt(), peak]
}

fn flag_words(flags: u16) -> String {
    use wire::block::flags::{OVERRUN, RESTART, SATURATED, SELF_TEST};
    let words =
        [(OVERRUN, "overrun"), (SATURATED, "saturated"), (SELF_TEST, "self-test"), (RESTART, "restart")];
    let set: Vec<&str> = words.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect();
    if set.is_empty() { String::new() } else { format!(" [{}]", set.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_common::id::{BootId, Seq, StreamId};
    use spindle_common::wire::{BlockHeader, Encoding, Samples};

    #[test]
    fn a_block_is_shown_with_its_levels_in_si_units() {
        let header = BlockHeader {
            node: "n",
            boot: BootId(7),
            stream: StreamId(0),
            seq: Seq(3),
            first_sample: 8,
            tick: 0,
            tick_hz: 1_000_000,
            rate_nominal_mhz: 26_667_000,
            rate_measured_mhz: 0,
            scale: 0.5,
            bits: 16,
            axes: 2,
            samples: 4,
            flags: 2,
            encoding: Encoding::Raw16,
            decimation: 1,
        };
        let mut bytes = [0; 256];
        let len = wire::encode_block(&header, Samples::I16(&[2, -2, 2, -2, 9, 9, 9, 9]), &mut bytes).unwrap();
        let line = describe_wire("spindle/v1/a/b/c/raw", &bytes[..len]);
        assert_eq!(
            line.to_string(),
            "a/b/c block seq 3 first 8 2x4 rms/peak 1.00/1.0 0.00/0.0 m/s2 [saturated]"
        );
        assert_eq!(line.json()["value"]["rms"][0], 1.0);
    }

    #[test]
    fn what_cannot_be_read_is_shown_with_the_reason() {
        let line = describe_wire("spindle/v1/a/b/c/raw", b"nonsense");
        assert!(line.to_string().contains("wire version 110 is unknown"), "{line}");
    }
}
