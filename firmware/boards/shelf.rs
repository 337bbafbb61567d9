//! What boards on the shelf do with what is wired to them: included by each board's crate as its module `shelf`, beside `link`.
//!
//! It takes from the crate's root `NODE`, `RING_LEN`, `BoardShell` and `BoardStore`; from `chip` the function `reset`; and from
//! `wiring` what the board has: `Network`, `SerialPort`, `Port`, `Led`, `Guard`, `Random`, `SettingsFlash`.

use crate::wiring::{Guard, Led, Network, Port, Random, SerialPort, SettingsFlash};
use crate::{BoardShell, BoardStore, NODE, RING_LEN, chip, link};
use core::fmt::Arguments;
use core::ops::Range;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m_rt::{ExceptionFrame, exception};
use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use link::start;
use spindle_common::id::StreamId;
use spindle_common::wire::messages::ResetCause;
use spindle_firmware::app::Shell;
use spindle_firmware::clock::BoardTime;
#[cfg(feature = "tls")]
use spindle_firmware::config;
use spindle_firmware::light;
use spindle_firmware::retain::{Boot, Retained};
use spindle_firmware::sensor::port::PortError;
use spindle_firmware::transport::line::Line;
use spindle_firmware::uplink::session::Exit;
use static_cell::{ConstStaticCell, StaticCell};

/// Samples of one block, all channels together.
pub const PLANAR: usize = NODE.planar_len_max();

/// Errors of the serial line.
static LINE_ERRORS: AtomicU32 = AtomicU32::new(0);

/// Not cleared at start.
#[unsafe(link_section = ".uninit.retained")]
#[used]
static RETAINED: Retained = Retained::new();

/// What was kept over the reset, first thing at start.
pub fn boot(cause: ResetCause) -> &'static Boot {
    static BOOT: StaticCell<Boot> = StaticCell::new();
    BOOT.init(RETAINED.boot(cause))
}

/// The node, with the settings that its flash has kept.
pub fn shell(
    boot: &'static Boot,
    flash: SettingsFlash,
    random: &mut Random,
) -> (&'static BoardShell, &'static mut BoardStore) {
    static RING: ConstStaticCell<[u8; RING_LEN]> = ConstStaticCell::new([0; RING_LEN]);
    static SHELL: StaticCell<BoardShell> = StaticCell::new();
    static STORE: StaticCell<BoardStore> = StaticCell::new();
    let store = match BoardStore::new(flash, settings_range()) {
        Ok(store) => STORE.init(store),
        Err(error) => give_up(format_args!("{error}")),
    };
    let random = word(random);
    let shell = SHELL.init_with(|| Shell::new(NODE, boot, &RETAINED, random, store, RING.take()));
    (shell, store)
}

/// Where `memory.x` puts the settings, as an offset from the start of flash.
fn settings_range() -> Range<u32> {
    unsafe extern "C" {
        static __settings_start: u8;
        static __settings_end: u8;
    }
    #[expect(clippy::cast_possible_truncation, reason = "addresses have 32 bits here")]
    let [from, to] = [(&raw const __settings_start).addr() as u32, (&raw const __settings_end).addr() as u32];
    from..to
}

