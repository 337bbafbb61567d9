//! One node: its boots, each with its sequence, streams and clock.
//!
//! A sequence number is either next (accepted), ahead (held until those before it have come, or the node's status says
//! that they never will), or before (a duplicate, unless it was given up: then it is late). The gateway gives up by
//! itself only when a node has gone on for long without sending what is missing.

use super::books::{Books, Slot};
use super::{Context, GIVE_UP_WAITS};
use crate::journal::{BootState, ClockState, Key, NodeState, StreamState};
use crate::record::{Gap, Record, RecordKind, SensorKey, record_flags};
use crate::source::{SourceId, Token};
use bytes::Bytes;
use spindle_common::id::{BootId, Seq};
use spindle_common::time::{Added, ClockFit, Pair};
use spindle_common::wire;
use std::collections::VecDeque;
use std::sync::Arc;

/// Boots of a node that are remembered.
const BOOTS_MAX: usize = 4;
/// Ranges of given-up sequence numbers that are remembered per boot.
const GIVEN_UP_MAX: usize = 16;
/// Changes between two boots within [`SWITCHES_NS`] that show two boards with one id.
const SWITCHES_MAX: u32 = 4;
const SWITCHES_NS: u64 = 60_000_000_000;
/// Before 2020 no clock is right: UTC ns.
const UTC_MIN_NS: i64 = 1_577_836_800_000_000_000;

/// A message that has a place in its node's sequence.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) seq: Seq,
    pub(super) what: What,
    pub(super) stream: u8,
    pub(super) key: Arc<SensorKey>,
    pub(super) first_sample: u64,
    /// Samples per channel.
    pub(super) samples: u64,
    pub(super) tick: u64,
    pub(super) tick_hz: u32,
    pub(super) rate_mhz: u32,
    pub(super) payload: Bytes,
    pub(super) token: Option<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Block,
    /// Counts as its samples: it stands in their place.
    Features,
    /// Samples around a trigger; may repeat what features stand for, so it counts for nothing.
    Burst,
}

#[derive(Debug)]
struct Held {
    item: Item,
    since_ns: u64,
}

#[derive(Debug)]
struct Stream {
    index: u8,
    key: Arc<SensorKey>,
    slot: Slot,
    next_sample: u64,
    taken: u64,
    last: Option<(u64, i64)>,
}

#[derive(Debug)]
struct Boot {
    id: BootId,
    next: Seq,
    closed: bool,
    given_up: Vec<(Seq, u32)>,
    held: VecDeque<Held>,
    /// Since when something is missing.
    stalled_ns: Option<u64>,
    streams: Vec<Stream>,
    fit: ClockFit,
    anchor: Option<(u64, i64)>,
    doubtful: bool,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: Arc<SensorKey>,
    /// From where it was heard last: the way back.
    pub(super) origin: SourceId,
    /// When it was heard last.
    pub(super) seen_ns: u64,
    /// CRC-32C of its last birth: a retained one comes again with each connection.
    pub(super) birth: Option<u32>,
    boots: Vec<Boot>,
    active: Option<BootId>,
    switches: u32,
    switches_since_ns: u64,
}

impl Node {
    pub(super) fn new(key: Arc<SensorKey>, origin: SourceId) -> Self {
        Self {
            key,
            origin,
            seen_ns: 0,
            birth: None,
            boots: Vec::new(),
            active: None,
            switches: 0,
            switches_since_ns: 0,
        }
    }

