//! One virtual board: the core's tasks around modelled sensors and a real socket or serial port.

use super::flash::{HostFlash, open_store};
use super::io::{SerialDial, TcpDial};
use super::sampling::sample;
use super::tap::{Switches, Tap};
use super::timebase::HostTime;
use super::utc::HostUtc;
use super::{HostError, Source, VirtualBoard, VirtualSensor, Way, workers};
use crate::node::{Facts, Held, Limits, Node, axes, boot_id};
use crate::settings::{self, FlashStore};
use crate::transport::mqtt::{Mqtt, Setup, TOPIC_LEN_MAX};
use crate::transport::serial::Serial;
use crate::uplink::session::{Exit, Session};
use crate::uplink::{self, Uplink};
use core::cell::Cell;
use core::pin::Pin;
use core::task::Poll;
use embassy_futures::join::join3;
use embassy_futures::select::{Either3, select3};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::{Duration, Timer};
use parking_lot::Mutex;
use spindle_common::id::{BootId, StreamId};
use spindle_common::settings::{BURST_SAMPLES_MAX, Settings};
use spindle_common::wire::messages::ResetCause;
use spindle_common::wire::{
    Lifetime, MESSAGE_LEN_MAX, Offline, StepStatus, StreamInfo, StreamStatus, TRIGGER_LEN_MAX, block_len_max,
    frame,
};
use std::boxed::Box;
use std::rc::Rc;
use std::string::String;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::vec::Vec;

/// Most blocks in a virtual board's ring.
const RING_BLOCKS: usize = 1024;

/// Samples per channel in the longest block that settings may ask of a virtual board, unless it has longer ones built in.
const BLOCK_SAMPLES_USUAL: u16 = 2048;

/// What a virtual board's Ethernet carries.
const ETHERNET_BITS_PER_S: u32 = 100_000_000;

pub(super) type HostNode<'a> = Node<'a, NoopRawMutex, Box<[u8]>, RING_BLOCKS>;

/// How long a board may take for its goodbye.
const LEAVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// How often the counters are copied out.
const COUNTERS_EVERY: Duration = Duration::from_millis(50);

/// What a board is told from outside: run; end the sensors; say goodbye; end at once. Each includes those before it.
const RUN: u8 = 0;
pub(super) const STOP: u8 = 1;
const LEAVE: u8 = 2;
const KILL: u8 = 3;

/// Counters of a running board, copied out twenty times a second and at its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    /// Per stream.
    pub streams: Vec<StreamStatus>,
    /// Per stream: how it reports, and what it withheld for that.
    pub steps: Vec<StepStatus>,
    /// The uplink's.
    pub uplink: uplink::Counters,
    /// Blocks that the full ring dropped.
    pub dropped: u32,
    /// Blocks sealed since boot.
    pub sealed: u32,
    /// Blocks that the gateway has acknowledged.
    pub acked: u32,
    /// Samples per channel in them, all streams together.
    pub samples_acked: u64,
    /// Whether the link is up.
    pub connected: bool,
    /// Every sensor has ended and every sample of it is in a block.
    pub sampled_out: bool,
}

impl Counters {
    /// Whether everything sealed was acknowledged, or dropped and counted, and nothing more will be sealed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.sampled_out && self.acked.wrapping_add(self.dropped) == self.sealed
    }
}

/// How a board ended.
#[derive(Debug, Clone)]
pub struct Drained {
    /// The last counters.
    pub counters: Counters,
    /// Whether the gateway acknowledged every block that the ring did not drop.
    pub complete: bool,
}

pub(super) struct Shared {
    order: tokio::sync::watch::Sender<u8>,
    counters: Mutex<Counters>,
    switches: Arc<Switches>,
    ended: tokio::sync::watch::Sender<bool>,
}

/// A virtual board that runs. Dropping it ends it at once, as pulling its plug would.
pub struct Board {
    node: String,
    boot: BootId,
    taps: Vec<Arc<Tap>>,
    shared: Arc<Shared>,
}

