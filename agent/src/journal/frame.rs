//! What is inside a chunk's `body`: records one after the other, each a fixed header and its bytes.
//!
//! ```text
//! len u32 | sensor u32 | kind u8 | 0 u8 | flags u16 | time_ns i64 | arrival_ns i64 | first_sample u64 | body (len bytes)
//! ```
//! All little-endian. `sensor` is a row of the segment's `sensor` table. Offsets are not stored: the first record of a
//! chunk has the chunk's `first`, each next one is one more.

use crate::record::{Record, RecordKind, SensorKey};
use bytes::Bytes;
use std::sync::Arc;

/// Bytes of a record besides its body.
pub(super) const HEADER_LEN: usize = 36;

/// Appends `record` to a chunk's body. The caller keeps bodies below 4 GiB (a wire message has at most 64 KiB).
pub(super) fn encode(record: &Record, sensor: u32, out: &mut Vec<u8>) {
    let len = u32::try_from(record.body.len()).unwrap_or(u32::MAX);
    let mut header = [0u8; HEADER_LEN];
    header[0..4].copy_from_slice(&len.to_le_bytes());
    header[4..8].copy_from_slice(&sensor.to_le_bytes());
    header[8] = record.kind as u8;
    header[10..12].copy_from_slice(&record.flags.to_le_bytes());
    header[12..20].copy_from_slice(&record.time_ns.to_le_bytes());
    header[20..28].copy_from_slice(&record.arrival_ns.to_le_bytes());
    header[28..36].copy_from_slice(&record.first_sample.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&record.body);
}

/// Reads the records of a chunk whose checksum was found right; their bodies share `body`.
///
/// # Errors
/// What is malformed, in words.
pub(super) fn decode(
    body: &Bytes,
    first: u64,
    count: usize,
    key_of: impl Fn(u32) -> Option<Arc<SensorKey>>,
    records: &mut Vec<Record>,
) -> Result<(), &'static str> {
    let mut at = 0;
    for index in 0..count {
        let header = body.get(at..at + HEADER_LEN).ok_or("a record's header is cut off")?;
        let (len, sensor) = (u32_at(header, 0), u32_at(header, 4));
        at += HEADER_LEN;
        let end = usize::try_from(len).ok().and_then(|len| at.checked_add(len));
        let end = end.filter(|&end| end <= body.len()).ok_or("a record's body is cut off")?;
        records.push(Record {
            offset: first + index as u64,
            kind: kind_of(header[8]).ok_or("a record's kind is unknown")?,
            key: key_of(sensor).ok_or("a record names a sensor that the segment does not list")?,
            flags: u16::from_le_bytes([header[10], header[11]]),
            time_ns: u64_at(header, 12).cast_signed(),
            arrival_ns: u64_at(header, 20).cast_signed(),
            first_sample: u64_at(header, 28),
            body: body.slice(at..end),
        });
        at = end;
    }
    if at == body.len() { Ok(()) } else { Err("bytes follow the last record") }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

const fn kind_of(byte: u8) -> Option<RecordKind> {
    Some(match byte {
        1 => RecordKind::Block,
        2 => RecordKind::Json,
        3 => RecordKind::DeadLetter,
        4 => RecordKind::Gap,
        5 => RecordKind::Node,
        6 => RecordKind::Context,
        _ => return None,
    })
}
