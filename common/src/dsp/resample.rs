//! Conversion to another sample rate and onto a common grid of time, up or down.
//!
//! A windowed sinc (Kaiser) in 256 phases, linear between them; as flat and as steep as the [`Decimator`](super::Decimator): within
//! 0.1 dB up to 0.4 of the lower of both rates, 80 dB down from 0.5 of it on. Each output is centred on the instant that it names:
//! there is no delay to compensate. The place of the next output is kept as an integer and 64 bits of a fraction, so a rate can be
//! steered after the sensor's clock for years without a rounding error that adds up.
//!
//! Why not a crate: `rubato`, the kept one, picks its inner product by what the processor can do (other sums, other bits), keeps its
//! position and history where they cannot be saved, and changes its ratio only relative to how it started.

use super::decimate::{ATTENUATION_DB, PASS_BAND, STOP_BAND, half_length, kaiser, sinc};
use super::{Frame, LANES};
use serde::{Deserialize, Serialize};
use std::vec::Vec;

/// Most inputs to an output, and outputs to an input. Beyond, a [`Decimator`](super::Decimator) goes first.
pub const RATIO_MAX: f64 = 8.0;

/// How far a rate may be steered from the one that the filter is made for.
pub const STEER_MAX: f64 = 0.05;

const PHASES: usize = 256;

/// Frames that are taken at a time.
const CHUNK: usize = 256;

/// Where indices start at most, so that none can overflow.
const INDEX_MAX: u64 = 1 << 62;

/// How far the first output may lie ahead at most, samples.
const AT_MAX: f64 = (1_u64 << 40) as f64;

/// Why a rate cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ResampleError {
    /// The rates are not above zero, or too far apart.
    #[error(
        "cannot convert {input_hz} Hz to {output_hz} Hz: both must be above 0 and at most {RATIO_MAX} times the other"
    )]
    Ratio {
        /// Rate of the input.
        input_hz: f64,
        /// Rate of the output.
        output_hz: f64,
    },
    /// A rate has moved too far from the one that the filter is made for.
    #[error(
        "{inputs_per_output} inputs to an output are too far from the {designed} that the filter is made for"
    )]
    Steer {
        /// Asked for.
        inputs_per_output: f64,
        /// Made for.
        designed: f64,
    },
}

/// Converts four channels together. 60 kB at nearly equal rates, more when the rate is lowered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct Resampler {
    input_hz: f64,
    output_hz: f64,
    /// Taps to each side.
    half: usize,
    /// `PHASES + 1` rows of `2 x half` taps.
    table: Vec<f32>,
    /// The row between two rows that an output needs.
    taps: Vec<f32>,
    /// Inputs to an output, in 2^-64.
    step: u128,
    /// Where the next output is centred: an index of an input sample, in 2^-64.
    at: u128,
    /// Number of the next output.
    next: u64,
    /// Index of the first frame in `buffer`, plus `half`: frames before the first sample may be needed.
    first: u64,
    buffer: Vec<Frame>,
}

/// What of a [`Resampler`] is not its design.
#[derive(Serialize, Deserialize)]
struct Saved {
    input_hz: f64,
    output_hz: f64,
    step: (u64, u64),
    at: (u64, u64),
    next: u64,
    first: u64,
    buffer: Vec<Frame>,
}

const fn parts(value: u128) -> (u64, u64) {
    ((value >> 64) as u64, value as u64)
}

const fn whole((high, low): (u64, u64)) -> u128 {
    (high as u128) << 64 | low as u128
}

/// A number of samples in 2^-64. `as` saturates.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "callers check the range")]
fn fixed(samples: f64) -> u128 {
    (samples * 18_446_744_073_709_551_616.0) as u128
}

