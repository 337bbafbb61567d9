//! `spindle dlq retry` and `spindle dlq drop`.

use super::find::{Desk, Id};
use crate::api::control::{Request, Response};
use crate::cli::Outcome;
use crate::cli::node::client::{Client, Target};
use crate::cli::place::Place;
use crate::forward::letters::LetterState;
use anyhow::bail;
use serde_json::{Value, json};
use std::time::Duration;

/// How often it is looked whether a retry has ended.
const POLL: Duration = Duration::from_millis(100);

/// Which letters.
#[derive(Debug, clap::Args)]
#[group(required = true)]
struct Which {
    /// Which, as `list` shows them
    ids: Vec<Id>,
    /// All that are open
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

impl Which {
    fn resolve(&self, desk: &Desk) -> anyhow::Result<Vec<Id>> {
        if !self.all {
            for id in &self.ids {
                drop(desk.one(id)?);
            }
            return Ok(self.ids.clone());
        }
        let mut ids = Vec::new();
        desk.each(|found| {
            if found.state == LetterState::Open {
                ids.push(found.id);
            }
        })?;
        Ok(ids)
    }
}

/// Try dead letters again
///
/// Refused input is taken as if it had just come: blocks that are stored already are dropped as duplicates. A record goes to its
/// destination again, out of turn, with its own id.
#[derive(Debug, clap::Args)]
pub(super) struct Retry {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    which: Which,
}

/// Mark dead letters as handled; they are listed no more
#[derive(Debug, clap::Args)]
pub(super) struct Drop {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Drop {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let desk = Desk::open(self.place.data_dir()?)?;
        let ids = self.which.resolve(&desk)?;
        for id in &ids {
            desk.set(id, LetterState::Dropped)?;
        }
        if self.json {
            let ids: Vec<String> = ids.iter().map(Id::to_string).collect();
            println!("{}", json!({ "dropped": ids }));
        } else {
            println!("{} marked as handled", crate::cli::count(ids.len(), "dead letter", "dead letters"));
        }
        Ok(Outcome::Done)
    }
}

/// How a retry ended.
enum End {
    Done(String),
    Refused(String),
    /// It will be tried when it can be.
    Waits,
}

impl Retry {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let desk = Desk::open(self.target.place.data_dir()?)?;
        let ids = self.which.resolve(&desk)?;
        let mut client = None;
        let mut results: Vec<Value> = Vec::new();
        let mut outcome = Outcome::Done;
        for id in &ids {
            let end = match id {
                Id::Refused(position) => {
                    let client = match &mut client {
                        Some(client) => client,
                        none => none.insert(Client::open(&self.target)?),
                    };
                    retake(&desk, client, *position)?
                }
                Id::Undeliverable(destination, lane, position) => {
                    self.resend(&desk, id, destination, lane, *position)?
                }
            };
            let (word, text) = match &end {
                End::Done(text) => ("done", text.as_str()),
                End::Refused(text) => ("refused", text.as_str()),
                End::Waits => {
                    ("waits", "it goes out as soon as a gateway runs and the destination takes records")
                }
            };
            if matches!(end, End::Refused(_)) {
                outcome = Outcome::Wrong;
            }
            if !self.target.json {
                println!("{id}: {word}: {text}");
            }
            results.push(json!({ "id": id.to_string(), "result": word, "text": text }));
        }
        if self.target.json {
            println!("{}", json!({ "retried": results }));
        }
        Ok(outcome)
    }

    fn resend(
        &self,
        desk: &Desk,
        id: &Id,
        destination: &str,
        lane: &str,
        position: u64,
    ) -> anyhow::Result<End> {
        desk.set(id, LetterState::Asked)?;
        let polls = self.target.timeout.as_millis().div_ceil(POLL.as_millis());
        for _ in 0..=polls {
            match desk.letters.find(destination, lane, position)? {
                None => bail!("the dead letter {id} is gone"),
                Some(letter) if letter.state == LetterState::Asked => std::thread::sleep(POLL),
                Some(letter) if letter.state == LetterState::Delivered => {
                    return Ok(End::Done(format!("{destination} has it")));
                }
                Some(letter) => return Ok(End::Refused(letter.reason)),
            }
        }
        Ok(End::Waits)
    }
}

fn retake(desk: &Desk, client: &mut Client, position: u64) -> anyhow::Result<End> {
    match client.ask(&Request::Retake { position })? {
        Response::Retaken { refused: Some(reason), .. } => {
            // What came of it is listed in its place.
            desk.set(&Id::Refused(position), LetterState::Delivered)?;
            Ok(End::Refused(reason))
        }
        Response::Retaken { records, refused: None } => {
            desk.set(&Id::Refused(position), LetterState::Delivered)?;
            let text = match records {
                0 => "taken; nothing new came of it: it is stored already, or waits for an earlier one"
                    .to_owned(),
                records => format!("taken; {} stored", crate::cli::count(records, "record", "records")),
            };
            Ok(End::Done(text))
        }
        _ => bail!("the gateway answered something else"),
    }
}
