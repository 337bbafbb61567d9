//! Spectra and bands against closed forms.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use spindle_common::dsp::band::{log_bands, third_octaves};
use spindle_common::dsp::{
    Analyser, Averaging, BandSum, Bin, Frame, Grid, Moments, Scaling, Segmenter, Welch, Window,
};
use std::f64::consts::PI;

const RATE_HZ: f64 = 25_600.0;
const LEN: usize = 4096;
const WINDOWS: [Window; 3] = [Window::Rectangular, Window::Hann, Window::FlatTop];

fn sine(hz: f64, amplitude: f64, count: usize) -> Vec<Frame> {
    let at = |index: usize| (amplitude * (2.0 * PI * hz * index as f64 / RATE_HZ).sin()) as f32;
    (0..count).map(|index| [at(index), at(index) + 9.806_65, -at(index), 0.0]).collect()
}

/// White, of variance 1/12, around gravity on the second lane.
fn noise(count: usize) -> Vec<Frame> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 65536.0 - 0.5
    };
    (0..count).map(|_| [next(), next() + 9.806_65, next(), 0.0]).collect()
}

fn spectrum(frames: &[Frame], window: Window, scaling: Scaling) -> Vec<Bin> {
    let mut analyser = Analyser::new(LEN, window).unwrap();
    let mut welch = Welch::new(LEN, LEN / 2, Averaging::Linear);
    welch.push(frames, &mut analyser);
    let mut out = vec![[0.0; 4]; LEN / 2 + 1];
    welch.average().write(&analyser.scale(scaling, RATE_HZ), &mut out);
    out
}

fn grid() -> Grid {
    Grid { len: LEN, rate_hz: RATE_HZ }
}

fn decibels(ratio: f64) -> f64 {
    20.0 * ratio.log10()
}

#[test]
fn a_line_on_a_bin_reads_its_amplitude_through_every_window() {
    let hz = grid().hz(160);
    for window in WINDOWS {
        let frames = sine(hz, 2.0, LEN);
        for (scaling, wanted) in [(Scaling::Peak, 2.0), (Scaling::Rms, 2.0_f64.sqrt()), (Scaling::Power, 2.0)]
        {
            let found = spectrum(&frames, window, scaling);
            for lane in 0..3 {
                assert!((found[160][lane] - wanted).abs() < 1e-5, "{window:?} {scaling:?}: {:?}", found[160]);
            }
            assert_eq!(found[160][3], 0.0);
        }
    }
}

#[test]
fn a_line_between_two_bins_loses_what_the_window_says() {
    for window in WINDOWS {
        let found = spectrum(&sine(grid().hz(160) + grid().step_hz() / 2.0, 2.0, LEN), window, Scaling::Peak);
        let loss = decibels(found[160][0] / 2.0);
        // Without a window the line's mirror image leaks in as well.
        assert!((loss - window.scalloping_db()).abs() < 0.02, "{window:?}: {loss} dB");
    }
}

#[test]
fn the_density_of_any_signal_integrates_to_its_variance() {
    // Exactly so (Parseval) without a window.
    for frames in [noise(LEN), sine(1234.5, 3.0, LEN)] {
        let planar: Vec<f32> = frames.iter().map(|frame| frame[1]).collect();
        let variance = Moments::of(&planar).variance();
        let density = spectrum(&frames, Window::Rectangular, Scaling::Density);
        let all = BandSum::new(0.0, RATE_HZ / 2.0, grid()).unwrap();
        let found = all.mean_square(&density)[1];
        assert!((found / variance - 1.0).abs() < 1e-5, "{found} for {variance}");
    }
    // On average with one.
    for window in [Window::Hann, Window::FlatTop] {
        let density = spectrum(&noise(200 * LEN), window, Scaling::Density);
        let level = density[100..1900].iter().map(|bin| bin[0]).sum::<f64>() / 1800.0;
        let wanted = 2.0 / 12.0 / RATE_HZ;
        assert!((level / wanted - 1.0).abs() < 0.005, "{window:?}: {level:e} for {wanted:e}");
    }
}

#[test]
fn bands_that_touch_add_up_to_the_whole_and_share_the_bins_between_them() {
    let density: Vec<Bin> = (0..=LEN / 2).map(|bin| [1.0 + bin as f64; 4]).collect();
    let all = BandSum::new(0.0, f64::MAX, grid()).unwrap();
    assert_eq!(all.edges_hz(), [0.0, RATE_HZ / 2.0]);
    assert_eq!(all.bins(), LEN / 2 + 1);
    let step = grid().step_hz();
    let whole: f64 = density.iter().map(|bin| bin[0]).sum::<f64>() * step;
    assert!((all.mean_square(&density)[0] / whole - 1.0).abs() < 1e-12);
    let edges = [0.0, 0.3 * step, 1.4 * step, 1.45 * step, 10.0, 1000.0, 1003.0, 6400.5, RATE_HZ / 2.0];
    let parts: f64 = edges
        .windows(2)
        .map(|edge| BandSum::new(edge[0], edge[1], grid()).unwrap().mean_square(&density)[0])
        .sum();
    assert!((parts / whole - 1.0).abs() < 1e-12, "{parts} for {whole}");
    // A quarter of bin 10 (11), all of bin 11 (12), half of bin 12 (13).
    let band = BandSum::new(10.25 * step, 12.0 * step, grid()).unwrap();
    let wanted = (0.25 * 11.0 + 12.0 + 0.5 * 13.0) * step;
    assert!((band.mean_square(&density)[2] - wanted).abs() < 1e-9);
    for [low, high] in [[5.0, 5.0], [6.0, 5.0], [RATE_HZ / 2.0, RATE_HZ], [f64::NAN, 5.0], [1.0, f64::NAN]] {
        assert_eq!(BandSum::new(low, high, grid()), None, "{low} to {high}");
    }
}

