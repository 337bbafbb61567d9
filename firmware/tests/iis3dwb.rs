//! The IIS3DWB driver against the chip's model: identity, batches, overrun, rate, self-test, and faults on the bus.

#[path = "common/hand.rs"]
mod hand;
#[path = "common/suite.rs"]
mod suite;

use embassy_futures::block_on;
use hand::Hand;
use spindle_firmware::clock::{TICK_HZ, Timebase};
use spindle_firmware::sensor::Sensor;
use spindle_firmware::sensor::iis3dwb::model::{Fault, Model};
use spindle_firmware::sensor::iis3dwb::{Config, Error, Iis3dwb};
use spindle_firmware::sensor::signal::Signal;
use suite::{Steady, driver, driver_suite};

/// Counts: sample n is (n, -n, n * 3) in 16 bits.
#[derive(Default)]
struct Counting(u16);

impl Signal for Counting {
    fn next(&mut self, _scale: f32) -> Option<[i16; 3]> {
        let n = self.0;
        self.0 = self.0.wrapping_add(1);
        Some(frame(n))
    }
}

fn frame(n: u16) -> [i16; 3] {
    [n.cast_signed(), n.wrapping_neg().cast_signed(), n.wrapping_mul(3).cast_signed()]
}

fn chip(time: &Hand, rate_error: f64) -> Model<Counting, Hand> {
    Model::new(Counting::default(), time.clone(), rate_error)
}

#[test]
fn frames_come_out_as_they_went_in_batch_after_batch() {
    let time = Hand::default();
    let chip = chip(&time, 0.02);
    let mut driver = driver!(Iis3dwb, chip, time);
    block_on(async {
        driver.configure().await.unwrap();
        let mut n = 0u16;
        for _ in 0..500 {
            driver.wait().await.unwrap();
            let batch = driver.fetch().await.unwrap();
            assert!(batch.frames > 200 && !batch.overrun && batch.lost == 0 && batch.newest_tick.is_some());
            driver.drain(|found| {
                assert_eq!(found, frame(n));
                n = n.wrapping_add(1);
            });
        }
        let info = driver.info();
        let trimmed = f64::from(info.rate_trimmed_mhz) / f64::from(info.rate_nominal_mhz);
        assert!((trimmed - 1.02).abs() < 0.001, "the trim register tells {trimmed}");
    });
}

#[test]
fn an_overrun_is_counted_to_the_sample_and_what_follows_keeps_its_place() {
    for late_ms in [0, 8, 11, 25, 26, 27, 100, 10_000] {
        let time = Hand::default();
        let chip = chip(&time, -0.01);
        let mut driver = driver!(Iis3dwb, chip, time);
        block_on(async {
            driver.configure().await.unwrap();
            let mut index = 0u64;
            let mut lost = 0;
            for round in 0..20 {
                driver.wait().await.unwrap();
                if round % 5 == 4 {
                    time.until(time.now() + late_ms * u64::from(TICK_HZ) / 1000).await;
                }
                loop {
                    let batch = driver.fetch().await.unwrap();
                    assert_eq!(batch.overrun, batch.lost > 0, "late by {late_ms} ms");
                    index += batch.lost;
                    lost += batch.lost;
                    driver.drain(|found| {
                        assert_eq!(found, frame(index as u16), "late by {late_ms} ms, index {index}");
                        index += 1;
                    });
                    if !batch.more {
                        break;
                    }
                }
            }
            assert_eq!(lost > 0, late_ms > 8, "late by {late_ms} ms");
        });
    }
}

driver_suite! {
    driver: Iis3dwb, sample: i16,
    wrong_id: 0x6B, found: u8::from,
    reads: 1,
    at_rest: [0, 0, 8192], moved: [15.69; 3], within: 0.1,
    beyond: [i16::MAX, i16::MIN, 5], cut: [i16::MAX, i16::MIN, 5], ends: [-32_768, 32_767],
    temperature: Some(2500),
}
