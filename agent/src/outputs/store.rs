//! The writer of the outputs log.

use super::reader::{OutputReader, Shared};
use super::{ALERTS_MAX, FILE_NAME, OutputsError, salvage};
use crate::config;
use crate::record::{Output, OutputKind, SensorKey};
use crate::sqlite;
use rusqlite::{Connection, Transaction, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the tables, kept in SQLite's `user_version`: 2 has checksums of outputs and of sensors' states.
const SCHEMA_VERSION: i64 = 2;

/// What a row costs besides its text, for the size limit: ids, index, page overhead.
const ROW_OVERHEAD_BYTES: u64 = 96;

/// The log's length, about; pages are SQLite's usual ones.
const CHECKPOINTS: sqlite::Checkpoints = sqlite::Checkpoints::new(8 << 20, 4096);

/// Ids after the n-th damaged file begin at n times 2 to this: more than any file gives out.
const ID_EPOCH_SHIFT: u32 = 40;

/// Most rows evicted in one commit for each row added, so that no commit takes long.
const EVICT_PER_ROW: u64 = 4;

/// The tables as version 1 had them; see [`MIGRATIONS`].
const SCHEMA_1: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE outputs (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, site TEXT NOT NULL, machine TEXT NOT NULL, sensor TEXT NOT NULL,
    time_ns INTEGER NOT NULL, ce_id TEXT NOT NULL, json BLOB NOT NULL);
CREATE TABLE sensors (
    site TEXT NOT NULL, machine TEXT NOT NULL, sensor TEXT NOT NULL, applied INTEGER NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (site, machine, sensor)) WITHOUT ROWID;
CREATE TABLE baselines (
    site TEXT NOT NULL, machine TEXT NOT NULL, sensor TEXT NOT NULL, slot INTEGER NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (site, machine, sensor, slot)) WITHOUT ROWID;
CREATE TABLE alerts (
    id TEXT PRIMARY KEY, site TEXT NOT NULL, machine TEXT NOT NULL, sensor TEXT NOT NULL, axis TEXT NOT NULL,
    rule TEXT NOT NULL, severity INTEGER NOT NULL, active INTEGER NOT NULL, raised_ns INTEGER NOT NULL,
    cleared_ns INTEGER, json BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX alerts_by_age ON alerts (active, raised_ns);
";

/// What brings a file from each version to the next; rows of version 1 have no checksum and are believed.
const MIGRATIONS: [&str; SCHEMA_VERSION as usize] =
    [SCHEMA_1, "ALTER TABLE outputs ADD COLUMN crc INTEGER; ALTER TABLE sensors ADD COLUMN crc INTEGER;"];

/// The state of one sensor as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorSave {
    /// Whose it is.
    pub key: Arc<SensorKey>,
    /// Offset of the last journal record that it includes.
    pub applied: u64,
    /// The state, as `pipeline` encodes it.
    pub state: Vec<u8>,
    /// Rows of the baseline's history that changed since the last save; on load: all of them.
    pub baseline: Vec<BaselineRow>,
    /// Rows of the history from this slot on are void (the baseline was restarted).
    pub baseline_len: u32,
}

/// One window in the history of a baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct BaselineRow {
    /// Place in the ring.
    pub slot: u32,
    /// Values, as `detect` encodes them.
    pub row: Vec<u8>,
}

/// An alert as the alert table keeps it: one row from the moment it is raised, updated until it is cleared.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRow {
    /// The alert's id.
    pub id: Arc<str>,
    /// Whose it is.
    pub key: Arc<SensorKey>,
    /// Axis.
    pub axis: String,
    /// Name of the rule.
    pub rule: Arc<str>,
    /// Priority, 1 to 1000 as in OPC UA Part 9.
    pub severity: u16,
    /// Whether the condition is active.
    pub active: bool,
    /// When it was raised, event time.
    pub raised_ns: i64,
    /// When it was cleared, event time.
    pub cleared_ns: Option<i64>,
    /// The newest record of it.
    pub json: bytes::Bytes,
}

/// What one transaction holds.
#[derive(Debug, Default)]
pub struct Commit {
    /// New outputs; their ids are filled in.
    pub outputs: Vec<Output>,
    /// States of the sensors that made them, and of those whose last save is long ago.
    pub sensors: Vec<SensorSave>,
    /// Alerts raised or cleared.
    pub alerts: Vec<AlertRow>,
    /// Journal offset from which the pipeline must read after a restart.
    pub checkpoint: u64,
}

impl Commit {
    /// Empties it, keeping its buffers.
    pub fn clear(&mut self) {
        self.outputs.clear();
        self.sensors.clear();
        self.alerts.clear();
    }
}

