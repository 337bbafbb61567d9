//! What is wrong with a channel's samples: saturated, stuck, not finite.

use serde::{Deserialize, Serialize};

/// Samples that are looked at together; only those with something in them are looked at one by one.
const CHUNK: usize = 16;

/// Counts over a window of one channel. Runs go on from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fitness {
    /// Samples looked at.
    pub samples: u64,
    /// Not a number, or infinite.
    pub non_finite: u64,
    /// At or beyond the limits.
    pub saturated: u64,
    /// Longest run of saturated samples.
    pub saturated_run_max: u64,
    /// Longest run of samples that are all equal: 1 for a signal that always changes.
    pub equal_run_max: u64,
    last: f32,
    saturated_run: u64,
    equal_run: u64,
}

impl Default for Fitness {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Fitness {
    /// Of no samples.
    pub const EMPTY: Self = Self {
        samples: 0,
        non_finite: 0,
        saturated: 0,
        saturated_run_max: 0,
        equal_run_max: 0,
        last: f32::NAN,
        saturated_run: 0,
        equal_run: 0,
    };

    /// Adds samples. Those at or outside of `limits` (smallest and largest value that the sensor can give, in the samples' unit)
    /// are saturated. One at the limit may be true; a sine that just reaches them touches each once a period, so look at the share
    /// and at the longest run.
    pub fn add(&mut self, samples: &[f32], limits: [f32; 2]) {
        let [low, high] = limits;
        self.samples += samples.len() as u64;
        let mut before = self.last;
        let (chunks, rest) = samples.as_chunks::<CHUNK>();
        for chunk in chunks {
            let mut plain = true;
            for (index, &sample) in chunk.iter().enumerate() {
                let previous = if index == 0 { before } else { chunk[index - 1] };
                // False for what is not a number; an infinite sample is beyond the limits.
                plain &= sample > low && sample < high && sample != previous;
            }
            if plain {
                (self.saturated_run, self.equal_run) = (0, 1);
                self.equal_run_max = self.equal_run_max.max(1);
            } else {
                self.each(before, chunk, limits);
            }
            before = chunk[CHUNK - 1];
        }
        self.each(before, rest, limits);
        self.last = samples.last().copied().unwrap_or(self.last);
    }

    fn each(&mut self, mut before: f32, samples: &[f32], [low, high]: [f32; 2]) {
        for &sample in samples {
            let finite = sample.is_finite();
            let saturated = finite && (sample <= low || sample >= high);
            self.non_finite += u64::from(!finite);
            self.saturated += u64::from(saturated);
            self.saturated_run = if saturated { self.saturated_run + 1 } else { 0 };
            self.saturated_run_max = self.saturated_run_max.max(self.saturated_run);
            // Bits, so that a sensor that is stuck at not-a-number is seen as well.
            self.equal_run = if sample.to_bits() == before.to_bits() { self.equal_run + 1 } else { 1 };
            self.equal_run_max = self.equal_run_max.max(self.equal_run);
            before = sample;
        }
    }

    /// Share of samples that are saturated; 0 of none.
    #[must_use]
    pub fn saturated_share(&self) -> f64 {
        self.saturated as f64 / self.samples.max(1) as f64
    }

    /// The counts so far, and a new window into which runs go on.
    pub fn take(&mut self) -> Self {
        let taken = *self;
        *self = Self {
            last: self.last,
            saturated_run: self.saturated_run,
            equal_run: self.equal_run,
            ..Self::EMPTY
        };
        taken
    }
}
