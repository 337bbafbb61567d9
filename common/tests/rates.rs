//! Rate conversion, displacement and conditioning.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use spindle_common::dsp::{
    Conditioner, Corner, DesignError, Displacement, Extremes, Frame, Resampler, butterworth_high_pass,
};
use std::f64::consts::PI;

const GRAVITY: f64 = 9.806_65;

fn sine(hz: f64, rate_hz: f64, count: usize) -> Vec<Frame> {
    let at = |index: usize| (2.0 * PI * hz * index as f64 / rate_hz).sin();
    (0..count).map(|index| [at(index) as f32, (at(index) + GRAVITY) as f32, -at(index) as f32, 0.0]).collect()
}

/// Rates as parts have them, to common ones: down, by a hair, up.
const RATES: [[f64; 2]; 6] = [
    [26_667.3, 25_600.0],
    [26_134.0, 26_667.0],
    [6_666.6, 25_600.0],
    [26_667.0, 6_400.0],
    [25_600.0, 3_200.0],
    [3_333.4, 25_600.0],
];

#[test]
fn a_resampled_sine_is_the_sine_at_the_instants_of_the_grid() {
    for [input_hz, output_hz] in RATES {
        let hz = 0.21 * input_hz.min(output_hz);
        let mut resampler = Resampler::new(input_hz, output_hz).unwrap();
        let mut worst = 0.0_f64;
        let mut count = 0;
        let skip = 4 * resampler.delay() as u64 * (1 + (output_hz / input_hz) as u64);
        for portion in sine(hz, input_hz, 20_000).chunks(333) {
            resampler.push(portion, |number, frame| {
                assert_eq!(number, count);
                count += 1;
                if number > skip {
                    let wanted = (2.0 * PI * hz * number as f64 / output_hz).sin();
                    worst = worst.max((f64::from(frame[0]) - wanted).abs());
                    worst = worst.max((f64::from(frame[1]) - GRAVITY - wanted).abs());
                }
            });
        }
        let wanted = (20_000.0 - resampler.delay() as f64) * output_hz / input_hz;
        assert!((count as f64 - wanted).abs() <= 2.0, "{count} for {wanted}");
        assert!(worst < 3e-4, "{input_hz} to {output_hz} Hz: {worst} off");
    }
}

/// Largest amplitude that a unit sine leaves after conversion, dB.
fn converted_db(hz: f64, input_hz: f64, output_hz: f64) -> f64 {
    let mut resampler = Resampler::new(input_hz, output_hz).unwrap();
    let mut outputs = Vec::new();
    let count = (3000.0 * (input_hz / output_hz).max(1.0)) as usize;
    resampler.push(&sine(hz, input_hz, count), |_, frame| outputs.push(f64::from(frame[0])));
    let kept = &outputs[outputs.len() / 3..];
    let power = kept.iter().map(|value| value * value).sum::<f64>() / kept.len() as f64;
    10.0 * (2.0 * power + 1e-30).log10()
}

#[test]
fn the_resampler_passes_its_band_flat_and_stops_the_rest_by_80_decibels() {
    for [input_hz, output_hz] in RATES {
        let lower = input_hz.min(output_hz);
        for part in [0.0531, 0.1234, 0.2513, 0.3371, 0.3987] {
            let db = converted_db(part * lower, input_hz, output_hz);
            assert!(db.abs() < 0.1, "{input_hz} to {output_hz} Hz: {part} passes at {db} dB");
        }
        let mut part = 0.5031;
        while part * lower < input_hz / 2.0 {
            let db = converted_db(part * lower, input_hz, output_hz);
            assert!(db < -80.0, "{input_hz} to {output_hz} Hz: {part} passes at {db} dB");
            part *= 1.0917;
        }
    }
}

#[test]
fn what_upsampling_adds_is_80_decibels_down() {
    // All but the tone itself: what its best fit leaves.
    let (input_hz, output_hz) = (6_666.6, 25_600.0);
    for part in [0.1, 0.27, 0.399] {
        let hz = part * input_hz;
        let mut outputs = Vec::new();
        let mut resampler = Resampler::new(input_hz, output_hz).unwrap();
        resampler
            .push(&sine(hz, input_hz, 8000), |number, frame| outputs.push((number, f64::from(frame[0]))));
        let kept = &outputs[outputs.len() / 3..];
        let (mut sin, mut cos) = (0.0, 0.0);
        for &(number, value) in kept {
            let angle = 2.0 * PI * hz * number as f64 / output_hz;
            sin += 2.0 * value * angle.sin() / kept.len() as f64;
            cos += 2.0 * value * angle.cos() / kept.len() as f64;
        }
        let rest = kept.iter().map(|&(number, value)| {
            let angle = 2.0 * PI * hz * number as f64 / output_hz;
            value - sin * angle.sin() - cos * angle.cos()
        });
        let rest = (rest.map(|value| value * value).sum::<f64>() / kept.len() as f64).sqrt();
        // The fit over parts of a period is itself good to some 1e-5 only where it is not; -80 dB is 7e-5 RMS.
        assert!(rest < 7e-5, "{part}: {rest}");
    }
}

