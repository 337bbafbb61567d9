//! When was sample number n taken, and how fast does the sensor really run, by the node's own ticks.
//!
//! Each FIFO read gives one observation: "sample `index` was the newest at `tick`". It is late by up to one sample period
//! plus whatever delayed the read, and never early. So the least late observation of each window is kept, and a line
//! through the kept ones gives rate and offset; a delayed task does not disturb either.

use crate::clock::TICK_HZ;
use crate::sensor::Batch;
use heapless::Deque;

/// Windows kept: the line spans about two minutes, short enough to follow a sensor's temperature.
const POINTS_MAX: usize = 64;

/// Length of a window.
const WINDOW_S: u64 = 2;

/// A first estimate is given after this time.
const SETTLED_S: u64 = 1;

#[derive(Debug, Clone, Copy)]
struct Point {
    index: u64,
    tick: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct SampleClock {
    /// Ticks per sample: nominal at first, then measured.
    period: f64,
    measured: bool,
    first: Option<Point>,
    points: Deque<Point, POINTS_MAX>,
    /// Least late observation of the current window, and when the window began.
    best: Option<Point>,
    window_start: u64,
}

impl SampleClock {
    /// A clock that believes `rate_mhz` until it knows better.
    #[must_use]
    pub fn new(rate_mhz: u32) -> Self {
        Self {
            period: f64::from(TICK_HZ) * 1000.0 / f64::from(rate_mhz.max(1)),
            measured: false,
            first: None,
            points: Deque::new(),
            best: None,
            window_start: 0,
        }
    }

    /// Sample `index` was the newest at `tick`. Both only grow.
    pub fn observe(&mut self, index: u64, tick: u64) {
        let point = Point { index, tick };
        let Some(first) = self.first else {
            (self.first, self.best, self.window_start) = (Some(point), Some(point), tick);
            return;
        };
        if self.best.is_none_or(|best| self.lateness(point, best) < 0.0) {
            self.best = Some(point);
        }
        if tick.saturating_sub(self.window_start) >= u64::from(TICK_HZ) * WINDOW_S {
            self.close_window(tick);
        } else if !self.measured && tick.saturating_sub(first.tick) >= u64::from(TICK_HZ) * SETTLED_S {
            self.fit(first, point);
        }
    }

    /// Tick at which sample `index` was taken, as well as is known now.
    #[must_use]
    pub fn tick_of(&self, index: u64) -> u64 {
        let Some(anchor) = self.points.back().copied().or(self.best) else { return 0 };
        let ahead = (index as f64 - anchor.index as f64) * self.period;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        let tick = libm::round(anchor.tick as f64 + ahead) as u64;
        tick
    }

    /// How many frames were lost before `batch`, whose first frame would be number `next` if none was.
    ///
    /// Where the chip counts, by the chip. Where it cannot, by the ticks: the newest sample at the batch's tick has the
    /// number that the line through the earlier observations gives. That is right to a sample as long as the silence was
    /// short against the time that the rate has been measured for; where it is not, the number of samples is a guess, but
    /// the ticks of those that follow are not: a clock that has measured no rate yet starts anew at this batch.
    #[must_use]
    pub fn lost(&mut self, batch: &Batch, next: u64) -> u64 {
        let (true, Some(tick)) = (batch.uncounted && batch.frames > 0, batch.newest_tick) else {
            return batch.lost;
        };
        let Some(anchor) = self.points.back().copied().or(self.best) else { return batch.lost };
        // The newest sample is up to a period old; the sixteenth is for what the anchor itself was read late.
        let ahead = (tick as f64 - anchor.tick as f64) / self.period + 1.0 / 16.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        let newest = (anchor.index as f64 + ahead) as u64;
        if !self.measured {
            *self = Self { period: self.period, ..Self::new(1) };
        }
        (newest + 1).saturating_sub(next + batch.frames as u64).max(batch.lost)
    }

    /// The measured rate in mHz; 0 while it is not known.
    #[must_use]
    pub fn rate_mhz(&self) -> u32 {
        if !self.measured {
            return 0;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        let rate = libm::round(f64::from(TICK_HZ) * 1000.0 / self.period) as u32;
        rate
    }

    /// The rate that is believed, measured or not, Hz.
    #[must_use]
    pub fn rate_hz(&self) -> f64 {
        f64::from(TICK_HZ) / self.period
    }

    /// How much later `point` lies than `other`, by the period believed in; in ticks.
    fn lateness(&self, point: Point, other: Point) -> f64 {
        let (ticks, samples) = (point.tick.wrapping_sub(other.tick), point.index.wrapping_sub(other.index));
        ticks.cast_signed() as f64 - samples.cast_signed() as f64 * self.period
    }

    fn close_window(&mut self, tick: u64) {
        self.window_start = tick;
        let Some(best) = self.best.take() else { return };
        if self.points.is_full() {
            self.points.pop_front();
        }
        // There is room: the oldest was just dropped.
        let _ = self.points.push_back(best);
        if let (Some(&from), true) = (self.points.front(), self.points.len() >= 2) {
            self.fit(from, best);
        }
    }

    fn fit(&mut self, from: Point, to: Point) {
        if to.index > from.index && to.tick > from.tick {
            self.period = (to.tick - from.tick) as f64 / (to.index - from.index) as f64;
            self.measured = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_rate_some_percent_off_within_ten_ppm_from_jittered_observations() {
        for error in [-0.03f64, 0.0, 0.017] {
            let rate = 26_667.0 * (1.0 + error);
            let mut clock = SampleClock::new(26_666_667);
            let mut random = 12_345u32;
            let mut tick = 5_000.0;
            while tick < 120e6 {
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                // A read every 9.6 ms, delayed by up to 3 ms.
                tick += 9_600.0 + f64::from(random % 3_000);
                let newest = (tick * 1e-6 * rate).floor();
                clock.observe(newest as u64, tick as u64);
            }
            let measured = f64::from(clock.rate_mhz()) / 1000.0;
            assert!((measured / rate - 1.0).abs() < 10e-6, "{measured} against {rate}");
            let index = (119.0 * rate) as u64;
            let truth = index as f64 / rate * 1e6;
            assert!(
                (clock.tick_of(index) as f64 - truth).abs() < 40.0,
                "{} against {truth}",
                clock.tick_of(index)
            );
        }
    }

    #[test]
    fn says_zero_until_it_has_seen_a_second() {
        let mut clock = SampleClock::new(26_666_667);
        clock.observe(0, 0);
        clock.observe(13_333, 500_000);
        assert_eq!(clock.rate_mhz(), 0);
        clock.observe(26_933, 1_000_000);
        assert_eq!(clock.rate_mhz(), 26_933_000);
    }
}
