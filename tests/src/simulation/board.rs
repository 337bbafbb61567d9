//! A board: the firmware's own node, ring, uplink, clock exchange and the shell's decisions, with samples made up and a counter
//! that follows virtual time.

use super::random::Random;
use super::scenario::{SECOND, Scenario};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::settings::Settings;
use spindle_common::wire::messages::{AxisFeatures, ResetCause, TimeSource, Trigger, TriggerKind};
use spindle_common::wire::{Encoding, Samples, StreamInfo};
use spindle_firmware::clock::exchange::Exchange;
use spindle_firmware::clock::{Timebase, UtcPair, UtcSource};
use spindle_firmware::node::{Facts, Limits, Node};
use spindle_firmware::reduce::{Governor, Measured, Sealed, Sink};
use spindle_firmware::transport::Channel;
use spindle_firmware::uplink::session::{Heard, Session, Turn};
use spindle_firmware::uplink::{self, Action, Uplink};
use std::cell::Cell;

pub(super) const NODES: [&str; 3] = ["n0", "n1", "n2"];
pub(super) const SENSORS: [[&str; 3]; 3] =
    [["n0a", "n0b", "n0c"], ["n1a", "n1b", "n1c"], ["n2a", "n2b", "n2c"]];
/// Blocks in the ring, at most.
const BLOCKS: usize = 48;
/// Samples per channel and block, at most.
const FRAMES_MAX: usize = 48;
const SCRATCH_LEN: usize = 2048;
/// Microseconds: the firmware's ticks on a host.
const TICK_HZ: u64 = 1_000_000;

type Firmware = Node<'static, NoopRawMutex, Box<[u8]>, BLOCKS>;

/// The counter that stamps samples.
#[derive(Debug, Default)]
struct Ticks(Cell<u64>);

impl Timebase for Ticks {
    fn now(&self) -> u64 {
        self.0.get()
    }

    async fn until(&self, _tick: u64) {}
}

/// Where the node has UTC from.
enum Utc {
    Gateway(Exchange),
    /// A time server, at times wrong by `off_ns`.
    Own {
        fresh: Option<UtcPair>,
    },
}

impl UtcSource for Utc {
    fn pair(&mut self) -> Option<UtcPair> {
        match self {
            Self::Gateway(exchange) => exchange.pair(),
            Self::Own { fresh } => fresh.take(),
        }
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        match self {
            Self::Gateway(exchange) => Some(exchange),
            Self::Own { .. } => None,
        }
    }
}

/// What a stream does all day.
#[derive(Debug, Clone, Copy)]
struct Stream {
    next_sample: u64,
    frames: u16,
    decimation: u16,
    features: bool,
    rice: bool,
    /// A block of it was made.
    sealed: bool,
    /// Samples per channel in a second.
    rate: u64,
}

/// What was sealed: for the oracle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) seq: Seq,
    pub(super) stream: u8,
    pub(super) first_sample: u64,
    /// Samples of the sensor that it stands for; 0 for a burst.
    pub(super) covered: u64,
    pub(super) stored: u64,
    pub(super) digest: u32,
    /// True time of its first sample, ns.
    pub(super) taken_at: u64,
}

/// What a board wants.
#[derive(Debug)]
pub(super) enum Want {
    Connect,
    Send(Channel, Vec<u8>),
    Wait(u64),
}

/// See the module.
pub(super) struct Board {
    pub(super) place: usize,
    pub(super) boot: BootId,
    node: Box<Firmware>,
    uplink: Uplink,
    governor: Governor,
    utc: Utc,
    ticks: Ticks,
    scratch: Vec<u8>,
    streams: Vec<Stream>,
    booted_at: u64,
    /// Deviation of its oscillator, parts per million.
    drift_ppm: i64,
    /// By what its own UTC is off, ns.
    pub(super) off_ns: i64,
    next_pair_at: u64,
}

