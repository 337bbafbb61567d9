//! Skewness, displacement, high frequency, bias shift.

use super::*;
use std::f64::consts::{PI, SQRT_2};

/// A board with 24 bits, so that quantisation is not what a test measures.
fn fine_board() -> Board {
    Board { bits: 24, scale: 1e-4, ..Board::new() }
}

fn windows(board: &Board, seconds: u64, axes: &[&dyn Fn(f64) -> f64]) -> Vec<Value> {
    let samples = seconds * board.rate_nominal_hz as u64 + 1;
    of_kind(&run(&config(), board.blocks(0..samples, axes)), OutputKind::Features)
}

fn has_flag(window: &Value, flag: &str) -> bool {
    window["quality"]["flags"].as_array().expect("flags").iter().any(|f| f == flag)
}

#[test]
fn displacement_of_a_sine_is_its_travel_whatever_lies_beneath_it() {
    // 40 µm peak to peak at 50 Hz on gravity, with the sensor 3.4 % fast.
    let board = Board { rate_hz: 26_667.0 * 1.034, ..fine_board() };
    let omega = 2.0 * PI * 50.0;
    let signal = move |t: f64| 9.81 + 20e-6 * omega * omega * (omega * t).sin();
    let found = windows(&board, 4, &[&signal]);
    // The filters start anew when the rate is known.
    for window in &found[2..] {
        assert_near(number_at(window, "/axes/0/displacement_peak_to_peak"), 40.0, 0.01);
    }
    assert_eq!(found[0]["measures"]["displacement_peak_to_peak"]["unit"], "um");
    assert_eq!(found[0]["measures"]["displacement_peak_to_peak"]["band_hz"], serde_json::json!([10, 1000]));
}

#[test]
fn displacement_is_left_out_until_its_filters_have_settled() {
    // Settled after 0.6 s: 0.4 of the first window, less than the half that counts.
    let found = windows(&fine_board(), 2, &[&|t| 3.0 * (2.0 * PI * 50.0 * t).sin()]);
    assert_eq!(found[0]["axes"][0]["displacement_peak_to_peak"], Value::Null);
    assert!(found[0]["axes"][0]["velocity_rms"].is_number());
    assert!(found[1]["axes"][0]["displacement_peak_to_peak"].is_number());
}

#[test]
fn high_frequency_is_what_lies_above_the_corner() {
    let tones = |t: f64| 5.0 * (2.0 * PI * 300.0 * t).sin() + 0.5 * (2.0 * PI * 9000.0 * t).sin();
    let found = windows(&fine_board(), 3, &[&tones]);
    assert_near(number_at(&found[2], "/axes/0/high_frequency_rms"), 0.5 / SQRT_2, 0.01);
    let band = &found[2]["measures"]["high_frequency_rms"]["band_hz"];
    assert_near(number_at(band, "/0"), 5000.0, 1e-9);
    assert_near(number_at(band, "/1"), 13_333.5, 1e-3);
}

#[test]
fn a_rate_too_low_for_high_frequency_leaves_it_out() {
    let board = Board { rate_nominal_hz: 12_000.0, rate_hz: 12_000.0, ..fine_board() };
    let found = windows(&board, 3, &[&|t| (2.0 * PI * 300.0 * t).sin()]);
    assert_eq!(found[2]["axes"][0]["high_frequency_rms"], Value::Null);
    assert_eq!(found[2]["measures"]["high_frequency_rms"]["band_hz"], Value::Null);
}

#[test]
fn skewness_tells_pushes_from_pulls() {
    // Of a half-wave rectified sine: from its moments about the mean 1/pi.
    let rectified = |t: f64| (2.0 * PI * 200.0 * t).sin().max(0.0);
    let found =
        windows(&fine_board(), 2, &[&rectified, &|t| -rectified(t), &|t| (2.0 * PI * 200.0 * t).sin()]);
    let mean = 1.0 / PI;
    let variance = 0.25 - mean * mean;
    let third = 2.0 / (3.0 * PI) - 3.0 * mean * 0.25 + 2.0 * mean.powi(3);
    let expected = third / variance.powf(1.5);
    assert_near(number_at(&found[1], "/axes/0/skewness"), expected, 1e-3);
    assert_near(number_at(&found[1], "/axes/1/skewness"), -expected, 1e-3);
    assert!(number_at(&found[1], "/axes/2/skewness").abs() < 1e-3);
}

#[test]
fn a_mean_that_jumps_is_a_bias_shift_until_it_stays() {
    let signal = |t: f64| 0.2 * (2.0 * PI * 120.0 * t).sin() + if t > 3.5 { 4.0 } else { 0.0 };
    let found = windows(&fine_board(), 8, &[&|t| 0.2 * (2.0 * PI * 120.0 * t).sin(), &signal]);
    let shifted: Vec<bool> = found.iter().map(|window| has_flag(window, "bias_shift")).collect();
    assert_eq!(shifted, [false, false, false, true, true, false, false, false]);
    assert_eq!(found[3]["quality"]["good"], false);
}

#[test]
fn vibration_that_is_no_whole_number_of_periods_is_no_bias_shift() {
    // 0.7 Hz of 20 m/s²: means of a second differ by metres per second squared.
    let found = windows(&fine_board(), 8, &[&|t| 20.0 * (2.0 * PI * 0.7 * t).sin()]);
    assert!(found.iter().all(|window| !has_flag(window, "bias_shift")));
}
