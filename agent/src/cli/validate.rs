//! `spindle validate`.

use super::Outcome;
use crate::config;
use std::path::PathBuf;

/// Check a configuration: everything that is wrong at once, each with its line and what would be right
///
/// With `gateway.hardware_configs`, every file there too. Starts nothing and connects to nothing. Exit code 0 when it is right, 1 when it is not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  spindle validate gateway.toml\n  spindle validate --json gateway.toml | jq '.problems[].line'\n  \
                        spindle validate --schema > gateway.schema.json     for completion in an editor"
)]
pub struct Args {
    /// The configuration
    #[arg(value_name = "FILE", default_value = "gateway.toml")]
    file: PathBuf,
    /// Same as FILE
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Print one JSON object: {"file", "problems": [{"file" (of hardware_configs, where it is one), "line", "column", "at", "what", "right"}]}
    #[arg(long)]
    json: bool,
    /// Print the configuration's JSON Schema instead
    #[arg(long)]
    schema: bool,
}

impl Args {
    /// Checks, and says what is wrong on standard output.
    pub fn run(self) -> anyhow::Result<Outcome> {
        if self.schema {
            println!("{}", serde_json::to_string_pretty(&config::schema::of_config())?);
            return Ok(Outcome::Done);
        }
        let file = self.config.unwrap_or(self.file);
        let errors = config::load(&file).err();
        if self.json {
            let (file, problems) = match &errors {
                Some(errors) => (errors.file.clone(), errors.problems.clone()),
                None => (file.display().to_string(), Vec::new()),
            };
            println!("{}", serde_json::json!({ "file": file, "problems": problems }));
        } else {
            match &errors {
                Some(errors) => println!(
                    "{errors}\n{} not right",
                    super::count(errors.problems.len(), "place is", "places are")
                ),
                None => println!("{}: right", file.display()),
            }
        }
        Ok(if errors.is_none() { Outcome::Done } else { Outcome::Wrong })
    }
}
