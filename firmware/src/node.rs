//! What the tasks of one board share: its identity, the ring, the counters, and the signals between sampling and sending.

use crate::clock::{TICK_HZ, UtcPair};
use crate::reduce::{Measured, Sealed, Sink, degraded};
use crate::ring::{Entry, PushError, Ring};
use crate::settings::Unusable;
use crate::transport::Channel as To;
use crate::uplink;
use core::cell::RefCell;
use embassy_sync::blocking_mutex::{Mutex, raw::RawMutex};
use embassy_sync::channel::Channel;
use embassy_sync::signal::Signal;
use heapless::{String, Vec};
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::settings::{Settings, Step, StreamSettings};
use spindle_common::wire::messages::{Outcome, ResetCause, TEXT_LEN_MAX, Trigger};
use spindle_common::wire::{
    AXES_MAX, Answer, Birth, BlockHeader, Features, InForce, Lifetime, MoreStatus, STREAMS_MAX, Status,
    StepStatus, StreamInfo, StreamStatus, TRIGGER_LEN_MAX, TimeAsk, TimePair, block_len_max, encode_block,
    encode_burst,
};

/// Who the node is; does not change while it runs.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The site, first part of the key.
    pub site: &'a str,
    /// The machine, second part of the key.
    pub machine: &'a str,
    /// The node's name.
    pub node: &'a str,
    /// The board's type.
    pub board: &'a str,
    /// The firmware's version.
    pub firmware: &'a str,
    /// This run.
    pub boot: BootId,
    /// Why it started.
    pub reset_cause: ResetCause,
    /// Text of the last panic; empty if none.
    pub last_panic: &'a str,
    /// Counters over resets, where the board has memory that keeps them.
    pub lifetime: Option<Lifetime>,
    /// The sensors as they are wired, with all their channels, by index.
    pub streams: Vec<StreamInfo<'a>, STREAMS_MAX>,
    /// What its memory and its link allow.
    pub limits: Limits,
}

/// What a board's memory and link allow its settings to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What the link carries, bits per second.
    pub link_bits_per_s: u32,
    /// Samples per channel that a block's buffer holds, with all channels.
    pub block_samples_max: u16,
    /// Samples per channel that a burst's history holds, with all channels; 0 where there is none.
    pub burst_samples_max: u16,
    /// Bytes that the uplink's buffers hold of one message.
    pub message_len_max: u32,
}

/// Longest features message with all eight channels: what a ring must hold at least.
const FEATURES_LEN_MAX: usize = 300;

/// Letters of the channels that streams send, for a birth to borrow from.
pub type AxesSent = [String<AXES_MAX>; STREAMS_MAX];

/// A boot id from whatever randomness a board has and a counter that it keeps over resets, where it can keep one.
/// The two are mixed (splitmix64), so that either alone already makes a repeat unlikely.
#[must_use]
pub const fn boot_id(random: u64, counter: u64) -> BootId {
    let mut mixed = random ^ counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    BootId(mixed ^ (mixed >> 31))
}

/// What to do when a new block does not fit the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Drop the oldest and count it: a sensor does not wait.
    DropOldest,
    /// Let the sampling task wait: only for models and recordings, which can.
    Wait,
}

/// An answer that waits to be sent.
#[derive(Debug, Clone)]
pub struct PendingAnswer {
    /// Repeats the command's.
    pub id: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Details.
    pub text: String<TEXT_LEN_MAX>,
}

/// What the ring holds, as the uplink's state machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Oldest block held; equal to `next` when none is.
    pub oldest: Seq,
    /// Number that the next block will have.
    pub next: Seq,
}

struct Inner<B, const BLOCKS: usize> {
    ring: Ring<B, BLOCKS>,
    dropped: u32,
    streams: [StreamStatus; STREAMS_MAX],
    steps: [StepStatus; STREAMS_MAX],
    uplink: (uplink::Counters, bool),
    /// Samples per channel, all streams together, that the gateway has made durable.
    acknowledged: u64,
    answers_dropped: u32,
    inbox_dropped: u32,
    line_errors: u32,
    force: Force,
}