    /// The newest boot, and what it is to send next.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (BootId, Seq)> + '_ {
        let active = self.boots.iter().find(|boot| Some(boot.id) == self.active);
        active.or(self.boots.last()).into_iter().map(|boot| (boot.id, boot.next))
    }

    pub(super) fn held(&self) -> usize {
        self.boots.iter().map(|boot| boot.held.len()).sum()
    }

    /// Takes a message with a place in the sequence.
    pub(super) fn take(&mut self, boot: BootId, item: Item, ctx: &mut Context<'_>) {
        let index = self.boot(boot, ctx);
        self.watch_for_twins(boot, ctx);
        let Some(boot) = self.boots.get_mut(index) else { return };
        match item.seq.since(boot.next) {
            0 => {
                boot.accept(item, &self.key, ctx);
                boot.drain(&self.key, ctx);
            }
            1..=0x7FFF_FFFF => boot.hold(item, ctx),
            _ => boot.before(item, ctx),
        }
    }

    /// Index of a boot; a new one closes those before it, for what they still held is gone with their memory.
    fn boot(&mut self, id: BootId, ctx: &mut Context<'_>) -> usize {
        if let Some(index) = self.boots.iter().rposition(|boot| boot.id == id) {
            return index;
        }
        ctx.metrics.boots.increment();
        for boot in &mut self.boots {
            boot.close(&self.key, ctx);
        }
        if self.boots.len() >= BOOTS_MAX {
            self.boots.remove(0);
        }
        self.boots.push(Boot::new(id));
        self.boots.len() - 1
    }

    fn watch_for_twins(&mut self, boot: BootId, ctx: &mut Context<'_>) {
        if self.active == Some(boot) {
            return;
        }
        let now_ns = ctx.now.mono_ns;
        if now_ns.saturating_sub(self.switches_since_ns) > SWITCHES_NS {
            self.switches = 0;
            self.switches_since_ns = now_ns;
        }
        self.active = Some(boot);
        self.switches += 1;
        if self.switches == SWITCHES_MAX + 1 {
            ctx.metrics.twins.increment();
            tracing::warn!(node = %self.key, "two boards use this node id: boots take turns");
        }
    }

    /// Notes the sensors that a birth lists.
    pub(super) fn birth(&mut self, birth: &wire::Birth<'_>, ctx: &mut Context<'_>) {
        let index = self.boot(birth.boot, ctx);
        let Some(boot) = self.boots.get_mut(index) else { return };
        boot.set_tick_hz(birth.tick_hz);
        for info in &birth.streams {
            let key = SensorKey {
                site: self.key.site.clone(),
                machine: self.key.machine.clone(),
                sensor: info.sensor.into(),
            };
            boot.stream(info.stream.0, &Arc::new(key), ctx.books);
        }
    }

    /// Key of a stream, when it is known.
    pub(super) fn stream_key(&self, boot: BootId, stream: u8) -> Option<Arc<SensorKey>> {
        let boot = self.boots.iter().rfind(|known| known.id == boot)?;
        boot.streams.iter().find(|known| known.index == stream).map(|known| known.key.clone())
    }

    /// Applies what a status says: what will never come, and what was taken.
    pub(super) fn status(&mut self, status: &wire::Status<'_>, ctx: &mut Context<'_>) {
        let index = self.boot(status.boot, ctx);
        let Some(boot) = self.boots.get_mut(index) else { return };
        if boot.next.precedes(status.oldest) {
            boot.give_up(status.oldest, &self.key, ctx);
            boot.drain(&self.key, ctx);
        }
        let complete = status.next == boot.next && boot.held.is_empty();
        for counters in &status.streams {
            let Some(stream) = boot.streams.iter_mut().find(|known| known.index == counters.stream.0) else {
                continue;
            };
            stream.note_taken(counters.taken, ctx.books);
            if complete && counters.taken > stream.next_sample {
                let time_ns = boot.fit.utc_ns(status.tick).unwrap_or(ctx.now.utc_ns);
                stream.lose(counters.taken, time_ns, &self.key, boot.id, ctx);
            }
        }
    }

    /// Takes a (tick, UTC) pair into the boot's clock.
    pub(super) fn time(&mut self, pair: &wire::TimePair<'_>, ctx: &mut Context<'_>) {
        let index = self.boot(pair.boot, ctx);
        let Some(boot) = self.boots.get_mut(index) else { return };
        boot.set_tick_hz(pair.tick_hz);
        let error_max_ns = i64::try_from(ctx.config.clock_error_max.as_nanos()).unwrap_or(i64::MAX);
        let ahead_ns = pair.utc_ns.saturating_sub(ctx.now.utc_ns);
        if ahead_ns > error_max_ns || pair.utc_ns < UTC_MIN_NS {
            ctx.metrics.pairs_refused.increment();
            if !boot.doubtful {
                tracing::warn!(node = %self.key, utc_ns = pair.utc_ns, "node's clock is wild: its UTC is not used");
            }
            boot.doubtful = true;
            return;
        }
        // One from long ago may have waited in a broker: it is used, but flagged.
        let doubtful = ahead_ns < -error_max_ns;
        if doubtful && !boot.doubtful {
            tracing::warn!(node = %self.key, behind_ns = -ahead_ns, "node's clock is behind, or its message is late");
        }
        let added = boot.fit.add(Pair { tick: pair.tick, utc_ns: pair.utc_ns, error_ns: pair.error_ns });
        match added {
            Added::Fitted => boot.doubtful = doubtful,
            Added::Stepped => {
                tracing::info!(node = %self.key, "node's clock was set");
                boot.doubtful = true;
            }
            Added::Outlier => ctx.metrics.pairs_refused.increment(),
            Added::Old => {}
        }
    }

    /// UTC of a tick of a boot, by its clock alone.
    pub(super) fn utc_ns(&self, boot: BootId, tick: u64) -> Option<i64> {
        self.boots.iter().rfind(|known| known.id == boot)?.fit.utc_ns(tick)
    }

    /// Lets go what has been held too long; says whether anything is still held.
    pub(super) fn expire(&mut self, ctx: &mut Context<'_>) -> bool {
        for boot in &mut self.boots {
            boot.expire(&self.key, ctx);
        }
        self.held() > 0
    }

    /// When something held has been held too long, monotonic ns.
    pub(super) fn deadline_ns(&self, wait_ns: u64) -> Option<u64> {
        let oldest = self.boots.iter().flat_map(|boot| &boot.held).map(|held| held.since_ns).min();
        oldest.map(|since_ns| since_ns.saturating_add(wait_ns))
    }

    /// Forgets what is held, giving the tokens back.
    pub(super) fn forget(&mut self, ctx: &mut Context<'_>) {
        for boot in &mut self.boots {
            boot.drop_held(ctx);
        }
    }

    pub(super) fn state(&self) -> NodeState {
        NodeState { key: Key(self.key.clone()), boots: self.boots.iter().map(Boot::state).collect() }
    }

    pub(super) fn restore(state: NodeState, books: &mut Books) -> Self {
        let mut node = Self::new(state.key.0, SourceId(u16::MAX));
        node.active = state.boots.last().map(|boot| BootId(boot.boot));
        node.boots = state.boots.into_iter().map(|boot| Boot::restore(boot, books)).collect();
        node
    }
}

