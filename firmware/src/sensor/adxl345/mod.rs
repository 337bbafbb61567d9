//! Analog Devices ADXL345: 3 axes, 13 bits, 3.2 kHz, SPI mode 3, FIFO of 32 frames. It has no thermometer.
//!
//! Source: Analog Devices' datasheet ADXL345 rev. E. At 3.2 kHz the lowest bit of the output is always 0, so a count is
//! 3.9 mg but the step is twice that. Each frame is taken out of the FIFO by a read of its own, and 5 µs must pass between
//! two of them: a bus at 1.6 MHz or less needs no pause, as the address byte takes that long. The driver makes none, so
//! the bus must not run faster. The chip has neither timestamps nor check bits: what an overrun cost is estimated from the
//! board's ticks, and of a garbled frame only bits tell that no 13-bit number at this rate has. The overrun event is set
//! when the FIFO is full, whether a frame was lost or not. Runs against the [`model`]; not yet validated on silicon.

pub mod model;
pub mod registers;

use super::{Batch, Planar, SelfTest, Sensor, SensorInfo};
use crate::clock::{TICK_HZ, Timebase};
use embassy_time::{Duration, with_timeout};
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::{Operation, SpiDevice};
use registers as reg;

/// Nominal sample rate, mHz.
pub const RATE_NOMINAL_MHZ: u32 = 3_200_000;

/// Standard gravity, m/s².
const G: f32 = 9.806_65;

/// m/s² per count in full resolution (datasheet: 3.9 mg).
pub const SCALE: f32 = 3.9e-3 * G;

/// Self-test at 2.5 V: least and most output change per axis, g (datasheet, table 1).
const SELF_TEST_LIMITS_G: [[f32; 2]; 3] = [[0.20, 2.10], [-2.10, -0.20], [0.30, 3.40]];

/// Samples per mean in the self-test.
const SELF_TEST_SAMPLES: u8 = 32;

/// Full scale. Each has the same counts per g.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullScale {
    /// ±2 g, 10 bits.
    G2,
    /// ±4 g, 11 bits.
    G4,
    /// ±8 g, 12 bits.
    G8,
    /// ±16 g, 13 bits.
    G16,
}

impl FullScale {
    /// The range of ± this many g, if the chip has it.
    #[must_use]
    pub fn from_g(full_scale_g: f64) -> Option<Self> {
        [(2.0, Self::G2), (4.0, Self::G4), (8.0, Self::G8), (16.0, Self::G16)]
            .into_iter()
            .find_map(|(g, range)| (g == full_scale_g).then_some(range))
    }

    const fn bits(self) -> u8 {
        match self {
            Self::G2 => 0,
            Self::G4 => 1,
            Self::G8 => 2,
            Self::G16 => 3,
        }
    }

    /// Least and most count at 3.2 kHz, where the lowest bit is 0.
    const fn ends(self) -> [i32; 2] {
        let half = 512 << self.bits();
        [-half, half - 2]
    }
}

/// Supply voltage: the self-test's force grows with its square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// 2.5 V.
    V2_5,
    /// 3.3 V.
    V3_3,
}

impl Supply {
    /// Self-test limits per axis, m/s² (datasheet, tables 1 and 14).
    fn self_test_limits(self) -> [[f32; 2]; 3] {
        let [xy, z] = match self {
            Self::V2_5 => [1.0, 1.0],
            Self::V3_3 => [1.77, 1.47],
        };
        let [x, y, zz] = SELF_TEST_LIMITS_G;
        [x.map(|g| g * xy * G), y.map(|g| g * xy * G), zz.map(|g| g * z * G)]
    }
}

/// What is set at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Range.
    pub full_scale: FullScale,
    /// Frames in the FIFO at which INT1 rises, 1 to 31.
    pub watermark: u8,
    /// Supply voltage.
    pub supply: Supply,
}

