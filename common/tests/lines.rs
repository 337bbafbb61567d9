//! Envelopes, kurtograms, orders, chatter and estimated speeds, on signals that are known.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use spindle_common::dsp::{
    Analyser, Average, Averaging, Bearing, Bin, Envelope, EnvelopeError, Frame, Grid, Kurtogram, Lines,
    Scaling, SpeedSearch, Welch, Window,
};
use std::f64::consts::PI;

const RATE_HZ: f64 = 26_667.0;

fn noise(seed: u32) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Of variance 1.
        (f64::from(state >> 16) / 65536.0 - 0.5) * 12.0_f64.sqrt()
    }
}

fn signal(count: usize, mut at: impl FnMut(f64) -> f64) -> Vec<Frame> {
    (0..count).map(|index| [at(index as f64 / RATE_HZ) as f32, 0.0, 0.0, 0.0]).collect()
}

/// What a fault that strikes `hz` times a second leaves: a resonance at 5 kHz that dies within a millisecond; and noise of RMS 1.
fn impacts(count: usize, hz: f64, amplitude: f64) -> Vec<Frame> {
    let mut noise = noise(3);
    signal(count, |time| {
        let since = time % hz.recip();
        amplitude * (2.0 * PI * 5000.0 * since).sin() * (-since / 0.0005).exp() + noise()
    })
}

fn density(frames: &[Frame], len: usize) -> (Vec<Bin>, Grid) {
    let mut analyser = Analyser::new(len, Window::Hann).unwrap();
    let mut welch = Welch::new(len, len / 2, Averaging::Linear);
    welch.push(frames, &mut analyser);
    let mut out = vec![[0.0; 4]; len / 2 + 1];
    welch.average().write(&analyser.scale(Scaling::Density, RATE_HZ), &mut out);
    (out, Grid { len, rate_hz: RATE_HZ })
}

fn envelope_spectrum(envelope: &mut Envelope, frames: &[Frame], scaling: Scaling) -> Vec<Bin> {
    let mut average = Average::new(Averaging::Linear, envelope.grid().bins());
    for segment in frames.chunks_exact(envelope.len()) {
        average.add(envelope.squares(segment));
    }
    let mut out = vec![[0.0; 4]; envelope.grid().bins()];
    average.write(&envelope.scale(scaling), &mut out);
    out
}

#[test]
fn a_modulated_carrier_has_the_envelope_lines_of_the_closed_form() {
    // 2 (1 + 0.3 cos) of 5 kHz: squared envelope 4 (1 + 0.6 cos + 0.09 cos²). Frequencies on bins.
    const LEN: usize = 8192;
    let step = RATE_HZ / LEN as f64;
    let (carrier, rate) = (1536.0 * step, 32.0 * step);
    let frames = signal(LEN, |time| {
        20.0 * (2.0 * PI * 10.0 * step * time).sin()
            + 2.0 * (1.0 + 0.3 * (2.0 * PI * rate * time).cos()) * (2.0 * PI * carrier * time).cos()
    });
    let mut envelope = Envelope::new(LEN, 4000.0, 6000.0, RATE_HZ).unwrap();
    let [low, high] = envelope.band_hz();
    assert!(low > 3996.0 && low < 4002.0 && high > 5998.0 && high < 6004.0);
    assert!((envelope.grid().step_hz() - step).abs() < 1e-9);
    let found = envelope_spectrum(&mut envelope, &frames, Scaling::Peak);
    assert!((found[32][0] - 2.0 * 0.3 * 4.0).abs() < 1e-3, "{}", found[32][0]);
    assert!((found[64][0] - 0.3 * 0.3 * 4.0 / 2.0).abs() < 1e-3, "{}", found[64][0]);
    assert!(found[100..].iter().all(|bin| bin[0] < 1e-3));
    assert_eq!(found[32][1], 0.0);
}

#[test]
fn bands_that_no_envelope_can_be_taken_of_are_refused() {
    for (low, high) in
        [(0.0, 1000.0), (6000.0, 5000.0), (5000.0, 5010.0), (5000.0, 14_000.0), (f64::NAN, 6000.0)]
    {
        let made = Envelope::new(4096, low, high, RATE_HZ);
        assert!(matches!(made, Err(EnvelopeError::Band { .. })), "{low} to {high}");
    }
    assert!(matches!(Envelope::new(4097, 4000.0, 6000.0, RATE_HZ), Err(EnvelopeError::Fft(_))));
    assert!(Envelope::new(4096, 4000.0, RATE_HZ / 2.0, RATE_HZ).is_ok());
}

