//! Spindle on QEMU's mps2-an386: modelled sensors, everything else as on any board. Runs in emulation; there is no silicon.
#![no_std]
#![no_main]

mod executor;
mod flash;
mod host;
mod irq;
mod lan9118;
#[path = "../../link.rs"]
mod link;
mod load;
mod mmio;
mod models;
mod stack;
mod tasks;
mod time;
mod uart;
mod watchdog;

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use flash::Flash;
#[cfg(feature = "tls")]
use host::print as tell;
use host::{Arguments, Link};
use lan9118::Lan9118 as Network;
use spindle_common::wire::messages::ResetCause;
use spindle_firmware::app::Shell;
use spindle_firmware::config::{self, LinkConfig, NodeConfig};
use spindle_firmware::retain::{Boot, Retained};
use spindle_firmware::settings::FlashStore;
use static_cell::{ConstStaticCell, StaticCell};

// Defines the logger that `defmt` links to.
#[cfg(feature = "defmt")]
use defmt_semihosting as _;

const NODE: &NodeConfig = config::node(env!("SPINDLE_NODE"));

/// The ring: 2 MB hold 13 s of one IIS3DWB.
const RING_LEN: usize = 2 * 1024 * 1024;
const RING_BLOCKS: usize = 1024;

type BoardShell = Shell<RING_BLOCKS>;
type BoardStore = FlashStore<Flash>;

#[unsafe(link_section = ".uninit.retained")]
#[used]
static RETAINED: Retained = Retained::new();

#[entry]
fn main() -> ! {
    // The machine has no register that tells why it was reset.
    static BOOT: StaticCell<Boot> = StaticCell::new();
    let boot: &Boot = BOOT.init(RETAINED.boot(ResetCause::Unknown));
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(word) => give_up(format_args!("not understood: {word}")),
    };
    static RING: ConstStaticCell<[u8; RING_LEN]> = ConstStaticCell::new([0; RING_LEN]);
    static SHELL: StaticCell<BoardShell> = StaticCell::new();
    static STORE: StaticCell<BoardStore> = StaticCell::new();
    let random = arguments.random.unwrap_or_else(host::random);
    let store = Flash::take().and_then(|flash| BoardStore::new(flash, 0..flash::LEN as u32).ok());
    let Some(store) = store else {
        give_up(format_args!("the flash is too small for settings"));
    };
    let store = STORE.init(store);
    let shell: &BoardShell =
        SHELL.init_with(|| Shell::new(NODE, boot, &RETAINED, random, store, RING.take()));
    host::print(format_args!(
        "start node={} boot={:016x} cause={:?} boots={} watchdog_resets={} panics={} hung_tasks={:#b} last_panic={:?}",
        NODE.name,
        shell.node.facts.boot.0,
        boot.cause.0,
        boot.lifetime.boots,
        boot.lifetime.watchdog_resets,
        boot.lifetime.panics,
        boot.lifetime.hung_tasks,
        boot.last_panic.as_str(),
    ));
    let link = arguments.link.unwrap_or(match NODE.link {
        LinkConfig::Ethernet { .. } => Link::Ethernet,
        LinkConfig::Serial { .. } => Link::Serial,
    });
    time::start();
    executor::run(|spawner| tasks::spawn(spawner, shell, store, arguments, link))
}

/// Says why the run cannot go on and ends it.
fn give_up(why: core::fmt::Arguments<'_>) -> ! {
    host::print(why);
    host::exit(2)
}

/// Resets the board; `RETAINED` keeps its contents.
fn reset() -> ! {
    SCB::sys_reset()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    RETAINED.note_panic(info);
    reset()
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    RETAINED.note_panic_text(format_args!("hard fault at {:#010x}", frame.pc()));
    reset()
}
