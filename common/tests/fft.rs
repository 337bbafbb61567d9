//! Fourier transforms: against the defining sum, and the same on every machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use spindle_common::dsp::fft::{FftError, LEN_MAX, RealFft, is_len, next_len};
use spindle_common::dsp::{Demodulator, Frame, Lanes};
use std::f64::consts::PI;

fn noise(count: usize) -> Vec<Frame> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 65536.0 - 0.5
    };
    (0..count).map(|_| [next(), next(), next(), next()]).collect()
}

fn transform(fft: &mut RealFft, frames: &[Frame]) -> Vec<[[f32; 4]; 2]> {
    fft.run(frames.iter().map(|&frame| Lanes(frame))).iter().map(|bin| [bin.re.0, bin.im.0]).collect()
}

#[test]
fn every_lane_is_transformed_by_itself_as_the_defining_sum_says() {
    for len in [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 1536] {
        let frames = noise(len);
        let mut fft = RealFft::new(len).unwrap();
        for (bin, found) in transform(&mut fft, &frames).iter().enumerate() {
            for lane in 0..4 {
                let (mut re, mut im) = (0.0, 0.0);
                for (index, frame) in frames.iter().enumerate() {
                    let angle = -2.0 * PI * ((bin * index) % len) as f64 / len as f64;
                    re += f64::from(frame[lane]) * angle.cos();
                    im += f64::from(frame[lane]) * angle.sin();
                }
                let off = (f64::from(found[0][lane]) - re).hypot(f64::from(found[1][lane]) - im);
                assert!(off < 1e-6 * (len as f64).sqrt(), "{len}: bin {bin} lane {lane} is {off} off");
            }
        }
    }
}

#[test]
fn a_band_comes_back_as_the_analytic_signal_it_is() {
    // A tone of amplitude 3 in bin 100: its envelope is 3 everywhere.
    let len = 1024;
    let frames: Vec<Frame> = (0..len)
        .map(|index| [(3.0 * (2.0 * PI * 100.0 * index as f64 / len as f64).cos()) as f32; 4])
        .collect();
    let mut fft = RealFft::new(len).unwrap();
    let bins = fft.run(frames.into_iter().map(Lanes));
    let mut demodulator = Demodulator::new(64, 2).unwrap();
    assert_eq!(demodulator.len(), 128);
    for value in demodulator.run(&bins[80..144], 2.0 / len as f32) {
        assert!((value.re.0[2].hypot(value.im.0[2]) - 3.0).abs() < 1e-5);
    }
}

#[test]
fn only_powers_of_two_and_three_times_those_are_transformed() {
    for len in [0, 8, 12, 17, 20, 26, 144, 4095, LEN_MAX + 2, LEN_MAX * 3 / 2, LEN_MAX * 2, usize::MAX] {
        assert_eq!(RealFft::new(len).unwrap_err(), FftError::Len { len });
    }
    assert!(is_len(LEN_MAX) && is_len(49_152));
    for (at_least, len) in
        [(0, 16), (17, 24), (25, 32), (4096, 4096), (4097, 6144), (6145, 8192), (LEN_MAX, LEN_MAX)]
    {
        assert_eq!(next_len(at_least), Ok(len));
    }
    assert!(next_len(LEN_MAX + 1).is_err());
}

#[test]
fn twiddle_factors_round_to_the_same_single_whatever_the_platform_s_last_bits() {
    // `rustfft` takes sine and cosine from the platform, in double precision. Those may differ by a unit in the last place; none
    // lies so near the middle of two singles that two units would round it to the other.
    let check = |len: usize, index: usize| {
        let angle = -2.0 * PI / len as f64 * index as f64;
        for value in [angle.cos(), angle.sin()] {
            let step = 2.0 * f64::EPSILON;
            let rounded = [value * (1.0 - step), value, value * (1.0 + step)].map(|value| value as f32);
            assert!(rounded[0] == rounded[2] && rounded[1] == rounded[0], "{index} of {len}: {value:e}");
        }
    };
    // The angles of shorter ones are among those of the longest, to the bit: a factor of two changes no digit.
    for len in [LEN_MAX, LEN_MAX / 4 * 3] {
        for index in 0..len {
            check(len, index);
        }
    }
}

#[test]
fn a_transform_gives_the_bits_that_it_always_gave() {
    let mut found = Vec::new();
    for len in [1024, 2048, 6144, 12_288] {
        let mut fft = RealFft::new(len).unwrap();
        let bytes: Vec<u8> = transform(&mut fft, &noise(len))
            .as_flattened()
            .as_flattened()
            .iter()
            .flat_map(|value| value.to_bits().to_le_bytes())
            .collect();
        found.push(crc32c::crc32c(&bytes));
    }
    assert_eq!(found, [1_811_314_028, 3_769_439_984, 3_071_800_506, 437_730_748]);
}
