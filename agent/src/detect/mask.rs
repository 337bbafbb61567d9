//! Judges a machining cycle by the nearest of the good ones: a spectral mask without a model.
//!
//! A CNC machine repeats its programs, so a cycle is compared with recorded good cycles of the same process, not with a limit. Of a
//! cycle, each axis and band of a 24th octave keeps one number, the [`PERCENTILE`] of its level over half-second windows: a
//! [`Signature`]. A reference forgives what it has itself; by how much a cycle stands above it, in the mean of the [`WORST`] axes
//! and bands, is the distance in dB, and the score is the distance from the nearest reference. Nothing is averaged over
//! references: one odd good cycle then widens the mask instead of blurring it.
//!
//! One-sided: a cycle that is only quieter (a missing tool) needs a check of its own, and bursts much shorter than a window leave
//! no trace in a percentile. Until there are [`REFERENCES_MIN`] references, one of them from this machine, the answer is
//! [`Judgement::Learning`].

use serde::{Deserialize, Serialize};
use spindle_common::dsp::band::log_bands;
use spindle_common::dsp::fft::FftError;
use spindle_common::dsp::{Analyser, BandSum, Bin, Frame, Grid, LANES, Octave, Scale, Scaling, Window};

/// Lower edge of the lowest band, Hz.
const LOW_HZ: f64 = 80.0;

/// Bands of an octave.
const PER_OCTAVE: u32 = 24;

/// Upper edge of the highest band, as a share of the sample rate.
const HIGH_SHARE: f64 = 0.48;

/// Least length of a window, seconds.
const WINDOW_S: f64 = 0.5;

/// Added to every band's mean square, (m/s²)², so that silence has a level: 10^-7.5 g².
const FLOOR: f64 = 3.041e-6;

/// Least level that is told apart, dB re 1 (m/s²)²; that of the floor is -55.2.
const LEVEL_MIN_DB: f64 = -56.0;

/// Steps of 1 dB that a level is counted in, upwards from the least.
const LEVELS: usize = 120;

/// The share of a cycle's windows that are quieter than its signature.
pub const PERCENTILE: f64 = 0.75;

/// Axes and bands that a distance is the mean of.
pub const WORST: usize = 5;

/// Least length of a cycle that has a signature, seconds.
pub const CYCLE_MIN_S: f64 = 4.0;

/// References of the process that a judgement needs; at least one of them must be from the machine itself.
pub const REFERENCES_MIN: usize = 5;

/// Of what an axis has risen by as a whole (the median of its bands) this share is forgiven: sensors are mounted anew, oil is cold.
const FORGIVEN: f64 = 0.5;

/// Scores that warn and alarm, dB, over all bands.
pub const LEVELS_DB: [f64; 2] = [9.0, 12.0];

/// Scores that warn and alarm, dB, over the bands around the spindle's speed.
pub const SPINDLE_LEVELS_DB: [f64; 2] = [7.0, 9.0];

/// The bands around the spindle's speed, as shares of it.
const SPINDLE_RANGE: [f64; 2] = [0.75, 1.25];

/// Cuts windows into bands: plans and buffers, no state, so one serves all sensors of a thread at that rate.
#[derive(Debug)]
pub struct Bands {
    analyser: Analyser,
    scale: Scale,
    bands: Vec<(Octave, BandSum)>,
    density: Vec<Bin>,
    levels: Vec<Frame>,
    rate_hz: f64,
}

impl Bands {
    /// For the sample rate as measured.
    ///
    /// # Errors
    /// [`FftError`] for a rate whose windows would be too long or too short.
    pub fn new(rate_hz: f64) -> Result<Self, FftError> {
        let len = (libm::ceil(rate_hz * WINDOW_S).clamp(0.0, 1e9) as usize).next_power_of_two();
        let analyser = Analyser::new(len, Window::Hann)?;
        let grid = Grid { len, rate_hz };
        let octaves = log_bands(LOW_HZ, PER_OCTAVE, HIGH_SHARE * rate_hz);
        let bands: Vec<_> =
            octaves.filter_map(|band| Some((band, BandSum::new(band.low_hz, band.high_hz, grid)?))).collect();
        Ok(Self {
            scale: analyser.scale(Scaling::Density, rate_hz),
            analyser,
            density: vec![[0.0; LANES]; grid.bins()],
            levels: vec![[0.0; LANES]; bands.len()],
            bands,
            rate_hz,
        })
    }