#[test]
fn the_kurtogram_finds_the_resonance_and_its_envelope_the_bearing() {
    const LEN: usize = 32_768;
    let bearing =
        Bearing { elements: 9, element_diameter: 0.3126, pitch_diameter: 1.537, contact_angle_deg: 0.0 };
    let shaft_hz = 29.95;
    let fault_hz = bearing.orders().unwrap().outer * shaft_hz;
    // The noise's RMS is 1 over the whole band, the impacts' about 0.8.
    let frames = impacts(4 * LEN, fault_hz, 5.0);
    let mut kurtogram = Kurtogram::new(LEN, 16).unwrap();
    let bands: Vec<usize> = {
        let found = kurtogram.run(&frames[..LEN], RATE_HZ);
        assert_eq!(found.len(), 1 + 2 + 3 + 4 + 6 + 8 + 12 + 16);
        found.iter().map(|band| (RATE_HZ / 2.0 / (band.high_hz - band.low_hz)).round() as usize).collect()
    };
    assert_eq!((bands[0], bands[1], bands[3], bands[51]), (1, 2, 3, 16));
    let best = kurtogram.best(0, 3.0 * fault_hz, 500.0).unwrap();
    assert!(best.low_hz < 5000.0 && best.high_hz > 5000.0, "{best:?}");
    assert!(best.kurtosis[0] > 1.0, "{best:?}");
    let mut envelope = Envelope::new(LEN, best.low_hz, best.high_hz, RATE_HZ).unwrap();
    let found = envelope_spectrum(&mut envelope, &frames, Scaling::Density);
    let lines = Lines::new(&found, 0, envelope.grid(), Window::Hann).unwrap();
    for harmonic in lines.harmonics(fault_hz, 3, 0.005) {
        assert!((harmonic.hz / harmonic.expected_hz - 1.0).abs() < 0.001, "{harmonic:?}");
        assert!(harmonic.prominence_db > 15.0, "{harmonic:?}");
    }
    // Where nothing strikes, nothing stands out.
    let inner = lines.line(bearing.orders().unwrap().inner * shaft_hz, 0.005).unwrap();
    assert!(inner.prominence_db < 12.0, "{inner:?}");
    // Noise alone is Gaussian enough.
    let mut noise = noise(5);
    let alone = kurtogram.run(&signal(LEN, |_| noise() + noise() + noise()), RATE_HZ);
    assert!(alone.iter().all(|band| band.kurtosis[0].abs() < 0.5), "{alone:?}");
    assert_eq!(alone[0].kurtosis[1], 0.0);
    assert!(kurtogram.best(0, RATE_HZ, 0.0).is_none());
}

#[test]
fn lines_read_their_rms_and_place_between_bins() {
    let frames = signal(262_144, |time| {
        0.3 + (2.0 * PI * 100.3 * time).sin()
            + 0.25 * (2.0 * PI * 200.6 * time).sin()
            + 0.1 * (2.0 * PI * 170.6 * time).sin()
    });
    let (density, grid) = density(&frames, 16_384);
    let lines = Lines::new(&density, 0, grid, Window::Hann).unwrap();
    let line = lines.line(100.0, 0.02).unwrap();
    assert!((line.hz - 100.3).abs() < 0.03 * grid.step_hz(), "{line:?}");
    assert!((line.rms - 0.5_f64.sqrt()).abs() < 1e-3, "{line:?}");
    assert!(line.prominence_db > 50.0, "{line:?}");
    let rms = lines.harmonic_rms(100.3, 2, 0.01);
    assert!((rms - (0.5 * 1.0625_f64).sqrt()).abs() < 1e-3, "{rms}");
    let second = lines.line(200.6, 0.01).unwrap();
    // One side-band of 0.1 below; nothing above it.
    let sides = lines.side_bands(&second, 30.0, 1).unwrap();
    assert!((sides.ratio - 0.4).abs() < 0.01 && sides.count == 2, "{sides:?}");
    assert!(lines.side_bands(&second, 2.0 * grid.step_hz(), 1).is_none());
    assert!(lines.line(RATE_HZ, 0.01).is_none() && lines.line(f64::NAN, 0.01).is_none());
    assert!(Lines::new(&density, 4, grid, Window::Hann).is_none());
    assert!(Lines::new(&density[1..], 0, grid, Window::Hann).is_none());
    let silent = Lines::new(&density, 1, grid, Window::Hann).unwrap().line(100.0, 0.02).unwrap();
    assert_eq!((silent.rms, silent.prominence_db), (0.0, 0.0));
}

