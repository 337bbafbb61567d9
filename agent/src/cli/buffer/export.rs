//! `spindle buffer export`.

use crate::cli::Outcome;
use crate::cli::place::Place;
use crate::journal::{JournalReader, Read};
use crate::record::RecordKind;
use anyhow::Context as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 20;

/// Copy records out of the journal into two files
///
/// `records.bin` holds the records' bodies as they came, each after its length as four bytes, little-endian: for a block the
/// wire message (see common/WIRE.md), for a JSON sensor its message. `index.ndjson` has one JSON object a line for each:
/// {"offset", "kind", "sensor", "time_ns", "arrival_ns", "flags", "first_sample", "at", "len"}, where `at` is where the body
/// begins in `records.bin` and `len` its length.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  spindle buffer export --config gateway.toml --out dump\n  \
                        spindle buffer export --config gateway.toml --sensor hall/mill/spindle --from 1000 --to 2000 --out dump")]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Only this sensor's: `site/machine/sensor`
    #[arg(long, value_name = "KEY")]
    sensor: Option<String>,
    /// From this offset on
    #[arg(long, value_name = "OFFSET", default_value_t = 1)]
    from: u64,
    /// Up to before this offset; else to the end as it is now
    #[arg(long, value_name = "OFFSET")]
    to: Option<u64>,
    /// A new folder for the two files
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object: {"records", "bytes", "skipped", "next"}
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let reader = JournalReader::open_read_only(&self.place.data_dir()?.join("journal"))?;
        let end = reader.next_offset()?;
        let end = self.to.map_or(end, |to| to.min(end));
        std::fs::create_dir(&self.out)
            .with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        let create = |name| {
            let path = self.out.join(name);
            File::create_new(&path)
                .map(BufWriter::new)
                .with_context(|| format!("cannot make {}", path.display()))
        };
        let (mut bodies, mut index) = (create("records.bin")?, create("index.ndjson")?);
        let bar = super::bar(end.saturating_sub(self.from));
        let (mut at, mut records, mut position, mut skipped) = (self.from.max(1), 0u64, 0u64, 0u64);
        while at < end {
            let view = match reader.read(at, READ_BYTES, Duration::ZERO)? {
                Read::Batch(view) => view,
                Read::Evicted { next } => {
                    skipped += next.min(end) - at;
                    at = next;
                    continue;
                }
                Read::Idle | Read::Closed => break,
            };
            for record in view.iter().filter(|record| record.offset < end) {
                if self.sensor.as_ref().is_some_and(|sensor| *sensor != record.key.to_string()) {
                    continue;
                }
                let len = u32::try_from(record.body.len()).context("a record of 4 GiB")?;
                bodies.write_all(&len.to_le_bytes())?;
                bodies.write_all(&record.body)?;
                let line = serde_json::json!({
                    "offset": record.offset, "kind": kind(record.kind), "sensor": record.key.to_string(),
                    "time_ns": record.time_ns, "arrival_ns": record.arrival_ns, "flags": record.flags,
                    "first_sample": record.first_sample, "at": position + 4, "len": len,
                });
                writeln!(index, "{line}")?;
                records += 1;
                position += 4 + u64::from(len);
            }
            at = view.next();
            bar.set_position(at.saturating_sub(self.from));
        }
        bodies.flush()?;
        index.flush()?;
        bar.finish_and_clear();
        if self.json {
            println!(
                "{}",
                serde_json::json!({ "records": records, "bytes": position, "skipped": skipped, "next": at })
            );
        } else {
            println!("export: {records} records in {}", self.out.display());
            if skipped > 0 {
                println!("export: {skipped} records of the range are evicted or damaged");
            }
        }
        Ok(Outcome::Done)
    }
}

const fn kind(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Block => "block",
        RecordKind::Json => "json",
        RecordKind::DeadLetter => "dead_letter",
        RecordKind::Gap => "gap",
        RecordKind::Node => "node",
        RecordKind::Context => "context",
    }
}
