//! Vibration velocity from acceleration, with the band of ISO 2954.
//!
//! Butterworth high-pass and low-pass of third order around an integrator. The corners are not the band's edges: corners
//! at exactly 10 and 1000 Hz would read 0.71 there, while ISO 2954 asks for 0.8 to 1.1 of the reading at 80 Hz; at 0.85
//! and 1.176 times the edges the gain there is 0.85. The integrator is Al-Alaoui's (Electronics Letters 29, 1993), within
//! 2 % of 1/ω up to half of the Nyquist frequency, where the trapezoid reads 21 % low. Its pole at zero frequency is
//! cancelled against one of the high-pass's zeros on paper, so nothing can drift.

use super::design::{Pass, first_order, second_order, warp};
use super::{Biquad, Cascade, DesignError, Frame, LANES};
use serde::{Deserialize, Serialize};

/// High-pass corner over the band's lower edge.
const LOW_CORNER: f64 = 0.85;

/// Low-pass corner over the band's upper edge.
const HIGH_CORNER: f64 = 1.176;

/// A low-pass corner above this fraction of the sample rate is left out: the sensor's own filter ends the band.
const CORNER_MAX: f64 = 0.45;

const ORDER: usize = 3;

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

/// High-pass pair; then its real pole with the integrator, and the low-pass's real pole; then the low-pass pair.
fn sections(low_hz: f64, high_hz: f64, rate_hz: f64) -> Result<[Biquad; 3], DesignError> {
    let below = warp(low_hz * LOW_CORNER, rate_hz)?;
    let high_corner_hz = high_hz * HIGH_CORNER;
    if high_hz.is_nan() || high_hz <= low_hz {
        return Err(DesignError::Corner { corner_hz: high_hz, rate_hz });
    }
    let above =
        if high_corner_hz <= CORNER_MAX * rate_hz { Some(warp(high_corner_hz, rate_hz)?) } else { None };
    // (1 - 1/z) of the high-pass falls out against the integrator's 1 / (1 - 1/z).
    let [norm, _, pole] = first_order(Pass::High, below);
    let step = norm / rate_hz;
    let integrator = [step * 7.0 / 8.0, step / 8.0, pole];
    let real_low = above.map_or([1.0, 0.0, 0.0], |above| first_order(Pass::Low, above));
    let pair_low = above.map_or(Biquad::IDENTITY, |above| second_order(Pass::Low, ORDER, 0, above));
    let millimetres = 1000.0;
    Ok([
        second_order(Pass::High, ORDER, 0, below),
        Biquad::product(integrator, real_low).scaled(millimetres),
        pair_low,
    ])
}
