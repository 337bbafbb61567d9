//! Lines of a spectrum at known frequencies: harmonics, side-bands, orders of a shaft; chatter; and a speed from the spectrum.

use super::LANES;
use super::spectrum::{Bin, Grid};
use super::window::Window;
use serde::{Deserialize, Serialize};
use std::vec::Vec;

/// Bins to each side of a line that its floor is taken from.
const FLOOR_BINS: usize = 24;

/// One channel of a density spectrum.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    density: &'a [Bin],
    lane: usize,
    grid: Grid,
    window: Window,
}

/// A line found in a spectrum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Where it was looked for, Hz.
    pub expected_hz: f64,
    /// Where it is, Hz: the centre of its power, good to a few hundredths of a bin for a line that stands alone.
    pub hz: f64,
    /// RMS of what the window's main lobe around it holds, in the signal's unit. Two lines closer than twice that lobe count as one.
    pub rms: f64,
    /// Its highest bin over the median of the bins around, dB.
    pub prominence_db: f64,
}

/// Lines to both sides of another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SideBands {
    /// Root of the sum of their mean squares.
    pub rms: f64,
    /// That over the centre's RMS; infinite when the centre is silent.
    pub ratio: f64,
    /// How many were found within the spectrum.
    pub count: usize,
}

impl<'a> Lines<'a> {
    /// Channel `lane` of a density (see [`super::Scaling::Density`]) taken with this window on this grid. Nothing when the spectrum
    /// has another length or there is no such channel.
    #[must_use]
    pub fn new(density: &'a [Bin], lane: usize, grid: Grid, window: Window) -> Option<Self> {
        let fits = density.len() == grid.bins() && lane < LANES && grid.step_hz() > 0.0;
        fits.then_some(Self { density, lane, grid, window })
    }

    fn at(&self, bin: usize) -> f64 {
        self.density.get(bin).and_then(|bin| bin.get(self.lane)).copied().unwrap_or(0.0)
    }

    fn top(&self) -> usize {
        self.density.len() - 1
    }

    /// The nearest bin of a frequency within the spectrum.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    fn bin(&self, hz: f64) -> Option<usize> {
        let bin = libm::round(hz / self.grid.step_hz());
        (bin >= 0.0 && bin <= self.top() as f64).then_some(bin as usize)
    }

    /// The strongest line within `tolerance` (a share, 0.01 for 1 %) of `hz`, at least one bin to each side. Nothing outside of the
    /// spectrum.
    #[must_use]
    pub fn line(&self, hz: f64, tolerance: f64) -> Option<Line> {
        let middle = self.bin(hz)?;
        let reach = (hz * tolerance.clamp(0.0, 1.0)).max(self.grid.step_hz());
        let first = self.bin((hz - reach).max(0.0))?.min(middle).max(1);
        let last = self.bin(hz + reach).unwrap_or(self.top()).max(middle);
        let mut peak = first;
        for bin in first..=last {
            if self.at(bin) > self.at(peak) {
                peak = bin;
            }
        }
        Some(self.measure(peak, hz))
    }

    fn measure(&self, peak: usize, expected_hz: f64) -> Line {
        let lobe = self.window.half_lobe_bins();
        let (mut power, mut moment) = (0.0, 0.0);
        for bin in peak.saturating_sub(lobe)..=(peak + lobe).min(self.top()) {
            power += self.at(bin);
            moment += self.at(bin) * (bin as f64 - peak as f64);
        }
        let centre = if power > 0.0 { moment / power } else { 0.0 };
        let floor = self.floor(peak);
        let ratio = self.at(peak) / floor;
        Line {
            expected_hz,
            hz: (peak as f64 + centre) * self.grid.step_hz(),
            rms: libm::sqrt(power * self.grid.step_hz()),
            prominence_db: if floor > 0.0 { 10.0 * libm::log10(ratio.max(1e-30)) } else { 0.0 },
        }
    }

    /// Median of the bins around a peak, its main lobe left out.
    fn floor(&self, peak: usize) -> f64 {
        let lobe = self.window.half_lobe_bins();
        let mut around = [0.0; 2 * FLOOR_BINS];
        let mut count = 0;
        let below = (1..=FLOOR_BINS).filter_map(|away| peak.checked_sub(lobe + away)).filter(|&bin| bin > 0);
        let above = (1..=FLOOR_BINS).map(|away| peak + lobe + away).filter(|&bin| bin <= self.top());
        for (slot, bin) in around.iter_mut().zip(below.chain(above)) {
            *slot = self.at(bin);
            count += 1;
        }
        median(&mut around[..count])
    }

    /// The lines at 1, 2 ... `count` times `hz`, as far as they lie within the spectrum; each looked for within `tolerance`.
    pub fn harmonics(&self, hz: f64, count: u32, tolerance: f64) -> impl Iterator<Item = Line> + '_ {
        (1..=count).map_while(move |order| self.line(hz * f64::from(order), tolerance))
    }

    /// Root of the sum of the mean squares of the harmonics: what a periodic vibration of that rate amounts to.
    #[must_use]
    pub fn harmonic_rms(&self, hz: f64, count: u32, tolerance: f64) -> f64 {
        libm::sqrt(self.harmonics(hz, count, tolerance).map(|line| line.rms * line.rms).sum())
    }

    /// The lines `spacing_hz`, 2 x `spacing_hz` ... `pairs` x `spacing_hz` to both sides of `centre`: of an inner-ring fault at the
    /// shaft's speed, of a gear at that of its shaft. Nothing when they are too close to be told apart.
    #[must_use]
    pub fn side_bands(&self, centre: &Line, spacing_hz: f64, pairs: u32) -> Option<SideBands> {
        let resolved = spacing_hz >= 2.0 * self.window.half_lobe_bins() as f64 * self.grid.step_hz();
        if !resolved {
            return None;
        }
        let (mut square, mut count) = (0.0, 0);
        for pair in 1..=pairs {
            let away = spacing_hz * f64::from(pair);
            for hz in [centre.hz - away, centre.hz + away] {
                if let Some(line) = (hz > 0.0).then(|| self.line(hz, 0.0)).flatten() {
                    square += line.rms * line.rms;
                    count += 1;
                }
            }
        }
        let rms = libm::sqrt(square);
        Some(SideBands { rms, ratio: rms / centre.rms, count })
    }
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// What a cutter's comb leaves of a spectrum. There is no standard and no general threshold: compare with an air cut or with a good
/// one of the same tool.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Chatter {
    /// RMS at the harmonics of the spindle (the tooth passes are among them).
    pub comb_rms: f64,
    /// RMS of all else in the band.
    pub rest_rms: f64,
    /// The rest over the comb; infinite when the comb is silent.
    pub ratio: f64,
    /// The strongest line of the rest.
    pub strongest: Option<Line>,
    /// Power at odd multiples of half the tooth pass over that at the tooth passes, as a ratio of RMS. Period doubling, a kind of
    /// chatter, sits there; with an even number of flutes these are harmonics of the spindle too, and so part of the comb, and
    /// run-out shows there as well.
    pub doubling_ratio: f64,
}