impl Boot {
    fn new(id: BootId) -> Self {
        Self {
            id,
            next: Seq(0),
            closed: false,
            given_up: Vec::new(),
            held: VecDeque::new(),
            stalled_ns: None,
            streams: Vec::new(),
            fit: ClockFit::new(0),
            anchor: None,
            doubtful: false,
        }
    }

    fn set_tick_hz(&mut self, tick_hz: u32) {
        if self.fit.tick_hz() != tick_hz {
            self.fit = ClockFit::new(tick_hz);
        }
    }

    /// Index of a stream, made or renamed if need be.
    fn stream(&mut self, index: u8, key: &Arc<SensorKey>, books: &mut Books) -> usize {
        if let Some(at) = self.streams.iter().position(|stream| stream.index == index) {
            if let Some(stream) = self.streams.get_mut(at)
                && stream.key != *key
            {
                stream.key = key.clone();
                stream.slot = books.slot(key);
            }
            return at;
        }
        let slot = books.slot(key);
        self.streams.push(Stream { index, key: key.clone(), slot, next_sample: 0, taken: 0, last: None });
        self.streams.len() - 1
    }

    /// Takes the message that is next.
    fn accept(&mut self, item: Item, node: &SensorKey, ctx: &mut Context<'_>) {
        self.next = item.seq.next();
        self.stalled_ns = None;
        ctx.release(item.token);
        let at = self.stream(item.stream, &item.key, ctx.books);
        let Some(stream) = self.streams.get_mut(at) else { return };
        let end = item.first_sample.saturating_add(item.samples);
        let mut samples = item.samples;
        match item.what {
            What::Burst => samples = 0,
            What::Features => samples = end.saturating_sub(stream.next_sample.max(item.first_sample)),
            What::Block if item.first_sample < stream.next_sample => {
                if self.closed {
                    self.late(item, ctx);
                } else {
                    stream.refuse(&item, ctx);
                }
                return;
            }
            What::Block => {}
        }
        let (time_ns, flags) = self.stamp(at, &item, ctx);
        let Some(stream) = self.streams.get_mut(at) else { return };
        if samples > 0 && item.first_sample > stream.next_sample {
            let lost = item.first_sample - stream.next_sample;
            let lost_ns = i128::from(lost) * 1_000_000_000_000 / i128::from(item.rate_mhz.max(1));
            let gap_ns = i128::from(time_ns) - lost_ns;
            let gap_ns =
                i64::try_from(gap_ns.max(0)).unwrap_or(0).max(stream.last.map_or(i64::MIN, |last| last.1));
            stream.lose(item.first_sample, gap_ns, node, self.id, ctx);
        }
        if samples > 0 {
            stream.next_sample = end;
            stream.note_taken(end, ctx.books);
            ctx.books.change(stream.slot, |book| book.accepted = book.accepted.saturating_add(samples));
            ctx.metrics.samples.add(samples);
        }
        stream.last = Some((item.tick, time_ns));
        let kind = if item.what == What::Block { RecordKind::Block } else { RecordKind::Node };
        if kind == RecordKind::Block {
            ctx.metrics.blocks.increment();
        }
        ctx.push(kind, item.key, time_ns, flags, 0, item.payload);
    }

