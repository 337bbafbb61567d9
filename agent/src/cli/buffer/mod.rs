//! `spindle buffer`: what the gateway keeps on disk.

mod export;
mod purge;
mod stat;
mod verify;

use super::Outcome;

/// Look at what the gateway keeps on disk, check it, take it out, or delete it
///
/// All but `purge` only read, and are safe while the gateway runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Stat(stat::Args),
    Verify(verify::Args),
    Export(export::Args),
    Purge(purge::Args),
}

impl Args {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<Outcome> {
        match self.verb {
            Verb::Stat(args) => args.run(),
            Verb::Verify(args) => args.run(),
            Verb::Export(args) => args.run(),
            Verb::Purge(args) => args.run(),
        }
    }
}

/// A progress bar on standard error over `bytes`, shown only on a terminal.
fn bar(bytes: u64) -> indicatif::ProgressBar {
    let style = indicatif::ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left");
    let bar = indicatif::ProgressBar::new(bytes);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}
