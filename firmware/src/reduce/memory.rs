//! The memory of one stream, on a board.

use super::{CHUNK_FRAMES, Memory};
use crate::sensor::Sample;
use spindle_common::dsp::{Decimator, LANES};

/// Fixed memory for a stream of up to four channels: blocks and bursts of up to `PLANAR` samples, all channels together. With the
/// decimator 25 kB more than they take; keep it in a task's future or a static.
pub struct Buffers<S, const PLANAR: usize> {
    block: [S; PLANAR],
    history: [S; PLANAR],
    chunk: [S; LANES * CHUNK_FRAMES],
    decimators: [Option<Decimator>; 1],
}

impl<S: Sample, const PLANAR: usize> Buffers<S, PLANAR> {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        let none = S::default();
        Self {
            block: [none; PLANAR],
            history: [none; PLANAR],
            chunk: [none; LANES * CHUNK_FRAMES],
            decimators: [None],
        }
    }

    /// For a reducer.
    pub const fn lend(&mut self) -> Memory<'_, S> {
        let Self { block, history, chunk, decimators } = self;
        Memory { block, chunk, history, decimators }
    }
}

impl<S: Sample, const PLANAR: usize> Default for Buffers<S, PLANAR> {
    fn default() -> Self {
        Self::new()
    }
}
