//! The sample rate, measured: from the records' times over their sample numbers, never from arrival and never nominal.
//!
//! One anchor (sample number, time) a window is kept, [`ANCHORS_MAX`] at most. The rate is the median of the slopes between
//! anchors that lie a third of the kept span apart (Theil and Sen's idea at a fixed lag): a clock that jumps spoils the pairs that straddle
//! the jump, and the median does not follow until they are the majority.

use serde::{Deserialize, Serialize};

/// Most anchors kept.
const ANCHORS_MAX: usize = 32;

/// A rate further from the nominal one than this is flagged.
pub(crate) const RATE_OFF_MAX: f64 = 0.10;

/// A rate further from the nominal one than this factor cannot be a sensor's: the clock is wrong, and the rate is not used.
const RATE_FACTOR_MAX: f64 = 2.0;

/// Where a rate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RateSource {
    /// From the records' times.
    Times,
    /// As the node measured it against its own clock.
    Node,
    /// Nominal: nothing better is known yet.
    Nominal,
}

impl RateSource {
    /// The word in records.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Times => "times",
            Self::Node => "node",
            Self::Nominal => "nominal",
        }
    }
}

/// The best rate known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// Samples per second.
    pub hz: f64,
    /// Where it comes from.
    pub source: RateSource,
    /// Whether what was measured lies too far from the nominal rate.
    pub is_off: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Anchor {
    sample: u64,
    time_ns: i64,
}

/// Estimates one run's sample rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RateEstimator {
    nominal_hz: f64,
    /// As the node says, 0 when it does not.
    node_hz: f64,
    /// Measured in an earlier run of the same sensor; stands in until this run has two anchors.
    earlier_hz: f64,
    anchors: Vec<Anchor>,
    newest: Option<Anchor>,
    /// From the anchors, 0 when they do not say; computed when they change.
    measured_hz: f64,
}

impl RateEstimator {
    /// Knows nothing but the nominal rate and, from an earlier run, the measured one.
    #[must_use]
    pub(crate) fn new(nominal_hz: f64, earlier: Option<Rate>) -> Self {
        let earlier_hz = earlier.filter(|rate| rate.source == RateSource::Times).map_or(0.0, |rate| rate.hz);
        Self { nominal_hz, node_hz: 0.0, earlier_hz, anchors: Vec::new(), newest: None, measured_hz: 0.0 }
    }

    /// Takes the time of a block's first sample. `window_len` is the spacing of anchors in samples.
    pub(crate) fn observe(&mut self, sample: u64, time_ns: i64, node_hz: f64, window_len: u64) {
        self.node_hz = node_hz;
        let anchor = Anchor { sample, time_ns };
        self.newest = Some(anchor);
        if self.anchors.last().is_some_and(|last| sample.saturating_sub(last.sample) < window_len) {
            if self.anchors.len() < 2 {
                self.measured_hz = self.measure().unwrap_or(0.0);
            }
            return;
        }
        if self.anchors.len() == ANCHORS_MAX {
            self.anchors.remove(0);
        }
        self.anchors.push(anchor);
        self.measured_hz = self.measure().unwrap_or(0.0);
    }

    /// The best rate known now.
    #[must_use]
    pub(crate) fn best(&self) -> Rate {
        let measured = if self.measured_hz > 0.0 { self.measured_hz } else { self.earlier_hz };
        for (hz, source) in [(measured, RateSource::Times), (self.node_hz, RateSource::Node)] {
            let factor = hz / self.nominal_hz;
            if factor.is_finite() && factor * RATE_FACTOR_MAX > 1.0 && factor < RATE_FACTOR_MAX {
                return Rate { hz, source, is_off: (factor - 1.0).abs() > RATE_OFF_MAX };
            }
        }
        Rate { hz: self.nominal_hz, source: RateSource::Nominal, is_off: measured != 0.0 }
    }