#[test]
fn a_resampler_steers_after_the_sensor_s_clock() {
    // The sensor turns out to be 0.3 % fast after a while: outputs stay on the grid's instants.
    let output_hz = 25_600.0;
    let mut resampler = Resampler::new(26_667.0, output_hz).unwrap();
    resampler.restart(1000, [1.0; 4], 7, 0.25);
    assert_eq!(resampler.next(), (7, 1000, 0.25));
    resampler.push(&[[1.0; 4]; 500], |_, _| ());
    let (number, index, fraction) = resampler.next();
    let place = 1000.25 + (number - 7) as f64 * 26_667.0 / output_hz;
    assert!((index as f64 + fraction - place).abs() < 1e-6, "{index} {fraction} for {place}");
    resampler.steer(26_747.0 / output_hz).unwrap();
    resampler.push(&[[1.0; 4]; 500], |_, frame| assert!((frame[0] - 1.0).abs() < 1e-6));
    let (after, index, fraction) = resampler.next();
    let place = place + (after - number) as f64 * 26_747.0 / output_hz;
    assert!((index as f64 + fraction - place).abs() < 1e-6, "{index} {fraction} for {place}");
    assert!(resampler.steer(1.2).is_err() && resampler.steer(f64::NAN).is_err());
    // Beyond what any sensor reaches, it goes on from the largest index there is.
    resampler.restart(u64::MAX, [0.0; 4], u64::MAX, f64::INFINITY);
    resampler.push(&[[0.0; 4]; 500], |_, _| panic!("the next output lies far ahead"));
    resampler.restart(u64::MAX, [0.0; 4], u64::MAX, f64::NAN);
    let mut count = 0;
    resampler.push(&[[0.0; 4]; 500], |_, _| count += 1);
    assert!(count > 400);
    // Ten years at 25.6 kHz: the place is still good to a billionth of a sample.
    let mut resampler = Resampler::new(26_667.0, 26_667.0 / 3.0 * 2.0).unwrap();
    let start = 10 * 366 * 86_400 * 26_667_u64;
    resampler.restart(start, [0.0; 4], 0, 0.0);
    resampler.push(&vec![[0.0; 4]; 3003], |_, _| ());
    let (number, index, fraction) = resampler.next();
    let since = (index - start) as f64 + fraction;
    assert!((since - 1.5 * number as f64).abs() < 1e-9, "{since} after {number}");
}

#[test]
fn a_resampler_goes_on_bit_for_bit_from_its_saved_state_and_in_any_portions() {
    for [input_hz, output_hz] in [[26_667.3, 25_600.0], [6_666.6, 25_600.0], [25_600.0, 3_200.0]] {
        let frames = sine(33.0, input_hz, 4000);
        let mut whole = Resampler::new(input_hz, output_hz).unwrap();
        let mut parts = whole.clone();
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        whole.push(&frames, |number, frame| expected.push((number, frame)));
        for portion in frames.chunks(177) {
            parts.push(portion, |number, frame| found.push((number, frame)));
            let bytes = postcard::to_stdvec(&parts).unwrap();
            parts = postcard::from_bytes(&bytes).unwrap();
        }
        assert_eq!(found, expected);
    }
    let mut saved = serde_json::to_value(Resampler::new(1000.0, 900.0).unwrap()).unwrap();
    saved["first"] = 77.into();
    assert!(serde_json::from_value::<Resampler>(saved).is_err());
    for [input_hz, output_hz] in
        [[0.0, 1.0], [1.0, 0.0], [9.0, 1.0], [1.0, 9.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0]]
    {
        assert!(Resampler::new(input_hz, output_hz).is_err(), "{input_hz} to {output_hz} Hz");
    }
}

/// Peak to peak in µm of a displacement of 1 µm amplitude at `hz`, with gravity.
fn displacement(hz: f64, rate_hz: f64) -> f64 {
    let omega = 2.0 * PI * hz;
    let count = 4 * rate_hz as usize;
    let at = |index: usize| GRAVITY - 1e-6 * omega * omega * (omega * index as f64 / rate_hz).sin();
    let frames: Vec<Frame> = (0..count).map(|index| [at(index) as f32; 4]).collect();
    let mut filter = Displacement::new(10.0, 1000.0, rate_hz).unwrap();
    filter.settle([GRAVITY; 4]);
    let (start, rest) = frames.split_at(count / 2);
    assert!(filter.settle_len() < count as u64 / 2);
    filter.extremes(start, &mut Extremes::EMPTY.clone());
    let mut extremes = Extremes::EMPTY;
    filter.extremes(rest, &mut extremes);
    extremes.peak_to_peak()[3]
}

