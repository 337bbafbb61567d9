//! The log: every accepted record, durable before it is acknowledged, read by all that comes after.
//!
//! A folder of SQLite files (see `segment`), each named by the offset of its first record. One writer; a commit
//! is one transaction with fsync. A file whose commit failed is never written again: the same batch goes to a new
//! segment that starts at the same offset, and what the old file may hold from there on does not count. So a segment
//! ends where the next one starts, whatever its file says.
//!
//! Offsets are dense from 1, but for one case: when the newest file is damaged, numbering goes on after the most records
//! that it could have held, so that no reader's cursor ever points into the future. What can be read of it stays readable.
//!
//! On disk are the segments, each with a write-ahead log that stays small against it, and up to three files that were set
//! aside because they are no databases any more; together they stay below `journal.size_max`. Opening reads the newest
//! segment from its last snapshot on, at most [`SNAPSHOT_BODY_BYTES`], and of the others only names.

#[cfg(test)]
mod damage_tests;
mod files;
mod frame;
#[cfg(test)]
mod golden;
pub mod inspect;
mod open;
mod reader;
mod segment;
mod state;
mod tail;
#[cfg(test)]
mod tests;

pub use reader::{BatchView, JournalReader, Read, state};
pub use state::{Book, BootState, ClockState, JsonState, Key, NodeState, State, Stateful, StreamState};

use crate::config;
use crate::record::{Batch, Record};
use crate::sqlite;
use segment::{Commit, Head, Segment, Tuning};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tail::Shared;

/// Chunks between two writings of the whole state, so that opening has few changes to join.
const SNAPSHOT_CHUNKS: u32 = 2048;
/// Bytes of changes between two writings of the whole state.
const SNAPSHOT_BYTES: usize = 4 << 20;
/// Bytes of records between two: they are read when opening, for their checksums.
const SNAPSHOT_BODY_BYTES: usize = 64 << 20;
/// Smallest size of a segment.
const SEGMENT_LEN_MIN: u64 = 1 << 20;
/// A segment is at most this part of the journal, so that eviction takes little at a time.
const SEGMENTS_MIN: u64 = 4;

/// Any bytes as a chunk's body: one byte of how many records, then the records. For `fuzz`.
#[doc(hidden)]
pub fn fuzz_frame(data: &[u8]) {
    let Some((count, body)) = data.split_first() else { return };
    let key: std::sync::OnceLock<Arc<crate::record::SensorKey>> = std::sync::OnceLock::new();
    let of = |sensor: u32| {
        let name: Arc<str> = "n".into();
        let make = || {
            Arc::new(crate::record::SensorKey {
                site: name.clone(),
                machine: name.clone(),
                sensor: name.clone(),
            })
        };
        (sensor < 4).then(|| key.get_or_init(make).clone())
    };
    let body = bytes::Bytes::copy_from_slice(body);
    let mut records = Vec::new();
    if frame::decode(&body, 1, usize::from(*count), of, &mut records).is_ok() {
        let mut again = Vec::new();
        for record in &records {
            frame::encode(record, 0, &mut again);
        }
        assert_eq!(again.len(), body.len(), "a chunk that was read is not written as long");
    }
}

/// Any bytes as the session's state. For `fuzz`.
#[doc(hidden)]
pub fn fuzz_state(data: &[u8]) {
    if let Ok(state) = State::from_bytes(data) {
        let again = state.to_bytes().map(|bytes| State::from_bytes(&bytes));
        assert!(matches!(again, Ok(Ok(again)) if again == state), "a state that was read reads otherwise");
    }
}

/// What can go wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("journal {} is open in another process", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("journal {}: {source}", path.display())]
    Io {
        /// Folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("journal segment {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Written by a newer Spindle.
    #[error(
        "journal segment {} has schema version {version}, but this build reads up to version {}: \
         run the build that wrote it, or a newer one",
        path.display(),
        segment::SCHEMA_VERSION
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// A file that was being made when the power went.
    #[error("journal segment {} was never finished", path.display())]
    Unborn {
        /// The file.
        path: PathBuf,
    },
    /// A whole segment cannot be trusted.
    #[error("journal segment {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Some records cannot be trusted.
    #[error("journal segment {} is damaged before offset {next}: {reason}", path.display())]
    DamagedChunk {
        /// The file.
        path: PathBuf,
        /// First offset after the damage.
        next: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The state could not be encoded.
    #[error("the session's state cannot be encoded")]
    State,
}

impl JournalError {
    /// Whether a file's content is to blame, so that trying again will not help.
    fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::DamagedChunk { .. } => true,
            Self::Sqlite { source, .. } => sqlite::is_damage(source),
            _ => false,
        }
    }
}

