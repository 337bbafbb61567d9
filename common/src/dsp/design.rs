//! Butterworth filters as second-order sections, designed at the sample rate as measured.
//!
//! Bilinear transform with the corner pre-warped (Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 7), so
//! the gain at the corner is exactly the square root of one half.

use super::DesignError;
use core::f64::consts::PI;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Highest order of a designed filter.
pub const ORDER_MAX: usize = 16;

/// Most sections of a designed filter.
pub const SECTIONS_MAX: usize = ORDER_MAX / 2;

/// A filter as second-order sections, to be applied one after the other.
pub type Sections = Vec<Biquad, SECTIONS_MAX>;

/// One second-order section: `H(z) = (b0 + b1/z + b2/z²) / (1 + a1/z + a2/z²)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Biquad {
    /// Numerator, constant term first.
    pub b: [f64; 3],
    /// Denominator without its leading 1: `a1, a2`.
    pub a: [f64; 2],
}

impl Biquad {
    /// Lets everything pass.
    pub const IDENTITY: Self = Self { b: [1.0, 0.0, 0.0], a: [0.0, 0.0] };

    /// Gain for a constant.
    #[must_use]
    pub fn gain_at_zero(&self) -> f64 {
        (self.b[0] + self.b[1] + self.b[2]) / (1.0 + self.a[0] + self.a[1])
    }

    /// Two first-order sections `(b0 + b1/z) / (1 + a1/z)`, each `[b0, b1, a1]`, as one of second order.
    pub(super) fn product([p0, p1, p]: [f64; 3], [q0, q1, q]: [f64; 3]) -> Self {
        Self { b: [p0 * q0, p0 * q1 + p1 * q0, p1 * q1], a: [p + q, p * q] }
    }

    /// All scaled by `factor`.
    pub(super) fn scaled(self, factor: f64) -> Self {
        Self { b: self.b.map(|b| b * factor), a: self.a }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pass {
    Low,
    High,
}

/// Butterworth low-pass of any order from 1 to 16, -3.01 dB at `corner_hz`.
///
/// # Errors
/// [`DesignError`] when order, corner or rate is out of range.
pub fn butterworth_low_pass(order: usize, corner_hz: f64, rate_hz: f64) -> Result<Sections, DesignError> {
    butterworth(Pass::Low, order, corner_hz, rate_hz)
}

/// Butterworth high-pass of any order from 1 to 16, -3.01 dB at `corner_hz`.
///
/// # Errors
/// [`DesignError`] when order, corner or rate is out of range.
pub fn butterworth_high_pass(order: usize, corner_hz: f64, rate_hz: f64) -> Result<Sections, DesignError> {
    butterworth(Pass::High, order, corner_hz, rate_hz)
}

fn butterworth(pass: Pass, order: usize, corner_hz: f64, rate_hz: f64) -> Result<Sections, DesignError> {
    if !(1..=ORDER_MAX).contains(&order) {
        return Err(DesignError::Order { order });
    }
    let warped = warp(corner_hz, rate_hz)?;
    let pairs = (0..order / 2).map(|pair| second_order(pass, order, pair, warped));
    let last = (order % 2 == 1).then(|| Biquad::product(first_order(pass, warped), [1.0, 0.0, 0.0]));
    Ok(pairs.chain(last).collect())
}

/// `tan(pi corner / rate)`: the corner on the analogue side of the bilinear transform.
pub(super) fn warp(corner_hz: f64, rate_hz: f64) -> Result<f64, DesignError> {
    if !(rate_hz.is_finite() && rate_hz > 0.0) {
        return Err(DesignError::Rate { rate_hz });
    }
    if !(corner_hz > 0.0 && corner_hz < rate_hz / 2.0) {
        return Err(DesignError::Corner { corner_hz, rate_hz });
    }
    Ok(libm::tan(PI * corner_hz / rate_hz))
}

/// The section of one pole pair of a Butterworth filter.
pub(super) fn second_order(pass: Pass, order: usize, pair: usize, warped: f64) -> Biquad {
    let damping = 2.0 * libm::sin(PI * (2 * pair + 1) as f64 / (2 * order) as f64);
    let square = warped * warped;
    let norm = 1.0 / (1.0 + damping * warped + square);
    let b = match pass {
        Pass::Low => [square * norm, 2.0 * square * norm, square * norm],
        Pass::High => [norm, -2.0 * norm, norm],
    };
    Biquad { b, a: [2.0 * (square - 1.0) * norm, (1.0 - damping * warped + square) * norm] }
}

/// The real pole of a Butterworth filter of odd order, as `[b0, b1, a1]`.
pub(super) fn first_order(pass: Pass, warped: f64) -> [f64; 3] {
    let norm = 1.0 / (1.0 + warped);
    match pass {
        Pass::Low => [warped * norm, warped * norm, (warped - 1.0) * norm],
        Pass::High => [norm, -norm, (warped - 1.0) * norm],
    }
}

/// Magnitude of the sections' response at `hz`.
#[must_use]
pub fn gain(sections: &[Biquad], hz: f64, rate_hz: f64) -> f64 {
    let angle = 2.0 * PI * hz / rate_hz;
    let (cos, sin) = (libm::cos(angle), libm::sin(angle));
    let (cos2, sin2) = (libm::cos(2.0 * angle), libm::sin(2.0 * angle));
    let magnitude = |c0: f64, c1: f64, c2: f64| libm::hypot(c0 + c1 * cos + c2 * cos2, c1 * sin + c2 * sin2);
    sections.iter().map(|s| magnitude(s.b[0], s.b[1], s.b[2]) / magnitude(1.0, s.a[0], s.a[1])).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decibels(gain: f64) -> f64 {
        20.0 * libm::log10(gain)
    }

    #[test]
    fn every_order_loses_three_decibels_at_its_corner_and_6_n_an_octave_beyond() {
        for order in 1..=ORDER_MAX {
            let low = butterworth_low_pass(order, 100.0, 26_667.0).unwrap();
            let high = butterworth_high_pass(order, 100.0, 26_667.0).unwrap();
            assert_eq!(low.len(), order.div_ceil(2));
            for sections in [&low, &high] {
                assert!((gain(sections, 100.0, 26_667.0) - 0.5_f64.sqrt()).abs() < 1e-9, "order {order}");
            }
            let slope = decibels(gain(&low, 400.0, 26_667.0)) - decibels(gain(&low, 800.0, 26_667.0));
            assert!((slope - 6.0206 * order as f64).abs() < 0.3 * order as f64, "order {order}: {slope}");
            assert!((gain(&low, 0.0, 26_667.0) - 1.0).abs() < 1e-9);
            assert!((gain(&high, 13_333.5, 26_667.0) - 1.0).abs() < 1e-9);
            assert!(gain(&high, 0.0, 26_667.0) < 1e-9);
        }
    }

    #[test]
    fn corners_and_orders_out_of_range_are_refused() {
        assert!(matches!(butterworth_low_pass(4, 1000.0, 2000.0), Err(DesignError::Corner { .. })));
        assert!(matches!(butterworth_low_pass(4, f64::NAN, 2000.0), Err(DesignError::Corner { .. })));
        assert!(matches!(butterworth_low_pass(4, 10.0, 0.0), Err(DesignError::Rate { .. })));
        assert!(matches!(butterworth_low_pass(0, 10.0, 2000.0), Err(DesignError::Order { order: 0 })));
        assert!(matches!(butterworth_low_pass(17, 10.0, 2000.0), Err(DesignError::Order { order: 17 })));
    }
}
