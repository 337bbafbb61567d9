//! Signal processing against closed forms and against ISO 2954's response.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use proptest::prelude::*;
use spindle_common::dsp::{
    Cascade, Decimator, DesignError, Frame, Moments, Velocity, butterworth_high_pass, gain, to_frames,
};
use std::f64::consts::PI;

const GRAVITY: f64 = 9.806_65;

/// A sine of `amplitude` on three lanes (one with gravity added, one inverted), zero on the fourth.
fn sine(hz: f64, rate_hz: f64, amplitude: f64, count: usize) -> Vec<Frame> {
    (0..count)
        .map(|index| {
            let value = amplitude * (2.0 * PI * hz * index as f64 / rate_hz).sin();
            [value as f32, (value + GRAVITY) as f32, -value as f32, 0.0]
        })
        .collect()
}

/// Velocity RMS in mm/s of lanes 0 and 1, the filter's start left out.
fn velocity_rms(filter: &mut Velocity, frames: &[Frame], skip: usize) -> [f64; 2] {
    filter.settle(frames[0].map(f64::from));
    filter.energy(&frames[..skip]);
    let sums = filter.energy(&frames[skip..]);
    let count = (frames.len() - skip) as f64;
    [(sums[0] / count).sqrt(), (sums[1] / count).sqrt()]
}

#[test]
fn velocity_keeps_to_the_table_of_iso_2954_at_every_usual_rate() {
    for rate_hz in [3200.0, 4000.0, 6666.7, 10_000.0, 26_667.0 * 0.97, 26_667.0, 51_200.0] {
        // Whole seconds make whole periods of every frequency here.
        let reading = |hz: f64| {
            let mut filter = Velocity::new(10.0, 1000.0, rate_hz).unwrap();
            let acceleration = 2.0 * PI * hz * 0.01 * 2.0_f64.sqrt();
            let frames = sine(hz, rate_hz, acceleration, 2 * rate_hz as usize);
            let rms = velocity_rms(&mut filter, &frames, rate_hz as usize);
            assert!(
                (rms[0] - rms[1]).abs() < 0.02,
                "gravity changed {} to {} mm/s at {hz} Hz",
                rms[0],
                rms[1]
            );
            rms[0]
        };
        let reference = reading(80.0);
        assert!((reference / 10.0 - 1.0).abs() < 0.005, "{rate_hz}: 80 Hz at 10 mm/s reads {reference}");
        for (hz, low, high) in [
            (10.0, 0.8, 1.1),
            (20.0, 0.9, 1.1),
            (40.0, 0.9, 1.1),
            (160.0, 0.9, 1.1),
            (500.0, 0.9, 1.1),
            (1000.0, 0.8, 1.1),
        ] {
            let ratio = reading(hz) / reference;
            assert!(ratio > low && ratio < high, "{rate_hz} Hz: {hz} Hz reads {ratio} of 80 Hz");
        }
        // And little outside of the band.
        assert!(reading(2.0) / reference < 0.02);
        if rate_hz > 9000.0 {
            assert!(reading(4000.0) / reference < 0.03);
        }
    }
}

#[test]
fn velocity_says_where_its_band_ends_when_the_rate_is_low() {
    let filter = Velocity::new(10.0, 1000.0, 2000.0).unwrap();
    assert_eq!(filter.band_hz(), (10.0, 1000.0));
    assert_eq!(Velocity::new(10.0, 1000.0, 1000.0).unwrap().band_hz(), (10.0, 500.0));
    assert!(matches!(Velocity::new(10.0, 1000.0, 12.0), Err(DesignError::Corner { .. })));
    assert!(matches!(Velocity::new(10.0, 5.0, 2000.0), Err(DesignError::Corner { .. })));
    assert!(matches!(Velocity::new(10.0, 1000.0, f64::NAN), Err(DesignError::Rate { .. })));
}

#[test]
fn gravity_leaves_no_transient_when_the_filter_is_settled() {
    let mut filter = Velocity::new(10.0, 1000.0, 26_667.0).unwrap();
    let mut frames = vec![[0.0, GRAVITY as f32, 0.0, 0.0]; 1000];
    filter.settle(frames[0].map(f64::from));
    filter.process(&mut frames);
    assert!(frames.iter().flatten().all(|&value| value.abs() < 1e-6), "{:?}", frames[10]);
}

#[test]
fn velocity_stays_put_for_an_hour_of_a_drifting_offset() {
    // Trap 1: 5 mg of drift must not read as velocity.
    let rate_hz = 2000.0;
    let mut filter = Velocity::new(10.0, 1000.0, rate_hz).unwrap();
    let count = 3600 * 2000;
    let mut worst = 0.0_f64;
    filter.settle([GRAVITY; 4]);
    for start in (0..count).step_by(2000) {
        let at = |index: usize| (GRAVITY + 0.05 * (start + index) as f64 / count as f64) as f32;
        let frames: Vec<Frame> = (0..2000).map(|index| [at(index); 4]).collect();
        worst = worst.max((filter.energy(&frames)[0] / 2000.0).sqrt());
    }
    assert!(worst < 0.02, "{worst} mm/s");
}

