//! From a sensor's frames to what is sent of them: every sample, samples thinned out, or features of each second with bursts.
//!
//! What must hold, whatever settings come at whatever moment: the samples that a stream's numbered messages stand for are
//! disjoint and in order, and every sample between them is counted as lost before the next message is stored. So each message
//! goes through one place, [`Reducer::account`], which counts what lies between it and the one before.

mod burst;
mod governor;
mod measure;
mod memory;
mod thin;

pub use burst::{Bursts, Release};
pub use governor::{Governor, degraded};
pub use memory::Buffers;

use crate::acquire::{BlockBuilder, SampleClock};
use crate::sensor::{Planar, Sample};
use heapless::Vec;
use measure::Window;
use spindle_common::dsp::Decimator;
use spindle_common::feature::Meter;
use spindle_common::id::StreamId;
use spindle_common::settings::{Step, StreamSettings};
use spindle_common::wire::block::flags;
use spindle_common::wire::messages::Trigger;
use spindle_common::wire::{
    AXES_MAX, AxisFeatures, Encoding, Samples, StreamInfo, TRIGGER_LEN_MAX, block_len_max,
};

/// Frames that go through filters at a time.
pub const CHUNK_FRAMES: usize = 128;

/// Memory of one stream's reducer.
#[derive(Debug)]
pub struct Memory<'b, S> {
    /// A block: channels x the longest block.
    pub block: &'b mut [S],
    /// What filters take at a time: channels x [`CHUNK_FRAMES`], or less.
    pub chunk: &'b mut [S],
    /// The past of a trigger: channels x the longest burst. Empty where the node releases none.
    pub history: &'b mut [S],
    /// One per four channels. Where one is missing, step `Decimated` is not to be had and features are sent instead.
    pub decimators: &'b mut [Option<Decimator>],
}

/// A block that is ready to be encoded; what the node adds is its name, boot and sequence number.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// Which sensor.
    pub stream: StreamId,
    /// Channels.
    pub axes: u8,
    /// How to encode it.
    pub encoding: Encoding,
    /// Samples of the sensor per sample of the block.
    pub decimation: u16,
    /// Index of the first sample.
    pub first_sample: u64,
    /// Tick of the first sample.
    pub tick: u64,
    /// Rate by the node's ticks, mHz; 0 when unknown.
    pub rate_measured_mhz: u32,
    /// Block flags.
    pub flags: u16,
    /// Samples per channel.
    pub frames: u16,
    /// Planar samples of all channels.
    pub samples: Samples<'a>,
}

/// Features that are ready to be encoded.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which sensor.
    pub stream: StreamId,
    /// Index of the window's first sample.
    pub first_sample: u64,
    /// Samples per channel in the window.
    pub samples: u32,
    /// Tick of the first sample.
    pub tick: u64,
    /// Rate by the node's ticks, mHz; 0 when unknown.
    pub rate_measured_mhz: u32,
    /// Block flags of all samples.
    pub flags: u16,
    /// By channel.
    pub axes: Vec<AxisFeatures, AXES_MAX>,
}

