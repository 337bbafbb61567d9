//! The shell that every board's tasks call. A board's `main` has pins, clocks and interrupts; everything else is here.
//!
//! In order: place a [`Retained`] where start-up clears nothing and ask it [`Retained::boot`]; build the [`Shell`] from the
//! node's constant, randomness and a static ring; then one task each for [`Shell::uplink_mqtt`] or
//! [`Shell::uplink_serial`], [`Shell::sample`] per sensor, and [`Shell::supervise`]. When the uplink ends with
//! [`Exit::Reboot`] the board calls [`Shell::restarting`] and resets. Its panic handler calls [`Retained::note_panic`] and
//! resets.

mod supervise;

pub use supervise::{WATCHDOG_TIMEOUT_MS, Watchdog};

use crate::acquire;
use crate::clock::{BoardUtc, Exchange, NewestPair, Timebase, UtcSource};
use crate::config::{LinkConfig, NodeConfig};
use crate::log::log;
use crate::node::{Facts, Limits, Node, WhenFull, boot_id};
use crate::reduce::Memory;
use crate::retain::{Boot, Retained};
use crate::sensor::Sensor;
use crate::sensor::analog::AdcStream;
use crate::sensor::port::{self, PortError};
use crate::settings::{self, Store};
use crate::supervise::{Supervisor, TASKS_MAX, TaskId};
use crate::transport::Dial;
use crate::transport::mqtt::{Mqtt, RX_LEN_MIN, Setup, SetupError, TOPIC_LEN_MAX};
use crate::transport::serial::Serial;
#[cfg(feature = "net")]
use crate::transport::udp::{SNTP_PORT, UdpBuffers, UdpPeer};
use crate::uplink::session::{Exit, Session};
use crate::uplink::{Config, Uplink};
use embassy_sync::blocking_mutex::raw::{NoopRawMutex, RawMutex};
use embassy_time::Timer;
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::SpiDevice;
use spindle_common::id::StreamId;
use spindle_common::wire::{Offline, STREAMS_MAX, TRIGGER_LEN_MAX, block_len_max, frame};

/// A board's node: all of its tasks run on one executor, and its ring is a static array.
pub type BoardNode<const BLOCKS: usize> = Node<'static, NoopRawMutex, &'static mut [u8], BLOCKS>;

/// Room for messages that are not blocks.
const SMALL_MESSAGE_LEN: usize = 1024;

/// Messages that MQTT keeps until the broker has acknowledged them.
const IN_FLIGHT: usize = 8;

/// The uplink's place in the roll call; sensors follow in the order of their streams.
pub const UPLINK: TaskId = TaskId::new(0);

/// A sensor task's place in the roll call.
#[must_use]
pub const fn sensor_task(stream: StreamId) -> TaskId {
    TaskId::new(stream.0.saturating_add(1))
}

/// The largest message of this node, bytes: a burst as long as its buffers hold. For the sizes of static buffers.
#[must_use]
pub const fn message_len_max(config: &NodeConfig) -> usize {
    let mut len_max = SMALL_MESSAGE_LEN;
    let mut index = 0;
    while index < config.sensors.len() {
        let sensor = &config.sensors[index];
        let samples = sensor.block_samples_max() as usize;
        let len = block_len_max(sensor.axes.len(), samples, sensor.encoding) + TRIGGER_LEN_MAX;
        if len > len_max {
            len_max = len;
        }
        index += 1;
    }
    len_max
}

/// Bytes that MQTT needs for unacknowledged messages of up to `message_len_max` bytes.
#[must_use]
pub const fn mqtt_tx_len(message_len_max: usize) -> usize {
    IN_FLIGHT * (message_len_max + TOPIC_LEN_MAX + 16) + 512
}

/// Bytes of one serial frame with a message of up to `message_len_max` bytes.
#[must_use]
pub const fn serial_frame_len(message_len_max: usize) -> usize {
    frame::len_max(message_len_max)
}

/// Memory of an MQTT uplink: `MESSAGE` is [`message_len_max`], `TX` is [`mqtt_tx_len`] of it.
pub struct MqttBuffers<const MESSAGE: usize, const TX: usize> {
    scratch: [u8; MESSAGE],
    rx: [u8; RX_LEN_MIN],
    tx: [u8; TX],
    offline: [u8; 128],
}

impl<const MESSAGE: usize, const TX: usize> MqttBuffers<MESSAGE, TX> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { scratch: [0; MESSAGE], rx: [0; RX_LEN_MIN], tx: [0; TX], offline: [0; 128] }
    }
}

impl<const MESSAGE: usize, const TX: usize> Default for MqttBuffers<MESSAGE, TX> {
    fn default() -> Self {
        Self::new()
    }
}

/// Memory of a serial uplink: `MESSAGE` is [`message_len_max`], `FRAME` is [`serial_frame_len`] of it.
pub struct SerialBuffers<const MESSAGE: usize, const FRAME: usize> {
    scratch: [u8; MESSAGE],
    frame: [u8; FRAME],
}

