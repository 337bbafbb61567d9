//! ST IIS3DWB: 3 axes, 16 bits, 26.667 kHz nominal, SPI mode 3 at up to 10 MHz, FIFO of 512 words.
//!
//! Source: ST's datasheet and application note AN5444. Runs against the [`model`]; not yet validated on silicon.

mod fifo;
pub mod model;
pub mod registers;

use super::{Batch, Planar, SelfTest, Sensor, SensorInfo, ends};
use crate::clock::{TICK_HZ, Timebase};
use embassy_time::{Duration, with_timeout};
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::{Operation, SpiDevice};
use fifo::{Counter, FifoError, Run, Word};
use registers as reg;

/// Nominal sample rate, mHz: 80 kHz / 3.
pub const RATE_NOMINAL_MHZ: u32 = 26_666_667;

/// Standard gravity, m/s².
const G: f32 = 9.806_65;

/// Self-test: least and most output change, m/s² (datasheet: 800 to 3200 mg).
const SELF_TEST_LIMITS: [f32; 2] = [0.8 * G, 3.2 * G];

/// Full scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullScale {
    /// ±2 g, 0.061 mg per count.
    G2,
    /// ±4 g, 0.122 mg per count.
    G4,
    /// ±8 g, 0.244 mg per count.
    G8,
    /// ±16 g, 0.488 mg per count.
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

    /// m/s² per count (datasheet, linear acceleration sensitivity).
    #[must_use]
    pub const fn scale(self) -> f32 {
        G * match self {
            Self::G2 => 0.061e-3,
            Self::G4 => 0.122e-3,
            Self::G8 => 0.244e-3,
            Self::G16 => 0.488e-3,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::G2 => 0,
            Self::G16 => 1 << 2,
            Self::G4 => 2 << 2,
            Self::G8 => 3 << 2,
        }
    }
}

/// What is set at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Range.
    pub full_scale: FullScale,
    /// FIFO words at which INT1 rises, 64 to 511 (at least 64, so that each batch holds a timestamp).
    pub watermark: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { full_scale: FullScale::G4, watermark: 256 }
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error<S, P> {
    /// The SPI transfer failed.
    #[error("IIS3DWB: bus transfer failed")]
    Bus(S),
    /// The interrupt pin failed.
    #[error("IIS3DWB: interrupt pin failed")]
    Pin(P),
    /// Another chip, or none, answers. 0x00 and 0xFF mean a stuck or open data line.
    #[error("IIS3DWB: identity register reads {found:#04x}, not 0x7b")]
    WrongId {
        /// What it reads.
        found: u8,
    },
    /// The software reset did not end.
    #[error("IIS3DWB: reset did not end")]
    Reset,
    /// A register did not keep what was written.
    #[error("IIS3DWB: register {register:#04x} does not keep what is written")]
    Register {
        /// Which.
        register: u8,
    },
    /// The FIFO stayed silent for far longer than it takes to reach its watermark.
    #[error("IIS3DWB: no samples for a second")]
    Silent,
    /// INT1 tells of a full FIFO, but it reads empty: the bus is stuck.
    #[error("IIS3DWB: interrupt says samples, FIFO reads empty")]
    Empty,
    /// A FIFO word is garbled.
    #[error("IIS3DWB: FIFO word with a wrong tag")]
    Garbled,
}

/// The driver. `T` stamps the FIFO's level with ticks.
pub struct Iis3dwb<S, P, T> {
    spi: S,
    int1: P,
    time: T,
    config: Config,
    freq_fine: i8,
    counter: Counter,
    buffer: [Word; reg::FIFO_WORDS],
    /// Words of `buffer` that are filled, and those handed out already.
    filled: usize,
    at: usize,
    /// What of the last run was not handed out yet.
    run: Run,
    newest_tick: u64,
    overrun: bool,
    /// INT1 has told of samples that were not read yet.
    expected: bool,
}

impl<S: SpiDevice, P: Wait, T: Timebase> Iis3dwb<S, P, T> {
    /// A driver on this bus and interrupt pin. The bus must run in mode 3.
    pub const fn new(spi: S, int1: P, time: T, config: Config) -> Self {
        Self {
            spi,
            int1,
            time,
            config,
            freq_fine: 0,
            counter: Counter::new(),
            buffer: [[0; reg::WORD_LEN]; reg::FIFO_WORDS],
            filled: 0,
            at: 0,
            run: Run::new(),
            newest_tick: 0,
            overrun: false,
            expected: false,
        }
    }