#[test]
fn a_high_pass_at_10_hz_and_26_khz_follows_its_design() {
    let rate_hz = 26_667.0;
    let sections = butterworth_high_pass(8, 10.0, rate_hz).unwrap();
    for hz in [9.0, 10.0, 12.0, 100.0, 5000.0] {
        let mut filter = Cascade::<4>::new(&sections).unwrap();
        let frames = sine(hz, rate_hz, 1.0, 4 * 26_667);
        filter.settle([0.0, GRAVITY, 0.0, 0.0]);
        filter.energy(&frames[..3 * 26_667]);
        let sums = filter.energy(&frames[3 * 26_667..]);
        let want = gain(&sections, hz, rate_hz) / 2.0_f64.sqrt();
        for sum in &sums[..3] {
            assert!(
                ((sum / 26_667.0).sqrt() - want).abs() < 2e-4,
                "{hz} Hz: {} for {want}",
                (sum / 26_667.0).sqrt()
            );
        }
    }
    assert!(Cascade::<3>::new(&sections).is_none());
}

#[test]
fn a_filter_goes_on_bit_for_bit_from_its_saved_state_and_in_any_portions() {
    let frames = sine(33.0, 26_667.0, 3.0, 5000);
    let mut whole = Velocity::new(10.0, 1000.0, 26_667.0).unwrap();
    let mut parts = whole.clone();
    let mut expected = frames.clone();
    whole.process(&mut expected);
    let mut found = frames;
    for portion in found.chunks_mut(777) {
        parts.process(portion);
        let bytes = postcard::to_stdvec(&parts).unwrap();
        parts = postcard::from_bytes(&bytes).unwrap();
    }
    assert_eq!(found, expected);
    assert_eq!(parts, whole);
}

#[test]
fn moments_of_a_sine_are_those_of_the_closed_form_with_gravity_in() {
    for offset in [0.0, GRAVITY, -1000.0] {
        let samples: Vec<f32> = (0..4000)
            .map(|index| (offset + 2.0 * (2.0 * PI * f64::from(index) / 40.0).sin()) as f32)
            .collect();
        let moments = Moments::of(&samples);
        assert_eq!(moments.count, 4000);
        assert!((moments.mean - offset).abs() < 1e-4);
        assert!((moments.rms() - 2.0_f64.sqrt()).abs() < 1e-4, "{}", moments.rms());
        assert!((moments.peak() - 2.0).abs() < 1e-3);
        assert!((moments.peak_to_peak() - 4.0).abs() < 1e-3);
        assert!((moments.crest().unwrap() - 2.0_f64.sqrt()).abs() < 1e-3);
        assert!((moments.kurtosis().unwrap() - 1.5).abs() < 1e-3);
        assert!(moments.skewness().unwrap().abs() < 1e-3);
    }
}

#[test]
fn moments_of_nothing_and_of_a_constant_divide_by_nothing() {
    assert_eq!(Moments::of(&[]), Moments::EMPTY);
    assert_eq!((Moments::EMPTY.rms(), Moments::EMPTY.peak(), Moments::EMPTY.kurtosis()), (0.0, 0.0, None));
    let constant = Moments::of(&[GRAVITY as f32; 33]);
    assert_eq!(
        (constant.m2, constant.crest(), constant.kurtosis(), constant.skewness()),
        (0.0, None, None, None)
    );
}

proptest! {
    #[test]
    fn moments_of_parts_merge_to_those_of_the_whole(
        samples in prop::collection::vec(-100.0_f32..100.0, 2..400),
        offset in -1e4_f32..1e4,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let samples: Vec<f32> = samples.iter().map(|sample| sample + offset).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(samples.len())).collect();
        cuts.push(0);
        cuts.push(samples.len());
        cuts.sort_unstable();
        let mut merged = Moments::EMPTY;
        for pair in cuts.windows(2) {
            merged.merge(&Moments::of(&samples[pair[0]..pair[1]]));
        }
        let exact = |power: i32| {
            let mean = samples.iter().map(|&sample| f64::from(sample)).sum::<f64>() / samples.len() as f64;
            samples.iter().map(|&sample| (f64::from(sample) - mean).powi(power)).sum::<f64>()
        };
        let near = |found: f64, wanted: f64, size: f64| (found - wanted).abs() <= 1e-9 * size.max(1.0);
        for moments in [merged, Moments::of(&samples)] {
            prop_assert_eq!(moments.count as usize, samples.len());
            prop_assert!(near(moments.m2, exact(2), exact(2)));
            prop_assert!(near(moments.m3, exact(3), exact(2) * 200.0));
            prop_assert!(near(moments.m4, exact(4), exact(4)));
        }
        prop_assert_eq!(merged.min, samples.iter().copied().fold(f32::INFINITY, f32::min));
        prop_assert_eq!(merged.max, samples.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }

    #[test]
    fn planar_samples_become_frames_with_zeros_in_lanes_that_are_missing(axes in 1_usize..=8, per_channel in 1_usize..50) {
        let planar: Vec<f32> = (0..axes * per_channel).map(|index| index as f32 + 1.0).collect();
        for first in [0, 4] {
            let mut frames = vec![[-1.0; 4]; per_channel];
            to_frames(&planar, per_channel, first, &mut frames);
            for (index, frame) in frames.iter().enumerate() {
                for (lane, &value) in frame.iter().enumerate() {
                    let wanted = planar.get((first + lane) * per_channel + index);
                    prop_assert_eq!(value, if first + lane < axes { *wanted.unwrap() } else { 0.0 });
                }
            }
        }
    }
}

