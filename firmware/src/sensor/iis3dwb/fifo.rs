//! From FIFO words to frames with a place in the sample count.
//!
//! The chip writes a timestamp word for one frame in 32, counted by the same oscillator as the samples, so the
//! distance between two timestamps says exactly how many frames the chip took between them, and with that how many an
//! overrun cost. A timestamp belongs to the acceleration word with the same 2-bit slot counter, whichever comes first.

use super::registers::{TAG_TIMESTAMP, TAG_XL, WORD_LEN, tag};
use heapless::Vec;

/// Frames per timestamp word.
const FRAMES_PER_STAMP: u64 = 32;

/// Timestamp ticks per 32 frames where the counter steps every 12.5 µs (80 kHz = 3 x 26.667 kHz) or, as ST's C driver has
/// it, 25 µs. The driver measures which, on the first two timestamps that it sees in one piece.
const TICKS_PER_GROUP: [u32; 2] = [96, 48];

/// A word of the FIFO: a tag and six bytes.
pub(super) type Word = [u8; WORD_LEN];

/// Why words make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FifoError {
    /// A tag's parity bit is wrong, or it names a sensor that is not batched: the bus garbled it.
    Tag,
}

/// Timestamps in one run: a full FIFO has fifteen. A run ends at one more.
const STAMPS_MAX: usize = 24;

/// Frames of a batch that follow each other without a hole, and what was lost before them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Words of the run, from the first of those given.
    pub(super) words: usize,
    /// Frames among them.
    pub(super) frames: usize,
    /// Frames lost before the first.
    pub(super) lost: u64,
    /// Places of the words that are timestamps, in order; all others are frames.
    stamps: Vec<u16, STAMPS_MAX>,
    /// Words that were unpacked, and timestamps among them.
    unpacked: usize,
    stamps_passed: usize,
}

/// Tags of four acceleration words that follow each other, slot 0 lowest. The slot counter goes round in four: so do they.
const XL_TAGS: u32 = u32::from_le_bytes([tag(TAG_XL, 0), tag(TAG_XL, 1), tag(TAG_XL, 2), tag(TAG_XL, 3)]);

/// Frames that one timestamp stands for, and words with it.
const GROUP_FRAMES: usize = FRAMES_PER_STAMP as usize;
const GROUP_WORDS: usize = GROUP_FRAMES + 1;

/// The tags of the four acceleration words that follow one with this slot counter.
const fn tags_after(slot: u8) -> u32 {
    XL_TAGS.rotate_right(8 * (slot as u32 + 1))
}