#[test]
fn a_tone_s_band_reads_its_rms_wherever_it_lies_between_bins() {
    for part in [0.0, 0.21, 0.5, 0.83] {
        let density = spectrum(
            &sine(grid().hz(320) + part * grid().step_hz(), 1.0, 8 * LEN),
            Window::Hann,
            Scaling::Density,
        );
        let band = BandSum::new(1900.0, 2100.0, grid()).unwrap();
        let rms = band.rms(&density)[0];
        assert!((rms - 0.5_f64.sqrt()).abs() < 1e-4, "{rms}");
    }
}

#[test]
fn third_octaves_have_the_exact_centres_and_edges_of_base_ten() {
    let bands: Vec<_> = third_octaves(10.0, 10_000.0).collect();
    assert_eq!(bands.len(), 31);
    assert!((bands[0].centre_hz - 10.0).abs() < 1e-9 && (bands[30].centre_hz - 10_000.0).abs() < 1e-6);
    // Nominal 31.5 Hz.
    assert!((bands[5].centre_hz - 31.622_776_601_683_8).abs() < 1e-9);
    for pair in bands.windows(2) {
        assert!((pair[0].high_hz / pair[1].low_hz - 1.0).abs() < 1e-12);
    }
    assert!(
        (bands[20].low_hz - 891.250_938).abs() < 1e-5 && (bands[20].high_hz - 1_122.018_454).abs() < 1e-5
    );
}

#[test]
fn twenty_fourths_of_an_octave_from_80_hz_are_86_up_to_959() {
    let bands: Vec<_> = log_bands(80.0, 24, 960.0).collect();
    assert_eq!((bands.len(), bands[0].low_hz), (86, 80.0));
    assert!((bands[85].high_hz - 958.9).abs() < 0.1, "{}", bands[85].high_hz);
    assert!((bands[24].low_hz - 160.0).abs() < 1e-9);
    assert_eq!(log_bands(0.0, 24, 1000.0).count(), 0);
}

#[test]
fn averages_count_linearly_exponentially_or_hold_the_peak() {
    let squares = |value: f32| vec![[value; 4]; 9];
    let read = |averaging, values: &[f32]| {
        let mut average = spindle_common::dsp::Average::new(averaging, 9);
        for &value in values {
            average.add(&squares(value));
        }
        let mut out = vec![[0.0; 4]; 9];
        let scale = spindle_common::dsp::Scale::new(
            Scaling::Power,
            Window::Rectangular,
            Grid { len: 16, rate_hz: 16.0 },
        );
        average.write(&scale, &mut out);
        // Zero and half the rate count once, the others twice.
        assert_eq!(out[0][0] * 2.0, out[1][0]);
        assert_eq!(out[8][0] * 2.0, out[1][0]);
        out[1][0] * 256.0 / 2.0
    };
    assert_eq!(read(Averaging::Linear, &[1.0, 2.0, 6.0]), 3.0);
    assert_eq!(read(Averaging::PeakHold, &[1.0, 6.0, 2.0]), 6.0);
    // Mean of the first two, then half of each new one.
    assert_eq!(read(Averaging::Exponential { count: 2 }, &[1.0, 2.0, 6.0]), 3.75);
    assert_eq!(read(Averaging::Linear, &[]), 0.0);
}

#[test]
fn a_welch_average_goes_on_bit_for_bit_from_its_saved_state_and_in_any_portions() {
    let frames = noise(5 * LEN + 77);
    let mut analyser = Analyser::new(LEN, Window::Hann).unwrap();
    let mut whole = Welch::new(LEN, LEN / 4, Averaging::Exponential { count: 7 });
    let mut parts = whole.clone();
    whole.push(&frames, &mut analyser);
    for portion in frames.chunks(1777) {
        parts.push(portion, &mut analyser);
        let bytes = postcard::to_stdvec(&parts).unwrap();
        parts = postcard::from_bytes(&bytes).unwrap();
    }
    assert_eq!(whole, parts);
    assert_eq!(whole.average().count(), 17);
    assert_eq!(whole.segmenter().needs_from(), 17 * LEN as u64 / 4);
}

#[test]
fn no_segment_spans_a_gap_and_a_damaged_state_is_refused() {
    let mut segmenter = Segmenter::new(100, 50);
    let mut starts = Vec::new();
    segmenter.push(&noise(170), |first, _| starts.push(first));
    segmenter.restart(1000);
    segmenter.push(&noise(199), |first, segment| {
        assert_eq!(segment.len(), 100);
        starts.push(first);
    });
    assert_eq!(starts, [0, 50, 1000, 1050]);
    let mut saved = serde_json::to_value(&segmenter).unwrap();
    saved["hop"] = 101.into();
    assert!(serde_json::from_value::<Segmenter>(saved.clone()).is_err());
    saved["hop"] = 0.into();
    assert!(serde_json::from_value::<Segmenter>(saved).is_err());
}
