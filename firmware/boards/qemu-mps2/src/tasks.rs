//! The tasks: each only calls the shell, and does what a test asked for.

use crate::host::{self, Arguments, Link};
use crate::lan9118::Lan9118;
use crate::link::{self, start};
use crate::load::{self, Modelled};
use crate::models::Feed;
use crate::uart::{Line, Uart};
use crate::watchdog::Cmsdk;
use crate::{BoardShell, BoardStore, NODE, give_up, stack, time};
use core::sync::atomic::{AtomicUsize, Ordering};
use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_net::Stack;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer};
use spindle_common::id::StreamId;
use spindle_common::wire::block::flags;
use spindle_firmware::clock::BoardTime;
#[cfg(feature = "tls")]
use spindle_firmware::config;
use spindle_firmware::sensor::{adxl345, adxl355, iis3dwb};
use spindle_firmware::uplink::session::Exit;

/// When a test's fault comes, s.
const FAULT_AFTER_S: u64 = 3;

/// Samples of one block, all channels together.
const PLANAR: usize = NODE.planar_len_max();

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
                give_up(format_args!("no LAN9118 answers; is this an mps2-an386?"));
            };
            let stack = link::network(spawner, shell, chip, shell.node.facts.boot.0);
            let Some(broker) = arguments.broker.or(shell.broker()) else {
                give_up(format_args!("the node has no broker; give broker=ADDRESS:PORT"));
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

#[embassy_executor::task]
async fn mqtt(
    shell: &'static BoardShell,
    store: &'static mut BoardStore,
    arguments: Arguments,
    stack: Stack<'static>,
    broker: &'static str,
) {
    let uplink = link::mqtt(shell, store, link::tcp(stack, broker));
    left(shell, or_fault(shell, &arguments, "uplink", uplink).await)
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
    let dial = link::tls(link::tcp(stack, broker), broker, files, host::fill_random);
    let uplink = link::mqtt(shell, store, dial);
    left(shell, or_fault(shell, &arguments, "uplink", uplink).await)
}

#[embassy_executor::task]
async fn serial(shell: &'static BoardShell, store: &'static mut BoardStore, arguments: Arguments) {
    let uplink = link::serial(shell, store, Line(Uart::start()));
    let uplink = select(uplink, shell.count_line_errors(Uart::dropped));
    let Either::First(exit) = or_fault(shell, &arguments, "uplink", uplink).await;
    left(shell, exit)
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
                give_up(format_args!("{error}"));
            }
        }};
    }
    match sensor.model {
        "iis3dwb" => run!(iis3dwb),
        "adxl355" => run!(adxl355),
        "adxl345" => run!(adxl345),
        model => give_up(format_args!("sensor {}: this board has no model of {model}", sensor.name)),
    }
    ENDED.fetch_add(1, Ordering::SeqCst);
    ONE_ENDED.signal(());
    shell.idle(stream).await
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
