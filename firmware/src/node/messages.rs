//! What the node says of itself.

use super::{Node, PendingAnswer};
use crate::clock::{TICK_HZ, UtcPair};
use embassy_sync::blocking_mutex::raw::RawMutex;
use heapless::String;
use spindle_common::wire::{
    AXES_MAX, Answer, Birth, InForce, MoreStatus, STREAMS_MAX, Status, StreamInfo, TimeAsk, TimePair,
};

/// Letters of the channels that streams send, for a birth to borrow from.
pub type AxesSent = [String<AXES_MAX>; STREAMS_MAX];

impl<M: RawMutex, B: AsRef<[u8]> + AsMut<[u8]>, const BLOCKS: usize> Node<'_, M, B, BLOCKS> {
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