impl Lines<'_> {
    /// Chatter indicator for a spindle speed that is known, in the band `low_hz` to `high_hz`. A harmonic takes `tolerance` (a share
    /// of its frequency) or the window's main lobe to each side, whichever is more. Nothing when the harmonics then touch at the
    /// band's end, or when there are no flutes.
    #[must_use]
    pub fn chatter(
        &self,
        spindle_hz: f64,
        flutes: u32,
        band_hz: [f64; 2],
        tolerance: f64,
    ) -> Option<Chatter> {
        let [low_hz, high_hz] = band_hz;
        let step = self.grid.step_hz();
        // A bin and a half of its skirts, too.
        let lobe_hz = (self.window.half_lobe_bins() as f64 + 1.5) * step;
        let reach = |hz: f64| lobe_hz.max(hz * tolerance);
        if flutes == 0 || !(spindle_hz > 0.0 && low_hz < high_hz && 2.0 * reach(high_hz) < 0.5 * spindle_hz) {
            return None;
        }
        let (first, last) = (self.bin(low_hz)?, self.bin(high_hz).unwrap_or(self.top()));
        let (mut comb, mut rest, mut strongest) = (0.0, 0.0, None::<usize>);
        let (mut doubled, mut teeth) = (0.0, 0.0);
        let tooth_hz = f64::from(flutes) * spindle_hz;
        for bin in first..=last {
            let hz = self.grid.hz(bin);
            let off = |spacing: f64| (hz - libm::round(hz / spacing) * spacing).abs();
            let power = self.at(bin) * step;
            if off(spindle_hz) <= reach(hz) {
                comb += power;
            } else {
                rest += power;
                if strongest.is_none_or(|strongest| self.at(bin) > self.at(strongest)) {
                    strongest = Some(bin);
                }
            }
            if off(tooth_hz) <= reach(hz) {
                teeth += power;
            } else if off(tooth_hz / 2.0) <= reach(hz) {
                doubled += power;
            }
        }
        Some(Chatter {
            comb_rms: libm::sqrt(comb),
            rest_rms: libm::sqrt(rest),
            ratio: libm::sqrt(rest / comb),
            strongest: strongest.map(|bin| self.measure(bin, self.grid.hz(bin))),
            doubling_ratio: libm::sqrt(doubled / teeth),
        })
    }
}

/// A shaft speed found in a spectrum: never a measured one, and to be labelled so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EstimatedSpeed {
    /// Hz.
    pub hz: f64,
    /// Mean of `ln(bin / floor)`, each at most 6, over harmonics and channels. Noise gives about 0.5.
    pub score: f64,
    /// By how much the next best speed in the range, more than two bins away, scores less: 0 (no better) to 1. Not a probability.
    pub confidence: f64,
}

