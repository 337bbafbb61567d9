//! Builds planar blocks from frames.

use crate::sensor::{Planar, Sample, magnitude};
use spindle_common::wire::block::flags;

/// Builds planar blocks in a buffer of `axes * block_samples` samples.
#[derive(Debug)]
pub struct BlockBuilder<'b, S> {
    planar: &'b mut [S],
    axes: usize,
    block_samples: usize,
    filled: usize,
    first_sample: u64,
    flags: u16,
    /// Values at the ends of the sensor's range.
    ends: [i32; 2],
}

impl<'b, S: Sample> BlockBuilder<'b, S> {
    /// A builder in this buffer; a sample at `ends` is flagged as saturated. Blocks have `block_samples` samples per channel, or as many as fit the buffer.
    pub fn new(planar: &'b mut [S], axes: u8, block_samples: u16, ends: [i32; 2]) -> Self {
        let axes = usize::from(axes.max(1));
        let block_samples = usize::from(block_samples.max(1)).min(planar.len() / axes);
        Self { planar, axes, block_samples, filled: 0, first_sample: 0, flags: 0, ends }
    }

    /// The places that are free. What was put there counts once [`BlockBuilder::add`] was told.
    pub fn planar(&mut self) -> Planar<'_, S> {
        Planar::new(self.planar, self.axes, self.block_samples, self.filled)
    }

    /// So many frames were put into [`BlockBuilder::planar`], with these bits. Returns true when the block is full: take it
    /// with [`BlockBuilder::seal`] before the next.
    pub fn add(&mut self, frames: usize, bits: u32) -> bool {
        let from = self.filled;
        self.filled = (self.filled + frames).min(self.block_samples);
        // Most runs come nowhere near the ends; only those that may have are looked through.
        let [least, most] = self.ends;
        if bits >= magnitude(most).min(magnitude(least)) {
            let new = self.planar.chunks_exact(self.block_samples.max(1)).take(self.axes);
            let mut new = new.flat_map(|channel| channel.get(from..self.filled).unwrap_or_default());
            if new.any(|sample| sample.value() <= least || sample.value() >= most) {
                self.flags |= flags::SATURATED;
            }
        }
        self.filled >= self.block_samples
    }

    /// Adds one frame, as [`BlockBuilder::add`] does.
    pub fn push(&mut self, frame: &[S]) -> bool {
        let mut planar = self.planar();
        let frames = usize::from(planar.push(frame));
        let bits = planar.bits();
        self.add(frames, bits)
    }

    /// Hands out first index, samples per channel, flags and planar samples, if there are any, and starts the next block
    /// behind them.
    pub fn seal<R>(&mut self, take: impl FnOnce(u64, u16, u16, &[S]) -> R) -> Option<R> {
        if self.filled == 0 {
            return None;
        }
        // A block sealed early is closed up, so that its channels follow each other.
        if self.filled < self.block_samples {
            for axis in 1..self.axes {
                let from = axis * self.block_samples;
                self.planar.copy_within(from..from + self.filled, axis * self.filled);
            }
        }
        let frames = u16::try_from(self.filled).unwrap_or(u16::MAX);
        let samples = self.planar.get(..self.axes * self.filled)?;
        let result = take(self.first_sample, frames, self.flags, samples);
        self.first_sample += self.filled as u64;
        (self.filled, self.flags) = (0, 0);
        Some(result)
    }

    /// Skips samples that the sensor took but that were lost, and flags the next block. Seal first.
    pub fn skip(&mut self, lost: u64, flag: u16) {
        self.first_sample += lost;
        self.flags |= flag;
    }

    /// Index of the next sample.
    #[must_use]
    pub const fn next_sample(&self) -> u64 {
        self.first_sample + self.filled as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::ends;

    #[test]
    fn only_a_sample_at_an_end_is_saturation_however_loud_the_others_are() {
        for (value, ends, saturated) in [
            (32_767, ends(16), true),
            (-32_768, ends(16), true),
            (32_766, ends(16), false),
            (-32_767, ends(16), false),
            (4_094, [-4_096, 4_094], true),
            (-4_096, [-4_096, 4_094], true),
            (4_092, [-4_096, 4_094], false),
        ] {
            let mut planar = [0i16; 12];
            let mut builder = BlockBuilder::new(&mut planar, 3, 4, ends);
            builder.push(&[21, -1_366, 2_730]);
            builder.push(&[0, value, 0]);
            let flags = builder.seal(|_, _, flags, _| flags);
            assert_eq!(flags, Some(if saturated { flags::SATURATED } else { 0 }), "{value}");
        }
    }

    #[test]
    fn a_block_sealed_early_is_planar_without_holes() {
        let mut planar = [0i16; 12];
        let mut builder = BlockBuilder::new(&mut planar, 3, 4, ends(16));
        for frame in [[1, 2, 3], [4, 5, 6], [7, 8, 9]] {
            assert!(!builder.push(&frame));
        }
        let sealed = builder.seal(|first, frames, flags, samples| (first, frames, flags, samples.to_vec()));
        assert_eq!(sealed, Some((0, 3, 0, vec![1, 4, 7, 2, 5, 8, 3, 6, 9])));
        builder.skip(10, flags::OVERRUN);
        assert!(!builder.push(&[i16::MAX, 0, 0]));
        let sealed = builder.seal(|first, frames, flags, _| (first, frames, flags));
        assert_eq!(sealed, Some((13, 1, flags::OVERRUN | flags::SATURATED)));
        assert!(builder.seal(|_, _, _, _| ()).is_none());
    }
}
