//! One sensor: from blocks to closed windows and rollups.

use super::emit::Emit;
use super::meters::Meters;
use super::quality::{Repeats, flag};
use super::rate::{RATE_OFF_MAX, Rate, RateEstimator, RateSource};
use super::settings::{Cut, Settings};
use super::spectral::{Plans, Spectral, Sweep};
use super::window::{Rollup, Window};
use crate::record::record_flags;
use serde::{Deserialize, Serialize};
use spindle_common::dsp::{Decimator, Frame, LANES, Moments, Velocity, to_frames};
use spindle_common::feature::{REDESIGN_MIN, settle_len};
use spindle_common::wire::{Features, block};

/// Samples that do not change for so long come from a sensor that is stuck.
const STUCK_S: f64 = 0.25;

/// ... but at least so many, for slow sensors and coarse ones.
const STUCK_LEN_MIN: u64 = 32;

/// Where a stream's samples come from; a change of it is a new run. Its form is saved: new kinds go at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// Every sample of a board's sensor.
    Board {
        node: String,
        boot: u64,
        stream: u8,
    },
    Json,
    /// Samples that the board thinned out: one for so many of the sensor's.
    Decimated {
        node: String,
        boot: u64,
        stream: u8,
        decimation: u16,
    },
    /// No samples: features that the board computed.
    Features {
        node: String,
        boot: u64,
        stream: u8,
    },
}

/// How a board's stream comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One sample for so many of the sensor's; 1: all.
    Samples(u16),
    Features,
}

/// A [`Source`] that owns nothing: comparing it costs no allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SourceRef<'a> {
    Board { node: &'a str, boot: u64, stream: u8, form: Form },
    Json,
}

impl Source {
    pub(crate) fn is(&self, other: SourceRef<'_>) -> bool {
        match other {
            SourceRef::Json => *self == Self::Json,
            SourceRef::Board { node, boot, stream, form } => self.board() == Some((node, boot, stream, form)),
        }
    }

    /// Node, boot, stream and form, if it is a board's.
    pub(crate) fn board(&self) -> Option<(&str, u64, u8, Form)> {
        Some(match self {
            Self::Board { node, boot, stream } => (node, *boot, *stream, Form::Samples(1)),
            Self::Decimated { node, boot, stream, decimation } => {
                (node, *boot, *stream, Form::Samples(*decimation))
            }
            Self::Features { node, boot, stream } => (node, *boot, *stream, Form::Features),
            Self::Json => return None,
        })
    }

    /// Whether both are of the same stream of the same boot, in whatever form.
    pub(crate) fn is_same_stream(&self, other: &Self) -> bool {
        let stream =
            |source: &Self| source.board().map(|(node, boot, stream, _)| (node.to_owned(), boot, stream));
        stream(self).is_some() && stream(self) == stream(other)
    }
}

/// What a record's samples look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShapeRef<'a> {
    pub(crate) source: SourceRef<'a>,
    pub(crate) axes: usize,
    pub(crate) rate_nominal_hz: f64,
}

impl ShapeRef<'_> {
    pub(crate) fn to_shape(self) -> Shape {
        let source = match self.source {
            SourceRef::Board { node, boot, stream, form } => {
                let node = node.to_owned();
                match form {
                    Form::Samples(1) => Source::Board { node, boot, stream },
                    Form::Samples(decimation) => Source::Decimated { node, boot, stream, decimation },
                    Form::Features => Source::Features { node, boot, stream },
                }
            }
            SourceRef::Json => Source::Json,
        };
        Shape { source, axes: self.axes, rate_nominal_hz: self.rate_nominal_hz }
    }
}

/// What a stream looks like; a change of it starts the windows anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) source: Source,
    pub(crate) axes: usize,
    pub(crate) rate_nominal_hz: f64,
}