impl Board {
    pub(super) fn new(
        plan: &Scenario,
        place: usize,
        boot: BootId,
        first: Seq,
        now: u64,
        random: &mut Random,
    ) -> Self {
        let node = plan.boards[place];
        let infos = (0..plan.streams as u8).map(|stream| StreamInfo {
            stream: StreamId(stream),
            sensor: SENSORS[node][usize::from(stream)],
            model: "iis3dwb",
            axes: "x",
            rate_nominal_mhz: 1_000_000,
            scale: 0.01,
            bits: 16,
            block_samples: 32,
            encoding: Encoding::Raw16,
        });
        let facts = Facts {
            site: "hall",
            machine: "mill",
            node: NODES[node],
            board: "virtual",
            firmware: "simulated",
            boot,
            reset_cause: ResetCause::PowerOn,
            last_panic: "",
            lifetime: None,
            streams: infos.collect(),
            limits: Limits {
                link_bits_per_s: 100_000_000,
                block_samples_max: 64,
                burst_samples_max: 0,
                message_len_max: SCRATCH_LEN as u32,
            },
        };
        let settings = Settings::built_in(&facts.streams);
        let storage = vec![0; plan.ring_len].into_boxed_slice();
        let node = Box::new(Node::new(facts, settings.clone(), storage));
        node.number_from(first);
        for stream in &settings.streams {
            node.applied(stream.stream, 1, stream);
        }
        let config = uplink::Config { window: plan.window, ..uplink::Config::default() };
        let stream = |_| Stream {
            next_sample: 0,
            frames: random.between(1, FRAMES_MAX as u64) as u16,
            decimation: if random.chance(150) { 4 } else { 1 },
            features: random.chance(150),
            rice: random.chance(300),
            sealed: false,
            rate: 0,
        };
        let mut streams: Vec<Stream> = (0..plan.streams).map(stream).collect();
        for stream in &mut streams {
            stream.rate = plan.blocks_per_s * u64::from(stream.frames) * u64::from(stream.decimation);
        }
        let utc =
            if plan.time_from_gateway { Utc::Gateway(Exchange::new(boot)) } else { Utc::Own { fresh: None } };
        Self {
            place,
            boot,
            node,
            uplink: Uplink::new(config, boot).numbered_from(first),
            governor: Governor::new(),
            utc,
            ticks: Ticks::default(),
            scratch: vec![0; SCRATCH_LEN],
            streams,
            booted_at: now,
            drift_ppm: random.between(0, 200) as i64 - 100,
            off_ns: 0,
            next_pair_at: now,
        }
    }

    /// Ticks at virtual time `now`.
    fn tick_at(&self, now: u64) -> u64 {
        let ns = now.saturating_sub(self.booted_at);
        let drift = i128::from(ns) * i128::from(self.drift_ppm) / 1_000_000;
        ((i128::from(ns) + drift).max(0) / 1000) as u64
    }