    async fn read(&mut self, register: u8, out: &mut [u8]) -> Result<(), Error<S::Error, P::Error>> {
        let address = [register | reg::READ];
        let mut operations = [Operation::Write(&address), Operation::Read(out)];
        self.spi.transaction(&mut operations).await.map_err(Error::Bus)
    }

    async fn read_one(&mut self, register: u8) -> Result<u8, Error<S::Error, P::Error>> {
        let mut byte = [0];
        self.read(register, &mut byte).await?;
        Ok(byte[0])
    }

    async fn write(&mut self, register: u8, value: u8) -> Result<(), Error<S::Error, P::Error>> {
        self.spi.write(&[register, value]).await.map_err(Error::Bus)
    }

    async fn sleep_ms(&self, ms: u64) {
        self.time.until(self.time.now() + ms * u64::from(TICK_HZ) / 1000).await;
    }

    /// Identity check and software reset: what every start begins with.
    async fn reset(&mut self) -> Result<(), Error<S::Error, P::Error>> {
        let found = self.read_one(reg::WHO_AM_I).await?;
        if found != reg::ID {
            return Err(Error::WrongId { found });
        }
        self.write(reg::CTRL3_C, reg::SW_RESET).await?;
        for _ in 0..50 {
            self.sleep_ms(1).await;
            if self.read_one(reg::CTRL3_C).await? & reg::SW_RESET == 0 {
                self.write(reg::CTRL3_C, reg::IF_INC_BDU).await?;
                return self.write(reg::CTRL4_C, reg::I2C_DISABLE).await;
            }
        }
        Err(Error::Reset)
    }

    /// Mean of five samples per axis, in counts, after the outputs have settled (the datasheet's self-test procedure).
    async fn mean_of_five(&mut self) -> Result<[f32; 3], Error<S::Error, P::Error>> {
        self.sleep_ms(100).await;
        let mut sum = [0f32; 3];
        for taken in 0..6 {
            let mut polls = 0;
            while self.read_one(reg::STATUS_REG).await? & 1 == 0 {
                polls += 1;
                if polls > 1000 {
                    return Err(Error::Silent);
                }
                self.time.until(self.time.now() + 1).await;
            }
            let mut bytes = [0; 6];
            self.read(reg::OUTX_L_A, &mut bytes).await?;
            // The first sample is stale and is thrown away.
            if taken > 0 {
                for (axis, pair) in sum.iter_mut().zip(bytes.chunks_exact(2)) {
                    *axis += f32::from(i16::from_le_bytes([pair[0], pair[1]]));
                }
            }
        }
        Ok(sum.map(|sum| sum / 5.0))
    }

    async fn fill(&mut self) -> Result<(), Error<S::Error, P::Error>> {
        let mut status = [0; 2];
        (self.at, self.filled) = (0, 0);
        self.newest_tick = self.time.now();
        self.read(reg::FIFO_STATUS1, &mut status).await?;
        let words = usize::from(u16::from_le_bytes([status[0], status[1] & reg::DIFF_HIGH]));
        let words = words.min(reg::FIFO_WORDS);
        self.overrun |= status[1] & (reg::OVER_RUN_LATCHED | reg::FIFO_OVR) != 0;
        if words == 0 {
            return if core::mem::take(&mut self.expected) { Err(Error::Empty) } else { Ok(()) };
        }
        self.expected = false;
        let address = [reg::FIFO_DATA_OUT_TAG | reg::READ];
        let out = self.buffer[..words].as_flattened_mut();
        let mut operations = [Operation::Write(&address), Operation::Read(out)];
        self.spi.transaction(&mut operations).await.map_err(Error::Bus)?;
        self.filled = words;
        Ok(())
    }
}

impl<S: SpiDevice, P: Wait, T: Timebase> Sensor for Iis3dwb<S, P, T> {
    type Sample = i16;
    type Error = Error<S::Error, P::Error>;