    /// Takes what is held as far as it is next now.
    fn drain(&mut self, node: &SensorKey, ctx: &mut Context<'_>) {
        while let Some(held) = self.held.front() {
            match held.item.seq.since(self.next) {
                0 => {
                    if let Some(held) = self.pop_held(ctx) {
                        self.accept(held.item, node, ctx);
                    }
                }
                1..=0x7FFF_FFFF => return,
                _ => {
                    if let Some(held) = self.pop_held(ctx) {
                        self.before(held.item, ctx);
                    }
                }
            }
        }
    }

    fn pop_held(&mut self, ctx: &mut Context<'_>) -> Option<Held> {
        let held = self.held.pop_front()?;
        let slot = ctx.books.slot(&held.item.key);
        ctx.books.change(slot, |book| book.held = book.held.saturating_sub(held.item.samples));
        Some(held)
    }

    /// Keeps a message until those before it have come.
    fn hold(&mut self, item: Item, ctx: &mut Context<'_>) {
        self.stalled_ns.get_or_insert(ctx.now.mono_ns);
        let ahead = item.seq.since(self.next);
        let place = self.held.partition_point(|held| held.item.seq.since(self.next) < ahead);
        if self.held.get(place).is_some_and(|held| held.item.seq == item.seq) {
            duplicate(&item, ctx);
            return;
        }
        if self.held.len() >= ctx.config.reorder_blocks_max {
            // Its node has it still, for it was not acknowledged, and sends it again.
            ctx.metrics.held_dropped.increment();
            ctx.release(item.token);
            return;
        }
        let slot = ctx.books.slot(&item.key);
        ctx.books.change(slot, |book| book.held = book.held.saturating_add(item.samples));
        self.held.insert(place, Held { item, since_ns: ctx.now.mono_ns });
    }

    /// Takes a message whose place is passed: late, or a duplicate.
    fn before(&mut self, item: Item, ctx: &mut Context<'_>) {
        let found = self.given_up.iter().position(|(first, count)| item.seq.since(*first) < *count);
        let Some(index) = found else { return duplicate(&item, ctx) };
        let (first, count) = self.given_up.remove(index);
        let before = item.seq.since(first);
        for range in [(first, before), (item.seq.next(), count - before - 1)] {
            if range.1 > 0 && self.given_up.len() < GIVEN_UP_MAX {
                self.given_up.push(range);
            }
        }
        ctx.release(item.token);
        self.late(item, ctx);
    }

    /// Keeps a message that came after its samples were declared lost.
    fn late(&mut self, item: Item, ctx: &mut Context<'_>) {
        let at = self.stream(item.stream, &item.key, ctx.books);
        let (time_ns, flags) = self.utc(&item, ctx);
        let Some(stream) = self.streams.get(at) else { return };
        ctx.metrics.late.increment();
        if item.what != What::Burst {
            ctx.books.change(stream.slot, |book| {
                book.accepted = book.accepted.saturating_add(item.samples);
                book.lost = book.lost.saturating_sub(item.samples);
            });
        }
        let kind = if item.what == What::Block { RecordKind::Block } else { RecordKind::Node };
        ctx.push(kind, item.key, time_ns, flags | record_flags::LATE, 0, item.payload);
    }

    /// Goes on at `next` without what is missing before it; the samples show as gaps when their streams go on.
    fn give_up(&mut self, next: Seq, node: &SensorKey, ctx: &mut Context<'_>) {
        while self.held.front().is_some_and(|held| held.item.seq.precedes(next)) {
            if let Some(held) = self.pop_held(ctx) {
                let missing = held.item.seq.since(self.next);
                self.remember_given_up(self.next, missing);
                self.accept(held.item, node, ctx);
            }
        }
        self.remember_given_up(self.next, next.since(self.next));
        self.next = next;
        self.stalled_ns = None;
    }