/// Estimates a shaft's speed within a range that is known beforehand, from the harmonics that it must have.
#[derive(Debug)]
pub struct SpeedSearch {
    harmonics: u32,
    /// Logarithm of each bin over its floor, summed over channels.
    prominence: Vec<f64>,
    channel: Vec<f64>,
    floors: Vec<f64>,
    scratch: Vec<f64>,
}

/// Candidates at most: a wider range is searched in coarser steps.
const CANDIDATES_MAX: usize = 8192;

/// Below this score there is no comb: pure noise reaches about 1 over some thousand candidates with ten harmonics.
const SCORE_MIN: f64 = 1.2;

/// Largest logarithm that a single bin may add, so that one strong line is not a comb.
const BIN_SCORE_MAX: f64 = 6.0;

impl SpeedSearch {
    /// For spectra of up to `bins` bins; looks at so many harmonics, 1 to 30 (ten are usual).
    #[must_use]
    pub fn new(bins: usize, harmonics: u32) -> Self {
        let vector = || Vec::with_capacity(bins);
        Self {
            harmonics: harmonics.clamp(1, 30),
            prominence: vector(),
            channel: vector(),
            floors: vector(),
            scratch: vector(),
        }
    }

    /// The speed between `low_hz` and `high_hz` whose harmonics stand out most, over the first `channels` channels of a density of
    /// long segments (the range should be some bins wide). The floor is the median over half the lowest speed to both sides.
    /// Nothing without a range, and nothing where no comb stands out: a speed is never guessed. A range wider than an octave
    /// invites half and double the speed; the confidence then says little.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bins within the spectrum")]
    pub fn estimate(
        &mut self,
        density: &[Bin],
        channels: usize,
        grid: Grid,
        low_hz: f64,
        high_hz: f64,
    ) -> Option<EstimatedSpeed> {
        let step = grid.step_hz();
        if !(low_hz > 4.0 * step && low_hz < high_hz && high_hz.is_finite()) || density.len() != grid.bins() {
            return None;
        }
        self.prominence.clear();
        self.prominence.resize(density.len(), 0.0);
        let half = (low_hz / step / 2.0) as usize;
        let mut used = 0;
        for lane in 0..channels.min(LANES) {
            self.channel.clear();
            self.channel.extend(density.iter().map(|bin| bin[lane]));
            if self.channel.iter().skip(1).any(|&value| value > 0.0) {
                used += 1;
                self.add_channel(half.max(8));
            }
        }
        let top_hz = grid.hz(density.len() - 1);
        let harmonics =
            (1..=self.harmonics).take_while(|&order| f64::from(order) * high_hz <= top_hz).count() as u32;
        if used == 0 || harmonics == 0 {
            return None;
        }
        // The highest harmonic moves half a bin from one candidate to the next.
        let fine = step / (2.0 * f64::from(harmonics));
        let count = (((high_hz - low_hz) / fine) as usize + 2).min(CANDIDATES_MAX);
        let candidate = |index: usize| low_hz + (high_hz - low_hz) * index as f64 / (count - 1) as f64;
        let prominence = &self.prominence;
        let score = |hz: f64| {
            let bin = |order| libm::round(f64::from(order) * hz / step) as usize;
            let sum: f64 = (1..=harmonics).filter_map(|order| prominence.get(bin(order))).sum();
            sum / f64::from(harmonics) / f64::from(used)
        };
        let mut best = (0.0, 0.0, 0);
        for index in 0..count {
            let score = score(candidate(index));
            if score > best.1 {
                best = (candidate(index), score, index);
            }
        }
        let (first_hz, best_score, first) = best;
        // Neighbours that score the same are the same speed: their middle.
        let same = (first..count).take_while(|&index| score(candidate(index)) == best_score).count();
        let hz = (first_hz + candidate(first + same.saturating_sub(1))) / 2.0;
        let mut next = 0.0_f64;
        for index in 0..count {
            if (candidate(index) - hz).abs() > 2.0 * step {
                next = next.max(score(candidate(index)));
            }
        }
        let confidence = 1.0 - next / best_score;
        (best_score >= SCORE_MIN).then_some(EstimatedSpeed { hz, score: best_score, confidence })
    }

    /// Adds the channel's logarithms over its floor: medians of blocks of `2 half` bins, linear between the blocks' centres.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the blocks")]
    fn add_channel(&mut self, half: usize) {
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.channel);
        self.floors.clear();
        self.floors.extend(self.scratch.chunks_mut(2 * half).map(median));
        let last = self.floors.len() - 1;
        for (bin, (&value, prominence)) in self.channel.iter().zip(&mut self.prominence).enumerate().skip(1) {
            let place = ((bin as f64 - half as f64) / (2 * half) as f64).clamp(0.0, last as f64);
            let below = place as usize;
            let (from, to) = (self.floors[below], self.floors[(below + 1).min(last)]);
            let floor = from + (to - from) * (place - below as f64);
            if floor > 0.0 {
                *prominence += libm::log(value / floor).clamp(0.0, BIN_SCORE_MAX);
            }
        }
    }
}
