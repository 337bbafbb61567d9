//! A node that plays given samples over MQTT: the board's side of the protocol once more, small, written from the wire
//! format alone and without the firmware, so that the gateway is not only tested against its own relatives.

use crate::wait;
use anyhow::{Context, Result};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::wire::messages::{ResetCause, StreamInfo, TimeSource};
use spindle_common::wire::{
    self, Birth, BlockHeader, Encoding, Message, Samples, Status, StreamStatus, TimePair,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Blocks that may be under way ahead of the gateway's ack.
const WINDOW: u32 = 64;
/// After so long without progress everything unacknowledged is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(1);
const TICK_HZ: u32 = 1_000_000;
/// m/s² per count: a thousandth of standard gravity.
const SCALE: f32 = 0.009_806_65;

/// What a node plays.
#[derive(Debug, Clone)]
pub struct Script {
    /// Its name; site, machine and sensor are `site`, `machine` and the name with `-acc`.
    pub node: String,
    /// This run.
    pub boot: u64,
    /// Samples a second and channel.
    pub rate_hz: u32,
    /// Samples per channel in a block.
    pub block_samples: u16,
    /// Blocks to play.
    pub blocks: u32,
    /// From this block on the samples are a sixteenth as large.
    pub quiet_from: u32,
    /// By how much its clock is ahead of the truth.
    pub clock_ahead_s: i64,
    /// Blocks a second; `None` for as fast as the gateway takes them.
    pub pace_hz: Option<u32>,
}

impl Script {
    /// Three channels of 512 samples a block.
    #[must_use]
    pub fn new(node: &str, blocks: u32) -> Self {
        Self {
            node: node.into(),
            boot: 7,
            rate_hz: 4096,
            block_samples: 512,
            blocks,
            quiet_from: u32::MAX,
            clock_ahead_s: 0,
            pace_hz: None,
        }
    }

    /// The key of its only sensor.
    #[must_use]
    pub fn key(&self) -> String {
        format!("site/machine/{}-acc", self.node)
    }

    /// The samples of block `seq`, planar: white noise of 296 counts RMS, 2.9 m/s².
    #[must_use]
    pub fn samples(&self, seq: u32) -> Vec<i16> {
        let mut state = (u64::from(seq) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.boot;
        let divisor = if seq < self.quiet_from { 64 } else { 1024 };
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 48) as u16).cast_signed() / divisor
        };
        (0..3 * usize::from(self.block_samples)).map(|_| next()).collect()
    }

    /// All samples of channel `axis`, in order.
    #[must_use]
    pub fn channel(&self, axis: usize) -> Vec<i32> {
        let len = usize::from(self.block_samples);
        (0..self.blocks)
            .flat_map(|seq| self.samples(seq)[axis * len..(axis + 1) * len].to_vec())
            .map(i32::from)
            .collect()
    }

    /// Block `seq` on the wire.
    ///
    /// # Errors
    /// When a name is not allowed.
    pub fn block(&self, seq: u32) -> Result<Bytes> {
        let first_sample = u64::from(seq) * u64::from(self.block_samples);
        let header = BlockHeader {
            node: &self.node,
            boot: BootId(self.boot),
            stream: StreamId(0),
            seq: Seq(seq),
            first_sample,
            tick: first_sample * u64::from(TICK_HZ) / u64::from(self.rate_hz),
            tick_hz: TICK_HZ,
            rate_nominal_mhz: self.rate_hz * 1000,
            rate_measured_mhz: self.rate_hz * 1000,
            scale: SCALE,
            bits: 16,
            axes: 3,
            samples: self.block_samples,
            flags: 0,
            encoding: Encoding::Raw16,
            decimation: 1,
        };
        let mut out = vec![0; wire::MESSAGE_LEN_MAX];
        let len = wire::encode_block(&header, Samples::I16(&self.samples(seq)), &mut out)
            .context("encode a block")?;
        Ok(Bytes::copy_from_slice(&out[..len]))
    }

    /// Who it is.
    ///
    /// # Errors
    /// When a name is not allowed.
    pub fn birth(&self) -> Result<Bytes> {
        let sensor = format!("{}-acc", self.node);
        let info = StreamInfo {
            stream: StreamId(0),
            sensor: &sensor,
            model: "scripted",
            axes: "xyz",
            rate_nominal_mhz: self.rate_hz * 1000,
            scale: SCALE,
            bits: 16,
            block_samples: self.block_samples,
            encoding: Encoding::Raw16,
        };
        let birth = Birth {
            node: &self.node,
            boot: BootId(self.boot),
            site: "site",
            machine: "machine",
            board: "scripted",
            firmware: "0",
            tick_hz: TICK_HZ,
            reset_cause: ResetCause::PowerOn,
            last_panic: "",
            settings_version: 0,
            ring_capacity: u16::MAX,
            streams: [info].into_iter().collect(),
            lifetime: None,
        };
        let mut out = vec![0; 1024];
        let len = birth.encode(&mut out).context("encode a birth")?;
        Ok(Bytes::copy_from_slice(&out[..len]))
    }

    /// The node's own account when `sent` blocks are made, none of them lost.
    fn status(&self, sent: u32, acknowledged: u32) -> Result<Bytes> {
        let stream = StreamStatus {
            stream: StreamId(0),
            taken: u64::from(sent) * u64::from(self.block_samples),
            lost_overrun: 0,
            lost_ring: 0,
            bus_errors: 0,
            temperature_centi_c: i16::MIN,
        };
        let status = Status {
            node: &self.node,
            boot: BootId(self.boot),
            tick: u64::from(sent) * u64::from(self.block_samples) * u64::from(TICK_HZ)
                / u64::from(self.rate_hz),
            oldest: Seq(acknowledged),
            next: Seq(sent),
            ring_used: 0,
            dropped: 0,
            resent: 0,
            connects: 1,
            streams: [stream].into_iter().collect(),
            more: None,
        };
        let mut out = vec![0; 512];
        let len = status.encode(&mut out).context("encode a status")?;
        Ok(Bytes::copy_from_slice(&out[..len]))
    }

    fn time(&self, start_utc_ns: i64) -> Result<Bytes> {
        let pair = TimePair {
            node: &self.node,
            boot: BootId(self.boot),
            tick: 0,
            tick_hz: TICK_HZ,
            utc_ns: start_utc_ns,
            error_ns: 1000,
            source: TimeSource::Host,
        };
        let mut out = vec![0; 256];
        let len = pair.encode(&mut out).context("encode a time pair")?;
        Ok(Bytes::copy_from_slice(&out[..len]))
    }
}