impl Default for Config {
    fn default() -> Self {
        Self { full_scale: FullScale::G16, watermark: 16, supply: Supply::V3_3 }
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error<S, P> {
    /// The SPI transfer failed.
    #[error("ADXL345: bus transfer failed")]
    Bus(S),
    /// The interrupt pin failed.
    #[error("ADXL345: interrupt pin failed")]
    Pin(P),
    /// Another chip, or none, answers. 0x00 and 0xFF mean a stuck or open data line.
    #[error("ADXL345: identity register reads {found:#04x}, not 0xe5")]
    WrongId {
        /// What it reads.
        found: u8,
    },
    /// A register did not keep what was written.
    #[error("ADXL345: register {register:#04x} does not keep what is written")]
    Register {
        /// Which.
        register: u8,
    },
    /// The FIFO stayed silent for far longer than it takes to reach its watermark.
    #[error("ADXL345: no samples for a second")]
    Silent,
    /// INT1 tells of samples, but the FIFO reads empty: the bus is stuck.
    #[error("ADXL345: interrupt says samples, FIFO reads empty")]
    Empty,
    /// A frame, or their number, is garbled.
    #[error("ADXL345: FIFO frame with bits that cannot be")]
    Garbled,
}

/// The driver. `T` stamps the FIFO's level with ticks.
pub struct Adxl345<S, P, T> {
    spi: S,
    int1: P,
    time: T,
    config: Config,
    frames: [[i16; 3]; reg::FRAMES_MAX],
    /// Frames of the last batch, and those handed out already.
    filled: usize,
    given: usize,
    /// INT1 has told of samples that were not read yet.
    expected: bool,
}

impl<S: SpiDevice, P: Wait, T: Timebase> Adxl345<S, P, T> {
    /// A driver on this bus and interrupt pin. The bus must run in mode 3, at 1.6 MHz or less.
    pub const fn new(spi: S, int1: P, time: T, config: Config) -> Self {
        Self {
            spi,
            int1,
            time,
            config,
            frames: [[0; 3]; reg::FRAMES_MAX],
            filled: 0,
            given: 0,
            expected: false,
        }
    }

    async fn read(&mut self, register: u8, out: &mut [u8]) -> Result<(), Error<S::Error, P::Error>> {
        let address = [register | reg::READ | if out.len() > 1 { reg::MULTI } else { 0 }];
        let mut operations = [Operation::Write(&address), Operation::Read(out)];
        self.spi.transaction(&mut operations).await.map_err(Error::Bus)
    }

    async fn read_one(&mut self, register: u8) -> Result<u8, Error<S::Error, P::Error>> {
        let mut byte = [0];
        self.read(register, &mut byte).await?;
        Ok(byte[0])
    }

    /// Reads the output registers: in stream mode the oldest frame, which leaves the FIFO.
    async fn read_frame(&mut self) -> Result<[i16; 3], Error<S::Error, P::Error>> {
        let mut bytes = [0; reg::FRAME_LEN];
        self.read(reg::DATAX0, &mut bytes).await?;
        let [x0, x1, y0, y1, z0, z1] = bytes;
        Ok([[x0, x1], [y0, y1], [z0, z1]].map(i16::from_le_bytes))
    }

    async fn write(&mut self, register: u8, value: u8) -> Result<(), Error<S::Error, P::Error>> {
        self.spi.write(&[register, value]).await.map_err(Error::Bus)
    }

    /// Writes a register and reads it back.
    async fn set(&mut self, register: u8, value: u8) -> Result<(), Error<S::Error, P::Error>> {
        self.write(register, value).await?;
        if self.read_one(register).await? == value { Ok(()) } else { Err(Error::Register { register }) }
    }

    /// Identity check, standby and an empty FIFO: what every start begins with, as the chip has no reset.
    async fn stop(&mut self) -> Result<(), Error<S::Error, P::Error>> {
        let found = self.read_one(reg::DEVID).await?;
        if found != reg::ID {
            return Err(Error::WrongId { found });
        }
        self.set(reg::POWER_CTL, 0).await?;
        self.set(reg::INT_ENABLE, 0).await?;
        self.set(reg::FIFO_CTL, reg::FIFO_BYPASS).await
    }

    /// Mean of some samples per axis, in counts, after the outputs have settled.
    async fn mean(&mut self) -> Result<[f32; 3], Error<S::Error, P::Error>> {
        self.time.until(self.time.now() + u64::from(TICK_HZ) / 10).await;
        let mut sum = [0f32; 3];
        for _ in 0..SELF_TEST_SAMPLES {
            let mut polls = 0;
            while self.read_one(reg::INT_SOURCE).await? & reg::DATA_READY == 0 {
                polls += 1;
                if polls > 10_000 {
                    return Err(Error::Silent);
                }
                self.time.until(self.time.now() + 1).await;
            }
            for (axis, count) in sum.iter_mut().zip(self.read_frame().await?) {
                *axis += f32::from(count);
            }
        }
        Ok(sum.map(|sum| sum / f32::from(SELF_TEST_SAMPLES)))
    }

    /// Reads what the FIFO holds. Returns whether it was full.
    async fn fill(&mut self) -> Result<bool, Error<S::Error, P::Error>> {
        let frames = usize::from(self.read_one(reg::FIFO_STATUS).await? & 0x3F);
        // The output register makes a thirty-third; it is read next time.
        if frames > reg::FRAMES_MAX + 1 {
            return Err(Error::Garbled);
        }
        let expected = core::mem::take(&mut self.expected);
        if frames == 0 {
            return if expected { Err(Error::Empty) } else { Ok(false) };
        }
        let frames = frames.min(reg::FRAMES_MAX);
        let overrun = frames == reg::FRAMES_MAX && self.read_one(reg::INT_SOURCE).await? & reg::OVERRUN != 0;
        let [least, most] = self.config.full_scale.ends();
        for index in 0..frames {
            let frame = self.read_frame().await?;
            let fits = |&count: &i16| (least..=most).contains(&i32::from(count)) && count & 1 == 0;
            if !frame.iter().all(fits) {
                return Err(Error::Garbled);
            }
            self.frames[index] = frame;
        }
        self.filled = frames;
        Ok(overrun)
    }
}

impl<S: SpiDevice, P: Wait, T: Timebase> Sensor for Adxl345<S, P, T> {
    type Sample = i16;
    type Error = Error<S::Error, P::Error>;

    fn info(&self) -> SensorInfo {
        SensorInfo {
            model: "adxl345",
            axes: 3,
            bits: 13,
            rate_nominal_mhz: RATE_NOMINAL_MHZ,
            rate_trimmed_mhz: 0,
            scale: SCALE,
            ends: self.config.full_scale.ends(),
        }
    }

    async fn configure(&mut self) -> Result<(), Self::Error> {
        self.stop().await?;
        (self.filled, self.given, self.expected) = (0, 0, false);
        self.set(reg::BW_RATE, reg::RATE_3200).await?;
        self.set(reg::DATA_FORMAT, reg::FULL_RES | self.config.full_scale.bits()).await?;
        self.set(reg::INT_MAP, 0).await?;
        self.set(reg::FIFO_CTL, reg::FIFO_STREAM | self.config.watermark.clamp(1, 31)).await?;
        self.set(reg::INT_ENABLE, reg::WATERMARK).await?;
        self.write(reg::POWER_CTL, reg::MEASURE).await
    }

    async fn wait(&mut self) -> Result<(), Self::Error> {
        match with_timeout(Duration::from_secs(1), self.int1.wait_for_high()).await {
            Ok(Ok(())) => {
                self.expected = true;
                Ok(())
            }
            Ok(Err(error)) => Err(Error::Pin(error)),
            Err(_) => Err(Error::Silent),
        }
    }

    async fn fetch(&mut self) -> Result<Batch, Self::Error> {
        (self.filled, self.given) = (0, 0);
        let newest_tick = self.time.now();
        let overrun = self.fill().await?;
        Ok(Batch {
            frames: self.filled,
            lost: 0,
            overrun,
            uncounted: overrun,
            newest_tick: (self.filled > 0).then_some(newest_tick),
            more: false,
        })
    }

    fn drain_into(&mut self, planar: &mut Planar<'_, i16>) -> usize {
        let before = self.given;
        while self.given < self.filled && planar.push(&self.frames[self.given]) {
            self.given += 1;
        }
        self.given - before
    }

    async fn self_test(&mut self) -> Result<SelfTest, Self::Error> {
        self.stop().await?;
        let format = reg::FULL_RES | FullScale::G16.bits();
        // The datasheet allows 100 Hz to 800 Hz and 3200 Hz.
        self.set(reg::BW_RATE, reg::RATE_800).await?;
        self.set(reg::DATA_FORMAT, format).await?;
        self.write(reg::POWER_CTL, reg::MEASURE).await?;
        let off = self.mean().await?;
        self.write(reg::DATA_FORMAT, format | reg::SELF_TEST).await?;
        let on = self.mean().await?;
        self.write(reg::DATA_FORMAT, format).await?;
        self.write(reg::POWER_CTL, 0).await?;
        let mut moved = [0f32; 3];
        for (moved, (on, off)) in moved.iter_mut().zip(on.into_iter().zip(off)) {
            *moved = (on - off) * SCALE;
        }
        Ok(SelfTest::judge(moved, self.config.supply.self_test_limits()))
    }

    async fn temperature(&mut self) -> Result<Option<i16>, Self::Error> {
        Ok(None)
    }
}
