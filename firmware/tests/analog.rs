//! The driver of analog sensors against the model of a converter with its DMA: conversion, overrun, rate, self-test, faults.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "common/hand.rs"]
mod hand;

use embassy_futures::block_on;
use hand::{Hand, walk};
use spindle_common::settings::{Step, TriggerSettings};
use spindle_common::wire::Encoding;
use spindle_firmware::clock::TICK_HZ;
use spindle_firmware::config::SensorConfig;
use spindle_firmware::sensor::Sensor;
use spindle_firmware::sensor::analog::model::{HALF_FRAMES, Model, SELF_TEST_MOVE};
use spindle_firmware::sensor::analog::{Analog, Error};
use spindle_firmware::sensor::model::Fault;
use spindle_firmware::sensor::signal::{Signal, Spindle};

const RATE_HZ: f64 = 50_000.0;

fn config(axes: &'static str, bits: u8) -> SensorConfig {
    SensorConfig {
        name: "tool",
        model: "adxl1002",
        axes,
        port: None,
        full_scale_g: 50.0,
        scale: 125.0 / f32::from(1u16 << (bits - 5)) * 9.80665 / 32.0,
        bits,
        spi_mode: 0,
        spi_hz_max: 0,
        adc_self_test: Some([4.0 * 9.80665, 6.0 * 9.80665]),
        rate_nominal_mhz: 50_000_000,
        block_samples: 512,
        encoding: Encoding::Raw16,
        step: Step::Raw,
        may_degrade: false,
        decimation: 8,
        trigger: TriggerSettings::default(),
    }
}

/// Counts: the channels of sample n tell n, eleven bits each.
#[derive(Default)]
struct Counting(u64);

impl Signal<i32> for Counting {
    fn next(&mut self, _scale: f32) -> Option<[i32; 3]> {
        self.0 += 1;
        Some(frame(self.0 - 1))
    }
}

fn frame(n: u64) -> [i32; 3] {
    [n, n >> 11, n >> 22].map(|part| (part & 0x7FF) as i32 - 1024)
}

fn number(found: &[i16], _about: u64) -> u64 {
    let part = |at: usize| u64::try_from(found[at] + 1024).unwrap();
    part(0) | part(1) << 11 | part(2) << 22
}

macro_rules! driver {
    ($model:expr, $config:expr) => {
        Analog::<_, { 3 * HALF_FRAMES }>::new(&$model, &$config)
    };
}

#[test]
fn every_conversion_comes_out_about_mid_scale_and_the_rate_is_known_to_ten_ppm() {
    for (error, bits) in [(-0.03, 12), (0.017, 16)] {
        let (time, config) = (Hand::default(), config("xyz", bits));
        let model = Model::new(Counting::default(), time.clone(), &config, error);
        let mut driver = driver!(model, config);
        let period = f64::from(TICK_HZ) / (RATE_HZ * (1.0 + error));
        // A quarter of a minute.
        let walk = block_on(walk(&mut driver, &time, 3_000, (0, 0), period, number));
        assert_eq!((walk.frames, walk.overruns, walk.lost), (3_000 * HALF_FRAMES as u64, 0, 0));
        let rate = f64::from(walk.rate_mhz) / 5e7 / (1.0 + error);
        assert!((rate - 1.0).abs() < 10e-6, "{rate}");
    }
}

#[test]
fn an_overrun_is_a_gap_of_the_right_length_and_what_follows_keeps_its_place_in_time() {
    for late_us in [1_000, 6_000, 11_000, 100_000, 1_000_000] {
        let (time, config) = (Hand::default(), config("xyz", 12));
        let model = Model::new(Counting::default(), time.clone(), &config, 0.02);
        let mut driver = driver!(model, config);
        let period = f64::from(TICK_HZ) / (RATE_HZ * 1.02);
        let walk = block_on(walk(&mut driver, &time, 1_500, (700, late_us), period, number));
        // A half must be taken before the other is full, 5 ms later.
        assert_eq!(walk.overruns > 0, late_us > 5_000, "late by {late_us} us: {walk:?}");
        assert_eq!(walk.lost > 0, late_us > 5_000, "late by {late_us} us: {walk:?}");
        assert!(walk.miscounted == 0 && walk.off < 2.5, "late by {late_us} us: {walk:?}");
    }
}

