//! One stream of a boot: the samples that are next, what was lost, what is refused.

use super::Context;
use super::books::{Books, Slot};
use super::message::Item;
use crate::record::{Gap, RecordKind, SensorKey};
use spindle_common::id::BootId;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) index: u8,
    pub(super) key: Arc<SensorKey>,
    pub(super) slot: Slot,
    pub(super) next_sample: u64,
    pub(super) taken: u64,
    pub(super) last: Option<(u64, i64)>,
    /// Rate against the node's ticks as it said last, mHz; 0: not known.
    pub(super) measured_mhz: u32,
}

impl Stream {
    /// Enters what the sensor took, if it is more than was known.
    pub(super) fn note_taken(&mut self, taken: u64, books: &mut Books) {
        if taken > self.taken {
            let more = taken - self.taken;
            self.taken = taken;
            books.change(self.slot, |book| book.taken = book.taken.saturating_add(more));
        }
    }

    /// Declares the samples up to `end` lost.
    pub(super) fn lose(
        &mut self,
        end: u64,
        time_ns: i64,
        node: &SensorKey,
        boot: BootId,
        ctx: &mut Context<'_>,
    ) {
        let samples = self.skip(end, time_ns, node, boot, ctx);
        ctx.books.change(self.slot, |book| book.lost = book.lost.saturating_add(samples));
        ctx.metrics.lost.add(samples);
    }

    /// Goes on at `end`, with a gap for what is missing before it; how many samples that is.
    fn skip(&mut self, end: u64, time_ns: i64, node: &SensorKey, boot: BootId, ctx: &mut Context<'_>) -> u64 {
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
        let body = postcard::to_stdvec(&gap).unwrap_or_default();
        ctx.push(RecordKind::Gap, self.key.clone(), time_ns, 0, 0, body.into());
        samples
    }

    /// Refuses a block whose first samples are passed although its place in the sequence is not: a fault of the node. Those
    /// passed are duplicates by their index; those that are new are rejected, and a gap for all that come after.
    pub(super) fn refuse(
        &mut self,
        item: &Item,
        time_ns: i64,
        node: &SensorKey,
        boot: BootId,
        ctx: &mut Context<'_>,
    ) {
        let reason = format!(
            "sample index runs backwards: block begins at {}, but {} was next",
            item.first_sample, self.next_sample
        );
        let end = item.first_sample.saturating_add(item.samples);
        let rejected = if end > self.next_sample { self.skip(end, time_ns, node, boot, ctx) } else { 0 };
        ctx.books.change(self.slot, |book| {
            book.rejected = book.rejected.saturating_add(rejected);
            book.duplicate = book.duplicate.saturating_add(item.samples - rejected);
            book.rejected_messages = book.rejected_messages.saturating_add(1);
        });
        ctx.metrics.rejected.add(rejected);
        ctx.dead(&reason, item.key.clone(), None, &item.payload);
    }
}
