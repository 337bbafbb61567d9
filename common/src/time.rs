//! The time base: from a node's ticks to UTC, by a line fitted through (tick, UTC) pairs.
//!
//! The fit is robust: slope and offset are medians (Theil-Sen; P. K. Sen, "Estimates of the regression coefficient based
//! on Kendall's tau", JASA 63, 1968), so that a few bad pairs do not move it. A pair far off the line is set aside; when
//! three in a row are off and agree with each other, the clock has been set and the line starts anew from them.

use heapless::Vec;

/// Pairs that the line is fitted through; older ones are dropped.
pub const PAIRS_MAX: usize = 16;
/// Pairs off the line that must agree before they are believed.
const STEP_PAIRS: usize = 3;
/// Off the line by less than this is never an outlier: UTC on a small board is that bad at times.
const TOLERANCE_NS: f64 = 20e6;
/// A tick rate this far off nominal (as a fraction) is not believed.
const DRIFT_MAX: f64 = 0.03;
/// Growth of the tolerance with the time since the last pair, as a fraction of that time.
const DRIFT_TOLERANCE: f64 = 300e-6;
const SLOPES_MAX: usize = PAIRS_MAX * (PAIRS_MAX - 1) / 2;

/// The tick counter and UTC at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Tick counter.
    pub tick: u64,
    /// UTC, ns since 1970.
    pub utc_ns: i64,
    /// Bound of the error, ns.
    pub error_ns: u32,
}

/// What became of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is in the fit.
    Fitted,
    /// It is off the line; it waits for others that agree with it.
    Outlier,
    /// It was the third in a row that was off: the clock was set, the line is new.
    Stepped,
    /// Not newer than the newest pair: ignored.
    Old,
}

/// The line from ticks to UTC.
#[derive(Debug, Clone, PartialEq)]
pub struct ClockFit {
    tick_hz: u32,
    pairs: Vec<Pair, PAIRS_MAX>,
    suspects: Vec<Pair, STEP_PAIRS>,
    /// UTC at the newest pair's tick, as fitted.
    utc_ns: i64,
    /// Deviation of the tick's length from nominal, as a fraction.
    drift: f64,
}

impl ClockFit {
    /// A clock of `tick_hz` ticks per second, nominally, without any pair yet.
    #[must_use]
    pub const fn new(tick_hz: u32) -> Self {
        Self { tick_hz, pairs: Vec::new(), suspects: Vec::new(), utc_ns: 0, drift: 0.0 }
    }

    /// The pairs in the fit, oldest first. Adding them to a new clock gives the same line.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Nominal ticks per second.
    #[must_use]
    pub const fn tick_hz(&self) -> u32 {
        self.tick_hz
    }

    /// Deviation of the tick's length from nominal, as a fraction: 20e-6 when a nominal second of ticks takes 20 µs more.
    #[must_use]
    pub const fn drift(&self) -> f64 {
        self.drift
    }

    /// UTC in ns at `tick`; `None` before the first pair.
    #[must_use]
    pub fn utc_ns(&self, tick: u64) -> Option<i64> {
        let newest = self.pairs.last()?;
        Some(self.utc_ns.saturating_add(self.span_ns(newest.tick, tick, self.drift) as i64))
    }

    /// Takes a pair in.
    pub fn add(&mut self, pair: Pair) -> Added {
        let Some(newest) = self.pairs.last() else {
            self.start(&[pair]);
            return Added::Fitted;
        };
        if pair.tick <= newest.tick {
            return Added::Old;
        }
        let span_ns = self.span_ns(newest.tick, pair.tick, 0.0);
        let predicted = self.utc_ns(pair.tick).unwrap_or(pair.utc_ns);
        let tolerance = self.tolerance(pair, span_ns);
        if difference_ns(pair.utc_ns, predicted).abs() <= tolerance {
            self.suspects.clear();
            self.push(pair);
            self.fit();
            return Added::Fitted;
        }
        self.suspect(pair)
    }

    /// Collects pairs off the line until enough of them agree.
    fn suspect(&mut self, pair: Pair) -> Added {
        if let Some(first) = self.suspects.first() {
            let span_ns = self.span_ns(first.tick, pair.tick, 0.0);
            let off = difference_ns(pair.utc_ns, first.utc_ns) - span_ns;
            if pair.tick <= first.tick || off.abs() > self.tolerance(pair, span_ns) + span_ns * DRIFT_MAX {
                self.suspects.clear();
            }
        }
        // Has room: it is emptied as soon as it is full.
        let _ = self.suspects.push(pair);
        if self.suspects.len() < STEP_PAIRS {
            return Added::Outlier;
        }
        let suspects = core::mem::take(&mut self.suspects);
        self.start(&suspects);
        Added::Stepped
    }

