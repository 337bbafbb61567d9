//! Readers of the outputs log: the newest records from memory, older ones from the file.

use super::OutputsError;
use super::store::{output_crc, read_key};
use crate::record::{Output, OutputKind};
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Most rows that one read takes from the file.
const ROWS_MAX: i64 = 4096;

/// What [`read_row`] reads.
pub(super) const COLUMNS: &str = "id, kind, site, machine, sensor, time_ns, ce_id, json, crc";

/// What a read found.
#[derive(Debug)]
pub enum Read {
    /// Consecutive outputs, the first one with the id asked for; never empty.
    Batch(Vec<Output>),
    /// Nothing new within the wait.
    Idle,
    /// The outputs from the id asked for up to `next` were evicted; read on from `next`, and count them.
    Evicted {
        /// Oldest id from there on that is still kept.
        next: u64,
    },
    /// The writer is gone and everything has been read.
    Closed,
}

/// Reads outputs from any id on. Cheap to make; each reader has its own SQLite connection, opened when it first has to read what is
/// no longer in memory.
#[derive(Debug)]
pub struct OutputReader {
    path: PathBuf,
    db: Option<Connection>,
    /// Which of the files that had this name `db` is.
    file: u64,
    shared: Option<Arc<Shared>>,
}

/// The newest outputs, shared by writer and readers.
#[derive(Debug)]
pub(super) struct Shared {
    tail: Mutex<Tail>,
    changed: Condvar,
    bytes_max: u64,
}

#[derive(Debug)]
struct Tail {
    outputs: VecDeque<Output>,
    bytes: u64,
    next_id: u64,
    closed: bool,
    /// Counts the files that took this name after damage.
    file: u64,
}

impl Shared {
    pub(super) fn new(next_id: u64, bytes_max: u64) -> Self {
        let tail = Tail { outputs: VecDeque::new(), bytes: 0, next_id, closed: false, file: 0 };
        Self { tail: Mutex::new(tail), changed: Condvar::new(), bytes_max }
    }

    pub(super) fn publish(&self, outputs: &[Output], next_id: u64) {
        if outputs.is_empty() {
            return;
        }
        let mut tail = self.tail.lock();
        for output in outputs {
            tail.bytes += output.json.len() as u64;
            tail.outputs.push_back(output.clone());
        }
        while tail.bytes > self.bytes_max
            && let Some(oldest) = tail.outputs.pop_front()
        {
            tail.bytes -= oldest.json.len() as u64;
        }
        tail.next_id = next_id;
        drop(tail);
        self.changed.notify_all();
    }

    /// Another file has taken the name, and goes on at `next_id`.
    pub(super) fn renew(&self, next_id: u64) {
        let mut tail = self.tail.lock();
        tail.outputs.clear();
        tail.bytes = 0;
        tail.next_id = next_id;
        tail.file += 1;
    }

    pub(super) fn close(&self) {
        self.tail.lock().closed = true;
        self.changed.notify_all();
    }
}

enum Found {
    Batch(Vec<Output>),
    OnDisk,
    Nothing,
    Closed,
}

impl Shared {
    fn find(&self, from: u64, bytes_max: usize, wait: Duration) -> Found {
        let mut tail = self.tail.lock();
        if from >= tail.next_id && !tail.closed {
            self.changed.wait_while_for(&mut tail, |t| from >= t.next_id && !t.closed, wait);
        }
        if from >= tail.next_id {
            return if tail.closed { Found::Closed } else { Found::Nothing };
        }
        let first = tail.outputs.front().map_or(u64::MAX, |output| output.id);
        if from < first {
            return Found::OnDisk;
        }
        let start = usize::try_from(from - first).unwrap_or(usize::MAX);
        Found::Batch(take(tail.outputs.range(start..).cloned(), bytes_max))
    }
}

/// The first outputs, at least one, up to about `bytes_max` bytes of JSON.
fn take(outputs: impl Iterator<Item = Output>, bytes_max: usize) -> Vec<Output> {
    let mut bytes = 0;
    let mut batch = Vec::new();
    for output in outputs {
        bytes += output.json.len();
        if bytes > bytes_max && !batch.is_empty() {
            break;
        }
        batch.push(output);
    }
    batch
}

impl OutputReader {
    pub(super) fn new(path: PathBuf, shared: Option<Arc<Shared>>) -> Self {
        Self { path, db: None, file: 0, shared }
    }

    /// A reader of another process's outputs log; [`Read::Idle`] is returned at once at its end.
    #[must_use]
    pub fn open_read_only(dir: &Path) -> Self {
        Self::new(dir.join(super::FILE_NAME), None)
    }

