//! One boot of a node: its sequence and its clock.

use super::books::Books;
use super::message::{Item, What};
use super::stream::Stream;
use super::{Context, HELD_BYTES_MAX, HELD_TOKENS_MAX};
use crate::journal::{BootState, ClockState, Key, StreamState};
use crate::record::{RecordKind, SensorKey, record_flags};
use crate::source::SourceId;
use spindle_common::id::{BootId, Seq};
use spindle_common::time::{ClockFit, Pair};
use std::collections::VecDeque;
use std::sync::Arc;

/// A node that sends no statuses and goes on for this many reorder waits without what is missing is not waited for any longer.
const GIVE_UP_WAITS: u64 = 150;
/// A boot before the newest that is quiet for this many reorder waits has ended.
const QUIET_WAITS: u64 = 15;
/// Ranges of given-up sequence numbers that are remembered per boot.
const GIVEN_UP_MAX: usize = 64;
/// Most numbers of such a range, and how far behind it is still remembered: far less than half the circle of numbers.
const GIVEN_UP_SPAN: u32 = 1 << 24;

#[derive(Debug)]
pub(super) struct Held {
    item: Item,
    pub(super) since_ns: u64,
}

#[derive(Debug)]
pub(super) struct Boot {
    pub(super) id: BootId,
    pub(super) next: Seq,
    closed: bool,
    given_up: Vec<(Seq, u32)>,
    pub(super) held: VecDeque<Held>,
    /// Since when something is missing.
    stalled_ns: Option<u64>,
    pub(super) streams: Vec<Stream>,
    pub(super) fit: ClockFit,
    anchor: Option<(u64, i64)>,
    pub(super) doubtful: bool,
    /// From where it was heard last: the way back.
    pub(super) origin: SourceId,
    /// When, monotonic ns.
    pub(super) heard_ns: u64,
    /// Oldest block that it holds, as its last status told.
    told: Option<Seq>,
    /// It was heard since it was acknowledged last.
    pub(super) spoke: bool,
}