/// Samples of one record, decoded.
pub(crate) struct Input<'a> {
    pub(crate) time_ns: i64,
    pub(crate) record_flags: u16,
    pub(crate) block_flags: u16,
    pub(crate) first_sample: u64,
    pub(crate) per_channel: usize,
    pub(crate) rate_node_hz: f64,
    /// Lowest and highest value that the sensor can give, m/s².
    pub(crate) range: Option<[f32; 2]>,
    /// m/s², planar.
    pub(crate) planar: &'a mut [f32],
}

/// The velocity band (none where the rate is too low for it) and the rate that filters are designed for, Hz.
pub(crate) type Design = (Option<(f64, f64)>, f64);

/// Filters over all channels, four at a time, since the last start or gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Filters {
    /// Rate that they are designed for.
    rate_hz: f64,
    /// First sample that they saw.
    since: u64,
    /// First sample at which velocity counts.
    settled_at: u64,
    velocity: Vec<Velocity>,
    decimators: Vec<Decimator>,
}

/// One run of one sensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub(crate) shape: Shape,
    pub(crate) rate: RateEstimator,
    /// Sample number and time of the newest block.
    anchor: (u64, i64),
    /// First sample not yet taken.
    pub(crate) next_sample: u64,
    /// End of the last window that was put out, for the count of samples missing before the next.
    pub(crate) emitted_to: u64,
    /// Samples that came too late since then.
    late: u64,
    filters: Option<Filters>,
    /// That of the newest filters, which may have ended in a gap.
    design: Option<Design>,
    repeats: Vec<Repeats>,
    window: Window,
    window_open: bool,
    rollup: Rollup,
    rollup_open: bool,
    /// Saved apart, see `state`.
    #[serde(skip)]
    pub(crate) meters: Meters,
    /// As well.
    #[serde(skip)]
    pub(crate) spectral: Spectral,
}

/// Buffers shared by all sensors of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) planar: Vec<f32>,
    frames: [Vec<Frame>; 2],
    plans: Plans,
}

impl Stream {
    pub(crate) fn new(shape: &ShapeRef<'_>, first_sample: u64, cut: Cut, earlier: Option<Rate>) -> Self {
        let axes = shape.axes;
        Self {
            rate: RateEstimator::new(shape.rate_nominal_hz, earlier),
            shape: shape.to_shape(),
            anchor: (first_sample, 0),
            next_sample: first_sample,
            // A stream that starts in mid-window has not lost what came before it.
            emitted_to: first_sample / cut.window_len * cut.window_len,
            late: 0,
            filters: None,
            design: None,
            repeats: vec![Repeats::default(); axes],
            window: Window::new(0, 0, axes),
            window_open: false,
            rollup: Rollup::new(0, 0, axes),
            rollup_open: false,
            meters: Meters::new(axes),
            spectral: Spectral::default(),
        }
    }

    /// Whether samples of this shape go on with this stream.
    pub(crate) fn is_of(&self, shape: &ShapeRef<'_>) -> bool {
        self.shape.source.is(shape.source)
            && self.shape.axes == shape.axes
            && self.shape.rate_nominal_hz == shape.rate_nominal_hz
    }

    /// Whether the parts of a restored state fit each other, so that nothing can go out of bounds.
    pub(crate) fn is_sound(&self) -> bool {
        let axes = self.shape.axes;
        let groups = axes.div_ceil(LANES);
        (1..=spindle_common::wire::AXES_MAX).contains(&axes)
            && self.shape.rate_nominal_hz.is_finite()
            && self.shape.rate_nominal_hz > 0.0
            && self.repeats.len() == axes
            && self.meters.is_sound(axes)
            && self.spectral.is_sound(axes)
            && self.window.moments.len() == axes
            && self.window.saturated.len() == axes
            && self.window.velocity.len() == groups
            && self.rollup.moments.len() == axes
            && self.rollup.downsampled.values.len().is_multiple_of(axes)
            && self
                .filters
                .as_ref()
                .is_none_or(|f| f.velocity.len() <= groups && f.decimators.len() <= groups)
    }

