//! What every destination does with its lanes: read their logs, pass over what is not wanted, go back with the lane, keep the
//! cursors, and say what hinders, once an episode.

use super::cursor::CursorStore;
use super::lane::{Fault, Lane};
use super::log::{Item, Log, Progress};
use super::{ForwardError, LaneStats, Stats};
use crate::config::LaneName;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// About how many bytes a lane reads from its log at a time.
const READ_BYTES: usize = 1 << 20;
/// How often cursors are saved.
const SAVE_INTERVAL_NS: u64 = 200_000_000;

/// A lane with the log that it reads.
pub(super) struct LaneRunner {
    pub(super) name: LaneName,
    pub(super) log: Box<dyn Log>,
    pub(super) lane: Lane,
    /// Read, and not under way yet.
    pub(super) items: VecDeque<Item>,
    rewinds: u64,
    /// Everything before is in `items`, under way or passed over.
    read_to: u64,
    read_failing: bool,
}

impl LaneRunner {
    /// A lane that goes on at `cursor`.
    pub(super) fn new(name: LaneName, log: Box<dyn Log>, cursor: u64, bytes_max: u64) -> Self {
        Self {
            name,
            log,
            lane: Lane::new(cursor, bytes_max),
            items: VecDeque::new(),
            rewinds: 0,
            read_to: cursor,
            read_failing: false,
        }
    }

    /// Reads more; whether anything came of it.
    pub(super) fn read(&mut self, stats: &Stats) -> bool {
        let name = self.name.as_str();
        match self.log.read(self.read_to, READ_BYTES, &mut self.items) {
            Ok(Progress::To(next)) => {
                self.read_failing = false;
                self.read_to = next;
                if self.items.is_empty() {
                    self.lane.skip_to(next);
                }
                true
            }
            Ok(Progress::Evicted(next)) => {
                let lost = next.saturating_sub(self.read_to);
                tracing::warn!(
                    lane = name,
                    from = self.read_to,
                    to = next,
                    "evicted before it could be forwarded"
                );
                stats.lane(self.name).evicted.fetch_add(lost, Ordering::Relaxed);
                self.read_to = next;
                self.lane.skip_to(next);
                true
            }
            Ok(Progress::Idle | Progress::Closed) => false,
            Err(reason) => {
                if !self.read_failing {
                    tracing::error!(lane = name, position = self.read_to, "cannot read the log: {reason}");
                }
                self.read_failing = true;
                false
            }
        }
    }

    /// The front item is under way or needs no sending.
    pub(super) fn pass_front(&mut self, stats: &Stats) {
        let Some(item) = self.items.pop_front() else { return };
        self.lane.skip_to(item.offset + 1);
        if self.items.is_empty() {
            self.lane.skip_to(self.read_to);
        }
        let stats = stats.lane(self.name);
        stats.sent.fetch_add(1, Ordering::Relaxed);
        stats.in_flight.store(self.lane.pending() as u64, Ordering::Relaxed);
    }