fn word(random: &mut Random) -> u64 {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// MQTT over this Ethernet.
pub fn ethernet(
    spawner: Spawner,
    (shell, store): (&'static BoardShell, &'static mut BoardStore),
    device: Network,
    mut random: Random,
) {
    let stack = link::network(spawner, shell, device, word(&mut random));
    let Some(broker) = shell.broker() else { give_up(format_args!("the node has no broker")) };
    // A task of its own, so that an image has memory for the one that its node needs.
    #[cfg(feature = "tls")]
    match config::TLS {
        Some(files) => start(spawner, mqtt_tls(shell, store, stack, broker, files, random)),
        None => start(spawner, mqtt(shell, store, stack, broker)),
    }
    #[cfg(not(feature = "tls"))]
    start(spawner, mqtt(shell, store, stack, broker));
}

/// Frames over this serial port.
pub fn serial_line(
    spawner: Spawner,
    (shell, store): (&'static BoardShell, &'static mut BoardStore),
    port: SerialPort,
) {
    start(spawner, serial(shell, store, port));
}

/// Samples the sensor that the node's file has at this port.
pub fn sensor(spawner: Spawner, shell: &'static BoardShell, name: &str, port: Option<Port>) {
    if let (Some((stream, _)), Some(port)) = (NODE.sensor_at(name), port) {
        start(spawner, sample(shell, stream, port));
    }
}

/// Light and watchdog: the last tasks to start.
pub fn watch(spawner: Spawner, shell: &'static BoardShell, led: Led, guard: Guard) {
    start(spawner, show(shell, led));
    start(spawner, supervise(shell, guard));
}

#[embassy_executor::task]
async fn mqtt(
    shell: &'static BoardShell,
    store: &'static mut BoardStore,
    stack: Stack<'static>,
    broker: &'static str,
) {
    left(shell, link::mqtt(shell, store, link::tcp(stack, broker)).await)
}

#[cfg(feature = "tls")]
#[embassy_executor::task]
async fn mqtt_tls(
    shell: &'static BoardShell,
    store: &'static mut BoardStore,
    stack: Stack<'static>,
    broker: &'static str,
    files: config::TlsFiles,
    mut random: Random,
) {
    let dial = link::tls(link::tcp(stack, broker), broker, files, move |bytes| random.fill(bytes));
    left(shell, link::mqtt(shell, store, dial).await)
}

#[embassy_executor::task]
async fn serial(shell: &'static BoardShell, store: &'static mut BoardStore, port: SerialPort) {
    let uplink = link::serial(shell, store, Line::new(port, &LINE_ERRORS));
    let errors = shell.count_line_errors(|| LINE_ERRORS.load(Ordering::Relaxed));
    let Either::First(exit) = select(uplink, errors).await;
    left(shell, exit)
}

/// The uplink has ended. A board has nobody to leave for, so both ways lead to a fresh start.
fn left(shell: &BoardShell, _exit: Exit) -> ! {
    shell.restarting();
    chip::reset()
}

#[embassy_executor::task(pool_size = NODE.sensors.len())]
async fn sample(shell: &'static BoardShell, stream: StreamId, port: Port) {
    let sampled = shell.sample_port::<PLANAR, _, _>(stream, (port.bus, port.int1), &BoardTime, 0).await;
    sampled_out(shell, stream, sampled).await
}

/// A sensor that the firmware cannot drive, or that was halted, stays silent, and its counters tell so; the others go on.
pub async fn sampled_out(shell: &BoardShell, stream: StreamId, sampled: Result<(), PortError>) -> ! {
    if let Err(error) = sampled {
        tell(format_args!("{error}"));
    }
    shell.idle(stream).await
}

#[embassy_executor::task]
async fn show(shell: &'static BoardShell, mut led: Led) {
    light::show(&shell.node, &mut led).await;
}

#[embassy_executor::task]
async fn supervise(shell: &'static BoardShell, mut guard: Guard) {
    shell.supervise(&mut guard).await;
}

/// A word for whoever reads the log.
pub fn tell(words: Arguments<'_>) {
    #[cfg(feature = "defmt")]
    defmt::warn!("{}", defmt::Display2Format(&words));
    #[cfg(not(feature = "defmt"))]
    let _ = words;
}

/// What cannot be is told by the next start.
pub fn give_up(why: Arguments<'_>) -> ! {
    tell(why);
    fault(why)
}

/// As [`give_up`], where no log may be written: in handlers of faults.
pub fn fault(why: Arguments<'_>) -> ! {
    RETAINED.note_panic_text(why);
    chip::reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    RETAINED.note_panic(info);
    tell(format_args!("{info}"));
    chip::reset()
}

// SAFETY: the handler only stores into atomics and resets.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    fault(format_args!("hard fault at {:#010x}", frame.pc()))
}
