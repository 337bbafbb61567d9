//! The newest level of each sensor, for terminals and metrics: never in the pipeline's way.

use super::FEATURES;
use super::emit::AnomalyState;
use crate::alert::{Change, Event};
use crate::outputs::AlertRow;
use crate::record::SensorKey;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Most alert changes remembered.
const CHANGES_MAX: usize = 64;

/// A sensor's newest window.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// End of the window, UTC ns.
    pub end_ns: i64,
    /// Per axis: its name and its values in the order of [`FEATURES`].
    pub axes: Vec<(String, [Option<f32>; FEATURES.len()])>,
    /// What the baseline is doing.
    pub state: AnomalyState,
    /// Alerts that stand.
    pub alerts_active: usize,
    /// Quality flags, bits named by [`super::FLAG_NAMES`].
    pub flags: u16,
}

impl Level {
    /// Largest value of a feature over the axes.
    #[must_use]
    pub fn highest(&self, feature: &str) -> Option<f32> {
        let index = FEATURES.iter().position(|f| f.name == feature)?;
        self.axes.iter().filter_map(|(_, values)| values[index]).reduce(f32::max)
    }
}

/// A change of an alert, as the terminal shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertChange {
    /// What happened.
    pub event: Event,
    /// The alert.
    pub alert: AlertRow,
    /// Value that made the change.
    pub value: Option<f32>,
    /// Event time, UTC ns.
    pub at_ns: i64,
}

/// Shared between the pipeline and whoever shows it. Locks are held for copying one level only.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    levels: BTreeMap<Arc<SensorKey>, Level>,
    changes: VecDeque<(u64, AlertChange)>,
    change_count: u64,
}

impl Live {
    /// A copy of every sensor's newest level.
    #[must_use]
    pub fn levels(&self) -> Vec<(Arc<SensorKey>, Level)> {
        self.0.lock().levels.iter().map(|(key, level)| (Arc::clone(key), level.clone())).collect()
    }

    /// The alert changes after number `seen` (0 for all that are remembered), each with its number.
    #[must_use]
    pub fn changes_after(&self, seen: u64) -> Vec<(u64, AlertChange)> {
        self.0.lock().changes.iter().filter(|(number, _)| *number > seen).cloned().collect()
    }

    pub(crate) fn set(&self, key: &Arc<SensorKey>, level: Level) {
        self.0.lock().levels.insert(Arc::clone(key), level);
    }

    pub(crate) fn alert(&self, row: &AlertRow, change: &Change) {
        let mut state = self.0.lock();
        state.change_count += 1;
        let number = state.change_count;
        if state.changes.len() == CHANGES_MAX {
            state.changes.pop_front();
        }
        let change =
            AlertChange { event: change.event, alert: row.clone(), value: change.value, at_ns: change.at_ns };
        state.changes.push_back((number, change));
    }
}
