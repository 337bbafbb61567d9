//! The cases that every SPI driver has to pass against its chip's model (`driver_suite!`), and those of chips that do not count
//! what they lose (`by_ticks_suite!`). Where they are called there are the driver's `Config` and `Error`, its model's `Fault` and
//! `Model`, `block_on`, `Hand`, `Sensor` and `Steady`.
#![allow(unused_macros, unused_imports, reason = "each test binary uses its own part")]

use spindle_firmware::sensor::Sample;
use spindle_firmware::sensor::signal::Signal;

/// The same sample for ever.
pub(crate) struct Steady<S>(pub(crate) [S; 3]);

impl<S: Sample> Signal<S> for Steady<S> {
    fn next(&mut self, _scale: f32) -> Option<[S; 3]> {
        Some(self.0)
    }
}

/// A driver with its default configuration on a model.
macro_rules! driver {
    ($driver:ident, $chip:expr, $time:expr) => {
        $driver::new($chip.spi(), $chip.int1(), $time.clone(), Config::default())
    };
}
pub(crate) use driver;

/// Identity, faults on the bus, self-test, ends and thermometer.
macro_rules! driver_suite {
    (
        driver: $driver:ident, sample: $sample:ty,
        // An id that is another chip's, and what the error tells of a byte that was read in its place.
        wrong_id: $wrong_id:expr, found: $found:expr,
        // Reads of the FIFO after an interrupt until the pin falls.
        reads: $reads:expr,
        // At rest with 1 g along z; how far the self-test moves it, m/s², and how exactly that is known.
        at_rest: $at_rest:expr, moved: $moved:expr, within: $within:expr,
        // A signal at or beyond the range, what comes of it, and the ends that the driver tells.
        beyond: $beyond:expr, cut: $cut:expr, ends: $ends:expr,
        temperature: $temperature:expr $(,)?
    ) => {
        fn steady(time: &Hand, sample: [$sample; 3]) -> Model<Steady<$sample>, Hand> {
            Model::new(Steady(sample), time.clone(), 0.0)
        }

        #[test]
        fn another_chip_or_a_dead_line_is_told_from_the_right_one() {
            for (fault, read) in
                [(Fault::WrongId($wrong_id), $wrong_id), (Fault::Stuck(0), 0), (Fault::Stuck(0xFF), 0xFF)]
            {
                let time = Hand::default();
                let chip = steady(&time, $at_rest);
                chip.inject(Some(fault));
                let mut driver = driver!($driver, chip, time);
                assert_eq!(block_on(driver.configure()), Err(Error::WrongId { found: $found(read) }));
                chip.inject(None);
                assert_eq!(block_on(driver.configure()), Ok(()), "a mended chip starts");
            }
        }

        #[test]
        fn a_line_that_sticks_in_mid_stream_is_noticed_and_nothing_is_made_of_it() {
            for (level, wanted) in [(0x00, Error::Empty), (0xFF, Error::Garbled)] {
                let time = Hand::default();
                let chip = steady(&time, $at_rest);
                let mut driver = driver!($driver, chip, time);
                block_on(async {
                    driver.configure().await.unwrap();
                    driver.wait().await.unwrap();
                    chip.inject(Some(Fault::Stuck(level)));
                    assert_eq!(driver.fetch().await, Err(wanted));
                    driver.drain(|frame| panic!("{frame:?} was made of a stuck line"));
                });
            }
        }

        #[test]
        fn a_flipped_bit_is_an_error_and_not_a_sample_and_a_new_start_goes_on() {
            let time = Hand::default();
            let chip = steady(&time, $at_rest);
            let mut driver = driver!($driver, chip, time);
            block_on(async {
                driver.configure().await.unwrap();
                driver.wait().await.unwrap();
                chip.inject(Some(Fault::Garble));
                assert_eq!(driver.fetch().await, Err(Error::Garbled));
                driver.drain(|frame| panic!("{frame:?} was made of a garbled word"));
                driver.configure().await.unwrap();
                driver.wait().await.unwrap();
                assert!(driver.fetch().await.unwrap().frames >= 16);
            });
        }

        #[test]
        fn a_chip_that_stops_sampling_is_noticed() {
            let time = Hand::default();
            let chip = steady(&time, $at_rest);
            let mut driver = driver!($driver, chip, time);
            block_on(async {
                driver.configure().await.unwrap();
                driver.wait().await.unwrap();
                for _ in 0..$reads {
                    driver.fetch().await.unwrap();
                }
                chip.inject(Some(Fault::Frozen));
                assert_eq!(driver.wait().await, Err(Error::Silent));
            });
        }

        #[test]
        fn the_self_test_passes_on_a_sound_part_and_fails_on_a_dead_one() {
            let time = Hand::default();
            let chip = steady(&time, $at_rest);
            let mut driver = driver!($driver, chip, time);
            let test = block_on(driver.self_test()).unwrap();
            assert!(test.passed, "{test:?}");
            let moved: [f32; 3] = $moved;
            for (found, wanted) in test.moved.iter().zip(moved) {
                assert!((found - wanted).abs() < $within, "{test:?}");
            }
            chip.inject(Some(Fault::DeadSelfTest));
            assert!(!block_on(driver.self_test()).unwrap().passed);
        }

        #[test]
        fn what_is_beyond_the_range_is_cut_off_at_the_ends_that_the_driver_tells() {
            let time = Hand::default();
            let chip = steady(&time, $beyond);
            let mut driver = driver!($driver, chip, time);
            block_on(async {
                driver.configure().await.unwrap();
                driver.wait().await.unwrap();
                assert!(driver.fetch().await.unwrap().frames > 0);
                driver.drain(|frame| assert_eq!(frame, $cut));
                assert_eq!(driver.info().ends, $ends);
                assert_eq!(driver.temperature().await, Ok($temperature));
            });
        }
    };
}
pub(crate) use driver_suite;

