//! The ADXL345 driver against the chip's model: identity, batches, overrun, rate, self-test, bus faults.

#[path = "common/hand.rs"]
mod hand;

use embassy_futures::block_on;
use hand::{Hand, walk};
use spindle_firmware::acquire::SampleClock;
use spindle_firmware::clock::TICK_HZ;
use spindle_firmware::sensor::Sensor;
use spindle_firmware::sensor::adxl345::model::{Fault, Model};
use spindle_firmware::sensor::adxl345::{Adxl345, Config, Error, Supply};
use spindle_firmware::sensor::signal::Signal;

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

fn period(rate_error: f64) -> f64 {
    f64::from(TICK_HZ) / (3200.0 * (1.0 + rate_error))
}

macro_rules! driver {
    ($chip:expr, $time:expr) => {
        Adxl345::new($chip.spi(), $chip.int1(), $time.clone(), Config::default())
    };
}

#[test]
fn frames_come_out_as_they_went_in_and_the_rate_is_known_to_ten_ppm() {
    for error in [-0.03, 0.017] {
        let time = Hand::default();
        let chip = chip(&time, error);
        let mut driver = driver!(chip, time);
        // A minute.
        let walk = block_on(walk(&mut driver, &time, 15_000, (0, 0), period(error), number));
        assert!(walk.frames > 230_000, "{walk:?}");
        assert_eq!((walk.overruns, walk.lost), (0, 0));
        let rate = f64::from(walk.rate_mhz) / 3.2e6 / (1.0 + error);
        assert!((rate - 1.0).abs() < 10e-6, "{rate}");
    }
}

#[test]
fn an_overrun_is_a_gap_of_the_right_length_and_what_follows_keeps_its_place_in_time() {
    for late_ms in [1, 6, 7, 10, 100, 1_000, 10_000] {
        let time = Hand::default();
        let chip = chip(&time, 0.02);
        let mut driver = driver!(chip, time);
        let walk = block_on(walk(&mut driver, &time, 3_000, (1_000, late_ms * 1000), period(0.02), number));
        assert_eq!(walk.overruns, if late_ms < 5 { 0 } else { 20 }, "late by {late_ms} ms: {walk:?}");
        assert_eq!(walk.counted > 0, late_ms > 5, "late by {late_ms} ms: {walk:?}");
        // Each overrun may be off by a sample, and no more than that.
        assert!(walk.miscounted <= 3, "late by {late_ms} ms: {walk:?}");
        assert!(walk.off < 1.5, "late by {late_ms} ms: {walk:?}");
    }
}

#[test]
fn an_overrun_before_the_rate_is_known_leaves_no_shift_in_time() {
    let time = Hand::default();
    let chip = chip(&time, 0.02);
    let mut driver = driver!(chip, time);
    let walk = block_on(walk(&mut driver, &time, 2_000, (0, 0), period(0.02), number));
    assert!(walk.off < 1.5);
    let time = Hand::default();
    let chip = self::chip(&time, 0.02);
    let mut driver = driver!(chip, time);
    // Late by three seconds within the first, and never again.
    let late = block_on(hand::walk(&mut driver, &time, 150, (0, 3_000_000), period(0.02), number));
    assert_eq!(late.overruns, 1);
    // 2 % of three seconds is what the nominal rate is off by.
    assert!(late.miscounted.abs_diff(192) <= 2, "{late:?}");
    let rest = block_on(hand::walk(&mut driver, &time, 2_000, (2_000, 0), period(0.02), restarted));
    assert!(rest.off < 1.5, "{rest:?}");
}

/// After a second `configure` the source goes on counting, but the chip's own samples start at zero.
fn restarted(_found: &[i16], about: u64) -> u64 {
    about
}

#[test]
fn another_chip_or_a_dead_line_is_told_from_the_right_one() {
    for (fault, found) in
        [(Fault::WrongId(0xE6), 0xE6), (Fault::Stuck(0x00), 0x00), (Fault::Stuck(0xFF), 0xFF)]
    {
        let time = Hand::default();
        let chip = chip(&time, 0.0);
        chip.inject(Some(fault));
        let mut driver = driver!(chip, time);
        assert_eq!(block_on(driver.configure()), Err(Error::WrongId { found }));
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
fn a_bit_that_no_thirteen_bit_number_has_is_an_error_and_not_a_sample() {
    let time = Hand::default();
    let chip = chip(&time, 0.0);
    let mut driver = driver!(chip, time);
    block_on(async {
        driver.configure().await.unwrap();
        driver.wait().await.unwrap();
        chip.inject(Some(Fault::Garble));
        assert_eq!(driver.fetch().await, Err(Error::Garbled));
        let mut frames = 0;
        driver.drain(|_| frames += 1);
        assert_eq!(frames, 0);
        driver.configure().await.unwrap();
        driver.wait().await.unwrap();
        assert_eq!(driver.fetch().await.unwrap().frames, 16, "it goes on after a new start");
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

struct Steady([i16; 3]);

impl Signal for Steady {
    fn next(&mut self, _scale: f32) -> Option<[i16; 3]> {
        Some(self.0)
    }
}

#[test]
fn the_self_test_passes_on_a_sound_part_and_fails_on_a_dead_one() {
    let time = Hand::default();
    let chip = Model::new(Steady([0, 0, 256]), time.clone(), 0.0);
    let mut driver = driver!(chip, time);
    let test = block_on(driver.self_test()).unwrap();
    assert!(test.passed, "{test:?}");
    for (moved, wanted) in test.moved.iter().zip([14.71, -14.71, 24.52]) {
        assert!((moved - wanted).abs() < 0.04, "{test:?}");
    }
    chip.inject(Some(Fault::DeadSelfTest));
    assert!(!block_on(driver.self_test()).unwrap().passed);
}

#[test]
fn what_is_beyond_thirteen_bits_is_cut_off_at_the_ends_that_the_driver_tells() {
    let time = Hand::default();
    let chip = Model::new(Steady([30_000, -30_000, 7]), time.clone(), 0.0);
    let mut driver = driver!(chip, time);
    block_on(async {
        driver.configure().await.unwrap();
        driver.wait().await.unwrap();
        driver.fetch().await.unwrap();
        // The lowest bit is 0 at this rate, at the upper end too.
        driver.drain(|frame| assert_eq!(frame, [4094, -4096, 6]));
        assert_eq!(driver.temperature().await, Ok(None), "it has no thermometer");
    });
    assert_eq!(driver.info().ends, [-4096, 4094]);
}

#[test]
fn the_self_test_limits_follow_the_supply() {
    let time = Hand::default();
    let chip = Model::new(Steady([0, 0, 256]), time.clone(), 0.0);
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
    let mut driver = driver!(chip, time);
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
