//! What the fuzz targets in `tests/fuzz` do with their input, as plain functions: the test below replays the corpora of
//! `tests/corpus` through the same ones. Each panics when a decoder does what it never should.
//!
//! This file uses nothing of the harness: `tests/fuzz` includes it by its path.

use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::wire::{
    Block, BlockHeader, DecodeError, Encoding, MESSAGE_LEN_MAX, Message, Samples, VERSION, block_len_max,
    crc32c, decode, encode_block, frame,
};

use spindle_agent::fuzz as agent;

/// A fuzz target: its name, which is also its corpus's, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 13] = [
    ("wire_message", wire_message),
    ("wire_sealed", wire_sealed),
    ("rice_decode", rice_decode),
    ("samples_round_trip", samples_round_trip),
    ("frame", frame),
    ("listener_packets", agent::listener_packets),
    ("json_mapping", agent::json_mapping),
    ("session_messages", agent::session_messages),
    ("config", agent::config),
    ("hardware", agent::hardware),
    ("journal_frame", agent::journal_frame),
    ("journal_state", agent::journal_state),
    ("control_request", agent::control_request),
];

/// Any bytes as a message.
pub fn wire_message(data: &[u8]) {
    if let Ok(message) = decode(data) {
        read_and_write_again(&message);
    }
}

/// Any bytes as kind and header of a message whose version and checksum are right: what the checksum keeps from the
/// target above.
pub fn wire_sealed(data: &[u8]) {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    match decode(&bytes) {
        Ok(message) => read_and_write_again(&message),
        Err(DecodeError::Checksum { .. } | DecodeError::UnknownVersion { .. }) => {
            panic!("a right checksum is refused")
        }
        Err(_) => {}
    }
}

/// What was read can be written, and reads the same then.
fn read_and_write_again(message: &Message<'_>) {
    let mut bytes = vec![0; MESSAGE_LEN_MAX];
    let len =
        message.encode(&mut bytes).unwrap_or_else(|error| panic!("{message:?} cannot be written: {error}"));
    assert_eq!(decode(&bytes[..len]).as_ref(), Ok(message));
    if let Message::Block(block) = message {
        samples_again(block);
    }
}

/// Samples that can be read come back from an encoder, in range.
fn samples_again(block: &Block<'_>) {
    let mut samples = vec![0; block.header.len()];
    if block.decode_samples(&mut samples).is_ok() {
        assert_eq!(through_encoder(&block.header, Samples::I32(&samples)), samples);
    }
}

fn through_encoder(header: &BlockHeader<'_>, samples: Samples<'_>) -> Vec<i32> {
    let mut bytes = vec![0; block_len_max(header.axes.into(), header.samples.into(), header.encoding)];
    let Ok(len) = encode_block(header, samples, &mut bytes) else {
        assert!(bytes.len() > MESSAGE_LEN_MAX, "samples that were read cannot be written");
        return widened(samples);
    };
    let Ok(Message::Block(block)) = decode(&bytes[..len]) else { panic!("what was written cannot be read") };
    let mut found = vec![0; samples.len()];
    assert_eq!(block.decode_samples(&mut found), Ok(()));
    let mut floats = vec![0.0; samples.len()];
    assert_eq!(block.decode_f32(1.0, &mut floats), Ok(()));
    assert!(found.iter().zip(&floats).all(|(&count, &float)| count as f32 == float));
    found
}

fn widened(samples: Samples<'_>) -> Vec<i32> {
    match samples {
        Samples::I16(samples) => samples.iter().map(|&sample| sample.into()).collect(),
        Samples::I32(samples) => samples.to_vec(),
    }
}

fn header(axes: u8, samples: u16, encoding: Encoding) -> BlockHeader<'static> {
    BlockHeader {
        node: "n",
        boot: BootId(1),
        stream: StreamId(0),
        seq: Seq(0),
        first_sample: 0,
        tick: 0,
        tick_hz: 1,
        rate_nominal_mhz: 1,
        rate_measured_mhz: 0,
        scale: 1.0,
        bits: 2,
        axes,
        samples,
        flags: 0,
        encoding,
        decimation: 1,
    }
}

