//! `spindle buffer verify`.

use crate::cli::Outcome;
use crate::cli::place::Place;
use crate::journal::inspect;
use std::collections::BTreeMap;

/// Read everything in the journal and compare each checksum
///
/// Says which records cannot be read, and whose samples they were as far as the books tell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 1 when something is damaged.\n\nExamples:\n  spindle buffer verify --config gateway.toml"
)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object: {"sound", "records", "damages": [{"file", "from", "to", "reason"}], "sensors": [{"sensor", "samples"}]}
    #[arg(long)]
    json: bool,
}

#[derive(Debug, serde::Serialize)]
struct Report {
    sound: bool,
    records: u64,
    damages: Vec<Damage>,
    sensors: Vec<Sensor>,
}

#[derive(Debug, serde::Serialize)]
struct Damage {
    file: String,
    from: u64,
    to: u64,
    reason: String,
}

#[derive(Debug, serde::Serialize)]
struct Sensor {
    sensor: String,
    samples: u64,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let dir = self.place.data_dir()?.join("journal");
        let segments = inspect::segments(&dir)?;
        let bar = super::bar(segments.iter().map(|segment| segment.bytes).sum());
        let mut report = Report { sound: true, records: 0, damages: Vec::new(), sensors: Vec::new() };
        let mut samples: BTreeMap<String, u64> = BTreeMap::new();
        let mut passed = 0;
        for (index, segment) in segments.iter().enumerate() {
            let verified = match inspect::verify(segment, segments.get(index + 1), |bytes| bar.inc(bytes)) {
                Ok(verified) => verified,
                // Evicted meanwhile, or still being made.
                Err(_) if !segment.path.exists() || segment.end.is_none() => continue,
                Err(error) => return Err(error.into()),
            };
            passed += segment.bytes;
            bar.set_position(passed);
            report.records += verified.records;
            for damage in verified.damages {
                let inspect::Damage { from, to, reason } = damage;
                report.damages.push(Damage { file: segment.path.display().to_string(), from, to, reason });
            }
            for (key, count) in verified.samples {
                *samples.entry(key.0.to_string()).or_default() += count;
            }
        }
        bar.finish_and_clear();
        report.sound = report.damages.is_empty();
        report.sensors = samples.into_iter().map(|(sensor, samples)| Sensor { sensor, samples }).collect();
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            for damage in &report.damages {
                println!(
                    "{}: offsets {} to before {}: {}",
                    damage.file, damage.from, damage.to, damage.reason
                );
            }
            for sensor in &report.sensors {
                println!("{}: {} samples are damaged", sensor.sensor, sensor.samples);
            }
            let damages = super::super::count(report.damages.len(), "damaged place", "damaged places");
            println!("verify: {} records are sound, {damages}", report.records);
        }
        Ok(if report.sound { Outcome::Done } else { Outcome::Wrong })
    }
}
