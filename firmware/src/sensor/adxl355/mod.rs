//! Analog Devices ADXL355: 3 axes, 20 bits, 4 kHz, SPI mode 0 at up to 10 MHz, FIFO of 96 entries of one axis each.
//!
//! Source: Analog Devices' datasheet ADXL354/ADXL355. The chip has no timestamps: what an overrun cost is estimated from
//! the board's ticks. Not confirmed in the datasheet's text: whether the pin falls when the FIFO is read or only when
//! STATUS is read after it (the driver works with both, the [`model`] does the latter), and whether a full FIFO drops
//! entries or whole frames (the driver works with both). The data bits carry no check: of a garbled entry only the
//! marker, the empty bit and the bits that are always zero tell. Runs against the [`model`]; not yet validated on silicon.

mod fifo;
pub mod model;
pub mod registers;

use super::{Batch, Planar, SelfTest, Sensor, SensorInfo, ends};
use crate::clock::{TICK_HZ, Timebase};
use embassy_time::{Duration, with_timeout};
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::{Operation, SpiDevice};
use fifo::FRAME_LEN;
use registers as reg;

/// Nominal sample rate, mHz.
pub const RATE_NOMINAL_MHZ: u32 = 4_000_000;

/// Standard gravity, m/s².
const G: f32 = 9.806_65;

/// Self-test: least and most output change per axis, m/s². The datasheet has typical values only (0.3 g, 0.3 g, 1.5 g);
/// from a third of them to twice them is our choice.
const SELF_TEST_LIMITS: [[f32; 2]; 3] = [[0.1 * G, 0.6 * G], [0.1 * G, 0.6 * G], [0.5 * G, 3.0 * G]];

/// Samples per mean in the self-test.
const SELF_TEST_SAMPLES: u8 = 32;

/// Full scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullScale {
    /// ±2 g, 256,000 counts per g.
    G2,
    /// ±4 g, 128,000 counts per g.
    G4,
    /// ±8 g, 64,000 counts per g.
    G8,
}

impl FullScale {
    /// The range of ± this many g, if the chip has it.
    #[must_use]
    pub fn from_g(full_scale_g: f64) -> Option<Self> {
        [(2.0, Self::G2), (4.0, Self::G4), (8.0, Self::G8)]
            .into_iter()
            .find_map(|(g, range)| (g == full_scale_g).then_some(range))
    }

    /// m/s² per count (datasheet, sensitivity).
    #[must_use]
    pub const fn scale(self) -> f32 {
        match self {
            Self::G2 => G / 256_000.0,
            Self::G4 => G / 128_000.0,
            Self::G8 => G / 64_000.0,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::G2 => 1,
            Self::G4 => 2,
            Self::G8 => 3,
        }
    }
}

/// What is set at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Range.
    pub full_scale: FullScale,
    /// Frames in the FIFO at which INT1 rises, 1 to 31.
    pub watermark: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self { full_scale: FullScale::G2, watermark: 16 }
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error<S, P> {
    /// The SPI transfer failed.
    #[error("ADXL355: bus transfer failed")]
    Bus(S),
    /// The interrupt pin failed.
    #[error("ADXL355: interrupt pin failed")]
    Pin(P),
    /// Another chip, or none, answers. 0x00 and 0xFF mean a stuck or open data line.
    #[error("ADXL355: identity registers read {found:#04x?}, not ad 1d ed")]
    WrongId {
        /// What they read.
        found: [u8; 3],
    },
    /// The reset did not end.
    #[error("ADXL355: reset did not end")]
    Reset,
    /// A register did not keep what was written.
    #[error("ADXL355: register {register:#04x} does not keep what is written")]
    Register {
        /// Which.
        register: u8,
    },
    /// The FIFO stayed silent for far longer than it takes to reach its watermark.
    #[error("ADXL355: no samples for a second")]
    Silent,
    /// INT1 tells of a full FIFO, but no status bit does and it reads empty: the bus is stuck.
    #[error("ADXL355: interrupt says samples, FIFO reads empty")]
    Empty,
    /// A FIFO entry, or their number, is garbled.
    #[error("ADXL355: FIFO entry out of place")]
    Garbled,
}

/// Entries that `buffer` holds at most: a full FIFO behind a frame that was not whole.
const BUFFER_LEN: usize = reg::ENTRIES_MAX * reg::ENTRY_LEN + FRAME_LEN;

