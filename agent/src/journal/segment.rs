//! One segment: an SQLite file that holds consecutive records, and the whole state at its head, so that it can be read
//! without any other.
//!
//! ```sql
//! sensor(id, site, machine, sensor)            -- keys that the chunks' records name by id
//! chunk(first, count, crc, state, body)        -- records first .. first+count, and what they changed in the state
//! state(id, next, crc, body)                   -- one row: the whole state before record `next`
//! head(first, oldest, crc, accepted)           -- one row: samples accepted per sensor before record `first`, and the
//!                                              -- oldest segment's first record: those before it are evicted
//! ```
//! `crc` is CRC-32C over all other columns of its row. A chunk's `state` comes before its `body`, so that reading the
//! changes does not read the samples.

use super::state::{Key, State};
use super::{JournalError, frame};
use crate::config::Synchronous;
use crate::record::{Record, SensorKey};
use crate::sqlite;
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Version of the tables and of the state's form, in SQLite's `user_version`.
pub(super) const SCHEMA_VERSION: i64 = 1;
/// Marks the file as Spindle's ("SPDL"), in SQLite's `application_id`.
const APPLICATION_ID: i64 = 0x5350_444C;
/// Bytes of a page. A row longer than a page goes on in overflow pages, one after the other: fewer with large pages. A lone
/// commit writes whole pages: less with small ones. That pages should not be small is known from measurements by others
/// with rows of 16 kB; this size was not measured with the journal's own rows.
const PAGE_SIZE: u32 = 32 * 1024;
/// Most bytes of the write-ahead log before they are copied into the file.
const CHECKPOINT_LEN_MAX: u64 = 16 << 20;
/// Most bytes of records in one chunk; a larger commit has several.
const CHUNK_BYTES_MAX: usize = 512 * 1024;
/// How long to wait for another process (a shell, a backup) that locks the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) const SCHEMA: &str = "
CREATE TABLE sensor (id INTEGER PRIMARY KEY, site TEXT NOT NULL, machine TEXT NOT NULL, sensor TEXT NOT NULL) STRICT;
CREATE TABLE chunk (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, crc INTEGER NOT NULL, state BLOB NOT NULL,
                    body BLOB NOT NULL) STRICT;
CREATE TABLE state (id INTEGER PRIMARY KEY, next INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE head (first INTEGER PRIMARY KEY, oldest INTEGER NOT NULL, crc INTEGER NOT NULL, accepted BLOB NOT NULL) STRICT;
";

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    connection: Connection,
    /// What the first commit has to write at the head.
    head: Option<Head>,
    /// Ids of the keys in `sensor`.
    ids: HashMap<Arc<SensorKey>, u32>,
    /// Keys by id.
    keys: HashMap<u32, Arc<SensorKey>>,
    scratch: Vec<u8>,
    checkpoints: sqlite::Checkpoints,
}

/// How segments are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    pub(super) synchronous: Synchronous,
    /// Bytes of the write-ahead log before they are copied into the file.
    pub(super) checkpoint_len: u64,
}

impl Tuning {
    /// For segments of `len_max` bytes: the log beside them stays small against them.
    pub(super) fn new(synchronous: Synchronous, len_max: u64) -> Self {
        Self { synchronous, checkpoint_len: (len_max / 4).clamp(256 << 10, CHECKPOINT_LEN_MAX) }
    }

    fn checkpoints(self) -> sqlite::Checkpoints {
        sqlite::Checkpoints::new(self.checkpoint_len, u64::from(PAGE_SIZE))
    }
}

/// What stands at a segment's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Its first record.
    pub(super) first: u64,
    /// First record of the oldest segment then: those before it were evicted, and counted.
    pub(super) oldest: u64,
    /// Samples accepted per sensor before `first`.
    pub(super) accepted: Vec<(Key, u64)>,
}

/// A chunk's part in the state.
struct Changes {
    first: u64,
    count: u64,
    changes: Vec<u8>,
    /// Whether the chunk's checksum is right.
    sound: bool,
}

/// What one transaction writes.
pub(super) struct Commit<'a> {
    /// Offset of the first record, or of the one that would be.
    pub(super) first: u64,
    /// The records; may be none.
    pub(super) records: &'a [Record],
    /// What they changed, encoded.
    pub(super) changes: &'a [u8],
    /// The whole state after the records, if it is to be written too.
    pub(super) snapshot: Option<&'a [u8]>,
}

