//! Conditioning: gravity and drift off, the band limited, at the rate as measured.

use super::{
    Biquad, Cascade, DesignError, Frame, LANES, Sections, butterworth_high_pass, butterworth_low_pass,
};
use serde::{Deserialize, Serialize};

/// Periods of the high-pass's corner until it has settled, per order: the slowest pole pair of a Butterworth filter of order n
/// decays by e^(-2 pi sin(pi / 2n)) a period, and sin(pi / 2n) is above 1 / n.
const SETTLE_PERIODS_PER_ORDER: f64 = 2.0;

/// One edge of a band.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corner {
    /// -3.01 dB there, Hz.
    pub hz: f64,
    /// Order of the Butterworth filter, 1 to 16: 6 dB an octave each.
    pub order: usize,
}

/// A Butterworth high-pass, low-pass or both, of at most `S` second-order sections, over four channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conditioner<const S: usize> {
    rate_hz: f64,
    settle_len: u64,
    filter: Cascade<S>,
}

impl<const S: usize> Conditioner<S> {
    /// For the sample rate as measured. Without a corner the band is open there. An order takes half as many sections, rounded up.
    ///
    /// # Errors
    /// [`DesignError`] when a corner, an order or the rate is out of range, the corners are the wrong way round, or there are more
    /// than `S` sections.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub fn new(
        high_pass: Option<Corner>,
        low_pass: Option<Corner>,
        rate_hz: f64,
    ) -> Result<Self, DesignError> {
        let design = |corner: Option<Corner>,
                      filter: fn(usize, f64, f64) -> Result<Sections, DesignError>| {
            corner.map_or(Ok(Sections::new()), |corner| filter(corner.order, corner.hz, rate_hz))
        };
        let below = design(high_pass, butterworth_high_pass)?;
        let above = design(low_pass, butterworth_low_pass)?;
        if let (Some(low), Some(high)) = (high_pass, low_pass)
            && low.hz >= high.hz
        {
            return Err(DesignError::Corner { corner_hz: high.hz, rate_hz });
        }
        let mut sections = heapless::Vec::<Biquad, S>::new();
        let fits = sections.extend_from_slice(&below).and_then(|()| sections.extend_from_slice(&above));
        let order = 2 * (below.len() + above.len());
        let filter = fits.ok().and_then(|()| Cascade::new(&sections)).ok_or(DesignError::Order { order })?;
        let slowest = high_pass.or(low_pass);
        let periods =
            slowest.map_or(0.0, |corner| SETTLE_PERIODS_PER_ORDER * corner.order as f64 / corner.hz);
        Ok(Self { rate_hz, settle_len: libm::ceil(periods * rate_hz) as u64, filter })
    }

    /// The sample rate that this was designed for.
    #[must_use]
    pub const fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    /// Samples until what a start left behind is below a thousandth.
    #[must_use]
    pub const fn settle_len(&self) -> u64 {
        self.settle_len
    }

    /// Starts anew as if `input` (best the first block's mean) had been constant for ever.
    pub fn settle(&mut self, input: [f64; LANES]) {
        self.filter.settle(input);
    }

    /// Filters frames in place.
    pub fn process(&mut self, frames: &mut [Frame]) {
        self.filter.process(frames);
    }

    /// Filters frames and returns, per channel, the sum of squares: for the RMS of a band.
    pub fn energy(&mut self, frames: &[Frame]) -> [f64; LANES] {
        self.filter.energy(frames)
    }

    /// Filters frames and hands each result to `sink` in double precision.
    pub fn run(&mut self, frames: &[Frame], sink: impl FnMut([f64; LANES])) {
        self.filter.run(frames, sink);
    }
}