/// Amplitude that a unit sine at `hz` leaves after downsampling, in decibels.
fn decimated_db(factor: u32, hz: f64, rate_hz: f64) -> f64 {
    let mut decimator = Decimator::new(factor).unwrap();
    let outputs_skipped = 200;
    let count = (outputs_skipped + 400) * factor as usize;
    let mut outputs = Vec::new();
    decimator.push(&sine(hz, rate_hz, 1.0, count), |_, frame| outputs.push(f64::from(frame[0])));
    let kept = &outputs[outputs_skipped..];
    let power = kept.iter().map(|value| value * value).sum::<f64>() / kept.len() as f64;
    10.0 * (2.0 * power + 1e-30).log10()
}

#[test]
fn the_decimator_passes_its_band_flat_and_stops_the_rest_by_80_decibels() {
    let rate_hz = 26_667.0;
    for factor in [2, 3, 5, 8, 10, 13 * 2, 27, 48, 125, 250, 256] {
        let output_hz = rate_hz / f64::from(factor);
        // Amplitudes from the RMS of 400 outputs: frequencies are chosen off simple ratios of the rates.
        for part in [0.0531, 0.1234, 0.2513, 0.3371, 0.3987] {
            let db = decimated_db(factor, part * output_hz, rate_hz);
            assert!(db.abs() < 0.1, "by {factor}: {part} of the output rate passes at {db} dB");
        }
        let mut part = 0.5031;
        while part * output_hz < rate_hz / 2.0 {
            let db = decimated_db(factor, part * output_hz, rate_hz);
            assert!(db < -80.0, "by {factor}: {part} of the output rate passes at {db} dB");
            part *= 1.0917;
        }
    }
}

#[test]
fn each_output_is_centred_on_the_input_sample_it_names() {
    for (factor, start) in [(1, 5), (2, 3), (26, 1000), (48, 7), (250, 123_456_789)] {
        let mut decimator = Decimator::new(factor).unwrap();
        // A ramp comes out of a symmetric filter as it is.
        let frames: Vec<Frame> = (0..12_000).map(|index| [index as f32 / 1000.0, 1.0, -1.0, 0.0]).collect();
        decimator.restart(start, frames[0]);
        let mut outputs = Vec::new();
        for portion in frames.chunks(301) {
            decimator.push(portion, |index, frame| outputs.push((index, frame)));
        }
        let first = start.next_multiple_of(u64::from(factor));
        let settled = first + 2 * decimator.delay();
        for (position, &(index, frame)) in outputs.iter().enumerate() {
            assert_eq!(index, first + position as u64 * u64::from(factor));
            if index > settled {
                let wanted = (index - start) as f32 / 1000.0;
                assert!((frame[0] - wanted).abs() < 1e-4, "by {factor}: {} for {wanted}", frame[0]);
                assert!((frame[1] - 1.0).abs() < 1e-5);
            }
        }
        let last = outputs.last().unwrap().0;
        assert!(last + decimator.delay() < start + 12_000);
        assert!(last + u64::from(factor) + decimator.delay() >= start + 12_000);
    }
}

#[test]
fn a_decimator_goes_on_bit_for_bit_from_its_saved_state() {
    let frames = sine(33.0, 26_667.0, 3.0, 6000);
    let mut whole = Decimator::new(26).unwrap();
    let mut parts = Decimator::new(26).unwrap();
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    whole.push(&frames, |index, frame| expected.push((index, frame)));
    for portion in frames.chunks(511) {
        parts.push(portion, |index, frame| found.push((index, frame)));
        let bytes = postcard::to_stdvec(&parts).unwrap();
        parts = postcard::from_bytes(&bytes).unwrap();
    }
    assert_eq!(found, expected);
    let mut bytes = postcard::to_stdvec(&parts).unwrap();
    bytes[0] = 24;
    assert!(postcard::from_bytes::<Decimator>(&bytes).is_err());
}

#[test]
fn factors_that_no_stages_can_make_are_refused() {
    for factor in [0, 7, 17, 34, 257, 49, u32::MAX] {
        assert_eq!(Decimator::new(factor), Err(DesignError::Factor { factor }));
    }
    for factor in 1..=256 {
        let smooth = [2, 3, 5, 7, 11, 13].iter().fold(factor, |mut rest, prime| {
            while rest % prime == 0 {
                rest /= prime;
            }
            rest
        }) == 1;
        let ends = factor == 1 || [2, 3, 5].iter().any(|prime| factor % prime == 0);
        assert_eq!(Decimator::new(factor).is_ok(), smooth && ends, "factor {factor}");
    }
}