fn tags(four: &[Word; 4]) -> u32 {
    u32::from_le_bytes(four.map(|word| word[0]))
}

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

    /// Takes the longest run of frames at the start of `words` that has no hole, into `run`: it is too large to be moved often.
    pub(super) fn run(&mut self, words: &[Word], run: &mut Run) -> Result<(), FifoError> {
        run.clear();
        let mut waiting: Option<(u32, u8)> = None;
        let mut located = false;
        loop {
            if waiting.is_none() {
                located |= self.groups(words.get(run.words..).unwrap_or_default(), run);
            }
            let rest = words.get(run.words..).unwrap_or_default();
            // Accelerations that come next need no parity counted.
            let plain = if waiting.is_none() { self.plain(rest) } else { 0 };
            run.words += plain;
            run.frames += plain;
            let Some(word) = rest.get(plain) else { break };
            if plain > 0 && self.stamped(word) && run.stamps.push(run.words as u16).is_ok() {
                run.words += 1;
                located = true;
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
                    // Words are at most a FIFO's.
                    if run.stamps.push(run.words as u16).is_err() {
                        break;
                    }
                    let ticks = ticks_of(word);
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
        Ok(())
    }

    /// Takes the groups at the start of these words that are as they should be: the accelerations which come next and, just
    /// behind the last one's, its timestamp, which tells that nothing was lost. Nearly all words are in such groups, so this
    /// is where a word's cost is made: nothing is decided before a group's end. Returns whether there was one.
    fn groups(&mut self, words: &[Word], run: &mut Run) -> bool {
        let (Some((mut ticks, index)), Some(step), Some(slot)) = (self.anchor, self.group, self.slot) else {
            return false;
        };
        if index + 1 != self.next {
            return false;
        }
        let next = tags_after(slot);
        let mut taken = 0;
        for [frames @ .., stamp] in words.as_chunks::<GROUP_WORDS>().0 {
            let (fours, _) = frames.as_chunks::<4>();
            let unlike = fours.iter().fold(0, |unlike, four| unlike | (tags(four) ^ next));
            let stamped = stamp[0] == tag(TAG_TIMESTAMP, slot) && ticks_of(stamp) == ticks.wrapping_add(step);
            let place = run.words + taken * GROUP_WORDS + GROUP_WORDS - 1;
            if unlike != 0 || !stamped || run.stamps.push(place as u16).is_err() {
                break;
            }
            ticks = ticks.wrapping_add(step);
            taken += 1;
        }
        let frames = taken as u64 * FRAMES_PER_STAMP;
        // Their number is a multiple of four, so the slot counter ends where it was.
        self.next += frames;
        self.anchor = Some((ticks, index + frames));
        run.words += taken * GROUP_WORDS;
        run.frames += frames as usize;
        taken > 0
    }

    /// Counts the words at the start of these that are the accelerations which come next.
    fn plain(&mut self, all: &[Word]) -> usize {
        let Some(last) = self.slot else { return 0 };
        let next = tags_after(last);
        let (fours, _) = all.as_chunks::<4>();
        let mut words = 4 * fours.iter().take_while(|four| tags(four) == next).count();
        for (word, tag) in all.get(words..).unwrap_or_default().iter().zip(next.to_le_bytes()) {
            if word[0] != tag {
                break;
            }
            words += 1;
        }
        self.slot = Some((words.to_le_bytes()[0] & 3).wrapping_add(last) & 3);
        self.next += words as u64;
        words
    }

    /// Whether this is the last frame's timestamp, and tells that nothing was lost since the anchor; as nearly always. Then
    /// that frame is the next anchor.
    fn stamped(&mut self, word: &Word) -> bool {
        let (Some((ticks, index)), Some(group), Some(slot)) = (self.anchor, self.group, self.slot) else {
            return false;
        };
        let next = ticks.wrapping_add(group);
        let expected = index + FRAMES_PER_STAMP + 1 == self.next
            && word[0] == tag(TAG_TIMESTAMP, slot)
            && ticks_of(word) == next;
        if expected {
            self.anchor = Some((next, self.next - 1));
        }
        expected
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

impl Run {
    pub(super) const fn new() -> Self {
        Self { words: 0, frames: 0, lost: 0, stamps: Vec::new(), unpacked: 0, stamps_passed: 0 }
    }

    pub(super) fn clear(&mut self) {
        (self.words, self.frames, self.lost, self.unpacked, self.stamps_passed) = (0, 0, 0, 0, 0);
        self.stamps.clear();
    }

    /// Puts the next frames of the run, whose words are given, into as many places as there are. Returns the samples'
    /// [`magnitude`](crate::sensor::magnitude)s put together, of which those in the inner half of the range are told as 0.
    pub(super) fn unpack(&mut self, words: &[Word], places: [&mut [i16]; 3]) -> u32 {
        // As bytes, so that two samples can be put by one instruction.
        let [mut xs, mut ys, mut zs] = places.map(bytemuck::cast_slice_mut::<i16, [u8; 2]>);
        let mut unlike = 0;
        loop {
            let words = words.get(self.unpacked..).unwrap_or_default();
            let groups = self.groups_next().min(xs.len() / GROUP_FRAMES);
            let frames = if groups > 0 { groups * GROUP_FRAMES } else { self.frames_next().min(xs.len()) };
            let (x, y, z);
            ((x, xs), (y, ys), (z, zs)) =
                (xs.split_at_mut(frames), ys.split_at_mut(frames), zs.split_at_mut(frames));
            unlike |= if groups > 0 { planar_groups(words, [x, y, z]) } else { planar(words, [x, y, z]) };
            self.unpacked += frames + groups;
            self.stamps_passed += groups;
            self.frames -= frames;
            if groups == 0 {
                if self.stamps.get(self.stamps_passed).is_none_or(|&at| usize::from(at) != self.unpacked) {
                    // The highest two bits of a sample differ: it is in the outer half of the range.
                    return if unlike & 0x8000_8000 == 0 { 0 } else { 0x7FFF };
                }
                self.unpacked += 1;
                self.stamps_passed += 1;
            }
        }
    }

    /// Frames before the next timestamp.
    fn frames_next(&self) -> usize {
        self.stamps.get(self.stamps_passed).map_or(self.words, |&at| usize::from(at)) - self.unpacked
    }

    /// Groups, each of 32 frames and a timestamp, that come next.
    fn groups_next(&self) -> usize {
        let stamps = self.stamps.get(self.stamps_passed..).unwrap_or_default();
        let expected = (self.unpacked + GROUP_FRAMES..).step_by(GROUP_WORDS);
        stamps.iter().zip(expected).take_while(|&(&at, expected)| usize::from(at) == expected).count()
    }
}

/// Places for samples of a channel, little-endian.
type Places<'p> = &'p mut [[u8; 2]];

/// As [`planar`], of groups.
fn planar_groups(words: &[Word], [xs, ys, zs]: [Places<'_>; 3]) -> u32 {
    let (groups, _) = words.as_chunks::<GROUP_WORDS>();
    let (xs, ys, zs) = (xs.as_chunks_mut(), ys.as_chunks_mut(), zs.as_chunks_mut());
    let mut found = 0;
    for ((([frames @ .., _], x), y), z) in groups.iter().zip(xs.0).zip(ys.0).zip(zs.0) {
        let [x, y, z]: [&mut [[u8; 2]; GROUP_FRAMES]; 3] = [x, y, z];
        found |= planar(frames, [x, y, z]);
    }
    found
}

/// Puts as many frames as there are places. The result has bit 15 or 31 set when the highest two bits of any sample differ.
#[inline(always)]
fn planar(words: &[Word], [xs, ys, zs]: [Places<'_>; 3]) -> u32 {
    let mut found = 0;
    let (fours, words) = words.get(..xs.len()).unwrap_or_default().as_chunks::<4>();
    let [(x4, xs), (y4, ys), (z4, zs)] = [xs, ys, zs].map(pairs);
    for ((([a, b, c, d], [x, x_next]), [y, y_next]), [z, z_next]) in fours.iter().zip(x4).zip(y4).zip(z4) {
        found = put(a, b, [x, y, z], found);
        // Or else the compiler puts all this off and keeps more pairs until then than there are registers.
        found = core::hint::black_box(put(c, d, [x_next, y_next, z_next], found));
    }
    for (((word, x), y), z) in words.iter().zip(xs).zip(ys).zip(zs) {
        let mut pairs = [[0; 4]; 3];
        found = put(word, word, pairs.each_mut(), found);
        for (place, [low, high, ..]) in [x, y, z].into_iter().zip(pairs) {
            *place = [low, high];
        }
    }
    found
}

/// Places of two pairs each, and those left over.
fn pairs(places: Places<'_>) -> (&mut [[[u8; 4]; 2]], Places<'_>) {
    let (fours, rest) = places.as_chunks_mut::<4>();
    let (pairs, _) = fours.as_flattened_mut().as_flattened_mut().as_chunks_mut();
    (pairs.as_chunks_mut().0, rest)
}

/// Puts two frames as pairs of x, of y and of z. Checks both samples of a pair at once: they cost as much as one.
fn put(first: &Word, second: &Word, [x, y, z]: [&mut [u8; 4]; 3], found: u32) -> u32 {
    let xy = |word: &Word| word[1..].first_chunk().map_or(0, |xy| u32::from_le_bytes(*xy));
    let third = |word: &Word| word[1..].last_chunk().map_or(0, |z| u32::from(u16::from_le_bytes(*z)));
    let unlike = |pair: u32| pair ^ pair << 1;
    let (early, late) = (xy(first), xy(second));
    let thirds = third(first) | third(second) << 16;
    *x = (early & 0xFFFF | late << 16).to_le_bytes();
    *y = (early >> 16 | late & 0xFFFF_0000).to_le_bytes();
    *z = thirds.to_le_bytes();
    found | unlike(early) | unlike(late) | unlike(thirds)
}

/// What a timestamp word tells.
fn ticks_of(word: &Word) -> u32 {
    word[1..].first_chunk().map_or(0, |ticks| u32::from_le_bytes(*ticks))
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
    fn words(indices: impl Iterator<Item = u64>, ticks_per_32: u64, stamp_first: bool) -> Vec<Word> {
        let mut words = Vec::new();
        for index in indices {
            let slot = (index & 3) as u8;
            let mut frame = [0u8; 7];
            frame[0] = tag(TAG_XL, slot);
            frame[1..3].copy_from_slice(&(index as i16).to_le_bytes());
            let mut stamp = [0u8; 7];
            stamp[0] = tag(TAG_TIMESTAMP, slot);
            stamp[1..5].copy_from_slice(&((index * ticks_per_32 / 32) as u32).to_le_bytes());
            match (index % 32 == 0, stamp_first) {
                (false, _) => words.push(frame),
                (true, false) => words.extend([frame, stamp]),
                (true, true) => words.extend([stamp, frame]),
            }
        }
        words
    }

    fn run(counter: &mut Counter, words: &[Word]) -> Run {
        let mut run = Run::new();
        counter.run(words, &mut run).unwrap();
        run
    }

    #[test]
    fn a_lost_stretch_is_counted_exactly_from_the_timestamps_whatever_their_unit_and_order() {
        for (ticks, stamp_first) in [(96, false), (96, true), (48, false), (48, true)] {
            for lost in [1u64, 2, 4, 37, 512, 100_000] {
                let mut counter = Counter::new();
                let before = run(&mut counter, &words(0..100, ticks, stamp_first));
                assert_eq!((before.frames, before.lost), (100, 0));
                let after = run(&mut counter, &words(100 + lost..200 + lost, ticks, stamp_first));
                assert_eq!((after.frames, after.lost), (100, lost), "{ticks} ticks, {stamp_first}");
                assert_eq!(counter.next, 200 + lost);
            }
        }
    }

    #[test]
    fn a_hole_within_a_batch_splits_it() {
        let mut counter = Counter::new();
        run(&mut counter, &words(0..100, 96, false));
        let found = words((100..150).chain(161..300), 96, false);
        let first = run(&mut counter, &found);
        assert_eq!((first.frames, first.lost), (50, 0));
        let second = run(&mut counter, &found[first.words..]);
        assert_eq!((second.frames, second.lost), (139, 11));
    }

    #[test]
    fn a_hole_that_the_slot_counter_cannot_show_is_found_in_the_next_batch() {
        let mut counter = Counter::new();
        run(&mut counter, &words(0..100, 96, false));
        assert_eq!(run(&mut counter, &words((100..200).chain(208..300), 96, false)).lost, 0);
        assert_eq!(run(&mut counter, &words(300..400, 96, false)).lost, 8);
        assert_eq!(counter.next, 400);
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_places_are_cut_and_only_loud_ones_are_told() {
        for (stamp_first, loud) in [(false, None), (true, None), (false, Some(77)), (true, Some(130))] {
            let mut found = words(5..205, 96, stamp_first);
            let frames: Vec<[i16; 3]> = (0..200).map(|n| [n * 81 - 8_000, 3 - n, -n * 80]).collect();
            for (word, frame) in found.iter_mut().filter(|word| word[0] >> 3 == TAG_XL).zip(&frames) {
                for (pair, sample) in word[1..].chunks_exact_mut(2).zip(frame) {
                    pair.copy_from_slice(&sample.to_le_bytes());
                }
            }
            let mut expected = frames;
            if let Some(loud) = loud {
                expected[loud][loud % 3] = i16::MIN;
                let word = found.iter_mut().filter(|word| word[0] >> 3 == TAG_XL).nth(loud).unwrap();
                word[2 + 2 * (loud % 3)] = 0x80;
                word[1 + 2 * (loud % 3)] = 0;
            }
            let mut run = run(&mut Counter::new(), &found);
            assert_eq!(run.frames, 200);
            let (mut out, mut bits) = (Vec::new(), 0);
            for count in [1, 2, 30, 31, 40, 96] {
                let [mut xs, mut ys, mut zs] = [[0; 96]; 3];
                bits |= run.unpack(&found, [&mut xs[..count], &mut ys[..count], &mut zs[..count]]);
                out.extend((0..count).map(|at| [xs[at], ys[at], zs[at]]));
            }
            assert_eq!((out, run.frames), (expected, 0));
            assert_eq!(bits, if loud.is_some() { 0x7FFF } else { 0 }, "{stamp_first} {loud:?}");
        }
    }

    #[test]
    fn a_wrong_parity_bit_is_noticed() {
        let mut found = words(0..3, 96, false);
        found[1][0] ^= 1;
        assert_eq!(Counter::new().run(&found, &mut Run::new()), Err(FifoError::Tag));
    }
}
