//! Step `Features`: features of each second, and bursts around what a trigger saw.

use super::burst::Seen;
use super::{Measured, Reducer, Release, Sealed, Sink, to_u16};
use crate::acquire::{Part, SampleClock};
use crate::sensor::Sample;
use core::ops::Range;
use spindle_common::wire::block::flags;

/// A window of features in the making.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    first_sample: u64,
    flags: u16,
}

impl<S: Sample> Reducer<'_, S> {
    pub(super) fn measure(&mut self, clock: &SampleClock, sink: &impl Sink) {
        let Some(part) = self.chunk.close() else { return };
        let (rate_hz, scale) = (clock.rate_hz(), self.facts.scale);
        let mut at = 0;
        while at < part.frames {
            let first_sample = part.first_sample + at as u64;
            let window = self.window.get_or_insert_with(|| {
                self.meter.adapt(rate_hz);
                Window { first_sample, flags: 0 }
            });
            window.flags |= part.flags;
            let end = (first_sample / self.facts.window_len + 1) * self.facts.window_len;
            let left = usize::try_from(end - first_sample).unwrap_or(usize::MAX);
            let count = left.min(part.frames - at);
            let planar = self.chunk.planar(&part);
            self.meter.take(first_sample, count, rate_hz, |axis, from, out| {
                let start = axis * part.frames + at + from;
                let samples = planar.get(start..start + out.len()).unwrap_or_default();
                for (out, sample) in out.iter_mut().zip(samples) {
                    *out = sample.value() as f32 * scale;
                }
            });
            self.watch(&part, at..at + count, clock, sink);
            at += count;
            if count == left {
                self.close_window(clock, sink);
            }
        }
    }

    /// Lets the trigger see samples, and stores the bursts that they complete.
    fn watch(&mut self, part: &Part, range: Range<usize>, clock: &SampleClock, sink: &impl Sink) {
        let mut at = range.start;
        while at < range.end {
            let planar = self.chunk.planar(part);
            let first = part.first_sample + at as u64;
            let seen = Seen { planar, per_channel: part.frames, from: at, until: range.end };
            let (used, release) = self.bursts.take(first, &seen, self.meter.newest());
            at += used;
            if let Some(release) = release {
                self.store_burst(&release, clock, sink);
            }
        }
        let missed = self.bursts.take_missed();
        if missed > 0 {
            sink.bursts_missed(self.facts.stream, missed);
        }
    }

    pub(super) fn end_burst(&mut self, clock: &SampleClock, sink: &impl Sink) {
        if let Some(release) = self.bursts.cut_short() {
            self.store_burst(&release, clock, sink);
        }
    }

    fn store_burst(&mut self, release: &Release, clock: &SampleClock, sink: &impl Sink) {
        let sealed = Sealed {
            stream: self.facts.stream,
            axes: self.axes(),
            encoding: self.encoding(),
            decimation: 1,
            first_sample: release.first_sample,
            tick: clock.tick_of(release.first_sample),
            rate_measured_mhz: clock.rate_mhz(),
            flags: self.facts.flags,
            frames: to_u16(release.frames),
            samples: S::planar(self.bursts.planar(release)),
        };
        sink.burst(&release.trigger, &sealed);
    }

    pub(super) fn close_window(&mut self, clock: &SampleClock, sink: &impl Sink) {
        let Some(Window { first_sample, flags: window_flags }) = self.window.take() else { return };
        self.bursts.set_centre(self.meter.means());
        let samples = self.meter.samples();
        // Velocity of a window in which filters had to settle stands on a part of it.
        let settling = if self.meter.is_settled() { 0 } else { flags::RESTART };
        self.account(first_sample, first_sample + samples, sink);
        let measured = Measured {
            stream: self.facts.stream,
            first_sample,
            samples: u32::try_from(samples).unwrap_or(u32::MAX),
            tick: clock.tick_of(first_sample),
            rate_measured_mhz: clock.rate_mhz(),
            flags: window_flags | self.facts.flags | settling,
            axes: self.meter.close(clock.rate_hz()),
        };
        sink.features(&measured);
    }
}
