//! What the register-level models of chips share: a bus and an interrupt pin, a sampling clock some percent off nominal,
//! and faults to inject. A chip does only what its registers were told: a driver that forgets one gets no samples, as
//! from the part.

use crate::clock::{TICK_HZ, Timebase};
use core::cell::RefCell;
use core::convert::Infallible;
use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embedded_hal::digital::ErrorType as PinErrorType;
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::{ErrorType, Operation, SpiDevice};

/// What is wrong with a chip or its bus.
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

/// The state that every modelled part has: when it samples, and what is wrong with it.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Ticks per frame of this part.
    period: f64,
    /// When sampling was switched on.
    started: Option<u64>,
    /// Frames taken since.
    pub(super) taken: u64,
    pub(super) fault: Option<Fault>,
    pub(super) ended: bool,
    pub(super) patient: bool,
}

impl Part {
    pub(super) fn new(rate_hz: f64) -> Self {
        let period = f64::from(TICK_HZ) / rate_hz;
        Self { period, started: None, taken: 0, fault: None, ended: false, patient: false }
    }

    /// Sampling starts (or stops, without a tick) and counts from zero.
    pub(super) const fn restart(&mut self, started: Option<u64>) {
        (self.started, self.taken) = (started, 0);
    }

    /// Frames that are due by `now`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub(super) fn due(&self, now: u64) -> u64 {
        match self.started {
            Some(started) if self.fault != Some(Fault::Frozen) => {
                (now.saturating_sub(started) as f64 / self.period) as u64
            }
            _ => 0,
        }
    }

    /// When the part will have taken so many frames more.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub(super) fn tick_after(&self, frames: u64) -> Option<u64> {
        let started = self.started.filter(|_| self.fault != Some(Fault::Frozen))?;
        let wanted = self.taken + frames;
        let tick = started + libm::ceil(wanted as f64 * self.period) as u64;
        // The division in `due` may round the other way; whoever waits must not wake too early, or it waits for ever.
        Some(if self.due(tick) < wanted { tick + 1 } else { tick })
    }
}

/// The first byte of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Which register.
    pub register: u8,
    /// Read or written.
    pub reads: bool,
    /// Whether the address counts up with each byte.
    pub counts_up: bool,
}

/// A chip's registers and FIFO.
pub trait Chip {
    /// Understands the first byte of a transfer.
    fn access(byte: u8) -> Access;
    /// Clock and faults.
    fn part(&self) -> &Part;
    /// Clock and faults.
    fn part_mut(&mut self) -> &mut Part;
    /// Takes every frame that is due by `now`.
    fn advance(&mut self, now: u64);
    /// Reads from this register on.
    fn read(&mut self, access: Access, out: &mut [u8]);
    /// Writes a register.
    fn write(&mut self, register: u8, value: u8, now: u64);
    /// Whether the interrupt pin is high.
    fn interrupts(&self) -> bool;
    /// When it will be at the latest, if nothing is read until then.
    fn interrupts_at(&self) -> Option<u64>;
    /// Whether the FIFO is empty.
    fn is_empty(&self) -> bool;
}

/// A chip on its bus. Bus and pin borrow it; all run on one executor.
pub struct Model<C, T> {
    chip: RefCell<C>,
    time: T,
    ending: Signal<NoopRawMutex, ()>,
    drained: Signal<NoopRawMutex, ()>,
}

impl<C: Chip, T: Timebase> Model<C, T> {
    pub(super) const fn wire(chip: C, time: T) -> Self {
        Self { chip: RefCell::new(chip), time, ending: Signal::new(), drained: Signal::new() }
    }

    /// The same part, but instead of overrunning its FIFO it takes the samples later: for hosts that cannot promise to
    /// run a board every few milliseconds.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.chip.get_mut().part_mut().patient = true;
        self
    }

    /// The chip's bus.
    pub const fn spi(&self) -> ModelSpi<'_, C, T> {
        ModelSpi(self)
    }

    /// The chip's interrupt pin.
    pub const fn int1(&self) -> ModelPin<'_, C, T> {
        ModelPin(self)
    }

    /// Breaks the chip, or mends it.
    pub fn inject(&self, fault: Option<Fault>) {
        self.chip.borrow_mut().part_mut().fault = fault;
    }

    /// The chip takes no further sample. Its pin stays high until the FIFO is empty, so that nothing is left behind.
    pub fn end(&self) {
        self.chip.borrow_mut().part_mut().ended = true;
        self.ending.signal(());
    }

    /// Waits until the chip has ended (or its recording has) and its FIFO was read empty.
    pub async fn drained(&self) {
        self.drained.wait().await;
    }

    /// Frames that the chip took since sampling was switched on.
    pub fn taken(&self) -> u64 {
        self.chip.borrow().part().taken
    }

    fn select(&self, operations: &mut [Operation<'_, u8>]) {
        let now = self.time.now();
        let chip = &mut *self.chip.borrow_mut();
        chip.advance(now);
        let mut access = None;
        for operation in operations {
            match operation {
                Operation::Write(bytes) => write(chip, &mut access, bytes, now),
                Operation::Read(bytes) => read(chip, access, bytes),
                Operation::Transfer(bytes, sent) => {
                    write(chip, &mut access, sent, now);
                    read(chip, access, bytes);
                }
                Operation::TransferInPlace(bytes) => {
                    if let Some((first, rest)) = bytes.split_first_mut() {
                        write(chip, &mut access, &[*first], now);
                        read(chip, access, rest);
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
                if chip.part().ended {
                    if !chip.is_empty() {
                        return;
                    }
                    self.drained.signal(());
                    None
                } else if chip.interrupts() {
                    return;
                } else {
                    chip.interrupts_at()
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

fn write<C: Chip>(chip: &mut C, access: &mut Option<Access>, bytes: &[u8], now: u64) {
    let mut bytes = bytes.iter();
    if access.is_none() {
        *access = bytes.next().map(|&byte| C::access(byte));
    }
    for &value in bytes {
        let Some(Access { register, reads, counts_up }) = *access else { return };
        if !reads {
            chip.write(register, value, now);
        }
        *access = Some(Access { register: register.wrapping_add(u8::from(counts_up)), reads, counts_up });
    }
}

fn read<C: Chip>(chip: &mut C, access: Option<Access>, out: &mut [u8]) {
    match (access, chip.part().fault) {
        (None, _) => {}
        (_, Some(Fault::Stuck(level))) => out.fill(level),
        (Some(access), _) => chip.read(access, out),
    }
}

/// The model's bus.
pub struct ModelSpi<'m, C, T>(&'m Model<C, T>);

impl<C, T> ErrorType for ModelSpi<'_, C, T> {
    type Error = Infallible;
}

impl<C: Chip, T: Timebase> SpiDevice for ModelSpi<'_, C, T> {
    async fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        self.0.select(operations);
        Ok(())
    }
}

/// The model's interrupt pin.
pub struct ModelPin<'m, C, T>(&'m Model<C, T>);

impl<C, T> PinErrorType for ModelPin<'_, C, T> {
    type Error = Infallible;
}

impl<C: Chip, T: Timebase> Wait for ModelPin<'_, C, T> {
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
