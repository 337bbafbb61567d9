//! The IIS3DWB at register level, behind `SpiDevice` and `Wait`: identity, reset, FIFO with watermark and overrun,
//! timestamps, self-test response, an output rate some percent off nominal, and faults to inject. It does only what its
//! registers were told: a driver that forgets one gets no samples, as from the part.

use super::registers as reg;
use super::{FullScale, RATE_NOMINAL_MHZ};
use crate::clock::{TICK_HZ, Timebase};
use crate::sensor::signal::Signal as Source;
use core::cell::RefCell;
use core::convert::Infallible;
use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embedded_hal::digital::ErrorType as PinErrorType;
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::{ErrorType, Operation, SpiDevice};
use heapless::Deque;

/// Timestamp ticks per frame: 80 kHz against 26.667 kHz.
const STAMP_PER_FRAME: u64 = 3;

/// How far the outputs move in self-test, m/s² (inside the datasheet's 0.8 to 3.2 g).
const SELF_TEST_MOVE: f32 = 1.6 * 9.806_65;

/// What is wrong with the chip or its bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another chip answers.
    WrongId(u8),
    /// The data line is stuck at this level: every byte reads 0x00 or 0xFF.
    Stuck(u8),
    /// One bit of the next FIFO word is flipped, once.
    Garble,
    /// The self-test moves nothing.
    DeadSelfTest,
    /// Sampling stands still.
    Frozen,
}

struct Chip<S> {
    source: S,
    registers: [u8; 128],
    fifo: Deque<[u8; reg::WORD_LEN], { reg::FIFO_WORDS }>,
    /// Ticks per frame of this part.
    period: f64,
    /// When sampling was switched on, and frames taken since.
    started: Option<u64>,
    taken: u64,
    last: [i16; 3],
    fresh: bool,
    overrun_latched: bool,
    overrun: bool,
    fault: Option<Fault>,
    ended: bool,
    patient: bool,
}

/// The chip. Bus and pin borrow it; all run on one executor.
pub struct Model<S, T> {
    chip: RefCell<Chip<S>>,
    time: T,
    freq_fine: i8,
    ending: Signal<NoopRawMutex, ()>,
    drained: Signal<NoopRawMutex, ()>,
}

impl<S: Source, T: Timebase> Model<S, T> {
    /// A part whose rate is `rate_error` off (0.012: 1.2 % fast), as its trim register tells to 0.15 %.
    pub fn new(source: S, time: T, rate_error: f64) -> Self {
        let rate_hz = f64::from(RATE_NOMINAL_MHZ) / 1000.0 * (1.0 + rate_error);
        #[allow(clippy::cast_possible_truncation, reason = "`as` saturates, as the register does")]
        let freq_fine = libm::round(rate_error / 0.0015) as i8;
        let chip = Chip {
            source,
            registers: [0; 128],
            fifo: Deque::new(),
            period: f64::from(TICK_HZ) / rate_hz,
            started: None,
            taken: 0,
            last: [0; 3],
            fresh: false,
            overrun_latched: false,
            overrun: false,
            fault: None,
            ended: false,
            patient: false,
        };
        Self { chip: RefCell::new(chip), time, freq_fine, ending: Signal::new(), drained: Signal::new() }
    }

    /// The same part, but instead of overrunning its FIFO it takes the samples later: for hosts that cannot promise to
    /// run a board every 19 ms.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.chip.get_mut().patient = true;
        self
    }

    /// The chip's bus.
    pub const fn spi(&self) -> ModelSpi<'_, S, T> {
        ModelSpi(self)
    }

    /// The chip's INT1 pin.
    pub const fn int1(&self) -> ModelPin<'_, S, T> {
        ModelPin(self)
    }

    /// Breaks the chip, or mends it.
    pub fn inject(&self, fault: Option<Fault>) {
        self.chip.borrow_mut().fault = fault;
    }

    /// The chip takes no further sample. INT1 stays high until the FIFO is empty, so that nothing is left behind.
    pub fn end(&self) {
        self.chip.borrow_mut().ended = true;
        self.ending.signal(());
    }

    /// Waits until the chip has ended (or its recording has) and its FIFO was read empty.
    pub async fn drained(&self) {
        self.drained.wait().await;
    }

    /// Frames that the chip took since sampling was switched on.
    pub fn taken(&self) -> u64 {
        self.chip.borrow().taken
    }

    fn select(&self, operations: &mut [Operation<'_, u8>]) {
        let now = self.time.now();
        let chip = &mut *self.chip.borrow_mut();
        chip.advance(now);
        // The first byte written is the address; it counts up with each byte, and wraps within a FIFO word.
        let mut address: Option<u8> = None;
        for operation in operations {
            match operation {
                Operation::Write(bytes) => chip.write(&mut address, bytes, now),
                Operation::Read(bytes) => chip.read(&mut address, bytes, self.freq_fine),
                Operation::Transfer(bytes, sent) => {
                    chip.write(&mut address, sent, now);
                    chip.read(&mut address, bytes, self.freq_fine);
                }
                Operation::TransferInPlace(bytes) => {
                    if let Some((first, rest)) = bytes.split_first_mut() {
                        let sent = [*first];
                        chip.write(&mut address, &sent, now);
                        chip.read(&mut address, rest, self.freq_fine);
                    }
                }
                Operation::DelayNs(_) => {}
            }
        }
    }

    async fn int1_high(&self) {
        loop {
            let due = {
                let chip = &mut *self.chip.borrow_mut();
                chip.advance(self.time.now());
                let routed = chip.registers[usize::from(reg::INT1_CTRL)] & reg::INT1_FIFO_TH != 0;
                if chip.ended {
                    if chip.fifo.is_empty() {
                        self.drained.signal(());
                        None
                    } else {
                        return;
                    }
                } else if routed && chip.fifo.len() >= chip.watermark() {
                    return;
                } else {
                    chip.tick_of_watermark().filter(|_| routed)
                }
            };
            match due {
                Some(tick) => {
                    select(self.time.until(tick), self.ending.wait()).await;
                }
                None => self.ending.wait().await,
            }
        }
    }
}

