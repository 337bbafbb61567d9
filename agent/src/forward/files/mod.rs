//! A folder as a destination: newline-delimited JSON, a CloudEvent (JSON event format) a line.
//!
//! A file is `LANE-POSITION-TIME.ndjson`: the lane, the position of its first record in the lane's log, and when it was
//! begun. While it is written its name ends in `.part`; it loses that, in one step, when it is finished: by size, by age, when
//! the folder is full. A stop leaves it as it is, and the next start goes on with it.
//!
//! A cursor moves only past lines that are fsynced. After a crash the file under way is cut behind its last whole line, and
//! what the cursor does not cover is written once more, with the same `id`. A file whose write or fsync failed is cut back to
//! what was fsynced before and goes on by a new handle.
//!
//! | limit | value | when reached |
//! |---|---|---|
//! | bytes of all its files | `size_max` | the file under way is finished; then it waits until files are taken away, and says so; it deletes none |
//! | lines written and not fsynced | [`UNSYNCED_MAX`] of a lane | fsync |
//! | time until fsync | [`SYNC_INTERVAL_NS`] | fsync |
//!
//! While it waits, the journal and the outputs log keep what comes, as long as their own limits allow; what they evict
//! before it was written here is counted on the lane. No destination can make a log keep more than its limit.

mod event;
mod folder;
mod writer;

use super::lane::Fault;
use super::log::Lanes;
use super::runner::{Keeper, LaneRunner, Problems};
use super::{Destination, ForwardError, Stats};
use crate::clock::{Clock, Now};
use crate::config::FilesForward;
use event::Line;
use folder::Folder;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use writer::{WriteError, Writer};

/// Most records of one lane before the next lane's turn.
const TURN_RECORDS: usize = 256;
/// Most bytes of a lane that are written and not fsynced.
const UNSYNCED_MAX: u64 = 4 << 20;
/// Longest time that something is written and not fsynced; shorter would wear out small disks.
const SYNC_INTERVAL_NS: u64 = 500_000_000;
/// How long the thread rests when there is nothing to do.
const REST: Duration = Duration::from_millis(20);

/// A folder as a destination.
pub struct FilesDestination {
    config: FilesForward,
    clock: Clock,
    keeper: Keeper,
    lanes: Vec<LaneRunner>,
    writers: Vec<Writer>,
    folder: Folder,
    line: Line,
    stats: Arc<Stats>,
    problems: Problems,
}

impl FilesDestination {
    /// Prepares the destination: reads its cursors in `data_dir`. Touches the folder not yet: it may be away for a while.
    ///
    /// # Errors
    /// A cursor file that cannot be read.
    pub fn new(
        config: &FilesForward,
        gateway: &str,
        data_dir: &Path,
        lanes: Lanes,
        clock: Clock,
    ) -> Result<Self, ForwardError> {
        let keeper = Keeper::open(data_dir, &config.name)?;
        let stats = Arc::new(Stats::default());
        let mut runners = Vec::new();
        for (name, log) in lanes {
            let cursor = keeper.load(name)?;
            stats.lane(name).cursor.store(cursor, Ordering::Relaxed);
            runners.push(LaneRunner::new(name, log, cursor, UNSYNCED_MAX));
        }
        Ok(Self {
            config: config.clone(),
            clock,
            keeper,
            writers: runners.iter().map(|runner| Writer::new(&config.dir, runner.name.as_str())).collect(),
            lanes: runners,
            folder: Folder::new(&config.dir, config.size_max.as_u64()),
            line: Line::new(gateway),
            problems: Problems::new(&config.name, stats.clone()),
            stats,
        })
    }

    /// One lane's turn; whether it did anything.
    fn turn(&mut self, index: usize, now: Now) -> bool {
        let (runner, writer) = (&mut self.lanes[index], &mut self.writers[index]);
        let mut did = false;
        for _ in 0..TURN_RECORDS {
            if !runner.lane.may_send(now.mono_ns) || (runner.items.is_empty() && !runner.read(&self.stats)) {
                break;
            }
            did = true;
            let Some(item) = runner.items.front() else { continue };
            let decision = runner.lane.decide(item.offset);
            let text = self.line.of(item, runner.name);
            if let Err(error) = writer.write(&mut self.folder, item.offset, text, now) {
                let whose = if matches!(error, WriteError::Full { .. }) {
                    Fault::Configuration
                } else {
                    Fault::Passing
                };
                self.problems.say(Some(runner.name), whose, error.what(), &error.to_string());
                give_up(runner, writer, &self.stats, now.mono_ns, &error);
                return false;
            }
            runner.lane.sent(item.offset, text.len(), &decision);
            runner.pass_front(&self.stats);
            if writer.is_due(&self.config, now) {
                break;
            }
        }
        // The other lanes may have to look how much the folder holds.
        if did && let Err(error) = writer.flush() {
            self.problems.say(Some(runner.name), Fault::Passing, error.what(), &error.to_string());
            give_up(runner, writer, &self.stats, now.mono_ns, &error);
        }
        did
    }

    /// Fsyncs what the lane has written when it is time to, and then moves its cursor; finishes its file when that is due.
    fn settle(&mut self, index: usize, now: Now, stopping: bool) {
        let (runner, writer) = (&mut self.lanes[index], &mut self.writers[index]);
        let finish = writer.is_due(&self.config, now);
        let sync =
            stopping || !runner.lane.may_send(now.mono_ns) || writer.waits_since(now) >= SYNC_INTERVAL_NS;
        let done = if finish {
            writer.finish()
        } else if sync {
            writer.sync()
        } else {
            return;
        };
        match done {
            Ok(()) => {
                let next = runner.lane.serial_next();
                let pending = runner.lane.pending() as u64;
                for serial in next - pending..next {
                    runner.delivered(serial, &self.stats);
                }
                // One that waits for room has delivered only what it wrote before.
                if pending > 0 && runner.lane.may_send(now.mono_ns) {
                    self.problems.over(runner.name);
                }
                runner.follow(&self.stats);
            }
            Err(error) => {
                self.problems.say(Some(runner.name), Fault::Passing, error.what(), &error.to_string());
                give_up(runner, writer, &self.stats, now.mono_ns, &error);
            }
        }
    }
}

/// What was written and not fsynced counts as not written; it is tried again after a pause.
fn give_up(runner: &mut LaneRunner, writer: &mut Writer, stats: &Stats, now_ns: u64, error: &WriteError) {
    if matches!(error, WriteError::Full { .. }) {
        // What is written may be whole: only the next line has no place.
        runner.lane.hold(now_ns);
        return;
    }
    writer.close();
    stats.lane(runner.name).failed.fetch_add(runner.lane.pending() as u64, Ordering::Relaxed);
    runner.lane.abandon(now_ns);
    runner.follow(stats);
}

impl Destination for FilesDestination {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<(), ForwardError> {
        loop {
            let now = self.clock.now();
            let stopping = stop.load(Ordering::Relaxed);
            let mut busy = false;
            for index in 0..self.lanes.len() {
                let did = self.turn(index, now);
                self.settle(index, now, stopping);
                busy |= did;
            }
            self.keeper.save_now_and_then(&mut self.lanes, &self.stats, now.mono_ns);
            if stopping {
                self.keeper.save(&mut self.lanes, &self.stats);
                return Ok(());
            }
            if !busy {
                std::thread::sleep(REST);
            }
        }
    }
}

#[cfg(test)]
mod tests;