    /// Id that the next output will get; `None` when only the file is known.
    #[must_use]
    pub fn next_id(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.tail.lock().next_id)
    }

    /// Outputs from id `from` on (ids start at 1), up to about `bytes_max` bytes of JSON, waiting at most `wait` for the first.
    ///
    /// # Errors
    /// SQLite's, or a malformed row.
    pub fn read(&mut self, from: u64, bytes_max: usize, wait: Duration) -> Result<Read, OutputsError> {
        let from = from.max(1);
        if let Some(shared) = &self.shared {
            match shared.find(from, bytes_max, wait) {
                Found::Batch(batch) => return Ok(Read::Batch(batch)),
                Found::Nothing => return Ok(Read::Idle),
                Found::Closed => return Ok(Read::Closed),
                Found::OnDisk => {}
            }
        }
        self.read_file(from, bytes_max)
    }

    fn read_file(&mut self, from: u64, bytes_max: usize) -> Result<Read, OutputsError> {
        // Read before the query: what is committed later is not in its snapshot, but is not evicted either.
        let next_id = self.next_id();
        let file = self.shared.as_ref().map_or(0, |shared| shared.tail.lock().file);
        if self.file != file {
            (self.db, self.file) = (None, file);
        }
        let mut batch: Vec<Output> = Vec::new();
        match self.read_rows(from, bytes_max, &mut batch) {
            Ok(None) => {}
            Ok(Some(next)) if batch.is_empty() => return Ok(Read::Evicted { next }),
            Ok(Some(_)) => {}
            Err(error) if batch.is_empty() && error.is_damage() => {
                let end = next_id.unwrap_or(u64::MAX).min(i64::MAX.cast_unsigned());
                let next = self.db.as_ref().and_then(|db| readable_after(db, from, end)).or(next_id);
                let Some(next) = next else { return Err(error) };
                tracing::error!(%error, from, next, "damaged outputs are skipped");
                return Ok(Read::Evicted { next: next.max(from + 1) });
            }
            Err(error) if batch.is_empty() => return Err(error),
            // Said when nothing before it is left to hand out.
            Err(_) => {}
        }
        if !batch.is_empty() {
            return Ok(Read::Batch(batch));
        }
        // Everything from there on was evicted, up to what the writer is about to give out.
        match next_id {
            Some(next) if next > from => Ok(Read::Evicted { next }),
            _ => Ok(Read::Idle),
        }
    }

    /// Appends consecutive outputs from id `from` on; gives the id of the first that is there when that is a later one.
    fn read_rows(
        &mut self,
        from: u64,
        bytes_max: usize,
        batch: &mut Vec<Output>,
    ) -> Result<Option<u64>, OutputsError> {
        let path = &self.path;
        let fail = |action| move |source| OutputsError::Sqlite { path: path.clone(), action, source };
        let db = match &mut self.db {
            Some(db) => db,
            none => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let db = Connection::open_with_flags(path, flags).map_err(fail("open for reading"))?;
                db.busy_timeout(Duration::from_secs(10)).map_err(fail("set busy timeout"))?;
                none.insert(db)
            }
        };
        let mut select = db
            .prepare_cached(&format!("SELECT {COLUMNS} FROM outputs WHERE id >= ?1 ORDER BY id LIMIT ?2"))
            .map_err(fail("read outputs"))?;
        let mut rows = select.query(params![from.cast_signed(), ROWS_MAX]).map_err(fail("read outputs"))?;
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(fail("read outputs"))? {
            let (id, output) = read_row(row).map_err(fail("read an output"))?;
            if id != from + batch.len() as u64 {
                return Ok(Some(id));
            }
            let Some(output) = output else {
                if batch.is_empty() {
                    tracing::error!(path = %path.display(), id, "an output's checksum is wrong: skipped");
                }
                return Ok(Some(id + 1));
            };
            bytes += output.json.len();
            if bytes > bytes_max && !batch.is_empty() {
                break;
            }
            batch.push(output);
        }
        Ok(None)
    }
}

/// After `at` could not be read for damage of the file: the first id before `end` from which it can be read again. Steps that
/// double, and the last of them halved.
pub(super) fn readable_after(db: &Connection, at: u64, end: u64) -> Option<u64> {
    let readable = |at: u64| {
        let sql = format!("SELECT {COLUMNS} FROM outputs WHERE id >= ?1 ORDER BY id LIMIT 1");
        let read = db.prepare_cached(&sql).and_then(|mut select| {
            select.query_row([at.cast_signed()], |row| read_row(row).map(|(id, _)| id)).optional()
        });
        read.ok()
    };
    let (mut step, mut broken) = (1u64, at);
    let mut found = loop {
        let next = at.saturating_add(step);
        if next >= end {
            return None;
        }
        match readable(next) {
            Some(Some(_)) => break next,
            Some(None) => return None,
            None => broken = next,
        }
        step = step.saturating_mul(2);
    };
    while found - broken > 1 {
        let middle = broken + (found - broken) / 2;
        if matches!(readable(middle), Some(Some(_))) { found = middle } else { broken = middle }
    }
    Some(found)
}

/// An output's id, and the output when its kind is known and its checksum, if it has one, is right.
pub(super) fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u64, Option<Output>)> {
    let id = row.get::<_, i64>(0)?.cast_unsigned();
    let kind = match row.get::<_, u8>(1)? {
        1 => OutputKind::Features,
        2 => OutputKind::Rollup,
        3 => OutputKind::Alert,
        4 => OutputKind::Spectrum,
        _ => return Ok((id, None)),
    };
    let key = Arc::new(read_key(row, 2)?);
    let ce_id = row.get_ref(6)?.as_str()?.into();
    let json = row.get::<_, Vec<u8>>(7)?.into();
    let output = Output { id, kind, key, time_ns: row.get(5)?, ce_id, json };
    let sound = row.get::<_, Option<u32>>(8)?.is_none_or(|crc| crc == output_crc(&output));
    Ok((id, sound.then_some(output)))
}