impl Resampler {
    /// From the input's rate as measured to the output's. Starts with output 0 on input sample 0, and silence before it.
    ///
    /// # Errors
    /// [`ResampleError::Ratio`] when one is more than [`RATIO_MAX`] times the other.
    pub fn new(input_hz: f64, output_hz: f64) -> Result<Self, ResampleError> {
        let ratio = input_hz / output_hz;
        // Also false for what is not a number.
        if !(input_hz > 0.0 && output_hz > 0.0 && (1.0 / RATIO_MAX..=RATIO_MAX).contains(&ratio)) {
            return Err(ResampleError::Ratio { input_hz, output_hz });
        }
        // Cycles per input sample.
        let lower = ratio.recip().min(1.0);
        let (pass, stop) = (PASS_BAND * lower, STOP_BAND * lower);
        let half = half_length(stop - pass);
        let mut table = Vec::with_capacity((PHASES + 1) * 2 * half);
        let mut row = Vec::with_capacity(2 * half);
        for phase in 0..=PHASES {
            let fraction = phase as f64 / PHASES as f64;
            row.clear();
            row.extend((0..2 * half).map(|tap| {
                let from_middle = (tap + 1) as f64 - half as f64 - fraction;
                sinc((pass + stop) / 2.0, from_middle) * kaiser(from_middle / half as f64)
            }));
            let sum: f64 = row.iter().sum();
            table.extend(row.iter().map(|tap| (tap / sum) as f32));
        }
        let taps = core::iter::repeat_n(0.0, 2 * half).collect();
        let buffer = Vec::with_capacity(2 * half + CHUNK);
        let mut made = Self {
            input_hz,
            output_hz,
            half,
            table,
            taps,
            step: fixed(ratio),
            at: 0,
            next: 0,
            first: 0,
            buffer,
        };
        made.restart(0, [0.0; LANES], 0, 0.0);
        Ok(made)
    }

    /// Input samples after its centre that an output needs.
    #[must_use]
    pub const fn delay(&self) -> usize {
        self.half
    }

    /// The output's rate, Hz.
    #[must_use]
    pub const fn output_hz(&self) -> f64 {
        self.output_hz
    }

    /// Attenuation that the filter is designed for, dB.
    #[must_use]
    pub const fn attenuation_db(&self) -> f64 {
        ATTENUATION_DB
    }

    /// Starts anew at input sample `first_sample`, as if the signal had been `before` for ever: after a gap. Output
    /// `first_output` comes next, centred `at` samples after `first_sample`; what is not 0 or more counts as 0. Numbers that no sensor
    /// reaches are cut: 2^62 for both indices, 2^40 for `at`.
    pub fn restart(&mut self, first_sample: u64, before: Frame, first_output: u64, at: f64) {
        self.buffer.clear();
        self.buffer.extend(core::iter::repeat_n(before, self.half));
        self.first = first_sample.min(INDEX_MAX);
        self.at = whole((self.first, 0)) + fixed(at.clamp(0.0, AT_MAX));
        self.next = first_output.min(INDEX_MAX);
    }

    /// Number of the next output, and where it is centred: after so many whole input samples, and a part of one.
    #[must_use]
    pub fn next(&self) -> (u64, u64, f64) {
        let (index, fraction) = parts(self.at);
        (self.next, index, fraction as f64 / 18_446_744_073_709_551_616.0)
    }

    /// From the next output on, so many inputs go to an output: the measured rate over the output's, and a little more or less to
    /// lead the outputs back to the grid.
    ///
    /// # Errors
    /// [`ResampleError::Steer`] when that is more than [`STEER_MAX`] from what the filter is made for.
    pub fn steer(&mut self, inputs_per_output: f64) -> Result<(), ResampleError> {
        let designed = self.input_hz / self.output_hz;
        let off = inputs_per_output / designed - 1.0;
        if off.is_nan() || off.abs() > STEER_MAX {
            return Err(ResampleError::Steer { inputs_per_output, designed });
        }
        self.step = fixed(inputs_per_output);
        Ok(())
    }

