//! Spindle's sensor node on ST's NUCLEO-H563ZI. Pins are in `wiring`, the chip's own matters in `chip`; what the node does
//! is in `spindle-firmware`, and who it is in `hardware-configs/nodes/NAME.toml`, chosen by `SPINDLE_NODE`.
#![no_std]
#![no_main]

mod chip;
mod tasks;
mod wiring;

use core::panic::PanicInfo;
use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};
use embassy_executor::Spawner;
use spindle_firmware::app::Shell;
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
const PORTS: [&str; 2] = ["spi1", "spi3"];

const _: () = {
    assert!(NODE.is_for("nucleo-h563zi"), "the node's file names another board");
    assert!(NODE.is_wired(&PORTS), "each sensor of the node needs a port of its own: spi1 or spi3");
    if let LinkConfig::Serial { baud } = NODE.link {
        assert!(wiring::is_baud(baud), "USART3 does 3,815 to 15,625,000 baud");
    }
};

/// Memory for blocks that wait for the gateway: 1.6 s of an IIS3DWB and an ADXL355, both raw.
const RING_LEN: usize = 320 * 1024;

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
    let peripherals = embassy_stm32::init(chip::clocks());
    static BOOT: StaticCell<Boot> = StaticCell::new();
    let boot: &Boot = BOOT.init(RETAINED.boot(chip::reset_cause()));
    let (mut wired, settings) =
        wiring::wire(peripherals, NODE.link, |port| NODE.sensor_at(port).map(|(_, sensor)| sensor));
    // From here on a start that hangs ends in a reset.
    wired.watchdog.unleash();
    static RING: ConstStaticCell<[u8; RING_LEN]> = ConstStaticCell::new([0; RING_LEN]);
    static SHELL: StaticCell<BoardShell> = StaticCell::new();
    static STORE: StaticCell<BoardStore> = StaticCell::new();
    let store = match BoardStore::new(settings.flash, settings.range) {
        Ok(store) => STORE.init(store),
        Err(error) => tasks::give_up(format_args!("{error}")),
    };
    let [boot_random, network_random] = wired.random;
    let shell: &BoardShell =
        SHELL.init_with(|| Shell::new(NODE, boot, &RETAINED, boot_random, store, RING.take()));
    tasks::spawn(spawner, shell, store, wired, network_random);
}

/// Resets the board; `RETAINED` keeps its contents.
fn reset() -> ! {
    SCB::sys_reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    RETAINED.note_panic(info);
    #[cfg(feature = "defmt")]
    defmt::error!("{}", defmt::Display2Format(info));
    reset()
}

// SAFETY: the handler only touches a register of the flash that nothing else uses, stores into atomics and resets.
#[exception]
unsafe fn NonMaskableInt() {
    if !chip::forgive_settings() {
        RETAINED.note_panic_text(format_args!("non-maskable interrupt"));
        reset()
    }
}

// SAFETY: the handler only stores into atomics and resets.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    RETAINED.note_panic_text(format_args!("hard fault at {:#010x}", frame.pc()));
    reset()
}
