//! `spindle init`.

use super::Outcome;
use crate::config;
use anyhow::Context as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Write a commented configuration to start from
///
/// It works as it is: the gateway then listens for boards on this machine. A file that exists is never overwritten.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  spindle init\n  spindle init /etc/spindle/gateway.toml\n  spindle init -          to standard output"
)]
pub struct Args {
    /// Where to write it; - is standard output
    #[arg(value_name = "FILE", default_value = "gateway.toml")]
    file: PathBuf,
}

impl Args {
    /// Writes the file.
    pub fn run(self) -> anyhow::Result<Outcome> {
        if self.file.as_os_str() == "-" {
            print!("{}", config::TEMPLATE);
            return Ok(Outcome::Done);
        }
        let name = self.file.display();
        let mut file = OpenOptions::new().write(true).create_new(true).open(&self.file).map_err(|error| {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                anyhow::anyhow!("{name} exists already and is left as it is; name another file")
            } else {
                anyhow::anyhow!("cannot write {name}: {error}")
            }
        })?;
        file.write_all(config::TEMPLATE.as_bytes()).with_context(|| format!("cannot write {name}"))?;
        println!("{name} written. Next:\n  spindle validate {name}\n  spindle run --config {name}");
        Ok(Outcome::Done)
    }
}
