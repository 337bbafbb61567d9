//! Where dead letters are found: refused input in the journal, undeliverable records in `dlq.sqlite`.

use crate::forward::letters::{Letter, LetterState, Letters};
use crate::journal::{JournalReader, Read};
use crate::outputs::{self, OutputReader};
use crate::record::{Record, RecordKind};
use crate::session::dead::Refused;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Bytes that one read of the journal takes.
const READ_BYTES: usize = 1 << 20;

/// Which dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Id {
    /// Refused input: position of its letter in the journal.
    Refused(u64),
    /// A record that a destination refuses: destination, lane, position.
    Undeliverable(String, String, u64),
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no dead letter: write a number, or destination/lane/number, as `list` shows them"
            )
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [position] => position.parse().map(Self::Refused).map_err(|_| wrong()),
            [destination, lane, position] => position
                .parse()
                .map(|position| Self::Undeliverable((*destination).into(), (*lane).into(), position))
                .map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(position) => write!(f, "{position}"),
            Self::Undeliverable(destination, lane, position) => write!(f, "{destination}/{lane}/{position}"),
        }
    }
}

/// A dead letter as it is listed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: Id,
    pub(super) key: String,
    pub(super) time_ns: i64,
    pub(super) reason: String,
    /// MQTT topic that it came by, or Kafka topic that it was for.
    pub(super) topic: Option<String>,
    pub(super) payload_bytes: u64,
    pub(super) state: LetterState,
    pub(super) tries: u64,
}

impl Found {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id.to_string(),
            "kind": if matches!(self.id, Id::Refused(_)) { "refused" } else { "undeliverable" },
            "sensor": self.key,
            "time": crate::cli::time_text(self.time_ns),
            "reason": self.reason,
            "topic": self.topic,
            "payload_bytes": self.payload_bytes,
            "state": self.state,
            "tries": self.tries,
        })
    }
}

/// A gateway's dead letters.
pub(super) struct Desk {
    pub(super) dir: PathBuf,
    pub(super) letters: Letters,
    journal: JournalReader,
}

impl Desk {
    pub(super) fn open(dir: PathBuf) -> anyhow::Result<Self> {
        let journal_dir = dir.join("journal");
        let journal = JournalReader::open_read_only(&journal_dir)
            .with_context(|| format!("{} has no journal", dir.display()))?;
        Ok(Self { letters: Letters::open(&dir)?, journal, dir })
    }

    /// Refused input from the oldest on, then undeliverable records, each as `take` likes.
    pub(super) fn each(&self, mut take: impl FnMut(Found)) -> anyhow::Result<()> {
        let (mut next, end) = (self.journal.oldest_offset()?, self.journal.next_offset()?);
        // Hidden by itself where standard error is no terminal.
        let bar = ProgressBar::new(end.saturating_sub(next));
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} records looked at") {
            bar.set_style(style);
        }
        while next < end {
            let before = next;
            match self.journal.read(next, READ_BYTES, Duration::ZERO)? {
                Read::Batch(view) => {
                    for record in view.iter().filter(|record| record.kind == RecordKind::DeadLetter) {
                        take(self.refused(record)?);
                    }
                    next = view.next();
                }
                Read::Evicted { next: oldest } => next = oldest,
                Read::Idle | Read::Closed => break,
            }
            bar.inc(next - before);
        }
        bar.finish_and_clear();
        self.letters.all()?.into_iter().for_each(|letter| take(undeliverable(letter)));
        Ok(())
    }

    /// One letter, with the bytes that it is about, or why they cannot be had.
    pub(super) fn one(&self, id: &Id) -> anyhow::Result<(Found, Result<Bytes, String>)> {
        match id {
            Id::Refused(position) => {
                let record = record(&self.journal, *position)?;
                let record = record.filter(|record| record.kind == RecordKind::DeadLetter);
                let Some(record) = record else {
                    bail!("there is no dead letter {id}; `spindle dlq list` shows them")
                };
                let bytes = Refused::read(&record.body).context("the dead letter is unreadable")?.payload();
                Ok((self.refused(&record)?, Ok(bytes)))
            }
            Id::Undeliverable(destination, lane, position) => {
                let letter = self.letters.find(destination, lane, *position)?;
                let Some(letter) = letter else {
                    bail!("there is no dead letter {id}; `spindle dlq list` shows them")
                };
                let bytes = match lane.as_str() {
                    "raw" | "dlq" => record(&self.journal, *position)?.map(|record| record.body),
                    _ => output(&self.dir, *position)?,
                };
                Ok((undeliverable(letter), bytes.ok_or_else(|| "evicted since".to_owned())))
            }
        }
    }

    fn refused(&self, record: &Record) -> anyhow::Result<Found> {
        let refused = Refused::read(&record.body).ok();
        Ok(Found {
            id: Id::Refused(record.offset),
            key: record.key.to_string(),
            time_ns: record.time_ns,
            reason: refused.as_ref().map_or("unreadable", |refused| &refused.reason).to_owned(),
            payload_bytes: refused.as_ref().map_or(0, |refused| refused.payload_bytes),
            topic: refused.and_then(|refused| refused.topic),
            state: self.letters.refused_state(record.offset)?,
            tries: 0,
        })
    }

    /// Notes what became of a letter.
    pub(super) fn set(&self, id: &Id, state: LetterState) -> anyhow::Result<()> {
        match id {
            Id::Refused(position) => self.letters.set_refused(*position, state)?,
            Id::Undeliverable(destination, lane, position) => {
                if let Some(letter) = self.letters.find(destination, lane, *position)? {
                    self.letters.set(&letter, state)?;
                }
            }
        }
        Ok(())
    }
}

fn undeliverable(letter: Letter) -> Found {
    Found {
        id: Id::Undeliverable(letter.destination, letter.lane, letter.position),
        key: letter.key,
        time_ns: letter.time_ns,
        reason: letter.reason,
        topic: Some(letter.topic),
        payload_bytes: letter.payload_bytes,
        state: letter.state,
        tries: letter.tries,
    }
}

fn record(journal: &JournalReader, position: u64) -> anyhow::Result<Option<Record>> {
    Ok(match journal.read(position, 1, Duration::ZERO)? {
        Read::Batch(view) => view.records().first().filter(|record| record.offset == position).cloned(),
        Read::Evicted { .. } | Read::Idle | Read::Closed => None,
    })
}

fn output(dir: &Path, id: u64) -> anyhow::Result<Option<Bytes>> {
    Ok(match OutputReader::open_read_only(dir).read(id, 1, Duration::ZERO)? {
        outputs::Read::Batch(batch) => {
            batch.into_iter().find(|output| output.id == id).map(|output| output.json)
        }
        outputs::Read::Evicted { .. } | outputs::Read::Idle | outputs::Read::Closed => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_is_written() {
        for text in ["17", "kafka/raw/17"] {
            assert_eq!(text.parse::<Id>().unwrap().to_string(), text);
        }
        for text in ["", "x", "kafka/17", "kafka/raw/x", "a/b/c/1"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
