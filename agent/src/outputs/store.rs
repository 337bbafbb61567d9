//! The writer of the outputs log.

use super::reader::{OutputReader, Shared};
use super::{ALERTS_MAX, FILE_NAME, OutputsError};
use crate::config;
use crate::record::{Output, OutputKind, SensorKey};
use rusqlite::{Connection, OpenFlags, Transaction, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the tables, kept in SQLite's `user_version`.
const SCHEMA_VERSION: i64 = 1;

/// What a row costs besides its text, for the size limit: ids, index, page overhead.
const ROW_OVERHEAD_BYTES: u64 = 96;

/// Most rows evicted in one commit for each row added, so that no commit takes long.
const EVICT_PER_ROW: u64 = 4;

const SCHEMA: &str = "
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
    db: Connection,
    shared: Arc<Shared>,
    size_max: u64,
    stats: OutputStats,
}

impl OutputLog {
    /// Opens `outputs.sqlite` in `dir`, making it if missing.
    ///
    /// # Errors
    /// SQLite's, or another schema version.
    pub fn open(dir: &Path, config: &config::Outputs) -> Result<Self, OutputsError> {
        let path = dir.join(FILE_NAME);
        let fail = |action| {
            let path = path.clone();
            move |source| OutputsError::Sqlite { path, action, source }
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(&path, flags).map_err(fail("open"))?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000; \
             PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 2000; PRAGMA journal_size_limit = 16777216;",
        )
        .map_err(fail("set pragmas"))?;
        let version: i64 = db
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(fail("read schema version"))?;
        match version {
            0 => {
                let tx = db.transaction().map_err(fail("begin"))?;
                tx.execute_batch(SCHEMA).map_err(fail("make tables"))?;
                tx.pragma_update(None, "user_version", SCHEMA_VERSION)
                    .map_err(fail("write schema version"))?;
                tx.commit().map_err(fail("commit"))?;
            }
            SCHEMA_VERSION => {}
            found => return Err(OutputsError::Version { path, found, expected: SCHEMA_VERSION }),
        }
        let meta = |name: &str| -> Result<u64, OutputsError> {
            let value: Option<i64> = db
                .query_row("SELECT max(value) FROM meta WHERE name = ?1", [name], |row| row.get(0))
                .map_err(fail("read counters"))?;
            Ok(value.map_or(0, i64::cast_unsigned))
        };
        let stats = OutputStats {
            next_id: meta("next_id")?.max(1),
            bytes: meta("bytes")?,
            evicted_features: meta("evicted_features")?,
            evicted_alerts: meta("evicted_alerts")?,
        };
        let shared = Arc::new(Shared::new(stats.next_id, config.tail_size.as_u64()));
        Ok(Self { path, db, shared, size_max: config.size_max.as_u64(), stats })
    }

    /// What a restart needs.
    ///
    /// # Errors
    /// SQLite's.
    pub fn load(&self) -> Result<Loaded, OutputsError> {
        let fail = |action| move |source| OutputsError::Sqlite { path: self.path.clone(), action, source };
        let checkpoint: Option<i64> = self
            .db
            .query_row("SELECT max(value) FROM meta WHERE name = 'checkpoint'", [], |row| row.get(0))
            .map_err(fail("read checkpoint"))?;
        let mut sensors = self
            .db
            .prepare(
                "SELECT site, machine, sensor, applied, state FROM sensors ORDER BY site, machine, sensor",
            )
            .map_err(fail("read sensors"))?;
        let mut history = self
            .db
            .prepare("SELECT slot, row FROM baselines WHERE site = ?1 AND machine = ?2 AND sensor = ?3 ORDER BY slot")
            .map_err(fail("read baselines"))?;
        let rows = sensors
            .query_map([], |row| {
                let key = read_key(row, 0)?;
                Ok((Arc::new(key), row.get::<_, i64>(3)?.cast_unsigned(), row.get(4)?))
            })
            .map_err(fail("read sensors"))?;
        let mut loaded = Loaded { checkpoint: checkpoint.map_or(0, i64::cast_unsigned), sensors: Vec::new() };
        for row in rows {
            let (key, applied, state) = row.map_err(fail("read sensors"))?;
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
    /// has happened and it can be tried again.
    ///
    /// # Errors
    /// SQLite's, such as a full disk.
    pub fn commit(&mut self, commit: &mut Commit) -> Result<(), OutputsError> {
        let path = &self.path;
        let fail = |action| move |source| OutputsError::Sqlite { path: path.clone(), action, source };
        let mut stats = self.stats;
        for output in &mut commit.outputs {
            output.id = stats.next_id;
            stats.next_id += 1;
            stats.bytes += output_bytes(output);
        }
        let tx = self.db.transaction().map_err(fail("begin"))?;
        insert_outputs(&tx, &commit.outputs).map_err(fail("write outputs"))?;
        save_sensors(&tx, &commit.sensors).map_err(fail("write sensor states"))?;
        save_alerts(&tx, &commit.alerts).map_err(fail("write alerts"))?;
        if stats.bytes > self.size_max {
            let rows_max = EVICT_PER_ROW * (commit.outputs.len() as u64).max(64);
            evict(&tx, &mut stats, self.size_max, rows_max).map_err(fail("evict"))?;
        }
        write_meta(&tx, &stats, commit.checkpoint).map_err(fail("write checkpoint"))?;
        tx.commit().map_err(fail("commit"))?;
        self.stats = stats;
        self.shared.publish(&commit.outputs, stats.next_id);
        Ok(())
    }
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
        "INSERT INTO outputs (id, kind, site, machine, sensor, time_ns, ce_id, json) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
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
            &*o.json
        ])?;
    }
    Ok(())
}

fn save_sensors(tx: &Transaction<'_>, sensors: &[SensorSave]) -> rusqlite::Result<()> {
    let mut state = tx.prepare_cached(
        "INSERT OR REPLACE INTO sensors (site, machine, sensor, applied, state) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut row = tx.prepare_cached(
        "INSERT OR REPLACE INTO baselines (site, machine, sensor, slot, row) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut void = tx.prepare_cached(
        "DELETE FROM baselines WHERE site = ?1 AND machine = ?2 AND sensor = ?3 AND slot >= ?4",
    )?;
    for s in sensors {
        let (site, machine, sensor) = (&*s.key.site, &*s.key.machine, &*s.key.sensor);
        state.execute(params![site, machine, sensor, s.applied.cast_signed(), s.state])?;
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
