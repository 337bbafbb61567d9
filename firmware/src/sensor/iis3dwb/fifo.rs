//! From FIFO words to frames with a place in the sample count.
//!
//! The chip writes a timestamp word for one frame in 32, counted by the same oscillator as the samples, so the
//! distance between two timestamps says exactly how many frames the chip took between them, and with that how many an
//! overrun cost. A timestamp belongs to the acceleration word with the same 2-bit slot counter, whichever comes first.

use super::registers::{TAG_TIMESTAMP, TAG_XL, WORD_LEN, tag};
use crate::sensor::magnitude;

/// Frames per timestamp word.
const FRAMES_PER_STAMP: u64 = 32;

/// Timestamp ticks per 32 frames where the counter steps every 12.5 µs (80 kHz = 3 x 26.667 kHz) or, as ST's C driver has
/// it, 25 µs. The driver measures which, on the first two timestamps that it sees in one piece.
const TICKS_PER_GROUP: [u32; 2] = [96, 48];

/// Why words make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FifoError {
    /// A tag's parity bit is wrong, or it names a sensor that is not batched: the bus garbled it.
    Tag,
}

/// Frames of a batch that follow each other without a hole, and what was lost before them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Words of the run, from the start of the bytes given.
    pub(super) words: usize,
    /// Frames among them.
    pub(super) frames: usize,
    /// Frames lost before the first.
    pub(super) lost: u64,
}

/// Tag of an acceleration word, by slot.
const XL_TAGS: [u8; 4] = [tag(TAG_XL, 0), tag(TAG_XL, 1), tag(TAG_XL, 2), tag(TAG_XL, 3)];

/// Keeps the sample count over batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counter {
    /// Frames since the start, lost ones included: the index of the next frame.
    next: u64,
    /// Slot counter of the last acceleration word.
    slot: Option<u8>,
    /// Ticks per 32 frames, once measured.
    group: Option<u32>,
    /// Timestamp and index of the last frame that had one.
    anchor: Option<(u32, u64)>,
}

impl Counter {
    pub(super) const fn new() -> Self {
        Self { next: 0, slot: None, group: None, anchor: None }
    }

    /// Takes the longest run of frames at the start of `bytes` that has no hole.
    pub(super) fn run(&mut self, bytes: &[u8]) -> Result<Run, FifoError> {
        let mut run = Run::default();
        let mut waiting: Option<(u32, u8)> = None;
        let mut located = false;
        for word in bytes.chunks_exact(WORD_LEN) {
            // Nearly all words are the acceleration that comes next; they need no parity counted.
            if let (Some(last), None) = (self.slot, waiting)
                && word[0] == XL_TAGS[usize::from((last + 1) & 3)]
            {
                self.slot = Some((last + 1) & 3);
                self.next += 1;
                run.frames += 1;
                run.words += 1;
                continue;
            }
            let (sensor, slot) = parse_tag(word[0])?;
            let mut stamp = None;
            match sensor {
                TAG_XL => {
                    let hole = self.slot.is_some_and(|last| slot != (last + 1) & 3);
                    if hole && run.frames > 0 {
                        break;
                    }
                    self.slot = Some(slot);
                    self.next += 1;
                    run.frames += 1;
                    stamp = waiting.take().filter(|&(_, its)| its == slot).map(|(ticks, _)| ticks);
                }
                TAG_TIMESTAMP => {
                    let ticks = u32::from_le_bytes([word[1], word[2], word[3], word[4]]);
                    if run.frames > 0 && self.slot == Some(slot) {
                        stamp = Some(ticks);
                    } else {
                        waiting = Some((ticks, slot));
                    }
                }
                _ => return Err(FifoError::Tag),
            }
            run.words += 1;
            let Some(ticks) = stamp else { continue };
            let counted = self.next - 1;
            let lost = self.lost(ticks, counted);
            if lost == 0 {
                self.anchor = Some((ticks, counted));
            } else if !located {
                // All of this run comes after the hole. A hole that shows only at a later timestamp of the same run
                // keeps the old anchor, so that the next run finds it: late, but never as a lasting shift.
                run.lost = lost;
                self.next += lost;
                self.anchor = Some((ticks, counted + lost));
            }
            located = true;
        }
        Ok(run)
    }

