//! A converter with a sensor on each channel: two halves that fill in turn, an overrun when both are full, a self-test
//! input, a rate some percent off nominal, and faults.

use super::{AdcStream, Force, Piece};
use crate::clock::Timebase;
use crate::config::SensorConfig;
use crate::sensor::model::{Fault, Part};
use crate::sensor::signal::Signal;
use core::cell::RefCell;
use core::convert::Infallible;

/// How far the output moves in self-test, m/s².
pub const SELF_TEST_MOVE: f32 = 5.0 * 9.806_65;

/// Frames of up to three channels in a half.
pub const HALF_FRAMES: usize = 256;

struct Inside<S> {
    source: S,
    part: Part,
    halves: [[u16; 3 * HALF_FRAMES]; 2],
    /// The half that is being filled, and frames in it.
    filling: usize,
    frames: usize,
    /// Ticks of the last conversion of the full ones.
    full: [Option<u64>; 2],
    /// Full halves overwritten since one was taken.
    lost: u64,
    force: Force,
}

/// See the module. The driver is given a reference.
pub struct Model<'c, S, T> {
    inside: RefCell<Inside<S>>,
    config: &'c SensorConfig,
    time: T,
}

impl<'c, S: Signal<i32>, T: Timebase> Model<'c, S, T> {
    /// A converter as configured (up to three channels) whose rate is `rate_error` off (0.012: 1.2 % fast).
    pub fn new(source: S, time: T, config: &'c SensorConfig, rate_error: f64) -> Self {
        let inside = Inside {
            source,
            part: Part::new(f64::from(config.rate_nominal_mhz) / 1000.0 * (1.0 + rate_error)),
            halves: [[0; 3 * HALF_FRAMES]; 2],
            filling: 0,
            frames: 0,
            full: [None; 2],
            lost: 0,
            force: Force::Off,
        };
        Self { inside: RefCell::new(inside), config, time }
    }

    /// Breaks the converter, or mends it.
    pub fn inject(&self, fault: Option<Fault>) {
        self.inside.borrow_mut().part.fault = fault;
    }

    fn channels(&self) -> usize {
        self.config.axes.len().clamp(1, 3)
    }

    fn advance(&self) {
        let inside = &mut *self.inside.borrow_mut();
        let due = inside.part.due(self.time.now());
        let channels = self.channels();
        let half = 1i32 << (self.config.bits.clamp(2, 16) - 1);
        while inside.part.taken < due && !inside.part.ended {
            let Some(frame) = inside.source.next(self.config.scale) else {
                inside.part.ended = true;
                return;
            };
            let pushed = inside.force == Force::On && inside.part.fault != Some(Fault::DeadSelfTest);
            #[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
            let moved = if pushed { libm::roundf(SELF_TEST_MOVE / self.config.scale) as i32 } else { 0 };
            let frame = frame.map(|count| (count.saturating_add(moved)).clamp(-half, half - 1));
            for (channel, count) in frame.iter().enumerate().take(channels) {
                let count = match inside.part.fault {
                    Some(Fault::Stuck(0)) => 0,
                    Some(Fault::Stuck(_)) => u16::MAX,
                    _ => u16::try_from(count + half).unwrap_or(u16::MAX),
                };
                inside.halves[inside.filling][inside.frames * channels + channel] = count;
            }
            inside.source.batched(frame);
            inside.part.taken += 1;
            inside.frames += 1;
            if inside.frames == HALF_FRAMES {
                inside.swap();
            }
        }
    }
}

impl<S> Inside<S> {
    /// The half is full; the DMA goes on in the other, whether that was taken or not.
    fn swap(&mut self) {
        self.full[self.filling] = self.part.tick_after(0);
        self.frames = 0;
        self.filling ^= 1;
        if self.full[self.filling].take().is_some() {
            self.lost += 1;
        }
    }
}

impl<S: Signal<i32>, T: Timebase> AdcStream for &Model<'_, S, T> {
    type Error = Infallible;

    async fn start(&mut self) -> Result<(), Infallible> {
        let inside = &mut *self.inside.borrow_mut();
        inside.part.restart(Some(self.time.now()));
        (inside.filling, inside.frames, inside.full, inside.lost) = (0, 0, [None; 2], 0);
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), Infallible> {
        loop {
            self.advance();
            let due = {
                let inside = self.inside.borrow();
                if inside.full.iter().any(Option::is_some) {
                    return Ok(());
                }
                inside.part.tick_after((HALF_FRAMES - inside.frames) as u64)
            };
            match due {
                Some(tick) => self.time.until(tick).await,
                None => core::future::pending().await,
            }
        }
    }

    fn take(&mut self, out: &mut [u16]) -> Result<Option<Piece>, Infallible> {
        self.advance();
        let counts = HALF_FRAMES * self.channels();
        let inside = &mut *self.inside.borrow_mut();
        // Of two full halves the DMA is about to write into the older.
        let oldest = inside.filling;
        let index = if inside.full[oldest].is_some() { oldest } else { oldest ^ 1 };
        let Some(tick) = inside.full[index].take() else { return Ok(None) };
        let fits = counts.min(out.len());
        out[..fits].copy_from_slice(&inside.halves[index][..fits]);
        Ok(Some(Piece { counts, tick, lost: core::mem::take(&mut inside.lost) }))
    }

    fn self_test(&mut self, force: Force) -> bool {
        self.advance();
        self.inside.borrow_mut().force = force;
        true
    }
}
