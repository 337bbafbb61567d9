//! The golden messages of versions 1 and 2: their bytes never change. `golden/v1/NAME.hex` is the message, `NAME.json` what
//! it says; nothing here writes them. `tests/oracles/wire` checks the same files without this crate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use serde::Deserialize;
use serde_json::Value;
use spindle_common::wire::messages::{BurstHeader, Trigger};
use spindle_common::wire::{
    Ack, Answer, Birth, Block, BlockHeader, Burst, Command, DecodeError, Encoding, Features, InForce,
    Lifetime, Message, MoreStatus, Offline, Samples, Set, Status, TimeAsk, TimePair, TimeTell, decode,
    encode_block, encode_burst, frame,
};
use std::fs;
use std::path::{Path, PathBuf};

fn folder(version: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/v{version}"))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Name, bytes and meaning of every golden message.
fn messages() -> Vec<(String, Vec<u8>, Value)> {
    let mut found = Vec::new();
    let files = [1, 2].into_iter().flat_map(|version| fs::read_dir(folder(version)).unwrap());
    for entry in files {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "hex") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let meaning =
                serde_json::from_str(&fs::read_to_string(path.with_extension("json")).unwrap()).unwrap();
            found.push((name, bytes(&fs::read_to_string(&path).unwrap()), meaning));
        }
    }
    assert_eq!(found.len(), 37, "a golden message is missing or was not counted here");
    found
}

/// Writes what the JSON says with this crate's encoder.
fn written(meaning: &Value) -> Vec<u8> {
    let text = meaning["fields"].to_string();
    let mut out = vec![0; 65_536];
    let len = match meaning["kind"].as_str().unwrap() {
        "Block" => {
            let mut header: BlockHeader<'_> = serde_json::from_str(&text).unwrap();
            if let Some(decimation) = meaning["fields"].get("decimation") {
                header.decimation = u16::deserialize(decimation).unwrap();
            }
            if let Some(wanted) = meaning.get("wanted") {
                header.encoding = Encoding::deserialize(wanted).unwrap();
            }
            encode_block(&header, Samples::I32(&planar(meaning)), &mut out)
        }
        "Burst" => {
            let trigger = Trigger::deserialize(&meaning["fields"]["trigger"]).unwrap();
            let block = meaning["fields"]["block"].to_string();
            let header: BlockHeader<'_> = serde_json::from_str(&block).unwrap();
            encode_burst(&trigger, &header, Samples::I32(&planar(meaning)), &mut out)
        }
        "Birth" => {
            let lifetime =
                meaning["fields"].get("lifetime").map(|value| Lifetime::deserialize(value).unwrap());
            Birth { lifetime, ..serde_json::from_str(&text).unwrap() }.encode(&mut out)
        }
        "Features" => serde_json::from_str::<Features<'_>>(&text).unwrap().encode(&mut out),
        "Status" => {
            let more = meaning["fields"].get("more").map(|value| MoreStatus::deserialize(value).unwrap());
            Status { more, ..serde_json::from_str(&text).unwrap() }.encode(&mut out)
        }
        "TimePair" => serde_json::from_str::<TimePair<'_>>(&text).unwrap().encode(&mut out),
        "Ack" => serde_json::from_str::<Ack<'_>>(&text).unwrap().encode(&mut out),
        "Command" => serde_json::from_str::<Command<'_>>(&text).unwrap().encode(&mut out),
        "Answer" => serde_json::from_str::<Answer<'_>>(&text).unwrap().encode(&mut out),
        "Offline" => serde_json::from_str::<Offline<'_>>(&text).unwrap().encode(&mut out),
        "Set" => serde_json::from_str::<Set<'_>>(&text).unwrap().encode(&mut out),
        "InForce" => serde_json::from_str::<InForce<'_>>(&text).unwrap().encode(&mut out),
        "TimeAsk" => serde_json::from_str::<TimeAsk<'_>>(&text).unwrap().encode(&mut out),
        "TimeTell" => serde_json::from_str::<TimeTell<'_>>(&text).unwrap().encode(&mut out),
        other => panic!("unknown kind {other}"),
    };
    out.truncate(len.unwrap());
    out
}

fn planar(meaning: &Value) -> Vec<i32> {
    let channels = meaning["samples"].as_array().unwrap();
    channels
        .iter()
        .flat_map(|channel| channel.as_array().unwrap())
        .map(|v| v.as_i64().unwrap() as i32)
        .collect()
}

fn samples(block: &Block<'_>) -> Value {
    let mut out = vec![0; block.header.len()];
    block.decode_samples(&mut out).unwrap();
    out.chunks(usize::from(block.header.samples)).map(<[i32]>::to_vec).collect()
}

