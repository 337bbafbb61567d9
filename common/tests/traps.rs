//! Traps of vibration analysis: the number that the naive way gives, and the right one.
//!
//! The sixth's clipping statistics are here; what a pipeline does with them, and arrival times (the fifth) and gating (the eighth),
//! are no matter of signal processing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use spindle_common::dsp::{
    Analyser, Averaging, BandSum, Bin, Decimator, Displacement, Extremes, Fitness, Frame, Grid, Moments,
    Scaling, Velocity, Welch, Window,
};
use std::f64::consts::PI;

const GRAVITY: f64 = 9.806_65;
const RATE_HZ: f64 = 26_667.0;

fn signal(seconds: f64, at: impl Fn(f64) -> f64) -> Vec<Frame> {
    let count = (seconds * RATE_HZ) as usize;
    (0..count).map(|index| [at(index as f64 / RATE_HZ) as f32; 4]).collect()
}

/// Acceleration whose velocity is 4.5 mm/s RMS at 100 Hz.
fn acceleration(time: f64) -> f64 {
    2.0 * PI * 100.0 * 0.0045 * 2.0_f64.sqrt() * (2.0 * PI * 100.0 * time).cos()
}

/// RMS of the running sum, mm/s: integration as it is first thought of.
fn summed_rms(frames: &[Frame]) -> f64 {
    let (mut velocity, mut squares) = (0.0, 0.0);
    for frame in frames {
        velocity += f64::from(frame[0]) / RATE_HZ * 1000.0;
        squares += velocity * velocity;
    }
    (squares / frames.len() as f64).sqrt()
}

fn band_limited_rms(frames: &[Frame]) -> f64 {
    let mut filter = Velocity::new(10.0, 1000.0, RATE_HZ).unwrap();
    let (start, rest) = frames.split_at(frames.len() / 4);
    filter.settle([f64::from(frames[0][0]) - acceleration(0.0); 4]);
    filter.energy(start);
    (filter.energy(rest)[0] / rest.len() as f64).sqrt()
}

#[test]
fn trap_1_integration_without_a_high_pass_reads_drift_and_gravity_as_velocity() {
    // A drift of 5 mg within four seconds, and gravity left in.
    let drifting = signal(4.0, |time| acceleration(time) + 0.005 * GRAVITY * time / 4.0);
    let upright = signal(4.0, |time| acceleration(time) + GRAVITY);
    let naive = [summed_rms(&drifting), summed_rms(&upright)];
    assert!(naive[0] > 8.5, "drift: {} mm/s", naive[0]);
    assert!((naive[1] - 22_650.0).abs() < 50.0, "gravity: {} mm/s", naive[1]);
    for frames in [drifting, upright] {
        let right = band_limited_rms(&frames);
        assert!((right - 4.5).abs() < 0.02, "{right} mm/s");
    }
}

#[test]
fn trap_1_holds_for_displacement_too() {
    // 10 µm peak to peak at 50 Hz with gravity: summed twice it is 78 m after four seconds.
    let omega = 2.0 * PI * 50.0;
    let frames = signal(4.0, |time| GRAVITY - 5e-6 * omega * omega * (omega * time).sin());
    let (mut velocity, mut place) = (0.0, 0.0);
    for frame in &frames {
        velocity += f64::from(frame[0]) / RATE_HZ;
        place += velocity / RATE_HZ;
    }
    assert!(place > 70.0, "{place} m");
    let mut filter = Displacement::new(10.0, 1000.0, RATE_HZ).unwrap();
    filter.settle([GRAVITY; 4]);
    let (start, rest) = frames.split_at(filter.settle_len() as usize);
    filter.extremes(start, &mut Extremes::EMPTY.clone());
    let mut extremes = Extremes::EMPTY;
    filter.extremes(rest, &mut extremes);
    let right = extremes.peak_to_peak()[0];
    assert!((right - 10.0).abs() < 0.05, "{right} µm");
}

/// White noise of RMS 1, of which a band's RMS is known.
fn noise(count: usize) -> Vec<Frame> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 16) as f32 / 65536.0 - 0.5) * 12.0_f32.sqrt()
    };
    (0..count).map(|_| [next(); 4]).collect()
}

#[test]
fn trap_2_a_band_s_rms_needs_the_window_s_noise_bandwidth() {
    const LEN: usize = 4096;
    let grid = Grid { len: LEN, rate_hz: RATE_HZ };
    let mut analyser = Analyser::new(LEN, Window::Hann).unwrap();
    let mut welch = Welch::new(LEN, LEN / 2, Averaging::Linear);
    welch.push(&noise(200 * LEN), &mut analyser);
    let read = |scaling| {
        let mut out = vec![[0.0; 4]; grid.bins()];
        welch.average().write(&analyser.scale(scaling, RATE_HZ), &mut out);
        out
    };
    // All of the noise is in this band, and its RMS is 1.
    let root_of_sum = |powers: &[Bin]| powers.iter().map(|bin| bin[0]).sum::<f64>().sqrt();
    // The amplitude-corrected spectrum, its lines' powers summed: 1.22.
    let powers = read(Scaling::Power);
    let amplitude_corrected = root_of_sum(&powers);
    assert!((amplitude_corrected - 1.5_f64.sqrt()).abs() < 0.01, "{amplitude_corrected}");
    // The window not corrected at all: 0.61.
    let uncorrected = amplitude_corrected * Window::Hann.coherent_gain();
    assert!((uncorrected - 0.61).abs() < 0.005, "{uncorrected}");
    // By the noise bandwidth, or from the density, where it is in the scale.
    let corrected = amplitude_corrected / Window::Hann.enbw_bins().sqrt();
    let band = BandSum::new(0.0, RATE_HZ / 2.0, grid).unwrap();
    let from_density = band.rms(&read(Scaling::Density))[0];
    for right in [corrected, from_density] {
        assert!((right - 1.0).abs() < 0.01, "{right}");
    }
}

