//! What the tasks of one board share: its identity, the ring, the counters, and the signals between sampling and sending.

mod force;
mod messages;
mod store;

pub use force::Change;
pub use messages::AxesSent;

use crate::ring::Ring;
use crate::transport::Channel as To;
use crate::uplink;
use core::cell::RefCell;
use embassy_sync::blocking_mutex::{Mutex, raw::RawMutex};
use embassy_sync::channel::Channel;
use embassy_sync::signal::Signal;
use force::Force;
use heapless::{String, Vec};
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::settings::{Settings, Step};
use spindle_common::wire::messages::{Outcome, ResetCause, TEXT_LEN_MAX};
use spindle_common::wire::{Lifetime, STREAMS_MAX, StepStatus, StreamInfo, StreamStatus};

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
            force: Force::new(settings),
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

    /// A stream's step, and what it withheld for it.
    #[must_use]
    pub fn step(&self, stream: StreamId) -> Option<StepStatus> {
        self.with(|inner| inner.steps.get(usize::from(stream.0)).copied())
    }
}

/// Number of channels of a stream.
#[must_use]
pub fn axes(info: &StreamInfo<'_>) -> u8 {
    u8::try_from(info.axes.len()).unwrap_or(u8::MAX)
}
