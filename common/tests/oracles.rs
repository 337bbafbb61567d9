//! Spectra and what is read from them against scipy and endaq: the numbers in `golden/spectra.json`, made by
//! `tests/oracles/spectra.py`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use serde_json::Value;
use spindle_common::dsp::band::third_octaves;
use spindle_common::dsp::{
    Analyser, Average, Averaging, BandSum, Bin, Displacement, Envelope, Extremes, Fitness, Frame, Grid,
    Kurtogram, Moments, Resampler, Scaling, Segmenter, Velocity, Welch, Window,
};
use std::f64::consts::PI;

const GRAVITY: f64 = 9.806_65;

fn golden() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/spectra.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

struct Golden {
    all: Value,
    rate_hz: f64,
    count: usize,
    len: usize,
    keep: usize,
}

impl Golden {
    fn new() -> Self {
        let all = golden();
        let count = |name: &str| all[name].as_u64().unwrap() as usize;
        let (rate_hz, keep) = (number(&all["rate_hz"]), count("keep"));
        Self { rate_hz, count: count("count"), len: count("len"), keep, all }
    }

    fn grid(&self) -> Grid {
        Grid { len: self.len, rate_hz: self.rate_hz }
    }

    /// The same signals as the oracle's.
    fn signal(&self, name: &str) -> Vec<f32> {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 16) / 65536.0 - 0.5
        };
        let period = 1.0 / (3.5848 * 29.95);
        let seconds = self.count as f64 / self.rate_hz;
        let [mut one, mut two] = [0.0; 2];
        let at = |index: usize| {
            let time = index as f64 / self.rate_hz;
            let tone = |hz: f64| (2.0 * PI * hz * time).sin();
            let noise = noise();
            let value = match name {
                "tones" | "clipped" => {
                    12.0 * tone(97.3) + 5.0 * tone(480.0) + 2.0 * tone(3170.7) + 0.5 * noise + GRAVITY
                }
                "impacts" => {
                    let since = time % period;
                    15.0 * (2.0 * PI * 5000.0 * since).sin() * (-since / 0.0005).exp()
                        + 2.0 * tone(29.95)
                        + 3.0 * noise
                }
                "coloured" => {
                    let value = 1.6 * one - 0.8 * two + noise;
                    (one, two) = (value, one);
                    value
                }
                "sweep" => {
                    4.0 * (2.0 * PI * (20.0 * time + (8000.0 - 20.0) / (2.0 * seconds) * time * time)).sin()
                }
                _ => panic!("no signal {name}"),
            };
            value as f32
        };
        let limit = if name == "clipped" { number(&self.all["limit"]) as f32 } else { f32::MAX };
        (0..self.count).map(at).map(|value| value.clamp(-limit, limit)).collect()
    }

    fn frames(&self, name: &str) -> Vec<Frame> {
        self.signal(name).into_iter().map(|value| [0.0, value, 0.0, -value]).collect()
    }

    fn welch(&self, name: &str, window: Window, scaling: Scaling) -> Vec<Bin> {
        let mut analyser = Analyser::new(self.len, window).unwrap();
        let mut welch = Welch::new(self.len, self.len / 2, Averaging::Linear);
        welch.push(&self.frames(name), &mut analyser);
        let mut out = vec![[0.0; 4]; self.len / 2 + 1];
        welch.average().write(&analyser.scale(scaling, self.rate_hz), &mut out);
        out
    }

    /// Compares every kept bin, lane by lane.
    fn compare(&self, what: &str, found: &[Bin], wanted: &[f64], relative: f64, absolute: f64) {
        assert_eq!(found.iter().step_by(self.keep).count(), wanted.len(), "{what}");
        for (index, (found, wanted)) in found.iter().step_by(self.keep).zip(wanted).enumerate() {
            for found in [found[1], found[3]] {
                let off = (found - wanted).abs();
                assert!(
                    off < relative * wanted.abs() + absolute,
                    "{what}: {index}: {found:e} for {wanted:e}"
                );
            }
        }
    }
}

fn window(name: &Value) -> Window {
    serde_json::from_value(name.clone()).unwrap()
}

#[test]
fn windows_are_those_of_scipy() {
    let golden = Golden::new();
    for case in golden.all["windows"].as_array().unwrap() {
        let window = window(&case["window"]);
        for (place, wanted) in numbers(&case["values"]).into_iter().enumerate() {
            let found = window.at(97 * place, golden.len);
            // Both in double precision.
            assert!((found - wanted).abs() < 1e-14, "{window:?} {place}: {found} for {wanted}");
        }
        assert!((window.coherent_gain() - number(&case["gain"])).abs() < 1e-12);
        assert!((window.enbw_bins() - number(&case["enbw"])).abs() < 1e-9);
    }
}

