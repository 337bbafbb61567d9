//! The RP2350's converter, running by itself at the rate that its divider sets, and emptied by one DMA channel into a buffer that
//! wraps: no sample waits for the processor. The DMA interrupts after each piece of the buffer.

use core::cell::UnsafeCell;
use core::future::poll_fn;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use core::task::Poll;
use embassy_rp::adc::{self, Adc, Blocking};
use embassy_rp::clocks::clk_adc_freq;
use embassy_rp::gpio::Output;
use embassy_rp::interrupt::typelevel::{DMA_IRQ_1, Handler, Interrupt};
use embassy_rp::pac;
use embassy_rp::pac::dma::vals::{DataSize, TransCountMode, TreqSel};
use embassy_rp::peripherals::DMA_CH4;
use embassy_rp::{Peri, interrupt};
use embassy_sync::waitqueue::AtomicWaker;
use embassy_time::Instant;
use spindle_firmware::config::SensorConfig;
use spindle_firmware::sensor::analog::{AdcStream, Force, Piece, Turns};

/// The converter's clock, Hz (RP2350 datasheet, ADC: from the USB PLL).
const CLOCK_HZ: u64 = 48_000_000;

/// Clock cycles of one conversion (RP2350 datasheet, ADC).
const CONVERSION_CYCLES: u64 = 96;

/// Inputs that one stream may have. Three would not fill whole pieces.
const INPUTS_MAX: usize = 2;

/// Conversions in a piece, and in the buffer: a power of two, as the DMA wraps. At 50,000 conversions a second a piece takes 5 ms,
/// and what is not taken in 35 ms is lost and counted.
pub const PIECE: usize = 256;
const PIECES: usize = 8;
const BUFFER: usize = PIECE * PIECES;

/// The DMA wraps addresses at a multiple of the buffer's length.
#[repr(align(4096))]
struct Buffer(UnsafeCell<[u16; BUFFER]>);
const _: () = assert!(size_of::<Buffer>() == 4096 && align_of::<Buffer>() == 4096);

// SAFETY: the DMA writes it and `Stream` reads it, by volatile reads of plain numbers; nobody makes a reference to its inside.
unsafe impl Sync for Buffer {}

static BUFFERED: Buffer = Buffer(UnsafeCell::new([0; BUFFER]));

/// The DMA channel of this module.
const CHANNEL: usize = 4;

/// Interrupts of the DMA so far, and who waits for the next.
static FILLED: AtomicU32 = AtomicU32::new(0);
static WAITER: AtomicWaker = AtomicWaker::new();

/// For the DMA's second interrupt, which is the converter's alone.
pub struct PieceFilled;

impl Handler<DMA_IRQ_1> for PieceFilled {
    unsafe fn on_interrupt() {
        pac::DMA.ints(1).write_value(1 << CHANNEL);
        FILLED.fetch_add(1, Ordering::Release);
        WAITER.wake();
    }
}

/// What the divider is set to, in 1/256 cycles and less one cycle as the register wants it, for a stream of so many inputs; `None`
/// when the rate is not exactly a division of the clock, or beyond what the converter does.
const fn divider(rate_mhz: u32, inputs: usize) -> Option<u32> {
    let rate_mhz = rate_mhz as u64 * inputs as u64;
    let clock = CLOCK_HZ * 1000 * 256;
    if rate_mhz == 0 || !clock.is_multiple_of(rate_mhz) {
        return None;
    }
    let cycles = clock / rate_mhz;
    if cycles < CONVERSION_CYCLES * 256 || cycles > 256 << 16 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "24 bits")]
    let divider = cycles as u32 - 256;
    Some(divider)
}

const _: () = {
    assert!(matches!(divider(50_000_000, 1), Some(divider) if divider == 959 << 8));
    assert!(matches!(divider(25_000_000, 2), Some(divider) if divider == 959 << 8));
    assert!(divider(26_666_667, 1).is_none() && divider(500_001_000, 1).is_none());
};

/// Whether the converter can do what this sensor's file asks for.
pub const fn can(sensor: &SensorConfig) -> bool {
    sensor.bits == 12
        && sensor.axes.len() <= INPUTS_MAX
        && divider(sensor.rate_nominal_mhz, sensor.axes.len()).is_some()
}

/// What the converter reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its clock is not what the rate is counted by.
    Clock,
    /// A conversion failed, or the DMA did not keep up.
    Conversion,
    /// The DMA met an error of the bus.
    Dma,
}

