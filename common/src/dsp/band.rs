//! Power in bands, from a density: user bands, fractional octaves.
//!
//! A bin counts as the rectangle half a bin to both sides of its centre, with the share of it that lies in the band; the bins at
//! zero and at half the rate, which have one side only, lie within the spectrum whole. So bands that touch add up, and all of them
//! together hold the signal's variance. From a density there is nothing to correct for the window: it is in the density's scale.
//! From a spectrum of line powers the sum is too large by the window's [`Window::enbw_bins`](super::Window::enbw_bins).

use super::LANES;
use super::spectrum::{Bin, Grid};
use serde::{Deserialize, Serialize};

/// A band on a grid of bins, made once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BandSum {
    first: usize,
    last: usize,
    /// Hz of the first bin, of each between, and of the last.
    widths_hz: [f64; 3],
    /// Edges as they are, Hz: cut at half the rate.
    edges_hz: [f64; 2],
}

impl BandSum {
    /// The band `low_hz` to `high_hz`, cut at half the rate. Nothing when nothing of it is left, or when it is not a band.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 to the grid's length"
    )]
    pub fn new(low_hz: f64, high_hz: f64, grid: Grid) -> Option<Self> {
        let step = grid.step_hz();
        let (low, high) = (low_hz.max(0.0), high_hz.min(grid.rate_hz / 2.0));
        // Also false for what is not a number.
        if !(low_hz.is_finite() && !high_hz.is_nan() && step > 0.0 && low < high) {
            return None;
        }
        let top = grid.bins() - 1;
        let bin = |hz: f64| (libm::floor(hz / step + 0.5) as usize).min(top);
        let (first, last) = (bin(low), bin(high));
        let centre = |bin: usize| bin as f64 * step;
        // Half a bin at zero and at half the rate counts as a whole one.
        let width = |bin: usize, from: f64, to: f64| {
            let low = if bin == 0 { 0.0 } else { centre(bin) - step / 2.0 };
            let high = if bin == top { centre(top) } else { centre(bin) + step / 2.0 };
            let share = ((to.min(high) - from.max(low)) / (high - low)).clamp(0.0, 1.0);
            share * step
        };
        let ends = if first == last {
            [width(first, low, high), 0.0]
        } else {
            [width(first, low, f64::MAX), width(last, 0.0, high)]
        };
        Some(Self { first, last, widths_hz: [ends[0], step, ends[1]], edges_hz: [low, high] })
    }

    /// The edges as they are, Hz.
    #[must_use]
    pub const fn edges_hz(&self) -> [f64; 2] {
        self.edges_hz
    }

    /// Bins that the band touches.
    #[must_use]
    pub const fn bins(&self) -> usize {
        self.last - self.first + 1
    }

    /// Mean square in the band of a signal with this density, in the signal's unit squared.
    #[must_use]
    pub fn mean_square(&self, density: &[Bin]) -> Bin {
        let [first_hz, step_hz, last_hz] = self.widths_hz;
        let mut sum = [0.0; LANES];
        let Some(bins) = density.get(self.first..=self.last) else { return sum };
        if let [first, between @ .., last] = bins {
            for bin in between {
                for lane in 0..LANES {
                    sum[lane] += bin[lane];
                }
            }
            for lane in 0..LANES {
                sum[lane] = sum[lane] * step_hz + first[lane] * first_hz + last[lane] * last_hz;
            }
        } else if let [only] = bins {
            sum = only.map(|bin| bin * first_hz);
        }
        sum
    }

    /// RMS in the band, in the signal's unit.
    #[must_use]
    pub fn rms(&self, density: &[Bin]) -> Bin {
        self.mean_square(density).map(libm::sqrt)
    }
}

/// A band with its middle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Octave {
    /// Middle, Hz: the geometric mean of the edges.
    pub centre_hz: f64,
    /// Lower edge, Hz.
    pub low_hz: f64,
    /// Upper edge, Hz.
    pub high_hz: f64,
}

/// The exact third-octave bands of IEC 61260-1 (base ten: centres `1000 x 10^(x/10)` Hz, edges `10^(1/20)` to both sides) whose
/// centre lies in `low_hz` to `high_hz`. Sums of bins over them are not a filter of class 1 or 2 of that standard: the skirts are
/// those of the window and steeper than any filter's, there is no time weighting, and a band narrower than some bins (below 14
/// times their distance for three of them) is coarse.
pub fn third_octaves(low_hz: f64, high_hz: f64) -> impl Iterator<Item = Octave> {
    let edge = libm::pow(10.0, 1.0 / 20.0);
    (-40_i32..=40)
        .map(move |index| libm::pow(10.0, f64::from(30 + index) / 10.0))
        .filter(move |&centre| centre >= low_hz && centre <= high_hz)
        .map(move |centre_hz| Octave { centre_hz, low_hz: centre_hz / edge, high_hz: centre_hz * edge })
}

/// Bands that are `per_octave` to an octave (base two), the first one from `start_hz` on, up to the last that ends at or below
/// `end_hz`. With 80, 24 and 960: 86 bands, up to 958.9 Hz.
pub fn log_bands(start_hz: f64, per_octave: u32, end_hz: f64) -> impl Iterator<Item = Octave> {
    let edge = move |index: f64| start_hz * libm::exp2(index / f64::from(per_octave.max(1)));
    (0_u32..4096)
        .map(move |index| Octave {
            centre_hz: edge(f64::from(index) + 0.5),
            low_hz: edge(f64::from(index)),
            high_hz: edge(f64::from(index + 1)),
        })
        .take_while(move |band| band.low_hz > 0.0 && band.high_hz <= end_hz)
}