impl Segment {
    /// Makes a new file; the first commit, which must carry a snapshot, makes its tables, so that there never is a
    /// segment without records or without a state.
    pub(super) fn create(path: &Path, head: Head, tuning: Tuning) -> Result<Self, JournalError> {
        let sql = |source| JournalError::Sqlite { path: path.to_owned(), source };
        sqlite::make_private(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
        let connection = Connection::open(path).map_err(sql)?;
        connection.pragma_update(None, "page_size", PAGE_SIZE).map_err(sql)?;
        tune(&connection, path, tuning).map_err(sql)?;
        let mut segment = Self::new(path, connection);
        segment.checkpoints = tuning.checkpoints();
        segment.head = Some(head);
        Ok(segment)
    }

    fn new(path: &Path, connection: Connection) -> Self {
        Self {
            path: path.to_owned(),
            connection,
            head: None,
            ids: HashMap::new(),
            keys: HashMap::new(),
            scratch: Vec::new(),
            checkpoints: sqlite::Checkpoints::new(CHECKPOINT_LEN_MAX, u64::from(PAGE_SIZE)),
        }
    }

    /// Opens a segment to go on writing, once what its log holds is durable for certain.
    pub(super) fn open(path: &Path, tuning: Tuning) -> Result<Self, JournalError> {
        sqlite::harden(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
        let sql = |source| JournalError::Sqlite { path: path.to_owned(), source };
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sql)?;
        check_version(&connection, path)?;
        tune(&connection, path, tuning).map_err(sql)?;
        let mut segment = Self::with_keys(path, connection)?;
        segment.checkpoints = tuning.checkpoints();
        Ok(segment)
    }

    /// Opens a segment to read.
    pub(super) fn open_read_only(path: &Path) -> Result<Self, JournalError> {
        let sql = |source| JournalError::Sqlite { path: path.to_owned(), source };
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sql)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sql)?;
        check_version(&connection, path)?;
        Self::with_keys(path, connection)
    }

    fn with_keys(path: &Path, connection: Connection) -> Result<Self, JournalError> {
        let mut segment = Self::new(path, connection);
        segment.load_keys()?;
        Ok(segment)
    }

    fn load_keys(&mut self) -> Result<(), JournalError> {
        let known = self.keys.keys().max().copied().unwrap_or(0);
        let loaded = || -> rusqlite::Result<Vec<(u32, Arc<SensorKey>)>> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT id, site, machine, sensor FROM sensor WHERE id > ?1 ORDER BY id")?;
            let rows = statement.query_map([known], |row| {
                let text = |column| row.get::<_, String>(column).map(Arc::from);
                let key = SensorKey { site: text(1)?, machine: text(2)?, sensor: text(3)? };
                Ok((row.get(0)?, Arc::new(key)))
            })?;
            rows.collect()
        };
        for (id, key) in loaded().map_err(|source| self.sql(source))? {
            self.ids.insert(key.clone(), id);
            self.keys.insert(id, key);
        }
        Ok(())
    }

    fn sql(&self, source: rusqlite::Error) -> JournalError {
        JournalError::Sqlite { path: self.path.clone(), source }
    }

    /// Copies the log into the file when it is long, after a commit of `bytes`.
    ///
    /// # Errors
    /// The commit is durable, but the segment is not to be written again.
    pub(super) fn checkpoint_when_due(&mut self, bytes: u64) -> Result<(), JournalError> {
        // The chunk's leaf and its way down, a new key's, the snapshot's.
        self.checkpoints.committed(&self.connection, bytes, 3).map_err(|source| self.sql(source))
    }

    /// Commits records and state changes in one transaction, durable when this returns. After an error the segment is
    /// not to be written again: SQLite and the kernel may disagree on what is on disk.
    pub(super) fn commit(&mut self, commit: &Commit<'_>) -> Result<(), JournalError> {
        let new_keys = self.new_keys(commit.records);
        let mut scratch = std::mem::take(&mut self.scratch);
        let written = self.write(commit, &new_keys, &mut scratch);
        self.scratch = scratch;
        written.map_err(|source| self.sql(source))?;
        if self.head.take().is_some() {
            sqlite::sync_dir(&self.path)
                .map_err(|source| JournalError::Io { path: self.path.clone(), source })?;
        }
        for (id, key) in new_keys {
            self.keys.insert(id, key);
        }
        Ok(())
    }

    /// Gives ids to keys that the segment has not seen.
    fn new_keys(&mut self, records: &[Record]) -> Vec<(u32, Arc<SensorKey>)> {
        let mut new = Vec::new();
        for record in records {
            if !self.ids.contains_key(&record.key) {
                let id = u32::try_from(self.ids.len() + 1).unwrap_or(u32::MAX);
                self.ids.insert(record.key.clone(), id);
                new.push((id, record.key.clone()));
            }
        }
        new
    }

    fn write(
        &self,
        commit: &Commit<'_>,
        new_keys: &[(u32, Arc<SensorKey>)],
        scratch: &mut Vec<u8>,
    ) -> rusqlite::Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let written = self.write_rows(commit, new_keys, scratch);
        if written.is_err() {
            let _ = self.connection.execute_batch("ROLLBACK");
            return written;
        }
        self.connection.prepare_cached("COMMIT")?.execute([]).map(drop)
    }

    fn write_rows(
        &self,
        commit: &Commit<'_>,
        new_keys: &[(u32, Arc<SensorKey>)],
        scratch: &mut Vec<u8>,
    ) -> rusqlite::Result<()> {
        if let Some(head) = &self.head {
            write_head(&self.connection, head)?;
        }
        for (id, key) in new_keys {
            self.connection
                .prepare_cached("INSERT INTO sensor (id, site, machine, sensor) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![id, &*key.site, &*key.machine, &*key.sensor])?;
        }
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO chunk (first, count, crc, state, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut first = commit.first;
        let mut rest = commit.records;
        while !rest.is_empty() {
            scratch.clear();
            let mut count = 0;
            while let Some(record) = rest.get(count)
                && (count == 0 || scratch.len() + frame::HEADER_LEN + record.body.len() <= CHUNK_BYTES_MAX)
            {
                frame::encode(record, self.ids.get(&record.key).copied().unwrap_or(0), scratch);
                count += 1;
            }
            rest = &rest[count..];
            let changes = if rest.is_empty() { commit.changes } else { &[] };
            let crc = chunk_crc(first, count as u64, changes, scratch);
            insert.execute(params![
                first.cast_signed(),
                i64::try_from(count).unwrap_or(i64::MAX),
                crc,
                changes,
                &scratch[..]
            ])?;
            first += count as u64;
        }
        if let Some(body) = commit.snapshot {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO state (id, next, crc, body) VALUES (1, ?1, ?2, ?3)")?
                .execute(params![first.cast_signed(), row_crc(first, 0, body), body])?;
        }
        Ok(())
    }

    /// The newest state, and the offset after the last record: the newest snapshot, and the changes after it, each with its
    /// checksum.
    pub(super) fn recover(&self) -> Result<(State, u64), JournalError> {
        let (mut next, body) = self.state_row()?;
        let mut parts = vec![self.decode_state(&body)?];
        self.changes_from(next, |chunk| {
            if !chunk.sound {
                return Err(self.damaged("the checksum of a chunk is wrong"));
            }
            if chunk.first != next {
                return Err(self.damaged("its records are not consecutive"));
            }
            next += chunk.count;
            if !chunk.changes.is_empty() {
                parts.push(self.decode_state(&chunk.changes)?);
            }
            Ok(())
        })?;
        Ok((State::fold(parts), next))
    }

    /// What can be had of the state: `base` or the snapshot, and those of the changes after it that can be trusted.
    pub(super) fn salvage(&self, base: State) -> State {
        let snapshot = self.state_row().and_then(|(next, body)| Ok((self.decode_state(&body)?, next)));
        let (whole, next) = snapshot.unwrap_or((base, 0));
        let mut parts = vec![whole];
        let _ = self.changes_from(next, |chunk| {
            if chunk.sound && !chunk.changes.is_empty() {
                parts.extend(self.decode_state(&chunk.changes).ok());
            }
            Ok(())
        });
        State::fold(parts)
    }

    fn changes_from(
        &self,
        from: u64,
        mut take: impl FnMut(Changes) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut statement = self
            .connection
            .prepare("SELECT first, count, crc, state, body FROM chunk WHERE first >= ?1 ORDER BY first")
            .map_err(|source| self.sql(source))?;
        let mut rows = statement.query([from.cast_signed()]).map_err(|source| self.sql(source))?;
        while let Some(row) = rows.next().map_err(|source| self.sql(source))? {
            let read = || -> rusqlite::Result<Changes> {
                let (first, count) =
                    (row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
                let (crc, changes) = (row.get::<_, u32>(2)?, row.get_ref(3)?.as_blob()?);
                let sound = crc == chunk_crc(first, count, changes, row.get_ref(4)?.as_blob()?);
                Ok(Changes { first, count, changes: changes.to_vec(), sound })
            };
            take(read().map_err(|source| self.sql(source))?)?;
        }
        Ok(())
    }

    /// What was written at the segment's head.
    pub(super) fn read_head(&self) -> Result<Head, JournalError> {
        let (first, oldest, crc, accepted): (i64, i64, u32, Vec<u8>) = self
            .connection
            .query_row("SELECT first, oldest, crc, accepted FROM head", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .map_err(|source| self.sql(source))?;
        let (first, oldest) = (first.cast_unsigned(), oldest.cast_unsigned());
        if crc != row_crc(first, oldest, &accepted) {
            return Err(self.damaged("the checksum of its head is wrong"));
        }
        let accepted = postcard::from_bytes(&accepted).map_err(|_| self.damaged("its head is malformed"))?;
        Ok(Head { first, oldest, accepted })
    }

    fn decode_state(&self, body: &[u8]) -> Result<State, JournalError> {
        State::from_bytes(body).map_err(|_| self.damaged("its state is malformed"))
    }

    fn damaged(&self, reason: &'static str) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), reason }
    }

    fn state_row(&self) -> Result<(u64, Vec<u8>), JournalError> {
        let (next, crc, body): (i64, u32, Vec<u8>) = self
            .connection
            .query_row("SELECT next, crc, body FROM state", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .map_err(|source| self.sql(source))?;
        let next = next.cast_unsigned();
        if crc == row_crc(next, 0, &body) {
            Ok((next, body))
        } else {
            Err(self.damaged("the checksum of its state is wrong"))
        }
    }

    /// Reads records from `from` on into `records`, at least one if there is any, about `bytes_max`, none at or after
    /// `end`.
    pub(super) fn read(
        &mut self,
        from: u64,
        end: u64,
        bytes_max: usize,
        records: &mut Vec<Record>,
    ) -> Result<(), JournalError> {
        let mut bytes = 0;
        let mut at = from;
        while bytes < bytes_max && at < end {
            let (first, count, body) = match self.read_chunk(at) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                // Damage is reported once nothing before it is left to hand out.
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(error),
            };
            if first + count <= at {
                break;
            }
            let start = records.len();
            if let Err(reason) = self.decode_chunk(&body, first, count, records) {
                records.truncate(start);
                if !records.is_empty() {
                    break;
                }
                return Err(JournalError::DamagedChunk {
                    path: self.path.clone(),
                    next: first + count,
                    reason,
                });
            }
            let skip = usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX);
            records.drain(start..(start + skip).min(records.len()));
            bytes += body.len();
            at = first + count;
        }
        records.truncate(records.iter().position(|record| record.offset >= end).unwrap_or(records.len()));
        Ok(())
    }

    fn decode_chunk(
        &mut self,
        body: &Bytes,
        first: u64,
        count: u64,
        records: &mut Vec<Record>,
    ) -> Result<(), &'static str> {
        let count = usize::try_from(count).map_err(|_| "it claims too many records")?;
        let start = records.len();
        let keys = &self.keys;
        let decoded = frame::decode(body, first, count, |id| keys.get(&id).cloned(), records);
        if decoded.is_ok() {
            return decoded;
        }
        // A writer elsewhere may have added sensors since the keys were loaded.
        records.truncate(start);
        self.load_keys().map_err(|_| "its sensors cannot be read")?;
        let keys = &self.keys;
        frame::decode(body, first, count, |id| keys.get(&id).cloned(), records)
    }

    /// After `at` could not be read for damage of the file itself: the first offset before `end` from which it can be read
    /// again. What lies in a broken page is passed over in steps that double, and the last of them is halved.
    pub(super) fn readable_after(&self, at: u64, end: u64) -> Option<u64> {
        let readable =
            |at: u64| matches!(self.read_chunk(at), Ok(Some(_)) | Err(JournalError::DamagedChunk { .. }));
        let mut step = 1;
        let mut broken = at;
        let mut found = loop {
            let next = at.saturating_add(step);
            if next >= end {
                return None;
            }
            if readable(next) {
                break next;
            }
            broken = next;
            step = step.saturating_mul(2);
        };
        while found - broken > 1 {
            let middle = broken + (found - broken) / 2;
            if readable(middle) { found = middle } else { broken = middle }
        }
        Some(found)
    }

    /// The chunk that holds record `at`, or the next one.
    fn read_chunk(&self, at: u64) -> Result<Option<(u64, u64, Bytes)>, JournalError> {
        let found = || -> rusqlite::Result<_> {
            let mut statement = self.connection.prepare_cached(
                "SELECT first, count, crc, state, body FROM chunk
                 WHERE first >= coalesce((SELECT max(first) FROM chunk WHERE first <= ?1), 0) ORDER BY first LIMIT 1",
            )?;
            statement
                .query_row([at.cast_signed()], |row| {
                    let (first, count, crc) =
                        (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, u32>(2)?);
                    let (first, count) = (first.cast_unsigned(), count.cast_unsigned());
                    let body = row.get_ref(4)?.as_blob()?;
                    let sound = crc == chunk_crc(first, count, row.get_ref(3)?.as_blob()?, body);
                    Ok((first, count, sound.then(|| Bytes::copy_from_slice(body))))
                })
                .optional()
        };
        match found().map_err(|source| self.sql(source))? {
            Some((first, count, Some(body))) => Ok(Some((first, count, body))),
            Some((first, count, None)) => Err(JournalError::DamagedChunk {
                path: self.path.clone(),
                next: first + count,
                reason: "its checksum is wrong",
            }),
            None => Ok(None),
        }
    }

    /// Offset after the last record that is committed now; `None` when there is none.
    pub(super) fn next(&self) -> Result<Option<u64>, JournalError> {
        let found: Option<i64> = self
            .connection
            .prepare_cached("SELECT first + count FROM chunk ORDER BY first DESC LIMIT 1")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)).optional())
            .map_err(|source| self.sql(source))?;
        Ok(found.map(i64::cast_unsigned))
    }

    /// Closes it after a failed commit, without writing anything more.
    pub(super) fn abandon(self) {
        sqlite::abandon(self.connection);
    }

    /// Copies the write-ahead log into the file, so that closing is quick and nothing is left beside it.
    pub(super) fn checkpoint(&self) -> Result<(), JournalError> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|source| self.sql(source))
    }
}

