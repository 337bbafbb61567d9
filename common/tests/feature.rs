//! Features as a node computes them, in single precision, against the gateway's way over the same samples.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use spindle_common::dsp::{LANES, Moments, Velocity, to_frames};
use spindle_common::feature::{Energy, Meter, VELOCITY_BAND_HZ, Values, settle_len};

const AXES: usize = 3;

/// Uniform noise between -1 and 1.
fn noise(state: &mut u32) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    f64::from(*state) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// The gateway's features of `samples` from `from` on, its filters started at 0.
fn gateway(planar: &[f32], per_channel: usize, from: usize, rate_hz: f64) -> Vec<Values> {
    let mut frames = vec![[0.0; LANES]; per_channel];
    to_frames(planar, per_channel, 0, &mut frames);
    let [low_hz, high_hz] = VELOCITY_BAND_HZ;
    let mut velocity = Velocity::new(low_hz, high_hz, rate_hz).unwrap();
    velocity.settle(frames[0].map(f64::from));
    let start = from.max(settle_len(low_hz, rate_hz) as usize);
    velocity.energy(&frames[..start]);
    let sums = velocity.energy(&frames[start..]);
    (0..AXES)
        .map(|axis| {
            let samples = &planar[axis * per_channel + from..(axis + 1) * per_channel];
            let settled = (per_channel - start) as u64;
            Values::of(&Moments::of(samples), Some(Energy { sum: sums[axis], settled, rate_factor: 1.0 }))
        })
        .collect()
}

/// The node's, in pieces of odd lengths; two windows, the second from `from` on.
fn node(
    planar: &[f32],
    per_channel: usize,
    from: usize,
    rate_hz: f64,
) -> Vec<spindle_common::wire::AxisFeatures> {
    let mut meter = Meter::new(AXES);
    let mut at = 0;
    let mut pieces = [1usize, 37, 512, 128, 700, 64].into_iter().cycle();
    while at < per_channel {
        let edge = if at < from { from } else { per_channel };
        let count = pieces.next().unwrap().min(edge - at);
        meter.take(at as u64, count, rate_hz, |axis, place, out| {
            let start = axis * per_channel + at + place;
            out.copy_from_slice(&planar[start..start + out.len()]);
        });
        at += count;
        if at == from {
            meter.close(rate_hz);
        }
    }
    assert_eq!(meter.samples(), (per_channel - from) as u64);
    meter.close(rate_hz).to_vec()
}

fn assert_agrees(what: &str, rate_hz: f64, signal: impl Fn(usize, f64, f64) -> f64) {
    let from = rate_hz as usize;
    let per_channel = 2 * from;
    let mut state = 77;
    let scale = 1.1964e-3_f32;
    let mut planar = Vec::new();
    for axis in 0..AXES {
        for i in 0..per_channel {
            let value = signal(axis, i as f64 / rate_hz, noise(&mut state));
            // As a 16-bit sensor gives it.
            planar.push((value as f32 / scale).round().clamp(-32768.0, 32767.0) * scale);
        }
    }
    let want = gateway(&planar, per_channel, from, rate_hz);
    let have = node(&planar, per_channel, from, rate_hz);
    for (axis, (want, have)) in want.iter().zip(&have).enumerate() {
        let close = |name: &str, want: f64, have: f32, share: f64| {
            // A thousandth of the converter's step is nothing.
            let allowed = share * want.abs() + 1e-6;
            assert!((want - f64::from(have)).abs() <= allowed, "{what} {axis} {name}: {have} against {want}");
        };
        close("rms", want.rms, have.rms, 1e-4);
        close("peak", want.peak, have.peak, 1e-4);
        close("peak_to_peak", want.peak_to_peak, have.peak_to_peak, 1e-4);
        close("kurtosis", want.kurtosis.unwrap(), have.kurtosis, 1e-4);
        close("mean", want.mean, have.mean, 1e-4);
        close("velocity_rms", want.velocity_rms.unwrap(), have.velocity_rms, 1e-3);
    }
}

const GRAVITY: [f64; AXES] = [0.0, -9.806_65, 9.806_65];

#[test]
fn single_precision_agrees_with_the_gateway_on_tones_from_edge_to_edge_of_the_band() {
    for rate_hz in [26_667.0, 4_000.0, 3_200.0] {
        for hz in [9.7, 10.0, 25.0, 100.3, 500.0, 1000.0, 1400.0] {
            assert_agrees("tone", rate_hz, |axis, at, _| {
                GRAVITY[axis] + 3.0 * (at * hz * std::f64::consts::TAU + axis as f64).sin()
            });
        }
    }
}

#[test]
fn single_precision_agrees_with_the_gateway_on_noise_of_the_chip_and_of_a_rough_machine_over_gravity() {
    for level in [0.05, 1.0, 30.0] {
        assert_agrees("noise", 26_667.0, |axis, _, noise| (GRAVITY[axis] + level * noise).clamp(-39.0, 39.0));
    }
}

#[test]
fn single_precision_agrees_with_the_gateway_on_impacts_that_hide_a_small_velocity() {
    assert_agrees("impacts", 26_667.0, |axis, at, noise| {
        let since = (at * 61.3).fract() / 61.3;
        let ring = 25.0 * (-900.0 * since).exp() * (since * 4200.0 * std::f64::consts::TAU).sin();
        GRAVITY[axis] + 0.05 * (at * 50.0 * std::f64::consts::TAU).sin() + ring + 0.06 * noise
    });
}

#[test]
fn a_rate_that_was_wrong_at_first_is_taken_out_of_velocity_and_a_large_error_restarts_the_filters() {
    let rate_hz = 26_667.0;
    let tone = |i: u64| (3.0 * (i as f64 / rate_hz * 80.0 * std::f64::consts::TAU).sin()) as f32;
    let mut meter = Meter::new(1);
    let second = |meter: &mut Meter, from: u64, believed: f64| {
        meter.take(from, 26_667, believed, |_, place, out| {
            for (offset, sample) in (0u64..).zip(out) {
                *sample = tone(from + place as u64 + offset);
            }
        });
        f64::from(meter.close(rate_hz)[0].velocity_rms)
    };
    let truth = 3.0 / 2f64.sqrt() / (80.0 * std::f64::consts::TAU) * 1000.0;
    let first = second(&mut meter, 0, rate_hz * 1.004);
    assert!((first / truth - 1.0).abs() < 0.01, "{first} against {truth}");
    meter.adapt(rate_hz);
    let kept = second(&mut meter, 26_667, rate_hz);
    assert!((kept / truth - 1.0).abs() < 0.01, "{kept} against {truth}");
    meter.adapt(rate_hz * 1.02);
    let late = second(&mut meter, 2 * 26_667, rate_hz * 1.02);
    assert!((late / truth - 1.0).abs() < 0.02, "{late} against {truth}");
}

#[test]
fn what_is_not_known_is_zero_and_never_infinite() {
    let mut meter = Meter::new(2);
    meter.take(0, 100, 26_667.0, |_, _, out| out.fill(9.8));
    let features = meter.close(26_667.0);
    assert_eq!((features[0].rms, features[0].kurtosis, features[0].velocity_rms), (0.0, 0.0, 0.0));
    assert!((features[1].mean - 9.8).abs() < 1e-6);
}