/// The driver. `T` stamps the FIFO's level with ticks.
pub struct Adxl355<S, P, T> {
    spi: S,
    int1: P,
    time: T,
    config: Config,
    buffer: [u8; BUFFER_LEN],
    /// Bytes of `buffer` that are filled, and those handed out already.
    filled: usize,
    at: usize,
    /// Frames behind `at` that were not handed out yet.
    frames: usize,
    /// INT1 has told of samples that were not read yet.
    expected: bool,
}

impl<S: SpiDevice, P: Wait, T: Timebase> Adxl355<S, P, T> {
    /// A driver on this bus and interrupt pin. The bus must run in mode 0.
    pub const fn new(spi: S, int1: P, time: T, config: Config) -> Self {
        let buffer = [0; BUFFER_LEN];
        Self { spi, int1, time, config, buffer, filled: 0, at: 0, frames: 0, expected: false }
    }

    async fn read(&mut self, register: u8, out: &mut [u8]) -> Result<(), Error<S::Error, P::Error>> {
        read(&mut self.spi, register, out).await
    }

    async fn write(&mut self, register: u8, value: u8) -> Result<(), Error<S::Error, P::Error>> {
        self.spi.write(&[register << 1, value]).await.map_err(Error::Bus)
    }

    async fn sleep_ms(&self, ms: u64) {
        self.time.until(self.time.now() + ms * u64::from(TICK_HZ) / 1000).await;
    }

    async fn status(&mut self) -> Result<u8, Error<S::Error, P::Error>> {
        let mut byte = [0];
        self.read(reg::STATUS, &mut byte).await?;
        Ok(byte[0])
    }

    /// Identity check and reset: what every start begins with. Leaves the chip in standby.
    async fn reset(&mut self) -> Result<(), Error<S::Error, P::Error>> {
        let mut found = [0; 3];
        self.read(reg::DEVID_AD, &mut found).await?;
        if found != reg::ID {
            return Err(Error::WrongId { found });
        }
        self.write(reg::RESET, reg::RESET_CODE).await?;
        for _ in 0..50 {
            self.sleep_ms(1).await;
            if self.status().await? & reg::NVM_BUSY == 0 {
                return Ok(());
            }
        }
        Err(Error::Reset)
    }

    /// Writes a register and reads it back.
    async fn set(&mut self, register: u8, value: u8) -> Result<(), Error<S::Error, P::Error>> {
        self.write(register, value).await?;
        let mut found = [0];
        self.read(register, &mut found).await?;
        if found[0] == value { Ok(()) } else { Err(Error::Register { register }) }
    }

    /// Mean of some samples per axis, in counts, after the outputs have settled.
    async fn mean(&mut self) -> Result<[f32; 3], Error<S::Error, P::Error>> {
        self.sleep_ms(100).await;
        let mut sum = [0f32; 3];
        for _ in 0..SELF_TEST_SAMPLES {
            let mut polls = 0;
            while self.status().await? & reg::DATA_RDY == 0 {
                polls += 1;
                if polls > 1000 {
                    return Err(Error::Silent);
                }
                self.time.until(self.time.now() + 1).await;
            }
            let mut bytes = [0; FRAME_LEN];
            self.read(reg::XDATA3, &mut bytes).await?;
            for (axis, entry) in sum.iter_mut().zip(bytes.chunks_exact(reg::ENTRY_LEN)) {
                *axis += fifo::sample(entry) as f32;
            }
        }
        Ok(sum.map(|sum| sum / f32::from(SELF_TEST_SAMPLES)))
    }

    /// Reads what the FIFO holds behind what was left of the last read. Returns whether the FIFO overran.
    async fn fill(&mut self) -> Result<bool, Error<S::Error, P::Error>> {
        self.buffer.copy_within(self.at..self.filled, 0);
        (self.filled, self.at) = (self.filled - self.at, 0);
        let mut status = [0; 2];
        self.read(reg::STATUS, &mut status).await?;
        let [flags, entries] = status;
        let entries = usize::from(entries & 0x7F);
        if entries > reg::ENTRIES_MAX {
            return Err(Error::Garbled);
        }
        let expected = core::mem::take(&mut self.expected);
        if entries == 0 {
            let told = flags & (reg::FIFO_FULL | reg::FIFO_OVR | reg::DATA_RDY) != 0;
            return if expected && !told { Err(Error::Empty) } else { Ok(false) };
        }
        let out = &mut self.buffer[self.filled..self.filled + entries * reg::ENTRY_LEN];
        read(&mut self.spi, reg::FIFO_DATA, out).await?;
        self.filled += entries * reg::ENTRY_LEN;
        let mut overrun = flags & reg::FIFO_OVR != 0;
        if entries == reg::ENTRIES_MAX && !overrun {
            // A sample that came between the two reads has pushed out one that was to be read.
            overrun = self.status().await? & reg::FIFO_OVR != 0;
        }
        Ok(overrun)
    }
}