impl VirtualBoard {
    /// Starts the board on one of this module's threads.
    ///
    /// # Errors
    /// When its facts cannot be a node's.
    pub fn start(self) -> Result<Board, HostError> {
        self.check()?;
        let boot = self.boot.map_or_else(draw_boot, BootId);
        let taps: Vec<_> = self.sensors.iter().map(|_| Tap::new(self.tap)).collect();
        let shared = Arc::new(Shared {
            order: tokio::sync::watch::Sender::new(RUN),
            counters: Mutex::default(),
            switches: Arc::new(Switches::default()),
            ended: tokio::sync::watch::Sender::new(false),
        });
        let board = Board { node: self.node.clone(), boot, taps: taps.clone(), shared: shared.clone() };
        workers::spawn(Box::new(move || Box::pin(run(self, boot, taps, shared))))?;
        Ok(board)
    }
}

impl Board {
    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// This run's boot id.
    #[must_use]
    pub const fn boot(&self) -> BootId {
        self.boot
    }

    /// What sensor number `stream` has produced.
    #[must_use]
    pub fn tap(&self, stream: usize) -> Option<&Arc<Tap>> {
        self.taps.get(stream)
    }

    /// Samples per channel that all sensors have produced together.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.taps.iter().map(|tap| tap.produced()).sum()
    }

    /// Counters, at most a tenth of a second old.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counters.lock().clone()
    }

    /// Cuts the link (true) or mends it: an open connection breaks without a goodbye, none can be made.
    pub fn cut_link(&self, cut: bool) {
        self.shared.switches.cut.store(cut, Ordering::Relaxed);
    }

    /// Asks the sensors to end. The board goes on sending; see [`Board::drain`].
    pub fn stop(&self) {
        self.shared.tell(STOP);
    }

    /// Ends the sensors and waits until every block is acknowledged, or until the timeout; then disconnects in order.
    pub async fn drain(self, timeout: std::time::Duration) -> Drained {
        self.stop();
        // What is left undone after a timeout shows in the counters.
        let _ = within(timeout, self.wait_complete()).await;
        self.shared.tell(LEAVE);
        let mut ended = self.shared.ended.subscribe();
        let _ = within(LEAVE_TIMEOUT, ended.wait_for(|ended| *ended)).await;
        let counters = self.counters();
        Drained { complete: counters.is_complete(), counters }
    }

    /// Waits until the sensors have ended by themselves (see `stop_after`) and every block is acknowledged.
    pub async fn wait_complete(&self) {
        while !self.counters().is_complete() {
            Timer::after(Duration::from_millis(20)).await;
        }
    }

    /// [`Board::drain`] for callers without an async runtime.
    pub fn drain_blocking(self, timeout: std::time::Duration) -> Drained {
        embassy_futures::block_on(self.drain(timeout))
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.shared.tell(KILL);
    }
}

/// Embassy's timer works under any runtime, tokio's only under its own.
async fn within<F: Future>(timeout: std::time::Duration, future: F) -> Option<F::Output> {
    let timeout =
        Duration::from_micros(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4));
    embassy_time::with_timeout(timeout, future).await.ok()
}

fn draw_boot() -> BootId {
    use std::hash::{BuildHasher, RandomState};
    boot_id(RandomState::new().hash_one(std::process::id()), 0)
}

fn stream_info(index: usize, sensor: &VirtualSensor) -> StreamInfo<'_> {
    let stream = StreamId(u8::try_from(index).unwrap_or(u8::MAX));
    let (block_samples, encoding) = (sensor.block_samples, sensor.encoding);
    match &sensor.source {
        Source::Spindle(_) | Source::Frames { .. } => StreamInfo {
            stream,
            sensor: &sensor.name,
            model: sensor.chip.model(),
            axes: "xyz",
            rate_nominal_mhz: sensor.chip.rate_nominal_mhz(),
            scale: sensor.chip.scale(),
            bits: sensor.chip.bits(),
            block_samples,
            encoding,
        },
        Source::Playback(playback) => StreamInfo {
            stream,
            sensor: &sensor.name,
            model: playback.model(),
            axes: playback.axes(),
            rate_nominal_mhz: playback.rate_mhz(),
            scale: playback.scale(),
            bits: playback.bits(),
            block_samples,
            encoding,
        },
    }
}