/// A batch that was not committed: nothing of it is durable, nothing of it may be acknowledged. Append it again.
#[derive(Debug, thiserror::Error)]
#[error("commit of {} records failed: {source}", records.len())]
pub struct AppendError {
    /// The records, as given.
    pub records: Vec<Record>,
    /// Why.
    pub source: JournalError,
}

/// What became of the journal since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Commits.
    pub commits: u64,
    /// Commits that failed.
    pub failures: u64,
    /// Bytes of records committed.
    pub bytes: u64,
    /// Segments evicted.
    pub segments_evicted: u64,
    /// Segments set aside as damaged when opening.
    pub segments_damaged: u64,
    /// Damaged places that readers met and skipped, once each: a chunk, or the rest of a segment.
    pub damages: u64,
    /// Records in them.
    pub records_damaged: u64,
}

/// The writer. There is one.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    config: config::Journal,
    segments: Vec<(u64, PathBuf)>,
    /// Open for writing; `None` after a failed commit.
    current: Option<Segment>,
    next: u64,
    /// Bytes written to the current segment, about.
    current_len: u64,
    chunks_since_snapshot: u32,
    bytes_since_snapshot: usize,
    body_since_snapshot: usize,
    /// Samples accepted per sensor, as committed.
    accepted: HashMap<Key, u64>,
    /// Of those, samples counted as evicted.
    evicted: HashMap<Key, u64>,
    /// How many of the oldest segments are entered in the books as evicted, but not deleted yet.
    evicting: usize,
    /// Segments that end at or before this go at the next rotation, whatever the size.
    purge_before: u64,
    /// Whether the last rotations had to evict: the log says so once.
    full: bool,
    shared: Arc<Shared>,
    totals: Totals,
    /// Held for as long as the journal is open.
    _lock: File,
}

impl Journal {
    /// Opens the journal in `dir`, or makes it; gives also the state that was committed last. A damaged newest segment is
    /// set aside with a word in the log, and work goes on.
    ///
    /// # Errors
    /// Another process has it open; it is of a newer schema; the disk refuses.
    pub fn open(dir: &Path, config: &config::Journal) -> Result<(Self, State), JournalError> {
        open::open(dir, config)
    }

    /// A reader.
    #[must_use]
    pub fn reader(&self) -> JournalReader {
        JournalReader::shared(self.shared.clone())
    }

    /// Offset of the next record.
    #[must_use]
    pub const fn next_offset(&self) -> u64 {
        self.next
    }