/// What a restart needs.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Journal offset to read from; 0 for an empty log.
    pub checkpoint: u64,
    /// All sensors' states.
    pub sensors: Vec<SensorSave>,
}

/// Counters of the outputs log since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputStats {
    /// Id that the next output gets.
    pub next_id: u64,
    /// Bytes kept, as the size limit counts them.
    pub bytes: u64,
    /// Features and rollups evicted.
    pub evicted_features: u64,
    /// Alert records evicted.
    pub evicted_alerts: u64,
}

/// The outputs log's writer. There is one at a time.
#[derive(Debug)]
pub struct OutputLog {
    path: PathBuf,
    /// `None` after a failed commit: what the file holds is looked at anew before it is written again.
    db: Option<Connection>,
    shared: Arc<Shared>,
    size_max: u64,
    stats: OutputStats,
    /// Whether commits have to evict: the log says so once.
    full: bool,
    checkpoints: sqlite::Checkpoints,
}

impl OutputLog {
    /// Opens `outputs.sqlite` in `dir`, making it if missing. One that is damaged is set aside; what can be read of it goes
    /// to a new one, and if the sensors' states cannot, the pipeline makes all outputs anew from the journal, with the same
    /// ids for Kafka.
    ///
    /// # Errors
    /// SQLite's, or a newer schema version.
    pub fn open(dir: &Path, config: &config::Outputs) -> Result<Self, OutputsError> {
        let path = dir.join(FILE_NAME);
        let opened = connect(&path).and_then(|db| {
            let stats = read_stats(&db, &path)?;
            load(&db, &path)?;
            Ok((db, stats))
        });
        let (db, stats) = match opened {
            Err(error) if error.is_damage() => renew(&path, &error)?,
            opened => opened?,
        };
        let shared = Arc::new(Shared::new(stats.next_id, config.tail_size.as_u64()));
        Ok(Self {
            path,
            db: Some(db),
            shared,
            size_max: config.size_max.as_u64(),
            stats,
            full: false,
            checkpoints: CHECKPOINTS,
        })
    }

    /// What a restart needs.
    ///
    /// # Errors
    /// SQLite's.
    pub fn load(&self) -> Result<Loaded, OutputsError> {
        match &self.db {
            Some(db) => load(db, &self.path),
            None => Ok(Loaded::default()),
        }
    }