#[test]
fn welch_spectra_are_those_of_scipy() {
    let golden = Golden::new();
    for case in golden.all["spectra"].as_array().unwrap() {
        let name = case["signal"].as_str().unwrap();
        let window = window(&case["window"]);
        for (scaling, key) in [(Scaling::Density, "density"), (Scaling::Power, "power")] {
            let wanted = numbers(&case[key]);
            let found = golden.welch(name, window, scaling);
            let largest = found.iter().fold(0.0, |largest: f64, bin| largest.max(bin[1]));
            // Single-precision transforms: amplitudes good to a millionth of the bin's own, and 1e-7 of the largest line's.
            golden.compare(&format!("{name} {window:?} {key}"), &found, &wanted, 2e-5, largest * 1e-12);
        }
    }
}

#[test]
fn a_density_is_that_of_endaq_too_and_that_of_the_model_that_made_the_noise() {
    let golden = Golden::new();
    let found = golden.welch("coloured", Window::Hann, Scaling::Density);
    // endaq computes in its own way of choosing lengths: the same to single precision here.
    golden.compare("endaq", &found, &numbers(&golden.all["endaq_density"]), 2e-5, 1e-13);
    // The model's density, averaged over bands; 31 averages of a band of 20 bins scatter by some percent.
    let model = |hz: f64| {
        let angle = 2.0 * PI * hz / golden.rate_hz;
        let re = 1.0 - 1.6 * angle.cos() + 0.8 * (2.0 * angle).cos();
        let im = 1.6 * angle.sin() - 0.8 * (2.0 * angle).sin();
        2.0 / 12.0 / golden.rate_hz / (re * re + im * im)
    };
    for first in (20..1000).step_by(20) {
        let bins = first..first + 20;
        let wanted: f64 = bins.clone().map(|bin| model(golden.grid().hz(bin))).sum();
        let found: f64 = bins.map(|bin| found[bin][1]).sum();
        assert!((found / wanted - 1.0).abs() < 0.25, "{first}: {found:e} for {wanted:e}");
    }
}

#[test]
fn a_gap_leaves_the_spectrum_of_what_is_on_both_its_sides() {
    let golden = Golden::new();
    let frames = golden.frames("tones");
    let gap: Vec<usize> = numbers(&golden.all["gap"]).iter().map(|&at| at as usize).collect();
    let mut analyser = Analyser::new(golden.len, Window::Hann).unwrap();
    let mut segmenter = Segmenter::new(golden.len, golden.len / 2);
    let mut average = Average::new(Averaging::Linear, golden.len / 2 + 1);
    segmenter.push(&frames[..gap[0]], |_, segment| average.add(analyser.squares(segment)));
    segmenter.restart(gap[1] as u64);
    segmenter.push(&frames[gap[1]..], |_, segment| average.add(analyser.squares(segment)));
    let mut out = vec![[0.0; 4]; golden.len / 2 + 1];
    average.write(&analyser.scale(Scaling::Density, golden.rate_hz), &mut out);
    golden.compare("gapped", &out, &numbers(&golden.all["gapped_density"]), 2e-5, 1e-10);
}

#[test]
fn third_octaves_from_bins_come_near_to_filters() {
    let golden = Golden::new();
    let density = golden.welch("coloured", Window::Hann, Scaling::Density);
    let wanted = golden.all["third_octaves"].as_array().unwrap();
    for (band, wanted) in third_octaves(199.0, 5020.0).zip(wanted) {
        let [centre, rms] = [number(&wanted[0]), number(&wanted[1])];
        assert!((band.centre_hz / centre - 1.0).abs() < 1e-12);
        let found = BandSum::new(band.low_hz, band.high_hz, golden.grid()).unwrap().rms(&density)[1];
        // Bands of 46 Hz and more of noise that lasts a second, cut by other skirts: within 15 % below 500 Hz, 4 % above.
        let tolerance = if centre < 500.0 { 0.15 } else { 0.04 };
        assert!((found / rms - 1.0).abs() < tolerance, "{centre} Hz: {found} for {rms}");
    }
}

#[test]
fn the_envelope_spectrum_is_that_of_the_hilbert_transform() {
    let golden = Golden::new();
    let case = &golden.all["envelope"];
    let len = case["len"].as_u64().unwrap() as usize;
    let mut envelope =
        Envelope::new(len, number(&case["low_hz"]), number(&case["high_hz"]), golden.rate_hz).unwrap();
    let mut average = Average::new(Averaging::Linear, envelope.grid().bins());
    average.add(envelope.squares(&golden.frames("impacts")[..len]));
    let mut out = vec![[0.0; 4]; envelope.grid().bins()];
    average.write(&envelope.scale(Scaling::Peak), &mut out);
    // Bin 0 is no line: what is left of the mean through the window, single-sided here and doubled there.
    out[0] = [numbers(&case["peak"])[0]; 4];
    // Single precision of a squared envelope that reaches some hundred (m/s²)².
    golden.compare("envelope", &out[..1200], &numbers(&case["peak"]), 1e-4, 2e-5);
}

