//! Sensors: one trait, one module per chip with its driver and a register-level model of the chip.

pub mod adxl345;
pub mod adxl355;
pub mod analog;
pub mod iis3dwb;
pub mod model;
pub mod port;
pub mod signal;

use spindle_common::wire::{AXES_MAX, Samples};

/// A sample as a sensor's FIFO gives it: 16 bits, or up to 24 in 32.
pub trait Sample: Copy + Default + PartialEq + core::fmt::Debug + 'static {
    /// Planar samples of this type, for the block encoder.
    fn planar(samples: &[Self]) -> Samples<'_>;
    /// The value.
    fn value(self) -> i32;
    /// The nearest that this type holds.
    fn nearest(value: f32) -> Self;
}

impl Sample for i16 {
    fn planar(samples: &[Self]) -> Samples<'_> {
        Samples::I16(samples)
    }

    fn value(self) -> i32 {
        i32::from(self)
    }

    #[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
    fn nearest(value: f32) -> Self {
        libm::roundf(value) as Self
    }
}

impl Sample for i32 {
    fn planar(samples: &[Self]) -> Samples<'_> {
        Samples::I32(samples)
    }

    fn value(self) -> i32 {
        self
    }

    #[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
    fn nearest(value: f32) -> Self {
        libm::roundf(value) as Self
    }
}

/// What a configured sensor delivers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SensorInfo {
    /// The sensor's type: a file in `hardware-configs/sensors`.
    pub model: &'static str,
    /// Channels.
    pub axes: u8,
    /// Bits of the converter.
    pub bits: u8,
    /// Nominal sample rate, mHz.
    pub rate_nominal_mhz: u32,
    /// Sample rate that the part's own trim register promises, mHz; 0 when it has none.
    pub rate_trimmed_mhz: u32,
    /// m/s² per count.
    pub scale: f32,
    /// Least and most that the output can be: a sample there was cut off.
    pub ends: [i32; 2],
}

/// The ends of two's complement of this many bits.
#[must_use]
pub const fn ends(bits: u8) -> [i32; 2] {
    let half = 1i32
        << (if bits > 24 {
            24
        } else if bits < 2 {
            2
        } else {
            bits
        } - 1);
    [-half, half - 1]
}

/// Consecutive frames (one sample per channel each) out of a sensor's FIFO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    /// Frames that [`Sensor::drain`] will hand out.
    pub frames: usize,
    /// Frames lost between the previous batch and this one, as far as the chip can tell.
    pub lost: u64,
    /// The FIFO overran before this batch. `lost` can be 0 even then, when the chip says so but its timestamps do not.
    pub overrun: bool,
    /// The chip has no timestamps: `lost` is only the least that it can be. The board's ticks must tell, see
    /// [`SampleClock::lost`](crate::acquire::SampleClock::lost).
    pub uncounted: bool,
    /// Tick at which the last frame of this batch was the newest in the chip; absent when it was not.
    pub newest_tick: Option<u64>,
    /// Call [`Sensor::fetch`] again at once: more is waiting.
    pub more: bool,
}

/// Result of a sensor's self-test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelfTest {
    /// Whether each axis moved by an amount inside the datasheet's limits.
    pub passed: bool,
    /// How far each axis moved, m/s².
    pub moved: [f32; 3],
    /// The limits of each axis, m/s².
    pub limits: [[f32; 2]; 3],
}

impl SelfTest {
    /// Whether what moved lies inside the limits.
    #[must_use]
    pub fn judge(moved: [f32; 3], limits: [[f32; 2]; 3]) -> Self {
        let passed = moved.iter().zip(&limits).all(|(moved, [least, most])| (*least..=*most).contains(moved));
        Self { passed, moved, limits }
    }
}

/// Free places of a planar buffer, for whole frames, and the bits that the samples put there have set.
#[derive(Debug)]
pub struct Planar<'p, S> {
    samples: &'p mut [S],
    axes: usize,
    /// Places per channel, and those filled.
    stride: usize,
    filled: usize,
    bits: u32,
}

