//! The ADXL355 driver against the chip's model: identity, batches, overrun, rate, self-test, temperature, bus faults.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "common/hand.rs"]
mod hand;
#[path = "common/suite.rs"]
mod suite;

use embassy_futures::block_on;
use hand::{Hand, walk};
use spindle_firmware::sensor::Sensor;
use spindle_firmware::sensor::adxl355::model::{Fault, Model};
use spindle_firmware::sensor::adxl355::{Adxl355, Config, Error};
use spindle_firmware::sensor::signal::Signal;
use suite::{Steady, by_ticks_suite, driver, driver_suite};

/// Counts: sample n is (n, -n, n * 3) in 20 bits.
#[derive(Default)]
struct Counting(u64);

impl Signal<i32> for Counting {
    fn next(&mut self, _scale: f32) -> Option<[i32; 3]> {
        self.0 += 1;
        Some(frame(self.0 - 1))
    }
}

fn frame(n: u64) -> [i32; 3] {
    let wrapped = |value: u64| (value as i32) << 12 >> 12;
    [wrapped(n), wrapped(n.wrapping_neg()), wrapped(n.wrapping_mul(3))]
}

/// The number at or after `about` of which this is the frame.
fn number(found: &[i32], about: u64) -> u64 {
    let n = about + (u64::from((found[0] as u32).wrapping_sub(about as u32)) & 0xF_FFFF);
    assert_eq!(found, frame(n));
    n
}

fn chip(time: &Hand, rate_error: f64) -> Model<Counting, Hand> {
    Model::new(Counting::default(), time.clone(), rate_error)
}

/// The part has three bytes of id.
fn three(byte: u8) -> [u8; 3] {
    [byte; 3]
}

driver_suite! {
    driver: Adxl355, sample: i32,
    wrong_id: 0x1C, found: three,
    // Reading STATUS again lets the pin fall.
    reads: 2,
    at_rest: [0, 0, 64_000], moved: [2.94, 2.94, 14.71], within: 0.02,
    beyond: [9_000_000, -9_000_000, 5], cut: [524_287, -524_288, 5], ends: [-524_288, 524_287],
    temperature: Some(2500),
}

by_ticks_suite! {
    driver: Adxl355, sample: i32, chip: chip, number: number,
    rate_hz: 4000.0,
    // Every second round is the one that lets the pin fall.
    rounds: 30_000,
    overruns: [(1, 0..=0), (5, 19..=20), (6, 19..=20), (10, 19..=20), (100, 19..=20), (1_000, 19..=20), (10_000, 19..=20)],
}
