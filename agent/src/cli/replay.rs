//! `spindle replay`: history through the same pipeline, into files or Kafka topics.

mod target;

use super::{Outcome, count};
use crate::config::{self, Config};
use crate::journal::{JournalReader, Read};
use crate::pipeline::{Pipeline, RawSamples};
use crate::record::RecordKind;
use crate::source::recording::{self, Manifest, Recording};
use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use target::Target;

/// Most bytes of journal records read at a time.
const READ_BYTES_MAX: usize = 8 << 20;

/// Run a journal or recordings through the pipeline into files or Kafka topics
///
/// Features, rollups, spectra and alerts go into newline-delimited JSON files or to Kafka, the same bytes that the live pipeline made or
/// would have made, with the same ids. Kafka's results wait in the temporary folder until they are delivered.
/// A journal is only read, also while its gateway runs; a recording is taken as one sensor of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  spindle replay --config gateway.toml --out replayed\n  \
                        spindle replay --config new-limits.toml --journal /var/lib/spindle/journal --from 2026-03-01T00:00:00Z --out march\n  \
                        spindle replay --recordings data/bosch_cnc --out features --json\n  \
                        spindle replay --config gateway.toml --kafka 127.0.0.1:9092 --topic-prefix replay-1")]
#[command(group = clap::ArgGroup::new("target").required(true).args(["out", "kafka"]))]
pub struct Args {
    /// Configuration with the pipeline's settings and rules; its journal is read unless another source is named. Without it,
    /// recordings are measured with the built-in settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Journal folder to read
    #[arg(long, value_name = "DIR", conflicts_with = "recordings")]
    journal: Option<PathBuf>,
    /// Folder with a manifest.csv and the recordings that it names, or the manifest
    #[arg(long, value_name = "PATH")]
    recordings: Option<PathBuf>,
    /// Recordings: only those whose file name contains this
    #[arg(long, value_name = "TEXT", requires = "recordings")]
    only: Option<String>,
    /// Recordings: time of their first sample, since they carry none
    #[arg(long, value_name = "TIME", default_value = "2000-01-01T00:00:00Z")]
    start: jiff::Timestamp,
    /// Journal: only records from this time on
    #[arg(long, value_name = "TIME", conflicts_with = "recordings")]
    from: Option<jiff::Timestamp>,
    /// Journal: only records before this time
    #[arg(long, value_name = "TIME", conflicts_with = "recordings")]
    to: Option<jiff::Timestamp>,
    /// Folder for features.jsonl, rollups.jsonl, spectra.jsonl and alerts.jsonl; made if missing, and not overwritten
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Kafka brokers to send to instead, to topics of their own; other settings are those of [forward.kafka]
    #[arg(long, value_name = "HOST:PORT", requires = "topic_prefix")]
    kafka: Option<String>,
    /// Prefix of the topics PREFIX.features.v1 and PREFIX.alerts.v1
    #[arg(long, value_name = "PREFIX", requires = "kafka")]
    topic_prefix: Option<String>,
    /// Print one JSON object at the end: {"records", "samples", "features", "rollups", "spectra", "alerts", "undecodable", "config"}
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Replays.
    pub fn run(self) -> anyhow::Result<Outcome> {
        let config = self.load_config()?;
        let mut pipeline = Pipeline::new(&config);
        let mut target = self.target(&config)?;
        match &self.recordings {
            Some(dir) => self.replay_recordings(dir, &mut pipeline, &mut target)?,
            None => {
                let dir = self.journal.clone().unwrap_or_else(|| config.gateway.data_dir.join("journal"));
                self.replay_journal(&dir, &mut pipeline, &mut target)?;
            }
        }
        let place = target.finish(|total| self.progress(total, "records delivered"))?;
        self.report(&pipeline, &place);
        Ok(Outcome::Done)
    }

    fn target(&self, config: &Config) -> anyhow::Result<Target> {
        match (&self.out, &self.kafka, &self.topic_prefix) {
            (Some(dir), _, _) => Target::files(dir),
            (None, Some(brokers), Some(prefix)) => Target::kafka(config, brokers, prefix),
            _ => bail!("name where to: --out DIR, or --kafka HOST:PORT --topic-prefix PREFIX"),
        }
    }

    fn load_config(&self) -> anyhow::Result<Config> {
        match &self.config {
            Some(path) => Ok(config::load(path)?),
            None if self.recordings.is_some() => {
                // Nothing of it is used but the pipeline's defaults.
                let text = "[gateway]\nname = \"replay\"\ndata_dir = \".\"\n";
                toml::from_str(text).context("the built-in settings are malformed")
            }
            None => bail!(
                "name what to replay: --config FILE, with or without --journal DIR, or --recordings DIR"
            ),
        }
    }