    /// Takes input frames, and hands each output to `sink` with its number.
    pub fn push(&mut self, frames: &[Frame], mut sink: impl FnMut(u64, Frame)) {
        for chunk in frames.chunks(CHUNK) {
            self.buffer.extend_from_slice(chunk);
            // Frames in the buffer from the window's first one on.
            loop {
                let (index, fraction) = parts(self.at);
                // The window starts `half - 1` before the centre's sample; the buffer `half` before `first`.
                let start = (index - self.first) as usize + 1;
                let Some(window) = self.buffer.get(start..start + 2 * self.half) else { break };
                let frame = interpolate(&self.table, &mut self.taps, fraction, window);
                sink(self.next, frame);
                self.next += 1;
                self.at += self.step;
            }
            let unused = ((self.at >> 64) as u64 - self.first) as usize;
            let unused = unused.min(self.buffer.len() - self.half);
            self.buffer.copy_within(unused.., 0);
            self.buffer.truncate(self.buffer.len() - unused);
            self.first += unused as u64;
        }
    }
}

/// The filter at a fraction (in 2^-64) of a sample after the window's middle.
fn interpolate(table: &[f32], taps: &mut [f32], fraction: u64, window: &[Frame]) -> Frame {
    const PARTS: usize = 4;
    let phase = (fraction >> 56) as usize;
    // The 24 bits below the phase's eight: as many as single precision holds.
    let weight = ((fraction >> 32) as u32 & 0x00FF_FFFF) as f32 / 16_777_216.0;
    let rows = table.get(phase * taps.len()..).unwrap_or_default();
    let (low, high) = rows.split_at(taps.len().min(rows.len()));
    for ((tap, low), high) in taps.iter_mut().zip(low).zip(high) {
        *tap = low + weight * (high - low);
    }
    let mut sums = [[0.0; LANES]; PARTS];
    let (tap_chunks, tap_rest) = taps.as_chunks::<PARTS>();
    let (frame_chunks, frame_rest) = window.as_chunks::<PARTS>();
    for (taps, frames) in tap_chunks.iter().zip(frame_chunks) {
        for part in 0..PARTS {
            for lane in 0..LANES {
                sums[part][lane] += taps[part] * frames[part][lane];
            }
        }
    }
    for (tap, frame) in tap_rest.iter().zip(frame_rest) {
        for lane in 0..LANES {
            sums[0][lane] += tap * frame[lane];
        }
    }
    core::array::from_fn(|lane| (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]))
}

impl From<Resampler> for Saved {
    fn from(from: Resampler) -> Self {
        Self {
            input_hz: from.input_hz,
            output_hz: from.output_hz,
            step: parts(from.step),
            at: parts(from.at),
            next: from.next,
            first: from.first,
            buffer: from.buffer,
        }
    }
}

impl TryFrom<Saved> for Resampler {
    type Error = &'static str;

    fn try_from(saved: Saved) -> Result<Self, Self::Error> {
        let mut made =
            Self::new(saved.input_hz, saved.output_hz).map_err(|_| "a resampler's rates are out of range")?;
        let ratio = whole(saved.step) as f64 / 18_446_744_073_709_551_616.0;
        made.steer(ratio).map_err(|_| "a resampler's step is out of range")?;
        let at = whole(saved.at);
        let fits = (made.half..=2 * made.half).contains(&saved.buffer.len());
        let ahead = parts(at).0.checked_sub(saved.first);
        let sound =
            saved.first.max(saved.next) <= 2 * INDEX_MAX && ahead.is_some_and(|ahead| ahead <= 1 << 41);
        if !fits || !sound {
            return Err("a resampler's state does not fit its rates");
        }
        made.buffer.clear();
        made.buffer.extend_from_slice(&saved.buffer);
        (made.step, made.at, made.next, made.first) = (whole(saved.step), at, saved.next, saved.first);
        Ok(made)
    }
}