#[test]
fn chatter_is_what_the_comb_of_spindle_and_teeth_leaves() {
    // 9,000 rpm, three flutes: 150 Hz and 450 Hz. Chatter at 1,237 Hz is at no harmonic.
    let cut = |chatter: f64, doubled: f64| {
        let mut noise = noise(9);
        let frames = signal(262_144, |time| {
            (2.0 * PI * 150.0 * time).sin()
                + 3.0 * (2.0 * PI * 450.0 * time).sin()
                + (2.0 * PI * 900.0 * time).sin()
                + chatter * (2.0 * PI * 1237.0 * time).sin()
                + doubled * (2.0 * PI * 225.0 * time).sin()
                + 0.05 * noise()
        });
        let (density, grid) = density(&frames, 16_384);
        Lines::new(&density, 0, grid, Window::Hann).unwrap().chatter(150.0, 3, [50.0, 2000.0], 0.002).unwrap()
    };
    let quiet = cut(0.0, 0.0);
    assert!((quiet.comb_rms - 5.5_f64.sqrt()).abs() < 0.01, "{quiet:?}");
    assert!(quiet.ratio < 0.02 && quiet.doubling_ratio < 0.01, "{quiet:?}");
    let chattering = cut(2.0, 0.0);
    assert!((chattering.rest_rms - 2.0_f64.sqrt()).abs() < 0.01, "{chattering:?}");
    assert!((chattering.strongest.unwrap().hz - 1237.0).abs() < 0.1, "{chattering:?}");
    let doubling = cut(0.0, 1.0);
    assert!((doubling.doubling_ratio - 10.0_f64.recip().sqrt()).abs() < 0.01, "{doubling:?}");
    assert!((doubling.strongest.unwrap().hz - 225.0).abs() < 0.1, "{doubling:?}");
    let (density, grid) = density(&signal(8192, |_| 0.0), 4096);
    let lines = Lines::new(&density, 0, grid, Window::Hann).unwrap();
    // Too coarse to see anything between the harmonics; no flutes; no band.
    assert!(lines.chatter(30.0, 3, [50.0, 2000.0], 0.002).is_none());
    assert!(lines.chatter(150.0, 0, [50.0, 2000.0], 0.002).is_none());
    assert!(lines.chatter(150.0, 3, [2000.0, 50.0], 0.002).is_none());
}

#[test]
fn a_speed_is_estimated_within_a_prior_range_and_never_from_noise() {
    const LEN: usize = 131_072;
    let mut search = SpeedSearch::new(LEN / 2 + 1, 10);
    let mut background = noise(11);
    let frames = signal(2 * LEN, |time| {
        let comb: f64 = (1..=6).map(|order| 0.2 * (2.0 * PI * 29.53 * f64::from(order) * time).cos()).sum();
        comb + 0.5 * (2.0 * PI * 47.0 * time).sin() + background()
    });
    let (spectrum, grid) = density(&frames, LEN);
    let found = search.estimate(&spectrum, 3, grid, 25.0, 35.0).unwrap();
    assert!((found.hz - 29.53).abs() < 0.1, "{found:?}");
    assert!(found.confidence > 0.3 && found.score > 2.0, "{found:?}");
    // Where the true speed is not in the range, and in noise.
    assert_eq!(search.estimate(&spectrum, 3, grid, 31.0, 40.0), None);
    for seed in 20..24 {
        let mut background = noise(seed);
        let (spectrum, grid) = density(&signal(2 * LEN, |_| background()), LEN);
        assert_eq!(search.estimate(&spectrum, 3, grid, 25.0, 50.0), None);
    }
    // And without a range, there is nothing.
    for [low, high] in [[0.0, 50.0], [30.0, 30.0], [f64::NAN, 50.0], [20.0, f64::INFINITY]] {
        assert_eq!(search.estimate(&spectrum, 3, grid, low, high), None);
    }
}
