//! Analog accelerometers (ADXL1002, ADXL1005 and their like) on a converter that DMA empties into the pieces of a buffer in turn.
//!
//! The converter's span is the sensor's supply, and the sensor at rest is at half of it, so mid-scale is taken for zero; what
//! a part's own offset is stays in the samples, as with every other sensor. Pieces that were overwritten before they were
//! taken are lost samples, counted exactly. Runs against the [`model`]; a board implements [`AdcStream`], with [`Turns`] to count
//! by.

pub mod model;
mod turns;

pub use turns::{Full, Turns};

use super::{Batch, Planar, SelfTest, Sensor, SensorInfo};
use crate::config::SensorConfig;
use embassy_time::{Duration, with_timeout};

/// Most channels of one stream.
pub const CHANNELS_MAX: usize = spindle_common::wire::AXES_MAX;

/// A piece of the buffer that the DMA has filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Conversions in it: channels one after the other, frame by frame.
    pub counts: usize,
    /// Tick of its last conversion.
    pub tick: u64,
    /// Pieces before this one that the DMA has overwritten, each of as many conversions.
    pub lost: u64,
}

/// Whether the sensor's self-test input is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It rests.
    Off,
    /// It is driven.
    On,
}

/// A converter at a fixed rate whose samples DMA puts into the pieces of a buffer in turn. A board implements it by its HAL.
#[allow(async_fn_in_trait, reason = "tasks of one board run on one executor and need no Send")]
pub trait AdcStream {
    /// What can go wrong.
    type Error: core::fmt::Debug;

    /// Starts converting anew, with nothing full.
    async fn start(&mut self) -> Result<(), Self::Error>;

    /// Waits until a piece is full that was not taken yet. May be given up and called again without loss.
    async fn wait(&mut self) -> Result<(), Self::Error>;

    /// Copies the oldest full piece into `out`, as far as it fits, and frees it. `None` when none is full.
    fn take(&mut self, out: &mut [u16]) -> Result<Option<Piece>, Self::Error>;

    /// Drives the sensor's self-test input. False when none is wired.
    fn self_test(&mut self, _force: Force) -> bool {
        false
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// The converter failed.
    #[error("analog sensor: converter failed")]
    Adc(E),
    /// No piece was filled for a second.
    #[error("analog sensor: no samples for a second")]
    Silent,
    /// A piece does not consist of whole frames, or is larger than the driver's buffer.
    #[error("analog sensor: piece of {counts} counts")]
    Shape {
        /// Its length.
        counts: usize,
    },
    /// A count has more bits than the converter.
    #[error("analog sensor: count {count} is wider than the converter")]
    Width {
        /// The count.
        count: u16,
    },
    /// The self-test input is not wired, or the sensor's file has no limits for it.
    #[error("analog sensor: no self-test input, or no limits for it")]
    NoSelfTest,
}

/// The driver. `BUFFER`: conversions in the largest piece.
pub struct Analog<'c, A, const BUFFER: usize> {
    adc: A,
    config: &'c SensorConfig,
    channels: usize,
    buffer: [u16; BUFFER],
    /// Counts of the last piece, and those handed out already.
    filled: usize,
    given: usize,
}

impl<'c, A: AdcStream, const BUFFER: usize> Analog<'c, A, BUFFER> {
    /// A driver on this converter.
    pub const fn new(adc: A, config: &'c SensorConfig) -> Self {
        let channels = config.axes.len();
        let channels = if channels < 1 { 1 } else { channels };
        Self { adc, config, channels, buffer: [0; BUFFER], filled: 0, given: 0 }
    }

    /// Counts below mid-scale are negative.
    fn middle(&self) -> i32 {
        1 << (self.config.bits.clamp(2, 16) - 1)
    }

