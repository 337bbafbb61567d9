//! Spectra by averaged segments (P. D. Welch, IEEE Trans. Audio Electroacoust. 15, 1967): density, power and amplitude.
//!
//! An [`Analyser`] (plan, window, buffers; no state) serves all sensors of a thread; a [`Welch`] is one sensor's state: the segment
//! being filled and the averages. Segments lose their mean, as in SciPy's `welch`. Spectra are one-sided, and have `len / 2 + 1`
//! bins `rate / len` apart. Magnitudes are single precision (noise below 1e-6 of the largest line), averages double.

use super::fft::{FftError, Lanes, RealFft, square};
use super::window::Window;
use super::{Frame, LANES};
use serde::{Deserialize, Serialize};
use std::vec::Vec;

/// Four channels' value of a bin.
pub type Bin = [f64; LANES];

/// Where the bins of a spectrum lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Samples of a segment.
    pub len: usize,
    /// Sample rate as measured, Hz.
    pub rate_hz: f64,
}

impl Grid {
    /// Bins, those at zero and at half the rate included.
    #[must_use]
    pub const fn bins(&self) -> usize {
        self.len / 2 + 1
    }

    /// Distance of two bins, Hz.
    #[must_use]
    pub fn step_hz(&self) -> f64 {
        self.rate_hz / self.len as f64
    }

    /// Frequency of a bin's centre, Hz.
    #[must_use]
    pub fn hz(&self, bin: usize) -> f64 {
        bin as f64 * self.rate_hz / self.len as f64
    }

    /// Whether the bin is its own mirror image: at zero or at half the rate.
    #[must_use]
    pub const fn is_single(&self, bin: usize) -> bool {
        bin == 0 || 2 * bin == self.len
    }
}

/// What a spectrum's numbers are, for a signal in m/s².
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// Power spectral density, (m/s²)²/Hz: its integral over frequency is the mean square. Of noise and bands.
    Density,
    /// Mean square of a line, (m/s²)²: the square of [`Self::Rms`].
    Power,
    /// RMS of a line, m/s².
    Rms,
    /// Peak amplitude of a line, m/s²: root two times its RMS.
    Peak,
}

/// What turns mean squared magnitudes of a segment's bins into numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    grid: Grid,
    scaling: Scaling,
    factor: f64,
}

impl Scale {
    /// For segments of this grid, seen through `window`.
    #[must_use]
    pub fn new(scaling: Scaling, window: Window, grid: Grid) -> Self {
        let len = grid.len as f64;
        let factor = match scaling {
            Scaling::Density => 1.0 / (grid.rate_hz * len * window.power_gain()),
            Scaling::Power | Scaling::Rms | Scaling::Peak => {
                let sum = len * window.coherent_gain();
                1.0 / (sum * sum)
            }
        };
        Self { grid, scaling, factor }
    }

    /// The number for a bin whose mean squared magnitude is `square`.
    #[inline]
    #[must_use]
    pub fn of(&self, bin: usize, square: f64) -> f64 {
        let single = self.grid.is_single(bin);
        let power = square * self.factor * if single { 1.0 } else { 2.0 };
        match self.scaling {
            Scaling::Density | Scaling::Power => power,
            Scaling::Rms => libm::sqrt(power),
            Scaling::Peak => libm::sqrt(if single { power } else { 2.0 * power }),
        }
    }
}

/// Plan, window and buffers for segments of one length.
#[derive(Debug)]
pub struct Analyser {
    fft: RealFft,
    window: Window,
    table: Vec<f32>,
    squares: Vec<Frame>,
}

impl Analyser {
    /// For segments of `len` samples, see [`super::fft::is_len`].
    ///
    /// # Errors
    /// [`FftError::Len`] for a length that cannot be transformed.
    pub fn new(len: usize, window: Window) -> Result<Self, FftError> {
        let fft = RealFft::new(len)?;
        let table = window.table(len);
        let squares = core::iter::repeat_n([0.0; LANES], len / 2 + 1).collect();
        Ok(Self { fft, window, table, squares })
    }

    /// Samples of a segment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The window.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.window
    }

    /// What turns this analyser's squares into numbers at a sample rate.
    #[must_use]
    pub fn scale(&self, scaling: Scaling, rate_hz: f64) -> Scale {
        Scale::new(scaling, self.window, Grid { len: self.len(), rate_hz })
    }

    /// Squared magnitudes of the bins of a segment, its mean removed and windowed. A segment of another length counts as far as
    /// it fits, followed by silence.
    pub fn squares(&mut self, segment: &[Frame]) -> &[Frame] {
        let mean = mean(segment);
        // In two parts: what of the mean single precision cannot hold is not lost.
        let coarse = mean.map(|mean| mean as f32);
        let fine: Frame = core::array::from_fn(|lane| (mean[lane] - f64::from(coarse[lane])) as f32);
        let weighted = |(frame, weight): (&Frame, &f32)| {
            Lanes(core::array::from_fn(|lane| ((frame[lane] - coarse[lane]) - fine[lane]) * weight))
        };
        let bins = self.fft.run(segment.iter().zip(&self.table).map(weighted));
        for (slot, bin) in self.squares.iter_mut().zip(bins) {
            *slot = square(bin);
        }
        &self.squares
    }
}