/// Inputs of the converter, from the first, and what it takes to read them.
pub struct Stream {
    _adc: Adc<'static, Blocking>,
    _pins: [adc::Channel<'static>; INPUTS_MAX],
    _dma: Peri<'static, DMA_CH4>,
    self_test: Output<'static>,
    inputs: usize,
    rate_mhz: u32,
    turns: Turns<{ PIECES as u64 }>,
    /// Interrupts when the DMA was looked at last.
    seen: u32,
}

impl Stream {
    /// For this sensor, which the converter [can](can) do.
    pub fn new(
        adc: Adc<'static, Blocking>,
        pins: [adc::Channel<'static>; INPUTS_MAX],
        dma: Peri<'static, DMA_CH4>,
        _irq: impl interrupt::typelevel::Binding<DMA_IRQ_1, PieceFilled>,
        self_test: Output<'static>,
        sensor: &SensorConfig,
    ) -> Self {
        let (inputs, rate_mhz) = (sensor.axes.len().clamp(1, INPUTS_MAX), sensor.rate_nominal_mhz);
        let turns = Turns::new(PIECE, 1, 0);
        Self { _adc: adc, _pins: pins, _dma: dma, self_test, inputs, rate_mhz, turns, seen: 0 }
    }

    /// Ends conversions and what the DMA still does.
    fn stop() {
        pac::ADC.cs().modify(|cs| cs.set_start_many(false));
        let channel = pac::DMA.ch(CHANNEL);
        // Disabled first: an abort can start a channel again that is (RP2350 datasheet, erratum RP2350-E5).
        channel.al1_ctrl().write_value(0);
        pac::DMA.chan_abort().write(|abort| abort.set_chan_abort(1 << CHANNEL));
        while pac::DMA.chan_abort().read().chan_abort() != 0 {}
        while !pac::ADC.cs().read().ready() {}
        while !pac::ADC.fcs().read().empty() {
            pac::ADC.fifo().read();
        }
    }

    /// Counts what the DMA has filled, if it said so since the last look.
    fn look(&mut self) -> Result<(), Fault> {
        if pac::DMA.ch(CHANNEL).ctrl_trig().read().ahb_error() {
            return Err(Fault::Dma);
        }
        if pac::ADC.cs().read().err_sticky() || pac::ADC.fcs().read().over() {
            return Err(Fault::Conversion);
        }
        let filled = FILLED.load(Ordering::Acquire);
        if filled != self.seen {
            self.seen = filled;
            let from = BUFFERED.0.get().addr();
            let place =
                (pac::DMA.ch(CHANNEL).write_addr().read() as usize).wrapping_sub(from) / size_of::<u16>();
            self.turns.look(Instant::now().as_ticks(), place % BUFFER);
        }
        Ok(())
    }
}

impl AdcStream for Stream {
    type Error = Fault;

    async fn start(&mut self) -> Result<(), Fault> {
        Self::stop();
        let divider = divider(self.rate_mhz, self.inputs).ok_or(Fault::Clock)?;
        if u64::from(clk_adc_freq()) != CLOCK_HZ {
            return Err(Fault::Clock);
        }
        let channel = pac::DMA.ch(CHANNEL);
        channel.read_addr().write_value(pac::ADC.fifo().as_ptr() as u32);
        channel.write_addr().write_value(BUFFERED.0.get().addr() as u32);
        // The channel starts itself again after each piece, where the last one ended.
        channel.trans_count().write(|count| {
            count.set_mode(TransCountMode::TRIGGER_SELF);
            count.set_count(PIECE as u32);
        });
        pac::DMA.ints(1).write_value(1 << CHANNEL);
        pac::DMA.inte(1).modify(|enabled| *enabled |= 1 << CHANNEL);
        DMA_IRQ_1::unpend();
        // SAFETY: the handler is bound, as `new` was shown.
        unsafe { DMA_IRQ_1::enable() };
        pac::ADC.fcs().write(|fcs| {
            fcs.set_en(true);
            fcs.set_dreq_en(true);
            fcs.set_thresh(1);
            // Writing a one clears them.
            fcs.set_over(true);
            fcs.set_under(true);
        });
        pac::ADC.cs().modify(|cs| {
            cs.set_err_sticky(true);
            cs.set_ainsel(0);
            cs.set_rrobin(if self.inputs > 1 { (1 << self.inputs) - 1 } else { 0 });
        });
        channel.ctrl_trig().write(|control| {
            control.set_treq_sel(TreqSel::ADC);
            control.set_data_size(DataSize::SIZE_HALFWORD);
            control.set_incr_write(true);
            control.set_ring_sel(true);
            control.set_ring_size(size_of::<Buffer>().trailing_zeros() as u8);
            control.set_chain_to(CHANNEL as u8);
            control.set_high_priority(true);
            control.set_en(true);
        });
        pac::ADC.div().write(|register| register.0 = divider);
        let rate_mhz = u64::from(self.rate_mhz) * self.inputs as u64;
        self.seen = FILLED.load(Ordering::Acquire);
        self.turns = Turns::new(PIECE, rate_mhz, Instant::now().as_ticks());
        pac::ADC.cs().modify(|cs| cs.set_start_many(true));
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), Fault> {
        poll_fn(|context| {
            WAITER.register(context.waker());
            match self.look() {
                Ok(()) if self.turns.full().is_none() => Poll::Pending,
                result => Poll::Ready(result),
            }
        })
        .await
    }

    fn take(&mut self, out: &mut [u16]) -> Result<Option<Piece>, Fault> {
        // A copy takes a fraction of a piece's time: the second try at the latest finds one that stays whole.
        for _ in 0..PIECES {
            self.look()?;
            let Some(full) = self.turns.full() else { return Ok(None) };
            let buffer = BUFFERED.0.get().cast::<u16>();
            for (index, out) in full.place.clone().zip(out.iter_mut()) {
                // SAFETY: `full.place` lies within the buffer. The DMA may be writing there: any number is a good one, and what
                // was overwritten is found out below.
                *out = unsafe { buffer.add(index).read_volatile() };
            }
            fence(Ordering::SeqCst);
            self.look()?;
            if self.turns.take(&full) {
                return Ok(Some(Piece { counts: PIECE, tick: full.tick, lost: full.lost }));
            }
        }
        Ok(None)
    }

    fn self_test(&mut self, force: Force) -> bool {
        self.self_test.set_level((force == Force::On).into());
        true
    }
}
