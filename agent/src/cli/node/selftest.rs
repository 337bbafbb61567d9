//! `spindle node selftest`.

use super::Target;
use super::client::{Client, words};
use crate::cli::Outcome;
use crate::session::report::{Order, OrderOutcome};
use anyhow::bail;

/// Run the self-test of a node's sensors
///
/// The sensor moves its own proof mass and the node compares the answer with the datasheet's limits. Blocks of that time are flagged.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 1 when a sensor does not pass.\n\nExamples:\n  spindle node selftest mill-3\n  \
                  spindle node selftest mill-3 spindle --timeout 20s"
)]
pub(super) struct Args {
    /// Its name, or site/machine/node
    node: String,
    /// Only this sensor
    sensor: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let mut client = Client::open(&self.target)?;
        let streams = client.node(&self.node)?.1.streams;
        let wanted = |name: &String| self.sensor.as_ref().is_none_or(|sensor| sensor == name);
        let tested: Vec<_> = streams.iter().filter(|stream| wanted(&stream.sensor)).collect();
        if tested.is_empty() {
            let known: Vec<_> = streams.iter().map(|stream| stream.sensor.as_str()).collect();
            bail!("{} has not told of such a sensor; it told of: {}", self.node, known.join(", "));
        }
        let mut answers = Vec::new();
        for stream in tested {
            let answer = client.done(&self.node, Order::SelfTest { stream: stream.stream })?;
            if !self.target.json {
                println!("{} {}: {}", self.node, stream.sensor, words(&answer));
            }
            answers.push(serde_json::json!({ "sensor": stream.sensor, "answer": answer }));
            if answer.outcome != OrderOutcome::Done {
                answers.push(serde_json::Value::Null);
            }
        }
        let passed = !answers.contains(&serde_json::Value::Null);
        answers.retain(|answer| !answer.is_null());
        if self.target.json {
            println!("{}", serde_json::json!({ "node": self.node, "passed": passed, "sensors": answers }));
        }
        Ok(if passed { Outcome::Done } else { Outcome::Wrong })
    }
}
