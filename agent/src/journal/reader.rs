//! Readers: each at its own pace, none in the way of the writer.

use super::segment::Segment;
use super::tail::{Place, Shared};
use super::{JournalError, State, files};
use crate::record::{Batch, Record};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often a reader in another process than the writer's looks for new records.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Consecutive records: all or some of a [`Batch`].
#[derive(Debug, Clone)]
pub struct BatchView {
    batch: Arc<Batch>,
    start: usize,
    end: usize,
}

impl BatchView {
    /// A view from `start` on, of about `bytes_max` and at least one record.
    pub(super) fn new(batch: Arc<Batch>, start: usize, bytes_max: usize) -> Self {
        let mut bytes = 0;
        let mut end = start;
        while let Some(record) = batch.records.get(end)
            && (end == start || bytes < bytes_max)
        {
            bytes += record.body.len();
            end += 1;
        }
        Self { batch, start, end }
    }

    /// The records, in order of offset.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        self.batch.records.get(self.start..self.end).unwrap_or(&[])
    }

    /// The records, in order of offset.
    pub fn iter(&self) -> std::slice::Iter<'_, Record> {
        self.records().iter()
    }

    /// Offset to read from next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.records().last().map_or(0, |record| record.offset + 1)
    }
}

impl<'a> IntoIterator for &'a BatchView {
    type Item = &'a Record;
    type IntoIter = std::slice::Iter<'a, Record>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What a read gave.
#[derive(Debug, Clone)]
pub enum Read {
    /// Records from the offset asked for on; never empty.
    Batch(BatchView),
    /// Nothing new within the wait.
    Idle,
    /// The records from the offset asked for up to `next` are gone: evicted for want of space (the books say whose), or
    /// damaged on disk (the log says which). Go on at `next`.
    Evicted {
        /// The oldest that is left.
        next: u64,
    },
    /// All was read, and the journal is closed.
    Closed,
}

/// Reads the journal from any offset. Each clone has its own place and file handle.
#[derive(Debug)]
pub struct JournalReader {
    source: Source,
    open: Mutex<Option<Segment>>,
}

#[derive(Debug, Clone)]
enum Source {
    /// In the writer's process.
    Shared(Arc<Shared>),
    /// In another: looks at the folder.
    Folder(PathBuf),
}

impl Clone for JournalReader {
    fn clone(&self) -> Self {
        Self::new(self.source.clone())
    }
}

impl JournalReader {
    fn new(source: Source) -> Self {
        Self { source, open: Mutex::new(None) }
    }

    pub(super) fn shared(shared: Arc<Shared>) -> Self {
        Self::new(Source::Shared(shared))
    }

    /// Reads a journal's folder without writing to it, also while a gateway runs.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open_read_only(dir: &Path) -> Result<Self, JournalError> {
        files::list(dir)?;
        Ok(Self::new(Source::Folder(dir.to_owned())))
    }

    /// The offset after the last record.
    ///
    /// # Errors
    /// The newest segment cannot be read.
    pub fn next_offset(&self) -> Result<u64, JournalError> {
        match &self.source {
            Source::Shared(shared) => Ok(shared.next()),
            Source::Folder(dir) => match files::list(dir)?.last() {
                Some((first, path)) => Ok(Segment::open_read_only(path)?.next()?.unwrap_or(*first)),
                None => Ok(1),
            },
        }
    }

    /// The oldest offset that is left (or the next one, when there is none).
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn oldest_offset(&self) -> Result<u64, JournalError> {
        match &self.source {
            Source::Shared(shared) => Ok(shared.oldest()),
            Source::Folder(dir) => Ok(files::list(dir)?.first().map_or(1, |(first, _)| *first)),
        }
    }

    /// Reads about `bytes_max` bytes of records from offset `from` on, at least one record; when there is none yet,
    /// waits up to `wait`.
    ///
    /// # Errors
    /// A segment cannot be read. Reading on at the same offset later is right.
    pub fn read(&self, from: u64, bytes_max: usize, wait: Duration) -> Result<Read, JournalError> {
        let from = from.max(1);
        match &self.source {
            Source::Shared(shared) => match shared.find(from, bytes_max, wait) {
                Place::Memory(view) => Ok(Read::Batch(view)),
                Place::Ahead => Ok(Read::Idle),
                Place::Closed => Ok(Read::Closed),
                Place::Evicted(next) => Ok(Read::Evicted { next }),
                Place::Segment { path, end } => {
                    // Nothing in the file although it should reach `end`: records were lost with a damaged file.
                    let read = self.read_segment(&path, from, end, bytes_max)?;
                    Ok(read.unwrap_or(Read::Evicted { next: end }))
                }
            },
            Source::Folder(dir) => self.read_folder(dir, from, bytes_max, wait),
        }
    }