impl<const MESSAGE: usize, const FRAME: usize> SerialBuffers<MESSAGE, FRAME> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { scratch: [0; MESSAGE], frame: [0; FRAME] }
    }
}

impl<const MESSAGE: usize, const FRAME: usize> Default for SerialBuffers<MESSAGE, FRAME> {
    fn default() -> Self {
        Self::new()
    }
}

/// What the tasks of one board share. Lives in a `static`.
pub struct Shell<const BLOCKS: usize> {
    /// The node.
    pub node: BoardNode<BLOCKS>,
    /// What the start found.
    pub boot: &'static Boot,
    /// The node's file.
    pub config: &'static NodeConfig,
    supervisor: Supervisor,
    retained: &'static Retained,
}

impl<const BLOCKS: usize> Shell<BLOCKS> {
    /// `random` makes the boot id unique together with the kept count of boots; `ring` is the memory for blocks.
    ///
    /// Inlined, so that `StaticCell::init_with` builds it in its place and not on the stack.
    #[must_use]
    #[inline(always)]
    pub fn new(
        config: &'static NodeConfig,
        boot: &'static Boot,
        retained: &'static Retained,
        random: u64,
        store: &mut impl Store,
        ring: &'static mut [u8],
    ) -> Self {
        let facts = Facts {
            site: config.site,
            machine: config.machine,
            node: config.name,
            board: config.board,
            firmware: env!("CARGO_PKG_VERSION"),
            boot: boot_id(random, boot.lifetime.boots.into()),
            reset_cause: boot.cause.0,
            last_panic: &boot.last_panic,
            lifetime: Some(boot.lifetime),
            streams: config.streams(),
            limits: Limits {
                link_bits_per_s: config.link_bits_per_s,
                block_samples_max: config.block_samples_max(),
                burst_samples_max: config.block_samples_max(),
                message_len_max: u32::try_from(message_len_max(config)).unwrap_or(u32::MAX),
            },
        };
        // A start may wait for its flash: nothing else runs yet.
        let start = settings::at_start(store, &facts, message_len_max(config), config.settings());
        let (settings, unusable) = embassy_futures::block_on(start);
        log!(info, "node {}, {}. start since power came on", facts.node, boot.lifetime.boots);
        // At most STREAMS_MAX + 1, far below 32.
        const { assert!(STREAMS_MAX < TASKS_MAX) };
        let tasks = u8::try_from(facts.streams.len() + 1).unwrap_or(u8::MAX);
        let node = Node::new(facts, settings, ring);
        node.note_unusable(unusable);
        Self { node, boot, config, supervisor: Supervisor::new(tasks), retained }
    }