#[test]
fn kurtosis_by_band_is_that_of_the_analytic_signal() {
    let golden = Golden::new();
    let case = &golden.all["kurtosis"];
    let len = case["len"].as_u64().unwrap() as usize;
    let mut kurtogram = Kurtogram::new(len, 8).unwrap();
    let found = kurtogram.run(&golden.frames("impacts")[..len], golden.rate_hz);
    // Levels of 1, 2, 3, 4, 6, 8 bands.
    for (first, bands) in [(1, 2), (3, 3), (16, 8)] {
        let wanted = numbers(&case["bands"][bands.to_string()]);
        for (found, wanted) in found[first..first + bands].iter().zip(wanted) {
            for lane in [1, 3] {
                // Both sum the same fourth power, at two rates; the cut ends fall between other samples.
                let off = (found.kurtosis[lane] - wanted).abs();
                assert!(off < 1e-3 * (1.0 + wanted.abs()), "{bands}: {found:?} for {wanted}");
            }
        }
    }
}

#[test]
fn velocity_and_displacement_are_those_of_endaq_within_its_filters() {
    let golden = Golden::new();
    let wanted = numbers(&golden.all["integrals"]);
    let frames = golden.frames("tones");
    let middle = golden.count / 4..3 * golden.count / 4;
    let mut velocity = Velocity::new(10.0, 1000.0, golden.rate_hz).unwrap();
    velocity.settle([GRAVITY; 4].map(|gravity| gravity));
    velocity.energy(&frames[..middle.start]);
    let rms = (velocity.energy(&frames[middle.clone()])[1] / middle.len() as f64).sqrt();
    // Tones at 97 and 480 Hz make it; endaq has no upper edge and another lower one.
    assert!((rms / wanted[0] - 1.0).abs() < 0.01, "{rms} for {} mm/s", wanted[0]);
    let mut displacement = Displacement::new(10.0, 1000.0, golden.rate_hz).unwrap();
    displacement.settle([GRAVITY; 4]);
    displacement.extremes(&frames[..middle.start], &mut Extremes::EMPTY.clone());
    let mut extremes = Extremes::EMPTY;
    displacement.extremes(&frames[middle], &mut extremes);
    let found = extremes.peak_to_peak()[1];
    // Noise near 10 Hz, of which both filters leave another part, is in it.
    assert!((found / wanted[1] - 1.0).abs() < 0.03, "{found} for {} µm", wanted[1]);
}

#[test]
fn a_converted_rate_is_that_of_a_polyphase_filter() {
    let golden = Golden::new();
    let case = &golden.all["resampled"];
    let ratio = number(&case["up"]) / number(&case["down"]);
    let frames: Vec<Frame> =
        golden.signal("tones").iter().map(|&value| [(f64::from(value) - GRAVITY) as f32; 4]).collect();
    let mut resampler = Resampler::new(golden.rate_hz, golden.rate_hz * ratio).unwrap();
    let mut found = Vec::new();
    resampler.push(&frames, |_, frame| found.push(f64::from(frame[2])));
    let wanted = numbers(&case["values"]);
    let pairs: Vec<_> = found.iter().step_by(101).copied().zip(wanted).collect();
    // Noise near half the rate passes through two different skirts: the tones agree, the rest is a part of its RMS of 0.14.
    for &(found, wanted) in &pairs[2..pairs.len() - 2] {
        assert!((found - wanted).abs() < 0.2, "{found} for {wanted}");
    }
    let squares =
        |value: fn(&(f64, f64)) -> f64| pairs.iter().map(value).map(|value| value * value).sum::<f64>();
    let (off, all) = (squares(|(found, wanted)| found - wanted), squares(|(_, wanted)| *wanted));
    assert!((off / all).sqrt() < 0.01, "{}", (off / all).sqrt());
}

#[test]
fn a_clipped_signal_is_counted_and_read_as_scipy_reads_it() {
    let golden = Golden::new();
    let case = &golden.all["clipped"];
    let samples = golden.signal("clipped");
    let limit = number(&golden.all["limit"]) as f32;
    let mut fitness = Fitness::EMPTY;
    fitness.add(&samples, [-limit, limit]);
    assert_eq!(fitness.saturated, case["saturated"].as_u64().unwrap());
    let moments = Moments::of(&samples);
    // Both in double precision.
    assert!((moments.rms() / number(&case["rms"]) - 1.0).abs() < 1e-9);
    assert!((moments.kurtosis().unwrap() / number(&case["kurtosis"]) - 1.0).abs() < 1e-9);
}
