//! What accumulates between the start and the end of a window or a rollup.

use serde::{Deserialize, Serialize};
use spindle_common::dsp::{LANES, Moments};

/// Most downsampled samples per channel in one rollup; a longer rollup goes without them.
pub(crate) const DOWNSAMPLED_MAX: usize = 4096;

/// A window in the making.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Its number: first sample / length.
    pub(crate) index: u64,
    pub(crate) start_ns: i64,
    pub(crate) moments: Vec<Moments>,
    /// Sums of squared velocities, (mm/s)² at the design rate.
    pub(crate) velocity: Vec<[f64; LANES]>,
    /// Samples in them: those after the filters had settled.
    pub(crate) settled: u64,
    pub(crate) saturated: Vec<u64>,
    pub(crate) stuck: u8,
    pub(crate) non_finite: u64,
    pub(crate) late: u64,
    pub(crate) flags: u16,
}

impl Window {
    pub(crate) fn new(index: u64, start_ns: i64, axes: usize) -> Self {
        Self {
            index,
            start_ns,
            moments: vec![Moments::EMPTY; axes],
            velocity: vec![[0.0; LANES]; axes.div_ceil(LANES)],
            settled: 0,
            saturated: vec![0; axes],
            stuck: 0,
            non_finite: 0,
            late: 0,
            flags: 0,
        }
    }

    /// Makes a closed window the next one, keeping its buffers.
    pub(crate) fn reuse(&mut self, index: u64, start_ns: i64) {
        self.index = index;
        self.start_ns = start_ns;
        self.moments.fill(Moments::EMPTY);
        self.velocity.fill([0.0; LANES]);
        self.saturated.fill(0);
        (self.settled, self.stuck, self.non_finite, self.late, self.flags) = (0, 0, 0, 0, 0);
    }

    /// Samples per channel that it holds.
    pub(crate) fn samples(&self) -> u64 {
        self.moments.first().map_or(0, |m| m.count)
    }
}

/// A rollup in the making.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rollup {
    pub(crate) index: u64,
    pub(crate) start_ns: i64,
    pub(crate) moments: Vec<Moments>,
    pub(crate) flags: u16,
    pub(crate) downsampled: Downsampled,
}

/// The downsampled signal that came out during a rollup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Downsampled {
    /// Index of the input sample on which the first value is centred.
    pub(crate) first: u64,
    /// UTC of that sample.
    pub(crate) first_ns: i64,
    /// Rows of one value an axis; NaN where a gap left none.
    pub(crate) values: Vec<f32>,
    /// More came than fit.
    pub(crate) overflowed: bool,
}

impl Rollup {
    pub(crate) fn new(index: u64, start_ns: i64, axes: usize) -> Self {
        let downsampled = Downsampled::default();
        Self { index, start_ns, moments: vec![Moments::EMPTY; axes], flags: 0, downsampled }
    }

    pub(crate) fn reuse(&mut self, index: u64, start_ns: i64) {
        (self.index, self.start_ns, self.flags) = (index, start_ns, 0);
        self.moments.fill(Moments::EMPTY);
        self.downsampled.values.clear();
        self.downsampled.overflowed = false;
    }

    pub(crate) fn samples(&self) -> u64 {
        self.moments.first().map_or(0, |m| m.count)
    }
}

impl Downsampled {
    /// Adds the output centred on input sample `centre`, `factor` input samples after the last; what a gap left out is filled
    /// with NaN.
    pub(crate) fn push(
        &mut self,
        centre: u64,
        factor: u32,
        time_ns: i64,
        values: impl Iterator<Item = f32>,
        axes: usize,
    ) {
        if self.values.is_empty() {
            (self.first, self.first_ns) = (centre, time_ns);
        }
        let place = (centre - self.first) / u64::from(factor);
        if place >= DOWNSAMPLED_MAX as u64 {
            self.overflowed = true;
            return;
        }
        self.values.resize(place as usize * axes, f32::NAN);
        self.values.extend(values);
    }
}
