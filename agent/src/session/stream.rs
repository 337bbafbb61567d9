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
    pub(super) fn refuse(&mut self, item: &Item, ctx: &mut Context<'_>) {
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