impl<S: Source> Chip<S> {
    fn sampling(&self) -> bool {
        self.registers[usize::from(reg::CTRL1_XL)] & 0xE0 == reg::XL_ENABLE
    }

    fn batching(&self) -> bool {
        let on = self.registers[usize::from(reg::FIFO_CTRL4)] & 7 == 6;
        on && self.registers[usize::from(reg::FIFO_CTRL3)] & 0xF == reg::BDR_XL_26K7
    }

    fn watermark(&self) -> usize {
        let high = usize::from(self.registers[usize::from(reg::FIFO_CTRL2)] & 1) << 8;
        (high | usize::from(self.registers[usize::from(reg::FIFO_CTRL1)])).max(1)
    }

    fn scale(&self) -> f32 {
        match self.registers[usize::from(reg::CTRL1_XL)] >> 2 & 3 {
            0 => FullScale::G2,
            1 => FullScale::G16,
            2 => FullScale::G4,
            _ => FullScale::G8,
        }
        .scale()
    }

    /// When the FIFO will reach its watermark at the latest (timestamp words may bring it there sooner).
    fn tick_of_watermark(&self) -> Option<u64> {
        let started = self.started?;
        if !self.sampling() || !self.batching() || self.fault == Some(Fault::Frozen) {
            return None;
        }
        let missing = self.watermark().saturating_sub(self.fifo.len()) as u64;
        // Each 32 frames bring a 33rd word.
        let frames = self.taken + (missing * 32).div_ceil(33).max(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        Some(started + libm::ceil(frames as f64 * self.period) as u64)
    }

    /// Takes every frame that is due by `now`.
    fn advance(&mut self, now: u64) {
        let Some(started) = self.started else { return };
        if self.fault == Some(Fault::Frozen) {
            return;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
        let due = ((now.saturating_sub(started)) as f64 / self.period) as u64;
        let (scale, batching) = (self.scale(), self.batching());
        while self.taken < due && !self.ended {
            // A frame may bring a timestamp word with it.
            if self.patient && self.fifo.len() + 2 > reg::FIFO_WORDS {
                return;
            }
            let Some(frame) = self.source.next(scale) else {
                self.ended = true;
                return;
            };
            self.last = frame;
            self.fresh = true;
            if batching {
                self.batch(frame);
            }
            self.taken += 1;
        }
    }

    fn batch(&mut self, frame: [i16; 3]) {
        let slot = self.taken.to_le_bytes()[0] & 3;
        let [x, y, z] = frame.map(i16::to_le_bytes);
        self.push([reg::tag(reg::TAG_XL, slot), x[0], x[1], y[0], y[1], z[0], z[1]]);
        let stamped = self.registers[usize::from(reg::CTRL10_C)] & reg::TIMESTAMP_EN != 0;
        let every_32 = self.registers[usize::from(reg::FIFO_CTRL4)] >> 6 == 3;
        if stamped && every_32 && self.taken.is_multiple_of(32) {
            let [a, b, c, d, ..] = (self.taken * STAMP_PER_FRAME).to_le_bytes();
            self.push([reg::tag(reg::TAG_TIMESTAMP, slot), a, b, c, d, 0, 0]);
        }
        self.source.batched(frame);
    }

    fn push(&mut self, word: [u8; reg::WORD_LEN]) {
        if self.fifo.is_full() {
            self.fifo.pop_front();
            self.overrun_latched = true;
            self.overrun = true;
        }
        // There is room: the oldest was just dropped.
        let _ = self.fifo.push_back(word);
    }

    fn write(&mut self, address: &mut Option<u8>, bytes: &[u8], now: u64) {
        let mut bytes = bytes.iter();
        if address.is_none() {
            *address = bytes.next().copied();
        }
        for &value in bytes {
            let Some(register) = *address else { return };
            if register & reg::READ == 0 {
                self.write_register(register, value, now);
            }
            *address = Some(register & reg::READ | register.wrapping_add(1) & 0x7F);
        }
    }

    fn write_register(&mut self, register: u8, value: u8, now: u64) {
        if register == reg::CTRL3_C && value & reg::SW_RESET != 0 {
            self.registers = [0; 128];
            self.started = None;
            self.empty();
            return;
        }
        let sampled = self.sampling();
        self.registers[usize::from(register & 0x7F)] = value;
        if register == reg::FIFO_CTRL4 && value & 7 == 0 {
            self.empty();
        }
        if self.sampling() != sampled {
            self.started = self.sampling().then_some(now);
            self.taken = 0;
        }
    }

    fn empty(&mut self) {
        self.fifo.clear();
        (self.overrun, self.overrun_latched) = (false, false);
    }

    fn read(&mut self, address: &mut Option<u8>, out: &mut [u8], freq_fine: i8) {
        let Some(register) = address.map(|address| address & 0x7F) else { return };
        if let Some(Fault::Stuck(level)) = self.fault {
            out.fill(level);
            return;
        }
        if register == reg::FIFO_DATA_OUT_TAG {
            for word in out.chunks_mut(reg::WORD_LEN) {
                let next = self.fifo.pop_front().unwrap_or_default();
                word.copy_from_slice(&next[..word.len()]);
            }
            self.overrun = false;
            if self.fault == Some(Fault::Garble)
                && let Some(byte) = out.first_mut()
            {
                *byte ^= 0x10;
                self.fault = None;
            }
            return;
        }
        for (place, offset) in out.iter_mut().zip(0u8..) {
            *place = self.read_register(register.wrapping_add(offset) & 0x7F, freq_fine);
        }
    }

    fn read_register(&mut self, register: u8, freq_fine: i8) -> u8 {
        const STATUS2: u8 = reg::FIFO_STATUS1 + 1;
        const OUT_END: u8 = reg::OUTX_L_A + 5;
        match register {
            reg::WHO_AM_I => match self.fault {
                Some(Fault::WrongId(id)) => id,
                _ => reg::ID,
            },
            reg::INTERNAL_FREQ_FINE => freq_fine.cast_unsigned(),
            reg::STATUS_REG => u8::from(self.fresh),
            reg::FIFO_STATUS1 => self.fifo.len().to_le_bytes()[0],
            STATUS2 => {
                let len = self.fifo.len();
                let bit = |set: bool, mask: u8| if set { mask } else { 0 };
                (len >> 8).to_le_bytes()[0] & reg::DIFF_HIGH
                    | bit(core::mem::take(&mut self.overrun_latched), reg::OVER_RUN_LATCHED)
                    | bit(self.fifo.is_full(), reg::FIFO_FULL)
                    | bit(self.overrun, reg::FIFO_OVR)
                    | bit(len >= self.watermark(), reg::FIFO_WTM)
            }
            reg::OUTX_L_A..=OUT_END => {
                let at = register - reg::OUTX_L_A;
                if at == 5 {
                    self.fresh = false;
                }
                let value = self.last[usize::from(at / 2)].saturating_add(self.self_test_counts());
                value.to_le_bytes()[usize::from(at % 2)]
            }
            _ => self.registers[usize::from(register)],
        }
    }

    fn self_test_counts(&self) -> i16 {
        let on = self.registers[usize::from(reg::CTRL5_C)] & 3 == reg::ST_POSITIVE;
        if !on || self.fault == Some(Fault::DeadSelfTest) {
            return 0;
        }
        #[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
        let counts = libm::roundf(SELF_TEST_MOVE / self.scale()) as i16;
        counts
    }
}

/// The model's bus.
pub struct ModelSpi<'m, S, T>(&'m Model<S, T>);

impl<S, T> ErrorType for ModelSpi<'_, S, T> {
    type Error = Infallible;
}

impl<S: Source, T: Timebase> SpiDevice for ModelSpi<'_, S, T> {
    async fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        self.0.select(operations);
        Ok(())
    }
}

/// The model's INT1 pin.
pub struct ModelPin<'m, S, T>(&'m Model<S, T>);

impl<S, T> PinErrorType for ModelPin<'_, S, T> {
    type Error = Infallible;
}

impl<S: Source, T: Timebase> Wait for ModelPin<'_, S, T> {
    async fn wait_for_high(&mut self) -> Result<(), Infallible> {
        self.0.int1_high().await;
        Ok(())
    }

    async fn wait_for_low(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn wait_for_rising_edge(&mut self) -> Result<(), Infallible> {
        self.wait_for_high().await
    }

    async fn wait_for_falling_edge(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn wait_for_any_edge(&mut self) -> Result<(), Infallible> {
        self.wait_for_high().await
    }
}