    fn start(&mut self, pairs: &[Pair]) {
        self.pairs.clear();
        for pair in pairs {
            self.push(*pair);
        }
        self.suspects.clear();
        self.fit();
    }

    fn push(&mut self, pair: Pair) {
        if self.pairs.is_full() {
            self.pairs.remove(0);
        }
        // Has room: made just above.
        let _ = self.pairs.push(pair);
    }

    fn tolerance(&self, pair: Pair, span_ns: f64) -> f64 {
        // Before the rate is known, it may be anything that is believed.
        let drift = if self.pairs.len() < STEP_PAIRS { DRIFT_MAX } else { DRIFT_TOLERANCE };
        TOLERANCE_NS + 4.0 * f64::from(pair.error_ns) + span_ns.abs() * drift
    }

    /// Length of the ticks from `from` to `to`, in ns; negative when `to` is earlier.
    fn span_ns(&self, from: u64, to: u64, drift: f64) -> f64 {
        let ticks = to.wrapping_sub(from).cast_signed() as f64;
        ticks * 1e9 / f64::from(self.tick_hz.max(1)) * (1.0 + drift)
    }

    fn fit(&mut self) {
        let (Some(oldest), Some(newest)) = (self.pairs.first(), self.pairs.last()) else { return };
        // UTC less nominal time, relative to the newest pair: small numbers, so that f64 is exact enough.
        let mut points: Vec<(f64, f64), PAIRS_MAX> = Vec::new();
        let mut errors: Vec<f64, PAIRS_MAX> = Vec::new();
        for pair in &self.pairs {
            let x = self.span_ns(newest.tick, pair.tick, 0.0);
            let _ = points.push((x, difference_ns(pair.utc_ns, newest.utc_ns) - x));
            let _ = errors.push(f64::from(pair.error_ns));
        }
        // What pairs say counts by how well they know it: their error, which is never taken for less than a microsecond.
        let error = |index: usize| errors.get(index).copied().unwrap_or(0.0).max(1e3);
        let mut slopes: Vec<(f64, f64), SLOPES_MAX> = Vec::new();
        for (index, (x1, y1)) in points.iter().enumerate() {
            for (other, (x2, y2)) in points.iter().enumerate().skip(index + 1) {
                if x2 > x1 {
                    let _ = slopes.push(((y2 - y1) / (x2 - x1), 1.0 / (error(index) + error(other))));
                }
            }
        }
        let slope = weighted_median(&mut slopes).clamp(-DRIFT_MAX, DRIFT_MAX);
        let base_ns = self.span_ns(oldest.tick, newest.tick, 0.0);
        // A slope that the pairs' errors can explain is taken as none: over a short base it would be noise.
        let noise = 1.5 * median(&mut errors.clone()).max(1e3);
        let squared = (slope * base_ns / noise) * (slope * base_ns / noise);
        let strength = squared * squared;
        self.drift = slope * strength / (1.0 + strength);
        let offset = |(index, (x, y)): (usize, &(f64, f64))| (y - self.drift * x, 1.0 / error(index));
        let mut offsets: Vec<(f64, f64), PAIRS_MAX> = points.iter().enumerate().map(offset).collect();
        self.utc_ns = newest.utc_ns.saturating_add(weighted_median(&mut offsets) as i64);
    }
}

fn difference_ns(a: i64, b: i64) -> f64 {
    a.saturating_sub(b) as f64
}

/// Median; 0 of nothing.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match (values.len(), values.get(values.len() / 2)) {
        (0, _) | (_, None) => 0.0,
        (len, Some(upper)) if len % 2 == 1 => *upper,
        (len, Some(upper)) => values.get(len / 2 - 1).map_or(*upper, |lower| f64::midpoint(*lower, *upper)),
    }
}

