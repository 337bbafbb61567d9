//! A recording of any rate, width and number of channels, behind the sensor trait.

use super::tap::Tap;
use super::timebase::HostTime;
use crate::clock::{TICK_HZ, Timebase};
use crate::sensor::{Batch, Planar, SelfTest, Sensor, SensorInfo, ends};
use core::cell::Cell;
use core::convert::Infallible;
use core::ops::Range;
use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use std::string::String;
use std::sync::Arc;

/// A recording: interleaved samples and what they mean.
#[derive(Debug, Clone)]
pub struct Playback {
    samples: Arc<[i32]>,
    axes: String,
    model: String,
    bits: u8,
    rate_hz: f64,
    scale: f32,
    repeat: bool,
}

impl Playback {
    /// Interleaved `samples` of one channel per letter of `axes`, `bits` wide, `rate_hz` samples a second, `scale` m/s² a
    /// count. `None` when the facts cannot be a stream's.
    #[must_use]
    pub fn new(samples: Arc<[i32]>, axes: &str, bits: u8, rate_hz: f64, scale: f32) -> Option<Self> {
        let channels = axes.len();
        let whole = (1..=spindle_common::wire::AXES_MAX).contains(&channels)
            && samples.len().is_multiple_of(channels);
        let rate_fits = (1e-3..4.0e6).contains(&rate_hz);
        let half = 1i32 << (u32::from(bits.clamp(2, 24)) - 1);
        let values_fit = samples.iter().all(|sample| (-half..half).contains(sample));
        let ok =
            whole && axes.is_ascii() && rate_fits && (2..=24).contains(&bits) && values_fit && scale > 0.0;
        ok.then(|| Self {
            samples,
            axes: axes.into(),
            model: "recording".into(),
            bits,
            rate_hz,
            scale,
            repeat: false,
        })
    }

    /// Plays it over and over.
    #[must_use]
    pub const fn repeated(mut self) -> Self {
        self.repeat = true;
        self
    }

    /// The sensor type that its birth tells; `recording` unless told.
    #[must_use]
    pub fn with_model(mut self, model: &str) -> Self {
        self.model = model.into();
        self
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// Bits of its samples.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Samples per channel.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.samples.len() / self.axes.len()) as u64
    }

    /// Whether it holds no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Nominal sample rate, Hz.
    #[must_use]
    pub const fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    pub(crate) fn axes(&self) -> &str {
        &self.axes
    }

    pub(crate) const fn scale(&self) -> f32 {
        self.scale
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked by `new`")]
    pub(crate) fn rate_mhz(&self) -> u32 {
        (self.rate_hz * 1000.0).round() as u32
    }
}

/// How a player is told to end, and tells that all it took is delivered.
#[derive(Default)]
pub(crate) struct End {
    asked: Cell<bool>,
    ending: Signal<NoopRawMutex, ()>,
    drained: Signal<NoopRawMutex, ()>,
}

impl End {
    pub(crate) fn ask(&self) {
        self.asked.set(true);
        self.ending.signal(());
    }

    pub(crate) async fn drained(&self) {
        self.drained.wait().await;
    }
}

/// Most frames in one batch.
const BATCH_MAX: u64 = 512;

/// Plays into the core: at its rate by `time`, some ten milliseconds at a time.
pub(crate) struct Player<'t> {
    playback: Playback,
    time: &'t HostTime,
    tap: Arc<Tap>,
    end: &'t End,
    /// Ticks per sample of this part.
    period: f64,
    start: u64,
    taken: u64,
    left: Option<u64>,
    batch: Range<usize>,
}

impl<'t> Player<'t> {
    pub(crate) fn new(
        playback: Playback,
        time: &'t HostTime,
        tap: Arc<Tap>,
        rate_error: f64,
        end: &'t End,
    ) -> Self {
        let period = f64::from(TICK_HZ) / (playback.rate_hz * (1.0 + rate_error));
        Self { playback, time, tap, end, period, start: 0, taken: 0, left: None, batch: 0..0 }
    }

    pub(crate) const fn stop_after(mut self, left: Option<u64>) -> Self {
        self.left = left;
        self
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    fn tick_of(&self, count: u64) -> u64 {
        self.start + (count as f64 * self.period).ceil() as u64
    }

    /// Samples of about 10 ms.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    fn step(&self) -> u64 {
        ((f64::from(TICK_HZ) / 100.0 / self.period).ceil() as u64).clamp(1, BATCH_MAX)
    }

    /// Samples that can still come before the recording, or what was asked of it, ends.
    fn remaining(&self) -> u64 {
        if self.end.asked.get() {
            return 0;
        }
        let of_recording = if self.playback.repeat { u64::MAX } else { self.playback.len() - self.taken };
        of_recording.min(self.left.unwrap_or(u64::MAX))
    }
}

impl Sensor for Player<'_> {
    type Sample = i32;
    type Error = Infallible;

    fn info(&self) -> SensorInfo {
        SensorInfo {
            model: "recording",
            axes: u8::try_from(self.playback.axes.len()).unwrap_or(u8::MAX),
            bits: self.playback.bits,
            rate_nominal_mhz: self.playback.rate_mhz(),
            rate_trimmed_mhz: 0,
            scale: self.playback.scale,
            ends: ends(self.playback.bits),
        }
    }

    async fn configure(&mut self) -> Result<(), Infallible> {
        // A recording does not start again; time that passed is time without samples.
        self.start = self.time.now();
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), Infallible> {
        loop {
            let remaining = self.remaining();
            if remaining == 0 || self.playback.is_empty() {
                self.end.drained.signal(());
                return core::future::pending().await;
            }
            let wanted = self.taken + self.step().min(remaining);
            select(self.time.until(self.tick_of(wanted)), self.end.ending.wait()).await;
            if self.time.now() >= self.tick_of(wanted) && !self.end.asked.get() {
                return Ok(());
            }
        }
    }

    async fn fetch(&mut self) -> Result<Batch, Infallible> {
        let now = self.time.now();
        let length = self.playback.len();
        let place = if self.playback.repeat { self.taken % length.max(1) } else { self.taken };
        let mut frames = 0;
        let most = self.remaining().min(BATCH_MAX).min(length - place.min(length));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        let due = (now.saturating_sub(self.start) as f64 / self.period) as u64;
        if due > self.taken {
            frames = (due - self.taken).min(most);
        }
        let axes = self.playback.axes.len();
        let from = usize::try_from(place).unwrap_or(0) * axes;
        let count = usize::try_from(frames).unwrap_or(0);
        self.batch = from..from + count * axes;
        self.taken += frames;
        self.left = self.left.map(|left| left - frames);
        let newest = (frames > 0 && due == self.taken).then_some(now);
        Ok(Batch { frames: count, newest_tick: newest, ..Batch::default() })
    }

    fn drain_into(&mut self, planar: &mut Planar<'_, i32>) -> usize {
        let axes = self.playback.axes.len();
        let mut frames = 0;
        for samples in self.playback.samples.get(self.batch.clone()).unwrap_or_default().chunks_exact(axes) {
            if !planar.push(samples) {
                break;
            }
            self.tap.add(samples.iter().copied());
            frames += 1;
        }
        self.batch.start += frames * axes;
        frames
    }

    async fn self_test(&mut self) -> Result<SelfTest, Infallible> {
        Ok(SelfTest { passed: true, moved: [0.0; 3], limits: [[0.0; 2]; 3] })
    }

    async fn temperature(&mut self) -> Result<Option<i16>, Infallible> {
        Ok(None)
    }
}
