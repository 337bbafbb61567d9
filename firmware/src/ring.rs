//! The ring of encoded blocks, features and bursts (all called blocks here) that wait for the gateway's acknowledgement.
//!
//! Constraints: fixed storage (`storage.len()` bytes, `BLOCKS` places), blocks of any length laid end to end, each
//! contiguous. When a new block does not fit, the oldest are dropped and reported to the caller, who counts them: what is
//! lost shows downstream as a gap. Sequence numbers are given here, dense and in order.

use crate::transport::Channel;
use heapless::Deque;
use spindle_common::id::Seq;

/// What the ring knows of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes, and of which sensor it is.
    pub channel: Channel,
    /// Samples per channel of the sensor that it stands for.
    pub covered: u32,
    offset: u32,
    len: u32,
}

/// Why a block did not enter the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Larger than the whole ring.
    #[error("block of up to {len} bytes does not fit a ring of {capacity} bytes")]
    TooLarge {
        /// Bytes asked for.
        len: usize,
        /// Bytes of storage.
        capacity: usize,
    },
    /// The encoder refused.
    #[error("block was not encoded")]
    NotEncoded,
}

/// See the module. `B` is the storage: `[u8; N]` in a `static` on a board, a boxed slice on a host.
#[derive(Debug)]
pub struct Ring<B, const BLOCKS: usize> {
    storage: B,
    entries: Deque<Entry, BLOCKS>,
    /// Sequence number of `entries`' front.
    oldest: Seq,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>, const BLOCKS: usize> Ring<B, BLOCKS> {
    /// An empty ring whose first block will have sequence number 0.
    pub const fn new(storage: B) -> Self {
        Self { storage, entries: Deque::new(), oldest: Seq(0) }
    }

    /// Lets an empty ring's next block have this number: to begin near the wrap, which takes years to reach.
    pub fn number_from(&mut self, first: Seq) {
        if self.entries.is_empty() {
            self.oldest = first;
        }
    }

    /// Sequence number of the oldest block held; equal to [`Ring::next`] when empty.
    #[must_use]
    pub const fn oldest(&self) -> Seq {
        self.oldest
    }

    /// Sequence number that the next block will have.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.oldest.plus(self.len_u32())
    }

    /// Blocks held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no block is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Most blocks that it can hold, whatever their size.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        BLOCKS
    }

    /// How full it is, in percent: of its bytes or of its places, whichever is fuller.
    #[must_use]
    pub fn fill_percent(&self) -> u8 {
        let capacity = self.storage.as_ref().len();
        let used = match (self.entries.front(), self.entries.back()) {
            (Some(first), Some(last)) => {
                let (tail, head) = (first.offset as usize, (last.offset + last.len) as usize);
                if head > tail { head - tail } else { capacity - tail + head }
            }
            _ => 0,
        };
        let percent = |part: usize, whole: usize| part.saturating_mul(100) / whole.max(1);
        u8::try_from(percent(used, capacity).max(percent(self.entries.len(), BLOCKS))).unwrap_or(100)
    }

    /// Bytes of its storage: no block may be longer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.storage.as_ref().len()
    }

    /// Whether a block of up to `len` bytes would enter without dropping another.
    #[must_use]
    pub fn fits(&self, len: usize) -> bool {
        !self.entries.is_full() && self.place(len).is_some()
    }

    /// Whether `blocks` blocks of up to `len` bytes each would surely enter without dropping another.
    #[must_use]
    pub fn has_room(&self, blocks: usize, len: usize) -> bool {
        if self.entries.len() + blocks > BLOCKS {
            return false;
        }
        let capacity = self.storage.as_ref().len();
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return blocks * len <= capacity;
        };
        let (tail, head) = (first.offset as usize, (last.offset + last.len) as usize);
        // Blocks are contiguous, so what is left before the end of the storage may hold fewer than its bytes suggest.
        let (before_end, from_start) = if head > tail { (capacity - head, tail) } else { (tail - head, 0) };
        before_end / len.max(1) + from_start / len.max(1) >= blocks
    }

    /// Encodes a block straight into the ring: `encode` gets the block's sequence number and at least `len_max` bytes, and
    /// returns how many it wrote. Drops the oldest blocks until `len_max` bytes are free; `dropped` is told of each.
    ///
    /// # Errors
    /// When `len_max` exceeds the storage, or `encode` returned `None` (what was dropped for it stays dropped).
    pub fn push(
        &mut self,
        channel: Channel,
        covered: u32,
        len_max: usize,
        encode: impl FnOnce(Seq, &mut [u8]) -> Option<usize>,
        mut dropped: impl FnMut(Entry),
    ) -> Result<Seq, PushError> {
        let capacity = self.storage.as_ref().len();
        if len_max == 0 || len_max > capacity || BLOCKS == 0 {
            return Err(PushError::TooLarge { len: len_max, capacity });
        }
        let offset = loop {
            if !self.entries.is_full()
                && let Some(offset) = self.place(len_max)
            {
                break offset;
            }
            if let Some(entry) = self.pop_oldest() {
                dropped(entry);
            }
        };
        let seq = self.next();
        let room = self.storage.as_mut().get_mut(offset..offset + len_max).ok_or(PushError::NotEncoded)?;
        let len = encode(seq, room).filter(|&len| len > 0 && len <= len_max).ok_or(PushError::NotEncoded)?;
        let entry = Entry { channel, covered, offset: to_u32(offset), len: to_u32(len) };
        self.entries.push_back(entry).map_err(|_| PushError::NotEncoded)?;
        Ok(seq)
    }

    /// The encoded block with this sequence number, if it is still held.
    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<(Entry, &[u8])> {
        let entry = *self.entries.iter().nth(seq.since(self.oldest) as usize)?;
        let bytes = self.storage.as_ref().get(entry.offset as usize..(entry.offset + entry.len) as usize)?;
        Some((entry, bytes))
    }

    /// Frees every block before `seq` and tells `freed` of each; a `seq` outside what is held frees nothing. Returns how
    /// many were freed.
    pub fn free_before(&mut self, seq: Seq, mut freed: impl FnMut(Entry)) -> usize {
        let count = seq.since(self.oldest);
        if count > self.len_u32() {
            return 0;
        }
        for _ in 0..count {
            if let Some(entry) = self.pop_oldest() {
                freed(entry);
            }
        }
        count as usize
    }

    fn pop_oldest(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.oldest = self.oldest.next();
        Some(entry)
    }

    fn len_u32(&self) -> u32 {
        to_u32(self.entries.len())
    }

    /// Where `len` contiguous bytes are free without touching a held block.
    fn place(&self, len: usize) -> Option<usize> {
        let capacity = self.storage.as_ref().len();
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return (len <= capacity).then_some(0);
        };
        let (tail, head) = (first.offset as usize, (last.offset + last.len) as usize);
        if head > tail {
            if capacity - head >= len {
                return Some(head);
            }
            return (tail >= len).then_some(0);
        }
        (tail - head >= len).then_some(head)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "storage and block counts are far below 4 GiB")]
