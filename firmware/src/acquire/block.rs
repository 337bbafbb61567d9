//! Builds planar blocks from frames.

use crate::sensor::{Planar, Sample, magnitude};
use spindle_common::wire::block::flags;

/// Builds planar blocks of the channels chosen from a sensor's frames.
#[derive(Debug)]
pub struct BlockBuilder<'b, S> {
    planar: &'b mut [S],
    /// Channels kept, one bit each, lowest first.
    mask: u8,
    axes: usize,
    block_samples: usize,
    filled: usize,
    first_sample: u64,
    flags: u16,
    /// Values at the ends of the sensor's range.
    ends: [i32; 2],
}

/// A block that has just been closed; its samples are [`BlockBuilder::planar`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Index of the first sample.
    pub first_sample: u64,
    /// Samples per channel.
    pub frames: usize,
    /// Block flags.
    pub flags: u16,
}

impl<'b, S: Sample> BlockBuilder<'b, S> {
    /// A builder in this buffer for the channels in `mask`; a sample at `ends` is flagged as saturated. Blocks have
    /// `block_samples` samples per channel, or as many as fit the buffer.
    pub fn new(planar: &'b mut [S], mask: u8, block_samples: u16, ends: [i32; 2]) -> Self {
        let mut builder =
            Self { planar, mask, axes: 1, block_samples: 1, filled: 0, first_sample: 0, flags: 0, ends };
        builder.set_up(mask, block_samples, 0);
        builder
    }

    /// Starts anew with other channels and another length, at sample `next`. Close first.
    pub fn set_up(&mut self, mask: u8, block_samples: u16, next: u64) {
        self.mask = mask;
        self.axes = mask.count_ones().max(1) as usize;
        self.block_samples = usize::from(block_samples.max(1)).min(self.planar.len() / self.axes);
        (self.filled, self.flags, self.first_sample) = (0, 0, next);
    }

    /// Samples per channel and block.
    #[must_use]
    pub const fn block_samples(&self) -> usize {
        self.block_samples
    }

    /// The places that are free, when all of a sensor's `axes` channels are kept. What was put there counts once
    /// [`BlockBuilder::add`] was told.
    pub fn planar_free(&mut self, axes: usize) -> Option<Planar<'_, S>> {
        (axes == self.axes).then(|| Planar::new(self.planar, self.axes, self.block_samples, self.filled))
    }

    /// So many frames were put into [`BlockBuilder::planar_free`], with these bits. Returns true when the block is full: take it
    /// with [`BlockBuilder::close`] before the next.
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

    /// Adds one frame of a sensor, as [`BlockBuilder::add`] does.
    pub fn push(&mut self, frame: &[S]) -> bool {
        let (mut place, mut bits) = (self.filled, 0);
        for (axis, &sample) in frame.iter().enumerate().take(8) {
            if self.mask >> axis & 1 == 0 {
                continue;
            }
            bits |= magnitude(sample.value());
            if let Some(slot) = self.planar.get_mut(place) {
                *slot = sample;
            }
            place += self.block_samples;
        }
        self.add(1, bits)
    }

    /// Closes the block, if there is anything in it, and starts the next one behind it. Its samples stay until the next frame.
    pub fn close(&mut self) -> Option<Part> {
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
        let part = Part { first_sample: self.first_sample, frames: self.filled, flags: self.flags };
        self.first_sample += self.filled as u64;
        (self.filled, self.flags) = (0, 0);
        Some(part)
    }

    /// The samples of a block that was just closed.
    #[must_use]
    pub fn planar(&self, part: &Part) -> &[S] {
        self.planar.get(..self.axes * part.frames).unwrap_or_default()
    }

    /// Flags the block in the making, or the next.
    pub const fn flag(&mut self, flags: u16) {
        self.flags |= flags;
    }

    /// Goes on at another sample; only while nothing is in the making.
    pub const fn jump_to(&mut self, sample: u64) {
        if self.filled == 0 {
            self.first_sample = sample;
        }
    }

    /// Whether nothing is in the making.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Skips samples that the sensor took but that were lost, and flags the next block. Close first.
    pub const fn skip(&mut self, lost: u64, flag: u16) {
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
            let mut builder = BlockBuilder::new(&mut planar, 0b111, 4, ends);
            builder.push(&[21, -1_366, 2_730]);
            builder.push(&[0, value, 0]);
            let flags = builder.close().map(|part| part.flags);
            assert_eq!(flags, Some(if saturated { flags::SATURATED } else { 0 }), "{value}");
        }
    }

    #[test]
    fn a_block_closed_early_is_planar_without_holes() {
        let mut planar = [0i16; 12];
        let mut builder = BlockBuilder::new(&mut planar, 0b111, 4, ends(16));
        for frame in [[1, 2, 3], [4, 5, 6], [7, 8, 9]] {
            assert!(!builder.push(&frame));
        }
        let part = builder.close().expect("three frames");
        assert_eq!(part, Part { first_sample: 0, frames: 3, flags: 0 });
        assert_eq!(builder.planar(&part), [1, 4, 7, 2, 5, 8, 3, 6, 9]);
        builder.skip(10, flags::OVERRUN);
        assert!(!builder.push(&[i16::MAX, 0, 0]));
        let part = builder.close().expect("one frame");
        assert_eq!(part, Part { first_sample: 13, frames: 1, flags: flags::OVERRUN | flags::SATURATED });
        assert!(builder.close().is_none());
    }

    #[test]
    fn only_the_channels_chosen_are_kept_and_only_they_can_saturate() {
        let mut planar = [0i16; 8];
        let mut builder = BlockBuilder::new(&mut planar, 0b101, 2, ends(16));
        builder.push(&[1, i16::MAX, 3]);
        assert!(builder.push(&[4, 5, 6]));
        let part = builder.close().expect("two frames");
        assert_eq!(part.flags, 0);
        assert_eq!(builder.planar(&part), [1, 4, 3, 6]);
    }
}
