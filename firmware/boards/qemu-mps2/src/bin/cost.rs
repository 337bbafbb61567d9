//! Counts what the firmware costs per sample and axis, in instructions: the real driver, acquisition, encoder and ring, fed
//! with an IIS3DWB's FIFO words. For QEMU with `-icount`, where the machine's counters count instructions and nothing else;
//! how many they count per instruction is measured first. What the stand-in for the chip costs is taken off.
#![no_std]
#![no_main]

#[path = "../host.rs"]
#[allow(dead_code, reason = "shared with the board's program")]
mod host;
#[path = "../mmio.rs"]
mod mmio;
#[path = "../time.rs"]
#[allow(dead_code, reason = "shared with the board's program")]
mod time;

use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use cortex_m_rt::entry;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_hal::digital::ErrorType as PinErrorType;
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::{ErrorType, Operation, SpiDevice};
use spindle_common::id::{BootId, StreamId};
use spindle_common::settings::{Settings, Step};
use spindle_common::wire::messages::ResetCause;
use spindle_common::wire::{Encoding, StreamInfo};
use spindle_firmware::acquire::{self, Options};
use spindle_firmware::clock::Timebase;
use spindle_firmware::node::{Facts, Limits, Node, WhenFull};
use spindle_firmware::reduce::Buffers;
use spindle_firmware::sensor::iis3dwb::registers as reg;
use spindle_firmware::sensor::iis3dwb::{Config, Iis3dwb, RATE_NOMINAL_MHZ};
use spindle_firmware::sensor::signal::{Signal, Spindle};
use static_cell::{ConstStaticCell, StaticCell};

/// Frames of signal that are played over and over.
const FRAMES: usize = 2048;
/// Frames in one read of the FIFO: the driver's watermark, timestamps among them.
const BATCH_WORDS: usize = 264;
const BATCH_FRAMES: usize = 256;
/// Reads of the FIFO per trial.
const BATCHES: u32 = 400;
const RING_LEN: usize = 512 * 1024;
const RING_BLOCKS: usize = 128;

/// The chip as its bus shows it: always a full batch in the FIFO.
struct Chip<'s> {
    signal: &'s [[i16; 3]; FRAMES],
    frame: Cell<u64>,
    left: Cell<u32>,
    /// Counter steps spent in here.
    spent: Cell<u32>,
    registers: RefCell<[u8; 128]>,
}

struct Bus<'c, 's>(&'c Chip<'s>);
struct Pin<'c, 's, F: Fn()>(&'c Chip<'s>, F);

impl Chip<'_> {
    fn transaction(&self, operations: &mut [Operation<'_, u8>]) {
        let mut address = 0;
        for operation in operations {
            match operation {
                Operation::Write([first, rest @ ..]) => {
                    address = *first;
                    for (offset, byte) in rest.iter().enumerate() {
                        // Software reset is over at once.
                        let value = if address == reg::CTRL3_C { byte & !reg::SW_RESET } else { *byte };
                        self.registers.borrow_mut()[usize::from(address & 0x7F) + offset] = value;
                    }
                }
                Operation::Read(out) => match address & 0x7F {
                    reg::FIFO_DATA_OUT_TAG => self.fill(out),
                    reg::FIFO_STATUS1 => {
                        out.copy_from_slice(&[(BATCH_WORDS & 0xFF) as u8, (BATCH_WORDS >> 8) as u8])
                    }
                    reg::WHO_AM_I => out.fill(reg::ID),
                    other => out.copy_from_slice(&self.registers.borrow()[usize::from(other)..][..out.len()]),
                },
                _ => {}
            }
        }
    }

    fn fill(&self, out: &mut [u8]) {
        let mut words = out.chunks_exact_mut(reg::WORD_LEN);
        for _ in 0..BATCH_FRAMES {
            let frame = self.frame.get();
            let slot = (frame & 3) as u8;
            let Some(word) = words.next() else { return };
            word[0] = reg::tag(reg::TAG_XL, slot);
            let sample = self.signal[(frame % FRAMES as u64) as usize];
            for (pair, value) in word[1..].chunks_exact_mut(2).zip(sample) {
                pair.copy_from_slice(&value.to_le_bytes());
            }
            if frame.is_multiple_of(32)
                && let Some(word) = words.next()
            {
                word[0] = reg::tag(reg::TAG_TIMESTAMP, slot);
                word[1..5].copy_from_slice(&((frame * 3) as u32).to_le_bytes());
            }
            self.frame.set(frame + 1);
        }
    }
}

impl ErrorType for Bus<'_, '_> {
    type Error = Infallible;
}

impl SpiDevice for Bus<'_, '_> {
    async fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        let start = time::steps();
        self.0.transaction(operations);
        self.0.spent.set(self.0.spent.get().wrapping_add(time::steps().wrapping_sub(start)));
        Ok(())
    }
}

impl<F: Fn()> PinErrorType for Pin<'_, '_, F> {
    type Error = Infallible;
}