/// Encodes a state or a change of it.
pub(super) fn encode_state(state: &State) -> Result<Vec<u8>, JournalError> {
    state.to_bytes().map_err(|_| JournalError::State)
}

fn write_head(connection: &Connection, head: &Head) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    let accepted = postcard::to_stdvec(&head.accepted)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection
        .prepare("INSERT INTO head (first, oldest, crc, accepted) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            head.first.cast_signed(),
            head.oldest.cast_signed(),
            row_crc(head.first, head.oldest, &accepted),
            accepted
        ])
        .map(drop)
}

pub(super) fn row_crc(a: u64, b: u64, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&a.to_le_bytes()), &b.to_le_bytes());
    crc32c::crc32c_append(crc, body)
}

pub(super) fn chunk_crc(first: u64, count: u64, changes: &[u8], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&first.to_le_bytes()), &count.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, changes), body)
}

fn tune(connection: &Connection, path: &Path, tuning: Tuning) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    sqlite::keep_log(connection, path)?;
    let level = match tuning.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Off => "OFF",
    };
    connection.pragma_update(None, "synchronous", level)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -8 * 1024)?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(())
}

fn check_version(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let sql = |source| JournalError::Sqlite { path: path.to_owned(), source };
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    match version {
        SCHEMA_VERSION => Ok(()),
        0 => Err(JournalError::Unborn { path: path.to_owned() }),
        _ => Err(JournalError::NewerSchema { path: path.to_owned(), version }),
    }
}
