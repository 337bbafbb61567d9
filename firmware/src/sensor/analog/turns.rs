//! Which pieces of a circular buffer are full, when DMA fills it without end: told by the place where it writes and the clock,
//! so that an interrupt that came late, or not at all, loses no count.

use crate::clock::TICK_HZ;
use core::ops::Range;

/// A buffer of `PIECES` pieces, each of as many conversions. All of them but the one being filled can be read.
#[derive(Debug, Clone)]
pub struct Turns<const PIECES: u64> {
    /// Conversions in a piece, and per 1,000 s.
    counts: u64,
    rate_mhz: u64,
    /// Pieces filled since the start, and the first that was not taken.
    filled: u64,
    next: u64,
    /// Tick of the last conversion of the newest full piece; of the start, before there is one.
    end: u64,
}

/// A full piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Where it lies in the buffer, in conversions.
    pub place: Range<usize>,
    /// Tick of its last conversion.
    pub tick: u64,
    /// Pieces before it that were overwritten.
    pub lost: u64,
}

impl<const PIECES: u64> Turns<PIECES> {
    /// Starts now at the buffer's first place. `rate_mhz` is that of conversions, all channels together, as exact as the
    /// converter's own clock.
    #[must_use]
    pub const fn new(counts: usize, rate_mhz: u64, now: u64) -> Self {
        const { assert!(PIECES > 1) };
        let counts = if counts > 0 { counts as u64 } else { 1 };
        Self { counts, rate_mhz: if rate_mhz > 0 { rate_mhz } else { 1 }, filled: 0, next: 0, end: now }
    }

    /// Ticks that so many conversions take.
    const fn ticks(&self, counts: u64) -> u64 {
        counts * TICK_HZ as u64 * 1000 / self.rate_mhz
    }

    /// Looks where the DMA writes at this tick, in conversions from the buffer's start. How often it went round since the last look
    /// is told by the time, right as long as the clock is off by less than half a turn.
    pub fn look(&mut self, now: u64, place: usize) {
        let (piece, beyond) = (place as u64 / self.counts % PIECES, place as u64 % self.counts);
        let end = now.saturating_sub(self.ticks(beyond));
        let part = (piece + PIECES - self.filled % PIECES) % PIECES;
        let turn = self.ticks(self.counts * PIECES).max(1);
        let passed = end.saturating_sub(self.end);
        let turns = (passed + turn / 2).saturating_sub(self.ticks(part * self.counts)) / turn;
        let filled = part + turns * PIECES;
        if filled > 0 {
            self.filled += filled;
            self.end = end;
        }
    }

    /// The oldest piece that is whole; `None` when none is full that was not taken.
    #[must_use]
    pub fn full(&self) -> Option<Full> {
        let whole = self.filled.saturating_sub(PIECES - 1).max(self.next);
        if whole >= self.filled {
            return None;
        }
        let from = whole % PIECES * self.counts;
        #[allow(clippy::cast_possible_truncation, reason = "within the buffer")]
        let place = from as usize..(from + self.counts) as usize;
        let later = self.filled - 1 - whole;
        let tick = self.end.saturating_sub(self.ticks(later * self.counts));
        Some(Full { place, tick, lost: whole - self.next })
    }

    /// The piece that [`Turns::full`] told has been copied, and the DMA was [looked at](Turns::look) again since. False when it has
    /// meanwhile begun to overwrite the piece: the copy is worth nothing.
    pub fn take(&mut self, full: &Full) -> bool {
        let number = self.next + full.lost;
        if self.filled.saturating_sub(number) >= PIECES {
            return false;
        }
        self.next = number + 1;
        true
    }
}
