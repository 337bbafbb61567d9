//! What all of the gateway's SQLite files have in common: who may read them, what to trust after a failure, and what
//! becomes of one that is damaged.
//!
//! An fsync that failed has lost the order between what a process sees and what is on disk: the kernel may count pages as
//! written that are not. So a connection on which a commit failed is never used again, and is closed without copying its
//! write-ahead log ([`abandon`]); and whoever opens a file to write first writes its log once more ([`harden`]), so that
//! what is read from it is on disk and not only in the kernel's memory, whatever became of the process before.

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Files that are set aside and kept; when there are more, the oldest are deleted.
pub(crate) const SET_ASIDE_MAX: usize = 3;
/// "Input/output error" of every Unix.
const EIO: i32 = 5;
/// Bytes that are copied at a time.
const COPY_LEN: usize = 1 << 20;

/// The file's name with `suffix` behind it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the file before SQLite does, if it is not there, so that only its user may read it and what SQLite puts beside it.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes what the write-ahead log holds durable, before anyone trusts it: its bytes are written once more and synced. A
/// sync alone would say nothing of pages whose writing had failed before.
pub(crate) fn harden(path: &Path) -> io::Result<()> {
    let mut log = match File::options().read(true).write(true).open(beside(path, "-wal")) {
        Ok(log) => log,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut buffer = vec![0; COPY_LEN];
    let mut at = 0;
    loop {
        log.seek(SeekFrom::Start(at))?;
        let len = log.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        log.seek(SeekFrom::Start(at))?;
        log.write_all(&buffer[..len])?;
        at += len as u64;
    }
    if at > 0 {
        log.sync_all()?;
    }
    Ok(())
}

/// Lets a connection keep a write-ahead log; sets `synchronous` to OFF. SQLite would roll back a change of mode whose sync fails,
/// sync again by the same handle and go on without a log, so the sync is ours.
///
/// # Errors
/// It keeps none, or the file is not durable; the connection is not to be used.
pub(crate) fn keep_log(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "OFF")?;
    let mut mode = String::new();
    // To its end: the mode is told before it is committed.
    connection.pragma(None, "journal_mode", "WAL", |row| {
        mode = row.get(0)?;
        Ok(())
    })?;
    if !mode.eq_ignore_ascii_case("wal") {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        return Err(rusqlite::Error::SqliteFailure(
            code,
            Some(format!("no write-ahead log, its mode is {mode}")),
        ));
    }
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Closes a connection on which a commit failed, without writing anything more by its handles.
pub(crate) fn abandon(connection: Connection) {
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

/// Whether the file's content is to blame, so that trying again will not help.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// Whether what failed may succeed later without a change of configuration: the disk is full, read-only, or does not answer,
/// or a file is locked.
pub(crate) fn may_pass(error: &(dyn std::error::Error + 'static)) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DiskFull, SystemIoFailure};
    let passes = |error: &(dyn std::error::Error + 'static)| {
        if let Some(error) = error.downcast_ref::<rusqlite::Error>() {
            return matches!(error.sqlite_error_code(), Some(DatabaseBusy | DiskFull | SystemIoFailure));
        }
        error.downcast_ref::<io::Error>().is_some_and(|error| {
            use ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
            matches!(error.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
                || error.raw_os_error() == Some(EIO)
        })
    };
    std::iter::successors(Some(error), |error| error.source()).any(passes)
}

/// Copies the write-ahead log into the file as far as readers let it, now and then. SQLite's own way to do that by itself
/// ignores a sync that failed, and would try it again by the same handle.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    pages: u64,
    pages_max: u64,
    page_len: u64,
}

impl Checkpoints {
    /// One for about each `log_len` bytes of log, of a file with pages of `page_len` bytes.
    pub(crate) const fn new(log_len: u64, page_len: u64) -> Self {
        Self { pages: 0, pages_max: log_len / page_len, page_len }
    }

    /// After a commit that wrote about `bytes` to `places` places.
    ///
    /// # Errors
    /// The commit is durable, but the connection is not to be used again.
    pub(crate) fn committed(
        &mut self,
        connection: &Connection,
        bytes: u64,
        places: u64,
    ) -> rusqlite::Result<()> {
        self.pages += bytes / self.page_len + places;
        if self.pages < self.pages_max {
            return Ok(());
        }
        self.pages = 0;
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

/// Makes the names in a file's folder as durable as its bytes.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Deletes a file and what SQLite keeps beside it; none of it need be there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for suffix in ["-wal", "-shm", ""] {
        match std::fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Bytes that the file takes on disk, its write-ahead log included.
pub(crate) fn disk_len(path: &Path) -> u64 {
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    len(path) + len(&beside(path, "-wal"))
}

/// Files of `dir` that were set aside, the oldest first: the number that each got, and its path.
pub(crate) fn list_set_aside(dir: &Path) -> Vec<(u64, PathBuf)> {
    let paths = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<(u64, PathBuf)> = paths
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let number = name.rsplit_once(".damaged-")?.1.parse().ok()?;
            Some((number, path))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Renames a file so that it is out of the way but not lost, and gives its number and new name; deletes the oldest that were
/// set aside when there are more than [`SET_ASIDE_MAX`]. Numbers of a folder never come twice while one is left.
pub(crate) fn set_aside(path: &Path) -> io::Result<(u64, PathBuf)> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut others = list_set_aside(dir);
    let number = others.last().map_or(0, |(number, _)| number + 1);
    let target = beside(path, &format!(".damaged-{number}"));
    for suffix in ["-wal", "-shm", ""] {
        match std::fs::rename(beside(path, suffix), beside(&target, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    others.truncate(others.len().saturating_sub(SET_ASIDE_MAX - 1));
    for (_, path) in others {
        remove(&path)?;
    }
    Ok((number, target))
}
