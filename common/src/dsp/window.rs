//! Window functions and what they do to a spectrum.
//!
//! All are sums of cosines, in their periodic (DFT-even) form, so their figures have closed forms (F. J. Harris, "On the use of
//! windows for harmonic analysis with the discrete Fourier transform", Proc. IEEE 66, 1978).

use core::f64::consts::PI;
use serde::{Deserialize, Serialize};

/// A window function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// None: for transients that fit the segment, or whole periods.
    Rectangular,
    /// Hann: for densities, bands and searching.
    Hann,
    /// Flat top, for the amplitude of lines: at most 0.01 dB low between bins. Coefficients of `flattop` in SciPy, after
    /// G. D'Antona and A. Ferrero, "Digital Signal Processing for Measurement Systems", Springer 2006, page 70.
    FlatTop,
}

const RECTANGULAR: [f64; 1] = [1.0];
const HANN: [f64; 2] = [0.5, 0.5];
const FLAT_TOP: [f64; 5] = [0.215_578_95, 0.416_631_58, 0.277_263_158, 0.083_578_947, 0.006_947_368];

impl Window {
    /// `w[n] = sum over i of (-1)^i a_i cos(2 pi i n / len)`.
    const fn coefficients(self) -> &'static [f64] {
        match self {
            Self::Rectangular => &RECTANGULAR,
            Self::Hann => &HANN,
            Self::FlatTop => &FLAT_TOP,
        }
    }

    /// The window's value at sample `index` of `len`.
    #[must_use]
    pub fn at(self, index: usize, len: usize) -> f64 {
        let mut sum = 0.0;
        let mut sign = 1.0;
        for (order, coefficient) in self.coefficients().iter().enumerate() {
            // Reduced before it becomes an angle, so that it stays exact.
            let turns = (order * index % len) as f64 / len as f64;
            sum += sign * coefficient * libm::cos(2.0 * PI * turns);
            sign = -sign;
        }
        sum
    }

    /// The window over `len` samples, as segments are multiplied by it.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn table(self, len: usize) -> std::vec::Vec<f32> {
        (0..len).map(|index| self.at(index, len) as f32).collect()
    }

    /// Mean of the window: what it makes of a line's amplitude. Hann 0.5.
    #[must_use]
    pub fn coherent_gain(self) -> f64 {
        self.coefficients()[0]
    }

    /// Mean of the squared window: what it makes of noise power. Hann 0.375.
    #[must_use]
    pub fn power_gain(self) -> f64 {
        let [constant, rest @ ..] = self.coefficients() else { return 1.0 };
        constant * constant + rest.iter().map(|a| a * a).sum::<f64>() / 2.0
    }

    /// Equivalent noise bandwidth in bins: power gain over squared coherent gain. Hann 1.5, flat top 3.77.
    #[must_use]
    pub fn enbw_bins(self) -> f64 {
        self.power_gain() / (self.coherent_gain() * self.coherent_gain())
    }

    /// Largest loss of a line's amplitude, midway between two bins, dB (negative). Hann -1.42.
    #[must_use]
    pub fn scalloping_db(self) -> f64 {
        20.0 * libm::log10(self.response(0.5))
    }

    /// What a line `bins` away from a bin's centre adds to that bin's amplitude, as a part of its own; for segments much longer
    /// than the window has terms.
    #[must_use]
    pub fn response(self, bins: f64) -> f64 {
        let sinc = |at: f64| if at == 0.0 { 1.0 } else { libm::sin(PI * at) / (PI * at) };
        let mut sum = 0.0;
        // Seen from the window's middle all terms have the same sign.
        for (order, coefficient) in self.coefficients().iter().enumerate() {
            let order = order as f64;
            sum += coefficient * (sinc(bins - order) + sinc(bins + order)) / 2.0;
        }
        (sum / self.coherent_gain()).abs()
    }

    /// Half width of the main lobe in bins, where a line's power lies: rectangular 1, Hann 2, flat top 5.
    #[must_use]
    pub const fn half_lobe_bins(self) -> usize {
        self.coefficients().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gains_bandwidths_and_scalloping_are_those_of_the_closed_form_and_of_the_samples() {
        for (window, gain, enbw, scalloping) in [
            (Window::Rectangular, 1.0, 1.0, -3.9224),
            (Window::Hann, 0.5, 1.5, -1.4236),
            (Window::FlatTop, 0.215_578_95, 3.770_246, -0.0103),
        ] {
            let len = 1000;
            let sum: f64 = (0..len).map(|index| window.at(index, len)).sum();
            let squares: f64 = (0..len).map(|index| window.at(index, len) * window.at(index, len)).sum();
            assert!((sum / len as f64 - gain).abs() < 1e-12 && (window.coherent_gain() - gain).abs() < 1e-12);
            assert!((squares * len as f64 / (sum * sum) - window.enbw_bins()).abs() < 1e-9);
            assert!((window.enbw_bins() - enbw).abs() < 1e-5, "{window:?}: {}", window.enbw_bins());
            assert!(
                (window.scalloping_db() - scalloping).abs() < 1e-3,
                "{window:?}: {}",
                window.scalloping_db()
            );
            // The same midway between two bins by the sum itself.
            let (mut re, mut im) = (0.0, 0.0);
            for index in 0..len {
                let angle = PI * index as f64 / len as f64;
                re += window.at(index, len) * libm::cos(angle);
                im += window.at(index, len) * libm::sin(angle);
            }
            let loss = 20.0 * libm::log10(libm::hypot(re, im) / sum);
            assert!((loss - window.scalloping_db()).abs() < 1e-3, "{window:?}: {loss}");
        }
    }
}