/// Settings, and how far they are in force.
struct Force {
    settings: Settings,
    /// Steps that streams which may degrade are down.
    down: u8,
    /// Counts changes of the two.
    generation: u32,
    /// By stream: the generation that its task works by.
    applied: [u32; STREAMS_MAX],
    /// By stream: what it works by, as its memory allows.
    sent: [Option<StreamSettings>; STREAMS_MAX],
    /// The generation that the gateway was told of, and whether its settings changed since.
    told: u32,
    renewed: bool,
    /// Whom to answer when they are in force.
    waiting: Option<PendingAnswer>,
    /// Why those that were kept are not in force.
    unusable: Option<Unusable>,
}

/// A change that is in force on every stream now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Streams report in other steps.
    Steps,
    /// Other settings.
    Settings,
}

/// What other tasks ask of a stream's sampling task.
pub(crate) struct Requests<M: RawMutex> {
    /// There is room in the ring again.
    freed: Signal<M, ()>,
    /// Other settings, or another step.
    pub(crate) settings: Signal<M, ()>,
    /// Command id of a self-test.
    pub(crate) self_test: Signal<M, u32>,
    /// Seal what is there and end.
    pub(crate) halt: Signal<M, ()>,
}

/// See the module. `M` guards the shared part: `NoopRawMutex` where all tasks run on one executor.
pub struct Node<'a, M: RawMutex, B, const BLOCKS: usize> {
    /// Who it is.
    pub facts: Facts<'a>,
    inner: Mutex<M, RefCell<Inner<B, BLOCKS>>>,
    /// A block was sealed: the uplink wakes.
    pub(crate) sealed: Signal<M, ()>,
    requests: [Requests<M>; STREAMS_MAX],
    /// Answers on their way out.
    pub(crate) answers: Channel<M, PendingAnswer, 4>,
    /// The uplink shall say goodbye and end.
    pub(crate) leaving: Signal<M, ()>,
    /// The gateway wants the node to show itself.
    pub identify: Signal<M, ()>,
}

impl<'a, M: RawMutex, B: AsRef<[u8]> + AsMut<[u8]>, const BLOCKS: usize> Node<'a, M, B, BLOCKS> {
    /// A node that has taken nothing yet, with these settings and this storage for its ring.
    #[inline(always)]
    pub const fn new(facts: Facts<'a>, settings: Settings, storage: B) -> Self {
        let mut streams = [StreamStatus {
            stream: StreamId(0),
            taken: 0,
            lost_overrun: 0,
            lost_ring: 0,
            bus_errors: 0,
            temperature_centi_c: i16::MIN,
        }; STREAMS_MAX];
        let mut index = 0;
        while index < STREAMS_MAX {
            streams[index].stream = StreamId(index as u8);
            index += 1;
        }
        let inner = Inner {
            ring: Ring::new(storage),
            dropped: 0,
            streams,
            steps: [StepStatus { step: Step::Raw, withheld: 0, bursts: 0, bursts_missed: 0 }; STREAMS_MAX],
            uplink: (uplink::Counters::new(), false),
            acknowledged: 0,
            answers_dropped: 0,
            inbox_dropped: 0,
            line_errors: 0,
            force: Force {
                settings,
                down: 0,
                generation: 1,
                applied: [0; STREAMS_MAX],
                sent: [None; STREAMS_MAX],
                told: 1,
                renewed: false,
                waiting: None,
                unusable: None,
            },
        };
        Self {
            facts,
            inner: Mutex::new(RefCell::new(inner)),
            sealed: Signal::new(),
            requests: [const {
                Requests {
                    freed: Signal::new(),
                    settings: Signal::new(),
                    self_test: Signal::new(),
                    halt: Signal::new(),
                }
            }; STREAMS_MAX],
            answers: Channel::new(),
            leaving: Signal::new(),
            identify: Signal::new(),
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Inner<B, BLOCKS>) -> R) -> R {
        self.inner.lock(|inner| act(&mut inner.borrow_mut()))
    }

