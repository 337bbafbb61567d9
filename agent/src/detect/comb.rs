//! Names a rolling bearing's fault without training: a comb of envelope lines, measured against combs where nothing can be.
//!
//! A defect strikes once per passage, at orders of the shaft that only the bearing's geometry gives. Per window of some seconds:
//!
//! 1. The spectrum is whitened (every bin's magnitude set to one), which takes gears, motors and resonances away and leaves the
//!    impacts, whatever band they ring in.
//! 2. Eleven overlapping bands, each a sixth of the spectrum wide, give a squared envelope each; of each envelope's spectrum the
//!    prominence of every bin over the local floor is taken, `ln(1 + bin / floor)`, at most 5, and averaged over the bands.
//! 3. What lies at a whole order of the shaft says nothing about the bearing and is blanked.
//! 4. A fault's gain is the sum at its harmonics, less the median of the same sum for [`DECOYS`] scaled geometries (3 to 31 % off,
//!    where no part of the machine can sound). Its `z` is the gain over the decoys' own spread: a spectrum that is crowded with
//!    lines of whatever origin raises the decoys too.
//!
//! Windows of one load and speed, each half over the one before, are averaged in [`CombAverage`]. A verdict names a fault only above [`Z_MIN`] and [`GAIN_MIN`];
//! [`Fault::None`] says that there is no comb, not that the bearing is healthy. The speed must be known; it is never guessed.
//!
//! Lines are sought a little to the side of the kinematic ones, unlike for each part, because load raises the contact angle: outer
//! ring lines rise while inner ring lines fall, their sum being the number of balls.

use serde::{Deserialize, Serialize};
use spindle_common::dsp::fft::{Complex, Demodulator, FftError, Lanes, RealFft, next_len};
use spindle_common::dsp::{BearingOrders, Frame, LANES, Window};

/// Highest order that is looked at.
const ORDER_MAX: f64 = 26.0;

/// Bands, each two of these steps wide.
const BANDS: usize = 11;

/// Fewest bins of a block that a floor is the median of.
const FLOOR_BINS_MIN: usize = 24;

/// Most that one bin may add.
const LEVEL_MAX: f32 = 5.0;

/// Least that a bin may add once the spectrum's median is taken off.
const LEVEL_MIN: f32 = -0.3;

/// Windows that an average remembers.
pub const WINDOWS_MAX: usize = 9;

/// Scaled geometries that a comb is compared with.
pub const DECOYS: usize = 42;

/// Distance from the fault of the nearest decoys, and of each from the next, as a share.
const DECOY_STEP: [f64; 2] = [0.03, 0.0137];

/// Least spread of the decoys.
const SPREAD_MIN: f64 = 0.25;

/// A fault is named from this many of the decoys' robust standard deviations on.
pub const Z_MIN: f64 = 3.5;

/// A fault is named from this gain on: roughly the sum over harmonics of the natural logarithm of line over floor.
pub const GAIN_MIN: f64 = 1.0;

/// Of a ball's comb, its own lines must add this much. Most of a ball's gain can come from the cage's lines, and the cages of two
/// bearings on one shaft turn at nearly the same speed: without this a sound bearing is named for its neighbour's fault.
const OWN_LINES_MIN: f64 = 0.15;

/// A cage is named only from so many times [`Z_MIN`] and [`GAIN_MIN`] on, and if no other gain is larger: its lines are heard with
/// every fault of a ball, and an outer ring's lie among its harmonics. Chosen without recordings of any broken cage.
const CAGE_FACTORS: [f64; 2] = [2.0, 6.0];

/// Seconds of a window, and turns of the shaft, at least.
const WINDOW_MIN: [f64; 2] = [2.0, 60.0];

/// What a bearing suffers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// No comb was found.
    None,
    /// Outer ring.
    Outer,
    /// Inner ring.
    Inner,
    /// Ball or roller.
    Ball,
    /// Cage.
    Cage,
}

impl Fault {
    /// Those that have a comb.
    pub const ALL: [Self; 4] = [Self::Outer, Self::Inner, Self::Ball, Self::Cage];
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Outer => "outer",
            Self::Inner => "inner",
            Self::Ball => "ball",
            Self::Cage => "cage",
        })
    }
}

/// Plans and buffers for windows of one length; no state between windows, so one serves all sensors of a thread.
#[derive(Debug)]
pub struct Comb {
    rate_hz: f64,
    fft: RealFft,
    white: Vec<Complex<Lanes>>,
    /// Bins of a band.
    width: usize,
    demodulator: Demodulator,
    envelope: RealFft,
    table: Vec<f32>,
    signal: Vec<Frame>,
    squares: Vec<Frame>,
    levels: Levels,
}