impl<F: Fn()> Wait for Pin<'_, '_, F> {
    async fn wait_for_high(&mut self) -> Result<(), Infallible> {
        match self.0.left.get().checked_sub(1) {
            Some(left) => self.0.left.set(left),
            None => {
                (self.1)();
                core::future::pending::<()>().await;
            }
        }
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

/// Time as the samples tell it, so that the measured rate makes sense however slow the emulation is.
#[derive(Clone, Copy)]
struct SampleTime<'c, 's>(&'c Chip<'s>);

impl Timebase for SampleTime<'_, '_> {
    fn now(&self) -> u64 {
        self.0.frame.get() * 75 / 2
    }

    async fn until(&self, _tick: u64) {}
}

fn info(encoding: Encoding) -> StreamInfo<'static> {
    StreamInfo {
        stream: StreamId(0),
        sensor: "spindle",
        model: "iis3dwb",
        axes: "xyz",
        rate_nominal_mhz: RATE_NOMINAL_MHZ,
        scale: Config::default().full_scale.scale(),
        bits: 16,
        block_samples: 512,
        encoding,
    }
}

/// Counter steps per 1000 instructions.
fn steps_per_1000() -> u32 {
    const LOOPS: u32 = 100_000;
    let start = time::steps();
    // SAFETY: counts a register down; touches no memory.
    unsafe {
        core::arch::asm!("2:", "subs {n}, {n}, #1", "bne 2b", n = inout(reg) LOOPS => _, options(nomem, nostack));
    }
    time::steps().wrapping_sub(start) / (2 * LOOPS / 1000)
}

/// Instructions times 100 per sample and axis, from the FIFO's words to a block in the ring.
fn trial(
    (step, encoding): (Step, Encoding),
    signal: &[[i16; 3]; FRAMES],
    ring: &mut [u8],
    memory: &mut Buffers<i16, { 512 * 3 }>,
    per_1000: u32,
) -> u64 {
    let facts = Facts {
        site: "lab",
        machine: "bench",
        node: "cost",
        board: "qemu-mps2",
        firmware: env!("CARGO_PKG_VERSION"),
        boot: BootId(1),
        reset_cause: ResetCause::PowerOn,
        last_panic: "",
        lifetime: None,
        limits: Limits {
            link_bits_per_s: 100_000_000,
            block_samples_max: 512,
            burst_samples_max: 512,
            message_len_max: 8192,
        },
        streams: [info(encoding)].into_iter().collect(),
    };
    let mut settings = Settings::built_in(&facts.streams);
    settings.streams[0].step = step;
    let node: Node<'_, NoopRawMutex, _, RING_BLOCKS> = Node::new(facts, settings, ring);
    let registers = RefCell::new([0; 128]);
    let chip = Chip { signal, frame: Cell::new(0), left: Cell::new(BATCHES), spent: Cell::new(0), registers };
    let time = SampleTime(&chip);
    let mut sensor = Iis3dwb::new(Bus(&chip), Pin(&chip, || node.halt(StreamId(0))), time, Config::default());
    let options =
        Options { stream: StreamId(0), when_full: WhenFull::DropOldest, flags: 0, supervisor: None };
    let start = time::steps();
    embassy_futures::block_on(acquire::run(&node, &mut sensor, &time, memory.lend(), options));
    let steps = time::steps().wrapping_sub(start).wrapping_sub(chip.spent.get());
    let samples = chip.frame.get() * 3;
    u64::from(steps) * 100_000 / u64::from(per_1000) / samples
}

#[entry]
fn main() -> ! {
    static SIGNAL: ConstStaticCell<[[i16; 3]; FRAMES]> = ConstStaticCell::new([[0; 3]; FRAMES]);
    static RING: ConstStaticCell<[u8; RING_LEN]> = ConstStaticCell::new([0; RING_LEN]);
    let (signal, ring) = (SIGNAL.take(), RING.take());
    let scale = Config::default().full_scale.scale();
    let mut source = Spindle::default().with_outer_race_fault(30.0, 0.0, 1.0).start();
    for frame in signal.iter_mut() {
        *frame = source.next(scale).unwrap_or_default();
    }
    time::start();
    let per_1000 = steps_per_1000();
    host::print(format_args!("counter steps per 1000 instructions: {per_1000}"));
    static MEMORY: StaticCell<Buffers<i16, { 512 * 3 }>> = StaticCell::new();
    let memory = MEMORY.init_with(Buffers::new);
    let trials = [
        ("raw", Step::Raw, Encoding::Raw16),
        ("rice", Step::Raw, Encoding::Rice16),
        ("decimated by 8", Step::Decimated, Encoding::Raw16),
        ("features", Step::Features, Encoding::Raw16),
    ];
    for (name, step, encoding) in trials {
        let hundredths = trial((step, encoding), signal, ring, memory, per_1000);
        host::print(format_args!(
            "cost {name}: {}.{:02} instructions per sample and axis",
            hundredths / 100,
            hundredths % 100
        ));
    }
    host::exit(0)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    host::print(format_args!("{info}"));
    host::exit(1)
}