    fn measure(&self) -> Option<f64> {
        let known = self.anchors.len();
        if known < 2 {
            return slope(*self.anchors.first()?, self.newest?);
        }
        // A jump of the clock spoils `lag` slopes: less than half of them.
        let lag = ((known - 1) / 3).max(1);
        let mut slopes = [0.0; ANCHORS_MAX];
        let mut count = 0;
        for (early, late) in self.anchors.iter().zip(&self.anchors[lag..]) {
            slopes[count] = slope(*early, *late).unwrap_or(0.0);
            count += 1;
        }
        let slopes = &mut slopes[..count];
        slopes.sort_unstable_by(f64::total_cmp);
        // Of two middle values the one nearer to the nominal rate: with two slopes, one of them spoiled, the mean would be wrong.
        let off = |hz: f64| (hz / self.nominal_hz - 1.0).abs();
        let (lower, upper) = (slopes[(count - 1) / 2], slopes[count / 2]);
        Some(if off(lower) < off(upper) { lower } else { upper }).filter(|hz| *hz > 0.0)
    }
}

fn slope(early: Anchor, late: Anchor) -> Option<f64> {
    let samples = late.sample.checked_sub(early.sample)?;
    let ns = late.time_ns.checked_sub(early.time_ns)?;
    (samples > 0 && ns > 0).then(|| samples as f64 * 1e9 / ns as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOMINAL_HZ: f64 = 26_667.0;

    fn run(hz: f64, blocks: u64, mut time_of: impl FnMut(u64, i64) -> i64) -> RateEstimator {
        let mut estimator = RateEstimator::new(NOMINAL_HZ, None);
        for block in 0..blocks {
            let sample = block * 512;
            let true_ns = (sample as f64 * 1e9 / hz) as i64;
            estimator.observe(sample, time_of(block, true_ns), 0.0, 26_667);
        }
        estimator
    }

    #[test]
    fn the_rate_is_nominal_then_the_nodes_then_measured() {
        let mut estimator = RateEstimator::new(NOMINAL_HZ, None);
        assert_eq!(estimator.best().source, RateSource::Nominal);
        estimator.observe(0, 0, 27_000.0, 26_667);
        assert_eq!(estimator.best(), Rate { hz: 27_000.0, source: RateSource::Node, is_off: false });
        estimator.observe(512, (512.0 * 1e9 / 27_100.0) as i64, 27_000.0, 26_667);
        let rate = estimator.best();
        assert!(rate.source == RateSource::Times && (rate.hz / 27_100.0 - 1.0).abs() < 1e-6, "{rate:?}");
    }

    #[test]
    fn a_sensor_some_percent_off_is_measured_to_ppm() {
        let rate = run(NOMINAL_HZ * 1.034, 3000, |_, t| t).best();
        assert!((rate.hz / (NOMINAL_HZ * 1.034) - 1.0).abs() < 1e-6 && !rate.is_off, "{rate:?}");
    }

    #[test]
    fn jitter_of_a_millisecond_averages_out() {
        let mut state = 1_u32;
        let jitter = |_, t: i64| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            t + i64::from(state >> 12) - 524_288
        };
        let rate = run(NOMINAL_HZ, 3000, jitter).best();
        assert!((rate.hz / NOMINAL_HZ - 1.0).abs() < 1e-4, "{rate:?}");
    }

    #[test]
    fn a_clock_that_jumps_by_an_hour_does_not_move_the_rate() {
        for jump_at in [600, 1500, 2900] {
            let rate =
                run(NOMINAL_HZ, 3000, |block, t| t + if block > jump_at { 3_600_000_000_000 } else { 0 })
                    .best();
            assert!((rate.hz / NOMINAL_HZ - 1.0).abs() < 1e-6, "jump at block {jump_at}: {rate:?}");
        }
    }

    #[test]
    fn a_clock_at_the_wrong_speed_is_flagged_and_not_used() {
        let rate = run(NOMINAL_HZ * 5.0, 3000, |_, t| t).best();
        assert_eq!((rate.source, rate.is_off), (RateSource::Nominal, true));
        let rate = run(NOMINAL_HZ * 1.2, 3000, |_, t| t).best();
        assert_eq!((rate.source, rate.is_off), (RateSource::Times, true));
        let rate = run(NOMINAL_HZ, 3000, |_, _| 0).best();
        assert_eq!(rate.source, RateSource::Nominal);
    }
}