impl Comb {
    /// For windows at the sample rate as measured of a shaft that turns at `shaft_hz` or faster: at least two seconds and sixty turns.
    ///
    /// # Errors
    /// [`FftError`] when such a window is too long.
    pub fn new(rate_hz: f64, shaft_hz: f64) -> Result<Self, FftError> {
        let seconds = WINDOW_MIN[0].max(WINDOW_MIN[1] / shaft_hz.max(1e-3));
        let fft = RealFft::new(next_len(libm::ceil(seconds * rate_hz) as usize)?)?;
        let width = fft.len() / (BANDS + 1);
        let demodulator = Demodulator::new(width, 2)?;
        let len = demodulator.len();
        let envelope = RealFft::new(len)?;
        let table = Window::Hann.table(len);
        Ok(Self {
            rate_hz,
            white: Vec::with_capacity(fft.len() / 2 + 1),
            fft,
            width,
            demodulator,
            envelope,
            table,
            signal: Vec::with_capacity(len),
            squares: Vec::with_capacity(len / 2 + 1),
            levels: Levels::default(),
        })
    }

    /// Samples of a window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fft.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fft.is_empty()
    }

    /// Samples from the start of one window to that of the next.
    #[must_use]
    pub fn hop(&self) -> usize {
        self.fft.len() / 2
    }

    /// Distance of two bins at this speed, in orders.
    fn bin_orders(&self, shaft_hz: f64) -> f64 {
        self.rate_hz / self.fft.len() as f64 / shaft_hz
    }

    /// Takes one window of the first `channels` channels into an average; the speed is that of this window, Hz.
    pub fn add(&mut self, window: &[Frame], channels: usize, shaft_hz: f64, average: &mut CombAverage) {
        let step = self.bin_orders(shaft_hz);
        if !(step > 0.0 && step.is_finite()) || window.len() != self.fft.len() {
            return;
        }
        self.whiten(window);
        // As far as the bands go, without their ends, and no further than is of use.
        let bins = ((self.width as f64 * 0.9) as usize).min((ORDER_MAX / step) as usize + 2);
        let block = FLOOR_BINS_MIN.max(libm::round(1.0 / step) as usize);
        let channels = channels.min(LANES);
        self.levels.start(channels, bins);
        for band in 0..BANDS {
            let first = band * self.width / 2;
            self.envelope_squares(first);
            for lane in 0..channels {
                self.levels.add(&self.squares[..bins.min(self.squares.len())], lane, block);
            }
        }
        average.push(self.levels.finish(BANDS), channels, step);
    }

    fn whiten(&mut self, window: &[Frame]) {
        let count = window.len().max(1) as f64;
        let mut mean = [0.0_f64; LANES];
        for frame in window {
            for lane in 0..LANES {
                mean[lane] += f64::from(frame[lane]) / count;
            }
        }
        let mean = mean.map(|mean| mean as f32);
        let centred = |frame: &Frame| Lanes(core::array::from_fn(|lane| frame[lane] - mean[lane]));
        let bins = self.fft.run(window.iter().map(centred));
        self.white.clear();
        self.white.extend(bins.iter().map(|bin| {
            let (mut re, mut im) = (bin.re.0, bin.im.0);
            for lane in 0..LANES {
                let magnitude = (re[lane] * re[lane] + im[lane] * im[lane]).sqrt();
                let scale = if magnitude > 0.0 { 1.0 / magnitude } else { 0.0 };
                re[lane] *= scale;
                im[lane] *= scale;
            }
            Complex::new(Lanes(re), Lanes(im))
        }));
        if let Some(zero) = self.white.first_mut() {
            *zero = Complex::new(Lanes::splat(0.0), Lanes::splat(0.0));
        }
    }

    /// Squared magnitudes of the spectrum of the squared envelope, over its mean, of the band from bin `first` on.
    fn envelope_squares(&mut self, first: usize) {
        let band = self.white.get(first..first + self.width).unwrap_or_default();
        let signal = self.demodulator.run(band, 1.0);
        self.signal.clear();
        self.signal.extend(signal.iter().map(power));
        let mut mean = [0.0_f64; LANES];
        for value in &self.signal {
            for lane in 0..LANES {
                mean[lane] += f64::from(value[lane]);
            }
        }
        let count = self.signal.len() as f64;
        let over = mean.map(|mean| if mean > 0.0 { (count / mean) as f32 } else { 0.0 });
        let weighted = |(value, weight): (&Frame, &f32)| {
            Lanes(core::array::from_fn(|lane| (value[lane] * over[lane] - 1.0) * weight))
        };
        let bins = self.envelope.run(self.signal.iter().zip(&self.table).map(weighted));
        self.squares.clear();
        self.squares.extend(bins.iter().map(power));
    }
}

