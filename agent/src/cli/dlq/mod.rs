//! `spindle dlq`: dead letters, one file a verb.

mod act;
mod find;
mod list;
mod show;

use super::Outcome;
use clap::Subcommand;

/// List dead letters, look into them, try them again, or mark them as handled
///
/// A dead letter is input that was refused (its id is a number, its position in the journal), or a record that a destination refuses
/// (destination/lane/position). Refused input that is tried again is taken as if it had just come, for which the gateway must run; a
/// record goes to its destination again as soon as a gateway runs. All verbs are safe beside a running gateway.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 a retry was refused once more; 2 wrong command line; 3 it could not be done.\n\nExamples:\n  \
                  spindle dlq list --config gateway.toml\n  spindle dlq show 1234\n  spindle dlq retry kafka/raw/1234\n  \
                  spindle dlq retry --all\n  spindle dlq drop 1234 1240\n  spindle dlq list --json | jq -r '.letters[].id'"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(list::Args),
    Show(show::Args),
    Retry(act::Retry),
    Drop(act::Drop),
}

impl Args {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<Outcome> {
        match self.verb {
            Verb::List(args) => args.run(),
            Verb::Show(args) => args.run(),
            Verb::Retry(args) => args.run(),
            Verb::Drop(args) => args.run(),
        }
    }
}
