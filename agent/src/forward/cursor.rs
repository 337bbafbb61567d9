//! `forward.sqlite`: where each lane of each destination stands. Losing its newest write only repeats records, so commits
//! do not wait for the disk (WAL, synchronous=NORMAL), a save that fails is no more than a word in the log until one succeeds,
//! and a cursor whose checksum is wrong begins anew: all that is repeated carries the same `ce_id`.

use super::ForwardError;
use crate::sqlite;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};

/// The file's name.
const FILE_NAME: &str = "forward.sqlite";
/// The file's schema version: 2 has a checksum in each row.
const VERSION: i64 = 2;

/// The cursors of one destination.
#[derive(Debug)]
pub struct CursorStore {
    path: PathBuf,
    destination: String,
    /// `None` after a failed save: it is opened anew for the next one.
    db: Option<Connection>,
    failing: bool,
    checkpoints: sqlite::Checkpoints,
}

/// The log's length, about; pages are SQLite's usual ones.
const CHECKPOINTS: sqlite::Checkpoints = sqlite::Checkpoints::new(1 << 20, 4096);

impl CursorStore {
    /// Opens or makes `forward.sqlite` in `dir`; one that is no database any more is set aside.
    ///
    /// # Errors
    /// SQLite's, or a schema that a newer version wrote.
    pub fn open(dir: &Path, destination: &str) -> Result<Self, ForwardError> {
        let path = dir.join(FILE_NAME);
        let db = match open(&path) {
            Err(error) if sqlite::is_damage(&error) => set_aside(&path, &error).and_then(|()| open(&path)),
            db => db,
        };
        let db = db.map_err(|source| ForwardError::Cursor { path: path.clone(), source })?;
        Ok(Self {
            path,
            destination: destination.into(),
            db: Some(db),
            failing: false,
            checkpoints: CHECKPOINTS,
        })
    }

    /// Where `lane` stands; 1 when it never ran, or when nobody knows any more.
    ///
    /// # Errors
    /// SQLite's.
    pub fn load(&self, lane: &str) -> Result<u64, ForwardError> {
        let Some(db) = &self.db else { return Ok(1) };
        match load(db, &self.destination, lane) {
            Ok(next) => Ok(next.unwrap_or(1)),
            Err(error) if sqlite::is_damage(&error) => {
                tracing::error!(path = %self.path.display(), lane, %error, "cursor is damaged: the lane begins anew");
                Ok(1)
            }
            Err(source) => Err(ForwardError::Cursor { path: self.path.clone(), source }),
        }
    }

    /// Saves where lanes stand, in one transaction. When the disk refuses, that is said in the log once, and the next save does
    /// it: nothing is lost by a cursor that is behind.
    ///
    /// # Errors
    /// None yet; the caller is ready for one.
    pub fn save(&mut self, lanes: &[(&str, u64)]) -> Result<(), ForwardError> {
        match self.try_save(lanes) {
            Ok(()) if self.failing => {
                tracing::info!(path = %self.path.display(), "cursors are saved again");
                self.failing = false;
            }
            Ok(()) => {}
            Err(error) => {
                if let Some(db) = self.db.take() {
                    sqlite::abandon(db);
                }
                if !self.failing {
                    tracing::error!(
                        path = %self.path.display(), %error,
                        "cursors cannot be saved: trying again; a restart now would repeat records, but lose none"
                    );
                }
                self.failing = true;
                if sqlite::is_damage(&error) {
                    // The next save makes a new one; if that fails too, the one after it tries.
                    let _ = set_aside(&self.path, &error);
                }
            }
        }
        Ok(())
    }

    fn try_save(&mut self, lanes: &[(&str, u64)]) -> rusqlite::Result<()> {
        let db = match &mut self.db {
            Some(db) => db,
            none => none.insert(open(&self.path)?),
        };
        save(db, &self.destination, lanes)?;
        self.checkpoints.committed(db, 0, 2)
    }
}

/// Every destination's lanes and where they stand, also while a gateway runs; empty when there is no file.
///
/// # Errors
/// SQLite's.
pub fn list(dir: &Path) -> Result<Vec<(String, String, u64)>, ForwardError> {
    let path = dir.join(FILE_NAME);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let read = || -> rusqlite::Result<Vec<_>> {
        let db = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(std::time::Duration::from_secs(5))?;
        let mut statement = db.prepare("SELECT destination, lane, next FROM cursor ORDER BY 1, 2")?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned())))?;
        rows.collect()
    };
    read().map_err(|source| ForwardError::Cursor { path: path.clone(), source })
}