/// Mean of each lane.
pub(super) fn mean(segment: &[Frame]) -> [f64; LANES] {
    const PARTS: usize = 2;
    let mut sums = [[0.0; LANES]; PARTS];
    let (pairs, rest) = segment.as_chunks::<PARTS>();
    for pair in pairs {
        for part in 0..PARTS {
            for lane in 0..LANES {
                sums[part][lane] += f64::from(pair[part][lane]);
            }
        }
    }
    for frame in rest {
        for lane in 0..LANES {
            sums[0][lane] += f64::from(frame[lane]);
        }
    }
    let count = segment.len().max(1) as f64;
    core::array::from_fn(|lane| (sums[0][lane] + sums[1][lane]) / count)
}

/// Cuts a stream into segments that overlap: one sensor's state. `16 x len` bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SavedSegmenter")]
pub struct Segmenter {
    len: usize,
    hop: usize,
    /// Index of the first sample in the buffer.
    first: u64,
    buffer: Vec<Frame>,
}

#[derive(Deserialize)]
struct SavedSegmenter {
    len: usize,
    hop: usize,
    first: u64,
    buffer: Vec<Frame>,
}

impl TryFrom<SavedSegmenter> for Segmenter {
    type Error = &'static str;

    fn try_from(saved: SavedSegmenter) -> Result<Self, Self::Error> {
        let mut made = Self::new(saved.len, saved.hop);
        if made.len != saved.len || made.hop != saved.hop || saved.buffer.len() >= saved.len {
            return Err("a segmenter's hop or buffer does not fit its length");
        }
        made.buffer.extend_from_slice(&saved.buffer);
        made.first = saved.first;
        Ok(made)
    }
}

impl Segmenter {
    /// Segments of `len` samples, each `hop` after the one before; half of `len` for a Hann window. Both are brought into range:
    /// a length of at least 1, a hop of 1 to the length.
    #[must_use]
    pub fn new(len: usize, hop: usize) -> Self {
        let len = len.clamp(1, super::fft::LEN_MAX);
        Self { len, hop: hop.clamp(1, len), first: 0, buffer: Vec::with_capacity(len) }
    }

    /// Samples of a segment.
    #[must_use]
    pub const fn segment_len(&self) -> usize {
        self.len
    }

    /// Index of the oldest sample that a segment to come will hold: a stream read again from there brings the same state.
    #[must_use]
    pub const fn needs_from(&self) -> u64 {
        self.first
    }

    /// After a gap: what was collected is dropped, and sample `first_sample` comes next.
    pub fn restart(&mut self, first_sample: u64) {
        self.buffer.clear();
        self.first = first_sample;
    }

    /// Takes frames and hands each complete segment to `sink`, with the index of its first sample.
    pub fn push(&mut self, mut frames: &[Frame], mut sink: impl FnMut(u64, &[Frame])) {
        while !frames.is_empty() {
            let (taken, rest) = frames.split_at(frames.len().min(self.len - self.buffer.len()));
            self.buffer.extend_from_slice(taken);
            frames = rest;
            if self.buffer.len() == self.len {
                sink(self.first, &self.buffer);
                self.buffer.copy_within(self.hop.., 0);
                self.buffer.truncate(self.len - self.hop);
                self.first = self.first.saturating_add(self.hop as u64);
            }
        }
    }
}

/// How spectra are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Averaging {
    /// All count the same.
    Linear,
    /// A new one weighs one part in so many; before there are so many, all count the same.
    Exponential {
        /// Effective number of averages, at least 1.
        count: u32,
    },
    /// The largest of each bin.
    PeakHold,
}

/// The average of spectra, as squared magnitudes. `32 x bins` bytes; less when saved, see [`SavedAverage`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "SavedAverage", try_from = "SavedAverage")]
pub struct Average {
    averaging: Averaging,
    count: u64,
    /// Sums for [`Averaging::Linear`], else the average or the largest.
    values: Vec<Bin>,
}

/// An average without the channels that are silent, and without digits that are none: the largest of numbers in single precision
/// is one of them.
#[derive(Serialize, Deserialize)]
struct SavedAverage {
    averaging: Averaging,
    count: u64,
    bins: u32,
    /// A bit for each channel that is not silent.
    lanes: u8,
    /// Values of these channels, bin by bin, for [`Averaging::PeakHold`].
    single: Vec<f32>,
    /// As well, for the others.
    double: Vec<f64>,
}

impl SavedAverage {
    fn has(&self, lane: usize) -> bool {
        self.lanes & (1 << lane) != 0
    }
}

