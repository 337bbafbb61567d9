//! A journal's folder looked at from outside, also while a gateway runs: what is there, and whether it can be trusted.

use super::segment::Segment;
use super::{Book, JournalError, Key, State, Stateful, files};
use crate::record::{Record, RecordKind, SensorKey};
use crate::sqlite;
use spindle_common::wire::{self, Message};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 20;

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Offset of its first record.
    pub first: u64,
    /// Offset after its last; `None` for the newest one.
    pub end: Option<u64>,
    /// Its file.
    pub path: PathBuf,
    /// Bytes on disk, its write-ahead log included.
    pub bytes: u64,
}

/// The segments of the journal in `dir`, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn segments(dir: &Path) -> Result<Vec<SegmentInfo>, JournalError> {
    let found = files::list(dir)?;
    let ends: Vec<Option<u64>> = found.iter().skip(1).map(|(first, _)| Some(*first)).chain([None]).collect();
    let with_end = found.into_iter().zip(ends);
    Ok(with_end
        .map(|((first, path), end)| SegmentInfo { first, end, bytes: sqlite::disk_len(&path), path })
        .collect())
}

/// Files in `dir` that were set aside as damaged, and their bytes.
#[must_use]
pub fn set_aside(dir: &Path) -> Vec<(PathBuf, u64)> {
    let found = sqlite::list_set_aside(dir).into_iter();
    found.map(|(_, path)| (path.clone(), sqlite::disk_len(&path))).collect()
}

/// A place that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// First offset.
    pub from: u64,
    /// Offset after the last.
    pub to: u64,
    /// What is wrong.
    pub reason: String,
}

/// What a segment's checksums say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records whose checksums are right.
    pub records: u64,
    /// The others.
    pub damages: Vec<Damage>,
    /// Samples in them per sensor, by the books: accepted while the segment was written, and not found in it. Only sensors
    /// that send blocks.
    pub samples: BTreeMap<Key, u64>,
}

/// Reads all of a segment. `progress` is told the bytes of records as they are read.
///
/// # Errors
/// The segment cannot be opened for another reason than damage.
pub fn verify(
    segment: &SegmentInfo,
    next: Option<&SegmentInfo>,
    mut progress: impl FnMut(u64),
) -> Result<Verified, JournalError> {
    let mut verified = Verified::default();
    let mut found = Found::default();
    let mut open = match Segment::open_read_only(&segment.path) {
        Ok(open) => open,
        Err(error) if error.is_damage() => {
            let to = segment.end.unwrap_or(segment.first + 1);
            verified.damages.push(Damage { from: segment.first, to, reason: error.to_string() });
            return Ok(verified);
        }
        Err(error) => return Err(error),
    };
    let end = match segment.end {
        Some(end) => end,
        None => open.next().ok().flatten().unwrap_or(segment.first),
    };
    let mut at = segment.first;
    let mut records = Vec::new();
    while at < end {
        records.clear();
        let reason = match open.read(at, end, READ_BYTES, &mut records) {
            Ok(()) => "no such records".to_owned(),
            Err(error) => error.to_string(),
        };
        let next = match (records.first(), records.last()) {
            (Some(first), _) if first.offset > at => first.offset,
            (Some(_), Some(last)) => {
                verified.records += records.len() as u64;
                progress(records.iter().map(|record| record.body.len() as u64).sum());
                found.add(&records);
                at = last.offset + 1;
                continue;
            }
            _ => open.readable_after(at, end).unwrap_or(end),
        };
        match verified.damages.last_mut() {
            Some(last) if last.to == at => last.to = next,
            _ => verified.damages.push(Damage { from: at, to: next, reason }),
        }
        at = next;
    }
    let head = open.read_head();
    if let Err(error) = &head {
        let first = segment.first;
        verified.damages.push(Damage { from: first, to: first, reason: error.to_string() });
    }
    let recovered = if segment.end.is_none() { Some(open.recover()) } else { None };
    if let Some(Err(error)) = &recovered {
        verified.damages.push(Damage { from: end, to: end, reason: error.to_string() });
    }
    if let (false, Ok(head)) = (verified.damages.is_empty(), head) {
        let after: Vec<(Key, u64)> = match (next, recovered) {
            (Some(next), _) => Segment::open_read_only(&next.path)
                .and_then(|next| next.read_head())
                .map(|head| head.accepted)
                .unwrap_or_default(),
            (None, Some(Ok((state, _)))) => {
                state.books.into_iter().map(|(key, book)| (key, book.accepted)).collect()
            }
            _ => Vec::new(),
        };
        verified.samples = found.missing(head.accepted, after);
    }
    Ok(verified)
}

/// Samples found per sensor.
#[derive(Debug, Default)]
struct Found {
    samples: BTreeMap<Key, u64>,
    others: BTreeSet<Arc<SensorKey>>,
}

impl Found {
    fn add(&mut self, records: &[Record]) {
        for record in records {
            match (record.kind, wire::decode(&record.body)) {
                (RecordKind::Block, Ok(Message::Block(block))) => {
                    *self.samples.entry(Key(record.key.clone())).or_default() +=
                        u64::from(block.header.samples);
                }
                (RecordKind::Json, _) => drop(self.others.insert(record.key.clone())),
                _ => {}
            }
        }
    }

    fn missing(&self, before: Vec<(Key, u64)>, after: Vec<(Key, u64)>) -> BTreeMap<Key, u64> {
        let before: BTreeMap<Key, u64> = before.into_iter().collect();
        let missing =
            after.into_iter().filter(|(key, _)| !self.others.contains(&key.0)).map(|(key, after)| {
                let accepted = after.saturating_sub(before.get(&key).copied().unwrap_or(0));
                let missing = accepted.saturating_sub(self.samples.get(&key).copied().unwrap_or(0));
                (key, missing)
            });
        missing.filter(|(_, samples)| *samples > 0).collect()
    }
}

/// A state that nobody works with, but for what a purge enters in its books.
#[derive(Debug)]
pub struct Kept {
    state: State,
    changed: BTreeSet<Key>,
}

impl Kept {
    /// Keeps `state`.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self { state, changed: BTreeSet::new() }
    }

    /// The state's books.
    #[must_use]
    pub fn books(&self) -> &[(Key, Book)] {
        &self.state.books
    }
}

impl Stateful for Kept {
    fn changes(&self) -> State {
        let changed = self.state.books.iter().filter(|(key, _)| self.changed.contains(key));
        State { books: changed.cloned().collect(), ..State::default() }
    }

    fn committed(&mut self) {
        self.changed.clear();
    }

    fn snapshot(&self) -> State {
        self.state.clone()
    }

    fn evicted(&mut self, key: &Arc<SensorKey>, samples: u64) {
        if let Some((key, book)) = self.state.books.iter_mut().find(|(other, _)| other.0 == *key) {
            book.evicted = book.evicted.saturating_add(samples);
            self.changed.insert(key.clone());
        }
    }
}