    /// A reader with its own place.
    #[must_use]
    pub fn reader(&self) -> OutputReader {
        OutputReader::new(self.path.clone(), Some(Arc::clone(&self.shared)))
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> OutputStats {
        self.stats
    }

    /// Writes all of `commit` in one transaction with fsync, then shows the outputs to the readers. After an error nothing of it
    /// has happened and it can be tried again, after a pause: by another handle, once it is clear what the file holds. When
    /// the file was damaged a new one is in its place, and all sensors' states have to be committed again.
    ///
    /// # Errors
    /// SQLite's, such as a full disk.
    pub fn commit(&mut self, commit: &mut Commit) -> Result<(), OutputsError> {
        match self.try_commit(commit) {
            Ok(stats) => {
                let evicted = stats.evicted_features + stats.evicted_alerts
                    > self.stats.evicted_features + self.stats.evicted_alerts;
                if evicted && !self.full {
                    tracing::warn!(path = %self.path.display(), "outputs are full: the oldest are evicted from now on, and counted");
                }
                // It is full until there is room again for much more than a commit.
                self.full = evicted || (self.full && stats.bytes > self.size_max / 10 * 9);
                self.stats = stats;
                self.shared.publish(&commit.outputs, stats.next_id);
                self.checkpoint(commit);
                Ok(())
            }
            Err(error) => {
                if let Some(db) = self.db.take() {
                    sqlite::abandon(db);
                }
                if error.is_damage() {
                    let (db, stats) = renew(&self.path, &error)?;
                    self.shared.renew(stats.next_id);
                    (self.db, self.stats) = (Some(db), stats);
                }
                Err(error)
            }
        }
    }

    fn checkpoint(&mut self, commit: &Commit) {
        let Some(db) = &self.db else { return };
        let outputs: u64 = commit.outputs.iter().map(output_bytes).sum();
        let states = commit
            .sensors
            .iter()
            .map(|s| s.state.len() + s.baseline.iter().map(|b| b.row.len()).sum::<usize>());
        let places = 4 + (commit.sensors.len() + commit.alerts.len()) as u64 * 2;
        let bytes = outputs + states.sum::<usize>() as u64;
        if let Err(error) = self.checkpoints.committed(db, bytes, places) {
            tracing::warn!(path = %self.path.display(), %error, "the write-ahead log cannot be copied into the file yet");
            if let Some(db) = self.db.take() {
                sqlite::abandon(db);
            }
        }
    }

    fn try_commit(&mut self, commit: &mut Commit) -> Result<OutputStats, OutputsError> {
        let path = &self.path;
        let fail = |action| move |source| OutputsError::Sqlite { path: path.clone(), action, source };
        let mut stats = self.stats;
        for output in &mut commit.outputs {
            output.id = stats.next_id;
            stats.next_id += 1;
            stats.bytes += output_bytes(output);
        }
        let db = match &mut self.db {
            Some(db) => db,
            none => {
                let db = none.insert(connect(path)?);
                let found = read_stats(db, path)?;
                // The commit that failed before had come to the file after all, and is durable by now.
                if !commit.outputs.is_empty() && found.next_id == stats.next_id {
                    return Ok(found);
                }
                db
            }
        };
        let tx = db.transaction().map_err(fail("begin"))?;
        insert_outputs(&tx, &commit.outputs).map_err(fail("write outputs"))?;
        save_sensors(&tx, &commit.sensors).map_err(fail("write sensor states"))?;
        save_alerts(&tx, &commit.alerts).map_err(fail("write alerts"))?;
        if stats.bytes > self.size_max {
            let rows_max = EVICT_PER_ROW * (commit.outputs.len() as u64).max(64);
            evict(&tx, &mut stats, self.size_max, rows_max).map_err(fail("evict"))?;
        }
        write_meta(&tx, &stats, commit.checkpoint).map_err(fail("write checkpoint"))?;
        tx.commit().map_err(fail("commit"))?;
        Ok(stats)
    }
}

/// Opens the file, makes it, or brings it up to this version; what its log holds is durable then.
pub(super) fn connect(path: &Path) -> Result<Connection, OutputsError> {
    let io = |source| OutputsError::Io { path: path.to_owned(), source };
    let fail = |action| move |source| OutputsError::Sqlite { path: path.to_owned(), action, source };
    sqlite::make_private(path).map_err(io)?;
    sqlite::harden(path).map_err(io)?;
    let mut db = Connection::open(path).map_err(fail("open"))?;
    sqlite::keep_log(&db, path).map_err(fail("keep a write-ahead log"))?;
    db.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000; \
         PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 16777216;",
    )
    .map_err(fail("set pragmas"))?;
    let version: i64 =
        db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail("read schema version"))?;
    let Some(steps) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..)) else {
        return Err(OutputsError::Version {
            path: path.to_owned(),
            found: version,
            expected: SCHEMA_VERSION,
        });
    };
    if !steps.is_empty() {
        let tx = db.transaction().map_err(fail("begin"))?;
        for step in steps {
            tx.execute_batch(step).map_err(fail("make tables"))?;
        }
        tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(fail("write schema version"))?;
        tx.commit().map_err(fail("commit"))?;
        sqlite::sync_dir(path).map_err(io)?;
    }
    Ok(db)
}

fn meta(db: &Connection, path: &Path, name: &str) -> Result<u64, OutputsError> {
    let value: Option<i64> = db
        .query_row("SELECT max(value) FROM meta WHERE name = ?1", [name], |row| row.get(0))
        .map_err(|source| OutputsError::Sqlite { path: path.to_owned(), action: "read counters", source })?;
    Ok(value.map_or(0, i64::cast_unsigned))
}

pub(super) fn read_stats(db: &Connection, path: &Path) -> Result<OutputStats, OutputsError> {
    Ok(OutputStats {
        next_id: meta(db, path, "next_id")?.max(1),
        bytes: meta(db, path, "bytes")?,
        evicted_features: meta(db, path, "evicted_features")?,
        evicted_alerts: meta(db, path, "evicted_alerts")?,
    })
}

/// The counters and the checkpoint of the outputs log in `dir`, also while a gateway runs.
///
/// # Errors
/// SQLite's.
pub fn stats(dir: &Path) -> Result<(OutputStats, u64), OutputsError> {
    let path = dir.join(FILE_NAME);
    if !path.exists() {
        return Ok((OutputStats { next_id: 1, ..OutputStats::default() }, 0));
    }
    let db = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|source| OutputsError::Sqlite { path: path.clone(), action: "open for reading", source })?;
    Ok((read_stats(&db, &path)?, meta(&db, &path, "checkpoint")?))
}

