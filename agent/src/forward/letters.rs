//! `dlq.sqlite`: records that a destination refuses, and what became of dead letters. Written by the gateway and by
//! `spindle dlq` alike, which may run at the same time; fsynced, for a cursor moves past what is noted here.
//!
//! | limit | value | when reached |
//! |---|---|---|
//! | undeliverable records | [`LETTERS_MAX`] | the oldest are forgotten, those handled first; Kafka's dead letters still tell of them |
//! | refused input noted as handled | [`LETTERS_MAX`] | the oldest notes are forgotten |

use super::log::Item;
use crate::sqlite;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most letters of each kind.
pub const LETTERS_MAX: u32 = 100_000;
/// Name of the file within the data folder.
pub const FILE_NAME: &str = "dlq.sqlite";
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS undeliverable (
    number INTEGER PRIMARY KEY, destination TEXT NOT NULL, lane TEXT NOT NULL, position INTEGER NOT NULL,
    key TEXT NOT NULL, time_ns INTEGER NOT NULL, topic TEXT NOT NULL, payload_bytes INTEGER NOT NULL,
    reason TEXT NOT NULL, state INTEGER NOT NULL, tries INTEGER NOT NULL, UNIQUE (destination, lane, position));
CREATE INDEX IF NOT EXISTS undeliverable_by_state ON undeliverable (state, number);
CREATE TABLE IF NOT EXISTS refused (position INTEGER PRIMARY KEY, state INTEGER NOT NULL);
";

const COLUMNS: &str = "destination, lane, position, key, time_ns, topic, payload_bytes, reason, state, tries";

/// What became of a dead letter. The numbers are stored and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum LetterState {
    /// Nothing yet.
    Open = 0,
    /// To be tried again by the gateway.
    Asked = 1,
    /// Tried again, with success.
    Delivered = 2,
    /// Somebody said that it needs no more.
    Dropped = 3,
}

impl LetterState {
    fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Asked,
            2 => Self::Delivered,
            3 => Self::Dropped,
            _ => Self::Open,
        }
    }
}

/// A record that a destination refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Which destination.
    pub destination: String,
    /// Which of its lanes.
    pub lane: String,
    /// Position in the lane's log.
    pub position: u64,
    /// `site/machine/sensor`.
    pub key: String,
    /// Event time, UTC ns.
    pub time_ns: i64,
    /// The topic that it was for.
    pub topic: String,
    /// Its length.
    pub payload_bytes: u64,
    /// Why it was refused, the last time.
    pub reason: String,
    /// What became of it.
    pub state: LetterState,
    /// How often it was tried again.
    pub tries: u64,
}

/// Why the list cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("list of dead letters {path}: {source}")]
pub struct LettersError {
    /// The file.
    pub path: PathBuf,
    /// SQLite's error.
    pub source: rusqlite::Error,
}

/// The list.
#[derive(Debug)]
pub struct Letters {
    path: PathBuf,
    db: Connection,
}

impl Letters {
    /// Opens or makes the list in `dir`.
    ///
    /// # Errors
    /// SQLite's, or a schema that a newer version wrote.
    pub fn open(dir: &Path) -> Result<Self, LettersError> {
        let path = dir.join(FILE_NAME);
        match open(&path) {
            Ok(db) => Ok(Self { path, db }),
            Err(source) => Err(LettersError { path, source }),
        }
    }

    fn run<T>(&self, result: rusqlite::Result<T>) -> Result<T, LettersError> {
        result.map_err(|source| LettersError { path: self.path.clone(), source })
    }