    fn remember_given_up(&mut self, first: Seq, count: u32) {
        if count > 0 {
            if self.given_up.len() >= GIVEN_UP_MAX {
                self.given_up.remove(0);
            }
            self.given_up.push((first, count));
        }
    }

    /// A later boot was seen: what this one had not sent will not come, or comes late.
    fn close(&mut self, node: &SensorKey, ctx: &mut Context<'_>) {
        if let Some(last) = self.held.back().map(|held| held.item.seq.next()) {
            self.give_up(last, node, ctx);
        }
        for stream in &mut self.streams {
            if stream.taken > stream.next_sample {
                let time_ns = stream.last.map_or(ctx.now.utc_ns, |last| last.1);
                stream.lose(stream.taken, time_ns, node, self.id, ctx);
            }
        }
        self.closed = true;
    }

    fn expire(&mut self, node: &SensorKey, ctx: &mut Context<'_>) {
        let wait_ns = u64::try_from(ctx.config.reorder_wait.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = ctx.now.mono_ns;
        let late =
            |since_ns: u64, waits: u64| now_ns.saturating_sub(since_ns) >= wait_ns.saturating_mul(waits);
        if !self.held.iter().any(|held| late(held.since_ns, 1)) {
            return;
        }
        if self.stalled_ns.is_some_and(|since_ns| late(since_ns, GIVE_UP_WAITS))
            && let Some(next) = self.held.front().map(|held| held.item.seq)
        {
            tracing::warn!(%node, missing = next.since(self.next), "node does not send what is missing: given up");
            self.give_up(next, node, ctx);
            self.drain(node, ctx);
            return;
        }
        self.drop_held(ctx);
    }

    fn drop_held(&mut self, ctx: &mut Context<'_>) {
        while let Some(held) = self.pop_held(ctx) {
            ctx.metrics.held_dropped.increment();
            ctx.release(held.item.token);
        }
    }

    /// Time of an item's first sample, never before that of the stream's last one.
    fn stamp(&mut self, at: usize, item: &Item, ctx: &mut Context<'_>) -> (i64, u16) {
        let (mut time_ns, mut flags) = self.utc(item, ctx);
        if let Some((tick, last_ns)) = self.streams.get(at).and_then(|stream| stream.last) {
            // After a step back the stream's time goes on at half speed until the clock has caught up.
            let ticks = u128::from(item.tick.saturating_sub(tick));
            let span_ns = ticks * 1_000_000_000 / u128::from(item.tick_hz.max(1)) / 2;
            let least_ns = last_ns.saturating_add(i64::try_from(span_ns.max(1)).unwrap_or(i64::MAX / 2));
            if time_ns < least_ns {
                time_ns = least_ns;
                flags |= record_flags::CLOCK_DOUBTFUL;
            }
        }
        if flags & record_flags::CLOCK_DOUBTFUL != 0 {
            ctx.metrics.clock_doubtful.increment();
        }
        (time_ns, flags)
    }

    /// Time of an item's first sample by the clock as it stands.
    fn utc(&mut self, item: &Item, ctx: &mut Context<'_>) -> (i64, u16) {
        self.set_tick_hz(item.tick_hz);
        let doubtful = if self.doubtful { record_flags::CLOCK_DOUBTFUL } else { 0 };
        let duration_ns = i128::from(item.samples) * 1_000_000_000_000 / i128::from(item.rate_mhz.max(1));
        let duration_ns = i64::try_from(duration_ns).unwrap_or(i64::MAX);
        if let Some(time_ns) = self.fit.utc_ns(item.tick) {
            let error_max_ns = i64::try_from(ctx.config.clock_error_max.as_nanos()).unwrap_or(i64::MAX);
            let ahead_ns = time_ns.saturating_sub(ctx.now.utc_ns);
            let wild = if ahead_ns > error_max_ns { record_flags::CLOCK_DOUBTFUL } else { 0 };
            return (time_ns, doubtful | wild);
        }
        let (tick, anchor_ns) =
            *self.anchor.get_or_insert((item.tick, ctx.now.utc_ns.saturating_sub(duration_ns)));
        let ticks = i128::from(item.tick) - i128::from(tick);
        let span_ns = ticks * 1_000_000_000 / i128::from(item.tick_hz.max(1));
        let time_ns = anchor_ns.saturating_add(i64::try_from(span_ns).unwrap_or(0));
        (time_ns, doubtful | record_flags::CLOCK_ARRIVAL)
    }

    fn state(&self) -> BootState {
        let stream = |stream: &Stream| StreamState {
            stream: stream.index,
            key: Key(stream.key.clone()),
            next_sample: stream.next_sample,
            taken: stream.taken,
            last: stream.last,
        };
        BootState {
            boot: self.id.0,
            next: self.next.0,
            closed: self.closed,
            given_up: self.given_up.iter().map(|(first, count)| (first.0, *count)).collect(),
            streams: self.streams.iter().map(stream).collect(),
            clock: ClockState {
                tick_hz: self.fit.tick_hz(),
                anchor: self.anchor,
                pairs: self.fit.pairs().iter().map(|pair| (pair.tick, pair.utc_ns, pair.error_ns)).collect(),
                doubtful: self.doubtful,
            },
        }
    }

    fn restore(state: BootState, books: &mut Books) -> Self {
        let mut boot = Self::new(BootId(state.boot));
        boot.next = Seq(state.next);
        boot.closed = state.closed;
        boot.given_up = state.given_up.into_iter().map(|(first, count)| (Seq(first), count)).collect();
        boot.fit = ClockFit::new(state.clock.tick_hz);
        for (tick, utc_ns, error_ns) in state.clock.pairs {
            boot.fit.add(Pair { tick, utc_ns, error_ns });
        }
        boot.anchor = state.clock.anchor;
        boot.doubtful = state.clock.doubtful;
        for stream in state.streams {
            let slot = books.slot(&stream.key.0);
            boot.streams.push(Stream {
                index: stream.stream,
                key: stream.key.0,
                slot,
                next_sample: stream.next_sample,
                taken: stream.taken,
                last: stream.last,
            });
        }
        boot
    }
}

impl Stream {
    /// Enters what the sensor took, if it is more than was known.
    fn note_taken(&mut self, taken: u64, books: &mut Books) {
        if taken > self.taken {
            let more = taken - self.taken;
            self.taken = taken;
            books.change(self.slot, |book| book.taken = book.taken.saturating_add(more));
        }
    }

