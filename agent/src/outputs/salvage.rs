//! What can still be read of a damaged outputs log.

use super::reader::{COLUMNS, read_row, readable_after};
use super::store::{self, AlertRow, Loaded, OutputStats, read_key};
use crate::record::Output;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::Arc;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    pub(super) outputs: Vec<Output>,
    pub(super) alerts: Vec<AlertRow>,
    /// The sensors' states with their checkpoint, if all of them can be trusted.
    pub(super) loaded: Option<Loaded>,
    pub(super) stats: OutputStats,
}

/// Reads what can be read.
pub(super) fn salvage(path: &Path) -> Salvaged {
    let mut salvaged =
        Salvaged { stats: OutputStats { next_id: 1, ..OutputStats::default() }, ..Salvaged::default() };
    let Ok(db) = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY) else { return salvaged };
    if let Ok(stats) = store::read_stats(&db, path) {
        salvaged.stats = stats;
    }
    salvaged.loaded = store::load(&db, path).ok();
    let mut from = 1;
    while let Some(next) = outputs(&db, from, &mut salvaged.outputs) {
        from = next;
    }
    let next = salvaged.outputs.last().map_or(1, |output| output.id + 1);
    salvaged.stats.next_id = salvaged.stats.next_id.max(next);
    let _ = alerts(&db, &mut salvaged.alerts);
    salvaged
}

/// Reads outputs until the end or damage; gives the id to go on from after damage.
fn outputs(db: &Connection, from: u64, found: &mut Vec<Output>) -> Option<u64> {
    let mut at = from;
    let mut read = || -> rusqlite::Result<()> {
        let mut select = db.prepare(&format!("SELECT {COLUMNS} FROM outputs WHERE id >= ?1 ORDER BY id"))?;
        let mut rows = select.query([from.cast_signed()])?;
        while let Some(row) = rows.next()? {
            let (id, output) = read_row(row)?;
            found.extend(output);
            at = id + 1;
        }
        Ok(())
    };
    match read() {
        Ok(()) => None,
        Err(_) => readable_after(db, at, i64::MAX.cast_unsigned()),
    }
}

fn alerts(db: &Connection, found: &mut Vec<AlertRow>) -> rusqlite::Result<()> {
    let mut select = db.prepare(
        "SELECT site, machine, sensor, id, axis, rule, severity, active, raised_ns, cleared_ns, json FROM alerts",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        found.push(AlertRow {
            id: row.get_ref(3)?.as_str()?.into(),
            key: Arc::new(read_key(row, 0)?),
            axis: row.get(4)?,
            rule: row.get_ref(5)?.as_str()?.into(),
            severity: row.get(6)?,
            active: row.get(7)?,
            raised_ns: row.get(8)?,
            cleared_ns: row.get(9)?,
            json: row.get::<_, Vec<u8>>(10)?.into(),
        });
    }
    Ok(())
}
