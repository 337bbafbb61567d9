//! `spindle buffer stat`.

use crate::cli::Outcome;
use crate::cli::place::Place;
use crate::forward::cursor;
use crate::journal::{self, inspect};
use crate::outputs;
use bytesize::ByteSize;

/// Show what is kept: the journal's segments, the outputs, where each destination stands, and files set aside as damaged
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  spindle buffer stat --config gateway.toml\n  \
                        spindle buffer stat --data-dir /var/lib/spindle --json | jq .journal.bytes")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object: {"journal": {"oldest", "next", "bytes", "segments": [..]}, "outputs", "cursors", "set_aside"}
    #[arg(long)]
    json: bool,
}

#[derive(Debug, serde::Serialize)]
struct Stat {
    journal: Journal,
    outputs: Outputs,
    cursors: Vec<Cursor>,
    set_aside: Vec<SetAside>,
}

#[derive(Debug, serde::Serialize)]
struct Journal {
    oldest: u64,
    next: u64,
    records: u64,
    bytes: u64,
    segments: Vec<Segment>,
}

#[derive(Debug, serde::Serialize)]
struct Segment {
    first: u64,
    next: u64,
    bytes: u64,
    file: String,
}

#[derive(Debug, serde::Serialize)]
struct Outputs {
    next: u64,
    bytes: u64,
    evicted_features: u64,
    evicted_alerts: u64,
    checkpoint: u64,
}

#[derive(Debug, serde::Serialize)]
struct Cursor {
    destination: String,
    lane: String,
    next: u64,
}

#[derive(Debug, serde::Serialize)]
struct SetAside {
    file: String,
    bytes: u64,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let dir = self.place.data_dir()?;
        let stat = look(&dir)?;
        if self.json {
            println!("{}", serde_json::to_string(&stat)?);
            return Ok(Outcome::Done);
        }
        let Stat { journal, outputs, cursors, set_aside } = stat;
        println!(
            "journal: {} records, offsets {} to before {}, {} in {}",
            journal.records,
            journal.oldest,
            journal.next,
            ByteSize::b(journal.bytes),
            crate::cli::count(journal.segments.len(), "segment", "segments"),
        );
        for segment in &journal.segments {
            println!(
                "  {:>12} {:>10}  {}",
                segment.first,
                ByteSize::b(segment.bytes).to_string(),
                segment.file
            );
        }
        println!(
            "outputs: next id {}, {}; evicted {} features and rollups, {} alerts; pipeline is at offset {}",
            outputs.next,
            ByteSize::b(outputs.bytes),
            outputs.evicted_features,
            outputs.evicted_alerts,
            outputs.checkpoint,
        );
        for cursor in &cursors {
            println!("cursor: {} {} at {}", cursor.destination, cursor.lane, cursor.next);
        }
        for file in &set_aside {
            println!("set aside as damaged: {} ({})", file.file, ByteSize::b(file.bytes));
        }
        Ok(Outcome::Done)
    }
}

fn look(dir: &std::path::Path) -> anyhow::Result<Stat> {
    let journal_dir = dir.join("journal");
    let found = inspect::segments(&journal_dir)?;
    let reader = journal::JournalReader::open_read_only(&journal_dir)?;
    let next = match reader.next_offset() {
        Ok(next) => next,
        // It is being made, or damaged: `verify` says which.
        Err(_) => found.last().map_or(1, |segment| segment.first),
    };
    let segments: Vec<Segment> = found
        .iter()
        .map(|segment| Segment {
            first: segment.first,
            next: segment.end.unwrap_or(next),
            bytes: segment.bytes,
            file: segment.path.display().to_string(),
        })
        .collect();
    let oldest = segments.first().map_or(next, |segment| segment.first);
    let bytes = segments.iter().map(|segment| segment.bytes).sum();
    let (stats, checkpoint) = outputs::stats(dir)?;
    let aside = inspect::set_aside(&journal_dir).into_iter().chain(inspect::set_aside(dir));
    Ok(Stat {
        journal: Journal { oldest, next, records: next.saturating_sub(oldest), bytes, segments },
        outputs: Outputs {
            next: stats.next_id,
            bytes: stats.bytes,
            evicted_features: stats.evicted_features,
            evicted_alerts: stats.evicted_alerts,
            checkpoint,
        },
        cursors: cursor::list(dir)?
            .into_iter()
            .map(|(destination, lane, next)| Cursor { destination, lane, next })
            .collect(),
        set_aside: aside.map(|(path, bytes)| SetAside { file: path.display().to_string(), bytes }).collect(),
    })
}