/// Rate and overruns of a chip without timestamps, from the board's ticks. `$chip` gives a model that counts its samples, `$number`
/// the number that a frame tells.
macro_rules! by_ticks_suite {
    (
        driver: $driver:ident, sample: $sample:ty, chip: $chip:path, number: $number:path,
        rate_hz: $rate_hz:expr,
        // Rounds in a minute.
        rounds: $rounds:expr,
        // By how late a round is, ms: how many overruns that makes in twenty.
        overruns: $overruns:expr $(,)?
    ) => {
        fn period(rate_error: f64) -> f64 {
            f64::from(spindle_firmware::clock::TICK_HZ) / ($rate_hz * (1.0 + rate_error))
        }

        /// After a second `configure` the source goes on counting, but the chip's own samples start at zero.
        fn restarted(_found: &[$sample], about: u64) -> u64 {
            about
        }

        #[test]
        fn frames_come_out_as_they_went_in_and_the_rate_is_known_to_ten_ppm() {
            for error in [-0.03, 0.017] {
                let time = Hand::default();
                let chip = $chip(&time, error);
                let mut driver = driver!($driver, chip, time);
                let walk = block_on(walk(&mut driver, &time, $rounds, (0, 0), period(error), $number));
                assert!(walk.frames > 230_000, "{walk:?}");
                assert_eq!((walk.overruns, walk.lost), (0, 0));
                let rate = f64::from(walk.rate_mhz) / ($rate_hz * 1000.0) / (1.0 + error);
                assert!((rate - 1.0).abs() < 10e-6, "{rate}");
            }
        }

        #[test]
        fn an_overrun_is_a_gap_of_the_right_length_and_what_follows_keeps_its_place_in_time() {
            for (late_ms, wanted) in $overruns {
                let time = Hand::default();
                let chip = $chip(&time, 0.02);
                let mut driver = driver!($driver, chip, time);
                let late = (1_000, late_ms * 1000);
                let walk = block_on(walk(&mut driver, &time, 3_000, late, period(0.02), $number));
                assert!(wanted.contains(&walk.overruns), "late by {late_ms} ms: {walk:?}");
                assert_eq!(walk.counted > 0, walk.overruns > 0, "late by {late_ms} ms: {walk:?}");
                // Each overrun may be off by a sample, and no more than that.
                assert!(walk.miscounted <= 3 && walk.off < 1.5, "late by {late_ms} ms: {walk:?}");
            }
        }

        #[test]
        fn an_overrun_before_the_rate_is_known_leaves_no_shift_in_time() {
            let time = Hand::default();
            let chip = $chip(&time, 0.02);
            let mut driver = driver!($driver, chip, time);
            let calm = block_on(walk(&mut driver, &time, 2_000, (0, 0), period(0.02), $number));
            assert!(calm.off < 1.5, "{calm:?}");
            let time = Hand::default();
            let chip = $chip(&time, 0.02);
            let mut driver = driver!($driver, chip, time);
            // Late by three seconds within the first, and never again.
            let late = block_on(walk(&mut driver, &time, 150, (0, 3_000_000), period(0.02), $number));
            assert_eq!(late.overruns, 1);
            // 2 % of three seconds is what the nominal rate is off by.
            let off = 0.02 * 3.0 * $rate_hz;
            assert!((late.miscounted as f64 - off).abs() <= 2.0, "{late:?}");
            let rest = block_on(walk(&mut driver, &time, 2_000, (2_000, 0), period(0.02), restarted));
            assert!(rest.off < 1.5, "{rest:?}");
        }
    };
}
pub(crate) use by_ticks_suite;