    /// Facts of one stream.
    #[must_use]
    pub fn stream(&self, stream: StreamId) -> Option<&StreamInfo<'a>> {
        self.facts.streams.get(usize::from(stream.0))
    }

    /// Encodes a message into the ring. Counts what had to be dropped for it, and, if it cannot be encoded, what it stood for.
    fn store(
        &self,
        to: To,
        covered: u32,
        end: Option<u64>,
        len_max: usize,
        encode: impl FnOnce(Seq, &mut [u8]) -> Option<usize>,
        count: impl FnOnce(&mut StepStatus),
    ) {
        let index = to.stream().map_or(0, |stream| usize::from(stream.0).min(STREAMS_MAX - 1));
        self.with(|inner| {
            let Inner { ring, dropped, streams, steps, .. } = inner;
            let result = ring.push(to, covered, len_max, encode, |entry| {
                *dropped = dropped.saturating_add(1);
                lose(streams, &entry);
            });
            if let Some(end) = end {
                streams[index].taken = end;
            }
            match result {
                Ok(_) => count(&mut steps[index]),
                // Settings were checked, so it fits and is in range; should it not be, that is counted, not hidden.
                Err(PushError::TooLarge { .. } | PushError::NotEncoded) => {
                    streams[index].lost_ring += u64::from(covered);
                }
            }
        });
        self.sealed.signal(());
    }

    fn header(&self, sealed: &Sealed<'_>) -> Option<BlockHeader<'_>> {
        let info = self.stream(sealed.stream)?;
        Some(BlockHeader {
            node: self.facts.node,
            boot: self.facts.boot,
            stream: sealed.stream,
            seq: Seq(0),
            first_sample: sealed.first_sample,
            tick: sealed.tick,
            tick_hz: TICK_HZ,
            rate_nominal_mhz: info.rate_nominal_mhz,
            rate_measured_mhz: sealed.rate_measured_mhz,
            scale: info.scale,
            bits: info.bits,
            axes: sealed.axes,
            samples: sealed.frames,
            flags: sealed.flags,
            encoding: sealed.encoding,
            decimation: sealed.decimation,
        })
    }

    /// What a stream's sampling task is to work by, and the number to say in [`Node::applied`].
    #[must_use]
    pub fn plan(&self, stream: StreamId) -> Option<(u32, StreamSettings)> {
        self.with(|inner| {
            let Force { settings, down, generation, .. } = &inner.force;
            let settings = settings.streams.iter().find(|settings| settings.stream == stream)?;
            Some((*generation, degraded(settings, *down)))
        })
    }

    /// A stream's sampling task works by the plan of this number from now on, as far as `sent` says.
    pub fn applied(&self, stream: StreamId, generation: u32, sent: &StreamSettings) {
        let index = usize::from(stream.0).min(STREAMS_MAX - 1);
        self.with(|inner| {
            inner.force.applied[index] = generation;
            inner.force.sent[index] = Some(*sent);
            inner.steps[index].step = sent.step;
        });
        self.sealed.signal(());
    }

    /// A stream's sampling task has ended: no settings wait for it any more.
    pub fn ended(&self, stream: StreamId) {
        let index = usize::from(stream.0).min(STREAMS_MAX - 1);
        self.with(|inner| inner.force.applied[index] = u32::MAX);
        self.sealed.signal(());
    }

    /// Takes other settings; `answer` goes out when every stream works by them. Returns the answer of settings that these
    /// replace before they were in force.
    pub fn renew(&self, settings: Settings, answer: PendingAnswer) -> Option<PendingAnswer> {
        let replaced = self.with(|inner| {
            inner.force.settings = settings;
            inner.force.generation = inner.force.generation.saturating_add(1);
            inner.force.renewed = true;
            inner.force.unusable = None;
            inner.force.waiting.replace(answer)
        });
        self.wake_streams();
        replaced
    }

    /// Lets the streams that may degrade go down to so many steps below their settings.
    pub fn degrade(&self, down: u8) {
        let changed = self.with(|inner| {
            let force = &mut inner.force;
            let can = force.settings.streams.iter().any(|stream| stream.may_degrade);
            let changed = can && force.down != down;
            force.down = down;
            force.generation = force.generation.saturating_add(u32::from(changed));
            changed
        });
        if changed {
            self.wake_streams();
        }
    }

    fn wake_streams(&self) {
        for requests in self.requests.iter().take(self.facts.streams.len()) {
            requests.settings.signal(());
        }
    }

    /// Once after each change, when it is in force on every stream: what is to be told, and the answer to whoever asked for it.
    pub fn take_change(&self) -> Option<(Change, Option<PendingAnswer>)> {
        self.with(|inner| {
            let force = &mut inner.force;
            let everywhere = force
                .applied
                .iter()
                .take(self.facts.streams.len())
                .all(|applied| *applied >= force.generation);
            if force.told == force.generation || !everywhere {
                return None;
            }
            force.told = force.generation;
            let renewed = core::mem::take(&mut force.renewed);
            let change = if renewed { Change::Settings } else { Change::Steps };
            Some((change, force.waiting.take()))
        })
    }

    /// Notes why the settings that were kept are not in force: told to who asks for a report, until others come.
    pub fn note_unusable(&self, unusable: Option<Unusable>) {
        self.with(|inner| inner.force.unusable = unusable);
    }

    /// See [`Node::note_unusable`].
    #[must_use]
    pub fn unusable(&self) -> Option<Unusable> {
        self.with(|inner| inner.force.unusable)
    }

    /// Seconds between statuses, and between (tick, UTC) pairs.
    #[must_use]
    pub fn intervals_s(&self) -> (u16, u16) {
        self.with(|inner| (inner.force.settings.status_every_s, inner.force.settings.time_every_s))
    }

    /// How full the ring is, percent.
    #[must_use]
    pub fn fill_percent(&self) -> u8 {
        self.with(|inner| inner.ring.fill_percent())
    }

    /// The longest message that ring and uplink hold, bytes.
    #[must_use]
    pub fn message_len_max(&self) -> usize {
        let ring = self.with(|inner| inner.ring.bytes());
        usize::try_from(self.facts.limits.message_len_max).unwrap_or(usize::MAX).min(ring)
    }

    pub(crate) fn requests(&self, stream: StreamId) -> &Requests<M> {
        &self.requests[usize::from(stream.0).min(STREAMS_MAX - 1)]
    }

    /// Asks the stream's sampling task to seal what it has and to end.
    pub fn halt(&self, stream: StreamId) {
        self.requests(stream).halt.signal(());
    }

    /// Waits until so many messages of up to `len` bytes fit without dropping another.
    pub async fn room(&self, stream: StreamId, messages: usize, len: usize) {
        while !self.with(|inner| inner.ring.is_empty() || inner.ring.has_room(messages, len)) {
            self.requests(stream).freed.wait().await;
        }
    }

    /// Queues an answer. A full queue means that answers do not get out: this one is dropped and counted, and the gateway's
    /// wait times out. A sampling task does not wait for a link.
    pub(crate) fn answer_later(&self, answer: PendingAnswer) {
        if self.answers.try_send(answer).is_err() {
            self.with(|inner| inner.answers_dropped = inner.answers_dropped.saturating_add(1));
        }
        self.sealed.signal(());
    }

    /// Counts messages of the gateway that were too long, not readable, or too many at once.
    pub(crate) fn count_inbox_dropped(&self, count: u32) {
        self.with(|inner| inner.inbox_dropped = inner.inbox_dropped.saturating_add(count));
    }

    /// Counts bytes that were lost on the serial line: whoever reads the port knows.
    pub fn count_line_errors(&self, count: u32) {
        self.with(|inner| inner.line_errors = inner.line_errors.saturating_add(count));
    }

    /// Frees what the gateway has made durable.
    pub fn free_before(&self, next: Seq) {
        let freed = self.with(|inner| {
            let Inner { ring, acknowledged, .. } = inner;
            ring.free_before(next, |entry| *acknowledged += u64::from(entry.covered))
        });
        if freed > 0 {
            for stream in 0..self.facts.streams.len() {
                self.requests[stream].freed.signal(());
            }
        }
    }

    /// See [`Ring::number_from`].
    pub fn number_from(&self, first: Seq) {
        self.with(|inner| inner.ring.number_from(first));
    }

    /// What the ring holds.
    #[must_use]
    pub fn held(&self) -> Held {
        self.with(|inner| Held { oldest: inner.ring.oldest(), next: inner.ring.next() })
    }

    /// Copies an encoded block into `out` and returns where it goes and its length, if it is still held.
    #[must_use]
    pub fn copy_block(&self, seq: Seq, out: &mut [u8]) -> Option<(To, usize)> {
        self.with(|inner| {
            let (entry, bytes) = inner.ring.get(seq)?;
            out.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some((entry.channel, bytes.len()))
        })
    }

    /// Changes a stream's counters.
    pub(crate) fn count(&self, stream: StreamId, change: impl FnOnce(&mut StreamStatus)) {
        self.with(|inner| inner.streams.get_mut(usize::from(stream.0)).map(change));
    }

    /// A stream's counters.
    #[must_use]
    pub fn counters(&self, stream: StreamId) -> Option<StreamStatus> {
        self.with(|inner| inner.streams.get(usize::from(stream.0)).copied())
    }

    /// Blocks that the full ring dropped.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        self.with(|inner| inner.dropped)
    }

    /// Samples per channel, all streams together, that the gateway has made durable.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.with(|inner| inner.acknowledged)
    }

    /// Waits until no block is held. For the end of a model's run: it shares its wake-up with [`Node::room`] of stream 0,
    /// so nothing may be sampling any more.
    pub async fn emptied(&self) {
        while self.with(|inner| !inner.ring.is_empty()) {
            self.requests(StreamId(0)).freed.wait().await;
        }
    }

    /// Asks the uplink to say goodbye and to end.
    pub fn leave(&self) {
        self.leaving.signal(());
    }

    /// The uplink's counters, and whether its link is up, as it last noted them.
    #[must_use]
    pub fn uplink_counters(&self) -> (uplink::Counters, bool) {
        self.with(|inner| inner.uplink)
    }

    pub(crate) fn note_uplink(&self, counters: uplink::Counters, up: bool) {
        self.with(|inner| inner.uplink = (counters, up));
    }

    /// The birth message: the streams as they are sent now. `letters` is where their channels' names are put.
    #[must_use]
    pub fn birth<'b>(&'b self, letters: &'b mut AxesSent) -> Birth<'b> {
        let (sent, settings_version) = self.with(|inner| (inner.force.sent, inner.force.settings.version));
        for ((letters, info), sent) in letters.iter_mut().zip(&self.facts.streams).zip(&sent) {
            let mask = sent.map_or(u8::MAX, |sent| sent.axes);
            letters.clear();
            for (_, letter) in info.axes.chars().take(8).enumerate().filter(|(axis, _)| mask >> axis & 1 != 0)
            {
                // Fits: one letter of one byte for each of at most eight channels.
                let _ = letters.push(letter);
            }
        }
        let streams = self.facts.streams.iter().zip(letters.iter()).zip(&sent).map(|((info, axes), sent)| {
            let (block_samples, encoding) = sent.map_or((info.block_samples, info.encoding), |sent| {
                (sent.block_samples, sent.codec.encoding(info.bits))
            });
            StreamInfo { axes, block_samples, encoding, ..*info }
        });
        Birth {
            node: self.facts.node,
            boot: self.facts.boot,
            site: self.facts.site,
            machine: self.facts.machine,
            board: self.facts.board,
            firmware: self.facts.firmware,
            tick_hz: TICK_HZ,
            reset_cause: self.facts.reset_cause,
            last_panic: self.facts.last_panic,
            settings_version,
            ring_capacity: u16::try_from(BLOCKS).unwrap_or(u16::MAX),
            streams: streams.collect(),
            lifetime: Some(self.facts.lifetime.unwrap_or_default()),
        }
    }

    /// The settings in force, as a message.
    #[must_use]
    pub fn in_force(&self) -> InForce<'_> {
        let settings = self.with(|inner| inner.force.settings.clone());
        InForce { node: self.facts.node, boot: self.facts.boot, settings }
    }

    /// The status message, with the uplink's own counters.
    #[must_use]
    pub fn status(&self, tick: u64, resent: u32, connects: u32) -> Status<'_> {
        let count = self.facts.streams.len();
        self.with(|inner| Status {
            node: self.facts.node,
            boot: self.facts.boot,
            tick,
            oldest: inner.ring.oldest(),
            next: inner.ring.next(),
            ring_used: u16::try_from(inner.ring.len()).unwrap_or(u16::MAX),
            dropped: inner.dropped,
            resent,
            connects,
            streams: inner.streams.iter().take(count).copied().collect(),
            more: Some(MoreStatus {
                answers_dropped: inner.answers_dropped,
                inbox_dropped: inner.inbox_dropped,
                line_errors: inner.line_errors,
                steps: inner.steps.iter().take(count).copied().collect(),
            }),
        })
    }

    /// A stream's step, and what it withheld for it.
    #[must_use]
    pub fn step(&self, stream: StreamId) -> Option<StepStatus> {
        self.with(|inner| inner.steps.get(usize::from(stream.0)).copied())
    }

    /// A question for the time as a message.
    #[must_use]
    pub fn time_ask(&self, id: u32, tick: u64) -> TimeAsk<'_> {
        TimeAsk { node: self.facts.node, boot: self.facts.boot, id, tick }
    }

    /// A (tick, UTC) pair as a message.
    #[must_use]
    pub fn time_pair(&self, pair: UtcPair) -> TimePair<'_> {
        TimePair {
            node: self.facts.node,
            boot: self.facts.boot,
            tick: pair.tick,
            tick_hz: TICK_HZ,
            utc_ns: pair.utc_ns,
            error_ns: pair.error_ns,
            source: pair.source,
        }
    }

    /// An answer as a message.
    #[must_use]
    pub fn answer<'b>(&'b self, answer: &'b PendingAnswer) -> Answer<'b> {
        Answer {
            node: self.facts.node,
            boot: self.facts.boot,
            id: answer.id,
            outcome: answer.outcome,
            text: &answer.text,
        }
    }
}

