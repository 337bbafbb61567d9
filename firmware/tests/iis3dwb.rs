//! The IIS3DWB driver against the chip's model: identity, batches, overrun, rate, self-test, and faults on the bus.

#[path = "common/hand.rs"]
mod hand;

use embassy_futures::block_on;
use hand::Hand;
use spindle_firmware::clock::{TICK_HZ, Timebase};
use spindle_firmware::sensor::Sensor;
use spindle_firmware::sensor::iis3dwb::model::{Fault, Model};
use spindle_firmware::sensor::iis3dwb::{Config, Error, Iis3dwb};
use spindle_firmware::sensor::signal::Signal;

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

macro_rules! driver {
    ($chip:expr, $time:expr) => {
        Iis3dwb::new($chip.spi(), $chip.int1(), $time.clone(), Config::default())
    };
}

#[test]
fn frames_come_out_as_they_went_in_batch_after_batch() {
    let time = Hand::default();
    let chip = chip(&time, 0.02);
    let mut driver = driver!(chip, time);
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
        assert_eq!(driver.temperature().await.unwrap(), Some(2500));
    });
}

#[test]
fn an_overrun_is_counted_to_the_sample_and_what_follows_keeps_its_place() {
    for late_ms in [0, 8, 11, 25, 26, 27, 100, 10_000] {
        let time = Hand::default();
        let chip = chip(&time, -0.01);
        let mut driver = driver!(chip, time);
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

#[test]
fn another_chip_or_a_dead_line_is_told_from_the_right_one() {
    for (fault, wanted) in [
        (Fault::WrongId(0x6B), Error::WrongId { found: 0x6B }),
        (Fault::Stuck(0x00), Error::WrongId { found: 0x00 }),
        (Fault::Stuck(0xFF), Error::WrongId { found: 0xFF }),
    ] {
        let time = Hand::default();
        let chip = chip(&time, 0.0);
        chip.inject(Some(fault));
        let mut driver = driver!(chip, time);
        assert_eq!(block_on(driver.configure()), Err(wanted));
        chip.inject(None);
        assert_eq!(block_on(driver.configure()), Ok(()), "a mended chip starts");
    }
}

#[test]
fn a_line_that_sticks_in_mid_stream_is_noticed_and_nothing_is_made_of_it() {
    for level in [0x00, 0xFF] {
        let time = Hand::default();
        let chip = chip(&time, 0.0);
        let mut driver = driver!(chip, time);
        block_on(async {
            driver.configure().await.unwrap();
            driver.wait().await.unwrap();
            chip.inject(Some(Fault::Stuck(level)));
            let fetched = driver.fetch().await;
            assert_eq!(fetched, Err(if level == 0 { Error::Empty } else { Error::Garbled }));
            let mut frames = 0;
            driver.drain(|_| frames += 1);
            assert_eq!(frames, 0);
        });
    }
}

#[test]
fn a_flipped_bit_in_a_tag_is_an_error_and_not_a_sample() {
    let time = Hand::default();
    let chip = chip(&time, 0.0);
    let mut driver = driver!(chip, time);
    block_on(async {
        driver.configure().await.unwrap();
        driver.wait().await.unwrap();
        chip.inject(Some(Fault::Garble));
        assert_eq!(driver.fetch().await, Err(Error::Garbled));
    });
}

#[test]
fn a_chip_that_stops_sampling_is_noticed() {
    let time = Hand::default();
    let chip = chip(&time, 0.0);
    let mut driver = driver!(chip, time);
    block_on(async {
        driver.configure().await.unwrap();
        driver.wait().await.unwrap();
        driver.fetch().await.unwrap();
        chip.inject(Some(Fault::Frozen));
        assert_eq!(driver.wait().await, Err(Error::Silent));
    });
}

#[test]
fn the_self_test_passes_on_a_sound_part_and_fails_on_a_dead_one() {
    let time = Hand::default();
    let chip = Model::new(Still, time.clone(), 0.0);
    let mut driver = driver!(chip, time);
    let test = block_on(driver.self_test()).unwrap();
    assert!(test.passed && test.moved.iter().all(|moved| (moved - 15.69).abs() < 0.1), "{test:?}");
    chip.inject(Some(Fault::DeadSelfTest));
    assert!(!block_on(driver.self_test()).unwrap().passed);
}

struct Still;

impl Signal for Still {
    fn next(&mut self, _scale: f32) -> Option<[i16; 3]> {
        Some([0, 0, 8192])
    }
}