#[test]
fn trap_3_keeping_every_tenth_sample_makes_a_line_that_is_not_there() {
    // 0.1 g at 2.5 kHz; every tenth sample folds it down to 166.7 Hz.
    let frames = signal(4.0, |time| 0.1 * GRAVITY * (2.0 * PI * 2500.0 * time).sin());
    let rate_hz = RATE_HZ / 10.0;
    let velocity_rms = |frames: &[Frame]| {
        let mut filter = Velocity::new(10.0, 1000.0, rate_hz).unwrap();
        let (start, rest) = frames.split_at(frames.len() / 2);
        filter.energy(start);
        (filter.energy(rest)[0] / rest.len() as f64).sqrt()
    };
    let picked: Vec<Frame> = frames.iter().step_by(10).copied().collect();
    let naive = velocity_rms(&picked);
    // 0.1 g at 166.7 Hz is 0.94 mm/s peak, 0.66 RMS.
    let alias = 0.1 * GRAVITY / (2.0 * PI * (rate_hz - 2500.0)) * 1000.0;
    assert!((alias - 0.94).abs() < 0.01 && (naive - alias / 2.0_f64.sqrt()).abs() < 0.02, "{naive} mm/s");
    let mut decimated = Vec::new();
    Decimator::new(10).unwrap().push(&frames, |_, frame| decimated.push(frame));
    let right = velocity_rms(&decimated);
    assert!(right < naive / 10_000.0, "{right} mm/s");
}

#[test]
fn trap_4_averages_lose_the_impacts_that_peaks_keep() {
    // 0.5 ms of 2.7 g, ten times a second, over a little noise.
    let frames = signal(1.0, |time| {
        let since = time % 0.1;
        let ring = (2.0 * PI * 4000.0 * since).cos() * (-since / 0.0005).exp();
        GRAVITY * 2.7 * ring
    });
    let samples: Vec<f32> = frames.iter().map(|frame| frame[0]).collect();
    let means =
        samples.chunks(100).map(|part| part.iter().map(|&value| f64::from(value)).sum::<f64>() / 100.0);
    let naive = means.fold(0.0, |largest: f64, mean| largest.max(mean.abs())) / GRAVITY;
    assert!(naive < 0.06, "{naive} g");
    let mut rollup = Moments::EMPTY;
    for part in samples.chunks(100) {
        rollup.merge(&Moments::of(part));
    }
    let right = rollup.peak() / GRAVITY;
    assert!((right - 2.7).abs() < 0.05, "{right} g");
    assert!(rollup.kurtosis().unwrap() > 30.0);
}

#[test]
fn trap_6_a_clipped_signal_reads_too_low_and_only_the_counts_tell() {
    // A sine of 16 g on a sensor of ±15.6 g; then a value that is none, and a sensor that has stopped.
    let limit = (15.6 * GRAVITY) as f32;
    let frames = signal(1.0, |time| 16.0 * GRAVITY * (2.0 * PI * 97.0 * time).sin());
    let mut samples: Vec<f32> = frames.iter().map(|frame| frame[0].clamp(-limit, limit)).collect();
    let clipped = Moments::of(&samples);
    assert!(clipped.peak() < 15.7 * GRAVITY, "the naive peak is the limit");
    let mut fitness = Fitness::EMPTY;
    for part in samples.chunks(333) {
        fitness.add(part, [-limit, limit]);
    }
    // A sine is beyond 0.975 of its peak for 2 acos(0.975) / pi of the time.
    let share = 2.0 * (15.6_f64 / 16.0).acos() / PI;
    assert!((fitness.saturated_share() - share).abs() < 0.002, "{} for {share}", fitness.saturated_share());
    assert!(fitness.saturated_run_max >= 18 && fitness.saturated_run_max == fitness.equal_run_max);
    assert_eq!((fitness.samples, fitness.non_finite), (samples.len() as u64, 0));
    // Not a number makes every sum not a number: it has to be counted before.
    samples[1000] = f32::NAN;
    samples[2000] = f32::INFINITY;
    samples[5000..9000].fill(1.25);
    assert!(Moments::of(&samples).rms().is_nan());
    let mut fitness = Fitness::EMPTY;
    samples.chunks(100).for_each(|part| fitness.add(part, [-limit, limit]));
    assert_eq!((fitness.non_finite, fitness.equal_run_max), (2, 4000));
    // Runs go on into the next window, counts do not.
    fitness.take();
    fitness.add(&[samples[samples.len() - 1]; 5], [-limit, limit]);
    assert_eq!((fitness.samples, fitness.equal_run_max), (5, 6));
}

#[test]
fn trap_7_the_mean_of_squares_less_the_squared_mean_fails_in_single_precision() {
    // In raw counts, gravity at 8192 and a variance of 67.
    let deviation = 67.0_f64.sqrt();
    let samples: Vec<f32> = noise(200_000).iter().map(|frame| 8192.0 + deviation as f32 * frame[0]).collect();
    let (mut sum, mut squares) = (0.0_f32, 0.0_f32);
    for sample in &samples {
        sum += sample;
        squares += sample * sample;
    }
    let count = samples.len() as f32;
    let naive = squares / count - (sum / count) * (sum / count);
    assert!((naive - 67.0).abs() > 100.0, "{naive}");
    for right in [Moments::of(&samples).variance(), Moments::of_single(&samples).variance()] {
        assert!((right - 67.0).abs() < 0.5, "{right}");
    }
}
