//! The tasks: each only calls the shell, and does what a test asked for.

use crate::host::{self, Arguments, Link};
use crate::lan9118::Lan9118;
use crate::load::{self, Modelled};
use crate::models::Feed;
use crate::uart::{Line, Uart};
use crate::watchdog::Cmsdk;
use crate::{BoardShell, BoardStore, MESSAGE, NODE, stack, time};
use core::sync::atomic::{AtomicUsize, Ordering};
use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_net::{Runner, Stack, StackResources};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer};
use spindle_common::id::StreamId;
use spindle_common::wire::block::flags;
use spindle_firmware::app::{self, MqttBuffers, SerialBuffers, sensor_task};
use spindle_firmware::clock::{BoardTime, NewestPair};
use spindle_firmware::config::{self, LinkConfig};
use spindle_firmware::sensor::{adxl345, adxl355, iis3dwb};
use spindle_firmware::transport::Dial;
use spindle_firmware::transport::tcp::{TcpBuffers, TcpDial, stack_config};
use spindle_firmware::transport::udp::UdpBuffers;
use spindle_firmware::uplink::session::Exit;
use static_cell::{ConstStaticCell, StaticCell};

/// Bytes on their way to the broker.
const TCP_TX: usize = 16 * 1024;

/// When a test's fault comes, s.
const FAULT_AFTER_S: u64 = 3;

/// Samples of one block, all channels together.
const PLANAR: usize = NODE.planar_len_max();

/// The newest pair of the time server, where the node has one.
static NEWEST: NewestPair<CriticalSectionRawMutex> = NewestPair::new();

/// Sensors whose model has ended, and the signal that this changed.
static ENDED: AtomicUsize = AtomicUsize::new(0);
static ONE_ENDED: Signal<CriticalSectionRawMutex, ()> = Signal::new();

/// Spawns what the node needs.
pub fn spawn(
    spawner: Spawner,
    shell: &'static BoardShell,
    store: &'static mut BoardStore,
    arguments: Arguments,
    link: Link,
) {
    match link {
        Link::Ethernet => {
            let Some(chip) = Lan9118::start() else {
                host::print(format_args!("no LAN9118 answers; is this an mps2-an386?"));
                host::exit(2);
            };
            static RESOURCES: StaticCell<StackResources<4>> = StaticCell::new();
            let (address, router) = match NODE.link {
                LinkConfig::Ethernet { address, router, .. } => (address, router),
                LinkConfig::Serial { .. } => (None, None),
            };
            let Some(config) = stack_config(address, router) else {
                host::print(format_args!("the node's address or router is not one: {address:?} {router:?}"));
                host::exit(2);
            };
            let seed = shell.node.facts.boot.0;
            let (stack, runner) = embassy_net::new(chip, config, RESOURCES.init(StackResources::new()), seed);
            start(spawner, net(runner));
            if shell.time_server().is_some() {
                start(spawner, ask_time(shell, stack));
            }
            let Some(broker) = arguments.broker.or(shell.broker()) else {
                host::print(format_args!("the node has no broker; give broker=ADDRESS:PORT"));
                host::exit(2);
            };
            // A task of its own, so that an image has memory for the one that its node needs.
            #[cfg(feature = "tls")]
            match config::TLS {
                Some(files) => start(spawner, mqtt_tls(shell, store, arguments, stack, broker, files)),
                None => start(spawner, mqtt(shell, store, arguments, stack, broker)),
            }
            #[cfg(not(feature = "tls"))]
            start(spawner, mqtt(shell, store, arguments, stack, broker));
        }
        Link::Serial => start(spawner, serial(shell, store, arguments)),
    }
    for index in (0u8..).take(NODE.sensors.len()) {
        start(spawner, sample(shell, arguments, StreamId(index)));
    }
    if arguments.samples.is_some() {
        start(spawner, close(shell));
    }
    if let Some(seconds) = arguments.panic_s.filter(|_| is_first(shell)) {
        start(spawner, panic_after(seconds));
    }
    start(spawner, supervise(shell));
}