    /// Samples of a window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.analyser.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.analyser.is_empty()
    }

    /// Samples from the start of one window to that of the next.
    #[must_use]
    pub fn hop(&self) -> usize {
        self.len() / 2
    }

    /// Level of each band and channel of a window in m/s², dB re 1 (m/s²)².
    fn levels(&mut self, window: &[Frame]) -> &[Frame] {
        let squares = self.analyser.squares(window);
        for (bin, (slot, square)) in self.density.iter_mut().zip(squares).enumerate() {
            *slot = square.map(|square| self.scale.of(bin, f64::from(square)));
        }
        for (slot, (_, band)) in self.levels.iter_mut().zip(&self.bands) {
            *slot = band.mean_square(&self.density).map(|power| (10.0 * libm::log10(power + FLOOR)) as f32);
        }
        &self.levels
    }

    /// Takes a window without gaps or clipping into a cycle.
    pub fn add(&mut self, window: &[Frame], cycle: &mut Cycle) {
        let axes = cycle.axes;
        let bands = self.bands.len();
        cycle.counts.resize(axes * bands, [0; LEVELS]);
        cycle.window_s = self.len() as f64 / self.rate_hz;
        cycle.windows += 1;
        for (band, levels) in self.levels(window).iter().enumerate() {
            for (axis, level) in levels.iter().enumerate().take(axes) {
                let step =
                    libm::floor(f64::from(*level) - LEVEL_MIN_DB).clamp(0.0, (LEVELS - 1) as f64) as usize;
                let count = &mut cycle.counts[axis * bands + band][step];
                *count = count.saturating_add(1);
            }
        }
    }
}

/// A cycle while it runs: how often each axis and band had each level. 240 bytes for each of them, however long it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Cycle {
    axes: usize,
    windows: u32,
    window_s: f64,
    counts: Vec<[u16; LEVELS]>,
}

impl Cycle {
    /// An empty cycle of a sensor with so many axes, of which the first four count.
    #[must_use]
    pub fn new(axes: usize) -> Self {
        Self { axes: axes.min(LANES), windows: 0, window_s: 0.0, counts: Vec::new() }
    }

    /// How long it has been, seconds, its windows overlapping by half.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        if self.windows == 0 { 0.0 } else { self.window_s * f64::from(self.windows + 1) / 2.0 }
    }

    /// Its signature so far; nothing before [`CYCLE_MIN_S`].
    #[must_use]
    pub fn signature(&self) -> Option<Signature> {
        // Half a window less than asked for still has all the windows that fit.
        if self.seconds() + self.window_s / 2.0 < CYCLE_MIN_S {
            return None;
        }
        let levels_db = self.counts.iter().map(percentile).collect();
        Some(Signature { axes: self.axes, levels_db })
    }
}

/// The level that the share [`PERCENTILE`] of the counts lies below, linear within a step.
fn percentile(counts: &[u16; LEVELS]) -> f32 {
    let all: u32 = counts.iter().map(|count| u32::from(*count)).sum();
    let wanted = PERCENTILE * f64::from(all);
    let mut below = 0.0;
    for (step, count) in counts.iter().enumerate() {
        let count = f64::from(*count);
        if count > 0.0 && below + count >= wanted {
            return (LEVEL_MIN_DB + step as f64 + (wanted - below) / count) as f32;
        }
        below += count;
    }
    LEVEL_MIN_DB as f32
}

/// What is kept of a cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signature {
    axes: usize,
    /// Axis by axis, one level a band, dB re 1 (m/s²)².
    levels_db: Vec<f32>,
}

/// A good cycle of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Of the machine being judged, or of another.
    pub own: bool,
    /// The cycle.
    pub signature: Signature,
}