    /// UTC of a sample, from the newest block and the measured rate.
    pub(crate) fn time_of(&self, sample: u64, rate_hz: f64) -> i64 {
        let (known, time_ns) = self.anchor;
        let ahead = sample.cast_signed().wrapping_sub(known.cast_signed());
        time_ns.saturating_add(libm::round(ahead as f64 * 1e9 / rate_hz) as i64)
    }

    /// The velocity band and the rate that the filters are designed for.
    pub(crate) fn design(&self) -> Option<Design> {
        self.design
    }

    /// Takes a block's samples, closing every window and rollup that they complete.
    pub(crate) fn take(&mut self, input: &mut Input<'_>, scratch: &mut Scratch, emit: &mut Emit<'_>) {
        let cut = emit.settings.cut(self.shape.rate_nominal_hz);
        let per_channel = input.per_channel as u64;
        let end = input.first_sample.saturating_add(per_channel);
        if input.record_flags & record_flags::LATE != 0 || end <= self.next_sample {
            self.add_late(per_channel, emit);
            return;
        }
        self.rate.observe(input.first_sample, input.time_ns, input.rate_node_hz, cut.window_len);
        if input.first_sample > self.next_sample {
            self.skip_to(input.first_sample, cut, emit);
        }
        self.anchor = (input.first_sample, input.time_ns);
        let overlap = self.next_sample.saturating_sub(input.first_sample);
        if overlap > 0 {
            self.add_late(overlap, emit);
        }
        let mut non_finite = hold_non_finite(input.planar);
        let groups = self.shape.axes.div_ceil(LANES);
        for (group, frames) in scratch.frames.iter_mut().enumerate().take(groups) {
            frames.resize(input.per_channel, [0.0; LANES]);
            to_frames(input.planar, input.per_channel, group * LANES, frames);
        }
        let flags = flags_of(input.record_flags, input.block_flags, non_finite);
        let mut at = overlap as usize;
        while at < input.per_channel {
            let sample = input.first_sample + at as u64;
            self.open(sample, cut, emit, scratch, at);
            let window_end = (self.window.index + 1) * cut.window_len;
            let rollup_end = (self.rollup.index + 1) * cut.rollup_len;
            let stop = end.min(window_end).min(rollup_end);
            let until = at + (stop - sample) as usize;
            self.absorb(input, at..until, sample, scratch, cut, emit);
            self.window.flags |= flags;
            self.rollup.flags |= flags;
            self.window.non_finite += std::mem::take(&mut non_finite);
            self.next_sample = stop;
            at = until;
            if stop == window_end {
                self.close_window(cut, emit);
            }
            if stop == rollup_end {
                self.close_rollup(cut, emit);
            }
        }
    }

    /// Notes that the samples up to `sample` will never come: closes what they complete and starts the filters anew.
    pub(crate) fn skip_to(&mut self, sample: u64, cut: Cut, emit: &mut Emit<'_>) {
        if sample <= self.next_sample {
            return;
        }
        self.next_sample = sample;
        self.filters = None;
        self.repeats.iter_mut().for_each(Repeats::reset);
        if self.window_open && sample >= (self.window.index + 1) * cut.window_len {
            self.close_window(cut, emit);
        }
        if self.rollup_open && sample >= (self.rollup.index + 1) * cut.rollup_len {
            self.close_rollup(cut, emit);
        }
    }

    /// Takes a window of features in place of samples: nothing is left open. Gives what the window is to be put out with.
    pub(crate) fn take_features(&mut self, features: &Features<'_>, time_ns: i64, record_flags: u16) -> Rate {
        let samples = u64::from(features.samples);
        let node_hz = f64::from(features.rate_measured_mhz) / 1000.0;
        let nominal_hz = self.shape.rate_nominal_hz;
        let is_off = node_hz > 0.0 && (node_hz / nominal_hz - 1.0).abs() > RATE_OFF_MAX;
        let rate = match node_hz > 0.0 {
            true => Rate { hz: node_hz, source: RateSource::Node, is_off },
            false => Rate { hz: nominal_hz, source: RateSource::Nominal, is_off },
        };
        self.window.reuse(features.first_sample / samples, time_ns);
        for moments in &mut self.window.moments {
            moments.count = samples;
        }
        self.window.settled = samples;
        let saturated = if features.flags & block::flags::SATURATED != 0 { flag::SATURATED } else { 0 };
        self.window.flags = flags_of(record_flags, features.flags, 0) | saturated;
        self.next_sample = features.first_sample.saturating_add(samples);
        self.anchor = (features.first_sample, time_ns);
        self.window.late = std::mem::take(&mut self.late);
        rate
    }

