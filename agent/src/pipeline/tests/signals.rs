//! Closed-form signals, and the traps that VIBRATION handbooks warn of.

use super::*;
use std::f64::consts::{PI, SQRT_2};

const G: f64 = 9.806_65;

fn sine(hz: f64, amplitude: f64) -> impl Fn(f64) -> f64 {
    move |t| amplitude * (2.0 * PI * hz * t).sin()
}

/// A board with 24 bits, so that quantisation is not what a test measures.
fn fine_board() -> Board {
    Board { bits: 24, scale: 1e-4, ..Board::new() }
}

fn windows(board: &Board, seconds: u64, axes: &[&dyn Fn(f64) -> f64]) -> Vec<Value> {
    let samples = seconds * board.rate_nominal_hz as u64 + 1;
    of_kind(&run(&config(), board.blocks(0..samples, axes)), OutputKind::Features)
}

#[test]
fn a_sine_has_the_values_of_the_textbook() {
    let hz = 159.154_943;
    let found = windows(&fine_board(), 3, &[&sine(hz, G)]);
    assert_eq!(found.len(), 3);
    let axis = &found[2]["axes"][0];
    assert_near(number_at(axis, "/acceleration_rms"), G / SQRT_2, 1e-3);
    assert_near(number_at(axis, "/peak"), G, 1e-3);
    assert_near(number_at(axis, "/peak_to_peak"), 2.0 * G, 1e-3);
    assert_near(number_at(axis, "/crest"), SQRT_2, 1e-3);
    assert_near(number_at(axis, "/kurtosis"), 1.5, 1e-3);
    // 1 g peak at 1000 rad/s: 9.80665 mm/s peak.
    assert_near(number_at(axis, "/velocity_rms"), G / SQRT_2, 0.01);
    assert!(number_at(axis, "/mean").abs() < 0.01);
}

#[test]
fn velocity_has_the_response_of_iso_2954() {
    let board = fine_board();
    let reading = |hz: f64| {
        let amplitude = 2.0 * PI * hz * 10e-3;
        let found = windows(&board, 3, &[&sine(hz, amplitude)]);
        number_at(&found[2], "/axes/0/velocity_rms") * SQRT_2 / 10.0
    };
    let reference = reading(80.0);
    assert_near(reference, 1.0, 0.01);
    for (hz, low, high) in [
        (10.0, 0.8, 1.1),
        (20.0, 0.9, 1.1),
        (40.0, 0.9, 1.1),
        (160.0, 0.9, 1.1),
        (500.0, 0.9, 1.1),
        (1000.0, 0.8, 1.1),
    ] {
        let relative = reading(hz) / reference;
        assert!((low..=high).contains(&relative), "{hz} Hz reads {relative} of 80 Hz");
    }
    assert!(reading(1.0) < 0.01, "1 Hz is outside the band");
    assert!(reading(4000.0) < 0.05, "4 kHz is outside the band");
}

#[test]
fn trap_1_gravity_and_drift_do_not_become_velocity() {
    // 4.5 mm/s at 50 Hz, gravity on top, and 5 mg of drift over 10 s.
    let amplitude = 2.0 * PI * 50.0 * 4.5e-3 * SQRT_2;
    let signal = move |t: f64| sine(50.0, amplitude)(t) - 1.03 * G + 5e-3 * G * (2.0 * PI * 0.1 * t).sin();
    for window in windows(&fine_board(), 4, &[&signal]) {
        assert_near(number_at(&window, "/axes/0/velocity_rms"), 4.5, 0.01);
    }
    // The naive way, on the same samples: sum up without a high-pass.
    let (mut velocity, mut sum) = (0.0, 0.0);
    for sample in 0..26_667 {
        velocity += signal(f64::from(sample) / 26_667.0) / 26_667.0 * 1000.0;
        sum += velocity * velocity;
    }
    assert!((sum / 26_667.0_f64).sqrt() > 1000.0, "the trap no longer bites");
}

#[test]
fn trap_3_a_tone_above_the_new_band_does_not_fold_into_it() {
    let mut config = config();
    config.pipeline.downsample_hz = 2600.0;
    let board = fine_board();
    let tone = |t: f64| sine(2500.0, 0.1 * G)(t);
    let outputs = run(&config, board.blocks(0..60_000, &[&tone]));
    let rollup = &of_kind(&outputs, OutputKind::Rollup)[1];
    assert_eq!(rollup["downsampled"]["factor"], 10);
    let values: Vec<f64> = rollup["downsampled"]["axes"][0]
        .as_array()
        .expect("values")
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    let rms = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
    assert!(rms < 1e-4 * 0.1 * G / SQRT_2, "80 dB down, found {rms}");
    let naive: Vec<f64> = (0..2600).map(|i| tone(f64::from(i) * 10.0 / 26_667.0)).collect();
    let naive = (naive.iter().map(|v| v * v).sum::<f64>() / 2600.0).sqrt();
    assert_near(naive, 0.1 * G / SQRT_2, 0.01);
    // What was at 2.5 kHz is still in the rollup's full-band values.
    assert_near(number_at(rollup, "/axes/0/rms"), 0.1 * G / SQRT_2, 1e-3);
}

#[test]
fn trap_4_an_impact_is_kept_by_every_rollup() {
    let impact = |t: f64| if (t - 1.5).abs() < 2e-5 { 2.7 * G } else { 0.0 };
    let board = Board { scale: 0.01, ..fine_board() };
    let outputs = run(&config(), board.blocks(0..60_000, &[&impact]));
    let rollup = &of_kind(&outputs, OutputKind::Rollup)[1];
    assert_near(number_at(rollup, "/axes/0/max"), 2.7 * G, 1e-3);
    assert_near(number_at(rollup, "/axes/0/peak"), 2.7 * G, 1e-3);
    assert_eq!(rollup["count"], 26_667);
    assert_eq!(rollup["coverage"], 1);
}

