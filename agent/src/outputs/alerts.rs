//! The alerts that stand, for whoever looks from outside the pipeline.

use super::{FILE_NAME, OutputsError};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// An alert that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingAlert {
    /// `site/machine/sensor`.
    pub sensor: String,
    /// Axis.
    pub axis: String,
    /// The rule.
    pub rule: String,
    /// Priority, 1 to 1000 as in OPC UA Part 9.
    pub severity: u16,
    /// When it was raised, event time, UTC ns.
    pub raised_ns: i64,
}

/// The alerts that stand in the outputs log in `dir`, at most `count_max`, the oldest first; and how many there are in all. Safe
/// while a gateway runs.
///
/// # Errors
/// SQLite's.
pub fn standing(dir: &Path, count_max: usize) -> Result<(Vec<StandingAlert>, u64), OutputsError> {
    let path = dir.join(FILE_NAME);
    let fail = |source| OutputsError::Sqlite { path: path.clone(), action: "read alerts", source };
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(fail)?;
    db.busy_timeout(std::time::Duration::from_secs(1)).map_err(fail)?;
    let all: i64 =
        db.query_row("SELECT count(*) FROM alerts WHERE active = 1", [], |row| row.get(0)).map_err(fail)?;
    let mut statement = db
        .prepare(
            "SELECT site || '/' || machine || '/' || sensor, axis, rule, severity, raised_ns FROM alerts \
             WHERE active = 1 ORDER BY raised_ns LIMIT ?1",
        )
        .map_err(fail)?;
    let rows = statement.query_map([i64::try_from(count_max).unwrap_or(i64::MAX)], |row| {
        Ok(StandingAlert {
            sensor: row.get(0)?,
            axis: row.get(1)?,
            rule: row.get(2)?,
            severity: row.get(3)?,
            raised_ns: row.get(4)?,
        })
    });
    let alerts = rows.and_then(Iterator::collect).map_err(fail)?;
    Ok((alerts, u64::try_from(all).unwrap_or(0)))
}
