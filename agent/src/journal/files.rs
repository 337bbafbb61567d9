//! The files of a journal's folder: one SQLite file a segment, each with SQLite's own files beside it.
//!
//! A segment's name is the offset of its first record. Where two begin at the same offset, the first has no record that
//! counts (only a state), and the other's name has a number behind it.

use super::JournalError;
use std::path::{Path, PathBuf};

/// A segment's file name: of the first one at an offset, or of another at the same.
pub(super) fn file_name(first: u64, repeat: u32) -> String {
    if repeat == 0 { format!("{first:020}.sqlite") } else { format!("{first:020}-{repeat:04}.sqlite") }
}

/// The segments of a folder: first offset and path, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let io = |source| JournalError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "sqlite")
            && let Some((first, repeat)) = path.file_stem().and_then(|stem| parse(stem.to_str()?))
        {
            found.push((first, repeat, path));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(first, _, path)| (first, path)).collect())
}

fn parse(stem: &str) -> Option<(u64, u32)> {
    match stem.split_once('-') {
        Some((first, repeat)) => Some((first.parse().ok()?, repeat.parse().ok()?)),
        None => Some((stem.parse().ok()?, 0)),
    }
}
