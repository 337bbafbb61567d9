//! Vibration displacement from acceleration: integrated twice within a band.
//!
//! As [`super::velocity`], with a Butterworth high-pass of fourth order: both integrators' poles at zero frequency are cancelled
//! against two of its zeros, and the two that are left hold off drift. Corners are chosen so that the gain at the band's edges is
//! 0.85 of that amid the band. No standard is claimed.

use super::design::{Pass, first_order, second_order, warp};
use super::{Biquad, Cascade, DesignError, Frame, LANES};
use serde::{Deserialize, Serialize};

/// High-pass corner over the band's lower edge: 0.85 at the edge, by (0.85^-2 - 1)^(1/8).
const LOW_CORNER: f64 = 0.887;

/// Low-pass corner over the band's upper edge, as for velocity.
const HIGH_CORNER: f64 = 1.176;

/// A low-pass corner above this fraction of the sample rate is left out: the sensor's own filter ends the band.
const CORNER_MAX: f64 = 0.45;

const HIGH_ORDER: usize = 4;
const LOW_ORDER: usize = 3;

/// Displacements are in µm.
const MICROMETRES: f64 = 1e6;

/// Periods of the band's lower edge until the filters have settled: the slowest pole pair decays by e^(-0.38 x 0.887 x 2 pi) a period.
const SETTLE_PERIODS: f64 = 6.0;

/// Band-limited double integration of four channels from m/s² to µm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Displacement {
    low_hz: f64,
    high_hz: f64,
    rate_hz: f64,
    filter: Cascade<4>,
}

/// Smallest and largest value per channel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Extremes {
    /// Smallest; infinite when there was none.
    pub min: [f64; LANES],
    /// Largest; minus infinite when there was none.
    pub max: [f64; LANES],
}

impl Extremes {
    /// Of nothing.
    pub const EMPTY: Self = Self { min: [f64::INFINITY; LANES], max: [f64::NEG_INFINITY; LANES] };

    /// Peak to peak; 0 of nothing.
    #[must_use]
    pub fn peak_to_peak(&self) -> [f64; LANES] {
        core::array::from_fn(|lane| (self.max[lane] - self.min[lane]).max(0.0))
    }
}

impl Displacement {
    /// For the band `low_hz` to `high_hz` at the sample rate as measured. Where the rate is too low for the upper edge, the band
    /// ends at half the rate.
    ///
    /// # Errors
    /// [`DesignError`] when `low_hz` does not lie between 0 and half the rate, or is not below `high_hz`.
    pub fn new(low_hz: f64, high_hz: f64, rate_hz: f64) -> Result<Self, DesignError> {
        let filter = Cascade::new(&sections(low_hz, high_hz, rate_hz)?)
            .ok_or(DesignError::Order { order: HIGH_ORDER })?;
        Ok(Self { low_hz, high_hz: high_hz.min(rate_hz / 2.0), rate_hz, filter })
    }

    /// The band's edges as they are at this sample rate.
    #[must_use]
    pub const fn band_hz(&self) -> (f64, f64) {
        (self.low_hz, self.high_hz)
    }

    /// The sample rate that this was designed for. Where the true one is found to be another, a result is wrong by the square of
    /// their ratio.
    #[must_use]
    pub const fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    /// Samples until the output counts.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub fn settle_len(&self) -> u64 {
        libm::ceil(SETTLE_PERIODS / self.low_hz * self.rate_hz) as u64
    }

    /// Starts anew as if `acceleration` (best the first block's mean) had been constant for ever.
    pub fn settle(&mut self, acceleration: [f64; LANES]) {
        self.filter.settle(acceleration);
    }

    /// Integrates frames of acceleration in m/s² and widens `extremes` by the displacements, in µm.
    pub fn extremes(&mut self, frames: &[Frame], extremes: &mut Extremes) {
        let Extremes { mut min, mut max } = *extremes;
        self.filter.run(frames, |values| {
            for lane in 0..LANES {
                min[lane] = if values[lane] < min[lane] { values[lane] } else { min[lane] };
                max[lane] = if values[lane] > max[lane] { values[lane] } else { max[lane] };
            }
        });
        *extremes = Extremes { min, max };
    }

    /// Integrates frames in place, from m/s² to µm.
    pub fn process(&mut self, frames: &mut [Frame]) {
        self.filter.process(frames);
    }
}

/// High-pass pair with both integrators; high-pass pair; the low-pass's real pole; its pair.
fn sections(low_hz: f64, high_hz: f64, rate_hz: f64) -> Result<[Biquad; 4], DesignError> {
    let below = warp(low_hz * LOW_CORNER, rate_hz)?;
    if high_hz.is_nan() || high_hz <= low_hz {
        return Err(DesignError::Corner { corner_hz: high_hz, rate_hz });
    }
    // The pair with more damping; (1 - 1/z)² falls out against both integrators' 1 / (1 - 1/z).
    let damped = second_order(Pass::High, HIGH_ORDER, 1, below);
    let norm = damped.b[0];
    let step = [7.0 / 8.0 / rate_hz, 1.0 / 8.0 / rate_hz, 0.0];
    let twice = Biquad { b: Biquad::product(step, step).scaled(norm * MICROMETRES).b, a: damped.a };
    let high = second_order(Pass::High, HIGH_ORDER, 0, below);
    let high_corner_hz = high_hz * HIGH_CORNER;
    let low = if high_corner_hz <= CORNER_MAX * rate_hz {
        let above = warp(high_corner_hz, rate_hz)?;
        [
            Biquad::product(first_order(Pass::Low, above), [1.0, 0.0, 0.0]),
            second_order(Pass::Low, LOW_ORDER, 0, above),
        ]
    } else {
        [Biquad::IDENTITY; 2]
    };
    // The high-pass first: what reaches the integrators has no gravity in it.
    Ok([high, twice, low[0], low[1]])
}
