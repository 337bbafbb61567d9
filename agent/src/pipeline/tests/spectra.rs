//! Bands and averaged spectra.

use super::*;
use crate::config::{Band, Quantity};
use std::f64::consts::{PI, SQRT_2};
use std::time::Duration;

fn sine(hz: f64, amplitude: f64) -> impl Fn(f64) -> f64 {
    move |t| amplitude * (2.0 * PI * hz * t).sin()
}

/// A board with 24 bits, so that quantisation is not what a test measures.
fn fine_board() -> Board {
    Board { bits: 24, scale: 1e-4, ..Board::new() }
}

/// A spectrum a second, over the whole of it.
fn each_second() -> Config {
    let mut config = config();
    config.pipeline.spectrum.every = Duration::from_secs(1);
    config.pipeline.spectrum.average = Duration::from_secs(1);
    config
}

fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        (-2.0 * (1.0 - uniform()).ln()).sqrt() * (2.0 * PI * uniform()).cos()
    }
}

fn values(record: &Value, pointer: &str) -> Vec<f64> {
    let array = record.pointer(pointer).and_then(Value::as_array).expect("an array");
    array.iter().map(|value| value.as_f64().expect("a number")).collect()
}

fn bands(list: &[(&str, f64, f64)]) -> Vec<Band> {
    list.iter().map(|&(name, low_hz, high_hz)| Band { name: name.into(), low_hz, high_hz }).collect()
}

#[test]
fn a_band_holds_the_tone_that_lies_in_it_and_no_other() {
    let mut config = config();
    config.pipeline.bands = bands(&[("low", 100.0, 500.0), ("high", 2000.0, 2500.0), ("beyond", 2e4, 3e4)]);
    let tones = |t: f64| 9.8 + sine(303.0, 2.0)(t) + sine(2212.0, 0.5)(t);
    let found = of_kind(&run(&config, fine_board().blocks(0..60_000, &[&tones])), OutputKind::Features);
    let axis = &found[1]["axes"][0];
    assert_near(number_at(axis, "/bands/low"), 2.0 / SQRT_2, 2e-3);
    assert_near(number_at(axis, "/bands/high"), 0.5 / SQRT_2, 2e-3);
    assert_eq!(axis["bands"]["beyond"], Value::Null);
    let measure = &found[1]["measures"]["bands"]["low"];
    assert_eq!(measure["band_hz"], serde_json::json!([100, 500]));
    assert_near(number_at(measure, "/resolution_hz"), 26_667.0 / 8192.0, 1e-6);
    assert_eq!(found[1]["measures"]["bands"]["beyond"]["band_hz"], Value::Null);
}

#[test]
fn trap_2_a_band_of_noise_reads_its_rms_with_no_correction_for_the_window() {
    let mut config = config();
    config.pipeline.bands = bands(&[("all", 0.0, 20_000.0), ("half", 0.0, 6666.75)]);
    let mut next = noise(88_172_645_463_325_252);
    let samples: Vec<f64> = (0..110_000).map(|_| next()).collect();
    let records = fine_board().blocks(0..110_000, &[&|t| samples[(t * 26_667.0).round() as usize]]);
    for window in of_kind(&run(&config, records), OutputKind::Features) {
        // Five segments: 1 % of spread. Hann alone would read 0.61, the amplitude's correction 1.22.
        assert_near(number_at(&window, "/axes/0/bands/all"), 1.0, 0.03);
        assert_near(number_at(&window, "/axes/0/bands/half"), 1.0 / SQRT_2, 0.04);
    }
}

#[test]
fn a_band_is_null_where_a_gap_leaves_no_whole_segment() {
    let mut config = config();
    config.pipeline.bands = bands(&[("low", 100.0, 500.0)]);
    let board = fine_board();
    let tone = sine(303.0, 2.0);
    let mut records = Vec::new();
    for start in (0..53_334).step_by(8000) {
        records.extend(board.blocks(start..start + 7000, &[&tone]));
    }
    let found = of_kind(&run(&config, records), OutputKind::Features);
    assert!(number_at(&found[0], "/quality/coverage") > 0.8);
    assert_eq!(found[0]["axes"][0]["bands"]["low"], Value::Null);
    assert!(found[0]["axes"][0]["acceleration_rms"].is_number());
}

