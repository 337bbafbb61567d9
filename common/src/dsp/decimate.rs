//! Anti-aliased downsampling by an integer factor.
//!
//! One to four stages of linear-phase FIR filters (Kaiser windows), each computed only for the samples that it keeps. The
//! last stage makes the sharp edge at the low rate; those before it only keep out what would fold into its band. Together:
//! flat within 0.1 dB up to 0.4 of the output rate, and at least 80 dB down from 0.5 of it on. Each output is centred on an
//! input sample whose index is a multiple of the factor: no delay is left in the data, only in the waiting.

use super::{DesignError, Frame, LANES};
use core::f64::consts::PI;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Largest factor.
pub const FACTOR_MAX: u32 = 256;

/// End of the pass band over the output rate.
pub const PASS_BAND: f64 = 0.4;

/// Start of the stop band over the output rate.
pub const STOP_BAND: f64 = 0.5;

/// Attenuation that each stage is designed for, dB: above the 80 promised, since stages add up.
pub(super) const ATTENUATION_DB: f64 = 86.0;

/// Largest factor of one stage before the last.
const STAGE_FACTOR_MAX: u32 = 16;

/// Primes that a factor may consist of; the smallest in it, which becomes the last stage, must be one of the first three.
const PRIMES: [u32; 6] = [2, 3, 5, 7, 11, 13];

/// Most stages: 250 = 5 x 5 x 5 x 2.
const STAGES_MAX: usize = 4;

/// Most taps of a stage; a last stage of factor 5 has 275.
const TAPS_MAX: usize = 288;

/// Frames that go through the stages at a time.
const CHUNK: usize = 256;

/// The same where stack is short.
const CHUNK_SLIM: usize = 32;

/// Downsamples four channels together. About 25 kB: keep it in a box or a static.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct Decimator {
    factor: u32,
    /// Index of the input sample on which the next output is centred.
    next: u64,
    stages: Vec<Stage, STAGES_MAX>,
}

/// What of a [`Decimator`] is not its design.
#[derive(Serialize, Deserialize)]
struct Saved {
    factor: u32,
    next: u64,
    /// Per stage: inputs until the next output, and the last inputs.
    stages: Vec<(u32, Vec<Frame, TAPS_MAX>), STAGES_MAX>,
}

#[derive(Debug, Clone, PartialEq)]
struct Stage {
    factor: u32,
    /// First half of the symmetric taps, the middle one last.
    taps: Vec<f32, TAPS_MAX>,
    /// The last `2 * taps.len() - 2` inputs.
    history: Vec<Frame, TAPS_MAX>,
    /// Inputs until the next output is complete, at least 1.
    until_next: u32,
}

impl Decimator {
    /// Keeps every `factor`-th sample of the filtered signal. Starts at input sample 0, with silence before it.
    ///
    /// # Errors
    /// [`DesignError::Factor`] unless the factor is 1 to 256, has no prime factor above 13 and is 1 or a multiple of 2, 3
    /// or 5.
    pub fn new(factor: u32) -> Result<Self, DesignError> {
        let mut decimator = Self::pass();
        decimator.redesign(factor)?;
        Ok(decimator)
    }

    /// Factor 1: passes every sample on. A place for [`Decimator::redesign`].
    #[must_use]
    #[inline]
    pub const fn pass() -> Self {
        Self { factor: 1, next: 0, stages: Vec::new() }
    }

    /// Makes it anew for this factor, in its own place: for processors whose stack does not hold a second one.
    ///
    /// # Errors
    /// As of [`Decimator::new`]; it passes every sample on then.
    #[inline(never)]
    pub fn redesign(&mut self, factor: u32) -> Result<(), DesignError> {
        (self.factor, self.next) = (1, 0);
        self.stages.clear();
        if self.add_stages(factor).is_none() {
            self.stages.clear();
            return Err(DesignError::Factor { factor });
        }
        self.factor = factor;
        self.restart(0, [0.0; LANES]);
        Ok(())
    }

    fn add_stages(&mut self, factor: u32) -> Option<()> {
        let mut remaining = factor;
        for stage in factors(factor)? {
            remaining /= stage;
            self.stages.push(Stage::new(stage, remaining)?).ok()?;
        }
        Some(())
    }

    /// Input samples per output sample.
    #[must_use]
    pub const fn factor(&self) -> u32 {
        self.factor
    }

