//! Vibration velocity from acceleration, with the band of ISO 2954.
//!
//! Butterworth high-pass and low-pass of third order around an integrator. The corners are not the band's edges: corners
//! at exactly 10 and 1000 Hz would read 0.71 there, while ISO 2954 asks for 0.8 to 1.1 of the reading at 80 Hz; at 0.85
//! and 1.176 times the edges the gain there is 0.85. The integrator is Al-Alaoui's (Electronics Letters 29, 1993), within
//! 2 % of 1/ω up to half of the Nyquist frequency, where the trapezoid reads 21 % low. Its pole at zero frequency is
//! cancelled against one of the high-pass's zeros on paper, so nothing can drift.

use super::design::{Pass, first_order, second_order, warp};
use super::moments::SINGLE_LEN;
use super::{Biquad, Cascade, DesignError, Frame, LANES};
use serde::{Deserialize, Serialize};

/// High-pass corner over the band's lower edge.
const LOW_CORNER: f64 = 0.85;

/// Low-pass corner over the band's upper edge.
const HIGH_CORNER: f64 = 1.176;

/// A low-pass corner above this fraction of the sample rate is left out: the sensor's own filter ends the band.
const CORNER_MAX: f64 = 0.45;

const ORDER: usize = 3;

/// Velocities are in mm/s.
const MILLIMETRES: f64 = 1000.0;

/// Band-limited integration of four channels from m/s² to mm/s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Velocity {
    low_hz: f64,
    high_hz: f64,
    rate_hz: f64,
    filter: Cascade<3>,
}

impl Velocity {
    /// For the band `low_hz` to `high_hz` (10 to 1000 Hz for ISO 2954; 2 Hz below 600 rpm) at the sample rate as
    /// measured. Where the rate is too low for the upper edge, the band ends at half the rate: see [`Self::band_hz`].
    ///
    /// # Errors
    /// [`DesignError`] when `low_hz` does not lie between 0 and half the rate.
    pub fn new(low_hz: f64, high_hz: f64, rate_hz: f64) -> Result<Self, DesignError> {
        let sections = sections(low_hz, high_hz, rate_hz)?;
        let band_end = high_hz.min(rate_hz / 2.0);
        let filter = Cascade::new(&sections).ok_or(DesignError::Order { order: ORDER })?;
        Ok(Self { low_hz, high_hz: band_end, rate_hz, filter })
    }

    /// The band's edges as they are at this sample rate.
    #[must_use]
    pub const fn band_hz(&self) -> (f64, f64) {
        (self.low_hz, self.high_hz)
    }

    /// The sample rate that this was designed for.
    #[must_use]
    pub const fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    /// Starts anew as if `acceleration` (best the first block's mean) had been constant for ever.
    pub fn settle(&mut self, acceleration: [f64; LANES]) {
        self.filter.settle(acceleration);
    }

    /// Integrates frames of acceleration in m/s² and returns, per channel, the sum of squared velocities in (mm/s)²; the
    /// RMS of a window is the root of its sums over its samples.
    pub fn energy(&mut self, frames: &[Frame]) -> [f64; LANES] {
        self.filter.energy(frames)
    }

    /// Integrates frames in place, from m/s² to mm/s.
    pub fn process(&mut self, frames: &mut [Frame]) {
        self.filter.process(frames);
    }
}

/// The same integration of one channel in single precision, for processors that have no other: the same poles and zeros, in
/// structures that do not lose digits to a corner far below the sample rate. Where a direct form needs double precision (see
/// [`super::filter`]), the state-variable form (trapezoidal; A. Simper, "Linear trapezoidal integrated state variable filter",
/// 2013) keeps its two states as they are in the analogue filter, and errs by the rounding of its input over the corner's
/// fraction of the rate, not over its square. Agrees with [`Velocity`] within some parts in 100,000.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SingleVelocity {
    high: StateVariable,
    /// Integrator with the high-pass's real pole: numerator, and how far the pole lies from 1.
    integrator: [f32; 3],
    /// The low-pass's real pole, as numerator and negated pole; absent where the sensor's own filter ends the band.
    low: Option<([f32; 2], StateVariable)>,
    /// Constant that is taken off the input: the high-pass would do so anyway, but only after a while.
    offset: f32,
    /// Last input and output of the integrator, and of the low-pass's real pole.
    last: [f32; 4],
}

/// A pair of poles as a state-variable filter.
#[derive(Debug, Clone, Copy, PartialEq)]
struct StateVariable {
    /// `tan(pi corner / rate)`.
    warped: f32,
    /// Damping plus that.
    feedback: f32,
    /// `1 / (1 + damping x warped + warped²)`.
    norm: f32,
    first: f32,
    second: f32,
}

impl StateVariable {
    fn new(warped: f64) -> Self {
        // Of the pole pair of a third-order Butterworth filter: 2 sin(pi / 6).
        let damping = 1.0;
        let norm = 1.0 / (1.0 + damping * warped + warped * warped);
        let [warped, feedback, norm] = [warped, damping + warped, norm].map(|value| value as f32);
        Self { warped, feedback, norm, first: 0.0, second: 0.0 }
    }