#[test]
fn trap_5_the_rate_is_the_measured_one() {
    // A part 3.4 % fast: a 100 Hz sine still reads its own velocity, and the window ends when it ended.
    let board = Board { rate_hz: 26_667.0 * 1.034, ..fine_board() };
    let amplitude = 2.0 * PI * 100.0 * 5e-3 * SQRT_2;
    let found = windows(&board, 4, &[&sine(100.0, amplitude)]);
    let last = &found[3];
    assert_near(number_at(last, "/rate/measured_hz"), board.rate_hz, 1e-6);
    assert_eq!(last["rate"]["source"], "times");
    assert_near(number_at(last, "/axes/0/velocity_rms"), 5.0, 0.005);
    let end_ns = number_at(last, "/end_ns") - board.time_of(4 * 26_667) as f64;
    assert!(end_ns.abs() < 1000.0, "off by {end_ns} ns");
}

#[test]
fn trap_7_a_small_signal_on_gravity_keeps_its_digits() {
    // 1 mg RMS on 1 g: single-precision sums of squares would be off by more than the signal.
    let signal = |t: f64| G + sine(120.0, 1e-3 * G * SQRT_2)(t);
    let found = windows(&Board { scale: 1e-5, ..fine_board() }, 2, &[&signal]);
    assert_near(number_at(&found[1], "/axes/0/acceleration_rms"), 1e-3 * G, 1e-3);
    assert_near(number_at(&found[1], "/axes/0/kurtosis"), 1.5, 1e-3);
    assert_near(number_at(&found[1], "/axes/0/mean"), G, 1e-6);
}

#[test]
fn gaussian_noise_has_a_kurtosis_of_three() {
    let mut state = 88_172_645_463_325_252_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let noise: Vec<f64> =
        (0..60_000).map(|_| (-2.0 * (1.0 - uniform()).ln()).sqrt() * (2.0 * PI * uniform()).cos()).collect();
    let found = windows(&fine_board(), 2, &[&|t| noise[(t * 26_667.0).round() as usize]]);
    assert_near(number_at(&found[1], "/axes/0/kurtosis"), 3.0, 0.05);
    assert_near(number_at(&found[1], "/axes/0/acceleration_rms"), 1.0, 0.02);
}

#[test]
fn each_axis_has_its_own_values_up_to_eight() {
    let amplitudes = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let sines = amplitudes.map(|amplitude| sine(200.0, amplitude));
    let axes: Vec<&dyn Fn(f64) -> f64> = sines.iter().map(|s| s as &dyn Fn(f64) -> f64).collect();
    let board = Board { block_len: 256, ..fine_board() };
    let outputs = run(&config(), board.blocks(0..60_000, &axes));
    let window = &of_kind(&outputs, OutputKind::Features)[1];
    let rollup = &of_kind(&outputs, OutputKind::Rollup)[1];
    for (axis, amplitude) in amplitudes.iter().enumerate() {
        assert_near(number_at(window, &format!("/axes/{axis}/acceleration_rms")), amplitude / SQRT_2, 1e-3);
        let velocity = amplitude / SQRT_2 / (2.0 * PI * 200.0) * 1000.0;
        assert_near(number_at(window, &format!("/axes/{axis}/velocity_rms")), velocity, 0.01);
        assert_near(number_at(rollup, &format!("/axes/{axis}/rms")), amplitude / SQRT_2, 1e-3);
        assert_eq!(window["axes"][axis]["axis"], AXIS_NAMES[axis]);
    }
    assert_eq!(rollup["downsampled"]["axes"].as_array().map(Vec::len), Some(8));
}

#[test]
fn the_downsampled_signal_is_in_place_in_time() {
    // A slow sine: each downsampled value is the signal at its stamp.
    let board = fine_board();
    let slow = sine(5.0, 2.0);
    let outputs = run(&config(), board.blocks(0..90_000, &[&slow]));
    for rollup in &of_kind(&outputs, OutputKind::Rollup)[1..] {
        let part = &rollup["downsampled"];
        let start_s = (number_at(part, "/start_ns") - START_NS as f64) / 1e9;
        let step_s = 1.0 / number_at(part, "/rate_hz");
        let values = part["axes"][0].as_array().expect("values");
        assert!((100..=106).contains(&values.len()), "{}", values.len());
        for (i, value) in values.iter().enumerate() {
            let expected = slow(start_s + i as f64 * step_s);
            let found = value.as_f64().expect("no gap");
            assert!((found - expected).abs() < 2.0 * 0.012, "value {i}: {found}, signal {expected}");
        }
    }
}

#[test]
fn a_rate_too_low_for_velocity_leaves_it_out() {
    let board = Board { rate_nominal_hz: 15.0, rate_hz: 15.0, block_len: 15, ..fine_board() };
    let outputs = run(&config(), board.blocks(0..150, &[&sine(1.0, 1.0)]));
    let windows = of_kind(&outputs, OutputKind::Features);
    assert!(windows.len() >= 9);
    assert_eq!(windows[5]["axes"][0]["velocity_rms"], Value::Null);
    assert_eq!(windows[5]["measures"]["velocity_rms"]["band_hz"], Value::Null);
    assert!(number_at(&windows[5], "/axes/0/acceleration_rms") > 0.5);
}
