//! What the tasks of one board share: its identity, the ring, the counters, and the signals between sampling and sending.

use crate::clock::{TICK_HZ, UtcPair};
use crate::ring::{PushError, Ring};
use crate::uplink;
use core::cell::RefCell;
use embassy_sync::blocking_mutex::{Mutex, raw::RawMutex};
use embassy_sync::channel::Channel;
use embassy_sync::signal::Signal;
use heapless::{String, Vec};
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::wire::messages::{Lifetime, Outcome, ResetCause, TEXT_LEN_MAX};
use spindle_common::wire::{
    Answer, Birth, BlockHeader, STREAMS_MAX, Samples, Status, StreamInfo, StreamStatus, TimePair,
    block_len_max, encode_block,
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
    /// The sensors, by index.
    pub streams: Vec<StreamInfo<'a>, STREAMS_MAX>,
}

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

/// A block that is ready to be encoded; what the node adds is its name, boot and sequence number.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// Which sensor.
    pub stream: StreamId,
    /// Index of the first sample.
    pub first_sample: u64,
    /// Tick of the first sample.
    pub tick: u64,
    /// Rate by the node's ticks, mHz; 0 when unknown.
    pub rate_measured_mhz: u32,
    /// Block flags.
    pub flags: u16,
    /// Samples per channel.
    pub frames: u16,
    /// Planar samples of all channels.
    pub samples: Samples<'a>,
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
    uplink: (uplink::Counters, bool),
    /// Samples per channel, all streams together, that the gateway has made durable.
    acknowledged: u64,
}

/// What other tasks ask of a stream's sampling task.
pub(crate) struct Requests<M: RawMutex> {
    /// There is room in the ring again.
    freed: Signal<M, ()>,
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
    /// A node that has taken nothing yet, with this storage for its ring.
    #[inline(always)]
    pub const fn new(facts: Facts<'a>, storage: B) -> Self {
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
        let uplink = (uplink::Counters::new(), false);
        let inner = Inner { ring: Ring::new(storage), dropped: 0, streams, uplink, acknowledged: 0 };
        Self {
            facts,
            inner: Mutex::new(RefCell::new(inner)),
            sealed: Signal::new(),
            requests: [const { Requests { freed: Signal::new(), self_test: Signal::new(), halt: Signal::new() } };
                STREAMS_MAX],
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

    /// Encodes a block into the ring, or says why not. Counts what had to be dropped for it.
    ///
    /// # Errors
    /// When the block is larger than the ring or its facts are not encodable.
    pub fn store(&self, sealed: &Sealed<'_>) -> Result<Seq, PushError> {
        let info = self.stream(sealed.stream).ok_or(PushError::NotEncoded)?;
        let header = BlockHeader {
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
            axes: axes(info),
            samples: sealed.frames,
            flags: sealed.flags,
            encoding: info.encoding,
            decimation: 1,
        };
        let len_max = block_len_max(axes(info).into(), sealed.frames.into(), info.encoding);
        let result = self.with(|inner| {
            let Inner { ring, dropped, streams, .. } = inner;
            ring.push(
                sealed.stream,
                sealed.frames,
                len_max,
                |seq, out| encode_block(&BlockHeader { seq, ..header }, sealed.samples, out).ok(),
                |entry| {
                    *dropped = dropped.wrapping_add(1);
                    if let Some(stream) = streams.get_mut(usize::from(entry.stream.0)) {
                        stream.lost_ring += u64::from(entry.samples);
                    }
                },
            )
        });
        self.sealed.signal(());
        result
    }

    pub(crate) fn requests(&self, stream: StreamId) -> &Requests<M> {
        &self.requests[usize::from(stream.0).min(STREAMS_MAX - 1)]
    }

    /// Asks the stream's sampling task to seal what it has and to end.
    pub fn halt(&self, stream: StreamId) {
        self.requests(stream).halt.signal(());
    }

    /// Waits until the blocks that `frames` more samples per channel can fill fit without dropping another.
    pub async fn room(&self, stream: StreamId, frames: usize) {
        let Some(info) = self.stream(stream) else { return };
        let block = usize::from(info.block_samples.max(1));
        let len = block_len_max(axes(info).into(), block, info.encoding);
        let blocks = frames / block + 1;
        while !self.with(|inner| inner.ring.is_empty() || inner.ring.has_room(blocks, len)) {
            self.requests(stream).freed.wait().await;
        }
    }

    /// Queues an answer. A full queue means that answers do not get out: this one is dropped, and the gateway's wait times
    /// out. A sampling task does not wait for a link.
    pub(crate) fn answer_later(&self, answer: PendingAnswer) {
        let _ = self.answers.try_send(answer);
        self.sealed.signal(());
    }

    /// Frees what the gateway has made durable.
    pub fn free_before(&self, next: Seq) {
        let freed = self.with(|inner| {
            let Inner { ring, acknowledged, .. } = inner;
            ring.free_before(next, |entry| *acknowledged += u64::from(entry.samples))
        });
        if freed > 0 {
            for stream in 0..self.facts.streams.len() {
                self.requests[stream].freed.signal(());
            }
        }
    }

    /// What the ring holds.
    #[must_use]
    pub fn held(&self) -> Held {
        self.with(|inner| Held { oldest: inner.ring.oldest(), next: inner.ring.next() })
    }

    /// Copies an encoded block into `out` and returns its stream and length, if it is still held.
    #[must_use]
    pub fn copy_block(&self, seq: Seq, out: &mut [u8]) -> Option<(StreamId, usize)> {
        self.with(|inner| {
            let (entry, bytes) = inner.ring.get(seq)?;
            out.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some((entry.stream, bytes.len()))
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

    /// The birth message.
    #[must_use]
    pub fn birth(&self) -> Birth<'_> {
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
            settings_version: 0,
            ring_capacity: u16::try_from(BLOCKS).unwrap_or(u16::MAX),
            streams: self.facts.streams.clone(),
            lifetime: self.facts.lifetime,
        }
    }

    /// The status message, with the uplink's own counters.
    #[must_use]
    pub fn status(&self, tick: u64, resent: u32, connects: u32) -> Status<'_> {
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
            streams: inner.streams.iter().take(self.facts.streams.len()).copied().collect(),
            more: None,
        })
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

/// Number of channels of a stream.
#[must_use]
pub fn axes(info: &StreamInfo<'_>) -> u8 {
    u8::try_from(info.axes.len()).unwrap_or(u8::MAX)
}
