//! `forward.sqlite`: where each lane of each destination stands. Losing its newest write only repeats records, so commits
//! do not wait for the disk (WAL, synchronous=NORMAL).

use super::ForwardError;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};

/// The file's schema version.
const VERSION: i64 = 1;

/// The cursors of one destination.
#[derive(Debug)]
pub struct CursorStore {
    path: PathBuf,
    destination: String,
    db: Connection,
}

impl CursorStore {
    /// Opens or makes `forward.sqlite` in `dir`.
    ///
    /// # Errors
    /// SQLite's, or a schema that a newer version wrote.
    pub fn open(dir: &Path, destination: &str) -> Result<Self, ForwardError> {
        let path = dir.join("forward.sqlite");
        let db = open(&path).map_err(|source| ForwardError::Cursor { path: path.clone(), source })?;
        Ok(Self { path, destination: destination.into(), db })
    }

    /// Where `lane` stands; 1 when it never ran.
    ///
    /// # Errors
    /// SQLite's.
    pub fn load(&self, lane: &str) -> Result<u64, ForwardError> {
        self.db
            .query_row(
                "SELECT next FROM cursor WHERE destination = ?1 AND lane = ?2",
                params![self.destination, lane],
                |row| row.get::<_, i64>(0),
            )
            .optional()
            .map(|next| next.map_or(1, |next| u64::try_from(next).unwrap_or(1)))
            .map_err(|source| self.error(source))
    }

    /// Saves where lanes stand, in one transaction.
    ///
    /// # Errors
    /// SQLite's.
    pub fn save(&mut self, lanes: &[(&str, u64)]) -> Result<(), ForwardError> {
        save(&mut self.db, &self.destination, lanes)
            .map_err(|source| ForwardError::Cursor { path: self.path.clone(), source })
    }

    fn error(&self, source: rusqlite::Error) -> ForwardError {
        ForwardError::Cursor { path: self.path.clone(), source }
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "schema version {version} was written by a newer spindle; this one knows {VERSION}"
        )));
    }
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS cursor (
             destination TEXT NOT NULL, lane TEXT NOT NULL, next INTEGER NOT NULL,
             PRIMARY KEY (destination, lane)) WITHOUT ROWID",
    )?;
    db.pragma_update(None, "user_version", VERSION)?;
    Ok(db)
}

fn save(db: &mut Connection, destination: &str, lanes: &[(&str, u64)]) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    {
        let mut statement =
            transaction.prepare_cached("INSERT OR REPLACE INTO cursor VALUES (?1, ?2, ?3)")?;
        for (lane, next) in lanes {
            statement.execute(params![destination, lane, i64::try_from(*next).unwrap_or(i64::MAX)])?;
        }
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_a_restart_and_belongs_to_its_destination() {
        let dir = tempfile::tempdir().unwrap();
        let mut kafka = CursorStore::open(dir.path(), "kafka").unwrap();
        assert_eq!(kafka.load("raw").unwrap(), 1);
        kafka.save(&[("raw", 17), ("alerts", 3)]).unwrap();
        drop(kafka);
        assert_eq!(CursorStore::open(dir.path(), "kafka").unwrap().load("raw").unwrap(), 17);
        assert_eq!(CursorStore::open(dir.path(), "files").unwrap().load("raw").unwrap(), 1);
    }

    #[test]
    fn a_newer_schema_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        drop(CursorStore::open(dir.path(), "kafka").unwrap());
        let db = Connection::open(dir.path().join("forward.sqlite")).unwrap();
        db.pragma_update(None, "user_version", 9).unwrap();
        let error = CursorStore::open(dir.path(), "kafka").unwrap_err().to_string();
        assert!(error.contains("newer spindle"), "{error}");
    }
}