    /// Frames lost since the anchor, by the chip's own clock, when the frame stamped `ticks` is number `counted` by
    /// counting; 0 where that cannot be known yet.
    fn lost(&mut self, ticks: u32, counted: u64) -> u64 {
        let Some((anchor_ticks, anchor_index)) = self.anchor else { return 0 };
        let passed = ticks.wrapping_sub(anchor_ticks);
        let Some(group) = self.group else {
            if counted - anchor_index == FRAMES_PER_STAMP && TICKS_PER_GROUP.contains(&passed) {
                self.group = Some(passed);
            }
            return 0;
        };
        // Ticks and frames come from one oscillator, so this is exact up to the counter's own rounding.
        let frames = (u64::from(passed) * FRAMES_PER_STAMP + u64::from(group) / 2) / u64::from(group);
        (anchor_index + frames).saturating_sub(counted)
    }
}

/// Puts the frames among `bytes` into as many places as there are. Returns the words used, and the samples'
/// [`magnitude`]s put together.
pub(super) fn unpack(bytes: &[u8], [xs, ys, zs]: [&mut [i16]; 3]) -> (usize, u32) {
    let (mut words, mut bits) = (0, 0);
    let mut places = xs.iter_mut().zip(ys).zip(zs);
    for word in bytes.chunks_exact(WORD_LEN) {
        if word[0] >> 3 == TAG_XL {
            let Some(((x, y), z)) = places.next() else { break };
            *x = i16::from_le_bytes([word[1], word[2]]);
            *y = i16::from_le_bytes([word[3], word[4]]);
            *z = i16::from_le_bytes([word[5], word[6]]);
            bits |= magnitude((*x).into()) | magnitude((*y).into()) | magnitude((*z).into());
        }
        words += 1;
    }
    (words, bits)
}

fn parse_tag(tag: u8) -> Result<(u8, u8), FifoError> {
    if tag.count_ones() & 1 != 0 {
        return Err(FifoError::Tag);
    }
    Ok((tag >> 3, tag >> 1 & 3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Words of the frames with these indices, a timestamp after (or before) each index divisible by 32.
    fn words(indices: impl Iterator<Item = u64>, ticks_per_32: u64, stamp_first: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for index in indices {
            let slot = (index & 3) as u8;
            let mut frame = [0u8; 7];
            frame[0] = tag(TAG_XL, slot);
            frame[1..3].copy_from_slice(&(index as i16).to_le_bytes());
            let mut stamp = [0u8; 7];
            stamp[0] = tag(TAG_TIMESTAMP, slot);
            stamp[1..5].copy_from_slice(&((index * ticks_per_32 / 32) as u32).to_le_bytes());
            match (index % 32 == 0, stamp_first) {
                (false, _) => bytes.extend(frame),
                (true, false) => bytes.extend(frame.into_iter().chain(stamp)),
                (true, true) => bytes.extend(stamp.into_iter().chain(frame)),
            }
        }
        bytes
    }

    #[test]
    fn a_lost_stretch_is_counted_exactly_from_the_timestamps_whatever_their_unit_and_order() {
        for (ticks, stamp_first) in [(96, false), (96, true), (48, false), (48, true)] {
            for lost in [1u64, 2, 4, 37, 512, 100_000] {
                let mut counter = Counter::new();
                let before = counter.run(&words(0..100, ticks, stamp_first)).unwrap();
                assert_eq!((before.frames, before.lost), (100, 0));
                let after = counter.run(&words(100 + lost..200 + lost, ticks, stamp_first)).unwrap();
                assert_eq!((after.frames, after.lost), (100, lost), "{ticks} ticks, {stamp_first}");
                assert_eq!(counter.next, 200 + lost);
            }
        }
    }

    #[test]
    fn a_hole_within_a_batch_splits_it() {
        let mut counter = Counter::new();
        counter.run(&words(0..100, 96, false)).unwrap();
        let bytes = words((100..150).chain(161..300), 96, false);
        let first = counter.run(&bytes).unwrap();
        assert_eq!((first.frames, first.lost), (50, 0));
        let second = counter.run(&bytes[first.words * WORD_LEN..]).unwrap();
        assert_eq!((second.frames, second.lost), (139, 11));
    }

    #[test]
    fn a_hole_that_the_slot_counter_cannot_show_is_found_in_the_next_batch() {
        let mut counter = Counter::new();
        counter.run(&words(0..100, 96, false)).unwrap();
        assert_eq!(counter.run(&words((100..200).chain(208..300), 96, false)).unwrap().lost, 0);
        assert_eq!(counter.run(&words(300..400, 96, false)).unwrap().lost, 8);
        assert_eq!(counter.next, 400);
    }

    #[test]
    fn a_wrong_parity_bit_is_noticed() {
        let mut bytes = words(0..3, 96, false);
        bytes[7] ^= 1;
        assert_eq!(Counter::new().run(&bytes), Err(FifoError::Tag));
    }
}