    /// Virtual time at which the counter shows `ms` milliseconds, at the earliest.
    fn at_ms(&self, ms: u64) -> u64 {
        let ns = i128::from(ms) * 1_000_000;
        let ns = ns * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm)) + 2_000;
        self.booted_at.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// Moves its counter to virtual time `now` and says ms.
    fn set_time(&mut self, now: u64) -> u64 {
        self.ticks.0.set(self.tick_at(now));
        self.ticks.0.get() / 1000
    }

    /// What is held: oldest and next.
    pub(super) fn held(&self) -> (Seq, Seq) {
        let held = self.node.held();
        (held.oldest, held.next)
    }

    /// Samples taken, lost in overruns and from the ring, of a stream.
    pub(super) fn counters(&self, stream: u8) -> (u64, u64) {
        let counters = self.node.counters(StreamId(stream));
        counters.map_or((0, 0), |counters| (counters.taken, counters.lost_overrun + counters.lost_ring))
    }

    pub(super) fn is_up(&self) -> bool {
        self.uplink.is_up()
    }

    pub(super) fn connected(&mut self, now: u64) {
        let ms = self.set_time(now);
        self.uplink.connected(ms);
        let tick = self.ticks.now();
        if let Some(exchange) = self.utc.exchange() {
            exchange.connected(tick);
        }
    }

    pub(super) fn disconnected(&mut self, now: u64) {
        let ms = self.set_time(now);
        self.uplink.disconnected(ms);
        if let Some(exchange) = self.utc.exchange() {
            exchange.disconnected();
        }
    }

    /// The next thing that it wants to do.
    pub(super) fn turn(&mut self, now: u64, utc_ns: i64) -> Want {
        let ms = self.set_time(now);
        if let Utc::Own { fresh } = &mut self.utc
            && now >= self.next_pair_at
        {
            let pair = UtcPair {
                tick: self.ticks.now(),
                utc_ns: utc_ns + self.off_ns,
                error_ns: 500_000,
                source: TimeSource::Sntp,
            };
            *fresh = Some(pair);
            self.next_pair_at = now + 5 * SECOND;
        }
        let mut session =
            Session { node: &*self.node, time: &self.ticks, scratch: &mut self.scratch, supervisor: None };
        session.govern(&mut self.uplink, &mut self.governor, ms);
        if !self.uplink.is_up() {
            return match self.uplink.next(self.node.held(), ms) {
                Action::Connect => Want::Connect,
                Action::Wait { until_ms } => Want::Wait(self.at_ms(until_ms)),
                Action::Send(_) => Want::Wait(now),
            };
        }
        loop {
            match session.turn(&mut self.uplink, &mut self.utc, ms) {
                Turn::Send(channel, len) => {
                    return Want::Send(channel, self.scratch.get(..len).unwrap_or_default().to_vec());
                }
                Turn::Skip => {}
                Turn::Wait(until_ms) => return Want::Wait(self.at_ms(until_ms)),
            }
        }
    }

    /// Takes a message of the gateway; says whether it shall restart.
    pub(super) fn hear(&mut self, message: &[u8], now: u64) -> bool {
        let ms = self.set_time(now);
        let mut session =
            Session { node: &*self.node, time: &self.ticks, scratch: &mut self.scratch, supervisor: None };
        let arrived = self.ticks.now();
        matches!(session.hear(&mut self.uplink, Some(message), arrived, &mut self.utc, ms), Heard::Restart)
    }

    /// How long a stream takes for what it seals at once, ns.
    pub(super) fn period(&self, stream: u8) -> u64 {
        let stream = self.streams[usize::from(stream)];
        u64::from(stream.frames) * u64::from(stream.decimation) * SECOND / stream.rate.max(1)
    }

    /// Whether a block of the stream was ever made.
    pub(super) fn has_sealed(&self, stream: u8) -> bool {
        self.streams[usize::from(stream)].sealed
    }

    /// Loses samples in the sensor's FIFO.
    pub(super) fn overrun(&mut self, stream: u8, count: u64) -> (u64, u64) {
        let index = usize::from(stream);
        let first = self.streams[index].next_sample;
        self.streams[index].next_sample += count;
        self.node.lost(StreamId(stream), count, first + count);
        (first, count)
    }

    /// Seals what the stream took in the period that ends now.
    pub(super) fn seal(&mut self, stream: u8, now: u64, random: &mut Random) -> Vec<Made> {
        self.set_time(now);
        let index = usize::from(stream);
        let at = self.streams[index];
        let covered = u64::from(at.frames) * u64::from(at.decimation);
        let taken_at = now.saturating_sub(self.period(stream));
        let tick = self.tick_at(taken_at);
        let mut samples = [0i16; FRAMES_MAX];
        let start = at.next_sample as i64 * 7 + i64::from(stream);
        for (place, sample) in samples.iter_mut().enumerate() {
            *sample = ((start + place as i64) % 2000) as i16;
        }
        let rate_mhz = u32::try_from(at.rate * 1000).unwrap_or(u32::MAX);
        let sealed = Sealed {
            stream: StreamId(stream),
            axes: 1,
            encoding: if at.rice { Encoding::Rice16 } else { Encoding::Raw16 },
            decimation: at.decimation,
            first_sample: at.next_sample,
            tick,
            rate_measured_mhz: rate_mhz,
            flags: 0,
            frames: at.frames,
            samples: Samples::I16(&samples[..usize::from(at.frames)]),
        };
        let mut made = Vec::with_capacity(2);
        let features = at.features && random.chance(700);
        if features {
            let axis = AxisFeatures {
                rms: at.next_sample as f32,
                peak: 0.0,
                peak_to_peak: 0.0,
                kurtosis: 3.0,
                velocity_rms: 0.0,
                mean: 0.0,
            };
            self.node.features(&Measured {
                stream: StreamId(stream),
                first_sample: at.next_sample,
                samples: covered as u32,
                tick,
                rate_measured_mhz: rate_mhz,
                flags: 0,
                axes: std::iter::once(axis).collect(),
            });
        } else {
            self.node.block(&sealed);
        }
        made.extend(self.newest(stream, at.next_sample, covered, taken_at));
        if let Some(made) = made.last_mut() {
            made.stored = if features { 0 } else { u64::from(at.frames) };
        }
        if features && random.chance(200) {
            let trigger = Trigger { kind: TriggerKind::Periodic, sample: at.next_sample, level: 0.0 };
            self.node.burst(&trigger, &Sealed { decimation: 1, ..sealed });
            made.extend(self.newest(stream, at.next_sample, 0, taken_at));
        }
        self.streams[index].next_sample += covered;
        self.streams[index].sealed = true;
        made
    }

    /// What the ring was given last.
    fn newest(&mut self, stream: u8, first_sample: u64, covered: u64, taken_at: u64) -> Option<Made> {
        let seq = Seq(self.node.held().next.0.wrapping_sub(1));
        let (_, len) = self.node.copy_block(seq, &mut self.scratch)?;
        let digest = crc(self.scratch.get(..len)?);
        Some(Made { seq, stream, first_sample, covered, stored: 0, digest, taken_at })
    }
}

/// Tells two messages apart: a CRC over a message with its own CRC at the end would be the same for all.
pub(super) fn crc(message: &[u8]) -> u32 {
    let body = message.get(..message.len().saturating_sub(4)).unwrap_or_default();
    spindle_common::wire::crc32c(body) ^ message.len() as u32
}

const _: () = assert!(TICK_HZ == spindle_firmware::clock::TICK_HZ as u64);