fn lose(streams: &mut [StreamStatus], entry: &Entry) {
    let stream = entry.channel.stream().and_then(|stream| streams.get_mut(usize::from(stream.0)));
    if let Some(stream) = stream {
        stream.lost_ring += u64::from(entry.covered);
    }
}

impl<M: RawMutex, B: AsRef<[u8]> + AsMut<[u8]>, const BLOCKS: usize> Sink for Node<'_, M, B, BLOCKS> {
    fn block(&self, sealed: &Sealed<'_>) {
        let Some(header) = self.header(sealed) else { return };
        let len_max = block_len_max(sealed.axes.into(), sealed.frames.into(), sealed.encoding);
        let covered = u32::from(sealed.frames) * u32::from(sealed.decimation);
        let end = sealed.first_sample + u64::from(covered);
        self.store(
            To::Raw(sealed.stream),
            covered,
            Some(end),
            len_max,
            |seq, out| encode_block(&BlockHeader { seq, ..header }, sealed.samples, out).ok(),
            |steps| steps.withheld += u64::from(covered - u32::from(sealed.frames)),
        );
    }

    fn features(&self, measured: &Measured) {
        let end = measured.first_sample + u64::from(measured.samples);
        self.store(
            To::Features(measured.stream),
            measured.samples,
            Some(end),
            FEATURES_LEN_MAX,
            |seq, out| {
                let features = Features {
                    node: self.facts.node,
                    boot: self.facts.boot,
                    stream: measured.stream,
                    seq,
                    first_sample: measured.first_sample,
                    samples: measured.samples,
                    tick: measured.tick,
                    tick_hz: TICK_HZ,
                    rate_measured_mhz: measured.rate_measured_mhz,
                    flags: measured.flags,
                    axes: measured.axes.clone(),
                };
                features.encode(out).ok()
            },
            |steps| steps.withheld += u64::from(measured.samples),
        );
    }

    fn burst(&self, trigger: &Trigger, sealed: &Sealed<'_>) {
        let Some(header) = self.header(sealed) else { return };
        let block = block_len_max(sealed.axes.into(), sealed.frames.into(), sealed.encoding);
        self.store(
            To::Burst(sealed.stream),
            0,
            None,
            block + TRIGGER_LEN_MAX,
            |seq, out| encode_burst(trigger, &BlockHeader { seq, ..header }, sealed.samples, out).ok(),
            |steps| steps.bursts = steps.bursts.saturating_add(1),
        );
    }

    fn bursts_missed(&self, stream: StreamId, count: u32) {
        self.with(|inner| {
            if let Some(steps) = inner.steps.get_mut(usize::from(stream.0)) {
                steps.bursts_missed = steps.bursts_missed.saturating_add(count);
            }
        });
    }

    fn lost(&self, stream: StreamId, count: u64, taken: u64) {
        self.count(stream, |counters| {
            counters.lost_overrun += count;
            counters.taken = taken;
        });
    }
}

/// Number of channels of a stream.
#[must_use]
pub fn axes(info: &StreamInfo<'_>) -> u8 {
    u8::try_from(info.axes.len()).unwrap_or(u8::MAX)
}