    /// Input samples after its centre that an output needs.
    #[must_use]
    pub fn delay(&self) -> u64 {
        let mut step = 1;
        let mut delay = 0;
        for stage in &self.stages {
            delay += step * stage.delay() as u64;
            step *= u64::from(stage.factor);
        }
        delay
    }

    /// Starts anew at input sample `first_sample`, as if the signal had been `before` (best the first block's mean) for
    /// ever: after a gap. Outputs go on at multiples of the factor.
    pub fn restart(&mut self, first_sample: u64, before: Frame) {
        let mut index = first_sample;
        for stage in &mut self.stages {
            stage.history.fill(before);
            let centre = index.div_ceil(u64::from(stage.factor));
            let ahead = centre * u64::from(stage.factor) - index;
            stage.until_next = ahead as u32 + stage.delay() as u32 + 1;
            index = centre;
        }
        self.next = index * u64::from(self.factor);
    }

    /// Takes input frames, and hands each output to `sink` with the index of the input sample on which it is centred.
    pub fn push(&mut self, frames: &[Frame], sink: impl FnMut(u64, Frame)) {
        self.push_by::<CHUNK, { TAPS_MAX + CHUNK }>(frames, sink);
    }

    /// The same to the bit, with 6 kB of stack in place of 13: for processors that have little.
    pub fn push_slim(&mut self, frames: &[Frame], sink: impl FnMut(u64, Frame)) {
        self.push_by::<CHUNK_SLIM, { TAPS_MAX + CHUNK_SLIM }>(frames, sink);
    }

    /// By `N` frames at a time; `S` is that and [`TAPS_MAX`].
    fn push_by<const N: usize, const S: usize>(
        &mut self,
        frames: &[Frame],
        mut sink: impl FnMut(u64, Frame),
    ) {
        for chunk in frames.chunks(N) {
            let mut buffer = [[0.0; LANES]; N];
            buffer[..chunk.len()].copy_from_slice(chunk);
            let mut len = chunk.len();
            for stage in &mut self.stages {
                len = stage.push::<N, S>(&mut buffer, len);
            }
            for frame in &buffer[..len] {
                sink(self.next, *frame);
                self.next += u64::from(self.factor);
            }
        }
    }
}

/// Whether a [`Decimator`] can be made for this factor of 2 or more.
#[must_use]
pub fn is_factor(factor: u32) -> bool {
    (2..=FACTOR_MAX).contains(&factor) && factors(factor).is_some()
}

/// The factor as stages, the last one first made: the smallest prime ends, the others are packed from the largest down.
fn factors(factor: u32) -> Option<Vec<u32, STAGES_MAX>> {
    let mut stages = Vec::new();
    if factor == 1 {
        return Some(stages);
    }
    let last = *PRIMES[..3].iter().find(|&&prime| factor.is_multiple_of(prime))?;
    let mut rest = factor / last;
    for prime in PRIMES.into_iter().rev() {
        while rest.is_multiple_of(prime) {
            rest /= prime;
            match stages.iter_mut().find(|stage| **stage * prime <= STAGE_FACTOR_MAX) {
                Some(stage) => *stage *= prime,
                None => stages.push(prime).ok()?,
            }
        }
    }
    stages.push(last).ok()?;
    (rest == 1 && factor <= FACTOR_MAX).then_some(stages)
}

impl Stage {
    /// A stage by `factor` which is followed by others of `remaining` in all. Frequencies in cycles per input sample.
    fn new(factor: u32, remaining: u32) -> Option<Self> {
        let output_rate = 1.0 / f64::from(factor);
        let last_rate = output_rate / f64::from(remaining);
        let pass = PASS_BAND * last_rate;
        // What lies closer than this to a multiple of the output rate folds into the band that the last stage keeps.
        let stop = if remaining == 1 { STOP_BAND * last_rate } else { output_rate - STOP_BAND * last_rate };
        let half = half_length(stop - pass);
        let mut wanted = Vec::<f64, TAPS_MAX>::new();
        for tap in 0..=half {
            let from_middle = (half - tap) as f64;
            wanted.push(sinc((pass + stop) / 2.0, from_middle) * kaiser(from_middle / half as f64)).ok()?;
        }
        let sum: f64 = wanted.iter().sum::<f64>() * 2.0 - wanted[half];
        let taps = wanted.iter().map(|tap| (tap / sum) as f32).collect();
        let history = core::iter::repeat_n([0.0; LANES], 2 * half).collect();
        (2 * half <= TAPS_MAX).then_some(Self { factor, taps, history, until_next: 1 })
    }

    fn delay(&self) -> usize {
        self.taps.len() - 1
    }