    /// High-pass and low-pass output.
    #[inline]
    fn step(&mut self, input: f32) -> (f32, f32) {
        let high = (input - self.feedback * self.first - self.second) * self.norm;
        let rise = self.warped * high;
        let band = rise + self.first;
        self.first = rise + band;
        let rise = self.warped * band;
        let low = rise + self.second;
        self.second = rise + low;
        (high, low)
    }
}

impl SingleVelocity {
    /// As [`Velocity::new`], at rest.
    ///
    /// # Errors
    /// As [`Velocity::new`].
    pub fn new(low_hz: f64, high_hz: f64, rate_hz: f64) -> Result<Self, DesignError> {
        let Corners { below, above } = corners(low_hz, high_hz, rate_hz)?;
        let [norm, _, pole] = first_order(Pass::High, below);
        let step = MILLIMETRES * norm / rate_hz;
        let low = above.map(|above| {
            let [gain, _, pole] = first_order(Pass::Low, above);
            ([gain as f32, -pole as f32], StateVariable::new(above))
        });
        Ok(Self {
            high: StateVariable::new(below),
            integrator: [(step * 7.0 / 8.0) as f32, (step / 8.0) as f32, (1.0 + pole) as f32],
            low,
            offset: 0.0,
            last: [0.0; 4],
        })
    }

    /// Starts anew as if `acceleration` had been constant for ever.
    pub fn settle(&mut self, acceleration: f32) {
        for pair in [Some(&mut self.high), self.low.as_mut().map(|(_, pair)| pair)].into_iter().flatten() {
            (pair.first, pair.second) = (0.0, 0.0);
        }
        (self.offset, self.last) = (acceleration, [0.0; 4]);
    }

    /// Integrates acceleration in m/s² and returns the sum of squared velocities in (mm/s)².
    pub fn energy(&mut self, samples: &[f32]) -> f64 {
        let mut total = 0.0;
        // Single sums over short parts only.
        for part in samples.chunks(SINGLE_LEN) {
            let mut sum = 0.0;
            self.run(part, |velocity| sum += velocity * velocity);
            total += f64::from(sum);
        }
        total
    }

    #[inline]
    fn run(&mut self, samples: &[f32], mut sink: impl FnMut(f32)) {
        // A copy, so that states stay in registers.
        let Self { mut high, integrator: [b0, b1, leak], mut low, offset, last } = *self;
        let [mut input, mut velocity, mut unfiltered, mut filtered] = last;
        for &sample in samples {
            let (passed, _) = high.step(sample - offset);
            velocity += (b0 * passed + b1 * input) - leak * velocity;
            input = passed;
            match &mut low {
                Some(([gain, pole], pair)) => {
                    filtered = *gain * (velocity + unfiltered) + *pole * filtered;
                    unfiltered = velocity;
                    sink(pair.step(filtered).1);
                }
                None => sink(velocity),
            }
        }
        (self.high, self.low) = (high, low);
        self.last = [input, velocity, unfiltered, filtered];
    }
}

/// Corners of high-pass and low-pass as `tan(pi corner / rate)`.
struct Corners {
    below: f64,
    above: Option<f64>,
}

fn corners(low_hz: f64, high_hz: f64, rate_hz: f64) -> Result<Corners, DesignError> {
    let below = warp(low_hz * LOW_CORNER, rate_hz)?;
    let high_corner_hz = high_hz * HIGH_CORNER;
    if high_hz.is_nan() || high_hz <= low_hz {
        return Err(DesignError::Corner { corner_hz: high_hz, rate_hz });
    }
    let above =
        if high_corner_hz <= CORNER_MAX * rate_hz { Some(warp(high_corner_hz, rate_hz)?) } else { None };
    Ok(Corners { below, above })
}

/// High-pass pair; then its real pole with the integrator, and the low-pass's real pole; then the low-pass pair.
fn sections(low_hz: f64, high_hz: f64, rate_hz: f64) -> Result<[Biquad; 3], DesignError> {
    let Corners { below, above } = corners(low_hz, high_hz, rate_hz)?;
    // (1 - 1/z) of the high-pass falls out against the integrator's 1 / (1 - 1/z).
    let [norm, _, pole] = first_order(Pass::High, below);
    let step = norm / rate_hz;
    let integrator = [step * 7.0 / 8.0, step / 8.0, pole];
    let real_low = above.map_or([1.0, 0.0, 0.0], |above| first_order(Pass::Low, above));
    let pair_low = above.map_or(Biquad::IDENTITY, |above| second_order(Pass::Low, ORDER, 0, above));
    Ok([
        second_order(Pass::High, ORDER, 0, below),
        Biquad::product(integrator, real_low).scaled(MILLIMETRES),
        pair_low,
    ])
}