/// By how much a cycle stands out on one axis and band.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Excess {
    /// Index of the axis.
    pub axis: usize,
    /// The band's middle, Hz.
    pub hz: f64,
    /// Over the nearest reference, dB.
    pub db: f64,
}

/// What the references say of a cycle.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// Too few references: this is not "fine".
    Learning {
        /// References of the process.
        references: usize,
        /// Of these, of the machine itself.
        own: usize,
    },
    /// Compared.
    Scored(Scored),
}

/// A cycle's distance.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// From the nearest reference, dB.
    pub score_db: f64,
    /// Which one that is.
    pub nearest: usize,
    /// The axes and bands that the score is the mean of, most first.
    pub excesses: Vec<Excess>,
}

/// All bands, as a range.
pub const ALL_HZ: [f64; 2] = [0.0, f64::MAX];

/// The bands around a spindle's speed.
#[must_use]
pub fn spindle_range_hz(spindle_hz: f64) -> [f64; 2] {
    SPINDLE_RANGE.map(|share| share * spindle_hz)
}

/// Judges a cycle over the bands whose middle lies within `range_hz`: [`ALL_HZ`], and where the spindle's speed is known also
/// [`spindle_range_hz`], each with levels of its own. References of another shape (axes, sample rate) are left out.
#[must_use]
pub fn judge(cycle: &Signature, references: &[Reference], range_hz: [f64; 2]) -> Judgement {
    let like = || references.iter().filter(|reference| reference.signature.is_like(cycle));
    let (count, own) = (like().count(), like().filter(|reference| reference.own).count());
    if count < REFERENCES_MIN || own == 0 {
        return Judgement::Learning { references: count, own };
    }
    nearest(cycle, references, range_hz)
        .map_or(Judgement::Learning { references: count, own }, Judgement::Scored)
}

/// The distance from the nearest reference, however few there are; nothing without one, or without a band in that range.
#[must_use]
pub fn nearest(cycle: &Signature, references: &[Reference], range_hz: [f64; 2]) -> Option<Scored> {
    let mut best: Option<Scored> = None;
    for (nearest, reference) in references.iter().enumerate() {
        if !reference.signature.is_like(cycle) {
            continue;
        }
        let mut excesses = cycle.excesses(&reference.signature, range_hz);
        excesses.sort_by(|a, b| b.db.total_cmp(&a.db));
        excesses.truncate(WORST);
        if excesses.is_empty() {
            return None;
        }
        let score_db = excesses.iter().map(|excess| excess.db).sum::<f64>() / excesses.len() as f64;
        if best.as_ref().is_none_or(|best| score_db < best.score_db) {
            best = Some(Scored { score_db, nearest, excesses });
        }
    }
    best
}

impl Signature {
    fn bands(&self) -> usize {
        self.levels_db.len() / self.axes.max(1)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.axes == other.axes && self.bands() == other.bands()
    }

    fn excesses(&self, reference: &Self, [low_hz, high_hz]: [f64; 2]) -> Vec<Excess> {
        let bands = self.bands();
        let rise = |(level, other): (&f32, &f32)| f64::from(level - other);
        let mut excesses = Vec::new();
        let axes = self.levels_db.chunks(bands.max(1)).zip(reference.levels_db.chunks(bands.max(1)));
        for (axis, (levels, others)) in axes.enumerate() {
            let mut rises: Vec<f64> = levels.iter().zip(others).map(rise).collect();
            let middle = rises.len() / 2;
            let median = *rises.select_nth_unstable_by(middle, f64::total_cmp).1;
            let forgiven = FORGIVEN * median.max(0.0);
            for (band, pair) in levels.iter().zip(others).enumerate() {
                let hz = LOW_HZ * libm::exp2((band as f64 + 0.5) / f64::from(PER_OCTAVE));
                if hz >= low_hz && hz <= high_hz {
                    excesses.push(Excess { axis, hz, db: (rise(pair) - forgiven).max(0.0) });
                }
            }
        }
        excesses
    }
}

#[cfg(test)]
mod tests;