impl<'p, S: Sample> Planar<'p, S> {
    /// The places behind the first `filled` of each of `axes` channels of `stride` samples.
    pub fn new(samples: &'p mut [S], axes: usize, stride: usize, filled: usize) -> Self {
        let axes = axes.max(1);
        Self { stride: stride.min(samples.len() / axes), samples, axes, filled, bits: 0 }
    }

    /// Frames that have room.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.stride.saturating_sub(self.filled)
    }

    /// The next `frames` places of three channels; taken with that. `None` when it has not three, or less room.
    pub fn three(&mut self, frames: usize) -> Option<[&mut [S]; 3]> {
        if self.axes != 3 || frames > self.room() {
            return None;
        }
        let (from, to) = (self.filled, self.filled + frames);
        self.filled = to;
        let (x, rest) = self.samples.split_at_mut_checked(self.stride)?;
        let (y, z) = rest.split_at_mut_checked(self.stride)?;
        Some([x.get_mut(from..to)?, y.get_mut(from..to)?, z.get_mut(from..to)?])
    }

    /// Puts one frame, if it has room.
    pub fn push(&mut self, frame: &[S]) -> bool {
        if self.room() == 0 {
            return false;
        }
        for (channel, &sample) in frame.iter().enumerate().take(self.axes) {
            if let Some(place) = self.samples.get_mut(channel * self.stride + self.filled) {
                *place = sample;
            }
            self.bits |= magnitude(sample.value());
        }
        self.filled += 1;
        true
    }

    /// Tells the [`magnitude`]s, put together by `or`, of samples that were put into [`Planar::three`].
    pub const fn note(&mut self, bits: u32) {
        self.bits |= bits;
    }

    /// All magnitudes put together by `or`: no sample's is greater.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.bits
    }
}

/// The value without its sign, -1 counting as 0: two instructions, and as good as the amount to tell that none is near the
/// range's ends.
#[must_use]
pub const fn magnitude(value: i32) -> u32 {
    (value ^ value >> 31).cast_unsigned()
}

/// A sensor with a FIFO. `fetch` and `drain_into` alternate, so a batch goes from the bus buffer to the block without a copy
/// in between.
#[allow(async_fn_in_trait, reason = "tasks of one board run on one executor and need no Send")]
pub trait Sensor {
    /// Type of its samples.
    type Sample: Sample;
    /// What can go wrong on its bus.
    type Error: core::fmt::Debug;

    /// What it delivers; complete after [`Sensor::configure`].
    fn info(&self) -> SensorInfo;

    /// Checks that it is the right chip, resets and starts it. The sample count starts again at the first frame after.
    async fn configure(&mut self) -> Result<(), Self::Error>;

    /// Waits until the FIFO has reached its watermark.
    async fn wait(&mut self) -> Result<(), Self::Error>;

    /// Reads what the FIFO holds into the driver's buffer.
    async fn fetch(&mut self) -> Result<Batch, Self::Error>;

    /// Puts the next frames of the last batch into `planar`, oldest first, as many as there are or as have room. Returns
    /// how many.
    fn drain_into(&mut self, planar: &mut Planar<'_, Self::Sample>) -> usize;

    /// Hands out the frames of the last batch one by one, as slices of one sample per channel. [`Sensor::drain_into`] is
    /// what the core uses.
    fn drain(&mut self, mut frame: impl FnMut(&[Self::Sample])) {
        let axes = usize::from(self.info().axes).min(AXES_MAX);
        let mut samples = [Self::Sample::default(); AXES_MAX];
        while self.drain_into(&mut Planar::new(&mut samples, axes, 1, 0)) > 0 {
            frame(samples.get(..axes).unwrap_or_default());
        }
    }

    /// Runs the datasheet's self-test. Sampling stops for it; call [`Sensor::configure`] afterwards.
    async fn self_test(&mut self) -> Result<SelfTest, Self::Error>;

    /// Temperature in 0.01 °C, when the sensor has one.
    async fn temperature(&mut self) -> Result<Option<i16>, Self::Error>;
}
