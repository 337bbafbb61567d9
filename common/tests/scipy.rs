//! Filters, velocity and moments against the numbers of scipy in `golden/dsp.json`, made by `tests/oracles/dsp.py`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use serde_json::Value;
use spindle_common::dsp::{Cascade, Frame, Moments, Velocity, butterworth_high_pass, butterworth_low_pass};

/// Agreement with scipy, as a part of the noise's size.
const TOLERANCE: f64 = 1e-8;

fn golden() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/dsp.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The same input as the oracle's: noise around gravity.
fn noise(count: u64) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((f64::from(state >> 16) / 65536.0 - 0.5) as f32) + 9.806_65_f32
    };
    (0..count).map(|_| next()).collect()
}

fn frames(samples: &[f32]) -> Vec<Frame> {
    samples.iter().map(|&sample| [sample; 4]).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn filters_give_what_scipy_gives() {
    let golden = golden();
    let frames = frames(&noise(golden["count"].as_u64().unwrap()));
    for case in golden["filters"].as_array().unwrap() {
        let order = case["order"].as_u64().unwrap() as usize;
        let (corner_hz, rate_hz) = (number(&case["corner_hz"]), number(&case["rate_hz"]));
        let sections = match case["pass"].as_str().unwrap() {
            "lowpass" => butterworth_low_pass(order, corner_hz, rate_hz),
            _ => butterworth_high_pass(order, corner_hz, rate_hz),
        };
        let mut filter = Cascade::<8>::new(&sections.unwrap()).unwrap();
        filter.settle(frames[0].map(f64::from));
        let mut found = Vec::new();
        filter.run(&frames, |result| found.push(result));
        let keep = golden["keep"].as_u64().unwrap() as usize;
        for (found, wanted) in found.iter().step_by(keep).zip(case["output"].as_array().unwrap()) {
            for lane in found {
                assert!((lane - number(wanted)).abs() < TOLERANCE, "{lane} for {wanted} of {case}");
            }
        }
    }
}

#[test]
fn velocity_gives_what_scipy_gives() {
    let golden = golden();
    let frames = frames(&noise(golden["count"].as_u64().unwrap()));
    for case in golden["velocities"].as_array().unwrap() {
        let mut filter =
            Velocity::new(number(&case["low_hz"]), number(&case["high_hz"]), number(&case["rate_hz"]))
                .unwrap();
        filter.settle(frames[0].map(f64::from));
        let wanted = number(&case["energy"]);
        for found in filter.energy(&frames) {
            assert!((found / wanted - 1.0).abs() < TOLERANCE, "{found} for {case}");
        }
    }
}

#[test]
fn moments_give_what_scipy_gives() {
    let golden = golden();
    let moments = Moments::of(&noise(golden["count"].as_u64().unwrap()));
    let found = [moments.mean, moments.rms(), moments.skewness().unwrap(), moments.kurtosis().unwrap()];
    for (found, name) in found.into_iter().zip(["mean", "rms", "skewness", "kurtosis"]) {
        let wanted = number(&golden["moments"][name]);
        assert!((found - wanted).abs() < TOLERANCE, "{name}: {found} for {wanted}");
    }
}
