//! Bursts: raw samples around a trigger, out of a history that goes round and round.

use crate::sensor::Sample;
use heapless::Vec;
use spindle_common::settings::TriggerSettings;
use spindle_common::wire::AXES_MAX;
use spindle_common::wire::messages::{Trigger, TriggerKind};

/// A burst that is complete; its samples are [`Bursts::planar`] until the next [`Bursts::take`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Release {
    /// What released it.
    pub trigger: Trigger,
    /// Index of its first sample.
    pub first_sample: u64,
    /// Samples per channel.
    pub frames: usize,
}

/// Samples that a trigger is to see: places `from` to before `until` of each channel.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a, S> {
    /// Planar samples.
    pub planar: &'a [S],
    /// Samples per channel in it.
    pub per_channel: usize,
    /// First place.
    pub from: usize,
    /// Behind the last place.
    pub until: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Idle,
    Capturing { trigger: Trigger, until: u64 },
}

/// Watches one stream. What happens during a burst is in it, and releases no other; a level that is exceeded while the rest
/// after a burst has not passed, or a time that comes during a burst, is a burst missed: one for as long as a burst would be.
#[derive(Debug)]
pub struct Bursts<'b, S> {
    history: &'b mut [S],
    settings: TriggerSettings,
    axes: usize,
    /// Samples per channel of history: as long as a burst. 0: no bursts.
    len: usize,
    /// Next place to be written.
    place: usize,
    /// Samples per channel that are in the history, at most `len`.
    held: usize,
    next: u64,
    state: State,
    rest_len: u64,
    rest_until: u64,
    every_len: u64,
    due_at: u64,
    missed: u32,
    missed_until: u64,
    /// Counts between which each channel does not exceed the level; absent before the first mean.
    quiet: Vec<[f32; 2], AXES_MAX>,
    scale: f32,
}

impl<'b, S: Sample> Bursts<'b, S> {
    /// None until they are set up.
    pub fn new(history: &'b mut [S]) -> Self {
        Self {
            history,
            settings: TriggerSettings::default(),
            axes: 1,
            len: 0,
            place: 0,
            held: 0,
            next: 0,
            state: State::Idle,
            rest_len: 0,
            rest_until: 0,
            every_len: 0,
            due_at: 0,
            missed: 0,
            missed_until: 0,
            quiet: Vec::new(),
            scale: 1.0,
        }
    }

    /// Starts anew at sample `next`, with `second` samples in a second and `scale` m/s² per count.
    pub fn set_up(&mut self, settings: &TriggerSettings, axes: usize, second: u64, scale: f32, next: u64) {
        let wanted = settings.after > 0 && (settings.level > 0.0 || settings.every_s > 0);
        let len = usize::from(settings.before) + usize::from(settings.after);
        self.axes = axes.max(1);
        // What does not fit was refused when the settings came; settings that were never checked release nothing.
        self.len = if wanted && len * self.axes <= self.history.len() { len } else { 0 };
        self.settings = *settings;
        self.scale = scale;
        self.rest_len = u64::from(settings.rest_s) * second;
        self.every_len = u64::from(settings.every_s) * second;
        self.due_at = next + self.every_len;
        (self.rest_until, self.missed_until, self.missed) = (next, next, 0);
        self.quiet.clear();
        self.interrupt(next);
    }

    /// Samples per channel of a burst; 0: none are released.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none are released.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// After a gap the history starts anew at sample `next`. A burst under way is taken by [`Bursts::cut_short`] before.
    pub fn interrupt(&mut self, next: u64) {
        (self.place, self.held, self.next) = (0, 0, next);
        self.state = State::Idle;
    }

    /// The means around which the level is measured, m/s².
    pub fn set_centre(&mut self, means: impl Iterator<Item = f32>) {
        let (level, scale) = (self.settings.level, self.scale);
        self.quiet =
            means.take(AXES_MAX).map(|mean| [(mean - level) / scale, (mean + level) / scale]).collect();
    }

    /// Bursts missed since this was last asked.
    pub const fn take_missed(&mut self) -> u32 {
        core::mem::replace(&mut self.missed, 0)
    }