async fn read<S: SpiDevice, P>(spi: &mut S, register: u8, out: &mut [u8]) -> Result<(), Error<S::Error, P>> {
    let address = [register << 1 | reg::READ];
    let mut operations = [Operation::Write(&address), Operation::Read(out)];
    spi.transaction(&mut operations).await.map_err(Error::Bus)
}

impl<S: SpiDevice, P: Wait, T: Timebase> Sensor for Adxl355<S, P, T> {
    type Sample = i32;
    type Error = Error<S::Error, P::Error>;

    fn info(&self) -> SensorInfo {
        SensorInfo {
            model: "adxl355",
            axes: 3,
            bits: 20,
            rate_nominal_mhz: RATE_NOMINAL_MHZ,
            rate_trimmed_mhz: 0,
            scale: self.config.full_scale.scale(),
            ends: ends(20),
        }
    }

    async fn configure(&mut self) -> Result<(), Self::Error> {
        self.reset().await?;
        (self.at, self.filled, self.frames, self.expected) = (0, 0, 0, false);
        self.set(reg::FILTER, reg::ODR_4000).await?;
        self.set(reg::FIFO_SAMPLES, self.config.watermark.clamp(1, 31) * 3).await?;
        self.set(reg::INT_MAP, reg::FULL_EN1).await?;
        self.set(reg::RANGE, reg::INT_POL_HIGH | self.config.full_scale.bits()).await?;
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
        self.at += core::mem::take(&mut self.frames) * FRAME_LEN;
        let newest_tick = self.time.now();
        let kept = self.filled - self.at;
        let overrun = match self.fill().await {
            Ok(overrun) => overrun,
            Err(error) => {
                (self.at, self.filled) = (0, 0);
                return Err(error);
            }
        };
        let mut rest = &self.buffer[..self.filled];
        if overrun {
            // What was left of a frame before the hole has lost its other half.
            self.at = kept + fifo::headless(&rest[kept..]);
            rest = &rest[self.at..];
        }
        let Ok(frames) = fifo::whole_frames(rest) else {
            (self.at, self.filled) = (0, 0);
            return Err(Error::Garbled);
        };
        self.frames = frames;
        Ok(Batch {
            frames,
            // The chip says so: it was one at least.
            lost: u64::from(overrun),
            overrun,
            uncounted: overrun,
            newest_tick: (frames > 0).then_some(newest_tick),
            more: false,
        })
    }

    fn drain_into(&mut self, planar: &mut Planar<'_, i32>) -> usize {
        let frames = self.frames.min(planar.room());
        let end = self.at + frames * FRAME_LEN;
        let Some(places) = planar.three(frames) else { return 0 };
        let bits = fifo::unpack(&self.buffer[self.at..end], places);
        planar.note(bits);
        self.at = end;
        self.frames -= frames;
        frames
    }

    async fn self_test(&mut self) -> Result<SelfTest, Self::Error> {
        self.reset().await?;
        let range = FullScale::G8;
        self.set(reg::RANGE, reg::INT_POL_HIGH | range.bits()).await?;
        self.write(reg::SELF_TEST, reg::ST1).await?;
        self.write(reg::POWER_CTL, reg::MEASURE).await?;
        let off = self.mean().await?;
        self.write(reg::SELF_TEST, reg::ST1 | reg::ST2).await?;
        let on = self.mean().await?;
        self.write(reg::SELF_TEST, 0).await?;
        self.write(reg::POWER_CTL, reg::STANDBY).await?;
        let mut moved = [0f32; 3];
        for (moved, (on, off)) in moved.iter_mut().zip(on.into_iter().zip(off)) {
            *moved = libm::fabsf(on - off) * range.scale();
        }
        Ok(SelfTest::judge(moved, SELF_TEST_LIMITS))
    }

    async fn temperature(&mut self) -> Result<Option<i16>, Self::Error> {
        let mut bytes = [0; 2];
        self.read(reg::TEMP2, &mut bytes).await?;
        let counts = i32::from(u16::from_be_bytes([bytes[0] & 0x0F, bytes[1]]));
        let centi = 2500 + (counts - reg::TEMP_AT_25) * 10_000 / reg::TEMP_PER_100;
        Ok(Some(i16::try_from(centi).unwrap_or(i16::MAX)))
    }
}
