//! Which band's envelope is most impulsive: a kurtogram.
//!
//! The grid is that of the fast kurtogram (J. Antoni, "Fast computation of the kurtogram for the detection of transient faults",
//! Mech. Syst. Signal Process. 21, 2007): the spectrum cut into 1, 2, 3, 4, 6, 8, 12, 16 ... equal bands. The bands are cut out of one
//! transform of the segment in place of Antoni's tree of short filters: a transform is at hand, its bands have the edges they say,
//! and leak nothing into each other. What it costs is ringing at the segment's ends, which are therefore left out.
//!
//! A band's value is the kurtosis of its complex envelope, `mean |z|⁴ / (mean |z|²)² - 2`: 0 for Gaussian noise, -1 for a steady
//! tone, and the larger the rarer and sharper the impacts are.

use super::Frame;
use super::LANES;
use super::envelope::{EnvelopeError, transform};
use super::fft::{Demodulator, Lanes, RealFft, square};
use super::spectrum::{Bin, Grid};
use rustfft::num_complex::Complex;
use std::vec::Vec;

/// Most bands of a level.
pub const BANDS_MAX: usize = 64;

/// One part in so many of a segment is left out at each end.
const END: usize = 16;

/// Fewest bins of a band, of whose envelope a kurtosis is trusted.
const WIDTH_MIN: usize = 128;

/// One band of a kurtogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BandKurtosis {
    /// Lower edge, Hz.
    pub low_hz: f64,
    /// Upper edge, Hz.
    pub high_hz: f64,
    /// Kurtosis of the complex envelope, per channel.
    pub kurtosis: Bin,
}

impl BandKurtosis {
    const NONE: Self = Self { low_hz: 0.0, high_hz: 0.0, kurtosis: [0.0; LANES] };
}

#[derive(Debug)]
struct Level {
    bands: usize,
    width: usize,
    demodulator: Demodulator,
}

/// Plans and buffers for segments of one length; no state between segments.
#[derive(Debug)]
pub struct Kurtogram {
    fft: RealFft,
    levels: Vec<Level>,
    found: Vec<BandKurtosis>,
}

impl Kurtogram {
    /// For segments of `len` samples: levels of 1, 2, 3, 4, 6, 8, 12 ... bands, as far as there are at most `bands_max` (up to
    /// [`BANDS_MAX`]) and each has enough bins for a kurtosis.
    ///
    /// # Errors
    /// [`EnvelopeError`] for a length that cannot be transformed.
    pub fn new(len: usize, bands_max: usize) -> Result<Self, EnvelopeError> {
        let fft = RealFft::new(len)?;
        let mut levels = Vec::new();
        let (mut next, mut after) = (1, 2);
        while next <= bands_max.min(BANDS_MAX) {
            // The bin at zero belongs to no band, nor does that at half the rate.
            let width = (len / 2 - 1) / next;
            if levels.is_empty() || width >= WIDTH_MIN {
                levels.push(Level { bands: next, width, demodulator: Demodulator::new(width, 2)? });
            }
            (next, after) = if next == 1 { (2, 3) } else { (after, 2 * next) };
        }
        let count = levels.iter().map(|level| level.bands).sum();
        Ok(Self { fft, levels, found: core::iter::repeat_n(BandKurtosis::NONE, count).collect() })
    }

    /// Samples of a segment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fft.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fft.is_empty()
    }

    /// Kurtosis of every band of a segment, wide bands first.
    pub fn run(&mut self, segment: &[Frame], rate_hz: f64) -> &[BandKurtosis] {
        let grid = Grid { len: self.fft.len(), rate_hz };
        let spectrum = transform(&mut self.fft, segment);
        let scale = 2.0 / grid.len as f32;
        let mut slots = self.found.iter_mut();
        for level in &mut self.levels {
            let bands = spectrum.get(1..).unwrap_or_default().chunks_exact(level.width).take(level.bands);
            for ((index, band), slot) in bands.enumerate().zip(&mut slots) {
                let first = 1 + index * level.width;
                *slot = BandKurtosis {
                    low_hz: grid.hz(first) - grid.step_hz() / 2.0,
                    high_hz: grid.hz(first + level.width) - grid.step_hz() / 2.0,
                    kurtosis: kurtosis(level.demodulator.run(band, scale)),
                };
            }
        }
        &self.found
    }

    /// The band of the last segment with the largest kurtosis in `lane` among those at least `width_hz` wide (some times the
    /// highest fault rate that the envelope is to show) and above `low_hz`. Nothing if no band is.
    #[must_use]
    pub fn best(&self, lane: usize, width_hz: f64, low_hz: f64) -> Option<BandKurtosis> {
        let mut best: Option<BandKurtosis> = None;
        let value = |band: &BandKurtosis| band.kurtosis.get(lane).copied();
        let wide = |band: &&BandKurtosis| band.high_hz - band.low_hz >= width_hz && band.low_hz >= low_hz;
        for band in self.found.iter().filter(wide) {
            // The wider one of two that are equal.
            if best.is_none_or(|best| value(band) > value(&best)) {
                best = Some(*band);
            }
        }
        best
    }
}

fn kurtosis(signal: &[Complex<Lanes>]) -> Bin {
    let end = signal.len() / END;
    let mut sums = [[0.0; LANES]; 2];
    let kept = signal.get(end..signal.len() - end).unwrap_or_default();
    for value in kept {
        let square = square(value).map(f64::from);
        for lane in 0..LANES {
            sums[0][lane] += square[lane];
            sums[1][lane] += square[lane] * square[lane];
        }
    }
    let count = kept.len() as f64;
    core::array::from_fn(|lane| {
        let [squares, fourths] = [sums[0][lane], sums[1][lane]];
        if squares > 0.0 { count * fourths / (squares * squares) - 2.0 } else { 0.0 }
    })
}
