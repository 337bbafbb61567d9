//! Filters at work: a cascade of second-order sections over four channels.
//!
//! States are `f64`: a 10 Hz corner at 26.7 kHz puts poles within 0.003 of the unit circle, where `f32` states would lose
//! five digits. Transposed direct form II; all sections of a sample are computed together, so that their chains of
//! dependent operations overlap.

use super::{Biquad, Frame, LANES};
use serde::{Deserialize, Serialize};

/// States smaller than this are set to zero at the end of a call: far below anything measurable, and far above the
/// subnormal numbers that would make every operation slow once a signal has died away.
const NOTHING: f64 = 1e-120;

/// One section and its state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Stage {
    section: Biquad,
    state: [[f64; LANES]; 2],
}

/// `S` second-order sections, each with a state for [`LANES`] channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Cascade<const S: usize> {
    stages: [Stage; S],
}

impl<const S: usize> Cascade<S> {
    /// A filter at rest. Sections that are missing let everything pass; none may be left over.
    #[must_use]
    pub fn new(sections: &[Biquad]) -> Option<Self> {
        let section = |index| sections.get(index).copied().unwrap_or(Biquad::IDENTITY);
        let stages =
            core::array::from_fn(|index| Stage { section: section(index), state: [[0.0; LANES]; 2] });
        (sections.len() <= S).then_some(Self { stages })
    }

    /// Puts the filter where it would be had `input` been constant for ever: no transient from gravity.
    pub fn settle(&mut self, input: [f64; LANES]) {
        let mut x = input;
        for Stage { section, state } in &mut self.stages {
            let gain = section.gain_at_zero();
            for lane in 0..LANES {
                let y = gain * x[lane];
                state[1][lane] = section.b[2] * x[lane] - section.a[1] * y;
                state[0][lane] = section.b[1] * x[lane] - section.a[0] * y + state[1][lane];
                x[lane] = y;
            }
        }
    }

    /// Filters frames and hands each result to `sink`, in order.
    #[inline]
    pub fn run(&mut self, frames: &[Frame], mut sink: impl FnMut([f64; LANES])) {
        let mut stages = self.stages;
        for frame in frames {
            let mut x = frame.map(f64::from);
            for Stage { section: Biquad { b, a }, state: [first, second] } in &mut stages {
                let mut y = [0.0; LANES];
                for lane in 0..LANES {
                    y[lane] = b[0] * x[lane] + first[lane];
                }
                for lane in 0..LANES {
                    first[lane] = (b[1] * x[lane] - a[0] * y[lane]) + second[lane];
                }
                for lane in 0..LANES {
                    second[lane] = b[2] * x[lane] - a[1] * y[lane];
                }
                x = y;
            }
            sink(x);
        }
        self.stages = stages;
        for state in self.stages.iter_mut().flat_map(|stage| stage.state.as_flattened_mut()) {
            if state.abs() < NOTHING {
                *state = 0.0;
            }
        }
    }

    /// Filters frames in place.
    pub fn process(&mut self, frames: &mut [Frame]) {
        for chunk in frames.chunks_mut(CHUNK) {
            let mut filtered = [[0.0; LANES]; CHUNK];
            let mut slots = filtered.iter_mut();
            self.run(chunk, |result| {
                if let Some(slot) = slots.next() {
                    *slot = result.map(|value| value as f32);
                }
            });
            chunk.copy_from_slice(&filtered[..chunk.len()]);
        }
    }

    /// Filters frames and returns, per channel, the sum of the squares of the result.
    pub fn energy(&mut self, frames: &[Frame]) -> [f64; LANES] {
        let mut sums = [0.0; LANES];
        self.run(frames, |result| {
            for lane in 0..LANES {
                sums[lane] += result[lane] * result[lane];
            }
        });
        sums
    }
}

const CHUNK: usize = 64;

impl<const S: usize> Serialize for Cascade<S> {
    fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        self.stages.as_slice().serialize(serializer)
    }
}

impl<'de, const S: usize> Deserialize<'de> for Cascade<S> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stages = heapless::Vec::<Stage, S>::deserialize(deserializer)?;
        let wrong =
            |found: heapless::Vec<Stage, S>| serde::de::Error::invalid_length(found.len(), &"all sections");
        Ok(Self { stages: stages.into_array().map_err(wrong)? })
    }
}