    /// The window under way, or the last one.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Puts out what is open: the run has ended.
    pub(crate) fn finish(&mut self, emit: &mut Emit<'_>) {
        let cut = emit.settings.cut(self.shape.rate_nominal_hz);
        if self.window_open {
            self.close_window(cut, emit);
        }
        if self.rollup_open {
            self.close_rollup(cut, emit);
        }
        let sweep = self.spectral.take_sweep();
        self.put_out_spectrum(sweep, cut, emit);
    }

    fn put_out_spectrum(&mut self, sweep: Option<Box<Sweep>>, cut: Cut, emit: &mut Emit<'_>) {
        if let Some(sweep) = sweep {
            emit.spectrum(self, &sweep, cut, self.rate.best());
        }
    }

    fn add_late(&mut self, samples: u64, emit: &mut Emit<'_>) {
        self.late += samples;
        emit.stats.late_samples += samples * self.shape.axes as u64;
    }

    fn open(&mut self, sample: u64, cut: Cut, emit: &mut Emit<'_>, scratch: &Scratch, at: usize) {
        let settings = emit.settings;
        let rate_hz = self.rate.best().hz;
        if !self.window_open {
            let index = sample / cut.window_len;
            let place = settings.place(emit.key, index);
            let older = self.spectral.take_older(place.cycle);
            self.put_out_spectrum(older, cut, emit);
            let Shape { axes, rate_nominal_hz, .. } = self.shape;
            let segment_len = settings.segment_len(cut.window_len, rate_nominal_hz, axes);
            let lens = [cut.window_len, segment_len as u64];
            self.spectral.open(index, place, lens, axes, settings, settings.machine(emit.key));
            self.spectral.restart(sample);
            let start_ns = self.time_of(index * cut.window_len, rate_hz);
            self.window.reuse(index, start_ns);
            self.meters.reuse();
            self.window_open = true;
            if self.filters.as_ref().is_some_and(|f| (rate_hz / f.rate_hz - 1.0).abs() > REDESIGN_MIN) {
                self.filters = None;
            }
        }
        if !self.rollup_open {
            let index = sample / cut.rollup_len;
            let start_ns = self.time_of(index * cut.rollup_len, rate_hz);
            self.rollup.reuse(index, start_ns);
            self.rollup_open = true;
        }
        if self.filters.is_none() {
            let filters = Filters::start(sample, rate_hz, cut, settings, scratch, at, self.shape.axes);
            let first = |group: usize| scratch.frames[group].get(at).copied().unwrap_or_default();
            self.meters.start(sample, rate_hz, settings, first);
            self.spectral.restart(sample);
            self.design = Some((filters.velocity.first().map(Velocity::band_hz), rate_hz));
            self.filters = Some(filters);
        }
    }

    fn absorb(
        &mut self,
        input: &Input<'_>,
        range: std::ops::Range<usize>,
        sample: u64,
        scratch: &mut Scratch,
        cut: Cut,
        emit: &Emit<'_>,
    ) {
        let rate_hz = self.rate.best().hz;
        let stuck_len = ((STUCK_S * rate_hz) as u64).max(STUCK_LEN_MIN);
        for axis in 0..self.shape.axes {
            let start = axis * input.per_channel;
            let samples = &input.planar[start + range.start..start + range.end];
            let moments = Moments::of(samples);
            if let Some([low, high]) = input.range
                && (moments.min <= low || moments.max >= high)
            {
                let count = samples.iter().filter(|s| **s <= low || **s >= high).count() as u64;
                self.window.saturated[axis] += count;
                self.window.flags |= flag::SATURATED;
                self.rollup.flags |= flag::SATURATED;
            }
            if self.repeats[axis].has_run_of(samples, stuck_len) {
                self.window.stuck |= 1 << axis;
                self.window.flags |= flag::STUCK;
                self.rollup.flags |= flag::STUCK;
            }
            self.window.moments[axis].merge(&moments);
            self.rollup.moments[axis].merge(&moments);
        }
        self.filter(range, sample, scratch, cut, rate_hz, emit);
    }