#[test]
fn displacement_reads_two_micrometres_for_one_of_amplitude_within_its_band() {
    for rate_hz in [4000.0, 6666.7, 26_667.0] {
        for (hz, low, high) in [
            (10.0, 0.82, 0.88),
            (20.0, 0.98, 1.01),
            (80.0, 0.99, 1.01),
            (160.0, 0.99, 1.01),
            (500.0, 0.96, 1.02),
            (1000.0, 0.8, 0.9),
        ] {
            let ratio = displacement(hz, rate_hz) / 2.0;
            assert!(ratio > low && ratio < high, "{hz} Hz at {rate_hz} Hz reads {ratio}");
        }
    }
    assert!(Displacement::new(10.0, 5.0, 4000.0).is_err());
    assert_eq!(Displacement::new(10.0, 1000.0, 1000.0).unwrap().band_hz(), (10.0, 500.0));
}

#[test]
fn a_band_is_limited_and_gravity_taken_off_at_the_measured_rate() {
    let rate_hz = 26_134.0;
    let corner = |hz| Some(Corner { hz, order: 4 });
    let mut band = Conditioner::<4>::new(corner(1000.0), corner(10_000.0), rate_hz).unwrap();
    for (hz, low, high) in
        [(100.0, 0.0, 1e-3), (1000.0, 0.706, 0.708), (4000.0, 0.99, 1.0), (10_000.0, 0.706, 0.708)]
    {
        let frames = sine(hz, rate_hz, 26_134);
        band.settle(frames[0].map(f64::from));
        band.energy(&frames[..13_067]);
        let sums = band.energy(&frames[13_067..]);
        let gains = sums.map(|sum| (2.0 * sum / 13_067.0).sqrt());
        assert!(
            gains[0] >= low && gains[0] <= high && (gains[1] - gains[0]).abs() < 1e-4,
            "{hz} Hz: {gains:?}"
        );
    }
    assert!(matches!(
        Conditioner::<3>::new(corner(10.0), corner(20.0), rate_hz),
        Err(DesignError::Order { .. })
    ));
    assert!(matches!(
        Conditioner::<4>::new(corner(20.0), corner(10.0), rate_hz),
        Err(DesignError::Corner { .. })
    ));
    assert!(matches!(
        Conditioner::<4>::new(corner(14_000.0), None, rate_hz),
        Err(DesignError::Corner { .. })
    ));
    // Open to both sides, everything passes.
    let mut open = Conditioner::<1>::new(None, None, rate_hz).unwrap();
    let mut frames = sine(100.0, rate_hz, 100);
    open.process(&mut frames);
    assert_eq!(frames, sine(100.0, rate_hz, 100));
    // A step dies away within the settling time.
    for order in [1, 2, 4, 8] {
        let mut high = Conditioner::<4>::new(Some(Corner { hz: 10.0, order }), None, rate_hz).unwrap();
        let mut left = 0.0;
        let settle = high.settle_len() as usize;
        high.run(&vec![[1.0; 4]; settle + 100], |values| left = values[0]);
        assert!(left.abs() < 1e-3, "order {order}: {left}");
    }
}

#[test]
fn a_10_hz_corner_at_26_khz_holds_in_double_states_and_not_in_single_ones() {
    // The same section, transposed direct form II, with gravity in: noise of the single states against the double ones.
    let rate_hz = 26_667.0;
    let section = butterworth_high_pass(2, 10.0, rate_hz).unwrap()[0];
    let frames = sine(80.0, rate_hz, 53_334);
    let mut double = Conditioner::<1>::new(Some(Corner { hz: 10.0, order: 2 }), None, rate_hz).unwrap();
    double.settle([0.0, GRAVITY, 0.0, 0.0]);
    let mut wanted = Vec::new();
    double.run(&frames, |values| wanted.push(values[1]));
    let ([b0, b1, b2], [a1, a2]) = (section.b.map(|b| b as f32), section.a.map(|a| a as f32));
    let x = GRAVITY as f32;
    let (mut first, mut second) = (-b0 * x, b2 * x);
    let mut worst = 0.0_f64;
    let mut sum = 0.0_f64;
    for (frame, wanted) in frames.iter().zip(&wanted) {
        let x = frame[1];
        let y = b0 * x + first;
        first = b1 * x - a1 * y + second;
        second = b2 * x - a2 * y;
        worst = worst.max((f64::from(y) - wanted).abs());
        sum += f64::from(y) - wanted;
    }
    // The double one against a gain that is known: 0.9999 at 80 Hz.
    let rms = (wanted[26_667..].iter().map(|y| y * y).sum::<f64>() / 26_667.0).sqrt();
    let exact = spindle_common::dsp::gain(&[section], 80.0, rate_hz) * 0.5_f64.sqrt();
    assert!((rms / exact - 1.0).abs() < 1e-6, "{rms} for {exact}");
    // Near a thousandth of g, ten thousand times what rounding the samples does.
    assert!(worst > 0.005, "single states are off by {worst} m/s², {} on average", sum / 53_334.0);
}