/// What this crate reads, as the JSON says it.
fn read(message: &Message<'_>) -> Value {
    let (kind, fields, samples) = match message {
        Message::Block(block) => ("Block", serde_json::to_value(block.header), Some(samples(block))),
        Message::Burst(Burst { trigger, block }) => {
            let header = BurstHeader { trigger: *trigger, block: block.header };
            ("Burst", serde_json::to_value(header), Some(samples(block)))
        }
        Message::Birth(message) => ("Birth", serde_json::to_value(message), None),
        Message::Features(message) => ("Features", serde_json::to_value(message), None),
        Message::Status(message) => ("Status", serde_json::to_value(message), None),
        Message::TimePair(message) => ("TimePair", serde_json::to_value(message), None),
        Message::Ack(message) => ("Ack", serde_json::to_value(message), None),
        Message::Command(message) => ("Command", serde_json::to_value(message), None),
        Message::Answer(message) => ("Answer", serde_json::to_value(message), None),
        Message::Offline(message) => ("Offline", serde_json::to_value(message), None),
        Message::Set(message) => ("Set", serde_json::to_value(message), None),
        Message::InForce(message) => ("InForce", serde_json::to_value(message), None),
        Message::TimeAsk(message) => ("TimeAsk", serde_json::to_value(message), None),
        Message::TimeTell(message) => ("TimeTell", serde_json::to_value(message), None),
    };
    let mut value = serde_json::json!({ "kind": kind, "fields": fields.unwrap() });
    // What version 2 adds to kinds of version 1 is not part of their version 1 fields.
    match message {
        Message::Block(block) if block.header.decimation != 1 => {
            value["fields"]["decimation"] = block.header.decimation.into();
        }
        Message::Birth(Birth { lifetime: Some(lifetime), .. }) => {
            value["fields"]["lifetime"] = serde_json::to_value(lifetime).unwrap();
        }
        Message::Status(Status { more: Some(more), .. }) => {
            value["fields"]["more"] = serde_json::to_value(more).unwrap();
        }
        _ => {}
    }
    if let Some(samples) = samples {
        value["samples"] = samples;
    }
    value
}

/// The JSON with every float as single precision has it.
fn as_f32(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => (number.as_f64().unwrap() as f32).into(),
        Value::Array(values) => values.iter().map(as_f32).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), as_f32(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_golden_message_reads_as_its_json_says() {
    for (name, bytes, mut meaning) in messages() {
        let message = decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        meaning.as_object_mut().unwrap().remove("wanted");
        assert_eq!(as_f32(&read(&message)), as_f32(&meaning), "{name}");
    }
}

#[test]
fn every_golden_message_is_written_to_the_same_bytes() {
    for (name, bytes, meaning) in messages() {
        assert_eq!(written(&meaning), bytes, "{name}");
        let mut again = vec![0; bytes.len()];
        assert_eq!(decode(&bytes).unwrap().encode(&mut again), Ok(bytes.len()), "{name}");
        assert_eq!(again, bytes, "{name}");
    }
}

#[test]
fn no_golden_message_is_accepted_cut_or_with_one_bit_flipped() {
    for (name, mut bytes, _) in messages() {
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{name} cut to {len}");
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "{name} with bit {bit} flipped");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn no_golden_message_fits_a_buffer_that_is_a_byte_short() {
    for (name, bytes, _) in messages() {
        let message = decode(&bytes).unwrap();
        for len in 0..bytes.len() {
            assert!(message.encode(&mut vec![0; len]).is_err(), "{name} in {len} bytes");
        }
    }
}

#[test]
fn what_must_be_refused_is_refused_with_the_right_error() {
    let cases: Vec<Value> =
        serde_json::from_slice(&fs::read(folder(1).join("refused.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 44);
    for case in cases {
        let why = case["why"].as_str().unwrap();
        let bytes = bytes(case["hex"].as_str().unwrap());
        let refused = match decode(&bytes) {
            Err(error) => error,
            Ok(Message::Block(block)) => {
                assert!(why.contains("Rice"), "{why} is accepted");
                block.decode_samples(&mut vec![0; block.header.len()]).unwrap_err()
            }
            Ok(_) => panic!("{why} is accepted"),
        };
        let right = match refused {
            DecodeError::TooShort { .. } => why == "empty" || why.starts_with("shorter"),
            DecodeError::TooLong { .. } => false,
            DecodeError::UnknownVersion { version } => why == format!("version {version}"),
            DecodeError::UnknownKind { kind } => why == format!("kind {kind}"),
            DecodeError::Checksum { .. } => why.contains("checksum"),
            DecodeError::Header { .. } => {
                ["header", "varint", "UTF-8", "unknown", "nine streams"].iter().any(|word| why.contains(word))
            }
            DecodeError::Field { field, .. } => {
                let last = field.rsplit('.').next().unwrap();
                let channels = field == "axes" && (why.contains("channels") || why.contains("feature"));
                why.contains(last) || channels || (field == "flags" && why == "unknown flag")
            }
            DecodeError::Samples { .. } => why.contains("Rice") || why.contains("raw samples"),
        };
        assert!(right, "{why} is refused as: {refused}");
    }
}

#[test]
fn every_golden_frame_is_the_same_both_ways() {
    let cases: Vec<Value> =
        serde_json::from_slice(&fs::read(folder(1).join("frames.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let message = bytes(case["message"].as_str().unwrap());
        let framed = bytes(case["frame"].as_str().unwrap());
        let mut out = vec![0; frame::len_max(message.len())];
        let len = frame::encode(&message, &mut out).unwrap();
        assert_eq!(out[..len], framed);
        let mut decoder = frame::Decoder::<1024>::new();
        let mut contents = Vec::new();
        decoder.feed(&framed, |content| contents.push(content.to_vec()));
        assert_eq!(contents, [message]);
    }
}

/// Checksum of a folder's names and contents.
fn checksum(version: u8) -> u32 {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder(version)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        all.extend_from_slice(path.file_name().unwrap().as_encoded_bytes());
        all.extend(fs::read(path).unwrap());
    }
    spindle_common::wire::crc32c(&all)
}

#[test]
fn the_golden_files_themselves_are_what_they_were_when_their_version_was_pinned() {
    // A new version gets a folder of its own; these may not even grow.
    assert_eq!(checksum(1), 0xE0D1_1673);
    assert_eq!(checksum(2), 0xA46F_AE5D);
}