/// A playing node; stops when dropped.
#[derive(Debug)]
pub struct Node {
    script: Script,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// First sequence number that the gateway has not acknowledged.
    acknowledged: AtomicU32,
    sent: AtomicU64,
    connects: AtomicU32,
    progress: tokio::sync::Notify,
    ended: AtomicBool,
}

impl Node {
    /// Connects to 127.0.0.1 and plays.
    ///
    /// # Errors
    /// When the runtime cannot be made.
    pub fn start(port: u16, script: Script) -> Result<Self> {
        let state = Arc::new(State::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, playing) = (Arc::clone(&state), script.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let mut options = MqttOptions::new(format!("node-{}", playing.node), "127.0.0.1", port);
                options.set_outgoing_inflight_upper_limit(100).set_max_packet_size(Some(1 << 20));
                // Room for a whole window and the announcements of a reconnect.
                let (client, events) = AsyncClient::new(options, 256);
                let result = tokio::select! {
                    result = play(&playing, &client, &shared) => result,
                    result = drive(&playing, &client, events, &shared) => result,
                };
                if let Err(error) = result {
                    eprintln!("node {}: {error:#}", playing.node);
                }
            });
        });
        Ok(Self { script, state, thread: Some(thread) })
    }

    /// What it plays.
    #[must_use]
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// Blocks that the gateway has acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u32 {
        self.state.acknowledged.load(Ordering::SeqCst)
    }

    /// Blocks sent, those sent again included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// Waits until the gateway has acknowledged the first `blocks`.
    ///
    /// # Errors
    /// When it has not within `patience`.
    pub fn wait_acknowledged(&self, blocks: u32, patience: Duration) -> Result<()> {
        let what = format!("the gateway's ack of {blocks} blocks of {}", self.script.node);
        wait::until(&what, patience, || Ok((self.acknowledged() >= blocks).then_some(()))).with_context(
            || format!("{} blocks are acknowledged, {} were sent", self.acknowledged(), self.sent()),
        )
    }

    /// Waits until everything is acknowledged. The node stays and repeats its account each second.
    ///
    /// # Errors
    /// When it is not within `patience`.
    pub fn finish(&self, patience: Duration) -> Result<Script> {
        self.wait_acknowledged(self.script.blocks, patience)?;
        Ok(self.script.clone())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.state.progress.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends blocks in order, up to the window, and again when nothing moves.
async fn play(script: &Script, client: &AsyncClient, state: &State) -> Result<()> {
    let topic = format!("spindle/v1/{}/raw", script.key());
    let status_topic = format!("spindle/v1/site/machine/{}/status", script.node);
    let (mut next, mut seen, mut connects) = (0, 0, 0);
    let mut moved = tokio::time::Instant::now();
    loop {
        if state.ended.load(Ordering::SeqCst) {
            return Ok(());
        }
        let acknowledged = state.acknowledged.load(Ordering::SeqCst);
        let reconnected = connects != state.connects.load(Ordering::SeqCst);
        connects = state.connects.load(Ordering::SeqCst);
        next = if reconnected { acknowledged } else { next.max(acknowledged) };
        if connects > 0 && next < script.blocks && next < acknowledged + WINDOW {
            client.publish(&topic, QoS::AtLeastOnce, false, script.block(next)?).await?;
            state.sent.fetch_add(1, Ordering::SeqCst);
            next += 1;
            if let Some(pace_hz) = script.pace_hz {
                tokio::time::sleep(Duration::from_secs(1) / pace_hz).await;
            }
            continue;
        }
        if next == script.blocks {
            let status = script.status(next, acknowledged)?;
            client.publish(&status_topic, QoS::AtLeastOnce, false, status).await?;
        }
        let _ = tokio::time::timeout(RESEND_AFTER, state.progress.notified()).await;
        // An ack that says the same again is no progress: what it is about was lost on the way.
        if acknowledged != seen {
            moved = tokio::time::Instant::now();
        } else if moved.elapsed() >= RESEND_AFTER {
            next = acknowledged;
            moved = tokio::time::Instant::now();
        }
        seen = acknowledged;
    }
}

/// Keeps the connection, announces the node at each, and takes the acks.
async fn drive(
    script: &Script,
    client: &AsyncClient,
    mut events: rumqttc::v5::EventLoop,
    state: &State,
) -> Result<()> {
    let level = format!("spindle/v1/site/machine/{}", script.node);
    let now_ns = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    let start_utc_ns = now_ns + script.clock_ahead_s * 1_000_000_000;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let filter = Filter::new(format!("{level}/ack"), QoS::AtLeastOnce);
                client.try_subscribe_many([filter])?;
                client.try_publish(format!("{level}/birth"), QoS::AtLeastOnce, true, script.birth()?)?;
                client.try_publish(
                    format!("{level}/time"),
                    QoS::AtLeastOnce,
                    false,
                    script.time(start_utc_ns)?,
                )?;
                state.connects.fetch_add(1, Ordering::SeqCst);
                state.progress.notify_one();
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                if let Ok(Message::Ack(ack)) = wire::decode(&publish.payload)
                    && ack.boot.0 == script.boot
                {
                    state.acknowledged.fetch_max(ack.next.0, Ordering::SeqCst);
                    state.progress.notify_one();
                }
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
