//! `spindle node reboot`.

use super::Target;
use super::client::{Client, words};
use crate::cli::Outcome;
use crate::session::report::{Order, OrderOutcome};

/// Restart a node, and wait until it is back
///
/// What it had sampled and the gateway has not acknowledged is lost with its memory, and shows as a gap.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  spindle node reboot mill-3 --timeout 30s")]
pub(super) struct Args {
    /// Its name, or site/machine/node
    node: String,
    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let mut client = Client::open(&self.target)?;
        let before = client.node(&self.node)?.1.birth.map(|birth| birth.boot);
        let id = client.order(&self.node, Order::Reboot)?;
        // The answer may be lost with the node's memory; its next birth says enough.
        let ended = client.wait(&self.node, "come back", |report| {
            let born = report.birth.as_ref().filter(|birth| Some(&birth.boot) != before.as_ref());
            let answer = report.answers.iter().find(|answer| answer.id == id);
            let refused = answer.filter(|answer| answer.outcome != OrderOutcome::Done);
            refused.cloned().map(Err).or_else(|| born.cloned().map(Ok))
        })?;
        match ended {
            Ok(birth) => {
                if self.target.json {
                    println!("{}", serde_json::json!({ "node": self.node, "birth": birth }));
                } else {
                    println!(
                        "{} is back: boot {}, reset cause: {}",
                        self.node, birth.boot, birth.reset_cause
                    );
                }
                Ok(Outcome::Done)
            }
            Err(answer) => {
                if self.target.json {
                    println!("{}", serde_json::json!({ "node": self.node, "answer": answer }));
                } else {
                    println!("{}: {}", self.node, words(&answer));
                }
                Ok(Outcome::Wrong)
            }
        }
    }
}
