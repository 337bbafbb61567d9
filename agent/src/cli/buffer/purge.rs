//! `spindle buffer purge`.

use crate::cli::Outcome;
use crate::cli::place::Place;
use crate::config;
use crate::journal::Journal;
use crate::journal::inspect::{self, Kept};
use bytesize::ByteSize;

/// Delete raw data from the journal, and count it in the books as evicted
///
/// Whole segments go: those whose records all lie before the offset. Where each board and sensor stands is kept. The gateway
/// must not run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  spindle buffer purge --config gateway.toml --before 120000 --yes\n  \
                        spindle buffer purge --data-dir /var/lib/spindle --all --yes")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Segments that end at or before this offset
    #[arg(long, value_name = "OFFSET", required_unless_present = "all")]
    before: Option<u64>,
    /// All segments, delivered or not
    #[arg(long, conflicts_with = "before")]
    all: bool,
    /// Do it; without this it only says what would go
    #[arg(long)]
    yes: bool,
    /// Print one JSON object: {"purged", "segments", "records"}
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let dir = self.place.data_dir()?.join("journal");
        // Eviction is the running gateway's, by its own size.
        let config = config::Journal { size_max: ByteSize::b(u64::MAX / 2), ..config::Journal::default() };
        let (mut journal, state) = Journal::open(&dir, &config)?;
        let next = journal.next_offset();
        let before = self.before.unwrap_or(next).min(next);
        let doomed: Vec<_> = inspect::segments(&dir)?
            .into_iter()
            .filter(|segment| segment.end.unwrap_or(next) <= before)
            .collect();
        let records: u64 = doomed.iter().map(|segment| segment.end.unwrap_or(next) - segment.first).sum();
        if self.yes && !doomed.is_empty() {
            journal.purge(before, &mut Kept::new(state))?;
        }
        journal.close();
        let segments = doomed.len();
        if self.json {
            println!(
                "{}",
                serde_json::json!({ "purged": self.yes, "segments": segments, "records": records })
            );
        } else {
            let segments = crate::cli::count(segments, "segment", "segments");
            let what = if self.yes { "deleted" } else { "would be deleted; say --yes to do it" };
            println!("purge: {segments} with {records} records {what}");
        }
        Ok(Outcome::Done)
    }
}
