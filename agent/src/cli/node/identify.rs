//! `spindle node identify`.

use super::Target;
use super::client::{Client, words};
use crate::cli::Outcome;
use crate::session::report::{Order, OrderOutcome};

/// Let a node show itself: its light blinks
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  spindle node identify mill-3")]
pub(super) struct Args {
    /// Its name, or site/machine/node
    node: String,
    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let answer = Client::open(&self.target)?.done(&self.node, Order::Identify)?;
        if self.target.json {
            println!("{}", serde_json::json!({ "node": self.node, "answer": answer }));
        } else {
            println!("{}: {}", self.node, words(&answer));
        }
        Ok(if answer.outcome == OrderOutcome::Done { Outcome::Done } else { Outcome::Wrong })
    }
}
