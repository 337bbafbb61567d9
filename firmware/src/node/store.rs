//! From what a reducer has made to messages in the ring.

use super::{Inner, Node};
use crate::clock::TICK_HZ;
use crate::reduce::{Measured, Sealed, Sink};
use crate::ring::{Entry, PushError};
use crate::transport::Channel as To;
use embassy_sync::blocking_mutex::raw::RawMutex;
use spindle_common::id::{Seq, StreamId};
use spindle_common::wire::messages::Trigger;
use spindle_common::wire::{
    BlockHeader, Features, STREAMS_MAX, StepStatus, StreamStatus, TRIGGER_LEN_MAX, block_len_max,
    encode_block, encode_burst,
};

/// Longest features message with all eight channels: what a ring must hold at least.
const FEATURES_LEN_MAX: usize = 300;

impl<M: RawMutex, B: AsRef<[u8]> + AsMut<[u8]>, const BLOCKS: usize> Node<'_, M, B, BLOCKS> {
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

fn lose(streams: &mut [StreamStatus], entry: &Entry) {
    let stream = entry.channel.stream().and_then(|stream| streams.get_mut(usize::from(stream.0)));
    if let Some(stream) = stream {
        stream.lost_ring += u64::from(entry.covered);
    }
}
