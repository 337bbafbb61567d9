//! One node: its boots, each with its sequence, streams and clock (see `boot`).
//!
//! A sequence number is either next (accepted), ahead (held until those before it have come, or the node's status says
//! that they never will), or before (a duplicate, unless it was given up: then it is late). The gateway gives up by
//! itself only when a node has gone on for long without sending what is missing.

use super::Context;
use super::books::Books;
use super::boot::Boot;
use super::message::Item;
use super::report::News;
use super::twins::{Speaker, Twins};
use crate::journal::{Key, NodeState};
use crate::record::SensorKey;
use crate::source::SourceId;
use spindle_common::id::{BootId, Seq};
use spindle_common::time::{Added, Pair};
use spindle_common::wire;
use std::sync::Arc;

/// Most boots of a node that are remembered. A broker that was killed comes back with what it had saved, with Mosquitto's defaults
/// up to 30 min before, and sends it again: boots of that time must still be known, or their blocks would count as new ones.
const BOOTS_MAX: usize = 32;
/// Those heard last keep their clocks; the others are forgotten when they were not heard for [`BOOT_MEMORY_NS`].
const BOOTS_WHOLE: usize = 4;
const BOOT_MEMORY_NS: u64 = 3_600_000_000_000;
/// Before 2020 no clock is right: UTC ns.
const UTC_MIN_NS: i64 = 1_577_836_800_000_000_000;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: Arc<SensorKey>,
    /// From where it was heard last: the way back.
    pub(super) origin: SourceId,
    /// When it was heard last.
    pub(super) seen_ns: u64,
    /// Checksum of its last birth: a retained one comes again with each connection.
    pub(super) birth: Option<u32>,
    /// Digest of what was said last about its birth against its file.
    pub(super) contradiction: u32,
    /// What it said of itself.
    pub(super) news: News,
    boots: Vec<Boot>,
    active: Option<BootId>,
    pub(super) twins: Twins,
    /// By how much its UTC was ahead of the gateway's when it told it last, ns: its clock's error, less the time on the way.
    pub(super) ahead_ns: Option<i64>,
}

impl Node {
    pub(super) fn new(key: Arc<SensorKey>, origin: SourceId) -> Self {
        Self {
            key,
            origin,
            seen_ns: 0,
            birth: None,
            contradiction: 0,
            news: News::default(),
            boots: Vec::new(),
            active: None,
            twins: Twins::default(),
            ahead_ns: None,
        }
    }

    /// The boots that spoke since this was last asked: the way back to each, and what it is to send next. Two boards with one id
    /// each get their own.
    pub(super) fn wanted(&mut self) -> Vec<(SourceId, BootId, Seq)> {
        let spoke = self.boots.iter_mut().filter_map(|boot| {
            std::mem::take(&mut boot.spoke).then(|| (boot.origin, boot.id, boot.wanted()))
        });
        spoke.collect()
    }

    /// The boot that it is in.
    pub(super) fn newest(&self) -> Option<&Boot> {
        let active = self.boots.iter().find(|boot| Some(boot.id) == self.active);
        active.or(self.boots.last())
    }

    pub(super) fn held(&self) -> usize {
        self.boots.iter().map(|boot| boot.held.len()).sum()
    }

    /// Takes a message with a place in the sequence.
    pub(super) fn take(&mut self, boot: BootId, item: Item, ctx: &mut Context<'_>) {
        let index = self.boot(boot, ctx);
        let has_room = self.held() < ctx.config.reorder_blocks_max;
        let Some(known) = self.boots.get_mut(index) else { return };
        let ahead = item.seq.since(known.next);
        // What a boot begins with may be anywhere in the circle: the gateway may have met it late.
        let is_ahead = ahead != 0 && (ahead <= 0x7FFF_FFFF || known.is_fresh());
        let is_new = ahead == 0 || is_ahead;
        match (ahead, is_ahead) {
            (0, _) => {
                known.accept(item, &self.key, ctx);
                known.drain(&self.key, ctx);
            }
            (_, true) => known.hold(item, has_room, ctx),
            (_, false) => known.before(item, &self.key, ctx),
        }
        if is_new {
            self.active = Some(boot);
        }
        self.watch_for_twins(boot, is_new, ctx);
    }

    /// Index of a boot; a new one closes those before it, for what they still held is gone with their memory. Of too many the one
    /// that was heard the longest ago is forgotten.
    fn boot(&mut self, id: BootId, ctx: &mut Context<'_>) -> usize {
        let found = self.boots.iter().rposition(|boot| boot.id == id);
        let index = found.unwrap_or_else(|| {
            ctx.metrics.boots.increment();
            for boot in &mut self.boots {
                boot.close(&self.key, ctx);
            }
            self.forget_boots(ctx);
            self.boots.push(Boot::new(id));
            self.boots.len() - 1
        });
        if let Some(boot) = self.boots.get_mut(index) {
            (boot.origin, boot.heard_ns, boot.spoke) = (self.origin, ctx.now.mono_ns, true);
        }
        index
    }

    /// Makes room for another boot, and of those not heard for long keeps little or nothing.
    fn forget_boots(&mut self, ctx: &mut Context<'_>) {
        self.boots.sort_by_key(|boot| boot.heard_ns);
        while self.boots.len() >= BOOTS_WHOLE
            && let Some(longest) = self.boots.first()
            && (self.boots.len() >= BOOTS_MAX
                || ctx.now.mono_ns.saturating_sub(longest.heard_ns) > BOOT_MEMORY_NS)
        {
            self.boots.remove(0).drop_held(ctx);
        }
        let spare = (self.boots.len() + 1).saturating_sub(BOOTS_WHOLE);
        self.boots.iter_mut().take(spare).for_each(Boot::slim);
    }

    fn watch_for_twins(&mut self, boot: BootId, new: bool, ctx: &mut Context<'_>) {
        let speaker = Speaker { boot, source: self.origin };
        if !self.twins.heard(speaker, new, ctx.now.mono_ns, ctx.now.utc_ns) {
            return;
        }
        ctx.metrics.twins.increment();
        let speakers: Vec<String> =
            self.twins.found(ctx.now.mono_ns).map_or_else(Vec::new, |(speakers, _)| {
                let name = |speaker: &Speaker| {
                    format!("boot {:016x} by source {}", speaker.boot.0, speaker.source.0)
                };
                speakers.iter().map(name).collect()
            });
        tracing::warn!(node = %self.key, ?speakers, "two boards use this node id, or one comes by two ways: they take turns");
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
        boot.tell(status.oldest);
        if boot.next.precedes(status.oldest) || boot.is_fresh() && boot.next != status.oldest {
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
        self.ahead_ns = Some(ahead_ns);
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

    /// Lets go what has been held too long; says whether anything is still waited for.
    pub(super) fn expire(&mut self, ctx: &mut Context<'_>) -> bool {
        for boot in &mut self.boots {
            boot.expire(&self.key, ctx);
        }
        self.is_waiting()
    }

    /// Whether something is held, or a boot that has ended is to be settled.
    pub(super) fn is_waiting(&self) -> bool {
        self.boots.iter().any(|boot| !boot.held.is_empty() || boot.is_unsettled())
    }

    /// When [`Node::expire`] has something to do, monotonic ns.
    pub(super) fn deadline_ns(&self, wait_ns: u64) -> Option<u64> {
        self.boots.iter().filter_map(|boot| boot.deadline_ns(wait_ns)).min()
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
