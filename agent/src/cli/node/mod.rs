//! `spindle node`: the nodes of a running gateway, one file a verb. They go through the gateway, which owns the connections, whatever
//! a node's link is.

mod change;
pub(super) mod client;
mod identify;
mod list;
mod reboot;
mod selftest;
mod set;
mod show;

use super::Outcome;
use clap::Subcommand;
use client::Target;

/// Look at a running gateway's nodes, set them, test them
///
/// What is shown comes from the nodes themselves. The gateway must run: nodes are reached through it, over MQTT, its own listener
/// and serial lines alike.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 the node refused, or its test failed; 2 wrong command line; 3 it could not be done, as when \
                  the node does not answer in time.\n\nExamples:\n  spindle node list\n  spindle node show mill-3\n  \
                  spindle node set mill-3 spindle.step=decimated spindle.decimation=8\n  spindle node selftest mill-3 spindle\n  \
                  spindle node reboot mill-3 --timeout 30s\n  spindle node identify mill-3"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(list::Args),
    Show(show::Args),
    Set(set::Args),
    Selftest(selftest::Args),
    Reboot(reboot::Args),
    Identify(identify::Args),
}

impl Args {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<Outcome> {
        match self.verb {
            Verb::List(args) => args.run(),
            Verb::Show(args) => args.run(),
            Verb::Set(args) => args.run(),
            Verb::Selftest(args) => args.run(),
            Verb::Reboot(args) => args.run(),
            Verb::Identify(args) => args.run(),
        }
    }
}

/// A span of time for people: the largest unit that leaves a whole number.
fn ago(now_ns: i64, then_ns: i64) -> String {
    let seconds = now_ns.saturating_sub(then_ns).max(0) / 1_000_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
