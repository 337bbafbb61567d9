//! `spindle balance --json`: where each sample went.

use spindle_tests::agent::Agent;
use spindle_tests::wait::{self, PATIENCE};

/// The books of `key` come to rest with exactly `samples` per channel taken and stored, none lost, evicted or refused.
pub(crate) fn assert_balanced(agent: &Agent, key: &str, samples: u32) {
    let settled = wait::until("the books to balance", PATIENCE, || {
        let books = agent.books()?;
        let row = books["sensors"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["sensor"] == key).cloned());
        Ok(row.filter(|row| row["balanced"] == true && row["taken"] == samples))
    });
    let row = settled.unwrap_or_else(|error| panic!("{error:#}: {:?}", agent.books()));
    assert_eq!(row["stored"], samples, "{row}");
    for nothing in ["lost", "rejected", "evicted", "held", "missing"] {
        assert_eq!(row[nothing], 0, "{nothing} of {row}");
    }
}

/// The books of `key` as they stand; null when there are none yet.
pub(crate) fn of(agent: &Agent, key: &str) -> serde_json::Value {
    let books = agent.books().unwrap();
    let rows = books["sensors"].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|row| row["sensor"] == key).unwrap_or_default()
}