impl From<Average> for SavedAverage {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "bins of a transform; squares came as single precision"
    )]
    fn from(average: Average) -> Self {
        let Average { averaging, count, values } = average;
        let is_used = |lane: usize| values.iter().any(|bin| bin[lane] != 0.0);
        let lanes = (0..LANES).filter(|&lane| is_used(lane)).fold(0, |lanes, lane| lanes | 1 << lane);
        let bins = values.len() as u32;
        let mut saved = Self { averaging, count, bins, lanes, single: Vec::new(), double: Vec::new() };
        for bin in &values {
            for (_, value) in bin.iter().enumerate().filter(|(lane, _)| lanes & (1 << lane) != 0) {
                match averaging {
                    Averaging::PeakHold => saved.single.push(*value as f32),
                    Averaging::Linear | Averaging::Exponential { .. } => saved.double.push(*value),
                }
            }
        }
        saved
    }
}

impl TryFrom<SavedAverage> for Average {
    type Error = &'static str;

    fn try_from(saved: SavedAverage) -> Result<Self, Self::Error> {
        let bins = saved.bins as usize;
        let used = (0..LANES).filter(|&lane| saved.has(lane)).count();
        if bins > super::fft::LEN_MAX / 2 + 1 || saved.single.len() + saved.double.len() != bins * used {
            return Err("an average's values do not fit its bins");
        }
        let mut made = Self::new(saved.averaging, bins);
        made.count = saved.count;
        let mut values = saved.single.iter().copied().map(f64::from).chain(saved.double.iter().copied());
        for bin in &mut made.values {
            for (_, slot) in bin.iter_mut().enumerate().filter(|(lane, _)| saved.has(*lane)) {
                *slot = values.next().unwrap_or(0.0);
            }
        }
        Ok(made)
    }
}

impl Average {
    /// Of no spectrum yet, `bins` long.
    #[must_use]
    pub fn new(averaging: Averaging, bins: usize) -> Self {
        Self { averaging, count: 0, values: core::iter::repeat_n([0.0; LANES], bins).collect() }
    }

    /// Spectra in it.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Bins.
    #[must_use]
    pub fn bins(&self) -> usize {
        self.values.len()
    }

    /// Starts anew.
    pub fn clear(&mut self) {
        self.count = 0;
        self.values.fill([0.0; LANES]);
    }

    /// Adds the squared magnitudes of a spectrum.
    pub fn add(&mut self, squares: &[Frame]) {
        self.count += 1;
        let weight = match self.averaging {
            Averaging::Linear => {
                return self.each(squares, |value, square| value + square);
            }
            Averaging::PeakHold => {
                return self.each(squares, |value, square| if square > value { square } else { value });
            }
            Averaging::Exponential { count } => 1.0 / self.count.min(u64::from(count.max(1))) as f64,
        };
        self.each(squares, |value, square| value + weight * (square - value));
    }

    #[inline]
    fn each(&mut self, squares: &[Frame], step: impl Fn(f64, f64) -> f64) {
        for (value, square) in self.values.iter_mut().zip(squares) {
            for lane in 0..LANES {
                value[lane] = step(value[lane], f64::from(square[lane]));
            }
        }
    }

    /// Writes the spectrum to `out`, as many bins as fit; zeros when nothing was added.
    pub fn write(&self, scale: &Scale, out: &mut [Bin]) {
        let share = match self.averaging {
            Averaging::Linear => 1.0 / self.count.max(1) as f64,
            Averaging::Exponential { .. } | Averaging::PeakHold => 1.0,
        };
        for (bin, (slot, value)) in out.iter_mut().zip(&self.values).enumerate() {
            *slot = value.map(|value| scale.of(bin, value * share));
        }
    }
}

/// Averaged spectrum of a stream: one sensor's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welch {
    segmenter: Segmenter,
    average: Average,
}

impl Welch {
    /// Segments of `len` samples, `hop` apart, averaged in this way.
    #[must_use]
    pub fn new(len: usize, hop: usize, averaging: Averaging) -> Self {
        let segmenter = Segmenter::new(len, hop);
        let bins = segmenter.segment_len() / 2 + 1;
        Self { segmenter, average: Average::new(averaging, bins) }
    }

    /// After a gap: no segment spans it. The averages stay.
    pub fn restart(&mut self, first_sample: u64) {
        self.segmenter.restart(first_sample);
    }

    /// Takes frames; `analyser` must be for segments of the same length.
    pub fn push(&mut self, frames: &[Frame], analyser: &mut Analyser) {
        let Self { segmenter, average } = self;
        debug_assert_eq!(analyser.len(), segmenter.segment_len());
        segmenter.push(frames, |_, segment| average.add(analyser.squares(segment)));
    }

    /// The averages so far.
    #[must_use]
    pub const fn average(&self) -> &Average {
        &self.average
    }

    /// The cutting into segments.
    #[must_use]
    pub const fn segmenter(&self) -> &Segmenter {
        &self.segmenter
    }

    /// Starts a new average; the segment being filled goes on.
    pub fn clear(&mut self) {
        self.average.clear();
    }
}
