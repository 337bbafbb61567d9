//! The files of a journal's folder: one SQLite file a segment, each with SQLite's own files beside it.

use super::JournalError;
use std::path::{Path, PathBuf};

/// A segment's file name.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:020}.sqlite")
}

/// The segments of a folder: first offset and path, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let io = |source| JournalError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "sqlite") {
            let first = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if let Some(first) = first {
                found.push((first, path));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Bytes that a segment takes on disk, its write-ahead log included.
pub(super) fn disk_len(path: &Path) -> u64 {
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    len(path) + len(&sidecar(path, "-wal"))
}

/// Deletes a segment.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["-wal", "-shm"] {
        match std::fs::remove_file(sidecar(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::remove_file(path)
}

/// Renames a segment so that it is out of the way but not lost; returns the new name.
pub(super) fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let free = (0..1000).map(|n| sidecar(path, &format!(".damaged-{n}"))).find(|path| !path.exists());
    let target = free.unwrap_or_else(|| sidecar(path, ".damaged"));
    for suffix in ["-wal", "-shm"] {
        match std::fs::rename(sidecar(path, suffix), sidecar(&target, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, &target)?;
    Ok(target)
}

fn sidecar(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the file before SQLite does, so that only its user may read it.
pub(super) fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Makes a new file's name as durable as its bytes.
pub(super) fn sync_dir(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