/// Where a reducer's messages and counts go: the node.
pub trait Sink {
    /// Stores a block.
    fn block(&self, sealed: &Sealed<'_>);
    /// Stores features.
    fn features(&self, measured: &Measured);
    /// Stores a burst, whose samples count for nothing.
    fn burst(&self, trigger: &Trigger, sealed: &Sealed<'_>);
    /// So many triggers released no burst.
    fn bursts_missed(&self, stream: StreamId, count: u32);
    /// So many samples per channel were taken and will not be sent; everything before `taken` is now accounted for.
    fn lost(&self, stream: StreamId, count: u64, taken: u64);
}

/// What of a stream does not change.
#[derive(Debug, Clone, Copy)]
struct Facts {
    stream: StreamId,
    bits: u8,
    ends: [i32; 2],
    scale: f32,
    /// Samples in a second, nominally.
    window_len: u64,
    /// Flags that every message carries.
    flags: u16,
}

/// See the module. One per stream, owned by its sampling task.
pub struct Reducer<'b, S> {
    facts: Facts,
    settings: StreamSettings,
    /// Raw blocks, or thinned-out ones, whose samples are counted in steps of the decimation.
    block: BlockBuilder<'b, S>,
    /// Input of the filters.
    chunk: BlockBuilder<'b, S>,
    decimators: &'b mut [Option<Decimator>],
    /// Decimators start with the next frame.
    filters_start: bool,
    /// Outputs centred before this are not settled.
    settled_from: u64,
    meter: Meter,
    window: Option<Window>,
    bursts: Bursts<'b, S>,
    /// Samples before this are sent or counted.
    told: u64,
}

impl<'b, S: Sample> Reducer<'b, S> {
    /// A reducer for this sensor as it is wired. `ends` are its least and largest counts, `flags` are on every message.
    pub fn new(
        info: &StreamInfo<'_>,
        ends: [i32; 2],
        flags: u16,
        memory: Memory<'b, S>,
        settings: &StreamSettings,
    ) -> Self {
        let window_len = u64::from(info.rate_nominal_mhz).div_ceil(1000).max(1);
        let facts =
            Facts { stream: info.stream, bits: info.bits, ends, scale: info.scale, window_len, flags };
        let Memory { block, chunk, history, decimators } = memory;
        let mut reducer = Self {
            facts,
            settings: *settings,
            block: BlockBuilder::new(block, settings.axes, settings.block_samples, ends),
            chunk: BlockBuilder::new(chunk, settings.axes, CHUNK_FRAMES as u16, ends),
            decimators,
            filters_start: true,
            settled_from: 0,
            meter: Meter::new(0),
            window: None,
            bursts: Bursts::new(history),
            told: 0,
        };
        reducer.set_up(settings, 0);
        reducer
    }

    /// Settings as they are in force here: with what was clamped to the memory.
    #[must_use]
    pub const fn settings(&self) -> &StreamSettings {
        &self.settings
    }

    /// Index of the next sample.
    #[must_use]
    pub const fn next_sample(&self) -> u64 {
        match self.settings.step {
            Step::Raw => self.block.next_sample(),
            Step::Decimated | Step::Features => self.chunk.next_sample(),
        }
    }

    /// Places for frames, where all of the sensor's `axes` channels are kept; tell [`Reducer::add`] what was put there.
    pub fn free(&mut self, axes: usize) -> Option<Planar<'_, S>> {
        match self.settings.step {
            Step::Raw => self.block.planar_free(axes),
            Step::Decimated | Step::Features => self.chunk.planar_free(axes),
        }
    }

    /// So many frames were put into [`Reducer::free`], with these bits. Returns true when [`Reducer::flush`] must be called
    /// before the next.
    pub fn add(&mut self, frames: usize, bits: u32) -> bool {
        match self.settings.step {
            Step::Raw => self.block.add(frames, bits),
            Step::Decimated | Step::Features => self.chunk.add(frames, bits),
        }
    }

    /// Takes a frame. Returns true when [`Reducer::flush`] must be called before the next.
    pub fn push(&mut self, frame: &[S]) -> bool {
        match self.settings.step {
            Step::Raw => self.block.push(frame),
            Step::Decimated | Step::Features => self.chunk.push(frame),
        }
    }

    /// Messages that `frames` more frames can make, and the length of the longest.
    #[must_use]
    pub fn room(&self, frames: usize) -> (usize, usize) {
        let axes = self.axes().into();
        let block = |samples: usize| block_len_max(axes, samples, self.encoding());
        let samples = self.block.block_samples().max(1);
        match self.settings.step {
            Step::Raw => (frames / samples + 1, block(samples)),
            Step::Decimated => {
                (frames / (samples * usize::from(self.settings.decimation.max(1))) + 1, block(samples))
            }
            // Features, and a burst.
            Step::Features => (3, block(self.bursts.len().max(64)) + TRIGGER_LEN_MAX),
        }
    }

    /// Empties the input: stores the raw block, or lets the filters have what there is.
    pub fn flush(&mut self, clock: &SampleClock, sink: &impl Sink) {
        match self.settings.step {
            Step::Raw => self.store_block(clock, sink),
            Step::Decimated => self.thin(clock, sink),
            Step::Features => self.measure(clock, sink),
        }
    }

