//! Opening: the lock, the newest segment, and what to do with one that cannot be trusted.
//!
//! A newest segment with damage is not written any more. If it is a database at all it stays where it is, for what readers
//! can get from it; else it is set aside. The state is what can be trusted of it: its snapshot (or the segment's before) and
//! the changes with right checksums. What changed and is lost may matter in two ways:
//! - a board's place may be an older one: what was acknowledged since is declared lost in the books when the board goes on,
//!   whether or not its records can still be read; none comes twice under another id.
//! - a JSON sensor's numbering may be an older one: it goes on after a jump, so that no two messages get one id.

use super::segment::{Segment, Tuning};
use super::tail::Shared;
use super::{Journal, JournalError, State, Totals, files, frame};
use crate::config;
use crate::sqlite;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn open(dir: &Path, config: &config::Journal) -> Result<(Journal, State), JournalError> {
    let lock = lock(dir)?;
    let mut segments = files::list(dir)?;
    let mut totals = Totals::default();
    let newest = newest(&mut segments, config, &mut totals)?;
    let (current, state, next) = match newest {
        Newest::Sound(current, state, next) => (Some(*current), state, next),
        Newest::Lost { state, next } => (None, state, next),
    };
    if let Some(current) = &current {
        drop_evicted(&mut segments, current.read_head()?.oldest)?;
    }
    let shared =
        Shared::new(next, segments.clone(), usize::try_from(config.tail_size.as_u64()).unwrap_or(usize::MAX));
    let current_len = current.as_ref().map_or(0, |segment| sqlite::disk_len(&segment.path));
    let journal = Journal {
        dir: dir.to_owned(),
        config: config.clone(),
        segments,
        current,
        next,
        current_len,
        chunks_since_snapshot: 0,
        bytes_since_snapshot: 0,
        body_since_snapshot: 0,
        accepted: state.books.iter().map(|(key, book)| (key.clone(), book.accepted)).collect(),
        evicted: state.books.iter().map(|(key, book)| (key.clone(), book.evicted)).collect(),
        evicting: 0,
        purge_before: 0,
        full: false,
        shared: Arc::new(shared),
        totals,
        _lock: lock,
    };
    Ok((journal, state))
}

/// Makes the folder if need be, and takes it for this process.
fn lock(dir: &Path) -> Result<File, JournalError> {
    let io = |source| JournalError::Io { path: dir.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(io)?;
    let path = dir.join("lock");
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(|source| JournalError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(JournalError::Io { path, source }),
    }
}

/// Deletes segments that the books already count as evicted: the gateway died before it deleted them.
fn drop_evicted(segments: &mut Vec<(u64, PathBuf)>, oldest: u64) -> Result<(), JournalError> {
    let keep = segments.partition_point(|(first, _)| *first < oldest);
    for (_, path) in segments.drain(..keep) {
        sqlite::remove(&path).map_err(|source| JournalError::Io { path, source })?;
    }
    Ok(())
}

/// Least bytes that a sample of a JSON message takes in its segment: a digit and a comma.
const JSON_SAMPLE_LEN_MIN: u64 = 2;

enum Newest {
    Sound(Box<Segment>, State, u64),
    /// No segment to go on with; a new one starts at `next`.
    Lost {
        state: State,
        next: u64,
    },
}

/// Opens the newest sound segment. After damaged ones there is a hole in the offsets.
fn newest(
    segments: &mut Vec<(u64, PathBuf)>,
    config: &config::Journal,
    totals: &mut Totals,
) -> Result<Newest, JournalError> {
    // The checkpoint's length matters only while writing: the size of a first segment is as good as any.
    let tuning = Tuning::new(config.synchronous, config.segment_size.as_u64());
    // First offset that no damaged segment can have used.
    let mut free = 1;
    // Damaged ones that can be read in part, the newest first.
    let mut partly = Vec::new();
    let mut samples_max = 0;
    let mut base = None;
    while let Some((first, path)) = segments.pop() {
        let opened = Segment::open(&path, tuning).and_then(|segment| Ok((segment.recover()?, segment)));
        match opened {
            Ok(((state, next), segment)) if partly.is_empty() && next >= free => {
                segments.push((first, path));
                return Ok(Newest::Sound(Box::new(segment), state, next));
            }
            Ok(((state, next), _)) => {
                segments.push((first, path));
                free = free.max(next);
                base = Some(state);
                break;
            }
            Err(JournalError::Unborn { .. }) => {
                tracing::info!(path = %path.display(), "removed a segment that was being made when the gateway died");
                sqlite::remove(&path).map_err(|source| JournalError::Io { path, source })?;
                free = free.max(first);
            }
            Err(error) if error.is_damage() => {
                let len = sqlite::disk_len(&path);
                free = free.max(first + len / frame::HEADER_LEN as u64 + 1);
                samples_max += len / JSON_SAMPLE_LEN_MIN;
                totals.segments_damaged += 1;
                if Segment::open_read_only(&path).is_ok() {
                    tracing::error!(%error, next = free, "damaged segment: what can be read of it stays readable");
                    partly.push((first, path));
                } else {
                    let (_, kept) = sqlite::set_aside(&path)
                        .map_err(|source| JournalError::Io { path: path.clone(), source })?;
                    tracing::error!(%error, kept = %kept.display(), next = free, "damaged segment set aside");
                }
            }
            Err(error) => return Err(error),
        }
    }
    let mut state = base.unwrap_or_default();
    for (first, path) in partly.into_iter().rev() {
        if let Ok(segment) = Segment::open_read_only(&path) {
            state = segment.salvage(state);
        }
        segments.push((first, path));
    }
    for sensor in &mut state.json {
        sensor.next_sample = sensor.next_sample.saturating_add(samples_max);
    }
    Ok(Newest::Lost { state, next: free })
}
