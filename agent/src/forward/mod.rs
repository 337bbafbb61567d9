//! Ways out. A [`Destination`] carries the journal and the outputs to one place, with a cursor of its own for each of its
//! lanes, so that one that is down never holds up, starves or loses for another: all it shares with the others is the
//! reading end of two logs, which nobody can block.
//!
//! A lane is one log, one filter and one topic. Its [`lane::Lane`] is a state machine without I/O: what was sent, what was
//! delivered, what has to be sent again and from where. The cursor is the end of the contiguous delivered prefix; it moves
//! on delivery reports alone and is kept in `forward.sqlite`. After a crash a lane starts at its cursor, so what had been
//! delivered beyond it goes out a second time with the same `ce_id`.

pub mod cloudevents;
pub mod cursor;
pub mod files;
pub mod kafka;
pub mod lane;
pub mod letters;
pub mod log;
mod runner;

use crate::config::LaneName;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Somewhere that records go. The runtime gives each destination a thread.
pub trait Destination: Send {
    /// Name in logs, metrics and the cursor's file.
    fn name(&self) -> &str;

    /// Live counters.
    fn stats(&self) -> Arc<Stats>;

    /// Works until `stop`, then delivers what is under way within a bound, saves its cursors and returns. An outage of the
    /// place itself is no error: it is waited for.
    ///
    /// # Errors
    /// What makes it senseless to go on: a configuration that the client library refuses, or a cursor file that cannot be
    /// read. The rest of the gateway runs on.
    fn run(&mut self, stop: &AtomicBool) -> Result<(), ForwardError>;
}

/// Why a destination cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The client library refuses its configuration.
    #[error("forward.kafka: {0}")]
    Configuration(String),
    /// The list of dead letters is unusable.
    #[error(transparent)]
    Letters(#[from] letters::LettersError),
    /// The cursor file is unusable.
    #[error("{path}: {source}")]
    Cursor {
        /// Which file.
        path: std::path::PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

/// Counters of one lane; all since start unless said otherwise.
#[derive(Debug, Default)]
pub struct LaneStats {
    /// Records handed to the client library, repeats included.
    pub sent: AtomicU64,
    /// Records delivered (acknowledged by the destination).
    pub delivered: AtomicU64,
    /// Bytes of payload delivered.
    pub delivered_bytes: AtomicU64,
    /// Records that were their own fault and went to the dead letters.
    pub dead: AtomicU64,
    /// Records that were evicted from the log before they could be sent.
    pub evicted: AtomicU64,
    /// Records whose delivery failed and that are sent again.
    pub failed: AtomicU64,
    /// Records sent with the time of sending, because their own lies too far off for the destination.
    pub restamped: AtomicU64,
    /// First position that is not known to be delivered.
    pub cursor: AtomicU64,
    /// Records read but not yet delivered.
    pub in_flight: AtomicU64,
}

/// Counters of a destination.
#[derive(Debug, Default)]
pub struct Stats {
    /// Raw blocks and JSON messages.
    pub raw: LaneStats,
    /// Features and rollups.
    pub features: LaneStats,
    /// Alerts.
    pub alerts: LaneStats,
    /// Dead letters.
    pub dlq: LaneStats,
    /// What hinders it now, for people; none while it works.
    pub problem: parking_lot::Mutex<Option<String>>,
}

impl Stats {
    /// The counters of a lane.
    #[must_use]
    pub fn lane(&self, name: LaneName) -> &LaneStats {
        match name {
            LaneName::Alerts => &self.alerts,
            LaneName::Features => &self.features,
            LaneName::Dlq => &self.dlq,
            LaneName::Raw => &self.raw,
        }
    }

    /// The four lanes with their names.
    #[must_use]
    pub fn lanes(&self) -> [(&'static str, &LaneStats); 4] {
        [("raw", &self.raw), ("features", &self.features), ("alerts", &self.alerts), ("dlq", &self.dlq)]
    }

    /// Records delivered over all lanes.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.lanes().iter().map(|(_, lane)| lane.delivered.load(Ordering::Relaxed)).sum()
    }
}
