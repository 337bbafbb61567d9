//! Time that moves when someone waits, or by hand, and what every driver's tests do with it.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use spindle_firmware::acquire::SampleClock;
use spindle_firmware::clock::{TICK_HZ, Timebase};
use spindle_firmware::sensor::Sensor;
use std::cell::Cell;
use std::rc::Rc;

#[derive(Clone, Default)]
pub(crate) struct Hand(Rc<Cell<u64>>);

impl Timebase for Hand {
    fn now(&self) -> u64 {
        self.0.get()
    }

    async fn until(&self, tick: u64) {
        self.0.set(self.0.get().max(tick));
    }
}

impl Hand {
    pub(crate) fn pass_us(&self, us: u64) {
        self.0.set(self.0.get() + us * u64::from(TICK_HZ) / 1_000_000);
    }
}

/// What a walk along a sensor's samples has found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Frames seen.
    pub(crate) frames: u64,
    /// Overruns that the driver told.
    pub(crate) overruns: u64,
    /// Frames lost, as they were counted.
    pub(crate) counted: u64,
    /// Frames lost in truth.
    pub(crate) lost: u64,
    /// How far the count at an overrun was off at most.
    pub(crate) miscounted: u64,
    /// How far the tick of a sample was off at most, in samples.
    pub(crate) off: f64,
    pub(crate) rate_mhz: u32,
}

/// Runs a sensor as `acquire` does, late by `late_us` in every hundredth round (but never in the first `calm` rounds), and
/// compares its samples, their count and their ticks with the truth. `number` tells a frame's true number from its values and
/// what it should be about; `period` is the part's own, in ticks; sampling starts at `configure`.
pub(crate) async fn walk<S: Sensor>(
    driver: &mut S,
    time: &Hand,
    rounds: u32,
    (calm, late_us): (u32, u64),
    period: f64,
    number: impl Fn(&[S::Sample], u64) -> u64,
) -> Walk {
    driver.configure().await.unwrap();
    let started = time.now();
    let mut clock = SampleClock::new(driver.info().rate_nominal_mhz);
    let mut walk = Walk::default();
    let (mut index, mut next) = (0u64, 0u64);
    for round in 0..rounds {
        driver.wait().await.unwrap();
        if round >= calm && round % 100 == 99 {
            time.pass_us(late_us);
        }
        let batch = driver.fetch().await.unwrap();
        if batch.overrun || batch.lost > 0 {
            assert!(batch.uncounted || batch.lost > 0, "an overrun is counted, by the chip or by the ticks");
            let counted = clock.lost(&batch, index);
            index += counted;
            walk.counted += counted;
            walk.overruns += 1;
        }
        if let Some(tick) = batch.newest_tick {
            clock.observe(index + batch.frames as u64 - 1, tick);
        }
        let before = index;
        driver.drain(|frame| {
            let truth = number(frame, next);
            assert!(truth >= next, "frame {truth} came twice");
            if batch.overrun && index == before {
                walk.lost += truth - next;
            } else {
                assert_eq!(truth, next, "a frame is missing and no overrun was told");
            }
            next = truth + 1;
            let real = started as f64 + next as f64 * period;
            if clock.rate_mhz() > 0 {
                walk.off = walk.off.max((clock.tick_of(index) as f64 - real).abs() / period);
            }
            index += 1;
            walk.frames += 1;
        });
        walk.miscounted = walk.miscounted.max(walk.counted.abs_diff(walk.lost));
        assert_eq!(index - before, batch.frames as u64);
    }
    walk.rate_mhz = clock.rate_mhz();
    walk
}