    fn read_folder(
        &self,
        dir: &Path,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Read, JournalError> {
        let mut waited = Duration::ZERO;
        loop {
            let segments = files::list(dir)?;
            let index = segments.partition_point(|(first, _)| *first <= from);
            let end = segments.get(index).map(|(first, _)| *first);
            match index.checked_sub(1).and_then(|index| segments.get(index)) {
                Some((_, path)) => {
                    if let Some(read) = self.read_segment(path, from, end.unwrap_or(u64::MAX), bytes_max)? {
                        return Ok(read);
                    }
                    if let Some(next) = end {
                        return Ok(Read::Evicted { next });
                    }
                }
                None => {
                    if let Some(next) = end {
                        return Ok(Read::Evicted { next });
                    }
                }
            }
            if waited >= wait {
                return Ok(Read::Idle);
            }
            std::thread::sleep(POLL_INTERVAL);
            waited += POLL_INTERVAL;
        }
    }

    /// `None` when the segment holds nothing from `from` on.
    fn read_segment(
        &self,
        path: &Path,
        from: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Option<Read>, JournalError> {
        let mut records = Vec::new();
        match self.read_file(path, from, end, bytes_max, &mut records) {
            Ok(()) => {}
            // It was evicted between looking it up and opening it: the next read says so.
            Err(_) if !path.exists() => return Ok(Some(Read::Idle)),
            Err(error) => {
                let next = match &error {
                    JournalError::DamagedChunk { next, .. } => end.min(*next),
                    damage if damage.is_damage() => match self.readable_after(from, end) {
                        Some(next) => next,
                        // Nothing more can be had from this file: trying again would hold up the reader for ever.
                        None if end < u64::MAX => end,
                        None => return Err(error),
                    },
                    _ => return Err(error),
                };
                let next = next.max(from + 1);
                if self.is_news(from, next) {
                    tracing::error!(%error, from, next, records = next - from, "damaged records are skipped");
                }
                return Ok(Some(Read::Evicted { next }));
            }
        }
        Ok(match records.first() {
            None => None,
            Some(record) if record.offset > from => Some(Read::Evicted { next: record.offset }),
            Some(_) => Some(Read::Batch(BatchView::new(Arc::new(Batch { records }), 0, usize::MAX))),
        })
    }

    /// Counts damage; says whether it is to be logged, which only the first of this process's readers does.
    fn is_news(&self, from: u64, next: u64) -> bool {
        match &self.source {
            Source::Shared(shared) => shared.note_damage(from, next),
            Source::Folder(_) => true,
        }
    }

    fn readable_after(&self, at: u64, end: u64) -> Option<u64> {
        // A segment of the newest has no end that is known; SQLite's integers have.
        self.open.lock().as_ref()?.readable_after(at, end.min(i64::MAX.cast_unsigned()))
    }

    fn read_file(
        &self,
        path: &Path,
        from: u64,
        end: u64,
        bytes_max: usize,
        records: &mut Vec<Record>,
    ) -> Result<(), JournalError> {
        let mut open = self.open.lock();
        if open.as_ref().is_none_or(|segment| segment.path != path) {
            // First of all the other one goes: what is asked after a failure is asked of this one.
            *open = None;
            *open = Some(Segment::open_read_only(path)?);
        }
        match open.as_mut() {
            Some(segment) => segment.read(from, end, bytes_max, records),
            None => Ok(()),
        }
    }
}

/// The state as the newest sound segment has it, also while a gateway runs; empty when there is no journal yet.
///
/// # Errors
/// The folder or its newest segment cannot be read.
pub fn state(dir: &Path) -> Result<State, JournalError> {
    match files::list(dir)?.last() {
        Some((_, path)) => Ok(Segment::open_read_only(path)?.recover()?.0),
        None => Ok(State::default()),
    }
}