fn power(value: &Complex<Lanes>) -> Frame {
    (value.re * value.re + value.im * value.im).0
}

/// Mean prominence of the bins of one window.
#[derive(Debug, Default)]
struct Levels {
    bins: usize,
    /// Channel by channel.
    sum: Vec<f32>,
    floors: Vec<f32>,
    scratch: Vec<f32>,
}

impl Levels {
    fn start(&mut self, channels: usize, bins: usize) {
        self.bins = bins;
        self.sum.clear();
        self.sum.resize(channels * bins, 0.0);
    }

    fn add(&mut self, squares: &[Frame], lane: usize, block: usize) {
        self.floors.clear();
        for part in squares.chunks(block) {
            self.scratch.clear();
            self.scratch.extend(part.iter().map(|bin| bin[lane]));
            // The mean of exponentially distributed noise, from its median. A short end is joined to the block before it.
            if part.len() == block || self.floors.is_empty() {
                self.floors.push(median(&mut self.scratch) / core::f32::consts::LN_2);
            }
        }
        let last = self.floors.len().saturating_sub(1);
        let Some(sums) = self.sum.get_mut(lane * self.bins..(lane + 1) * self.bins) else { return };
        for (bin, sum) in sums.iter_mut().enumerate().take(squares.len()) {
            let place = ((bin as f64 - block as f64 / 2.0) / block as f64).clamp(0.0, last as f64);
            let below = place as usize;
            let (from, to) = (self.floors[below], self.floors[(below + 1).min(last)]);
            let floor = from + (to - from) * (place - below as f64) as f32;
            let around = &squares[bin.saturating_sub(1)..(bin + 2).min(squares.len())];
            let peak = around.iter().fold(0.0_f32, |peak, bin| peak.max(bin[lane]));
            if floor > 0.0 {
                *sum += libm::log1pf(peak / floor).min(LEVEL_MAX);
            }
        }
    }

    fn finish(&mut self, bands: usize) -> &[f32] {
        for channel in self.sum.chunks_mut(self.bins.max(1)) {
            for value in &mut *channel {
                *value /= bands as f32;
            }
            self.scratch.clear();
            self.scratch.extend_from_slice(channel);
            let middle = median(&mut self.scratch);
            for value in &mut *channel {
                *value = (*value - middle).max(LEVEL_MIN);
            }
        }
        &self.sum
    }
}

fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

fn median_f64(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// What the last [`WINDOWS_MAX`] windows of one sensor showed, over orders of the shaft. Start anew when the load, or the speed by
/// more than a few percent, changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CombAverage {
    /// Distance of two points, orders: that of the first window's bins.
    step: f64,
    channels: usize,
    /// Points of a channel.
    points: usize,
    /// Channel by channel, one entry a window.
    windows: std::collections::VecDeque<Vec<f32>>,
}

impl CombAverage {
    /// Windows that the average holds.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    fn push(&mut self, levels: &[f32], channels: usize, step: f64) {
        let bins = levels.len() / channels.max(1);
        if self.windows.is_empty() || self.channels != channels {
            *self = Self { step, channels, points: bins, windows: Default::default() };
        }
        let point = |channel: usize, point: usize| {
            let bin = libm::round(point as f64 * self.step / step) as usize;
            if bin < bins { levels[channel * bins + bin] } else { 0.0 }
        };
        let points = (0..channels).flat_map(|channel| (0..self.points).map(move |at| (channel, at)));
        let window = points.map(|(channel, at)| point(channel, at)).collect();
        if self.windows.len() >= WINDOWS_MAX {
            self.windows.pop_front();
        }
        self.windows.push_back(window);
    }

    /// The average of a channel, whole orders of the shaft blanked.
    fn levels(&self, channel: usize) -> Vec<f64> {
        let mut levels = vec![0.0; self.points];
        for window in &self.windows {
            for (slot, value) in levels.iter_mut().zip(&window[channel * self.points..]) {
                *slot += f64::from(*value) / self.windows.len() as f64;
            }
        }
        for (point, level) in levels.iter_mut().enumerate() {
            let order = point as f64 * self.step;
            let whole = libm::round(order);
            if (order - whole).abs() <= 2.0 * self.step + 0.001 * whole {
                *level = 0.0;
            }
        }
        levels
    }

    /// What the channel shows of this bearing; nothing without a window or without that channel.
    #[must_use]
    pub fn verdict(&self, channel: usize, bearing: &BearingOrders) -> Option<Verdict> {
        if self.windows.is_empty() || channel >= self.channels {
            return None;
        }
        let levels = Spectrum { levels: self.levels(channel), step: self.step };
        let candidates = Fault::ALL.map(|fault| levels.candidate(fault, bearing));
        Some(Verdict { candidates, windows: self.windows.len() })
    }
}

