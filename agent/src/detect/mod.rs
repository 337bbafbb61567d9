//! Anomaly score against a robust baseline: how far a window lies from the sensor's own recent past.
//!
//! Per axis, the natural logarithms of [`COLUMNS`] are compared with the median of the last `history_windows` good windows, in
//! units of 1.4826 MAD (which equals the standard deviation for Gaussian data). The score is the largest of these magnitudes.
//! Logarithms make a doubling as far as a halving, and a level's spread independent of the level.
//!
//! - Until `learning_windows` good windows have been seen the state is `learning` and there is no score.
//! - A window is learned only if its quality is good, and not while its score is [`FREEZE_SCORE`] or more: a fault must not become
//!   the norm. After `history_windows` such windows in a row the baseline starts anew, because by then this is the machine's
//!   normal running, or somebody has been told.
//! - Memory per sensor is bounded: `history_windows` × axes × 4 values of 4 bytes, twice (ring and sorted).

pub mod comb;
pub mod explain;
pub mod health;
pub mod mask;

use crate::config;
use crate::outputs::BaselineRow;
use serde::{Deserialize, Serialize};

/// The features that the baseline is made of, as names of [`crate::pipeline::FEATURES`].
pub const COLUMNS: [&str; 4] = ["acceleration_rms", "peak", "kurtosis", "velocity_rms"];

/// Number of [`COLUMNS`].
pub const COLUMN_COUNT: usize = COLUMNS.len();

/// Windows that score this much are not learned.
pub const FREEZE_SCORE: f32 = 8.0;

/// Least spread, as a standard deviation of the logarithm: 2 %, so that a very steady machine does not make a change of nothing
/// look like a fault.
const SPREAD_MIN: f64 = 0.02;

/// Consistency factor of the MAD for Gaussian data.
const MAD_TO_SIGMA: f64 = 1.4826;

/// Values below this are taken as this, so that a silent channel has a logarithm.
const VALUE_MIN: f32 = 1e-6;

/// One axis's values in the order of [`COLUMNS`]; `None` where the window gave none.
pub type Values = [Option<f32>; COLUMN_COUNT];

/// What the baseline says about one axis of one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Largest distance from the median, in robust standard deviations.
    pub score: f32,
    /// Index into [`COLUMNS`] of the feature with that distance.
    pub column: usize,
    /// Whether that feature lies above (or below) its median.
    pub above: bool,
}

/// The part of a baseline that is saved whole; the history is saved row by row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineHead {
    /// Good windows learned since the baseline was started.
    pub learned: u64,
    /// Windows in a row that were not learned because they scored too high.
    pub frozen: u32,
}

/// The recent past of one sensor.
#[derive(Debug, Clone)]
pub struct Baseline {
    head: BaselineHead,
    axes: usize,
    history_max: usize,
    learning: u64,
    /// Row-major ring of logarithms, `axes * COLUMN_COUNT` a row.
    ring: Vec<f32>,
    /// The same per column, sorted.
    sorted: Vec<Vec<f32>>,
    /// Slots changed since the last save.
    dirty: Vec<u32>,
}

impl Baseline {
    /// An empty baseline for a sensor with `axes` channels.
    #[must_use]
    pub fn new(config: &config::Anomaly, axes: usize) -> Self {
        Self {
            head: BaselineHead::default(),
            axes,
            history_max: config.history_windows.max(1),
            learning: config.learning_windows.max(2) as u64,
            ring: Vec::new(),
            sorted: vec![Vec::new(); axes * COLUMN_COUNT],
            dirty: Vec::new(),
        }
    }

    /// The baseline as it was saved; `None` if the rows do not fit `head` and `config`.
    #[must_use]
    pub fn restore(
        config: &config::Anomaly,
        axes: usize,
        head: BaselineHead,
        rows: &[BaselineRow],
    ) -> Option<Self> {
        let mut baseline = Self::new(config, axes);
        let rows_expected = head.learned.min(baseline.history_max as u64);
        if rows.len() as u64 != rows_expected {
            return None;
        }
        for (slot, row) in rows.iter().enumerate() {
            if row.slot as usize != slot || row.row.len() != 4 * axes * COLUMN_COUNT {
                return None;
            }
            let values = row.row.chunks_exact(4).filter_map(|b| b.try_into().ok()).map(f32::from_le_bytes);
            baseline.ring.extend(values);
        }
        let columns = axes * COLUMN_COUNT;
        for (i, value) in baseline.ring.iter().enumerate() {
            baseline.sorted[i % columns].push(*value);
        }
        for column in &mut baseline.sorted {
            column.sort_unstable_by(f32::total_cmp);
        }
        baseline.head = head;
        Some(baseline)
    }

    /// What is saved whole.
    #[must_use]
    pub fn head(&self) -> BaselineHead {
        self.head
    }