    fn replay_journal(&self, dir: &Path, pipeline: &mut Pipeline, target: &mut Target) -> anyhow::Result<()> {
        let reader = JournalReader::open_read_only(dir)
            .with_context(|| format!("cannot read the journal in {}", dir.display()))?;
        let end = reader.next_offset()?;
        let mut next = reader.oldest_offset()?.max(1);
        let progress = self.progress(end.saturating_sub(next), "records");
        let from_ns = self.from.map_or(i64::MIN, nanoseconds);
        let to_ns = self.to.map_or(i64::MAX, nanoseconds);
        let mut outputs = Vec::new();
        // What comes in after the start is left to the next replay, so that it ends also while a gateway writes.
        while next < end {
            match reader.read(next, READ_BYTES_MAX, Duration::ZERO)? {
                Read::Batch(batch) => {
                    for record in batch.iter().take_while(|record| record.offset < end) {
                        // Births name the axes: they count whenever they came.
                        if record.kind == RecordKind::Node || (from_ns..to_ns).contains(&record.time_ns) {
                            pipeline.push(record, &mut outputs);
                        }
                    }
                    target.write(&mut outputs)?;
                    progress.inc(batch.next().min(end).saturating_sub(next));
                    next = batch.next();
                }
                Read::Evicted { next: oldest } => next = oldest,
                Read::Idle | Read::Closed => break,
            }
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn replay_recordings(
        &self,
        dir: &Path,
        pipeline: &mut Pipeline,
        target: &mut Target,
    ) -> anyhow::Result<()> {
        let Manifest { path, recordings, others } = recording::manifest(dir)?;
        let wanted = |r: &Recording| self.only.as_deref().is_none_or(|text| r.file.contains(text));
        let recordings: Vec<_> = recordings.into_iter().filter(wanted).collect();
        ensure!(!recordings.is_empty(), "no recording of {} is wanted by --only", path.display());
        if !others.is_empty() {
            eprintln!("left out {}: no sample type that is known", count(others.len(), "row", "rows"));
        }
        let progress = self.progress(recordings.len() as u64, "recordings");
        let mut keys = HashSet::new();
        for recording in &recordings {
            let key = Arc::new(recording.key());
            ensure!(
                keys.insert(Arc::clone(&key)),
                "two recordings have the key {key}: replay them one by one with --only"
            );
            self.replay_recording(recording, &key, pipeline, target)?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn replay_recording(
        &self,
        recording: &Recording,
        key: &Arc<crate::record::SensorKey>,
        pipeline: &mut Pipeline,
        target: &mut Target,
    ) -> anyhow::Result<()> {
        let start_ns = nanoseconds(self.start);
        let mut pieces = recording.open()?;
        let (mut planar, mut outputs, mut first_sample) = (Vec::new(), Vec::new(), 0_u64);
        loop {
            let samples = pieces.next(&mut planar)?;
            if samples == 0 {
                return Ok(());
            }
            let since_ns = libm::round(first_sample as f64 * 1e9 / recording.rate_hz) as i64;
            let raw = RawSamples {
                first_sample,
                time_ns: start_ns.saturating_add(since_ns),
                axes: &recording.axes,
                rate_hz: recording.rate_hz,
                range: None,
                planar: &mut planar,
            };
            pipeline.push_samples(key, raw, &mut outputs);
            target.write(&mut outputs)?;
            first_sample += samples as u64;
        }
    }

    /// A bar on a terminal, nothing elsewhere.
    fn progress(&self, total: u64, what: &str) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {what}, {{eta}} left"));
        let bar = ProgressBar::new(total);
        style.map_or(bar.clone(), |style| bar.with_style(style))
    }

    fn report(&self, pipeline: &Pipeline, place: &str) {
        let stats = pipeline.stats();
        let (features, rollups, spectra, alerts) =
            (stats.windows, stats.rollups, stats.spectra, stats.alert_changes);
        if self.json {
            let report = serde_json::json!({
                "records": stats.records,
                "samples": stats.samples,
                "features": features,
                "rollups": rollups,
                "spectra": spectra,
                "alerts": alerts,
                "undecodable": stats.undecodable,
                "config": pipeline.config_version(),
            });
            println!("{report}");
            return;
        }
        println!(
            "{} samples: {features} features, {rollups} rollups, {spectra} spectra, {alerts} alert changes in {place}",
            stats.samples
        );
        if stats.undecodable > 0 {
            println!(
                "{} could not be decoded and were left out",
                count(stats.undecodable as usize, "record", "records")
            );
        }
    }
}

fn nanoseconds(time: jiff::Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}