    fn info(&self) -> SensorInfo {
        // 0.15 % a step (datasheet, INTERNAL_FREQ_FINE).
        let trim = i64::from(RATE_NOMINAL_MHZ) * 15 * i64::from(self.freq_fine) / 10_000;
        SensorInfo {
            model: "iis3dwb",
            axes: 3,
            bits: 16,
            rate_nominal_mhz: RATE_NOMINAL_MHZ,
            rate_trimmed_mhz: u32::try_from(i64::from(RATE_NOMINAL_MHZ) + trim).unwrap_or(RATE_NOMINAL_MHZ),
            scale: self.config.full_scale.scale(),
            ends: ends(16),
        }
    }

    async fn configure(&mut self) -> Result<(), Self::Error> {
        self.reset().await?;
        self.freq_fine = self.read_one(reg::INTERNAL_FREQ_FINE).await?.cast_signed();
        self.counter = Counter::new();
        self.run.clear();
        (self.at, self.filled, self.overrun) = (0, 0, false);

        let [low, high] = self.config.watermark.clamp(64, 511).to_le_bytes();
        self.write(reg::FIFO_CTRL4, reg::FIFO_BYPASS).await?;
        self.write(reg::FIFO_CTRL1, low).await?;
        self.write(reg::FIFO_CTRL2, high & 1).await?;
        self.write(reg::FIFO_CTRL3, reg::BDR_XL_26K7).await?;
        self.write(reg::INT1_CTRL, reg::INT1_FIFO_TH).await?;
        self.write(reg::CTRL10_C, reg::TIMESTAMP_EN).await?;
        if self.read_one(reg::FIFO_CTRL3).await? != reg::BDR_XL_26K7 {
            return Err(Error::Register { register: reg::FIFO_CTRL3 });
        }
        self.write(reg::CTRL1_XL, reg::XL_ENABLE | self.config.full_scale.bits()).await?;
        self.write(reg::FIFO_CTRL4, reg::FIFO_CONTINUOUS_TS32).await
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
        self.at += self.run.words;
        self.run.clear();
        if self.at >= self.filled {
            self.fill().await?;
        }
        let rest = self.buffer.get(self.at..self.filled).unwrap_or_default();
        if let Err(FifoError::Tag) = self.counter.run(rest, &mut self.run) {
            self.run.clear();
            self.filled = 0;
            return Err(Error::Garbled);
        }
        let whole = self.run.words == rest.len();
        Ok(Batch {
            frames: self.run.frames,
            lost: self.run.lost,
            overrun: core::mem::take(&mut self.overrun) || self.run.lost > 0,
            uncounted: false,
            newest_tick: (whole && self.run.frames > 0).then_some(self.newest_tick),
            more: !whole,
        })
    }

    fn drain_into(&mut self, planar: &mut Planar<'_, i16>) -> usize {
        let frames = self.run.frames.min(planar.room());
        let Some(places) = planar.three(frames) else { return 0 };
        let bits = self.run.unpack(self.buffer.get(self.at..self.filled).unwrap_or_default(), places);
        planar.note(bits);
        frames
    }

    async fn self_test(&mut self) -> Result<SelfTest, Self::Error> {
        self.reset().await?;
        self.write(reg::CTRL1_XL, reg::XL_ENABLE | FullScale::G4.bits()).await?;
        let off = self.mean_of_five().await?;
        self.write(reg::CTRL5_C, reg::ST_POSITIVE).await?;
        let on = self.mean_of_five().await?;
        self.write(reg::CTRL5_C, 0).await?;
        self.write(reg::CTRL1_XL, 0).await?;
        let scale = FullScale::G4.scale();
        let mut moved = [0f32; 3];
        for (moved, (on, off)) in moved.iter_mut().zip(on.into_iter().zip(off)) {
            *moved = libm::fabsf(on - off) * scale;
        }
        Ok(SelfTest::judge(moved, [SELF_TEST_LIMITS; 3]))
    }

    async fn temperature(&mut self) -> Result<Option<i16>, Self::Error> {
        let mut bytes = [0; 2];
        self.read(reg::OUT_TEMP_L, &mut bytes).await?;
        // 256 counts per °C, 0 at 25 °C.
        let centi = 2500 + i32::from(i16::from_le_bytes(bytes)) * 100 / 256;
        Ok(Some(i16::try_from(centi).unwrap_or(i16::MAX)))
    }
}
