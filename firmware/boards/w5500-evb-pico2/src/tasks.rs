//! The tasks: each only calls the shell.

use crate::wiring::{EthernetRunner, Link, Port, Wired};
use crate::{BoardShell, BoardStore, NODE};
use core::sync::atomic::{AtomicU32, Ordering};
use embassy_executor::{SpawnError, SpawnToken, Spawner};
use embassy_futures::select::{Either, select};
use embassy_net::{Runner, Stack, StackResources};
use embassy_net_wiznet::Device;
use embassy_rp::clocks::RoscRng;
use embassy_rp::gpio::Output;
use embassy_rp::uart::BufferedUart;
use embassy_rp::watchdog;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_time::{Duration, Timer};
use spindle_common::id::StreamId;
use spindle_firmware::app::{self, MqttBuffers, SerialBuffers, WATCHDOG_TIMEOUT_MS, Watchdog, sensor_task};
use spindle_firmware::clock::{BoardTime, NewestPair};
use spindle_firmware::config::{self, LinkConfig};
use spindle_firmware::light;
use spindle_firmware::transport::line::Line;
use spindle_firmware::transport::tcp::{TcpBuffers, TcpDial, stack_config};
use spindle_firmware::transport::udp::UdpBuffers;
use spindle_firmware::uplink::session::Exit;
use static_cell::{ConstStaticCell, StaticCell};

/// Bytes on their way to the broker: 16 MB/s at a round trip of a millisecond.
const TCP_TX: usize = 16 * 1024;

/// The largest message of this node.
const MESSAGE: usize = app::message_len_max(NODE);

/// Samples of one block, all channels together.
const PLANAR: usize = NODE.planar_len_max();

/// The newest pair of the time server, where the node has one.
static NEWEST: NewestPair<CriticalSectionRawMutex> = NewestPair::new();

/// Errors of the serial line.
static LINE_ERRORS: AtomicU32 = AtomicU32::new(0);

/// Spawns what the node needs.
pub async fn spawn(
    spawner: Spawner,
    shell: &'static BoardShell,
    store: &'static mut BoardStore,
    wired: Wired,
) {
    match wired.link {
        Link::Ethernet(chip) => {
            let Some((device, runner)) = chip.start().await else {
                give_up(format_args!("the W5500 does not answer"));
            };
            start(spawner, ethernet(runner));
            static RESOURCES: StaticCell<StackResources<4>> = StaticCell::new();
            let resources = RESOURCES.init(StackResources::new());
            let LinkConfig::Ethernet { address, router, .. } = NODE.link else { return };
            let Some(config) = stack_config(address, router) else {
                give_up(format_args!("the node's address or router is not one: {address:?} {router:?}"));
            };
            let (stack, runner) = embassy_net::new(device, config, resources, RoscRng.next_u64());
            start(spawner, network(runner));
            if shell.time_server().is_some() {
                start(spawner, ask_time(shell, stack));
            }
            start(spawner, mqtt(shell, store, stack));
        }
        Link::Serial(port) => start(spawner, serial(shell, store, port)),
    }
    if let (Some((stream, _)), Some(port)) = (NODE.sensor_at("spi1"), wired.spi1) {
        start(spawner, sample(shell, stream, port));
    }
    start(spawner, show(shell, wired.led));
    start(spawner, supervise(shell, Guard(wired.watchdog)));
}

/// Each task is spawned once and has a place, or as many times as it has places.
fn start<S>(spawner: Spawner, token: Result<SpawnToken<S>, SpawnError>) {
    match token {
        Ok(token) => spawner.spawn(token),
        Err(error) => give_up(format_args!("a task has no place: {error:?}")),
    }
}

/// What cannot be is told by the next start.
pub fn give_up(why: core::fmt::Arguments<'_>) -> ! {
    crate::RETAINED.note_panic_text(why);
    crate::reset()
}

