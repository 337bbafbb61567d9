//! A copy of exactly what the sensors produced, for bit-exact tests, and counters that other threads read.

use crate::sensor::Sample;
use crate::sensor::signal::{Signal, SpindleSignal};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::vec::Vec;

/// What one sensor has produced so far.
#[derive(Debug, Default)]
pub struct Tap {
    keep: bool,
    produced: AtomicU64,
    samples: Mutex<Vec<i32>>,
}

impl Tap {
    pub(crate) fn new(keep: bool) -> Arc<Self> {
        Arc::new(Self { keep, ..Self::default() })
    }

    /// Samples per channel that the sensor has produced.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.produced.load(Ordering::Relaxed)
    }

    /// A copy of them, one after the other, channels interleaved; empty unless the board is tapped.
    #[must_use]
    pub fn samples(&self) -> Vec<i32> {
        self.samples.lock().clone()
    }

    /// Takes what was kept since the last call, so that a long run needs no memory; channels interleaved.
    #[must_use]
    pub fn take(&self) -> Vec<i32> {
        std::mem::take(&mut *self.samples.lock())
    }

    pub(crate) fn add(&self, frame: impl ExactSizeIterator<Item = i32>) {
        self.produced.fetch_add(1, Ordering::Relaxed);
        if self.keep {
            self.samples.lock().extend(frame);
        }
    }
}

/// Feeds a chip model: a signal or recorded frames, tapped, ending after so many.
pub(crate) struct Feed {
    pub(crate) from: From,
    pub(crate) left: Option<u64>,
    pub(crate) tap: Arc<Tap>,
}

pub(crate) enum From {
    Spindle(SpindleSignal),
    Frames { frames: Arc<[[i16; 3]]>, at: usize, repeat: bool },
}

impl<C: Sample + core::convert::From<i16>> Signal<C> for Feed {
    fn next(&mut self, scale: f32) -> Option<[C; 3]> {
        if self.left == Some(0) {
            return None;
        }
        let frame = match &mut self.from {
            From::Spindle(signal) => signal.next(scale),
            From::Frames { frames, at, repeat } => {
                if *at == frames.len() && *repeat {
                    *at = 0;
                }
                let frame = frames.get(*at).copied();
                *at += 1;
                frame.map(|frame| frame.map(C::from))
            }
        }?;
        self.left = self.left.map(|left| left - 1);
        Some(frame)
    }

    fn batched(&mut self, frame: [C; 3]) {
        self.tap.add(frame.into_iter().map(C::value));
    }
}

/// Switches of a board that other threads turn.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    pub(crate) cut: AtomicBool,
}
