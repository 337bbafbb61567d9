//! What a seed came to, or what did not hold.

use super::scenario::MS;
use std::fmt;

/// What a seed came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Events of virtual time.
    pub events: u64,
    /// Records in the journal.
    pub records: u64,
    /// Samples in gaps.
    pub gap_samples: u64,
    /// Messages that came after they had been given up.
    pub late: u64,
    /// Messages that came again, as counted by the gateway's last run.
    pub duplicates: u64,
    /// Runs of the gateway, and boots of boards.
    pub starts: u64,
    /// Stamps without a flag.
    pub unflagged: u64,
    /// Times that two boards with one id were named.
    pub twins: u64,
}

/// What did not hold.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What.
    pub reason: String,
    /// When, virtual ns.
    pub at: u64,
    /// The plan of the seed.
    pub plan: String,
    /// The last events, if they were kept.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "{}", self.plan)?;
        let (seed, ms) = (self.seed, self.at / MS);
        writeln!(f, "seed {seed} failed after {ms} ms of virtual time: {}", self.reason)?;
        write!(f, "again: tests/simulate --seed {seed} --trace")
    }
}
