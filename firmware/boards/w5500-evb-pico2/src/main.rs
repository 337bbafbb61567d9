//! Spindle's sensor node on WIZnet's W5500-EVB-Pico2. Pins are in `wiring`, the chip's own matters in `chip`; what the node does
//! is in `spindle-firmware`, and who it is in `hardware-configs/nodes/NAME.toml`, chosen by `SPINDLE_NODE`.
#![no_std]
#![no_main]

mod adc;
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
use spindle_common::id::StreamId;
use spindle_firmware::app::Shell;
use spindle_firmware::clock::BoardTime;
use spindle_firmware::config::{self, LinkConfig, NodeConfig};
use spindle_firmware::settings::FlashStore;
use wiring::{EthernetRunner, Link, Network};

/// Who this board is.
const NODE: &NodeConfig = config::node(env!("SPINDLE_NODE"));

/// The ports of this board, by their names in its file.
const PORTS: [&str; 2] = ["spi1", "adc"];

const _: () = {
    assert!(NODE.is_for("w5500-evb-pico2"), "the node's file names another board");
    assert!(NODE.is_wired(&PORTS), "each sensor of the node needs a port of its own: spi1 or adc");
    if let Some(sensor) = NODE.analog() {
        assert!(adc::can(sensor), "the converter cannot have this rate exactly, or so many channels");
    }
    if let LinkConfig::Serial { baud } = NODE.link {
        assert!(wiring::is_baud(baud), "UART0 does 1,000 to 3,000,000 baud");
    }
};

/// Memory for blocks that wait for the gateway: 1.7 s of an IIS3DWB in raw form, or 1.5 s beside TLS.
const RING_LEN: usize = match NODE.link {
    LinkConfig::Ethernet { tls: true, .. } => 240 * 1024,
    _ => 272 * 1024,
};

type BoardShell = Shell<256>;
type BoardStore = FlashStore<wiring::SettingsFlash>;

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let peripherals = embassy_rp::init(embassy_rp::config::Config::default());
    let boot = shelf::boot(chip::reset_cause());
    let mut wired =
        wiring::wire(peripherals, NODE.link, |port| NODE.sensor_at(port).map(|(_, sensor)| sensor));
    // From here on a start that hangs ends in a reset.
    wired.guard.start();
    let (shell, store) = shelf::shell(boot, wired.settings, &mut wired.random);
    match wired.link {
        Link::Ethernet(w5500) => {
            let Some((device, runner)) = w5500.start().await else {
                give_up(format_args!("the W5500 does not answer"));
            };
            link::start(spawner, move_frames(runner));
            shelf::ethernet(spawner, (shell, store), device, wired.random);
        }
        Link::Serial(port) => shelf::serial_line(spawner, (shell, store), port),
    }
    shelf::sensor(spawner, shell, "spi1", wired.spi1);
    // Decided when it is built, so that a node without an analog sensor has no memory for one.
    if const { NODE.analog().is_some() }
        && let (Some((stream, _)), Some(converter)) = (NODE.sensor_at("adc"), wired.adc)
    {
        link::start(spawner, sample_analog(shell, stream, converter));
    }
    shelf::watch(spawner, shell, wired.led, wired.guard);
}

#[embassy_executor::task]
async fn move_frames(runner: EthernetRunner) {
    runner.run().await;
}

#[embassy_executor::task]
async fn sample_analog(shell: &'static BoardShell, stream: StreamId, converter: adc::Stream) {
    const PLANAR: usize = if NODE.analog().is_some() { shelf::PLANAR } else { 0 };
    let sampled = shell.sample_analog::<PLANAR, { adc::PIECE }, _>(stream, converter, &BoardTime, 0).await;
    shelf::sampled_out(shell, stream, sampled).await
}