    /// Takes the first `len` frames and leaves its outputs in their place; returns how many.
    fn push<const N: usize, const S: usize>(&mut self, frames: &mut [Frame; N], len: usize) -> usize {
        let kept = self.history.len();
        let mut signal = [[0.0; LANES]; S];
        signal[..kept].copy_from_slice(&self.history);
        signal[kept..kept + len].copy_from_slice(&frames[..len]);
        let mut outputs = 0;
        while self.until_next as usize <= len {
            let start = self.until_next as usize - 1;
            frames[outputs] = convolve(&self.taps, &signal[start..=start + kept]);
            outputs += 1;
            self.until_next += self.factor;
        }
        self.until_next -= len as u32;
        self.history.copy_from_slice(&signal[len..len + kept]);
        outputs
    }
}

/// The symmetric filter's output over a window of `2 * taps.len() - 1` frames.
fn convolve(taps: &[f32], window: &[Frame]) -> Frame {
    const PARTS: usize = 4;
    let middle = taps.len() - 1;
    let (front, back) = (&window[..middle], &window[middle + 1..]);
    let mut sums = [[0.0; LANES]; PARTS];
    let mut add = |part: usize, tap: f32, early: &Frame, late: &Frame| {
        for lane in 0..LANES {
            sums[part][lane] += tap * (early[lane] + late[lane]);
        }
    };
    let (tap_chunks, tap_rest) = taps[..middle].as_chunks::<PARTS>();
    let (front_chunks, front_rest) = front.as_chunks::<PARTS>();
    let (back_rest, back_chunks) = back.as_rchunks::<PARTS>();
    for ((taps, early), late) in tap_chunks.iter().zip(front_chunks).zip(back_chunks.iter().rev()) {
        for part in 0..PARTS {
            add(part, taps[part], &early[part], &late[PARTS - 1 - part]);
        }
    }
    for ((&tap, early), late) in tap_rest.iter().zip(front_rest).zip(back_rest.iter().rev()) {
        add(0, tap, early, late);
    }
    core::array::from_fn(|lane| {
        taps[middle] * window[middle][lane]
            + ((sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]))
    })
}

/// Half the length of a filter with this transition band (Kaiser's formula; Oppenheim and Schafer, section 7.6).
pub(super) fn half_length(transition: f64) -> usize {
    libm::ceil((ATTENUATION_DB - 7.95) / (14.36 * transition) / 2.0) as usize
}

/// Ideal low-pass at `corner` cycles per sample, `at` samples from its middle.
pub(super) fn sinc(corner: f64, at: f64) -> f64 {
    if at == 0.0 { 2.0 * corner } else { libm::sin(2.0 * PI * corner * at) / (PI * at) }
}

/// Kaiser's window at -1 to 1.
pub(super) fn kaiser(at: f64) -> f64 {
    let beta = 0.1102 * (ATTENUATION_DB - 8.7);
    bessel_i0(beta * libm::sqrt((1.0 - at * at).max(0.0))) / bessel_i0(beta)
}

/// Modified Bessel function of order zero, by its power series; exact to rounding for the few tens used here.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut sum, mut term) = (1.0, 1.0);
    for index in 1..64 {
        term *= quarter / f64::from(index * index);
        let before = sum;
        sum += term;
        // Terms only get smaller: those that follow would not change it either.
        if sum == before {
            break;
        }
    }
    sum
}

impl From<Decimator> for Saved {
    fn from(decimator: Decimator) -> Self {
        let stages = decimator.stages.into_iter().map(|stage| (stage.until_next, stage.history)).collect();
        Self { factor: decimator.factor, next: decimator.next, stages }
    }
}

impl TryFrom<Saved> for Decimator {
    type Error = &'static str;

    fn try_from(saved: Saved) -> Result<Self, Self::Error> {
        let mut decimator = Self::new(saved.factor).map_err(|_| "a decimator's factor is out of range")?;
        if decimator.stages.len() != saved.stages.len() {
            return Err("a decimator has another number of stages than its factor");
        }
        decimator.next = saved.next;
        for (stage, (until_next, history)) in decimator.stages.iter_mut().zip(saved.stages) {
            let longest = stage.factor + stage.delay() as u32;
            if history.len() != stage.history.len() || !(1..=longest).contains(&until_next) {
                return Err("a decimator's stage has another state than its factor");
            }
            (stage.until_next, stage.history) = (until_next, history);
        }
        Ok(decimator)
    }
}
