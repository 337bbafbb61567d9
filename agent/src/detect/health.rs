//! A health trend: how far a level has risen above the best that the machine ever showed.
//!
//! Per axis, the [`MEDIAN`] of the last windows is compared with the lowest such median so far, in dB; the trend is the largest
//! rise of any axis. The lowest, not the first, because new bearings run in: they get quieter before they get louder. So it needs
//! no date when all was well, and it never learns a slow fault as normal. [`WOBBLES`] times what single windows differed from their
//! median by while learning is taken off: a level that is restless by itself must rise further.
//!
//! The level is to be of one way of running: gate it by state and speed, and keep one trend for each, or a machine at rest becomes
//! "the best". It is [`Rise::LEVELS_DB`] for everything; a limit in mm/s is another rule.

use serde::{Deserialize, Serialize};
use spindle_common::dsp::LANES;

/// Windows that a median is taken of: one odd window, or three, do nothing.
pub const MEDIAN: usize = 7;

/// Windows before there is an answer.
pub const LEARNING: u64 = 30;

/// How many mean deviations of a window from its median are no rise.
const WOBBLES: f64 = 3.0;

/// One sensor's trend in one way of running.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    windows: u64,
    /// Levels of the last windows, dB, oldest replaced first.
    recent_db: [[f64; LANES]; MEDIAN],
    lowest_db: [f64; LANES],
    /// Sum of the deviations while learning, dB.
    wobble_db: [f64; LANES],
}

/// A trend's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rise {
    /// Above the lowest median so far and the level's own wobble, dB; 0 or more.
    pub db: f64,
    /// Index of the axis that rose most.
    pub axis: usize,
}

impl Rise {
    /// Rises that warn and alarm, dB: to 1.6 and 2.5 times the best.
    pub const LEVELS_DB: [f64; 2] = [4.0, 8.0];
}

impl Health {
    /// Takes the next window's RMS per axis, any unit, the first four axes; nothing while learning. A window with a value that is
    /// not above zero is left out.
    pub fn push(&mut self, rms: &[f64]) -> Option<Rise> {
        let axes = rms.len().min(LANES);
        // Also false for what is not a number.
        if axes == 0 || !rms.iter().take(axes).all(|value| *value > 0.0 && value.is_finite()) {
            return None;
        }
        let slot = &mut self.recent_db[(self.windows % MEDIAN as u64) as usize];
        for (level, value) in slot.iter_mut().zip(rms) {
            *level = 20.0 * libm::log10(*value);
        }
        let newest = *slot;
        self.windows += 1;
        if self.windows < MEDIAN as u64 {
            return None;
        }
        let first = self.windows == MEDIAN as u64;
        let mut most = Rise { db: 0.0, axis: 0 };
        for axis in 0..axes {
            let mut levels = self.recent_db.map(|window| window[axis]);
            let median = *levels.select_nth_unstable_by(MEDIAN / 2, f64::total_cmp).1;
            let lowest = &mut self.lowest_db[axis];
            *lowest = if first { median } else { lowest.min(median) };
            if self.windows <= LEARNING {
                self.wobble_db[axis] += (newest[axis] - median).abs();
            }
            let wobble = self.wobble_db[axis] / (LEARNING - MEDIAN as u64 + 1) as f64;
            let db = median - *lowest - WOBBLES * wobble;
            if db > most.db {
                most = Rise { db, axis };
            }
        }
        (self.windows >= LEARNING).then_some(most)
    }

    /// Whether there is no answer yet: this is not "fine".
    #[must_use]
    pub fn is_learning(&self) -> bool {
        self.windows < LEARNING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level that wobbles by some percent.
    fn steady(window: usize) -> f64 {
        1.0 + 0.05 * ((window * 7 % 11) as f64 - 5.0) / 5.0
    }

    #[test]
    fn steady_running_stays_below_the_warning() {
        let mut health = Health::default();
        for window in 0..500 {
            let rise = health.push(&[steady(window), 0.2 * steady(window + 3)]);
            assert_eq!(rise.is_none(), window + 1 < LEARNING as usize);
            assert!(rise.is_none_or(|rise| rise.db < 1.0), "{rise:?}");
        }
    }

    #[test]
    fn a_rise_is_measured_from_the_best_after_running_in() {
        let mut health = Health::default();
        for window in 0..100 {
            health.push(&[3.0 * steady(window), 1.0]);
        }
        for window in 0..100 {
            let rise = health.push(&[steady(window), 1.0]).expect("has learned");
            assert!(window < MEDIAN || rise.db < 1.0, "{rise:?}");
        }
        let mut last = None;
        for window in 0..MEDIAN {
            last = health.push(&[2.0 * steady(window), 1.0]);
        }
        let rise = last.expect("has learned");
        // Twice is 6 dB; some of it is the level's own wobble of 5 %.
        assert!(rise.axis == 0 && (4.5..6.0).contains(&rise.db), "{rise:?}");
    }

    #[test]
    fn a_restless_level_must_rise_further() {
        let rise_of = |spread: f64| {
            let mut health = Health::default();
            let level = |window: usize| 10.0_f64.powf(spread * (steady(window) - 1.0));
            for window in 0..100 {
                health.push(&[level(window)]);
            }
            (0..MEDIAN)
                .filter_map(|window| health.push(&[2.0 * level(window)]))
                .last()
                .expect("has learned")
                .db
        };
        let (calm, restless) = (rise_of(0.2), rise_of(2.0));
        assert!(calm > 5.5 && restless < 4.5, "{calm} {restless}");
    }

    #[test]
    fn three_odd_windows_do_nothing() {
        let mut health = Health::default();
        for window in 0..200 {
            let odd = (100..103).contains(&window);
            let rise = health.push(&[if odd { 50.0 } else { steady(window) }]);
            assert!(rise.is_none_or(|rise| rise.db < 1.0), "window {window}: {rise:?}");
        }
    }

    #[test]
    fn a_window_without_a_value_is_left_out() {
        let mut health = Health::default();
        for window in 0..50 {
            health.push(&[steady(window)]);
        }
        let before = health.clone();
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(health.push(&[value]), None);
        }
        assert_eq!(health.push(&[]), None);
        assert_eq!(health, before);
    }
}