#[embassy_executor::task]
async fn ethernet(runner: EthernetRunner) {
    runner.run().await;
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Device<'static>>) {
    runner.run().await;
}

#[embassy_executor::task]
async fn ask_time(shell: &'static BoardShell, stack: Stack<'static>) {
    static BUFFERS: StaticCell<UdpBuffers> = StaticCell::new();
    shell.ask_time_server(stack, BUFFERS.init(UdpBuffers::new()), &BoardTime, &NEWEST).await;
}

#[embassy_executor::task]
async fn mqtt(shell: &'static BoardShell, store: &'static mut BoardStore, stack: Stack<'static>) {
    const TX: usize = app::mqtt_tx_len(MESSAGE);
    static BUFFERS: ConstStaticCell<MqttBuffers<MESSAGE, TX>> = ConstStaticCell::new(MqttBuffers::new());
    static TCP: ConstStaticCell<TcpBuffers<TCP_TX>> = ConstStaticCell::new(TcpBuffers::new());
    // The task is only spawned for a node whose link is Ethernet.
    let Some(broker) = shell.broker() else { return };
    let dial = TcpDial::new(stack, broker, TCP.take());
    let mut utc = shell.utc(&NEWEST);
    match shell.uplink_mqtt(dial, BUFFERS.take(), config::LOGIN, &BoardTime, &mut utc, store).await {
        Ok(exit) => left(shell, exit),
        Err(error) => give_up(format_args!("{error}")),
    }
}

#[embassy_executor::task]
async fn serial(shell: &'static BoardShell, store: &'static mut BoardStore, port: BufferedUart) {
    const FRAME: usize = app::serial_frame_len(MESSAGE);
    static BUFFERS: ConstStaticCell<SerialBuffers<MESSAGE, FRAME>> =
        ConstStaticCell::new(SerialBuffers::new());
    let mut utc = shell.utc(&NEWEST);
    let line = Line::new(port, &LINE_ERRORS);
    let uplink = shell.uplink_serial(line, BUFFERS.take(), &BoardTime, &mut utc, store);
    if let Either::First(exit) = select(uplink, count_line_errors(shell)).await {
        left(shell, exit);
    }
}

/// Tells the node what the line has lost.
async fn count_line_errors(shell: &BoardShell) {
    let mut told = 0;
    loop {
        let lost = LINE_ERRORS.load(Ordering::Relaxed);
        shell.node.count_line_errors(lost.wrapping_sub(told));
        told = lost;
        Timer::after_secs(1).await;
    }
}

/// The uplink has ended. A board has nobody to leave for, so both ways lead to a fresh start.
fn left(shell: &BoardShell, _exit: Exit) -> ! {
    shell.restarting();
    crate::reset()
}

#[embassy_executor::task(pool_size = NODE.sensors.len())]
async fn sample(shell: &'static BoardShell, stream: StreamId, port: Port) {
    let sampled = shell.sample_port::<PLANAR, _, _>(stream, (port.bus, port.int1), &BoardTime, 0).await;
    if let Err(error) = sampled {
        #[cfg(feature = "defmt")]
        defmt::error!("{}", defmt::Display2Format(&error));
        #[cfg(not(feature = "defmt"))]
        let _ = error;
    }
    // A sensor that the firmware cannot drive, or that was halted, stays silent, and its counters tell so; the others go on.
    loop {
        shell.check_in(sensor_task(stream));
        Timer::after_secs(1).await;
    }
}

#[embassy_executor::task]
async fn show(shell: &'static BoardShell, mut led: Output<'static>) {
    light::show(&shell.node, &mut led).await;
}

#[embassy_executor::task]
async fn supervise(shell: &'static BoardShell, mut guard: Guard) {
    shell.supervise(&mut guard).await;
}

/// The chip's watchdog.
struct Guard(watchdog::Watchdog);

impl Watchdog for Guard {
    fn feed(&mut self) {
        self.0.feed(Duration::from_millis(WATCHDOG_TIMEOUT_MS.into()));
    }
}