    /// Takes samples, the first of them number `first`, up to where a burst is complete: returns how many, and the burst.
    /// `extremes` are the smallest and largest of them per channel, m/s²: where they do not exceed the level, nothing does.
    pub fn take(
        &mut self,
        first: u64,
        seen: &Seen<'_, S>,
        extremes: impl Iterator<Item = [f32; 2]>,
    ) -> (usize, Option<Release>) {
        let count = seen.until - seen.from;
        if self.len == 0 {
            self.next = first + count as u64;
            return (count, None);
        }
        let scale = self.scale;
        let loud = self.settings.level > 0.0
            && self
                .quiet
                .iter()
                .zip(extremes)
                .any(|([low, high], [least, most])| least / scale < *low || most / scale > *high);
        let mut used = 0;
        while used < count {
            let at = first + used as u64;
            match self.state {
                State::Idle => {
                    let found = self.find(first, seen, used, loud);
                    let end = found.map_or(count, |(place, _)| place);
                    self.keep(seen, used, end);
                    used = end;
                    if let Some((place, trigger)) = found {
                        let until = first + place as u64 + u64::from(self.settings.after);
                        self.state = State::Capturing { trigger, until };
                    }
                }
                State::Capturing { trigger, until } => {
                    let left = usize::try_from(until.saturating_sub(at)).unwrap_or(usize::MAX);
                    let end = used + left.min(count - used);
                    self.keep(seen, used, end);
                    used = end;
                    self.miss_due(first + used as u64);
                    if self.next >= until {
                        return (used, Some(self.release(trigger)));
                    }
                }
            }
        }
        (used, None)
    }

    /// The burst under way, as far as it has come: a gap or other settings end it.
    pub fn cut_short(&mut self) -> Option<Release> {
        let State::Capturing { trigger, .. } = self.state else { return None };
        (self.held > 0).then(|| self.release(trigger))
    }

    /// The samples of a burst that was just released.
    #[must_use]
    pub fn planar(&self, release: &Release) -> &[S] {
        self.history.get(..self.axes * release.frames).unwrap_or_default()
    }

    /// The first place from `used` on at which a burst is released, and by what.
    fn find(&mut self, first: u64, seen: &Seen<'_, S>, used: usize, loud: bool) -> Option<(usize, Trigger)> {
        let count = seen.until - seen.from;
        let due = if self.every_len == 0 { u64::MAX } else { self.due_at };
        for place in used..count {
            let sample = first + place as u64;
            if sample >= due {
                self.due_at = sample + self.every_len;
                return Some((place, Trigger { kind: TriggerKind::Periodic, sample, level: 0.0 }));
            }
            if !loud {
                // Only the time can release anything.
                if first + count as u64 <= due {
                    return None;
                }
                continue;
            }
            if !self.is_over(seen, place) {
                continue;
            }
            if sample >= self.rest_until {
                let level = self.settings.level;
                return Some((place, Trigger { kind: TriggerKind::Level, sample, level }));
            }
            if sample >= self.missed_until {
                self.missed = self.missed.saturating_add(1);
                self.missed_until = sample + self.len as u64;
            }
        }
        None
    }

    fn is_over(&self, seen: &Seen<'_, S>, place: usize) -> bool {
        self.quiet.iter().enumerate().any(|(axis, [low, high])| {
            let sample = seen.planar.get(axis * seen.per_channel + seen.from + place);
            sample.is_some_and(|sample| {
                let value = sample.value() as f32;
                value < *low || value > *high
            })
        })
    }

    /// The time for a burst came during another.
    fn miss_due(&mut self, now: u64) {
        if self.every_len > 0 && now > self.due_at {
            self.missed = self.missed.saturating_add(1);
            self.due_at += self.every_len;
        }
    }

    fn keep(&mut self, seen: &Seen<'_, S>, from: usize, until: usize) {
        self.next += (until - from) as u64;
        self.held = (self.held + until - from).min(self.len);
        // Of more than the history holds, only the last matter.
        let mut from = from.max(until.saturating_sub(self.len));
        while from < until {
            let run = (until - from).min(self.len - self.place);
            for axis in 0..self.axes {
                let start = axis * seen.per_channel + seen.from + from;
                let target = axis * self.len + self.place;
                let (Some(source), Some(target)) =
                    (seen.planar.get(start..start + run), self.history.get_mut(target..target + run))
                else {
                    continue;
                };
                target.copy_from_slice(source);
            }
            from += run;
            self.place = (self.place + run) % self.len;
        }
    }

    /// Puts the history in order, so that it is planar and ends with the newest sample.
    fn release(&mut self, trigger: Trigger) -> Release {
        self.state = State::Idle;
        self.rest_until = self.next + self.rest_len;
        let frames = self.held;
        for axis in 0..self.axes {
            if let Some(channel) = self.history.get_mut(axis * self.len..(axis + 1) * self.len) {
                channel.rotate_left(self.place);
            }
            if frames < self.len {
                let newest = (axis + 1) * self.len - frames;
                self.history.copy_within(newest..newest + frames, axis * frames);
            }
        }
        // What is closed up cannot go on.
        (self.place, self.held) = (0, if frames < self.len { 0 } else { frames });
        Release { trigger, first_sample: self.next - frames as u64, frames }
    }
}