    /// A record has arrived.
    pub(super) fn delivered(&mut self, serial: u64, stats: &Stats) {
        if let Some(bytes) = self.lane.delivered(serial) {
            let stats = stats.lane(self.name);
            stats.delivered.fetch_add(1, Ordering::Relaxed);
            stats.delivered_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Follows the lane when it went back, and shows where it stands.
    pub(super) fn follow(&mut self, stats: &Stats) {
        if self.rewinds != self.lane.rewinds() {
            self.rewinds = self.lane.rewinds();
            self.items.clear();
            self.read_to = self.lane.next();
        }
        let stats: &LaneStats = stats.lane(self.name);
        stats.cursor.store(self.lane.cursor(), Ordering::Relaxed);
        stats.in_flight.store(self.lane.pending() as u64, Ordering::Relaxed);
    }
}

/// Keeps the cursors of a destination's lanes.
#[derive(Debug)]
pub(super) struct Keeper {
    store: CursorStore,
    saved: Vec<u64>,
    saved_ns: u64,
    failing: bool,
}

impl Keeper {
    /// The cursors that `destination` has in `data_dir`.
    pub(super) fn open(data_dir: &Path, destination: &str) -> Result<Self, ForwardError> {
        let store = CursorStore::open(data_dir, destination)?;
        Ok(Self { store, saved: Vec::new(), saved_ns: 0, failing: false })
    }

    /// Where `lane` goes on.
    pub(super) fn load(&self, lane: LaneName) -> Result<u64, ForwardError> {
        self.store.load(lane.as_str())
    }

    /// [`Self::save`], when it is time.
    pub(super) fn save_now_and_then(&mut self, lanes: &mut [LaneRunner], stats: &Stats, now_ns: u64) {
        if now_ns.saturating_sub(self.saved_ns) >= SAVE_INTERVAL_NS {
            self.saved_ns = now_ns;
            self.save(lanes, stats);
        }
    }

    /// Saves the cursors that moved. What cannot be saved (a full disk) is saved later; a restart until then repeats records.
    pub(super) fn save(&mut self, lanes: &mut [LaneRunner], stats: &Stats) {
        let now: Vec<u64> = lanes.iter().map(|runner| runner.lane.cursor()).collect();
        if now != self.saved {
            let named: Vec<(&str, u64)> =
                lanes.iter().map(|runner| runner.name.as_str()).zip(now.iter().copied()).collect();
            match self.store.save(&named) {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("cursors are saved again");
                    }
                    self.saved = now;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(%error, "cursors cannot be saved; a restart before they can would repeat records");
                    }
                }
            }
        }
        for runner in lanes {
            runner.lane.tidy();
            runner.follow(stats);
        }
    }
}

/// What hinders a destination: at most one thing for each lane and one for all.
#[derive(Debug)]
pub(super) struct Problems {
    destination: String,
    stats: Arc<Stats>,
    open: BTreeMap<Option<LaneName>, Problem>,
}

#[derive(Debug)]
struct Problem {
    whose: Fault,
    /// What is the same over an episode.
    what: String,
    /// What may change from attempt to attempt.
    detail: String,
}

impl Problems {
    pub(super) fn new(destination: &str, stats: Arc<Stats>) -> Self {
        Self { destination: destination.into(), stats, open: BTreeMap::new() }
    }

    /// Shows what hinders `lane`, or all, and logs it when it is new.
    pub(super) fn say(&mut self, lane: Option<LaneName>, whose: Fault, what: &str, detail: &str) {
        let destination = &self.destination;
        let known = self.open.get(&lane);
        let is_news = known.is_none_or(|known| known.what != what);
        match whose {
            Fault::Configuration if is_news => {
                tracing::error!("{destination}: {what} ({detail}); trying again slowly, nothing is lost");
            }
            Fault::Configuration => {}
            // The broken connection that goes with a wrong setting says less than the setting.
            _ if known.is_some_and(|known| known.whose == Fault::Configuration) => return,
            _ if known.is_none() => {
                tracing::warn!("{destination}: {what} ({detail}); waiting, the journal keeps what comes");
            }
            _ => tracing::debug!("{destination}: {what} ({detail})"),
        }
        self.open.insert(lane, Problem { whose, what: what.to_owned(), detail: detail.to_owned() });
        self.show();
    }

    /// `lane` delivers: nothing hinders it, nor all.
    pub(super) fn over(&mut self, lane: LaneName) {
        if self.open.is_empty() {
            return;
        }
        for which in [Some(lane), None] {
            if self.open.remove(&which).is_some() {
                tracing::info!("{}: {} are delivered again", self.destination, lane.as_str());
            }
        }
        self.show();
    }

    fn show(&self) {
        let text = |problem: &Problem| format!("{} ({})", problem.what, problem.detail);
        let all: Vec<String> = self.open.values().map(text).collect();
        *self.stats.problem.lock() = if all.is_empty() { None } else { Some(all.join("; ")) };
    }
}
