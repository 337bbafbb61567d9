//! What a stream's filters measure beside velocity: displacement, and acceleration above a corner.

use super::settings::Settings;
use serde::{Deserialize, Serialize};
use spindle_common::dsp::{Conditioner, Corner, Displacement, Extremes, Frame, LANES, Moments};

/// Order of the high-pass for high-frequency acceleration: 24 dB an octave.
const HIGH_PASS_ORDER: usize = 4;

/// Filters over four channels, since the last start or gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Filters {
    /// First sample at which displacement counts.
    displacement_at: u64,
    /// One a group of channels; none where the rate is too low for the band.
    displacement: Vec<Displacement>,
    high: Vec<Conditioner<2>>,
}

/// A window's sums over four channels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Sums {
    displacement: Extremes,
    /// Sums of squares above the corner, (m/s²)².
    high: [f64; LANES],
}

const NOTHING: Sums = Sums { displacement: Extremes::EMPTY, high: [0.0; LANES] };

/// Mean and RMS of an axis in the last window put out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Level {
    mean: f64,
    rms: f64,
}

/// One stream's. Saved behind everything that version 1 of the state had.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meters {
    filters: Option<Filters>,
    sums: Vec<Sums>,
    /// Samples of the window over which displacement counts.
    pub(crate) displacement_settled: u64,
    levels: Vec<Level>,
}

impl Meters {
    pub(crate) fn new(axes: usize) -> Self {
        Self {
            filters: None,
            sums: vec![NOTHING; axes.div_ceil(LANES)],
            displacement_settled: 0,
            levels: Vec::with_capacity(axes),
        }
    }

    /// Whether a restored state fits so many channels.
    pub(crate) fn is_sound(&self, axes: usize) -> bool {
        let groups = axes.div_ceil(LANES);
        let of_filters = |f: &Filters| f.displacement.len() <= groups && f.high.len() <= groups;
        self.sums.len() == groups && self.levels.len() <= axes && self.filters.as_ref().is_none_or(of_filters)
    }

    /// Starts the filters at `sample` as if `first` (of each group) had been there for ever.
    pub(crate) fn start(
        &mut self,
        sample: u64,
        rate_hz: f64,
        settings: &Settings,
        first: impl Fn(usize) -> Frame,
    ) {
        let groups = self.sums.len();
        let [low_hz, high_hz] = settings.pipeline.displacement_band_hz;
        let displacement: Vec<Displacement> = (0..groups)
            .map_while(|group| {
                let mut displacement = Displacement::new(low_hz, high_hz, rate_hz).ok()?;
                displacement.settle(first(group).map(f64::from));
                Some(displacement)
            })
            .collect();
        let corner = Corner { hz: settings.pipeline.high_frequency_hz, order: HIGH_PASS_ORDER };
        let high = (0..groups).filter(|_| settings.has_high_frequency(rate_hz)).map_while(|group| {
            let mut high = Conditioner::new(Some(corner), None, rate_hz).ok()?;
            high.settle(first(group).map(f64::from));
            Some(high)
        });
        let settle_len = displacement.first().map_or(0, Displacement::settle_len);
        self.filters = Some(Filters {
            displacement_at: sample.saturating_add(settle_len),
            high: high.collect(),
            displacement,
        });
    }

    /// A new window.
    pub(crate) fn reuse(&mut self) {
        self.sums.fill(NOTHING);
        self.displacement_settled = 0;
    }

    /// Takes frames of each group, the first of which is number `sample`; the first `unsettled` of them do not count.
    pub(crate) fn take(&mut self, frames: [&[Frame]; 2], sample: u64, unsettled: usize) {
        let Some(filters) = &mut self.filters else { return };
        let len = frames[0].len();
        let early = filters.displacement_at.saturating_sub(sample).min(len as u64) as usize;
        let mut unsettled_extremes = Extremes::EMPTY;
        for (displacement, (frames, sums)) in
            filters.displacement.iter_mut().zip(frames.iter().zip(&mut self.sums))
        {
            displacement.extremes(&frames[..early], &mut unsettled_extremes);
            displacement.extremes(&frames[early..], &mut sums.displacement);
        }
        self.displacement_settled += (len - early) as u64;
        for (high, (frames, sums)) in filters.high.iter_mut().zip(frames.iter().zip(&mut self.sums)) {
            high.energy(&frames[..unsettled]);
            let energy = high.energy(&frames[unsettled..]);
            for (sum, energy) in sums.high.iter_mut().zip(energy) {
                *sum += energy;
            }
        }
    }

    /// Displacement peak to peak in µm at the rate that the filters are for.
    pub(crate) fn displacement(&self, axis: usize) -> Option<f64> {
        let found = self.filters.as_ref().is_some_and(|f| !f.displacement.is_empty());
        let sums = self.sums.get(axis / LANES).filter(|_| found && self.displacement_settled > 0)?;
        Some(sums.displacement.peak_to_peak()[axis % LANES])
    }

    /// RMS above the corner over so many settled samples, m/s².
    pub(crate) fn high_frequency(&self, axis: usize, settled: u64) -> Option<f64> {
        let found = self.filters.as_ref().is_some_and(|f| !f.high.is_empty());
        let sums = self.sums.get(axis / LANES).filter(|_| found && settled > 0)?;
        Some(libm::sqrt(sums.high[axis % LANES] / settled as f64))
    }

    /// Whether an axis's mean moved, from the last window to this one, by more than `limit` and by more than the vibration of the
    /// quieter of the two: that of one window may have the step in it. Keeps this window's means for the next.
    pub(crate) fn has_shifted(&mut self, moments: &[Moments], limit: f64) -> bool {
        let shifted = moments
            .iter()
            .zip(&self.levels)
            .any(|(m, level)| (m.mean - level.mean).abs() > limit.max(m.rms().min(level.rms)));
        self.levels.clear();
        self.levels.extend(moments.iter().map(|m| Level { mean: m.mean, rms: m.rms() }));
        shifted
    }
}
