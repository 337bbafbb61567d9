//! Spindle's sensor node on ST's NUCLEO-H563ZI. Pins are in [`wiring`], the chip's own matters in [`chip`]; what the node
//! does is in `spindle-firmware`, and who it is in `hardware-configs/nodes/NAME.toml`, chosen by `SPINDLE_NODE`.
#![no_std]
#![no_main]

mod chip;
mod wiring;

use core::panic::PanicInfo;
use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, exception};
use embassy_executor::Spawner;
use embassy_net::StackResources;
use embassy_stm32::gpio::Output;
use embassy_stm32::peripherals::IWDG;
use embassy_stm32::wdg::IndependentWatchdog;
use spindle_common::id::StreamId;
use spindle_firmware::app::{
    self, MqttBuffers, SerialBuffers, Shell, WATCHDOG_TIMEOUT_MS, Watchdog, block_samples_max, message_len_max,
    mqtt_tx_len, serial_frame_len,
};
use spindle_firmware::clock::{BoardTime, NoUtc};
use spindle_firmware::config::{self, NodeConfig, SensorConfig};
use spindle_firmware::light;
use spindle_firmware::retain::{Boot, Retained};
use spindle_firmware::sensor::iis3dwb::{Config, FullScale, Iis3dwb};
use spindle_firmware::transport::tcp::{TcpBuffers, TcpDial};
use spindle_firmware::uplink::session::Exit;
use static_cell::{ConstStaticCell, StaticCell};
use wiring::{EthernetPort, Link, Port, SerialPort, Wired};

#[cfg(feature = "defmt")]
use defmt_rtt as _;

/// Who this board is.
const NODE: &NodeConfig = config::node(env!("SPINDLE_NODE"));

/// Memory for blocks that wait for the gateway: 2.3 s of an IIS3DWB and an ADXL355 in raw form.
const RING_LEN: usize = 448 * 1024;

/// Blocks in it at most.
const RING_BLOCKS: usize = 256;

/// Bytes that may wait for TCP's acknowledgement: 16 MB/s at a round trip of a millisecond.
const TCP_TX_LEN: usize = 16 * 1024;

/// Sensor ports.
const PORTS: usize = 2;

const MESSAGE_LEN: usize = message_len_max(NODE);
const MQTT_TX_LEN: usize = mqtt_tx_len(MESSAGE_LEN);
const FRAME_LEN: usize = serial_frame_len(MESSAGE_LEN);

type BoardShell = Shell<RING_BLOCKS>;

/// Not cleared at start.
#[unsafe(link_section = ".uninit.retained")]
static RETAINED: Retained = Retained::new();

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let peripherals = embassy_stm32::init(chip::clocks());
    static BOOT: StaticCell<Boot> = StaticCell::new();
    let boot = BOOT.init(RETAINED.boot(chip::reset_cause()));
    let wired = wiring::wire(peripherals, NODE.link, sensor_at);
    let mut watchdog = Guard(wired.watchdog);
    watchdog.0.unleash();
    static RING: ConstStaticCell<[u8; RING_LEN]> = ConstStaticCell::new([0; RING_LEN]);
    static SHELL: StaticCell<BoardShell> = StaticCell::new();
    let shell = SHELL.init(Shell::new(NODE, boot, &RETAINED, wired.random[0], RING.take()));
    for (name, port) in [("spi1", wired.spi1), ("spi3", wired.spi3)] {
        if let (Some(port), Some((stream, sensor))) = (port, stream_at(name)) {
            start(&spawner, sample(shell, stream, sensor, port));
        }
    }
    match wired.link {
        Link::Ethernet(port) => {
            static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
            let sockets = SOCKETS.init(StackResources::new());
            let config = embassy_net::Config::dhcpv4(Default::default());
            let (stack, runner) = embassy_net::new(port, config, sockets, wired.random[1]);
            start(&spawner, network(runner));
            start(&spawner, uplink_mqtt(shell, stack));
        }
        Link::Serial(port) => start(&spawner, uplink_serial(shell, port)),
    }
    start(&spawner, show(shell, wired.led));
    shell.supervise(&mut watchdog).await;
}