pub(super) fn load(db: &Connection, path: &Path) -> Result<Loaded, OutputsError> {
    let fail = |action| move |source| OutputsError::Sqlite { path: path.to_owned(), action, source };
    let mut sensors = db
        .prepare(
            "SELECT site, machine, sensor, applied, state, crc FROM sensors ORDER BY site, machine, sensor",
        )
        .map_err(fail("read sensors"))?;
    let mut history = db
        .prepare(
            "SELECT slot, row FROM baselines WHERE site = ?1 AND machine = ?2 AND sensor = ?3 ORDER BY slot",
        )
        .map_err(fail("read baselines"))?;
    let rows = sensors
        .query_map([], |row| {
            let key = read_key(row, 0)?;
            let applied = row.get::<_, i64>(3)?.cast_unsigned();
            Ok((Arc::new(key), applied, row.get::<_, Vec<u8>>(4)?, row.get::<_, Option<u32>>(5)?))
        })
        .map_err(fail("read sensors"))?;
    let mut loaded = Loaded { checkpoint: meta(db, path, "checkpoint")?, sensors: Vec::new() };
    for row in rows {
        let (key, applied, state, crc) = row.map_err(fail("read sensors"))?;
        if crc.is_some_and(|crc| crc != state_crc(applied, &state)) {
            let reason = format!("the checksum of the state of {key} is wrong");
            return Err(OutputsError::Malformed { path: path.to_owned(), table: "sensors", id: 0, reason });
        }
        let baseline = history
            .query_map(params![&*key.site, &*key.machine, &*key.sensor], |row| {
                Ok(BaselineRow { slot: row.get(0)?, row: row.get(1)? })
            })
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(fail("read baselines"))?;
        let baseline_len = u32::try_from(baseline.len()).unwrap_or(u32::MAX);
        loaded.sensors.push(SensorSave { key, applied, state, baseline, baseline_len });
    }
    Ok(loaded)
}

/// Sets the damaged file aside and puts a new one in its place, with what could be read.
fn renew(path: &Path, error: &OutputsError) -> Result<(Connection, OutputStats), OutputsError> {
    let io = |source| OutputsError::Io { path: path.to_owned(), source };
    let (number, kept) = sqlite::set_aside(path).map_err(io)?;
    let mut db = connect(path)?;
    let mut salvaged = salvage::salvage(&kept);
    // Whatever ids the old file gave out, no reader's cursor points beyond these.
    salvaged.stats.next_id = salvaged.stats.next_id.max((number + 1) << ID_EPOCH_SHIFT);
    tracing::error!(
        %error, kept = %kept.display(), outputs = salvaged.outputs.len(), next_id = salvaged.stats.next_id,
        states = salvaged.loaded.is_some(), "damaged outputs set aside; what could be read of them is kept"
    );
    let fail =
        |source| OutputsError::Sqlite { path: path.to_owned(), action: "write what was salvaged", source };
    let tx = db.transaction().map_err(fail)?;
    insert_outputs(&tx, &salvaged.outputs).map_err(fail)?;
    save_alerts(&tx, &salvaged.alerts).map_err(fail)?;
    let loaded = salvaged.loaded.unwrap_or_default();
    save_sensors(&tx, &loaded.sensors).map_err(fail)?;
    salvaged.stats.bytes = salvaged.outputs.iter().map(output_bytes).sum();
    write_meta(&tx, &salvaged.stats, loaded.checkpoint).map_err(fail)?;
    tx.commit().map_err(fail)?;
    Ok((db, salvaged.stats))
}

/// Over all of an output's row.
pub(super) fn output_crc(output: &Output) -> u32 {
    let key = &output.key;
    let mut crc = crc32c::crc32c(&output.id.to_le_bytes());
    for part in [&*key.site, &*key.machine, &*key.sensor, &*output.ce_id] {
        crc = crc32c::crc32c_append(crc, part.as_bytes());
    }
    crc = crc32c::crc32c_append(crc, &[output.kind as u8]);
    crc = crc32c::crc32c_append(crc, &output.time_ns.to_le_bytes());
    crc32c::crc32c_append(crc, &output.json)
}

fn state_crc(applied: u64, state: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&applied.to_le_bytes()), state)
}