async fn run(spec: VirtualBoard, mut boot: BootId, taps: Vec<Arc<Tap>>, shared: Arc<Shared>) {
    let Ok(mut store) = open_store(&spec) else { return };
    while run_once(&spec, boot, &taps, &shared, &mut store).await == Exit::Reboot {
        boot = draw_boot();
    }
    shared.ended.send_replace(true);
}

async fn run_once(
    spec: &VirtualBoard,
    boot: BootId,
    taps: &[Arc<Tap>],
    shared: &Shared,
    store: &mut FlashStore<HostFlash>,
) -> Exit {
    let streams = spec.sensors.iter().enumerate().map(|(index, sensor)| stream_info(index, sensor)).collect();
    let streams: heapless::Vec<_, _> = streams;
    let link_bits_per_s = match &spec.way {
        Some(Way::Serial { baud, .. }) => *baud,
        _ => ETHERNET_BITS_PER_S,
    };
    let facts = Facts {
        site: &spec.site,
        machine: &spec.machine,
        node: &spec.node,
        board: &spec.board,
        firmware: env!("CARGO_PKG_VERSION"),
        boot,
        reset_cause: ResetCause::PowerOn,
        last_panic: "",
        lifetime: Some(Lifetime { boots: 1, ..Lifetime::default() }),
        limits: Limits {
            link_bits_per_s,
            block_samples_max: block_samples_max(spec),
            burst_samples_max: BURST_SAMPLES_MAX,
            message_len_max: message_len_max(spec, &streams),
        },
        streams,
    };
    let built_in = spec.settings.clone().unwrap_or_else(|| Settings::built_in(&facts.streams));
    let message_len = usize::try_from(facts.limits.message_len_max).unwrap_or(MESSAGE_LEN_MAX);
    let (settings, unusable) =
        settings::at_start(store, &facts, spec.ring_bytes.min(message_len), built_in).await;
    let node: HostNode<'_> = Node::new(facts, settings, std::vec![0; spec.ring_bytes].into_boxed_slice());
    node.note_unusable(unusable);
    let newest = Rc::new(Cell::new(0));
    let sampled_out = Cell::new(false);
    let sampling = async {
        let tasks = spec.sensors.iter().zip(taps).enumerate().map(|(index, (sensor, tap))| {
            let stream = StreamId(u8::try_from(index).unwrap_or(u8::MAX));
            let time = HostTime::new(spec.speed, newest.clone());
            Box::pin(sample(sensor, stream, &node, time, tap.clone(), shared))
                as Pin<Box<dyn Future<Output = ()> + '_>>
        });
        join_all(tasks.collect()).await;
        sampled_out.set(true);
        core::future::pending::<()>().await;
    };
    let watching = async {
        loop {
            copy_counters(&node, sampled_out.get(), shared);
            Timer::after(COUNTERS_EVERY).await;
        }
    };
    let leaving = async {
        shared.until(LEAVE).await;
        node.leave();
        core::future::pending::<()>().await;
    };
    let background = join3(sampling, watching, leaving);
    let time = HostTime::new(spec.speed, newest.clone());
    let ended = select3(background, uplink_task(spec, &node, &time, shared, store), shared.until(KILL)).await;
    copy_counters(&node, sampled_out.get(), shared);
    match ended {
        Either3::Second(exit) => exit,
        Either3::First(_) | Either3::Third(()) => Exit::Left,
    }
}

impl Shared {
    /// Orders only grow stronger.
    fn tell(&self, order: u8) {
        self.order.send_if_modified(|now| {
            let stronger = order > *now;
            *now = order.max(*now);
            stronger
        });
    }