    fn filter(
        &mut self,
        range: std::ops::Range<usize>,
        sample: u64,
        scratch: &mut Scratch,
        cut: Cut,
        rate_hz: f64,
        emit: &Emit<'_>,
    ) {
        let (known, known_ns) = self.anchor;
        let axes = self.shape.axes;
        let Some(filters) = &mut self.filters else { return };
        let len = range.len();
        let unsettled = filters.settled_at.saturating_sub(sample).min(len as u64) as usize;
        for (velocity, (frames, sums)) in
            filters.velocity.iter_mut().zip(scratch.frames.iter().zip(&mut self.window.velocity))
        {
            let frames = &frames[range.clone()];
            velocity.energy(&frames[..unsettled]);
            let energy = velocity.energy(&frames[unsettled..]);
            for lane in 0..LANES {
                sums[lane] += energy[lane];
            }
        }
        self.window.settled += (len - unsettled) as u64;
        let [first, second] = &scratch.frames;
        let groups = [&first[range.clone()], second.get(range.clone()).unwrap_or_default()];
        self.meters.take(groups, sample, unsettled);
        let rates = [filters.rate_hz, self.shape.rate_nominal_hz];
        let machine = emit.settings.machine(emit.key);
        self.spectral.take(groups, rates, emit.settings, machine, &mut scratch.plans);
        let downsampled = &mut self.rollup.downsampled;
        let since = filters.since;
        let time_of = |centre: u64| {
            let ahead = centre.cast_signed().wrapping_sub(known.cast_signed());
            known_ns.saturating_add(libm::round(ahead as f64 * 1e9 / rate_hz) as i64)
        };
        match &mut filters.decimators[..] {
            [one] => {
                let delay = one.delay();
                one.push(&first[range], |centre, frame| {
                    if centre >= since + delay {
                        let values = frame.into_iter().take(axes);
                        downsampled.push(centre, cut.factor, time_of(centre), values, axes);
                    }
                });
            }
            [one, other] => {
                // Both have the same factor and have seen the same samples: their outputs come at the same places.
                let delay = one.delay();
                let mut upper = Vec::new();
                other.push(&second[range.clone()], |_, frame| upper.push(frame));
                let mut upper = upper.into_iter();
                one.push(&first[range], |centre, frame| {
                    let above = upper.next().unwrap_or([f32::NAN; LANES]);
                    if centre >= since + delay {
                        let values = frame.into_iter().chain(above).take(axes);
                        downsampled.push(centre, cut.factor, time_of(centre), values, axes);
                    }
                });
            }
            _ => {}
        }
    }

    fn close_window(&mut self, cut: Cut, emit: &mut Emit<'_>) {
        let rate = self.rate.best();
        let end = (self.window.index + 1) * cut.window_len;
        let end_ns = self.time_of(end, rate.hz);
        let length_ns = length_ns(cut.window_len, rate.hz);
        if has_jumped(self.window.start_ns, end_ns, length_ns) {
            self.window.flags |= flag::CLOCK_DOUBTFUL;
        }
        self.window.start_ns = end_ns.saturating_sub(length_ns);
        self.window.late = std::mem::take(&mut self.late);
        if self.meters.has_shifted(&self.window.moments, emit.settings.pipeline.bias_shift_max) {
            self.window.flags |= flag::BIAS_SHIFT;
        }
        let flags = emit.window(self, &self.window, cut, rate, end_ns);
        self.emitted_to = end;
        self.window_open = false;
        let index = self.window.index;
        let sweep = self.spectral.close(index, flags, emit.settings.place(emit.key, index).is_last);
        self.put_out_spectrum(sweep, cut, emit);
    }