/// How well one fault's comb fits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which.
    pub fault: Fault,
    /// Where its first line was found, orders of the shaft.
    pub order: f64,
    /// Sum of the levels at its lines, less the median of the decoys'.
    pub gain: f64,
    /// The gain over the decoys' robust standard deviation.
    pub z: f64,
    /// Level at each of its first three lines: about the natural logarithm of line over floor, averaged over bands and windows.
    pub lines: [f64; 3],
}

/// What a channel shows of a bearing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In the order of [`Fault::ALL`].
    pub candidates: [Candidate; 4],
    /// Windows that it rests on.
    pub windows: usize,
}

impl Verdict {
    /// The candidate that fits best, whether well enough or not: of the rings and the balls, since a defect of these is heard at the
    /// cage's orders too, as it goes through the loaded zone.
    #[must_use]
    pub fn best(&self) -> Candidate {
        let mut best = self.candidates[0];
        for candidate in &self.candidates[1..3] {
            if candidate.z > best.z {
                best = *candidate;
            }
        }
        best
    }

    /// The candidate that is named, if the evidence of any is good enough.
    #[must_use]
    pub fn named(&self) -> Option<Candidate> {
        let cage = self.candidates[3];
        let passes = |candidate: &Candidate, [z, gain]: [f64; 2]| {
            candidate.z > z * Z_MIN && candidate.gain > gain * GAIN_MIN
        };
        let largest = self.candidates.iter().all(|other| other.gain <= cage.gain);
        if largest && passes(&cage, CAGE_FACTORS) {
            return Some(cage);
        }
        let best = self.best();
        let own: f64 = best.lines.iter().sum();
        let is_own = best.fault != Fault::Ball || own > OWN_LINES_MIN;
        (passes(&best, [1.0; 2]) && is_own).then_some(best)
    }

    /// What is named.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.named().map_or(Fault::None, |named| named.fault)
    }
}

struct Spectrum {
    levels: Vec<f64>,
    step: f64,
}

impl Spectrum {
    fn at(&self, order: f64) -> f64 {
        self.levels.get(libm::round(order / self.step) as usize).copied().unwrap_or(0.0)
    }

    /// Largest sum over the lines within the fault's window, and by what share the lines are then off.
    fn sum(&self, fault: Fault, order: f64, cage: f64) -> (f64, f64) {
        // Shares by which load moves the lines.
        let [low, high] = match fault {
            Fault::Outer => [-0.006, 0.012],
            Fault::Inner => [-0.008, 0.005],
            _ => [-0.008, 0.008],
        };
        let fine = 0.35 * self.step / (3.0 * order);
        let count = libm::ceil((high - low) / fine).clamp(1.0, 4096.0) as usize;
        let mut best = (f64::NEG_INFINITY, 0.0);
        for index in 0..=count {
            let off = low + (high - low) * index as f64 / count as f64;
            let mut sum: f64 = (1..=3).map(|line| self.at(f64::from(line) * order * (1.0 + off))).sum();
            if fault == Fault::Ball {
                sum += self.at(cage * (1.0 + off)) + self.at(2.0 * cage * (1.0 + off));
            }
            if sum > best.0 {
                best = (sum, off);
            }
        }
        best
    }

    fn candidate(&self, fault: Fault, bearing: &BearingOrders) -> Candidate {
        let order = match fault {
            Fault::Outer => bearing.outer,
            Fault::Inner => bearing.inner,
            Fault::Ball => bearing.element,
            Fault::Cage | Fault::None => bearing.cage,
        };
        let (sum, off) = self.sum(fault, order, bearing.cage);
        let mut decoys: [f64; DECOYS] = core::array::from_fn(|index| {
            let away = DECOY_STEP[0] + DECOY_STEP[1] * (index / 2) as f64;
            let scale = 1.0 + if index % 2 == 0 { away } else { -away };
            self.sum(fault, order * scale, bearing.cage * scale).0
        });
        let middle = median_f64(&mut decoys);
        let mut distances = decoys.map(|decoy| (decoy - middle).abs());
        let spread = (1.4826 * median_f64(&mut distances)).max(SPREAD_MIN);
        let order = order * (1.0 + off);
        Candidate {
            fault,
            order,
            gain: sum - middle,
            z: (sum - middle) / spread,
            lines: [1.0, 2.0, 3.0].map(|line| self.at(line * order)),
        }
    }
}

#[cfg(test)]
mod tests;
