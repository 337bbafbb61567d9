//! `spindle completions`.

use super::{Cli, Outcome};
use clap::CommandFactory;

/// Print the completion script of a shell
///
/// For bash: spindle completions bash > /etc/bash_completion.d/spindle
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell
    shell: clap_complete::Shell,
}

impl Args {
    /// Writes the script to standard output.
    pub fn run(self) -> anyhow::Result<Outcome> {
        clap_complete::generate(self.shell, &mut Cli::command(), "spindle", &mut std::io::stdout());
        Ok(Outcome::Done)
    }
}