    /// Rows of the history now.
    #[must_use]
    pub fn rows(&self) -> u32 {
        u32::try_from(self.row_count()).unwrap_or(u32::MAX)
    }

    /// The rows that changed since this was last called.
    pub fn take_changed(&mut self) -> Vec<BaselineRow> {
        let columns = self.axes * COLUMN_COUNT;
        self.dirty.sort_unstable();
        self.dirty.dedup();
        let ring = &self.ring;
        let row_of = |slot: u32| {
            let start = slot as usize * columns;
            let row = ring.get(start..start + columns)?.iter().flat_map(|v| v.to_le_bytes()).collect();
            Some(BaselineRow { slot, row })
        };
        let rows = self.dirty.iter().filter_map(|slot| row_of(*slot)).collect();
        self.dirty.clear();
        rows
    }

    /// Whether too few windows have been learned for a score.
    #[must_use]
    pub fn is_learning(&self) -> bool {
        self.head.learned < self.learning
    }

    /// Good windows that a score needs.
    #[must_use]
    pub fn learning_windows(&self) -> u64 {
        self.learning
    }

    /// Scores one axis; `None` while learning or if the window gave no value.
    #[must_use]
    pub fn score(&self, axis: usize, values: &Values) -> Option<Score> {
        if self.is_learning() {
            return None;
        }
        let mut worst: Option<Score> = None;
        for (column, value) in values.iter().enumerate() {
            let (Some(value), Some(sorted)) = (value, self.sorted.get(axis * COLUMN_COUNT + column)) else {
                continue;
            };
            let (median, mad) = median_and_mad(sorted);
            let spread = (MAD_TO_SIGMA * mad).max(SPREAD_MIN);
            let distance = (f64::from(ln(*value)) - median) / spread;
            let score = distance.abs() as f32;
            if worst.is_none_or(|w| score > w.score) {
                worst = Some(Score { score, column, above: distance > 0.0 });
            }
        }
        worst
    }

    /// Takes a good window into the history, or counts it as frozen if it scored too high. `values` has one entry an axis, each
    /// complete, or the window is not learned.
    pub fn learn(&mut self, values: &[Values], worst: Option<f32>) {
        if values.len() != self.axes || values.iter().flatten().any(Option::is_none) {
            return;
        }
        if worst.is_some_and(|score| score >= FREEZE_SCORE) {
            self.head.frozen += 1;
            if self.head.frozen as usize >= self.history_max {
                self.restart();
            }
            return;
        }
        self.head.frozen = 0;
        let columns = self.axes * COLUMN_COUNT;
        let slot = (self.head.learned % self.history_max as u64) as usize;
        let replaces = slot < self.row_count();
        for (i, value) in values.iter().flatten().enumerate() {
            let new = ln(value.unwrap_or(VALUE_MIN));
            let column = &mut self.sorted[i];
            if replaces {
                let old = std::mem::replace(&mut self.ring[slot * columns + i], new);
                let at = column.partition_point(|v| v.total_cmp(&old).is_lt());
                column.remove(at);
            } else {
                self.ring.push(new);
            }
            let at = column.partition_point(|v| v.total_cmp(&new).is_lt());
            column.insert(at, new);
        }
        self.head.learned += 1;
        self.dirty.push(slot as u32);
    }

    fn row_count(&self) -> usize {
        self.ring.len() / (self.axes * COLUMN_COUNT).max(1)
    }

    fn restart(&mut self) {
        self.head = BaselineHead::default();
        self.ring.clear();
        self.sorted.iter_mut().for_each(Vec::clear);
        self.dirty.clear();
    }
}

/// From `libm`, whose result is the same on every platform.
fn ln(value: f32) -> f32 {
    // A NaN never gets here (features are finite); `max` would turn it into the minimum.
    libm::log(f64::from(value.max(VALUE_MIN))) as f32
}

/// Median (mean of the two middle values if their number is even) and median absolute deviation from it (lower middle value) of
/// sorted values.
fn median_and_mad(sorted: &[f32]) -> (f64, f64) {
    let n = sorted.len();
    if n == 0 {
        return (0.0, 0.0);
    }
    let at = |i: usize| f64::from(sorted[i]);
    let median = (at((n - 1) / 2) + at(n / 2)) / 2.0;
    // Walk outwards from the median on both sides, always to the nearer value: the distances come in order.
    let mut right = sorted.partition_point(|v| f64::from(*v) < median);
    let mut left = right;
    let mut distance = 0.0;
    for _ in 0..n.div_ceil(2) {
        let left_distance = if left > 0 { median - at(left - 1) } else { f64::INFINITY };
        let right_distance = if right < n { at(right) - median } else { f64::INFINITY };
        if left_distance < right_distance {
            left -= 1;
            distance = left_distance;
        } else {
            right += 1;
            distance = right_distance;
        }
    }
    (median, distance)
}

#[cfg(test)]
mod tests;
