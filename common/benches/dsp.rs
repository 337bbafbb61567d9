//! Cost of each stage of signal processing, for three axes (a frame's fourth lane is idle).
//!
//!     cargo bench -p spindle-common --bench dsp                       all stages, ns per sample of one axis
//!     cargo bench -p spindle-common --bench dsp -- welch              one of them
//!     valgrind --tool=callgrind --toggle-collect='*counted*' BINARY --count welch
//!                                                                     a stage's instructions: it says for how many samples
//!
//! A sample here is one axis' value: a frame holds three.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark reads the real clock and owes no recovery"
)]

use realfft::RealFftPlanner;
use spindle_common::dsp::fft::RealFft;
use spindle_common::dsp::{
    Analyser, Average, Averaging, Cascade, Conditioner, Corner, Decimator, Displacement, Envelope, Extremes,
    Fitness, Frame, Kurtogram, Lanes, Moments, Resampler, Segmenter, Velocity, Welch, Window,
    butterworth_high_pass,
};
use std::hint::black_box;
use std::time::Instant;

const RATE_HZ: f64 = 26_667.0;
const AXES: usize = 3;
const LEN: usize = 4096;
/// Frames of a pass: 1.2 s.
const FRAMES: usize = 8 * LEN;
/// Frames of a call: as blocks come.
const BLOCK: usize = 256;

/// Noise around gravity, on three lanes.
fn frames() -> Vec<Frame> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 65536.0 - 0.5
    };
    (0..FRAMES).map(|_| [next(), next(), next() + 9.81, 0.0]).collect()
}

/// A stage and what one pass over the frames does.
type Stage = (&'static str, Box<dyn FnMut(&[Frame])>);

fn stages() -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    let sections = butterworth_high_pass(8, 10.0, RATE_HZ).unwrap();
    let mut cascade = Cascade::<4>::new(&sections).unwrap();
    stages.push((
        "four bare biquads",
        Box::new(move |frames| {
            for block in frames.chunks(BLOCK) {
                black_box(cascade.energy(block));
            }
        }),
    ));
    let mut velocity = Velocity::new(10.0, 1000.0, RATE_HZ).unwrap();
    stages.push((
        "velocity",
        Box::new(move |frames| {
            for block in frames.chunks(BLOCK) {
                black_box(velocity.energy(block));
            }
        }),
    ));
    stages.push((
        "moments, planar",
        Box::new(|frames| {
            for block in frames.as_flattened().chunks(BLOCK).take(FRAMES * AXES / BLOCK) {
                black_box(Moments::of(block));
            }
        }),
    ));
    let mut decimator = Decimator::new(10).unwrap();
    stages.push((
        "decimate by 10",
        Box::new(move |frames| {
            for block in frames.chunks(BLOCK) {
                decimator.push(block, |_, frame| {
                    black_box(frame);
                });
            }
        }),
    ));
    let mut fft = RealFft::new(LEN).unwrap();
    stages.push((
        "fft 4096, lanes",
        Box::new(move |frames| {
            for segment in frames.chunks(LEN) {
                black_box(fft.run(segment.iter().map(|&frame| Lanes(frame))));
            }
        }),
    ));
    let plan = RealFftPlanner::<f32>::new().plan_fft_forward(LEN);
    let (mut input, mut output, mut scratch) =
        (plan.make_input_vec(), plan.make_output_vec(), plan.make_scratch_vec());
    stages.push((
        "fft 4096, realfft f32 an axis at a time",
        Box::new(move |frames| {
            for segment in frames.chunks(LEN) {
                for axis in 0..AXES {
                    for (slot, frame) in input.iter_mut().zip(segment) {
                        *slot = frame[axis];
                    }
                    plan.process_with_scratch(&mut input, &mut output, &mut scratch).unwrap();
                    black_box(&output);
                }
            }
        }),
    ));
    for (name, hop) in [("welch 4096, no overlap", LEN), ("welch 4096, half overlap", LEN / 2)] {
        let mut analyser = Analyser::new(LEN, Window::Hann).unwrap();
        let mut welch = Welch::new(LEN, hop, Averaging::Linear);
        stages.push((
            name,
            Box::new(move |frames| {
                for block in frames.chunks(BLOCK) {
                    welch.push(block, &mut analyser);
                }
                black_box(welch.average().count());
            }),
        ));
    }
    let mut envelope = Envelope::new(LEN, 5000.0, 10_000.0, RATE_HZ).unwrap();
    let mut segmenter = Segmenter::new(LEN, LEN);
    let mut average = Average::new(Averaging::Linear, envelope.grid().bins());
    stages.push((
        "envelope spectrum 4096, 5 to 10 kHz",
        Box::new(move |frames| {
            for block in frames.chunks(BLOCK) {
                segmenter.push(block, |_, segment| average.add(envelope.squares(segment)));
            }
        }),
    ));
    let mut kurtogram = Kurtogram::new(FRAMES, 16).unwrap();
    stages.push((
        "kurtogram 32768, up to 16 bands",
        Box::new(move |frames| {
            black_box(kurtogram.run(frames, RATE_HZ));
        }),
    ));
    let mut resampler = Resampler::new(RATE_HZ, 25_600.0).unwrap();
    stages.push((
        "resample to 25,600 Hz",
        Box::new(move |frames| {
            for block in frames.chunks(BLOCK) {
                resampler.push(block, |_, frame| {
                    black_box(frame);
                });
            }
        }),
    ));
    let mut displacement = Displacement::new(10.0, 1000.0, RATE_HZ).unwrap();
    stages.push((
        "displacement",
        Box::new(move |frames| {
            let mut extremes = Extremes::EMPTY;
            for block in frames.chunks(BLOCK) {
                displacement.extremes(block, &mut extremes);
            }
            black_box(extremes);
        }),
    ));
    let mut band = Conditioner::<2>::new(Some(Corner { hz: 1000.0, order: 4 }), None, RATE_HZ).unwrap();
    stages.push((
        "high-frequency acceleration, order 4",
        Box::new(move |frames| {
            for block in frames.chunks(BLOCK) {
                black_box(band.energy(block));
            }
        }),
    ));
    let mut fitness = Fitness::EMPTY;
    stages.push((
        "fitness, planar",
        Box::new(move |frames| {
            for block in frames.as_flattened().chunks(BLOCK).take(FRAMES * AXES / BLOCK) {
                fitness.add(block, [-100.0, 100.0]);
            }
            black_box(fitness);
        }),
    ));
    stages
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let count = arguments.first().is_some_and(|argument| argument == "--count");
    let wanted = arguments.iter().find(|argument| !argument.starts_with("--"));
    let frames = frames();
    for (name, mut pass) in stages() {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let samples = (FRAMES * AXES) as f64;
        pass(&frames);
        if count {
            counted(&mut pass, &frames);
            println!("{name}: {samples} samples in `counted`");
            continue;
        }
        // The best of some passes: others share the machine.
        let best = (0..15)
            .map(|_| {
                let start = Instant::now();
                pass(&frames);
                start.elapsed().as_secs_f64()
            })
            .fold(f64::INFINITY, f64::min);
        println!("{name:40} {:8.2} ns a sample", best / samples * 1e9);
    }
}

/// By name, so that `callgrind --toggle-collect='*counted*'` counts this and nothing else.
#[inline(never)]
fn counted(pass: &mut dyn FnMut(&[Frame]), frames: &[Frame]) {
    pass(frames);
}