/// Each task is spawned once and has a place, or as many times as it has places.
fn start<S>(spawner: Spawner, token: Result<embassy_executor::SpawnToken<S>, embassy_executor::SpawnError>) {
    match token {
        Ok(token) => spawner.spawn(token),
        Err(error) => {
            host::print(format_args!("a task has no place: {error:?}"));
            host::exit(2);
        }
    }
}

#[embassy_executor::task]
async fn net(mut runner: Runner<'static, Lan9118>) {
    runner.run().await;
}

#[embassy_executor::task]
async fn ask_time(shell: &'static BoardShell, stack: Stack<'static>) {
    static BUFFERS: StaticCell<UdpBuffers> = StaticCell::new();
    shell.ask_time_server(stack, BUFFERS.init(UdpBuffers::new()), &BoardTime, &NEWEST).await;
}

#[embassy_executor::task]
async fn mqtt(
    shell: &'static BoardShell,
    store: &'static mut BoardStore,
    arguments: Arguments,
    stack: Stack<'static>,
    broker: &'static str,
) {
    mqtt_by(shell, store, &arguments, tcp(stack, broker)).await;
}

#[cfg(feature = "tls")]
#[embassy_executor::task]
async fn mqtt_tls(
    shell: &'static BoardShell,
    store: &'static mut BoardStore,
    arguments: Arguments,
    stack: Stack<'static>,
    broker: &'static str,
    files: config::TlsFiles,
) {
    mqtt_by(shell, store, &arguments, crate::tls::wrap(tcp(stack, broker), broker, files)).await;
}

fn tcp(stack: Stack<'static>, broker: &'static str) -> TcpDial<'static, TCP_TX> {
    static BUFFERS: ConstStaticCell<TcpBuffers<TCP_TX>> = ConstStaticCell::new(TcpBuffers::new());
    TcpDial::new(stack, broker, BUFFERS.take())
}

async fn mqtt_by(
    shell: &'static BoardShell,
    store: &'static mut BoardStore,
    arguments: &Arguments,
    dial: impl Dial,
) {
    const TX: usize = app::mqtt_tx_len(MESSAGE);
    static BUFFERS: ConstStaticCell<MqttBuffers<MESSAGE, TX>> = ConstStaticCell::new(MqttBuffers::new());
    let mut utc = shell.utc(&NEWEST);
    let uplink = shell.uplink_mqtt(dial, BUFFERS.take(), config::LOGIN, &BoardTime, &mut utc, store);
    match or_fault(shell, arguments, "uplink", uplink).await {
        Ok(exit) => left(shell, exit),
        Err(error) => {
            host::print(format_args!("{error}"));
            host::exit(2);
        }
    }
}

#[embassy_executor::task]
async fn serial(shell: &'static BoardShell, store: &'static mut BoardStore, arguments: Arguments) {
    const FRAME: usize = app::serial_frame_len(MESSAGE);
    static BUFFERS: ConstStaticCell<SerialBuffers<MESSAGE, FRAME>> =
        ConstStaticCell::new(SerialBuffers::new());
    let mut utc = shell.utc(&NEWEST);
    let uplink = shell.uplink_serial(Line(Uart::start()), BUFFERS.take(), &BoardTime, &mut utc, store);
    let uplink = select(uplink, count_line_errors(shell));
    if let Either::First(exit) = or_fault(shell, &arguments, "uplink", uplink).await {
        left(shell, exit);
    }
}

/// The uplink has ended.
fn left(shell: &'static BoardShell, exit: Exit) -> ! {
    if exit == Exit::Reboot {
        shell.restarting();
        crate::reset();
    }
    let (uplink, _) = shell.node.uplink_counters();
    let (mut taken, mut overrun, mut ring) = (0, 0, 0);
    for index in (0u8..).take(NODE.sensors.len()) {
        let Some(counters) = shell.node.counters(StreamId(index)) else { continue };
        taken += counters.taken;
        overrun += counters.lost_overrun;
        ring += counters.lost_ring;
    }
    let steps = time::steps_in_all() - load::STARTING.get();
    let (stack_used, stack_size) = stack::used();
    host::print(format_args!(
        "end taken={taken} acknowledged={} lost_overrun={overrun} lost_ring={ring} sent={} resent={} connects={} \
         serial_dropped={} stack_bytes={stack_used} stack_room={stack_size} steps={steps} asleep={} models={}",
        shell.node.acknowledged(),
        uplink.sent,
        uplink.resent,
        uplink.connects,
        Uart::dropped(),
        load::ASLEEP.get(),
        load::MODELS.get(),
    ));
    host::exit(0)
}