    pub(super) async fn until(&self, order: u8) {
        // Fails only when the sender is gone, and the sender is in `self`.
        let _ = self.order.subscribe().wait_for(|now| *now >= order).await;
    }
}

fn copy_counters(node: &HostNode<'_>, sampled_out: bool, shared: &Shared) {
    let Held { oldest, next } = node.held();
    let (uplink, connected) = node.uplink_counters();
    let dropped = node.dropped();
    let streams =
        (0..node.facts.streams.len()).filter_map(|index| node.counters(StreamId(u8::try_from(index).ok()?)));
    let steps =
        (0..node.facts.streams.len()).filter_map(|index| node.step(StreamId(u8::try_from(index).ok()?)));
    *shared.counters.lock() = Counters {
        streams: streams.collect(),
        steps: steps.collect(),
        uplink,
        dropped,
        sealed: next.0,
        acked: oldest.0.wrapping_sub(dropped),
        samples_acked: node.acknowledged(),
        connected,
        sampled_out,
    };
}

async fn join_all(mut tasks: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    core::future::poll_fn(|context| {
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        if tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn block_samples_max(spec: &VirtualBoard) -> u16 {
    spec.sensors.iter().map(|sensor| sensor.block_samples).fold(BLOCK_SAMPLES_USUAL, u16::max)
}

fn message_len_max(spec: &VirtualBoard, streams: &[StreamInfo<'_>]) -> u32 {
    let samples = usize::from(block_samples_max(spec).max(BURST_SAMPLES_MAX));
    let len =
        |info: &StreamInfo<'_>| block_len_max(axes(info).into(), samples, info.encoding) + TRIGGER_LEN_MAX;
    let longest = streams.iter().map(len).max().unwrap_or(MESSAGE_LEN_MAX).min(MESSAGE_LEN_MAX);
    u32::try_from(longest).unwrap_or(u32::MAX)
}

async fn uplink_task(
    spec: &VirtualBoard,
    node: &HostNode<'_>,
    time: &HostTime,
    shared: &Shared,
    store: &mut FlashStore<HostFlash>,
) -> Exit {
    let message_len = usize::try_from(node.facts.limits.message_len_max).unwrap_or(MESSAGE_LEN_MAX);
    let mut scratch = std::vec![0; message_len];
    let config = uplink::Config { window: spec.window, ..uplink::Config::default() };
    let mut uplink = Uplink::new(config, node.facts.boot);
    let mut utc = HostUtc::new(spec, node.facts.boot, time);
    let mut session = Session { node, time, scratch: &mut scratch, supervisor: None };
    match &spec.way {
        Some(Way::Mqtt { address, login }) => {
            let dial = TcpDial { address: address.clone(), switches: shared.switches.clone() };
            let (mut rx, mut offline) = ([0; 1024], [0; 128]);
            let mut tx = std::vec![0; 8 * (message_len + TOPIC_LEN_MAX + 16) + 512];
            let will = Offline { node: node.facts.node, boot: node.facts.boot };
            let will_len = will.encode(&mut offline).unwrap_or(0);
            let login = login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
            let setup = Setup { rx: &mut rx, tx: &mut tx, offline: &offline[..will_len], login };
            match Mqtt::new(dial, &node.facts, setup, message_len) {
                Ok(mut mqtt) => session.run(&mut uplink, &mut mqtt, &mut utc, store).await,
                // Names and sizes were checked before; a credential that is too long can still be refused.
                Err(_) => core::future::pending().await,
            }
        }
        Some(Way::Serial { device, baud }) => {
            let dial = SerialDial { device: device.clone(), baud: *baud, switches: shared.switches.clone() };
            let mut frame = std::vec![0; frame::len_max(message_len)];
            let mut serial = Serial::new(dial, &mut frame);
            session.run(&mut uplink, &mut serial, &mut utc, store).await
        }
        None => Exit::Left,
    }
}