/// Three bytes of shape, then any bytes as the Rice form of samples.
pub fn rice_decode(data: &[u8]) {
    let Some((&[shape, low, high], samples)) = data.split_first_chunk::<3>() else { return };
    let encoding = if shape & 8 == 0 { Encoding::Rice16 } else { Encoding::Rice24 };
    let per_channel = (u16::from_le_bytes([low, high]) & 0x1FFF) + 1;
    let block = Block { header: header((shape & 7) + 1, per_channel, encoding), samples };
    let mut out = vec![0; block.header.len()];
    if block.decode_samples(&mut out).is_ok() {
        let half = 1 << (encoding.sample_bits() - 1);
        assert!(out.iter().all(|sample| (-half..half).contains(sample)));
        samples_again(&block);
    }
}

/// One byte of shape, then any bytes as samples, through all four encodings.
pub fn samples_round_trip(data: &[u8]) {
    let Some((&shape, data)) = data.split_first() else { return };
    let axes = usize::from(shape & 7) + 1;
    let samples: Vec<i16> = data.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    // Up to 24 bits, by the shape, so that wide samples and narrow ones both occur.
    let wide: Vec<i32> =
        data.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word) >> (8 + (shape >> 4))).collect();
    let per_channel = (samples.len() / axes).min(4096);
    let per_channel_wide = (wide.len() / axes).min(2048);
    if per_channel_wide == 0 {
        return;
    }
    let (samples, wide) = (&samples[..per_channel * axes], &wide[..per_channel_wide * axes]);
    for encoding in [Encoding::Raw16, Encoding::Rice16, Encoding::Raw24, Encoding::Rice24] {
        let header = header(axes as u8, per_channel as u16, encoding);
        assert_eq!(through_encoder(&header, Samples::I16(samples)), widened(Samples::I16(samples)));
    }
    for encoding in [Encoding::Raw24, Encoding::Rice24] {
        let header = header(axes as u8, per_channel_wide as u16, encoding);
        assert_eq!(through_encoder(&header, Samples::I32(wide)), wide);
    }
}

/// Any bytes as what a serial line brings, and then as a message on that line.
pub fn frame(data: &[u8]) {
    let received = |portion: usize| {
        let mut decoder = frame::Decoder::<300>::new();
        let mut frames = Vec::new();
        for bytes in data.chunks(portion) {
            decoder.feed(bytes, |content| frames.push(content.to_vec()));
        }
        (frames, decoder.counters())
    };
    let whole = received(data.len().max(1));
    assert_eq!(whole, received(1), "a line in single bytes gives other frames");
    assert_eq!(whole, received(7));
    assert!(whole.0.iter().all(|content| content.len() <= 300));

    let mut framed = vec![0; frame::len_max(data.len())];
    let len = frame::encode(data, &mut framed).unwrap_or_else(|error| panic!("no frame: {error}"));
    assert_eq!(framed[..len].iter().position(|&byte| byte == 0), Some(len - 1));
    let mut decoder = frame::Decoder::<{ MESSAGE_LEN_MAX }>::new();
    let mut frames = Vec::new();
    // Garbage, a zero, then the frame.
    decoder.feed(data, |_| {});
    decoder.feed(&[0], |_| {});
    decoder.feed(&framed[..len], |content| frames.push(content.to_vec()));
    assert!(data.len() > MESSAGE_LEN_MAX || frames == [data]);
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_corpus_runs_through_its_fuzz_target() {
        for (name, body) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let inputs =
                fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let count = inputs.map(|input| body(&fs::read(input.unwrap().path()).unwrap())).count();
            assert!(count >= 3, "{name} has a corpus of {count}");
        }
    }
}