#[embassy_executor::task(pool_size = NODE.sensors.len())]
async fn sample(shell: &'static BoardShell, arguments: Arguments, stream: StreamId) {
    let sensor = &NODE.sensors[usize::from(stream.0)];
    let seed = arguments.seed.wrapping_add(stream.0.into());
    macro_rules! run {
        ($chip:ident) => {{
            let feed = Feed::new(sensor, seed, arguments.samples);
            let mut model = $chip::model::Model::new(feed, BoardTime, 0.0);
            if !arguments.overruns {
                model = model.patient();
            }
            let bus = (Modelled(model.spi()), Modelled(model.int1()));
            let sampling = shell.sample_port::<PLANAR, _, _>(stream, bus, &BoardTime, flags::SYNTHETIC);
            let sampling = or_fault(shell, &arguments, sensor.name, sampling);
            let ending = async {
                load::modelled(model.drained()).await;
                shell.node.halt(stream);
                core::future::pending::<()>().await;
            };
            if let Either::First(Err(error)) = select(sampling, ending).await {
                host::print(format_args!("{error}"));
                host::exit(2);
            }
        }};
    }
    match sensor.model {
        "iis3dwb" => run!(iis3dwb),
        "adxl355" => run!(adxl355),
        "adxl345" => run!(adxl345),
        model => {
            host::print(format_args!("sensor {}: this board has no model of {model}", sensor.name));
            host::exit(2);
        }
    }
    ENDED.fetch_add(1, Ordering::SeqCst);
    ONE_ENDED.signal(());
    loop {
        shell.check_in(sensor_task(stream));
        Timer::after(Duration::from_secs(1)).await;
    }
}

/// Tells the node what the line has lost.
async fn count_line_errors(shell: &BoardShell) {
    let mut told = 0;
    loop {
        let lost = Uart::dropped();
        shell.node.count_line_errors(lost.wrapping_sub(told));
        told = lost;
        Timer::after(Duration::from_secs(1)).await;
    }
}

/// When all models have ended and everything is acknowledged, the node leaves.
#[embassy_executor::task]
async fn close(shell: &'static BoardShell) {
    while ENDED.load(Ordering::SeqCst) < NODE.sensors.len() {
        ONE_ENDED.wait().await;
    }
    shell.node.emptied().await;
    shell.node.leave();
}

#[embassy_executor::task]
async fn supervise(shell: &'static BoardShell) {
    shell.supervise(&mut Cmsdk::start(shell)).await;
}

#[embassy_executor::task]
async fn panic_after(seconds: u64) {
    Timer::after(Duration::from_secs(seconds)).await;
    #[allow(clippy::panic, reason = "a test asked for it")]
    {
        panic!("asked for by panic={seconds}");
    }
}

/// A fault that comes again with each start would let nobody see the start after it.
fn is_first(shell: &BoardShell) -> bool {
    shell.boot.lifetime.boots == 1
}

/// The task's work, unless a test wants this task to hang.
async fn or_fault<F: Future>(shell: &BoardShell, arguments: &Arguments, task: &str, work: F) -> F::Output {
    let hangs = is_first(shell) && arguments.hang == Some(task);
    let spins = is_first(shell) && arguments.spin == Some(task);
    let fault = async {
        if !hangs && !spins {
            core::future::pending::<()>().await;
        }
        Timer::after(Duration::from_secs(FAULT_AFTER_S)).await;
    };
    match select(work, fault).await {
        Either::First(output) => output,
        Either::Second(()) if spins => loop {
            cortex_m::asm::nop();
        },
        Either::Second(()) => core::future::pending().await,
    }
}
