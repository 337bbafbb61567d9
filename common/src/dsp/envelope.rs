//! Squared-envelope spectrum of a band: where a bearing's impacts show as lines at their rate.
//!
//! A segment is transformed, the band's bins are moved down to frequency zero and transformed back: that is the analytic signal of
//! the band, at a rate that suits the band. Its squared magnitude, less its mean and times a Hann window (which also silences the
//! segment's ends, where the transform wraps around), is transformed once more. Squared rather than plain: the square of a band of
//! width `b` holds nothing above `b`, so nothing folds (R. B. Randall and J. Antoni, "Rolling element bearing diagnostics", Mech.
//! Syst. Signal Process. 25, 2011).

use super::fft::{Demodulator, FftError, Lanes, RealFft, square};
use super::spectrum::{Grid, Scale, Scaling, mean};
use super::window::Window;
use super::{Frame, LANES};
use rustfft::num_complex::Complex;
use std::vec::Vec;

/// Fewest bins of a band.
const BAND_BINS_MIN: usize = 8;

/// Why an envelope cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum EnvelopeError {
    /// A length cannot be transformed.
    #[error(transparent)]
    Fft(#[from] FftError),
    /// The band is empty, too narrow for the segment, or does not lie between 0 and half the rate.
    #[error(
        "band of {low_hz} to {high_hz} Hz does not lie between 0 and half of {rate_hz} Hz, or is narrower than {BAND_BINS_MIN} bins"
    )]
    Band {
        /// Lower edge asked for.
        low_hz: f64,
        /// Upper edge asked for.
        high_hz: f64,
        /// Sample rate.
        rate_hz: f64,
    },
}

/// A real transform of a segment without its mean: what an [`Envelope`] and a [`Kurtogram`](super::Kurtogram) start from.
pub(super) fn transform<'a>(fft: &'a mut RealFft, segment: &[Frame]) -> &'a [Complex<Lanes>] {
    let mean = mean(segment).map(|mean| mean as f32);
    fft.run(segment.iter().map(|frame| Lanes(core::array::from_fn(|lane| frame[lane] - mean[lane]))))
}

/// Plans and buffers for segments of one length and one band; no state between segments, so one serves all sensors of a thread
/// whose rates are near enough. About 200 bytes a sample.
#[derive(Debug)]
pub struct Envelope {
    rate_hz: f64,
    first: usize,
    bins: usize,
    fft: RealFft,
    demodulator: Demodulator,
    /// Of the squared envelope.
    last: RealFft,
    envelope: Vec<Frame>,
    table: Vec<f32>,
    squares: Vec<Frame>,
}

impl Envelope {
    /// For segments of `len` samples at the sample rate as measured, and the band `low_hz` to `high_hz`.
    ///
    /// # Errors
    /// [`EnvelopeError`] when the length or the band does not do.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to the length")]
    pub fn new(len: usize, low_hz: f64, high_hz: f64, rate_hz: f64) -> Result<Self, EnvelopeError> {
        let error = EnvelopeError::Band { low_hz, high_hz, rate_hz };
        let fft = RealFft::new(len)?;
        let step = Grid { len, rate_hz }.step_hz();
        // Also false for what is not a number.
        if !(rate_hz > 0.0
            && rate_hz.is_finite()
            && low_hz > 0.0
            && low_hz < high_hz
            && high_hz <= rate_hz / 2.0)
        {
            return Err(error);
        }
        let first = (libm::ceil(low_hz / step) as usize).max(1);
        // Without the bin at half the rate, which is its own mirror image.
        let last = (libm::floor(high_hz / step) as usize).min(len / 2 - 1);
        let bins = (last + 1).saturating_sub(first);
        if bins < BAND_BINS_MIN {
            return Err(error);
        }
        let demodulator = Demodulator::new(bins, 2)?;
        let envelope_len = demodulator.len();
        let last = RealFft::new(envelope_len)?;
        let table = Window::Hann.table(envelope_len);
        let zeros = |count| core::iter::repeat_n([0.0; LANES], count).collect();
        let (envelope, squares) = (zeros(envelope_len), zeros(envelope_len / 2 + 1));
        Ok(Self { rate_hz, first, bins, fft, demodulator, last, envelope, table, squares })
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

    /// The band as it is: half a bin beyond its first and last bin, Hz.
    #[must_use]
    pub fn band_hz(&self) -> [f64; 2] {
        let step = Grid { len: self.len(), rate_hz: self.rate_hz }.step_hz();
        [(self.first as f64 - 0.5) * step, ((self.first + self.bins) as f64 - 0.5) * step]
    }

    /// Where the envelope spectrum's bins lie: as far apart as the signal's, from zero to the band's width and a little more.
    #[must_use]
    pub fn grid(&self) -> Grid {
        let len = self.envelope.len();
        Grid { len, rate_hz: self.rate_hz * len as f64 / self.len() as f64 }
    }

    /// What turns [`Self::squares`] (or their [`Average`](super::Average)) into numbers. For a signal in m/s² the squared
    /// envelope is in (m/s²)²; [`Scaling::Peak`] gives the amplitude of a line of it, [`Scaling::Power`] its mean square. A carrier
    /// of amplitude `a`, modulated by `1 + m cos`, has a line of peak `2 m a²`, and one of `m² a² / 2` at twice the frequency.
    #[must_use]
    pub fn scale(&self, scaling: Scaling) -> Scale {
        Scale::new(scaling, Window::Hann, self.grid())
    }

    /// The squared envelope of a segment, in the signal's unit squared, evenly spread over it.
    pub fn envelope(&mut self, segment: &[Frame]) -> &[Frame] {
        let scale = 2.0 / self.fft.len() as f32;
        let band = transform(&mut self.fft, segment).get(self.first..self.first + self.bins);
        let signal = self.demodulator.run(band.unwrap_or_default(), scale);
        for (slot, value) in self.envelope.iter_mut().zip(signal) {
            *slot = square(value);
        }
        &self.envelope
    }

    /// Squared magnitudes of the squared envelope's bins. Its mean (the band's mean square, twice) is taken off first.
    pub fn squares(&mut self, segment: &[Frame]) -> &[Frame] {
        self.envelope(segment);
        let mean = mean(&self.envelope).map(|mean| mean as f32);
        let weighted = |(value, weight): (&Frame, &f32)| {
            Lanes(core::array::from_fn(|lane| (value[lane] - mean[lane]) * weight))
        };
        let bins = self.last.run(self.envelope.iter().zip(&self.table).map(weighted));
        for (slot, bin) in self.squares.iter_mut().zip(bins) {
            *slot = square(bin);
        }
        &self.squares
    }
}
