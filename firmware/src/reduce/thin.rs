//! Step `Decimated`: samples thinned out behind a filter.

use super::{Reducer, Sink};
use crate::acquire::{Part, SampleClock};
use crate::sensor::Sample;
use heapless::Vec;
use spindle_common::dsp::{Decimator, Frame, LANES};
use spindle_common::wire::AXES_MAX;

/// Frames that go through a decimator at a time: bounds the stack that it takes.
const SLICE_FRAMES: usize = 32;

impl<S: Sample> Reducer<'_, S> {
    /// Whether there are decimators enough. They are kept while their factor stays.
    pub(super) fn make_decimators(&mut self) -> bool {
        let groups = usize::from(self.axes()).div_ceil(LANES);
        let factor = u32::from(self.settings.decimation);
        let Some(places) = self.decimators.get_mut(..groups) else { return false };
        for place in places {
            if place.as_ref().is_none_or(|decimator| decimator.factor() != factor) {
                // In its place: a board's stack is smaller than two of them.
                if place.get_or_insert_with(Decimator::pass).redesign(factor).is_err() {
                    *place = None;
                    return false;
                }
            }
        }
        true
    }

    pub(super) fn thin(&mut self, clock: &SampleClock, sink: &impl Sink) {
        let Some(part) = self.chunk.close() else { return };
        if core::mem::take(&mut self.filters_start) {
            self.restart_decimators(part.first_sample, part.frames);
        }
        self.block.flag(part.flags);
        let axes = usize::from(self.axes());
        let factor = u64::from(self.settings.decimation);
        let mut at = 0;
        while at < part.frames {
            let count = SLICE_FRAMES.min(part.frames - at);
            // A slice is longer than the factor at times, so at most half of it comes out.
            let mut centres: Vec<u64, { SLICE_FRAMES / 2 + 1 }> = Vec::new();
            let mut outputs: [Vec<Frame, { SLICE_FRAMES / 2 + 1 }>; AXES_MAX / LANES] = Default::default();
            let planar = self.chunk.planar(&part);
            for (group, (decimator, outputs)) in
                self.decimators.iter_mut().flatten().zip(&mut outputs).enumerate()
            {
                let mut frames = [[0.0; LANES]; SLICE_FRAMES];
                gather(planar, part.frames, axes, group, at, &mut frames[..count]);
                decimator.push_slim(&frames[..count], |centre, frame| {
                    if group == 0 {
                        let _ = centres.push(centre);
                    }
                    let _ = outputs.push(frame);
                });
            }
            at += count;
            for (index, &centre) in centres.iter().enumerate() {
                if centre < self.settled_from {
                    continue;
                }
                let mut frame = [S::default(); AXES_MAX];
                for (axis, slot) in frame.iter_mut().enumerate().take(axes) {
                    let value = outputs[axis / LANES].get(index).map_or(0.0, |frame| frame[axis % LANES]);
                    let [least, most] = self.facts.ends.map(|end| end as f32);
                    *slot = S::nearest(value.clamp(least, most));
                }
                self.block.jump_to(centre / factor);
                if self.block.push(&frame[..axes]) {
                    self.store_block(clock, sink);
                }
            }
        }
    }

    fn restart_decimators(&mut self, first_sample: u64, frames: usize) {
        let axes = usize::from(self.axes());
        let part = Part { first_sample, frames, flags: 0 };
        let planar = self.chunk.planar(&part);
        for (group, decimator) in self.decimators.iter_mut().flatten().enumerate() {
            let mut before = [[0.0; LANES]];
            gather(planar, frames, axes, group, 0, &mut before);
            decimator.restart(first_sample, before[0]);
            self.settled_from = first_sample + decimator.delay();
        }
    }
}

/// Frames of a group of four channels, in counts, from place `at` of planar samples on.
fn gather<S: Sample>(
    planar: &[S],
    per_channel: usize,
    axes: usize,
    group: usize,
    at: usize,
    out: &mut [Frame],
) {
    for lane in 0..LANES.min(axes.saturating_sub(group * LANES)) {
        let start = (group * LANES + lane) * per_channel + at;
        let samples = planar.get(start..).unwrap_or_default();
        for (frame, sample) in out.iter_mut().zip(samples) {
            frame[lane] = sample.value() as f32;
        }
    }
}
