//! The command line: one file a verb. A verb is a clap `Args` struct with `fn run(self, context) -> Result<Outcome>`.
//!
//! Exit codes: 0 done, and what was checked is right; 1 what was checked is not right (`validate`, `balance`, `demo`);
//! 2 the command line is wrong; 3 it could not be done, the last line on standard error says what and where.

pub mod balance;
pub mod buffer;
pub mod completions;
pub mod demo;
pub mod dlq;
pub mod flash;
pub mod init;
pub mod node;
pub mod place;
pub mod provision;
pub mod replay;
pub mod run;
pub mod simulate;
pub mod tap;
pub mod validate;

use clap::{Parser, Subcommand, ValueEnum};
use std::io::IsTerminal;
use std::process::ExitCode;

/// How a verb ended, when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done; what was checked is right.
    Done,
    /// Done, but what was checked is not right.
    Wrong,
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Wrong => 1,
        }
    }
}

/// Exit code of a verb that failed.
const FAILED: u8 = 3;

/// Options that every verb understands.
#[derive(Debug, Clone, clap::Args)]
pub struct Context {
    /// Level of the log on standard error: error, warn, info, debug, trace, or a filter such as
    /// `info,spindle_agent::forward=debug`
    #[arg(long, global = true, value_name = "FILTER", env = "SPINDLE_LOG", hide_env_values = true)]
    pub log: Option<String>,
    /// Form of the log on standard error
    #[arg(long, global = true, value_name = "FORM")]
    pub log_format: Option<LogForm>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Lines for people
    Human,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Parser)]
#[command(
    name = "spindle",
    version,
    about = "CNC vibration from the sensor's FIFO to Kafka, without losing a sample that was acknowledged",
    after_help = "Exit codes: 0 done and right; 1 what was checked is not right; 2 wrong command line; 3 it could not be done.\n\n\
                  Examples:\n  spindle demo                                 a small factory on this machine, no set-up\n  \
                  spindle init gateway.toml                    a commented configuration to start from\n  \
                  spindle validate gateway.toml                every error at once, each with its line\n  \
                  spindle run --config gateway.toml            the gateway\n  \
                  spindle balance --config gateway.toml        where each sample went"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    context: Context,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Args),
    Run(run::Args),
    Validate(validate::Args),
    Init(init::Args),
    Tap(tap::Args),
    Balance(balance::Args),
    Buffer(buffer::Args),
    Dlq(dlq::Args),
    Node(node::Args),
    Replay(replay::Args),
    Simulate(simulate::Args),
    Provision(provision::Args),
    Flash(flash::Args),
    Completions(completions::Args),
}

/// The whole command: reads the command line, runs the verb, says what failed in one line.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { verb, context } = Cli::parse();
    let outcome = match verb {
        Verb::Demo(args) => args.run(&context),
        Verb::Run(args) => args.run(&context),
        Verb::Validate(args) => args.run(),
        Verb::Init(args) => args.run(),
        Verb::Tap(args) => args.run(),
        Verb::Balance(args) => args.run(),
        Verb::Buffer(args) => args.run(),
        Verb::Dlq(args) => args.run(),
        Verb::Node(args) => args.run(),
        Verb::Replay(args) => args.run(),
        Verb::Simulate(args) => args.run(),
        Verb::Provision(args) => args.run(),
        Verb::Flash(args) => args.run(),
        Verb::Completions(args) => args.run(),
    };
    match outcome {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            eprintln!("spindle: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// "1 place is", "2 places are".
fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A moment (UTC ns since 1970) in RFC 3339 with milliseconds.
fn time_text(time_ns: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or_default();
    format!("{time:.3}")
}

impl Context {
    /// Starts logging to standard error; `level` and `json` are what the configuration says, the command line wins.
    pub fn start_log(&self, level: &str, json: bool) -> anyhow::Result<()> {
        let filter = self.log.as_deref().unwrap_or(level);
        let env_filter = tracing_subscriber::EnvFilter::try_new(filter)
            .map_err(|error| anyhow::anyhow!("log filter `{filter}`: {error}"))?;
        let json = self.log_format.map_or(json, |form| form == LogForm::Json);
        let builder = tracing_subscriber::fmt()
            .with_env_filter(env_filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        // A second start (tests in one process) keeps the first.
        let _ = if json { builder.json().try_init() } else { builder.with_target(false).try_init() };
        Ok(())
    }
}

impl Context {
    /// Starts logging to a file, for verbs that own the terminal.
    pub fn start_log_to(&self, level: &str, path: std::path::PathBuf) -> anyhow::Result<()> {
        let filter = self.log.as_deref().unwrap_or(level);
        let env_filter = tracing_subscriber::EnvFilter::try_new(filter)
            .map_err(|error| anyhow::anyhow!("log filter `{filter}`: {error}"))?;
        let file =
            std::fs::File::create(&path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(env_filter)
            .with_writer(std::sync::Arc::new(file))
            .with_ansi(false);
        let _ = builder.with_target(false).try_init();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        super::Cli::command().debug_assert();
    }
}