    fn close_rollup(&mut self, cut: Cut, emit: &mut Emit<'_>) {
        let rate = self.rate.best();
        let end_ns = self.time_of((self.rollup.index + 1) * cut.rollup_len, rate.hz);
        let length_ns = length_ns(cut.rollup_len, rate.hz);
        if has_jumped(self.rollup.start_ns, end_ns, length_ns) {
            self.rollup.flags |= flag::CLOCK_DOUBTFUL;
        }
        self.rollup.start_ns = end_ns.saturating_sub(length_ns);
        emit.rollup(self, &self.rollup, cut, rate, end_ns);
        self.rollup_open = false;
    }
}

impl Filters {
    fn start(
        sample: u64,
        rate_hz: f64,
        cut: Cut,
        settings: &Settings,
        scratch: &Scratch,
        at: usize,
        axes: usize,
    ) -> Self {
        let [low_hz, high_hz] = settings.pipeline.velocity_band_hz;
        let groups = axes.div_ceil(LANES);
        let first = |group: usize| scratch.frames[group].get(at).copied().unwrap_or_default();
        // A rate too low for the band leaves velocity out; so does a factor without a decimator.
        let velocity = (0..groups).map_while(|group| {
            let mut velocity = Velocity::new(low_hz, high_hz, rate_hz).ok()?;
            velocity.settle(first(group).map(f64::from));
            Some(velocity)
        });
        let decimators = (0..groups).map_while(|group| {
            let mut decimator = Decimator::new(cut.factor).ok()?;
            decimator.restart(sample, first(group));
            Some(decimator)
        });
        Self {
            rate_hz,
            since: sample,
            settled_at: sample.saturating_add(settle_len(low_hz, rate_hz)),
            velocity: velocity.collect(),
            decimators: decimators.collect(),
        }
    }
}

fn length_ns(samples: u64, rate_hz: f64) -> i64 {
    libm::round(samples as f64 * 1e9 / rate_hz) as i64
}

/// Whether the clock moved by more than a tenth of a window between its start and its end. The window then ends by the new
/// time, and is as long as its samples are: alerts count time by windows, and a clock must not lengthen them.
fn has_jumped(start_ns: i64, end_ns: i64, length_ns: i64) -> bool {
    end_ns.saturating_sub(start_ns).abs_diff(length_ns) > length_ns.unsigned_abs() / 10
}

/// Puts the value before it in the place of each sample that is not finite; returns how many there were.
fn hold_non_finite(planar: &mut [f32]) -> u64 {
    // One pass that the compiler vectorises: a sum of zeros stays zero unless something is infinite or NaN.
    if planar.iter().map(|s| s * 0.0).sum::<f32>() == 0.0 {
        return 0;
    }
    let mut count = 0;
    let mut last = 0.0;
    for sample in planar {
        if sample.is_finite() {
            last = *sample;
        } else {
            *sample = last;
            count += 1;
        }
    }
    count
}

fn flags_of(of_record: u16, of_block: u16, non_finite: u64) -> u16 {
    let pairs = [
        (of_record & record_flags::CLOCK_ARRIVAL != 0, flag::CLOCK_ARRIVAL),
        (of_record & record_flags::CLOCK_DOUBTFUL != 0, flag::CLOCK_DOUBTFUL),
        (of_block & block::flags::OVERRUN != 0, flag::OVERRUN),
        (of_block & block::flags::SELF_TEST != 0, flag::SELF_TEST),
        (of_block & block::flags::RESTART != 0, flag::RESTART),
        (of_block & block::flags::SYNTHETIC != 0, flag::SYNTHETIC),
        (non_finite > 0, flag::NON_FINITE),
    ];
    pairs.iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, bit)| flags | bit)
}