impl Drop for OutputLog {
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn output_bytes(output: &Output) -> u64 {
    (output.json.len() + output.ce_id.len()) as u64 + ROW_OVERHEAD_BYTES
}

pub(super) fn read_key(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<SensorKey> {
    let text = |i| -> rusqlite::Result<Arc<str>> { Ok(row.get_ref(i)?.as_str()?.into()) };
    Ok(SensorKey { site: text(first)?, machine: text(first + 1)?, sensor: text(first + 2)? })
}

fn insert_outputs(tx: &Transaction<'_>, outputs: &[Output]) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO outputs (id, kind, site, machine, sensor, time_ns, ce_id, json, crc) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for o in outputs {
        let id = o.id.cast_signed();
        insert.execute(params![
            id,
            o.kind as u8,
            &*o.key.site,
            &*o.key.machine,
            &*o.key.sensor,
            o.time_ns,
            &*o.ce_id,
            &*o.json,
            output_crc(o)
        ])?;
    }
    Ok(())
}

fn save_sensors(tx: &Transaction<'_>, sensors: &[SensorSave]) -> rusqlite::Result<()> {
    let mut state = tx.prepare_cached(
        "INSERT OR REPLACE INTO sensors (site, machine, sensor, applied, state, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut row = tx.prepare_cached(
        "INSERT OR REPLACE INTO baselines (site, machine, sensor, slot, row) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut void = tx.prepare_cached(
        "DELETE FROM baselines WHERE site = ?1 AND machine = ?2 AND sensor = ?3 AND slot >= ?4",
    )?;
    for s in sensors {
        let (site, machine, sensor) = (&*s.key.site, &*s.key.machine, &*s.key.sensor);
        let crc = state_crc(s.applied, &s.state);
        state.execute(params![site, machine, sensor, s.applied.cast_signed(), s.state, crc])?;
        void.execute(params![site, machine, sensor, s.baseline_len])?;
        for b in &s.baseline {
            row.execute(params![site, machine, sensor, b.slot, b.row])?;
        }
    }
    Ok(())
}

fn save_alerts(tx: &Transaction<'_>, alerts: &[AlertRow]) -> rusqlite::Result<()> {
    if alerts.is_empty() {
        return Ok(());
    }
    let mut upsert = tx.prepare_cached(
        "INSERT OR REPLACE INTO alerts (id, site, machine, sensor, axis, rule, severity, active, raised_ns, cleared_ns, json) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    for a in alerts {
        upsert.execute(params![
            &*a.id,
            &*a.key.site,
            &*a.key.machine,
            &*a.key.sensor,
            a.axis,
            &*a.rule,
            a.severity,
            a.active,
            a.raised_ns,
            a.cleared_ns,
            &*a.json
        ])?;
    }
    tx.prepare_cached(
        "DELETE FROM alerts WHERE active = 0 AND id IN (SELECT id FROM alerts WHERE active = 0 ORDER BY raised_ns DESC \
         LIMIT -1 OFFSET ?1)",
    )?
    .execute([ALERTS_MAX.cast_signed()])?;
    Ok(())
}

/// Deletes the oldest features and rollups, then the oldest alert records, until the limit holds or `rows_max` is reached.
fn evict(
    tx: &Transaction<'_>,
    stats: &mut OutputStats,
    size_max: u64,
    rows_max: u64,
) -> rusqlite::Result<()> {
    let mut rows_left = rows_max;
    for alerts in [false, true] {
        let sign = if alerts { "=" } else { "<>" };
        let mut oldest = tx.prepare_cached(&format!(
            "SELECT id, length(json) + length(ce_id) FROM outputs WHERE kind {sign} ?1 ORDER BY id LIMIT ?2"
        ))?;
        let mut delete = tx.prepare_cached("DELETE FROM outputs WHERE id = ?1")?;
        let mut rows = oldest.query(params![OutputKind::Alert as u8, rows_left.cast_signed()])?;
        let mut doomed = Vec::new();
        while stats.bytes > size_max
            && let Some(row) = rows.next()?
        {
            let (id, len): (i64, u64) = (row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
            stats.bytes = stats.bytes.saturating_sub(len + ROW_OVERHEAD_BYTES);
            doomed.push(id);
        }
        drop(rows);
        for id in &doomed {
            delete.execute([id])?;
        }
        let count = doomed.len() as u64;
        rows_left -= count;
        if alerts {
            stats.evicted_alerts += count;
        } else {
            stats.evicted_features += count;
        }
        // Alerts go only when nothing else is left.
        if stats.bytes <= size_max || rows_left == 0 {
            break;
        }
    }
    Ok(())
}

fn write_meta(tx: &Transaction<'_>, stats: &OutputStats, checkpoint: u64) -> rusqlite::Result<()> {
    let mut put = tx.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?;
    let values = [
        ("checkpoint", checkpoint),
        ("next_id", stats.next_id),
        ("bytes", stats.bytes),
        ("evicted_features", stats.evicted_features),
        ("evicted_alerts", stats.evicted_alerts),
    ];
    for (name, value) in values {
        put.execute(params![name, value.cast_signed()])?;
    }
    Ok(())
}
