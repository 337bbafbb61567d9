//! Readers of the outputs log: the newest records from memory, older ones from the file.

use super::OutputsError;
use super::store::read_key;
use crate::record::{Output, OutputKind};
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags, params};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Most rows that one read takes from the file.
const ROWS_MAX: i64 = 4096;

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
}

impl Shared {
    pub(super) fn new(next_id: u64, bytes_max: u64) -> Self {
        let tail = Tail { outputs: VecDeque::new(), bytes: 0, next_id, closed: false };
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
        Self { path, db: None, shared }
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
            .prepare_cached(
                "SELECT id, kind, site, machine, sensor, time_ns, ce_id, json FROM outputs WHERE id >= ?1 ORDER BY id LIMIT ?2",
            )
            .map_err(fail("read outputs"))?;
        let mut rows = select.query(params![from.cast_signed(), ROWS_MAX]).map_err(fail("read outputs"))?;
        let mut batch: Vec<Output> = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(fail("read outputs"))? {
            let output = read_output(row).map_err(fail("read an output"))?;
            let output = output.map_err(|id| OutputsError::Malformed {
                path: path.clone(),
                table: "outputs",
                id,
                reason: "unknown kind".into(),
            })?;
            if output.id != from + batch.len() as u64 {
                if batch.is_empty() {
                    return Ok(Read::Evicted { next: output.id });
                }
                break;
            }
            bytes += output.json.len();
            if bytes > bytes_max && !batch.is_empty() {
                break;
            }
            batch.push(output);
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
}

fn read_output(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<Output, u64>> {
    let id = row.get::<_, i64>(0)?.cast_unsigned();
    let kind = match row.get::<_, u8>(1)? {
        1 => OutputKind::Features,
        2 => OutputKind::Rollup,
        3 => OutputKind::Alert,
        _ => return Ok(Err(id)),
    };
    let key = Arc::new(read_key(row, 2)?);
    let ce_id = row.get_ref(6)?.as_str()?.into();
    Ok(Ok(Output { id, kind, key, time_ns: row.get(5)?, ce_id, json: row.get::<_, Vec<u8>>(7)?.into() }))
}