    /// Stores everything that is in the making.
    pub fn seal(&mut self, clock: &SampleClock, sink: &impl Sink) {
        self.flush(clock, sink);
        match self.settings.step {
            Step::Raw => {}
            Step::Decimated => self.store_block(clock, sink),
            Step::Features => {
                self.end_burst(clock, sink);
                self.close_window(clock, sink);
            }
        }
    }

    /// Notes that `lost` samples were taken and lost: seals, counts them, and starts the filters anew.
    pub fn lose(&mut self, lost: u64, flag: u16, clock: &SampleClock, sink: &impl Sink) {
        self.seal(clock, sink);
        match self.settings.step {
            Step::Raw => self.block.skip(lost, flag),
            Step::Decimated | Step::Features => self.chunk.skip(lost, flag),
        }
        self.interrupt();
        let next = self.next_sample();
        self.account(next, next, sink);
    }

    /// Takes other settings, here and now: what was in the making is sealed first.
    pub fn configure(&mut self, settings: &StreamSettings, clock: &SampleClock, sink: &impl Sink) {
        self.seal(clock, sink);
        let next = self.next_sample();
        self.account(next, next, sink);
        let filtered = self.settings.step == Step::Decimated;
        self.set_up(settings, next);
        if next > 0 && (filtered || self.settings.step == Step::Decimated) {
            // Samples fall into the gap that filters need to settle.
            self.block.flag(if self.settings.step == Step::Raw { flags::RESTART } else { 0 });
            self.chunk.flag(flags::RESTART);
        }
    }

    fn set_up(&mut self, settings: &StreamSettings, next: u64) {
        self.settings = *settings;
        if self.settings.step == Step::Decimated && !self.make_decimators() {
            self.settings.step = Step::Features;
        }
        let thinned = self.settings.step == Step::Decimated;
        let in_blocks = if thinned { next / u64::from(settings.decimation.max(1)) } else { next };
        // A thinned frame has only the channels that are kept.
        let mask = if thinned { low_bits(self.axes()) } else { settings.axes };
        self.block.set_up(mask, settings.block_samples, in_blocks);
        self.settings.block_samples = to_u16(self.block.block_samples());
        self.chunk.set_up(settings.axes, CHUNK_FRAMES as u16, next);
        self.window = None;
        let axes = usize::from(self.axes());
        if self.settings.step == Step::Features {
            self.meter = Meter::new(axes);
        }
        self.bursts.set_up(&settings.trigger, axes, self.facts.window_len, self.facts.scale, next);
        self.interrupt();
    }

    fn interrupt(&mut self) {
        self.filters_start = true;
        self.meter.interrupt();
        let next = self.next_sample();
        self.bursts.interrupt(next);
    }

    fn axes(&self) -> u8 {
        // At most eight.
        self.settings.axes.count_ones() as u8
    }

    const fn encoding(&self) -> Encoding {
        self.settings.codec.encoding(self.facts.bits)
    }

    /// Counts what lies between the last message and one that stands for `first` to before `end`.
    fn account(&mut self, first: u64, end: u64, sink: &impl Sink) {
        if first > self.told {
            sink.lost(self.facts.stream, first - self.told, first);
        }
        self.told = self.told.max(end);
    }

    fn store_block(&mut self, clock: &SampleClock, sink: &impl Sink) {
        let Some(part) = self.block.close() else { return };
        let decimation = if self.settings.step == Step::Decimated { self.settings.decimation } else { 1 };
        let factor = u64::from(decimation);
        let first_sample = part.first_sample * factor;
        self.account(first_sample, first_sample + part.frames as u64 * factor, sink);
        let sealed = Sealed {
            stream: self.facts.stream,
            axes: self.axes(),
            encoding: self.encoding(),
            decimation,
            first_sample,
            tick: clock.tick_of(first_sample),
            rate_measured_mhz: clock.rate_mhz(),
            flags: part.flags | self.facts.flags,
            frames: to_u16(part.frames),
            samples: S::planar(self.block.planar(&part)),
        };
        sink.block(&sealed);
    }
}

/// The mask of the lowest `count` channels.
fn low_bits(count: u8) -> u8 {
    u8::try_from((1_u16 << count.min(8)) - 1).unwrap_or(u8::MAX)
}

fn to_u16(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