impl Boot {
    pub(super) fn new(id: BootId) -> Self {
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
            origin: SourceId(u16::MAX),
            heard_ns: 0,
            told: None,
            spoke: false,
        }
    }

    /// A status told the oldest block that it holds; an older status may come later.
    pub(super) fn tell(&mut self, oldest: Seq) {
        if self.told.is_none_or(|told| told.precedes(oldest)) {
            self.told = Some(oldest);
        }
    }

    /// What it is to send next: never past what it still holds and the gateway has given up waiting for.
    pub(super) fn wanted(&self) -> Seq {
        let given_up = self.given_up.iter();
        let Some(told) = self.told else {
            // A boot that has ended may be one of two boards with one id: nothing is known of what it holds before it says so.
            let first = given_up.map(|(first, _)| *first).max_by_key(|first| self.next.since(*first));
            return first.filter(|_| self.closed).unwrap_or(self.next);
        };
        let holds = given_up.filter(|(first, count)| told.precedes(first.plus(*count)));
        let first = holds.map(|(first, _)| if first.precedes(told) { told } else { *first });
        first.max_by_key(|first| self.next.since(*first)).unwrap_or(self.next)
    }

    /// Whether nothing of its sequence is known yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.next == Seq(0)
            && self.given_up.is_empty()
            && self.streams.iter().all(|stream| stream.next_sample == 0)
    }

    /// Whether it has ended and said that it took more than has come or is known to be lost.
    pub(super) fn is_unsettled(&self) -> bool {
        self.closed && self.streams.iter().any(|stream| stream.taken > stream.next_sample)
    }

    pub(super) fn set_tick_hz(&mut self, tick_hz: u32) {
        if self.fit.tick_hz() != tick_hz {
            self.fit = ClockFit::new(tick_hz);
        }
    }

    /// Index of a stream, made or renamed if need be.
    pub(super) fn stream(&mut self, index: u8, key: &Arc<SensorKey>, books: &mut Books) -> usize {
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
        self.streams.push(Stream {
            index,
            key: key.clone(),
            slot,
            next_sample: 0,
            taken: 0,
            last: None,
            measured_mhz: 0,
        });
        self.streams.len() - 1
    }

    /// Takes the message that is next.
    pub(super) fn accept(&mut self, item: Item, node: &SensorKey, ctx: &mut Context<'_>) {
        self.next = item.seq.next();
        self.stalled_ns = None;
        let next = self.next;
        self.given_up.retain(|(first, _)| next.since(*first) <= 2 * GIVEN_UP_SPAN);
        ctx.release(item.token);
        self.enter(item, node, ctx);
    }

    /// Takes what its stream goes on with.
    fn enter(&mut self, item: Item, node: &SensorKey, ctx: &mut Context<'_>) {
        let at = self.stream(item.stream, &item.key, ctx.books);
        let Some(stream) = self.streams.get_mut(at) else { return };
        let end = item.first_sample.saturating_add(item.samples);
        stream.measured_mhz = item.measured_mhz;
        let mut samples = item.samples;
        match item.what {
            // It repeats what other messages stand for.
            What::Burst => samples = 0,
            What::Features if self.closed && item.first_sample < stream.next_sample => {
                self.late(item, node, ctx);
                return;
            }
            What::Features => samples = end.saturating_sub(stream.next_sample.max(item.first_sample)),
            What::Block if item.first_sample < stream.next_sample => {
                if self.closed {
                    self.late(item, node, ctx);
                } else {
                    self.refuse(at, &item, node, ctx);
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
            let stored = item.stored.min(samples);
            ctx.books.change(stream.slot, |book| book.enter(samples, stored));
            ctx.metrics.samples.add(stored);
            ctx.metrics.withheld.add(samples - stored);
        }
        stream.last = Some((item.tick, time_ns));
        let kind = if item.what == What::Block { RecordKind::Block } else { RecordKind::Node };
        if kind == RecordKind::Block {
            ctx.metrics.blocks.increment();
        }
        ctx.push(kind, item.key, time_ns, flags, 0, item.payload);
    }

    /// Refuses a block that begins before the stream's next sample.
    fn refuse(&mut self, at: usize, item: &Item, node: &SensorKey, ctx: &mut Context<'_>) {
        let (time_ns, _) = self.utc(item, ctx);
        let Some(stream) = self.streams.get_mut(at) else { return };
        let passed = stream.next_sample.saturating_sub(item.first_sample);
        let passed_ns = i128::from(passed) * 1_000_000_000_000 / i128::from(item.rate_mhz.max(1));
        let time_ns = time_ns.saturating_add(i64::try_from(passed_ns).unwrap_or(i64::MAX));
        let time_ns = time_ns.max(stream.last.map_or(i64::MIN, |last| last.1));
        stream.refuse(item, time_ns, node, self.id, ctx);
    }

    /// Takes what is held as far as it is next now.
    pub(super) fn drain(&mut self, node: &SensorKey, ctx: &mut Context<'_>) {
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
                        self.before(held.item, node, ctx);
                    }
                }
            }
        }
    }

    fn pop_held(&mut self, ctx: &mut Context<'_>) -> Option<Held> {
        let held = self.held.pop_front()?;
        ctx.held.bytes = ctx.held.bytes.saturating_sub(held.item.payload.len());
        ctx.held.tokens = ctx.held.tokens.saturating_sub(usize::from(held.item.token.is_some()));
        let slot = ctx.books.slot(&held.item.key);
        ctx.books.change(slot, |book| book.held = book.held.saturating_sub(held.item.samples));
        Some(held)
    }

    /// Keeps a message until those before it have come, if the node may have one more of them.
    pub(super) fn hold(&mut self, item: Item, has_room: bool, ctx: &mut Context<'_>) {
        self.stalled_ns.get_or_insert(ctx.now.mono_ns);
        let ahead = item.seq.since(self.next);
        let place = self.held.partition_point(|held| held.item.seq.since(self.next) < ahead);
        if self.held.get(place).is_some_and(|held| held.item.seq == item.seq) {
            duplicate(&item, ctx);
            return;
        }
        let bytes = ctx.held.bytes + item.payload.len();
        if !has_room || bytes > HELD_BYTES_MAX {
            // Its node has it still, for it was not acknowledged, and sends it again.
            ctx.metrics.held_dropped.increment();
            ctx.release(item.token);
            return;
        }
        let slot = ctx.books.slot(&item.key);
        ctx.books.change(slot, |book| book.held = book.held.saturating_add(item.samples));
        let token = if ctx.held.tokens < HELD_TOKENS_MAX {
            item.token
        } else {
            ctx.release(item.token);
            None
        };
        ctx.held.tokens += usize::from(token.is_some());
        ctx.held.bytes = bytes;
        self.held.insert(place, Held { item: Item { token, ..item }, since_ns: ctx.now.mono_ns });
    }

    /// Takes a message whose place is passed: late, or a duplicate.
    pub(super) fn before(&mut self, item: Item, node: &SensorKey, ctx: &mut Context<'_>) {
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
        self.late(item, node, ctx);
    }

    /// Keeps a message whose place had been given up: in order if its stream has not gone on since, else as one whose samples
    /// were declared lost.
    fn late(&mut self, item: Item, node: &SensorKey, ctx: &mut Context<'_>) {
        let at = self.stream(item.stream, &item.key, ctx.books);
        let Some(stream) = self.streams.get(at) else { return };
        if item.what != What::Burst && item.first_sample >= stream.next_sample {
            return self.enter(item, node, ctx);
        }
        let (time_ns, flags) = self.utc(&item, ctx);
        let Some(stream) = self.streams.get(at) else { return };
        ctx.metrics.late.increment();
        if item.what != What::Burst {
            ctx.books.change(stream.slot, |book| {
                book.enter(item.samples, item.stored);
                book.lost = book.lost.saturating_sub(item.samples);
            });
        }
        let kind = if item.what == What::Block { RecordKind::Block } else { RecordKind::Node };
        ctx.push(kind, item.key, time_ns, flags | record_flags::LATE, 0, item.payload);
    }

    /// Goes on at `next` without what is missing before it; the samples show as gaps when their streams go on.
    pub(super) fn give_up(&mut self, next: Seq, node: &SensorKey, ctx: &mut Context<'_>) {
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
        let kept = count.min(GIVEN_UP_SPAN);
        let (first, count) = (first.plus(count - kept), kept);
        if count > 0 {
            if self.given_up.len() >= GIVEN_UP_MAX {
                self.given_up.remove(0);
            }
            self.given_up.push((first, count));
        }
    }

    /// A later boot was seen: what this one had not sent will not come, or comes late.
    pub(super) fn close(&mut self, node: &SensorKey, ctx: &mut Context<'_>) {
        if let Some(last) = self.held.back().map(|held| held.item.seq.next()) {
            self.give_up(last, node, ctx);
        }
        self.settle(node, ctx);
        self.closed = true;
    }

    /// What it took and did not send is lost.
    fn settle(&mut self, node: &SensorKey, ctx: &mut Context<'_>) {
        for stream in &mut self.streams {
            if stream.taken > stream.next_sample {
                let time_ns = stream.last.map_or(ctx.now.utc_ns, |last| last.1);
                stream.lose(stream.taken, time_ns, node, self.id, ctx);
            }
        }
    }

    /// When [`Boot::expire`] has something to do, monotonic ns.
    pub(super) fn deadline_ns(&self, wait_ns: u64) -> Option<u64> {
        if self.closed {
            let is_due = self.is_unsettled() || !self.held.is_empty();
            return is_due.then(|| self.heard_ns.saturating_add(wait_ns.saturating_mul(QUIET_WAITS)));
        }
        self.held.iter().map(|held| held.since_ns.saturating_add(wait_ns)).min()
    }

    pub(super) fn expire(&mut self, node: &SensorKey, ctx: &mut Context<'_>) {
        let wait_ns = u64::try_from(ctx.config.reorder_wait.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = ctx.now.mono_ns;
        let late =
            |since_ns: u64, waits: u64| now_ns.saturating_sub(since_ns) >= wait_ns.saturating_mul(waits);
        if self.closed {
            // A board that has restarted says no more; one of two with the same id goes on, and what is missing still comes.
            if (self.is_unsettled() || !self.held.is_empty()) && late(self.heard_ns, QUIET_WAITS) {
                self.close(node, ctx);
            }
            return;
        }
        if !self.held.iter().any(|held| late(held.since_ns, 1)) {
            return;
        }
        // What a node says that it holds it sends again; it is not for the gateway to acknowledge what it does not have.
        if self.told.is_none()
            && self.stalled_ns.is_some_and(|since_ns| late(since_ns, GIVE_UP_WAITS))
            && let Some(next) = self.held.front().map(|held| held.item.seq)
        {
            tracing::warn!(%node, missing = next.since(self.next), "node does not send what is missing: given up");
            self.give_up(next, node, ctx);
            self.drain(node, ctx);
            self.spoke = self.origin != SourceId(u16::MAX);
            return;
        }
        self.drop_held(ctx);
    }

    pub(super) fn drop_held(&mut self, ctx: &mut Context<'_>) {
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

    /// Keeps of its clock only where it stood: enough for what comes late.
    pub(super) fn slim(&mut self) {
        self.anchor = self.streams.iter().filter_map(|stream| stream.last).max().or(self.anchor);
        self.fit = ClockFit::new(self.fit.tick_hz());
    }

    pub(super) fn state(&self) -> BootState {
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

    pub(super) fn restore(state: BootState, books: &mut Books) -> Self {
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
                measured_mhz: 0,
            });
        }
        boot
    }
}

fn duplicate(item: &Item, ctx: &mut Context<'_>) {
    ctx.metrics.duplicates.increment();
    let slot = ctx.books.slot(&item.key);
    ctx.books.change(slot, |book| book.duplicate = book.duplicate.saturating_add(item.samples));
    ctx.release(item.token);
}
