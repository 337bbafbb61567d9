//! Spindle's sensor node on ST's NUCLEO-H563ZI. Pins are in `wiring`, the chip's own matters in `chip`; what the node does
//! is in `spindle-firmware`, and who it is in `hardware-configs/nodes/NAME.toml`, chosen by `SPINDLE_NODE`.
#![no_std]
#![no_main]

mod chip;
#[path = "../../link.rs"]
mod link;
#[path = "../../shelf.rs"]
mod shelf;
mod wiring;

// Defines the logger that `defmt` links to.
#[cfg(feature = "defmt")]
use defmt_rtt as _;
use embassy_executor::Spawner;
use shelf::give_up;
#[cfg(feature = "tls")]
use shelf::tell;
use spindle_firmware::app::Shell;
use spindle_firmware::config::{self, LinkConfig, NodeConfig};
use spindle_firmware::settings::FlashStore;
use wiring::{Link, Network};

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

/// Memory for blocks that wait for the gateway: 1.6 s of an IIS3DWB and an ADXL355, both raw, or 1.4 s beside
/// TLS.
const RING_LEN: usize = match NODE.link {
    LinkConfig::Ethernet { tls: true, .. } => 288 * 1024,
    _ => 320 * 1024,
};

type BoardShell = Shell<256>;
type BoardStore = FlashStore<wiring::SettingsFlash>;

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let peripherals = embassy_stm32::init(chip::clocks());
    let boot = shelf::boot(chip::reset_cause());
    let mut wired =
        wiring::wire(peripherals, NODE.link, |port| NODE.sensor_at(port).map(|(_, sensor)| sensor));
    // From here on a start that hangs ends in a reset.
    wired.guard.0.unleash();
    let (shell, store) = shelf::shell(boot, wired.settings, &mut wired.random);
    match wired.link {
        Link::Ethernet(device) => shelf::ethernet(spawner, (shell, store), device, wired.random),
        Link::Serial(port) => shelf::serial_line(spawner, (shell, store), port),
    }
    shelf::sensor(spawner, shell, "spi1", wired.spi1);
    shelf::sensor(spawner, shell, "spi3", wired.spi3);
    shelf::watch(spawner, shell, wired.led, wired.guard);
}
