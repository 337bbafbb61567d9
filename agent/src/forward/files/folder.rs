//! How much the folder holds, against what it may.

use super::writer::{FINISHED, PART};
use std::path::{Path, PathBuf};

/// The folder's budget.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    size_max: u64,
    /// Bytes of its files as far as is known; others only take away.
    used: Option<u64>,
}

impl Folder {
    pub(super) fn new(dir: &Path, size_max: u64) -> Self {
        Self { dir: dir.to_owned(), size_max, used: None }
    }

    /// Whether [`Self::take`] of `bytes` will look: all that was written must be in the files then.
    pub(super) fn will_look(&self, bytes: u64) -> bool {
        self.used.is_none_or(|used| used + bytes > self.size_max)
    }

    /// Takes `bytes` of the budget; gives what is used when there are not as many left.
    pub(super) fn take(&mut self, bytes: u64) -> std::io::Result<Result<(), u64>> {
        let used = match self.used {
            Some(used) if used + bytes <= self.size_max => used,
            // Someone may have taken files away.
            _ => measure(&self.dir)?,
        };
        if used + bytes > self.size_max {
            self.used = None;
            return Ok(Err(used));
        }
        self.used = Some(used + bytes);
        Ok(Ok(()))
    }

    /// Makes the next [`Self::take`] look.
    pub(super) fn forget(&mut self) {
        self.used = None;
    }

    pub(super) fn size_max(&self) -> u64 {
        self.size_max
    }
}

fn measure(dir: &Path) -> std::io::Result<u64> {
    let mut used = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.ends_with(FINISHED) || name.ends_with(PART));
        if ours {
            // One that was taken away meanwhile takes no place.
            used += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok(used)
}