/// Median of values with weights: half of the weight lies on either side. That of equal weights is the [`median`], bit for bit.
fn weighted_median(values: &mut [(f64, f64)]) -> f64 {
    values.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let first = values.first().map_or(0.0, |(_, weight)| *weight);
    if values.iter().all(|(_, weight)| *weight == first) {
        let middle = values.len() / 2;
        let at = |index: usize| values.get(index).map_or(0.0, |(value, _)| *value);
        return if values.len() % 2 == 1 || values.is_empty() {
            at(middle)
        } else {
            f64::midpoint(at(middle - 1), at(middle))
        };
    }
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    for (value, weight) in values.iter() {
        sum += weight;
        if sum >= half {
            return *value;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u32 = 1_000_000;
    const START: i64 = 1_800_000_000_000_000_000;

    /// A clock whose tick is `drift` too long, read at `second` with a UTC error.
    fn pair(second: u64, drift: f64, error_ns: i64) -> Pair {
        let tick = 5_000_000 + second * u64::from(HZ);
        let true_ns = (second as f64 * 1e9 * (1.0 + drift)) as i64;
        Pair { tick, utc_ns: START + true_ns + error_ns, error_ns: 1_000_000 }
    }

    fn error_at(fit: &ClockFit, second: u64, drift: f64) -> i64 {
        let truth = pair(second, drift, 0);
        (fit.utc_ns(truth.tick).unwrap() - truth.utc_ns).abs()
    }

    #[test]
    fn no_pair_gives_no_time() {
        assert_eq!(ClockFit::new(HZ).utc_ns(5), None);
    }

    #[test]
    fn one_pair_gives_time_at_the_nominal_rate_both_ways() {
        let mut fit = ClockFit::new(HZ);
        assert_eq!(fit.add(pair(10, 0.0, 0)), Added::Fitted);
        assert_eq!(error_at(&fit, 0, 0.0), 0);
        assert_eq!(error_at(&fit, 3600, 0.0), 0);
    }

    #[test]
    fn drift_is_found_and_used_ahead() {
        for drift in [40e-6, -150e-6, 0.012, -0.02] {
            let mut fit = ClockFit::new(HZ);
            for second in 0..40 {
                assert_eq!(fit.add(pair(second * 10, drift, 0)), Added::Fitted, "{drift}");
            }
            assert!((fit.drift() - drift).abs() < 1e-6, "{drift}: {}", fit.drift());
            assert!(error_at(&fit, 500, drift) < 200_000, "{drift}");
        }
    }

    #[test]
    fn jitter_averages_out() {
        let mut fit = ClockFit::new(HZ);
        let mut noise = 7u64;
        for second in 0..100 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let error = (noise >> 33) as i64 % 2_000_000 - 1_000_000;
            assert_eq!(fit.add(pair(second * 10, 30e-6, error)), Added::Fitted);
            if second > 16 {
                assert!(error_at(&fit, second * 10 + 5, 30e-6) < 1_000_000, "{second}");
            }
        }
    }

    #[test]
    fn a_lone_wild_pair_moves_nothing() {
        let mut fit = ClockFit::new(HZ);
        for second in 0..10 {
            fit.add(pair(second * 10, 20e-6, 0));
        }
        let before = fit.clone();
        assert_eq!(fit.add(pair(101, 20e-6, 3_600_000_000_000)), Added::Outlier);
        assert_eq!(fit.utc_ns(1 << 40), before.utc_ns(1 << 40));
        assert_eq!(fit.add(pair(110, 20e-6, 0)), Added::Fitted);
    }

    #[test]
    fn a_clock_that_was_set_is_believed_after_three_pairs() {
        for step in [3_600_000_000_000i64, -3_600_000_000_000, 200_000_000] {
            let mut fit = ClockFit::new(HZ);
            for second in 0..10 {
                fit.add(pair(second * 10, 0.0, 0));
            }
            assert_eq!(fit.add(pair(101, 0.0, step)), Added::Outlier);
            assert_eq!(fit.add(pair(111, 0.0, step)), Added::Outlier);
            assert_eq!(fit.add(pair(121, 0.0, step)), Added::Stepped);
            let now = pair(125, 0.0, step);
            assert!((fit.utc_ns(now.tick).unwrap() - now.utc_ns).abs() < 1_000);
        }
    }

    #[test]
    fn adding_the_kept_pairs_again_gives_the_same_line() {
        let mut fit = ClockFit::new(HZ);
        for second in 0..50 {
            fit.add(pair(second * 10, 55e-6, (second as i64 % 7) * 100_000));
        }
        let mut again = ClockFit::new(HZ);
        for pair in fit.pairs() {
            again.add(*pair);
        }
        assert_eq!(again.utc_ns(1 << 40), fit.utc_ns(1 << 40));
    }

    #[test]
    fn absurd_values_do_not_overflow() {
        let mut fit = ClockFit::new(1);
        for (tick, utc_ns) in [(0, i64::MIN), (1, i64::MAX), (u64::MAX / 2, 0), (u64::MAX, i64::MIN), (5, 5)]
        {
            fit.add(Pair { tick, utc_ns, error_ns: u32::MAX });
        }
        for tick in [0, 1, u64::MAX] {
            assert!(fit.utc_ns(tick).is_some());
        }
    }
}
