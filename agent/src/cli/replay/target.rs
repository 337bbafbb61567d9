//! Where a replay's results go: files, or Kafka through the gateway's own forward.

use crate::clock::Clock;
use crate::config::{Config, KafkaForward, LaneName, Outputs};
use crate::forward::kafka::KafkaDestination;
use crate::forward::log::{Log, OutputsLog};
use crate::outputs::{Commit, OutputLog};
use crate::record::{Output, OutputKind};
use crate::runtime::{self, Delivery};
use anyhow::Context as _;
use bytesize::ByteSize;
use indicatif::ProgressBar;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Results that are committed to the waiting log at a time.
const COMMIT_OUTPUTS: usize = 4096;
/// More than any replay makes: nothing that waits for its delivery is evicted.
const WAITING_MAX: ByteSize = ByteSize::tib(64);

/// Where results go.
pub(super) enum Target {
    Files(Box<Files>),
    Kafka(Box<Topics>),
}

/// Newline-delimited JSON.
pub(super) struct Files {
    dir: PathBuf,
    features: BufWriter<File>,
    rollups: BufWriter<File>,
    spectra: BufWriter<File>,
    alerts: BufWriter<File>,
}

/// A log in a temporary folder, and the destination that reads it.
pub(super) struct Topics {
    place: String,
    log: OutputLog,
    commit: Commit,
    committed: u64,
    delivery: Delivery,
    _dir: TempDir,
}

impl Target {
    /// `features.jsonl`, `rollups.jsonl`, `spectra.jsonl` and `alerts.jsonl` in `dir`, none of which may exist.
    pub(super) fn files(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let create = |name: &str| {
            let path = dir.join(name);
            let file = File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
            anyhow::Ok(BufWriter::with_capacity(1 << 18, file))
        };
        Ok(Self::Files(Box::new(Files {
            dir: dir.to_owned(),
            features: create("features.jsonl")?,
            rollups: create("rollups.jsonl")?,
            spectra: create("spectra.jsonl")?,
            alerts: create("alerts.jsonl")?,
        })))
    }

    /// The topics of `prefix` at `brokers`, otherwise as the configuration's `[forward.kafka]`.
    pub(super) fn kafka(config: &Config, brokers: &str, prefix: &str) -> anyhow::Result<Self> {
        let settings = match &config.forward.kafka {
            Some(settings) => settings.clone(),
            None => toml::from_str(&format!("brokers = {brokers:?}"))
                .context("the built-in settings are malformed")?,
        };
        let settings = KafkaForward { brokers: brokers.into(), topic_prefix: prefix.into(), ..settings };
        let dir = tempfile::Builder::new().prefix("spindle-replay-").tempdir()?;
        let log = OutputLog::open(dir.path(), &Outputs { size_max: WAITING_MAX, ..Outputs::default() })?;
        let of =
            |kinds: &'static [OutputKind]| Box::new(OutputsLog::new(log.reader(), kinds)) as Box<dyn Log>;
        let logs = vec![
            (LaneName::Alerts, of(&[OutputKind::Alert])),
            (LaneName::Features, of(&[OutputKind::Features, OutputKind::Rollup, OutputKind::Spectrum])),
        ];
        let destination =
            KafkaDestination::new(&settings, &config.gateway.name, dir.path(), logs, Clock::system())?;
        Ok(Self::Kafka(Box::new(Topics {
            place: format!("{prefix}.features.v1 and {prefix}.alerts.v1"),
            log,
            commit: Commit::default(),
            committed: 0,
            delivery: runtime::deliver(destination)?,
            _dir: dir,
        })))
    }

    /// Takes `outputs` over.
    pub(super) fn write(&mut self, outputs: &mut Vec<Output>) -> anyhow::Result<()> {
        match self {
            Self::Files(files) => {
                files.write(outputs).with_context(|| format!("cannot write to {}", files.dir.display()))
            }
            Self::Kafka(topics) => {
                topics.commit.outputs.append(outputs);
                if topics.commit.outputs.len() >= COMMIT_OUTPUTS { topics.commit() } else { Ok(()) }
            }
        }
    }

    /// Writes or delivers what is left; says where all of it is.
    pub(super) fn finish(self, progress: impl Fn(u64) -> ProgressBar) -> anyhow::Result<String> {
        match self {
            Self::Files(mut files) => {
                files.flush().with_context(|| format!("cannot write to {}", files.dir.display()))?;
                Ok(files.dir.display().to_string())
            }
            Self::Kafka(mut topics) => {
                topics.commit()?;
                let bar = progress(topics.committed);
                let mut said = None;
                topics.delivery.finish(topics.committed, |delivered, problem| {
                    bar.set_position(delivered);
                    if problem != said {
                        problem.iter().for_each(|problem| eprintln!("kafka: {problem}"));
                        said = problem;
                    }
                })?;
                bar.finish_and_clear();
                Ok(topics.place)
            }
        }
    }
}

impl Files {
    fn write(&mut self, outputs: &mut Vec<Output>) -> std::io::Result<()> {
        for output in outputs.drain(..) {
            let file = match output.kind {
                OutputKind::Features => &mut self.features,
                OutputKind::Rollup => &mut self.rollups,
                OutputKind::Alert => &mut self.alerts,
                OutputKind::Spectrum => &mut self.spectra,
            };
            file.write_all(&output.json)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        [&mut self.features, &mut self.rollups, &mut self.spectra, &mut self.alerts]
            .into_iter()
            .try_for_each(Write::flush)
    }
}

impl Topics {
    fn commit(&mut self) -> anyhow::Result<()> {
        if !self.commit.outputs.is_empty() {
            self.committed += self.commit.outputs.len() as u64;
            self.log.commit(&mut self.commit).context("cannot keep results until they are delivered")?;
            self.commit.clear();
        }
        Ok(())
    }
}