    /// The broker, when the node's link is Ethernet.
    #[must_use]
    pub const fn broker(&self) -> Option<&'static str> {
        match self.config.link {
            LinkConfig::Ethernet { broker, .. } => Some(broker),
            LinkConfig::Serial { .. } => None,
        }
    }

    /// Address of the node's time server, in numbers, when its file names one.
    #[must_use]
    pub const fn time_server(&self) -> Option<&'static str> {
        match self.config.link {
            LinkConfig::Ethernet { sntp, .. } => sntp,
            LinkConfig::Serial { .. } => None,
        }
    }

    /// Where the uplink has its time from: the node's time server, whose task fills `newest`, or the gateway.
    #[must_use]
    pub fn utc<'n, N: RawMutex>(&self, newest: &'n NewestPair<N>) -> BoardUtc<'n, N> {
        match self.time_server() {
            Some(_) => BoardUtc::Server(newest),
            None => BoardUtc::Gateway(Exchange::new(self.node.facts.boot)),
        }
    }

    /// The task that asks the time server, for ever.
    #[cfg(feature = "net")]
    pub async fn ask_time_server<N: RawMutex>(
        &self,
        stack: embassy_net::Stack<'static>,
        buffers: &mut UdpBuffers,
        time: &impl Timebase,
        newest: &NewestPair<N>,
    ) {
        let Some(server) = self.time_server() else { return };
        stack.wait_config_up().await;
        let Ok(Some(mut socket)) = UdpPeer::new(stack, server, SNTP_PORT, buffers) else {
            log!(error, "time server is no address: {}", server);
            return;
        };
        let every_s = self.config.settings().time_every_s;
        crate::clock::sntp::run(&mut socket, time, newest, every_s, self.node.facts.boot.0, || ()).await;
    }

    /// The uplink's task over MQTT. Ends when the gateway asks for a restart or the node was told to leave.
    ///
    /// # Errors
    /// When buffers or credentials cannot work.
    pub async fn uplink_mqtt<D: Dial, const MESSAGE: usize, const TX: usize>(
        &self,
        dial: D,
        buffers: &mut MqttBuffers<MESSAGE, TX>,
        login: Option<(&str, &str)>,
        time: &impl Timebase,
        utc: &mut impl UtcSource,
        store: &mut impl Store,
    ) -> Result<Exit, SetupError> {
        let MqttBuffers { scratch, rx, tx, offline } = buffers;
        let will = Offline { node: self.node.facts.node, boot: self.node.facts.boot };
        // Fits: a name is at most 32 bytes.
        let will_len = will.encode(offline).unwrap_or(0);
        let setup = Setup { rx, tx, offline: offline.get(..will_len).unwrap_or_default(), login };
        let mut mqtt = Mqtt::new(dial, &self.node.facts, setup, MESSAGE)?;
        let mut session =
            Session { node: &self.node, time, scratch, supervisor: Some((&self.supervisor, UPLINK)) };
        let mut uplink = Uplink::new(Config::default(), self.node.facts.boot);
        Ok(session.run(&mut uplink, &mut mqtt, utc, store).await)
    }

    /// The uplink's task over a serial line. Ends as [`Shell::uplink_mqtt`] does.
    pub async fn uplink_serial<D: Dial, const MESSAGE: usize, const FRAME: usize>(
        &self,
        dial: D,
        buffers: &mut SerialBuffers<MESSAGE, FRAME>,
        time: &impl Timebase,
        utc: &mut impl UtcSource,
        store: &mut impl Store,
    ) -> Exit {
        let SerialBuffers { scratch, frame } = buffers;
        let mut serial = Serial::new(dial, frame);
        let mut session =
            Session { node: &self.node, time, scratch, supervisor: Some((&self.supervisor, UPLINK)) };
        let mut uplink = Uplink::new(Config::default(), self.node.facts.boot);
        session.run(&mut uplink, &mut serial, utc, store).await
    }

    /// A sensor's task. Ends when the stream is halted. `flags` go into each block.
    pub async fn sample<S: Sensor>(
        &self,
        stream: StreamId,
        sensor: &mut S,
        time: &impl Timebase,
        memory: Memory<'_, S::Sample>,
        flags: u16,
    ) {
        acquire::run(&self.node, sensor, time, memory, self.options(stream, flags)).await;
    }

    /// [`Shell::sample`] of the chip on this bus and interrupt pin, by the driver that the node's file names. `PLANAR` is
    /// [`NodeConfig::planar_len_max`].
    ///
    /// # Errors
    /// When the firmware cannot drive what is configured.
    pub async fn sample_port<const PLANAR: usize, S: SpiDevice, P: Wait>(
        &self,
        stream: StreamId,
        bus: (S, P),
        time: &impl Timebase,
        flags: u16,
    ) -> Result<(), PortError> {
        let Some(config) = self.config.sensors.get(usize::from(stream.0)) else { return Ok(()) };
        let options = self.options(stream, flags);
        port::run::<PLANAR, _, _, BLOCKS, _, _, _>(&self.node, bus, time, config, options).await
    }

    /// As [`Shell::sample_port`], of the analog sensor on this converter. `BUFFER`: conversions in the largest piece.
    ///
    /// # Errors
    /// When what is configured is no analog sensor.
    pub async fn sample_analog<const PLANAR: usize, const BUFFER: usize, A: AdcStream>(
        &self,
        stream: StreamId,
        adc: A,
        time: &impl Timebase,
        flags: u16,
    ) -> Result<(), PortError> {
        let Some(config) = self.config.sensors.get(usize::from(stream.0)) else { return Ok(()) };
        let options = self.options(stream, flags);
        port::run_analog::<PLANAR, BUFFER, _, _, BLOCKS, _, _>(&self.node, adc, time, config, options).await
    }

    /// The rest of a sensor's task whose work has come to its end: says so now and then, or the watchdog would take it for hung.
    pub async fn idle(&self, stream: StreamId) -> ! {
        loop {
            self.supervisor.check_in(sensor_task(stream));
            Timer::after_secs(1).await;
        }
    }

    /// Tells the node what its serial line has lost, for ever. `lost` counts up and wraps.
    pub async fn count_line_errors(&self, lost: impl Fn() -> u32) -> ! {
        let mut told = 0;
        loop {
            let now = lost();
            self.node.count_line_errors(now.wrapping_sub(told));
            told = now;
            Timer::after_secs(1).await;
        }
    }

    const fn options(&self, stream: StreamId, flags: u16) -> acquire::Options<'_> {
        let supervisor = Some((&self.supervisor, sensor_task(stream)));
        acquire::Options { stream, when_full: WhenFull::DropOldest, flags, supervisor }
    }

    /// For an interrupt that comes shortly before the watchdog bites: keeps the names of the tasks to blame.
    pub fn about_to_be_bitten(&self) {
        self.retained.note_hung(self.supervisor.missing());
    }

    /// The board is about to reset because it was asked to.
    pub fn restarting(&self) {
        self.note_totals();
        self.retained.note_restart();
    }
}