    /// What became of it.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let (damages, records_damaged) = self.shared.damage();
        Totals { damages, records_damaged, ..self.totals }
    }

    /// Bytes on disk.
    #[must_use]
    pub fn disk_len(&self) -> u64 {
        self.segments.iter().map(|(_, path)| sqlite::disk_len(path)).sum::<u64>() + self.set_aside_len()
    }

    fn set_aside_len(&self) -> u64 {
        sqlite::list_set_aside(&self.dir).iter().map(|(_, path)| sqlite::disk_len(path)).sum()
    }

    /// Deletes the segments whose records all lie before `before`, and counts their samples as evicted; gives their number.
    ///
    /// # Errors
    /// Nothing was deleted.
    pub fn purge(&mut self, before: u64, state: &mut impl Stateful) -> Result<u64, JournalError> {
        let evicted = self.totals.segments_evicted;
        self.purge_before = before;
        let purged = self.append(Vec::new(), state).map_err(|error| error.source);
        self.purge_before = 0;
        purged.map(|_| self.totals.segments_evicted - evicted)
    }

    /// Commits `records` and what `state` says has changed, in one transaction. When it returns they are durable, and
    /// readers see them. Offsets are given here. Without records, only a changed state is written (whole).
    ///
    /// # Errors
    /// Not committed; the records come back with the reason. Append them again, after a pause.
    pub fn append(
        &mut self,
        mut records: Vec<Record>,
        state: &mut impl Stateful,
    ) -> Result<Arc<Batch>, AppendError> {
        for (offset, record) in (self.next..).zip(&mut records) {
            record.offset = offset;
        }
        match self.commit(&records, state) {
            Ok(()) => {}
            Err(source) => {
                if let Some(current) = self.current.take() {
                    current.abandon();
                }
                self.totals.failures += 1;
                return Err(AppendError { records, source });
            }
        }
        state.committed();
        self.next += records.len() as u64;
        self.totals.commits += 1;
        let batch = Arc::new(Batch { records });
        if !batch.records.is_empty() {
            self.shared.push(&batch);
        }
        Ok(batch)
    }

    fn commit(&mut self, records: &[Record], state: &mut impl Stateful) -> Result<(), JournalError> {
        let full = self.current_len >= self.segment_len_max();
        let new_segment = self.current.is_none() || full || self.purge_before > 0;
        if new_segment {
            self.rotate(state)?;
        }
        let changes = state.changes();
        if records.is_empty() && changes.is_empty() && !new_segment {
            return Ok(());
        }
        let encoded = segment::encode_state(&changes)?;
        let bytes: usize = records.iter().map(|record| record.body.len() + frame::HEADER_LEN).sum();
        self.chunks_since_snapshot += 1;
        self.bytes_since_snapshot += encoded.len();
        self.body_since_snapshot += bytes;
        let due = self.chunks_since_snapshot >= SNAPSHOT_CHUNKS
            || self.bytes_since_snapshot >= SNAPSHOT_BYTES
            || self.body_since_snapshot >= SNAPSHOT_BODY_BYTES;
        let snapshot = if due || new_segment || records.is_empty() {
            Some(segment::encode_state(&state.snapshot())?)
        } else {
            None
        };
        if let Some(current) = &mut self.current {
            current.commit(&Commit {
                first: self.next,
                records,
                changes: &encoded,
                snapshot: snapshot.as_deref(),
            })?;
        }
        if snapshot.is_some() {
            self.chunks_since_snapshot = 0;
            self.bytes_since_snapshot = 0;
            self.body_since_snapshot = 0;
        }
        self.accepted.extend(changes.books.iter().map(|(key, book)| (key.clone(), book.accepted)));
        self.totals.bytes += bytes as u64;
        self.current_len += (bytes + encoded.len()) as u64;
        if new_segment {
            self.finish_rotation();
        }
        let written = (bytes + encoded.len() + snapshot.map_or(0, |snapshot| snapshot.len())) as u64;
        if let Some(Err(error)) = self.current.as_mut().map(|current| current.checkpoint_when_due(written)) {
            tracing::warn!(%error, "the segment keeps its write-ahead log; the next commit goes to a new one");
            if let Some(current) = self.current.take() {
                current.abandon();
            }
        }
        Ok(())
    }

    fn segment_len_max(&self) -> u64 {
        let part = self.config.size_max.as_u64() / SEGMENTS_MIN;
        self.config.segment_size.as_u64().min(part).max(SEGMENT_LEN_MIN)
    }

    fn tuning(&self) -> Tuning {
        Tuning::new(self.config.synchronous, self.segment_len_max())
    }

    /// Opens a new file for the records from `next` on, after making room for it. Nothing counts until the first commit.
    fn rotate(&mut self, state: &mut impl Stateful) -> Result<(), JournalError> {
        if let Some(current) = self.current.take()
            && let Err(error) = current.checkpoint()
        {
            tracing::warn!(%error, "the closed segment keeps its write-ahead log");
            current.abandon();
        }
        self.plan_eviction(state);
        let path = self.new_path()?;
        let head = Head {
            first: self.next,
            oldest: self.segments.get(self.evicting).map_or(self.next, |(first, _)| *first),
            accepted: self.accepted.iter().map(|(key, samples)| (key.clone(), *samples)).collect(),
        };
        self.current = Some(Segment::create(&path, head, self.tuning())?);
        self.current_len = 0;
        Ok(())
    }

    /// A name for a segment that begins at `next`, with no file of that name.
    fn new_path(&self) -> Result<PathBuf, JournalError> {
        // A segment that counts and begins there too holds the state and no record: it stays until the new one counts.
        let repeat = self.segments.iter().filter(|(first, _)| *first == self.next).count();
        let path = self.dir.join(files::file_name(self.next, u32::try_from(repeat).unwrap_or(u32::MAX)));
        // Left by a first commit that failed: nothing in it was ever acknowledged.
        sqlite::remove(&path).map_err(|source| JournalError::Io { path: path.clone(), source })?;
        Ok(path)
    }

    /// Decides how many of the oldest segments must go so that one more fits with its log, and enters their samples in the
    /// books, which the first commit of the new segment makes durable before the files are deleted.
    fn plan_eviction(&mut self, state: &mut impl Stateful) {
        let lens: Vec<u64> = self.segments.iter().map(|(_, path)| sqlite::disk_len(path)).collect();
        let kept: u64 = lens.iter().skip(self.evicting).sum();
        let log =
            self.tuning().checkpoint_len + self.config.commit_bytes_max.as_u64().min(self.segment_len_max());
        let mut total = kept + self.set_aside_len() + self.segment_len_max() + log;
        while let Some(len) = lens.get(self.evicting) {
            let end = self.segments.get(self.evicting + 1).map_or(self.next, |(first, _)| *first);
            if total <= self.config.size_max.as_u64() && end > self.purge_before {
                break;
            }
            // What hindered once may have passed.
            match self.samples_of(self.evicting).or_else(|_| self.samples_of(self.evicting)) {
                Ok(samples) => {
                    for (key, samples) in samples {
                        state.evicted(&key.0, samples);
                        *self.evicted.entry(key).or_default() += samples;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "samples of an evicted segment are counted with the next one");
                }
            }
            total = total.saturating_sub(*len);
            self.evicting += 1;
        }
    }

    /// Samples per sensor that go with the segment at `index`: accepted before the next one's head, and not counted as evicted
    /// yet. So those of a segment that cannot be read go with the next one that can.
    fn samples_of(&self, index: usize) -> Result<Vec<(Key, u64)>, JournalError> {
        let accepted = match self.segments.get(index + 1) {
            Some((_, path)) => Segment::open_read_only(path)?.read_head()?.accepted,
            None => self.accepted.clone().into_iter().collect(),
        };
        let samples = accepted.into_iter().map(|(key, accepted)| {
            let samples = accepted.saturating_sub(self.evicted.get(&key).copied().unwrap_or(0));
            (key, samples)
        });
        Ok(samples.filter(|(_, samples)| *samples > 0).collect())
    }

    /// The new segment counts: the evicted ones may go.
    fn finish_rotation(&mut self) {
        if let Some(current) = &self.current {
            self.segments.push((self.next, current.path.clone()));
        }
        let evicted: Vec<_> = self.segments.drain(..std::mem::take(&mut self.evicting)).collect();
        self.shared.set_segments(self.segments.clone());
        let full = !evicted.is_empty() && self.purge_before == 0;
        if full && !self.full {
            let oldest = self.segments.first().map_or(self.next, |(first, _)| *first);
            tracing::warn!(
                oldest,
                size_max = %self.config.size_max,
                "journal is full: its oldest segments are evicted from now on, and counted in the books"
            );
        } else if self.full && !full {
            tracing::info!("journal has room again: nothing is evicted");
        }
        self.full = full;
        for (first, path) in evicted {
            tracing::debug!(first, path = %path.display(), "segment evicted");
            self.totals.segments_evicted += 1;
            if let Err(error) = sqlite::remove(&path) {
                tracing::error!(path = %path.display(), %error, "evicted segment cannot be deleted");
            }
        }
    }

    /// Ends writing: what is committed is copied into place, readers see the end.
    pub fn close(mut self) {
        if let Some(current) = self.current.take()
            && let Err(error) = current.checkpoint()
        {
            tracing::warn!(%error, "the last segment keeps its write-ahead log");
            current.abandon();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.close();
    }
}