    /// Declares the samples up to `end` lost.
    fn lose(&mut self, end: u64, time_ns: i64, node: &SensorKey, boot: BootId, ctx: &mut Context<'_>) {
        let samples = end.saturating_sub(self.next_sample);
        let gap = Gap {
            node: node.sensor.to_string(),
            boot: boot.0,
            stream: self.index,
            first_sample: self.next_sample,
            samples,
        };
        self.next_sample = end;
        self.note_taken(end, ctx.books);
        ctx.books.change(self.slot, |book| book.lost = book.lost.saturating_add(samples));
        ctx.metrics.lost.add(samples);
        let body = postcard::to_stdvec(&gap).unwrap_or_default();
        ctx.push(RecordKind::Gap, self.key.clone(), time_ns, 0, 0, body.into());
    }

    /// Refuses a block whose samples are passed although its place in the sequence is not: a fault of the node.
    fn refuse(&mut self, item: &Item, ctx: &mut Context<'_>) {
        let reason = format!(
            "sample index runs backwards: block begins at {}, but {} was next",
            item.first_sample, self.next_sample
        );
        ctx.books.change(self.slot, |book| {
            book.rejected_messages = book.rejected_messages.saturating_add(1);
        });
        ctx.dead(&reason, item.key.clone(), None, &item.payload);
    }
}

fn duplicate(item: &Item, ctx: &mut Context<'_>) {
    ctx.metrics.duplicates.increment();
    let slot = ctx.books.slot(&item.key);
    ctx.books.change(slot, |book| book.duplicate = book.duplicate.saturating_add(item.samples));
    ctx.release(item.token);
}

/// A record without its offset.
pub(super) fn record(
    kind: RecordKind,
    key: Arc<SensorKey>,
    time_ns: i64,
    flags: u16,
    first_sample: u64,
    arrival_ns: i64,
    body: Bytes,
) -> Record {
    Record { offset: 0, kind, key, time_ns, flags, first_sample, arrival_ns, body }
}
