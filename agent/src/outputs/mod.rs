//! The outputs log: features, rollups and alerts with the state that made them, in one SQLite file.
//!
//! | limit | value | when reached |
//! |---|---|---|
//! | outputs kept | `outputs.size_max` | oldest rollups and features are evicted and counted, alerts only when nothing else is left |
//! | alerts kept in the alert table | [`ALERTS_MAX`] | oldest cleared alerts are deleted |
//! | memory tail | `outputs.tail_size` | older records are read from the file |
//!
//! One transaction holds the outputs of a batch of journal records, the state of every sensor that made one, the alert
//! table and the checkpoint (guarantee G3: exactly once inside). An output gets its id at commit; ids are dense from 1, and
//! a reader sees an output only after the commit. Readers keep their own cursor and can never hold up the writer.

mod reader;
mod salvage;
mod store;

pub use reader::{OutputReader, Read};
pub use store::{AlertRow, BaselineRow, Commit, Loaded, OutputLog, OutputStats, SensorSave, stats};

/// Name of the file within the data folder.
pub const FILE_NAME: &str = "outputs.sqlite";

/// Most rows of the alert table.
pub const ALERTS_MAX: u64 = 100_000;

/// Why the outputs log failed.
#[derive(Debug, thiserror::Error)]
pub enum OutputsError {
    /// SQLite refused.
    #[error("outputs log {path}: {action}: {source}")]
    Sqlite {
        /// The file.
        path: std::path::PathBuf,
        /// What was being done.
        action: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The operating system refused.
    #[error("outputs log {path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was written by another version of this program.
    #[error(
        "outputs log {path} has schema version {found}, this program reads up to {expected}: run the version that wrote it, or a newer one"
    )]
    Version {
        /// The file.
        path: std::path::PathBuf,
        /// Version in the file.
        found: i64,
        /// The version that this program reads.
        expected: i64,
    },
    /// A row holds what this program never writes.
    #[error("outputs log {path}: row {id} of table {table} is malformed: {reason}")]
    Malformed {
        /// The file.
        path: std::path::PathBuf,
        /// Table.
        table: &'static str,
        /// Row.
        id: u64,
        /// What is wrong.
        reason: String,
    },
}

impl OutputsError {
    /// Whether the file's content is to blame, so that trying again will not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => crate::sqlite::is_damage(source),
            Self::Malformed { .. } => true,
            Self::Io { .. } | Self::Version { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