    /// Notes a record that `destination` refuses; one that is known keeps its state but for a newer reason.
    ///
    /// # Errors
    /// SQLite's.
    pub fn add(
        &self,
        destination: &str,
        lane: &str,
        item: &Item,
        topic: &str,
        reason: &str,
    ) -> Result<(), LettersError> {
        let added = self.db.execute(
            "INSERT INTO undeliverable (destination, lane, position, key, time_ns, topic, payload_bytes, reason, state, tries)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0)
             ON CONFLICT (destination, lane, position) DO UPDATE SET reason = excluded.reason",
            params![
                destination,
                lane,
                item.offset.cast_signed(),
                item.key.to_string(),
                item.time_ns,
                topic,
                item.content.payload().len() as i64,
                reason
            ],
        );
        self.run(added)?;
        self.run(self.db.execute(
            "DELETE FROM undeliverable WHERE number IN (SELECT number FROM undeliverable
             ORDER BY state < 2, number LIMIT max(0, (SELECT count(*) FROM undeliverable) - ?1))",
            [LETTERS_MAX],
        ))?;
        Ok(())
    }

    /// The next letter that `destination` is to try again.
    ///
    /// # Errors
    /// SQLite's.
    pub fn next_asked(&self, destination: &str) -> Result<Option<Letter>, LettersError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM undeliverable WHERE state = 1 AND destination = ?1 ORDER BY number LIMIT 1"
        );
        let next = self
            .db
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_row([destination], letter).optional());
        self.run(next)
    }

    /// Notes how a retry ended: with success, or refused for a reason.
    ///
    /// # Errors
    /// SQLite's.
    pub fn retried(&self, letter: &Letter, refused: Option<&str>) -> Result<(), LettersError> {
        let state = if refused.is_some() { LetterState::Open } else { LetterState::Delivered };
        let changed = self.db.execute(
            "UPDATE undeliverable SET state = ?4, tries = tries + 1, reason = coalesce(?5, reason)
             WHERE destination = ?1 AND lane = ?2 AND position = ?3",
            params![letter.destination, letter.lane, letter.position.cast_signed(), state as u8, refused],
        );
        self.run(changed).map(drop)
    }

    /// All letters, in the order in which they came.
    ///
    /// # Errors
    /// SQLite's.
    pub fn all(&self) -> Result<Vec<Letter>, LettersError> {
        let all = || {
            let mut statement =
                self.db.prepare(&format!("SELECT {COLUMNS} FROM undeliverable ORDER BY number"))?;
            statement.query_map([], letter)?.collect()
        };
        self.run(all())
    }

    /// One letter.
    ///
    /// # Errors
    /// SQLite's.
    pub fn find(&self, destination: &str, lane: &str, position: u64) -> Result<Option<Letter>, LettersError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM undeliverable WHERE destination = ?1 AND lane = ?2 AND position = ?3"
        );
        self.run(
            self.db.query_row(&sql, params![destination, lane, position.cast_signed()], letter).optional(),
        )
    }

    /// Sets what is to become of a letter.
    ///
    /// # Errors
    /// SQLite's.
    pub fn set(&self, letter: &Letter, state: LetterState) -> Result<(), LettersError> {
        let changed = self.db.execute(
            "UPDATE undeliverable SET state = ?4 WHERE destination = ?1 AND lane = ?2 AND position = ?3",
            params![letter.destination, letter.lane, letter.position.cast_signed(), state as u8],
        );
        self.run(changed).map(drop)
    }

    /// What became of the refused input at `position` of the journal.
    ///
    /// # Errors
    /// SQLite's.
    pub fn refused_state(&self, position: u64) -> Result<LetterState, LettersError> {
        let state = self
            .db
            .query_row("SELECT state FROM refused WHERE position = ?1", [position.cast_signed()], |row| {
                row.get(0)
            })
            .optional();
        Ok(self.run(state)?.map_or(LetterState::Open, LetterState::from_number))
    }

    /// Notes what became of the refused input at `position` of the journal.
    ///
    /// # Errors
    /// SQLite's.
    pub fn set_refused(&self, position: u64, state: LetterState) -> Result<(), LettersError> {
        let noted = self.db.execute(
            "INSERT OR REPLACE INTO refused VALUES (?1, ?2)",
            params![position.cast_signed(), state as u8],
        );
        self.run(noted)?;
        self.run(self.db.execute(
            "DELETE FROM refused WHERE position IN (SELECT position FROM refused ORDER BY position
             LIMIT max(0, (SELECT count(*) FROM refused) - ?1))",
            [LETTERS_MAX],
        ))?;
        Ok(())
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let io = |error: std::io::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
    sqlite::make_private(path).map_err(io)?;
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    sqlite::keep_log(&db, path)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > SCHEMA_VERSION {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "schema version {version} was written by a newer spindle; this one knows {SCHEMA_VERSION}"
        )));
    }
    if version < SCHEMA_VERSION {
        db.execute_batch(SCHEMA)?;
        db.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    Ok(db)
}

fn letter(row: &Row<'_>) -> rusqlite::Result<Letter> {
    Ok(Letter {
        destination: row.get(0)?,
        lane: row.get(1)?,
        position: row.get::<_, i64>(2)?.cast_unsigned(),
        key: row.get(3)?,
        time_ns: row.get(4)?,
        topic: row.get(5)?,
        payload_bytes: row.get::<_, i64>(6)?.cast_unsigned(),
        reason: row.get(7)?,
        state: LetterState::from_number(row.get(8)?),
        tries: row.get::<_, i64>(9)?.cast_unsigned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::log::Content;
    use crate::record::SensorKey;
    use std::sync::Arc;

    fn item(offset: u64) -> Item {
        let key = Arc::new(SensorKey { site: "a".into(), machine: "b".into(), sensor: "c".into() });
        Item { offset, key, time_ns: 5, content: Content::DeadLetter("x".into()) }
    }

    #[test]
    fn a_letter_is_listed_once_asked_for_and_its_end_is_kept_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let letters = Letters::open(dir.path()).unwrap();
        for reason in ["large", "larger"] {
            letters.add("kafka", "raw", &item(7), "t", reason).unwrap();
        }
        let all = letters.all().unwrap();
        assert_eq!((all.len(), all[0].reason.as_str(), all[0].state), (1, "larger", LetterState::Open));
        assert_eq!(letters.next_asked("kafka").unwrap(), None);
        let other = Letters::open(dir.path()).unwrap();
        other.set(&all[0], LetterState::Asked).unwrap();
        let asked = letters.next_asked("kafka").unwrap().unwrap();
        letters.retried(&asked, Some("still")).unwrap();
        assert_eq!(letters.find("kafka", "raw", 7).unwrap().unwrap().reason, "still");
        assert_eq!(letters.next_asked("kafka").unwrap(), None);
        letters.retried(&asked, None).unwrap();
        letters.set_refused(3, LetterState::Dropped).unwrap();
        drop((letters, other));
        let letters = Letters::open(dir.path()).unwrap();
        assert_eq!(letters.all().unwrap()[0].state, LetterState::Delivered);
        assert_eq!(letters.refused_state(3).unwrap(), LetterState::Dropped);
        assert_eq!(letters.refused_state(4).unwrap(), LetterState::Open);
    }
}