#[test]
fn a_rule_on_a_band_raises_an_alert_with_its_name_and_band() {
    let mut config = config();
    config.pipeline.bands = bands(&[("mesh", 250.0, 350.0)]);
    config.rules = vec![crate::config::LimitRule {
        name: "mesh-high".into(),
        sensor: "*/*/*".into(),
        axis: "*".into(),
        feature: "band:mesh".into(),
        unit: "m/s2".into(),
        above: 1.0,
        deadband: 0.0,
        on_delay: Duration::ZERO,
        severity: crate::config::Severity::Alarm,
    }];
    let signal = |t: f64| sine(303.0, if t > 1.0 { 2.0 } else { 0.1 })(t) + sine(900.0, 9.0)(t);
    let alerts = of_kind(&run(&config, fine_board().blocks(0..80_002, &[&signal])), OutputKind::Alert);
    assert_eq!(alerts.len(), 1);
    assert_eq!(
        (alerts[0]["feature"].as_str(), alerts[0]["detector"].as_str()),
        (Some("band:mesh"), Some("rms"))
    );
    assert_eq!(alerts[0]["band_hz"], serde_json::json!([250, 350]));
    assert_near(number_at(&alerts[0], "/value"), 2.0 / SQRT_2, 2e-3);
}

#[test]
fn the_density_of_noise_holds_its_variance_and_the_peak_hold_lies_above_it() {
    let mut next = noise(7);
    let samples: Vec<f64> = (0..110_000).map(|_| next()).collect();
    let records = fine_board().blocks(0..110_000, &[&|t| 9.8 + samples[(t * 26_667.0).round() as usize]]);
    let found = of_kind(&run(&each_second(), records), OutputKind::Spectrum);
    assert_eq!(found.len(), 4);
    let record = &found[1];
    let step = number_at(record, "/resolution_hz");
    assert_near(step, 26_667.0 / 8192.0, 1e-6);
    assert_near(number_at(record, "/enbw_hz"), 1.5 * step, 1e-9);
    assert_eq!((record["quantity"].as_str(), record["segments"].as_u64()), (Some("psd"), Some(5)));
    let (density, peaks) = (values(record, "/axes/0/values"), values(record, "/axes/0/peak_hold"));
    assert_eq!((density.len(), peaks.len()), (4097, 4097));
    assert_near(density.iter().sum::<f64>() * step, 1.0, 0.05);
    assert!(density.iter().zip(&peaks).all(|(mean, peak)| peak >= mean));
}

#[test]
fn the_amplitude_of_a_tone_on_a_line_is_its_peak() {
    let mut config = each_second();
    config.pipeline.spectrum.quantity = Quantity::Amplitude;
    config.pipeline.spectrum.peak_hold = false;
    // Five axes leave room for segments of three quarters of the length.
    let step = 26_667.0 / 6144.0;
    let tone = sine(100.0 * step, 3.0);
    let found = of_kind(
        &run(&config, fine_board().blocks(0..60_000, &[&tone, &tone, &tone, &tone, &tone])),
        OutputKind::Spectrum,
    );
    for axis in 0..5 {
        let lines = values(&found[1], &format!("/axes/{axis}/values"));
        assert_eq!(lines.len(), 3073);
        assert_near(lines[100], 3.0, 1e-3);
        assert!(lines[103..].iter().all(|line| *line < 1e-3));
    }
    assert_eq!(found[1]["axes"][0]["peak_hold"], Value::Null);
    assert_eq!(found[1]["unit"], "m/s2");
}

#[test]
fn a_cycle_is_averaged_over_its_last_windows_only() {
    let mut config = config();
    config.pipeline.spectrum.every = Duration::from_secs(5);
    config.pipeline.spectrum.average = Duration::from_secs(2);
    let found = of_kind(
        &run(&config, Board::new().blocks(0..26_667 * 16, &[&sine(300.0, 1.0)])),
        OutputKind::Spectrum,
    );
    assert_eq!(found.len(), 3);
    let firsts: Vec<u64> =
        found.iter().map(|r| r["window"]["first_sample"].as_u64().expect("a number")).collect();
    assert!(firsts.windows(2).all(|pair| pair[1] - pair[0] == 5 * 26_667), "{firsts:?}");
    assert_eq!(found[1]["segments"], 10);
    assert_near(number_at(&found[1], "/window/duration_s"), 2.0, 1e-6);
    let mut off = config.clone();
    off.pipeline.spectrum.enabled = false;
    let none = run(&off, Board::new().blocks(0..26_667 * 16, &[&sine(300.0, 1.0)]));
    assert_eq!(of_kind(&none, OutputKind::Spectrum).len(), 0);
}

#[test]
fn a_cycle_that_ends_in_a_gap_is_put_out_when_samples_come_again() {
    let mut config = config();
    config.pipeline.spectrum.every = Duration::from_secs(4);
    config.pipeline.spectrum.average = Duration::from_secs(4);
    let board = Board::new();
    let tone = sine(300.0, 1.0);
    let mut records = board.blocks(0..26_667, &[&tone]);
    records.extend(board.blocks(26_667 * 9..26_667 * 11, &[&tone]));
    let found = of_kind(&run(&config, records), OutputKind::Spectrum);
    assert_eq!(found[0]["window"]["first_sample"], 0);
    assert_eq!(found[0]["window"]["samples"], 26_667);
    assert_eq!(found[0]["segments"], 5);
}