    /// Mean per channel over a tenth of a second, after as long again to settle.
    async fn mean(&mut self) -> Result<[f32; 3], Error<A::Error>> {
        let tenth = self.config.rate_nominal_mhz as usize / 10_000 + 1;
        let (mut settling, mut seen, mut sum) = (tenth, 0, [0f64; 3]);
        while seen < tenth {
            self.wait().await?;
            let batch = self.fetch().await?;
            if settling > 0 {
                settling = settling.saturating_sub(batch.frames);
                continue;
            }
            self.drain(|frame| {
                for (sum, &count) in sum.iter_mut().zip(frame) {
                    *sum += f64::from(count);
                }
            });
            seen += batch.frames;
        }
        #[allow(clippy::cast_possible_truncation, reason = "a mean of 16-bit counts")]
        Ok(sum.map(|sum| (sum / seen as f64) as f32))
    }
}

impl<A: AdcStream, const BUFFER: usize> Sensor for Analog<'_, A, BUFFER> {
    type Sample = i16;
    type Error = Error<A::Error>;

    fn info(&self) -> SensorInfo {
        SensorInfo {
            model: self.config.model,
            axes: u8::try_from(self.channels).unwrap_or(u8::MAX),
            bits: self.config.bits,
            rate_nominal_mhz: self.config.rate_nominal_mhz,
            rate_trimmed_mhz: 0,
            scale: self.config.scale,
            ends: [-self.middle(), self.middle() - 1],
        }
    }

    async fn configure(&mut self) -> Result<(), Self::Error> {
        (self.filled, self.given) = (0, 0);
        self.adc.self_test(Force::Off);
        self.adc.start().await.map_err(Error::Adc)
    }

    async fn wait(&mut self) -> Result<(), Self::Error> {
        match with_timeout(Duration::from_secs(1), self.adc.wait()).await {
            Ok(result) => result.map_err(Error::Adc),
            Err(_) => Err(Error::Silent),
        }
    }

    async fn fetch(&mut self) -> Result<Batch, Self::Error> {
        (self.filled, self.given) = (0, 0);
        let Some(piece) = self.adc.take(&mut self.buffer).map_err(Error::Adc)? else {
            return Ok(Batch::default());
        };
        let counts = piece.counts;
        let Some(taken) = self.buffer.get(..counts).filter(|_| counts.is_multiple_of(self.channels)) else {
            return Err(Error::Shape { counts });
        };
        let most = self.middle() * 2 - 1;
        if let Some(&count) = taken.iter().find(|&&count| i32::from(count) > most) {
            return Err(Error::Width { count });
        }
        self.filled = counts;
        Ok(Batch {
            frames: counts / self.channels,
            lost: piece.lost.saturating_mul((counts / self.channels) as u64),
            overrun: piece.lost > 0,
            uncounted: false,
            newest_tick: (counts > 0).then_some(piece.tick),
            more: counts > 0,
        })
    }

    fn drain_into(&mut self, planar: &mut Planar<'_, i16>) -> usize {
        let middle = self.middle();
        let mut samples = [0i16; CHANNELS_MAX];
        let mut frames = 0;
        for counts in self.buffer[self.given..self.filled].chunks_exact(self.channels) {
            for (sample, &count) in samples.iter_mut().zip(counts) {
                #[allow(clippy::cast_possible_truncation, reason = "the width was checked")]
                let signed = (i32::from(count) - middle) as i16;
                *sample = signed;
            }
            if !planar.push(samples.get(..self.channels).unwrap_or(&samples)) {
                break;
            }
            frames += 1;
        }
        self.given += frames * self.channels;
        frames
    }

    async fn self_test(&mut self) -> Result<SelfTest, Self::Error> {
        let limits = self.config.adc_self_test.ok_or(Error::NoSelfTest)?;
        self.configure().await?;
        let off = self.mean().await?;
        if !self.adc.self_test(Force::On) {
            return Err(Error::NoSelfTest);
        }
        let on = self.mean().await;
        self.adc.self_test(Force::Off);
        let mut moved = [0f32; 3];
        for (moved, (on, off)) in moved.iter_mut().zip(on?.into_iter().zip(off)) {
            *moved = (on - off) * self.config.scale;
        }
        // Channels that there are not cannot move.
        let limit = |channel| if channel < self.channels { limits } else { [0.0; 2] };
        Ok(SelfTest::judge(moved, [limit(0), limit(1), limit(2)]))
    }

    async fn temperature(&mut self) -> Result<Option<i16>, Self::Error> {
        Ok(None)
    }
}
