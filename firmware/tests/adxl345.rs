//! The ADXL345 driver against the chip's model: identity, batches, overrun, rate, self-test, bus faults.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "common/hand.rs"]
mod hand;
#[path = "common/suite.rs"]
mod suite;

use embassy_futures::block_on;
use hand::{Hand, walk};
use spindle_firmware::acquire::SampleClock;
use spindle_firmware::sensor::Sensor;
use spindle_firmware::sensor::adxl345::model::{Fault, Model};
use spindle_firmware::sensor::adxl345::{Adxl345, Config, Error, Supply};
use spindle_firmware::sensor::signal::Signal;
use suite::{Steady, by_ticks_suite, driver, driver_suite};

/// Counts: the three axes of sample n tell n up to 2^33, eleven bits each, as even numbers.
#[derive(Default)]
struct Counting(u64);

impl Signal for Counting {
    fn next(&mut self, _scale: f32) -> Option<[i16; 3]> {
        self.0 += 1;
        Some(frame(self.0 - 1))
    }
}

fn frame(n: u64) -> [i16; 3] {
    [n, n >> 11, n >> 22].map(|part| (part & 0x7FF) as i16 * 2 - 2048)
}

/// The number of which this is the frame.
fn number(found: &[i16], _about: u64) -> u64 {
    let part = |at: usize| u64::try_from((found[at] + 2048) / 2).unwrap();
    part(0) | part(1) << 11 | part(2) << 22
}

fn chip(time: &Hand, rate_error: f64) -> Model<Counting, Hand> {
    Model::new(Counting::default(), time.clone(), rate_error)
}

driver_suite! {
    driver: Adxl345, sample: i16,
    wrong_id: 0xE6, found: u8::from,
    reads: 1,
    at_rest: [0, 0, 256], moved: [14.71, -14.71, 24.52], within: 0.04,
    // Thirteen bits, of which the lowest is 0 at this rate, at the upper end too.
    beyond: [30_000, -30_000, 7], cut: [4094, -4096, 6], ends: [-4096, 4094],
    temperature: None,
}

by_ticks_suite! {
    driver: Adxl345, sample: i16, chip: chip, number: number,
    rate_hz: 3200.0,
    rounds: 15_000,
    overruns: [(1, 0..=0), (6, 20..=20), (7, 20..=20), (10, 20..=20), (100, 20..=20), (1_000, 20..=20), (10_000, 20..=20)],
}

#[test]
fn the_self_test_limits_follow_the_supply() {
    let time = Hand::default();
    let chip = steady(&time, [0, 0, 256]);
    let config = Config { supply: Supply::V2_5, ..Config::default() };
    let mut driver = Adxl345::new(chip.spi(), chip.int1(), time.clone(), config);
    let test = block_on(driver.self_test()).unwrap();
    let [_, y, z] = test.limits;
    assert!((y[0] + 2.1 * 9.80665).abs() < 1e-3 && (z[1] - 3.4 * 9.80665).abs() < 1e-3, "{test:?}");
}

#[test]
fn a_fifo_that_just_filled_has_lost_nothing_and_no_frame_is_read_twice() {
    let time = Hand::default();
    let chip = chip(&time, 0.0);
    let mut driver = driver!(Adxl345, chip, time);
    block_on(async {
        driver.configure().await.unwrap();
        let mut next = 0;
        let mut clock = SampleClock::new(3_200_000);
        for _ in 0..1_000 {
            driver.wait().await.unwrap();
            // Sixteen samples more: the FIFO is full to the last place.
            time.pass_us(5_000);
            let batch = driver.fetch().await.unwrap();
            assert_eq!((batch.frames, batch.overrun, clock.lost(&batch, next)), (32, true, 0));
            clock.observe(next + 31, batch.newest_tick.unwrap());
            driver.drain(|found| {
                assert_eq!(number(found, next), next);
                next += 1;
            });
            assert_eq!(driver.fetch().await.unwrap().frames, 0, "nothing is left, nothing is repeated");
        }
    });
}