fn set_aside(path: &Path, error: &rusqlite::Error) -> rusqlite::Result<()> {
    let io = |error: std::io::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
    let (_, kept) = sqlite::set_aside(path).map_err(io)?;
    tracing::error!(%error, kept = %kept.display(), "damaged cursors set aside: every lane begins anew, what is sent again carries the same ids");
    Ok(())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let io = |error: std::io::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
    sqlite::make_private(path).map_err(io)?;
    sqlite::harden(path).map_err(io)?;
    let mut db = Connection::open(path)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    sqlite::keep_log(&db, path)?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "schema version {version} was written by a newer spindle; this one knows {VERSION}"
        )));
    }
    if version < VERSION {
        migrate(&mut db, version)?;
    }
    Ok(db)
}

/// Brings the file up from `version`, in one transaction.
fn migrate(db: &mut Connection, version: i64) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    if version < 1 {
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS cursor (
                 destination TEXT NOT NULL, lane TEXT NOT NULL, next INTEGER NOT NULL,
                 PRIMARY KEY (destination, lane)) WITHOUT ROWID",
        )?;
    }
    // Rows of version 1 have none, and are believed.
    transaction.execute_batch("ALTER TABLE cursor ADD COLUMN crc INTEGER")?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn load(db: &Connection, destination: &str, lane: &str) -> rusqlite::Result<Option<u64>> {
    let row: Option<(i64, Option<u32>)> = db
        .query_row(
            "SELECT next, crc FROM cursor WHERE destination = ?1 AND lane = ?2",
            params![destination, lane],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((next, crc)) = row else { return Ok(None) };
    let next = next.cast_unsigned();
    if crc.is_some_and(|found| found != crc_of(destination, lane, next)) {
        tracing::error!(destination, lane, next, "a cursor's checksum is wrong: the lane begins anew");
        return Ok(None);
    }
    Ok(Some(next))
}

fn crc_of(destination: &str, lane: &str, next: u64) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(destination.as_bytes()), lane.as_bytes());
    crc32c::crc32c_append(crc, &next.to_le_bytes())
}

fn save(db: &mut Connection, destination: &str, lanes: &[(&str, u64)]) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    {
        let mut statement = transaction.prepare_cached(
            "INSERT OR REPLACE INTO cursor (destination, lane, next, crc) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for (lane, next) in lanes {
            let crc = crc_of(destination, lane, *next);
            statement.execute(params![destination, lane, next.cast_signed(), crc])?;
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
    fn cursors_of_version_1_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        db.execute_batch(
            "CREATE TABLE cursor (destination TEXT NOT NULL, lane TEXT NOT NULL, next INTEGER NOT NULL,
                 PRIMARY KEY (destination, lane)) WITHOUT ROWID;
             INSERT INTO cursor VALUES ('kafka', 'raw', 17); PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(db);
        let mut store = CursorStore::open(dir.path(), "kafka").unwrap();
        assert_eq!(store.load("raw").unwrap(), 17);
        store.save(&[("raw", 18)]).unwrap();
        assert_eq!(CursorStore::open(dir.path(), "kafka").unwrap().load("raw").unwrap(), 18);
    }

    #[test]
    fn a_damaged_cursor_begins_anew_and_a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        CursorStore::open(dir.path(), "kafka").unwrap().save(&[("raw", 17), ("dlq", 4)]).unwrap();
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE cursor SET next = 1000017 WHERE lane = 'raw'", []).unwrap();
        drop(db);
        let store = CursorStore::open(dir.path(), "kafka").unwrap();
        assert_eq!((store.load("raw").unwrap(), store.load("dlq").unwrap()), (1, 4));
        drop(store);
        std::fs::write(&path, vec![0x5A; 9000]).unwrap();
        let mut store = CursorStore::open(dir.path(), "kafka").unwrap();
        assert_eq!(store.load("raw").unwrap(), 1);
        store.save(&[("raw", 5)]).unwrap();
        assert_eq!(sqlite::list_set_aside(dir.path()).len(), 1);
    }

    #[test]
    fn a_save_that_fails_is_made_good_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = CursorStore::open(dir.path(), "kafka").unwrap();
        store.db.as_ref().unwrap().busy_timeout(std::time::Duration::ZERO).unwrap();
        let other = Connection::open(dir.path().join(FILE_NAME)).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        store.save(&[("raw", 2)]).unwrap();
        assert!(store.failing);
        other.execute_batch("ROLLBACK").unwrap();
        store.save(&[("raw", 3)]).unwrap();
        assert!(!store.failing);
        assert_eq!(CursorStore::open(dir.path(), "kafka").unwrap().load("raw").unwrap(), 3);
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
