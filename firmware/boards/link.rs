//! The way to the gateway, the same on every board: included by each board's crate as its module `link`.
//!
//! It takes from the crate's root: `NODE`, `BoardShell`, `BoardStore`; `Network`, the driver of the board's Ethernet; `give_up`, which
//! says why the program cannot go on and ends it; and `tell`, which shows a word to whoever watches the board.

use crate::{BoardShell, BoardStore, NODE, Network, give_up};
#[cfg(feature = "tls")]
use core::fmt::Display;
use embassy_executor::{SpawnError, SpawnToken, Spawner};
use embassy_net::{Runner, Stack, StackResources};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use spindle_firmware::app::{self, MqttBuffers, SerialBuffers};
use spindle_firmware::clock::{BoardTime, NewestPair};
use spindle_firmware::config::{self, LinkConfig};
use spindle_firmware::transport::Dial;
use spindle_firmware::transport::tcp::{TcpBuffers, TcpDial, stack_config};
#[cfg(feature = "tls")]
use spindle_firmware::transport::tls::{TlsBuffers, TlsDial};
use spindle_firmware::transport::udp::UdpBuffers;
use spindle_firmware::uplink::session::Exit;
use static_cell::{ConstStaticCell, StaticCell};

/// The largest message of this node.
const MESSAGE: usize = app::message_len_max(NODE);

/// Bytes on their way to the broker: 16 MB/s at a round trip of a millisecond.
const TCP_TX: usize = 16 * 1024;

/// The newest pair of the time server, where the node has one.
static NEWEST: NewestPair<CriticalSectionRawMutex> = NewestPair::new();

/// Each task is spawned once and has a place, or as many times as it has places.
pub fn start<S>(spawner: Spawner, token: Result<SpawnToken<S>, SpawnError>) {
    match token {
        Ok(token) => spawner.spawn(token),
        Err(error) => give_up(format_args!("a task has no place: {error:?}")),
    }
}

/// Starts the network, with the address that the node's file gives or DHCP's, and what asks the time server. `seed` is random.
pub fn network(spawner: Spawner, shell: &'static BoardShell, device: Network, seed: u64) -> Stack<'static> {
    static RESOURCES: StaticCell<StackResources<4>> = StaticCell::new();
    let (address, router) = match NODE.link {
        LinkConfig::Ethernet { address, router, .. } => (address, router),
        LinkConfig::Serial { .. } => (None, None),
    };
    let Some(config) = stack_config(address, router) else {
        give_up(format_args!("the node's address or router is not one: {address:?} {router:?}"));
    };
    let (stack, runner) = embassy_net::new(device, config, RESOURCES.init(StackResources::new()), seed);
    start(spawner, run_network(runner));
    if shell.time_server().is_some() {
        start(spawner, ask_time(shell, stack));
    }
    stack
}

#[embassy_executor::task]
async fn run_network(mut runner: Runner<'static, Network>) {
    runner.run().await;
}

#[embassy_executor::task]
async fn ask_time(shell: &'static BoardShell, stack: Stack<'static>) {
    static BUFFERS: StaticCell<UdpBuffers> = StaticCell::new();
    shell.ask_time_server(stack, BUFFERS.init(UdpBuffers::new()), &BoardTime, &NEWEST).await;
}

/// TCP to the broker. To be called once.
pub fn tcp(stack: Stack<'static>, broker: &'static str) -> TcpDial<'static, TCP_TX> {
    static BUFFERS: ConstStaticCell<TcpBuffers<TCP_TX>> = ConstStaticCell::new(TcpBuffers::new());
    TcpDial::new(stack, broker, BUFFERS.take())
}

/// TLS over `dial`, and a word when the broker is not reached or not believed. Keys are made of what `fill` gives. To be called
/// once.
#[cfg(feature = "tls")]
pub fn tls<D: Dial<Error: Display>>(
    dial: D,
    broker: &'static str,
    files: config::TlsFiles,
    fill: impl FnMut(&mut [u8]),
) -> impl Dial {
    static BUFFERS: ConstStaticCell<TlsBuffers> = ConstStaticCell::new(TlsBuffers::new());
    Told(TlsDial::new(dial, broker, files, BUFFERS.take(), fill))
}

#[cfg(feature = "tls")]
struct Told<D>(D);

#[cfg(feature = "tls")]
impl<D: Dial<Error: Display>> Dial for Told<D> {
    type Io<'d>
        = D::Io<'d>
    where
        Self: 'd;
    type Error = D::Error;

    async fn dial(&mut self) -> Result<D::Io<'_>, D::Error> {
        let result = self.0.dial().await;
        if let Err(error) = &result {
            crate::tell(format_args!("no link: {error}"));
        }
        result
    }
}

/// The uplink over MQTT, until it ends.
pub async fn mqtt(shell: &'static BoardShell, store: &mut BoardStore, dial: impl Dial) -> Exit {
    const TX: usize = app::mqtt_tx_len(MESSAGE);
    static BUFFERS: ConstStaticCell<MqttBuffers<MESSAGE, TX>> = ConstStaticCell::new(MqttBuffers::new());
    let mut utc = shell.utc(&NEWEST);
    match shell.uplink_mqtt(dial, BUFFERS.take(), config::LOGIN, &BoardTime, &mut utc, store).await {
        Ok(exit) => exit,
        Err(error) => give_up(format_args!("{error}")),
    }
}

/// The uplink over a serial line, until it ends.
pub async fn serial(shell: &'static BoardShell, store: &mut BoardStore, line: impl Dial) -> Exit {
    const FRAME: usize = app::serial_frame_len(MESSAGE);
    static BUFFERS: ConstStaticCell<SerialBuffers<MESSAGE, FRAME>> =
        ConstStaticCell::new(SerialBuffers::new());
    let mut utc = shell.utc(&NEWEST);
    shell.uplink_serial(line, BUFFERS.take(), &BoardTime, &mut utc, store).await
}
