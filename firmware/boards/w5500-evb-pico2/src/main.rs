//! Spindle's sensor node on WIZnet's W5500-EVB-Pico2. Pins are in `wiring`, the chip's own matters in `chip`; what the node does
//! is in `spindle-firmware`, and who it is in `hardware-configs/nodes/NAME.toml`, chosen by `SPINDLE_NODE`.
#![no_std]
#![no_main]

mod chip;
mod tasks;
mod wiring;

use core::panic::PanicInfo;
use cortex_m_rt::{ExceptionFrame, exception};
use embassy_executor::Spawner;
use embassy_rp::clocks::RoscRng;
use embassy_rp::peripherals::WATCHDOG;
use embassy_rp::watchdog::Watchdog;
use embassy_time::Duration;
use spindle_firmware::app::{Shell, WATCHDOG_TIMEOUT_MS};
use spindle_firmware::config::{self, LinkConfig, NodeConfig};
use spindle_firmware::retain::{Boot, Retained};
use spindle_firmware::settings::FlashStore;
use static_cell::{ConstStaticCell, StaticCell};

// Defines the logger that `defmt` links to.
#[cfg(feature = "defmt")]
use defmt_rtt as _;

/// Who this board is.
const NODE: &NodeConfig = config::node(env!("SPINDLE_NODE"));

/// The ports of this board, by their names in its file.
const PORTS: [&str; 1] = ["spi1"];

const _: () = {
    assert!(NODE.is_for("w5500-evb-pico2"), "the node's file names another board");
    assert!(NODE.is_wired(&PORTS), "the node's one sensor needs the port spi1");
    if let LinkConfig::Serial { baud } = NODE.link {
        assert!(wiring::is_baud(baud), "UART0 does 1,000 to 3,000,000 baud");
    }
};

/// Memory for blocks that wait for the gateway: 1.7 s of an IIS3DWB in raw form.
const RING_LEN: usize = 272 * 1024;

/// Blocks in it at most.
const RING_BLOCKS: usize = 256;

type BoardShell = Shell<RING_BLOCKS>;
type BoardStore = FlashStore<wiring::SettingsFlash>;

/// Not cleared at start.
#[unsafe(link_section = ".uninit.retained")]
#[used]
static RETAINED: Retained = Retained::new();

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let peripherals = embassy_rp::init(embassy_rp::config::Config::default());
    static BOOT: StaticCell<Boot> = StaticCell::new();
    let boot: &Boot = BOOT.init(RETAINED.boot(chip::reset_cause()));
    let (mut wired, settings) =
        wiring::wire(peripherals, NODE.link, |port| NODE.sensor_at(port).map(|(_, sensor)| sensor));
    // From here on a start that hangs ends in a reset. A debugger that halts the processor halts the watchdog too.
    wired.watchdog.pause_on_debug(true);
    wired.watchdog.start(Duration::from_millis(WATCHDOG_TIMEOUT_MS.into()));
    static RING: ConstStaticCell<[u8; RING_LEN]> = ConstStaticCell::new([0; RING_LEN]);
    static SHELL: StaticCell<BoardShell> = StaticCell::new();
    static STORE: StaticCell<BoardStore> = StaticCell::new();
    let store = match BoardStore::new(settings.flash, settings.range) {
        Ok(store) => STORE.init(store),
        Err(error) => tasks::give_up(format_args!("{error}")),
    };
    let shell: &BoardShell =
        SHELL.init_with(|| Shell::new(NODE, boot, &RETAINED, RoscRng.next_u64(), store, RING.take()));
    tasks::spawn(spawner, shell, store, wired).await;
}

/// Resets the board; `RETAINED` keeps its contents. Through the watchdog, because the processor's own reset leaves the
/// peripherals as they are (RP2350 datasheet, chapter 7).
fn reset() -> ! {
    // SAFETY: nothing else of this program runs any more that could use the watchdog at the same time.
    let watchdog = unsafe { WATCHDOG::steal() };
    Watchdog::new(watchdog).trigger_reset();
    loop {
        cortex_m::asm::nop();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    RETAINED.note_panic(info);
    #[cfg(feature = "defmt")]
    defmt::error!("{}", defmt::Display2Format(info));
    reset()
}

// SAFETY: the handler only stores into atomics and resets.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    RETAINED.note_panic_text(format_args!("hard fault at {:#010x}", frame.pc()));
    reset()
}
