//! Between the journal and the outputs log: reads records, pushes them through the pipeline, commits what comes out.

use super::{Pipeline, PipelineStats};
use crate::config::Config;
use crate::journal::{JournalError, JournalReader, Read};
use crate::outputs::{Commit, OutputLog, OutputStats, OutputsError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of records between two commits.
const READ_BYTES_MAX: usize = 4 << 20;

/// How long a read waits for new records before the stop signal is looked at.
const READ_WAIT: Duration = Duration::from_millis(200);

/// Pause before a failed commit or read is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Why the runner could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The outputs log.
    #[error(transparent)]
    Outputs(#[from] OutputsError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Where the runner is, for metrics and the demo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunnerStats {
    /// Journal offset that is read next.
    pub next_offset: u64,
    /// Commits to the outputs log.
    pub commits: u64,
    /// Commits that failed and were tried again.
    pub commit_failures: u64,
    /// Journal reads that failed and were tried again.
    pub read_failures: u64,
    /// Journal records evicted before they were read.
    pub records_evicted: u64,
    /// The pipeline's counters.
    pub pipeline: PipelineStats,
    /// The outputs log's counters.
    pub outputs: OutputStats,
}

/// A handle that outlives the runner's thread.
#[derive(Debug, Clone, Default)]
pub struct RunnerMonitor(Arc<Mutex<RunnerStats>>);

impl RunnerMonitor {
    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> RunnerStats {
        *self.0.lock()
    }
}

/// The pipeline at work on one journal.
#[derive(Debug)]
pub struct Runner {
    reader: JournalReader,
    pipeline: Pipeline,
    log: OutputLog,
    stats: RunnerStats,
    monitor: RunnerMonitor,
}

impl Runner {
    /// Goes on where the outputs log's checkpoint says.
    ///
    /// # Errors
    /// The outputs log or the journal cannot be read.
    pub fn new(config: &Config, reader: JournalReader, log: OutputLog) -> Result<Self, RunnerError> {
        let mut loaded = log.load()?;
        let journal_next = reader.next_offset()?;
        if loaded.checkpoint > journal_next {
            tracing::warn!(
                checkpoint = loaded.checkpoint,
                journal_next,
                "the journal is shorter than the outputs log remembers (was it replaced?): reading it from its start"
            );
            loaded.checkpoint = 0;
            for sensor in &mut loaded.sensors {
                sensor.applied = 0;
            }
        }
        let (pipeline, errors) = Pipeline::restore(config, &loaded);
        for error in errors {
            tracing::error!("{error}");
        }
        let stats = RunnerStats {
            next_offset: loaded.checkpoint.max(1),
            outputs: log.stats(),
            ..RunnerStats::default()
        };
        let monitor = RunnerMonitor(Arc::new(Mutex::new(stats)));
        Ok(Self { reader, pipeline, log, stats, monitor })
    }

    /// Counters, shared.
    #[must_use]
    pub fn monitor(&self) -> RunnerMonitor {
        self.monitor.clone()
    }

    /// Works until the journal is closed and read to its end, or until `stop` says so. Either way the state of every sensor is saved
    /// at the end. While the disk refuses, it waits and tries again; the journal keeps what it has not read.
    ///
    /// # Errors
    /// The last commit failed and `stop` was set.
    pub fn run(mut self, stop: impl Fn() -> bool) -> Result<RunnerStats, RunnerError> {
        let mut commit = Commit::default();
        let mut read_failing = false;
        while !stop() {
            match self.reader.read(self.stats.next_offset, READ_BYTES_MAX, READ_WAIT) {
                Ok(Read::Batch(batch)) => {
                    for record in &batch {
                        self.pipeline.push(record, &mut commit.outputs);
                    }
                    self.stats.next_offset = batch.next();
                    self.pipeline.save(&mut commit, false);
                    if !commit.outputs.is_empty() || !commit.sensors.is_empty() {
                        self.commit(&mut commit, &stop)?;
                    }
                }
                Ok(Read::Idle) => {}
                Ok(Read::Evicted { next }) => {
                    let records = next.saturating_sub(self.stats.next_offset);
                    tracing::warn!(
                        records,
                        next,
                        "journal records are gone before the pipeline read them: evicted, or damaged"
                    );
                    self.stats.records_evicted += records;
                    self.stats.next_offset = next;
                }
                Ok(Read::Closed) => break,
                Err(error) => {
                    self.stats.read_failures += 1;
                    if !std::mem::replace(&mut read_failing, true) {
                        tracing::error!("reading the journal failed, trying again: {error}");
                    }
                    std::thread::sleep(RETRY_PAUSE);
                    continue;
                }
            }
            if std::mem::take(&mut read_failing) {
                tracing::info!("the journal can be read again");
            }
            self.publish();
        }
        self.pipeline.save(&mut commit, true);
        self.commit(&mut commit, &stop)?;
        self.publish();
        Ok(self.stats)
    }

    fn publish(&mut self) {
        self.stats.pipeline = self.pipeline.stats();
        self.stats.outputs = self.log.stats();
        *self.monitor.0.lock() = self.stats;
    }

    fn commit(&mut self, commit: &mut Commit, stop: &impl Fn() -> bool) -> Result<(), RunnerError> {
        for tries in 1u64.. {
            match self.log.commit(commit) {
                Ok(()) => {
                    if tries > 1 {
                        tracing::info!(tries, "outputs are committed again");
                    }
                    self.stats.commits += 1;
                    commit.clear();
                    return Ok(());
                }
                Err(error) if stop() => return Err(error.into()),
                Err(error) => {
                    self.stats.commit_failures += 1;
                    self.publish();
                    if tries == 1 {
                        tracing::error!("committing outputs failed, trying again: {error}");
                    }
                    if error.is_damage() {
                        // The new file has the states that could be read, which may be older ones.
                        self.pipeline.save(commit, true);
                    }
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
        Ok(())
    }
}