const fn to_u32(value: usize) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use spindle_common::id::StreamId;
    use std::collections::VecDeque;
    use std::vec::Vec;

    #[derive(Debug, Clone)]
    enum Step {
        Push { len: usize, slack: usize, stream: u8 },
        Free { count: u32 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let push = (1usize..120, 0usize..20, 0u8..3).prop_map(|(len, slack, stream)| Step::Push {
            len,
            slack,
            stream,
        });
        let free = (0u32..9).prop_map(|count| Step::Free { count });
        proptest::collection::vec(prop_oneof![3 => push, 1 => free], 1..200)
    }

    proptest! {
        #[test]
        fn holds_exactly_the_newest_blocks_and_reports_every_drop(steps in steps()) {
            let mut ring: Ring<[u8; 300], 7> = Ring::new([0; 300]);
            let mut model: VecDeque<(u32, u8, Vec<u8>)> = VecDeque::new();
            let (mut next, mut dropped_total, mut freed_total) = (0u32, 0u32, 0u32);
            for step in steps {
                match step {
                    Step::Push { len, slack, stream } => {
                        let fitted = ring.fits(len + slack);
                        let bytes: Vec<u8> = (0..len).map(|i| (next as usize * 31 + i) as u8).collect();
                        let mut dropped = 0;
                        let seq = ring.push(Channel::Raw(StreamId(stream)), len as u32, len + slack, |_, room| {
                            room[..len].copy_from_slice(&bytes);
                            Some(len)
                        }, |entry| {
                            let (_, stream, bytes) = model.pop_front().expect("drops only what is held");
                            assert_eq!((entry.channel, entry.covered as usize), (Channel::Raw(StreamId(stream)), bytes.len()));
                            dropped += 1;
                        }).expect("fits an empty ring");
                        prop_assert_eq!(seq, Seq(next));
                        prop_assert_eq!(fitted, dropped == 0);
                        model.push_back((next, stream, bytes));
                        next += 1;
                        dropped_total += dropped;
                    }
                    Step::Free { count } => {
                        let freed = ring.free_before(ring.oldest().plus(count), |_| ());
                        prop_assert_eq!(freed, if count as usize <= model.len() { count as usize } else { 0 });
                        model.drain(..freed);
                        freed_total += freed as u32;
                    }
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.next(), Seq(next));
                prop_assert_eq!(ring.oldest().0, dropped_total + freed_total);
                for (seq, stream, bytes) in &model {
                    let (entry, found) = ring.get(Seq(*seq)).expect("held");
                    prop_assert_eq!(entry.channel, Channel::Raw(StreamId(*stream)));
                    prop_assert_eq!(found, bytes.as_slice());
                }
                prop_assert!(ring.get(ring.next()).is_none());
            }
        }
    }

    #[test]
    fn a_block_larger_than_the_ring_is_refused_and_drops_nothing() {
        let mut ring: Ring<[u8; 16], 4> = Ring::new([0; 16]);
        ring.push(Channel::Raw(StreamId(0)), 1, 8, |_, _| Some(8), |_| ()).expect("fits");
        let refused = ring.push(
            Channel::Raw(StreamId(0)),
            1,
            17,
            |_, _| Some(17),
            |_| unreachable!("nothing may be dropped"),
        );
        assert_eq!(refused, Err(PushError::TooLarge { len: 17, capacity: 16 }));
        assert_eq!(ring.len(), 1);
    }

    #[test]
    fn sequence_numbers_go_on_over_their_wrap() {
        let mut ring: Ring<[u8; 64], 4> = Ring::new([0; 64]);
        ring.number_from(Seq(u32::MAX));
        for _ in 0..3 {
            ring.push(Channel::Raw(StreamId(0)), 1, 8, |_, _| Some(8), |_| ()).expect("fits");
        }
        assert_eq!(ring.next(), Seq(2));
        assert_eq!(ring.free_before(Seq(1), |_| ()), 2);
        assert!(ring.get(Seq(1)).is_some());
    }
}
