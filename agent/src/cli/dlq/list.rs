//! `spindle dlq list`.

use super::find::Desk;
use crate::cli::Outcome;
use crate::cli::place::Place;
use crate::forward::letters::LetterState;

/// List dead letters
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Those that are handled too
    #[arg(long)]
    all: bool,
    /// Print one JSON object: {"letters": [{"id", "kind", "sensor", "reason", "state", ...}]}
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let desk = Desk::open(self.place.data_dir()?)?;
        let mut letters = Vec::new();
        desk.each(|found| {
            if self.all || matches!(found.state, LetterState::Open | LetterState::Asked) {
                letters.push(found);
            }
        })?;
        if self.json {
            let letters: Vec<_> = letters.iter().map(super::find::Found::json).collect();
            println!("{}", serde_json::json!({ "letters": letters }));
            return Ok(Outcome::Done);
        }
        for letter in &letters {
            let state = match letter.state {
                LetterState::Open => "",
                LetterState::Asked => " [to be tried again]",
                LetterState::Delivered => " [tried again, with success]",
                LetterState::Dropped => " [dropped]",
            };
            let time = crate::cli::time_text(letter.time_ns);
            println!(
                "{}  {time}  {}  {} bytes: {}{state}",
                letter.id, letter.key, letter.payload_bytes, letter.reason
            );
        }
        println!("{}", crate::cli::count(letters.len(), "dead letter", "dead letters"));
        Ok(Outcome::Done)
    }
}
