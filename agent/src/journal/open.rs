//! Opening: the lock, the newest segment, and what to do with one that cannot be trusted.

use super::segment::Segment;
use super::tail::Shared;
use super::{Journal, JournalError, State, Totals, files, frame};
use crate::config;
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
    let current_len = current.as_ref().map_or(0, |segment| files::disk_len(&segment.path));
    let journal = Journal {
        dir: dir.to_owned(),
        config: config.clone(),
        segments,
        current,
        next,
        current_len,
        chunks_since_snapshot: 0,
        bytes_since_snapshot: 0,
        accepted: state.books.iter().map(|(key, book)| (key.clone(), book.accepted)).collect(),
        evicted: state.books.iter().map(|(key, book)| (key.clone(), book.evicted)).collect(),
        evicting: 0,
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
        files::remove(&path).map_err(|source| JournalError::Io { path, source })?;
    }
    Ok(())
}

enum Newest {
    Sound(Box<Segment>, State, u64),
    /// No segment to go on with; a new one starts at `next`.
    Lost {
        state: State,
        next: u64,
    },
}

/// Opens the newest sound segment. Those after it that are damaged are set aside, and leave a hole in the offsets.
fn newest(
    segments: &mut Vec<(u64, PathBuf)>,
    config: &config::Journal,
    totals: &mut Totals,
) -> Result<Newest, JournalError> {
    // First offset that no damaged segment can have used.
    let mut free = 1;
    while let Some((first, path)) = segments.last().cloned() {
        let opened =
            Segment::open(&path, config.synchronous).and_then(|segment| Ok((segment.recover()?, segment)));
        match opened {
            Ok(((state, next), _)) if next < free => return Ok(Newest::Lost { state, next: free }),
            Ok(((state, next), segment)) => return Ok(Newest::Sound(Box::new(segment), state, next)),
            Err(JournalError::Unborn { .. }) => {
                tracing::info!(path = %path.display(), "removed a segment that was being made when the gateway died");
                files::remove(&path).map_err(|source| JournalError::Io { path, source })?;
                free = free.max(first);
            }
            Err(error) if error.is_damage() => {
                let records_max = files::disk_len(&path) / frame::HEADER_LEN as u64;
                free = free.max(first + records_max + 1);
                let kept = files::set_aside(&path)
                    .map_err(|source| JournalError::Io { path: path.clone(), source })?;
                totals.segments_damaged += 1;
                tracing::error!(%error, kept = %kept.display(), next = free, "damaged segment set aside");
            }
            Err(error) => return Err(error),
        }
        segments.pop();
    }
    Ok(Newest::Lost { state: State::default(), next: free })
}