#[test]
fn the_self_test_passes_on_a_sound_part_fails_on_a_dead_one_and_is_refused_without_limits() {
    let (time, mut config) = (Hand::default(), config("z", 12));
    {
        let model = Model::new(Counting(0), time.clone(), &config, 0.0);
        let mut driver = driver!(model, config);
        let test = block_on(driver.self_test()).unwrap();
        assert!(test.passed && (test.moved[0] - SELF_TEST_MOVE).abs() < 10.0, "{test:?}");
        model.inject(Some(Fault::DeadSelfTest));
        assert!(!block_on(driver.self_test()).unwrap().passed);
    }
    config.adc_self_test = None;
    let model = Model::new(Counting(0), time, &config, 0.0);
    assert_eq!(block_on(driver!(model, config).self_test()), Err(Error::NoSelfTest));
}

#[test]
fn a_converter_that_stands_still_or_gives_what_it_cannot_is_noticed() {
    let (time, config) = (Hand::default(), config("z", 12));
    let model = Model::new(Counting(0), time.clone(), &config, 0.0);
    let mut driver = driver!(model, config);
    block_on(async {
        driver.configure().await.unwrap();
        driver.wait().await.unwrap();
        assert_eq!(driver.fetch().await.unwrap().frames, HALF_FRAMES);
        model.inject(Some(Fault::Stuck(0xFF)));
        driver.wait().await.unwrap();
        assert_eq!(driver.fetch().await, Err(Error::Width { count: 0xFFFF }));
        let mut frames = 0;
        driver.drain(|_| frames += 1);
        assert_eq!(frames, 0);
        model.inject(Some(Fault::Frozen));
        assert_eq!(driver.wait().await, Err(Error::Silent));
        model.inject(None);
        let mut short = Analog::<_, 100>::new(&model, &config);
        short.configure().await.unwrap();
        short.wait().await.unwrap();
        assert_eq!(short.fetch().await, Err(Error::Shape { counts: HALF_FRAMES }));
    });
}

#[test]
fn an_open_input_shows_as_saturation_at_the_end_that_the_driver_tells() {
    let (time, config) = (Hand::default(), config("z", 12));
    let model = Model::new(Counting(0), time, &config, 0.0);
    model.inject(Some(Fault::Stuck(0)));
    let mut driver = driver!(model, config);
    block_on(async {
        driver.configure().await.unwrap();
        driver.wait().await.unwrap();
        driver.fetch().await.unwrap();
        let ends = driver.info().ends;
        assert_eq!(ends, [-2048, 2047]);
        driver.drain(|frame| assert_eq!([i32::from(frame[0])], [ends[0]]));
    });
}

#[test]
fn a_sine_with_noise_keeps_its_level_through_the_converter() {
    let (time, config) = (Hand::default(), config("xyz", 12));
    let spindle = Spindle {
        rate_hz: RATE_HZ as f32,
        unbalance: 100.0,
        noise: 1.0,
        gravity_g: [0.0; 3],
        ..Spindle::default()
    };
    let model = Model::new(spindle.start(), time, &config, 0.0);
    let mut driver = driver!(model, config);
    let (mut sum, mut frames) = (0f64, 0u32);
    block_on(async {
        driver.configure().await.unwrap();
        while frames < 30_000 {
            driver.wait().await.unwrap();
            driver.fetch().await.unwrap();
            driver.drain(|frame| {
                sum += (f64::from(frame[1]) * f64::from(config.scale)).powi(2);
                frames += 1;
            });
        }
    });
    let rms = (sum / f64::from(frames)).sqrt();
    assert!((rms - 70.72).abs() < 0.2, "{rms}");
}
