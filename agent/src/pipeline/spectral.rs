//! A stream's spectra: segments of its windows, the bands' power in each window, and a sweep that is averaged for a record.
//!
//! Segments begin anew with each window and after each gap, so that between two windows nothing is held but sums. A sweep holds its
//! averages over the last windows of each cycle only, and no memory in between. Cycles of different sensors are staggered by their keys.

use super::lines::{Envelopes, MachineLines};
use super::settings::{Settings, fnv1a};
use crate::record::SensorKey;
use serde::{Deserialize, Serialize};
use spindle_common::dsp::{
    Analyser, Average, Averaging, BandSum, Bin, Envelope, Frame, Grid, Kurtogram, LANES, Scaling, Segmenter,
    Window,
};

/// Bands of a kurtogram's finest level.
const KURTOGRAM_BANDS: usize = 8;

/// Most envelope plans kept, 200 bytes a sample of their segments each; a kurtogram of [`KURTOGRAM_BANDS`] has 24 bands.
const ENVELOPES_MAX: usize = 24;

/// Buffers and plans for segments, shared by all sensors of a pipeline: one for each length, of which there are a few dozen.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    analysers: Vec<Analyser>,
    density: Vec<Bin>,
    kurtograms: Vec<Kurtogram>,
    /// The one used longest ago first.
    envelopes: Vec<(usize, [f64; 3], Envelope)>,
}

impl Plans {
    pub(crate) fn kurtogram(&mut self, len: usize) -> Option<&mut Kurtogram> {
        let known = self.kurtograms.iter().position(|kurtogram| kurtogram.len() == len);
        let index = match known {
            Some(index) => index,
            None => {
                self.kurtograms.push(Kurtogram::new(len, KURTOGRAM_BANDS).ok()?);
                self.kurtograms.len() - 1
            }
        };
        self.kurtograms.get_mut(index)
    }

    /// Nothing where the band does not fit the rate.
    pub(crate) fn envelope(
        &mut self,
        len: usize,
        [low_hz, high_hz]: [f64; 2],
        rate_hz: f64,
    ) -> Option<&mut Envelope> {
        let key = (len, [low_hz, high_hz, rate_hz]);
        let plan = match self.envelopes.iter().position(|(len, edges, _)| (*len, *edges) == key) {
            Some(index) => self.envelopes.remove(index).2,
            None => Envelope::new(len, low_hz, high_hz, rate_hz).ok()?,
        };
        if self.envelopes.len() == ENVELOPES_MAX {
            self.envelopes.remove(0);
        }
        self.envelopes.push((key.0, key.1, plan));
        self.envelopes.last_mut().map(|(_, _, plan)| plan)
    }

    fn analyser(&mut self, len: usize) -> Option<(&mut Analyser, &mut Vec<Bin>)> {
        let known = self.analysers.iter().position(|analyser| analyser.len() == len);
        let index = match known {
            Some(index) => index,
            None => {
                self.analysers.push(Analyser::new(len, Window::Hann).ok()?);
                self.analysers.len() - 1
            }
        };
        Some((self.analysers.get_mut(index)?, &mut self.density))
    }
}

/// One stream's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spectral {
    /// One a group of channels; none while nothing is taken from spectra.
    segmenters: Vec<Segmenter>,
    /// Sums of the bands' mean squares over the window's segments: the groups of the first band, then of the next.
    bands: Vec<Bin>,
    /// Segments of the window, of each channel.
    segments: u64,
    sweep: Option<Box<Sweep>>,
}

/// The spectrum in the making.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sweep {
    cycle: u64,
    pub(crate) first_window: u64,
    pub(crate) last_window: u64,
    pub(crate) segments: u64,
    /// Quality flags of its windows.
    pub(crate) flags: u16,
    /// One a group of channels.
    pub(crate) averages: Vec<Average>,
    /// As many, or none.
    pub(crate) peaks: Vec<Average>,
    /// For bearings.
    pub(crate) envelopes: Option<Envelopes>,
}

/// Where a window lies among the cycles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) cycle: u64,
    /// Its spectrum counts.
    pub(crate) is_swept: bool,
    /// The cycle ends with it.
    pub(crate) is_last: bool,
}

impl Spectral {
    /// Whether a restored state fits so many channels.
    pub(crate) fn is_sound(&self, axes: usize) -> bool {
        let groups = axes.div_ceil(LANES);
        (self.segmenters.is_empty() || self.segmenters.len() == groups)
            && self.sweep.as_ref().is_none_or(|sweep| sweep.is_sound(groups))
    }

    /// Begins the window `index`; the caller has taken what is left of an older cycle.
    pub(crate) fn open(
        &mut self,
        index: u64,
        place: Place,
        [window_len, segment_len]: [u64; 2],
        axes: usize,
        settings: &Settings,
        machine: Option<&MachineLines>,
    ) {
        let groups = axes.div_ceil(LANES);
        let segment_len = segment_len as usize;
        let bands = settings.pipeline.bands.len();
        self.segments = 0;
        self.bands.resize(bands * groups, [0.0; LANES]);
        self.bands.fill([0.0; LANES]);
        if bands == 0 && !place.is_swept {
            self.segmenters = Vec::new();
            return;
        }
        if self.segmenters.first().is_none_or(|segmenter| segmenter.segment_len() != segment_len) {
            self.segmenters = vec![Segmenter::new(segment_len, segment_len / 2); groups];
        }
        if place.is_swept && self.sweep.is_none() {
            let windows = settings.sweep_windows().1;
            let segments = windows.saturating_mul((window_len / segment_len as u64 * 2).saturating_sub(1));
            let of = |averaging| vec![Average::new(averaging, segment_len / 2 + 1); groups];
            let peak_hold = settings.pipeline.spectrum.peak_hold;
            let wants_envelope = machine.is_some_and(MachineLines::has_bearings);
            let band_hz = settings.pipeline.spectrum.envelope_band_hz;
            self.sweep = Some(Box::new(Sweep {
                cycle: place.cycle,
                first_window: index,
                last_window: index,
                segments: 0,
                flags: 0,
                averages: of(Averaging::Linear),
                peaks: if peak_hold { of(Averaging::PeakHold) } else { Vec::new() },
                envelopes: wants_envelope.then(|| Envelopes::new(band_hz, segments)),
            }));
        }
    }

    /// The next frame is number `sample`, whatever came before.
    pub(crate) fn restart(&mut self, sample: u64) {
        self.segmenters.iter_mut().for_each(|segmenter| segmenter.restart(sample));
    }

    /// Takes frames of each group at the sample rate that filters are designed for, and the nominal one.
    pub(crate) fn take(
        &mut self,
        frames: [&[Frame]; 2],
        [rate_hz, rate_nominal_hz]: [f64; 2],
        settings: &Settings,
        machine: Option<&MachineLines>,
        plans: &mut Plans,
    ) {
        let Self { segmenters, bands, segments, sweep } = self;
        let groups = segmenters.len();
        for (group, (segmenter, frames)) in segmenters.iter_mut().zip(frames).enumerate() {
            let len = segmenter.segment_len();
            segmenter.push(frames, |_, segment| {
                if let (Some(sweep), Some(machine)) = (&mut *sweep, machine)
                    && let Some(envelopes) = &mut sweep.envelopes
                {
                    envelopes.add(segment, [group, groups], rate_nominal_hz, machine, plans);
                }
                let Some((analyser, density)) = plans.analyser(len) else { return };
                let scale = analyser.scale(Scaling::Density, rate_hz);
                let squares = analyser.squares(segment);
                *segments += u64::from(group == 0);
                if let Some(sweep) = sweep {
                    sweep.add(group, squares);
                }
                if bands.is_empty() {
                    return;
                }
                density.clear();
                let of_bin = |(bin, square): (usize, &Frame)| square.map(|s| scale.of(bin, f64::from(s)));
                density.extend(squares.iter().enumerate().map(of_bin));
                let sums = bands.iter_mut().skip(group).step_by(groups);
                for (sum, band) in sums.zip(&settings.pipeline.bands) {
                    let Some(band) = BandSum::new(band.low_hz, band.high_hz, Grid { len, rate_hz }) else {
                        continue;
                    };
                    let power = band.mean_square(density);
                    for (sum, power) in sum.iter_mut().zip(power) {
                        *sum += power;
                    }
                }
            });
        }
    }

    /// RMS in a band over the window's segments; nothing when there was none.
    pub(crate) fn band_rms(&self, band: usize, axis: usize) -> Option<f64> {
        let sum = self.bands.get(band * self.segmenters.len() + axis / LANES)?;
        (self.segments > 0).then(|| libm::sqrt(sum[axis % LANES] / self.segments as f64))
    }

    /// Ends the window `index`, which has these flags; gives the sweep that its cycle ends with.
    pub(crate) fn close(&mut self, index: u64, flags: u16, is_last: bool) -> Option<Box<Sweep>> {
        let sweep = self.sweep.as_mut()?;
        sweep.last_window = index;
        sweep.flags |= flags;
        if is_last { self.take_sweep() } else { None }
    }

    /// The sweep of another cycle than `cycle`: windows are missing at its end.
    pub(crate) fn take_older(&mut self, cycle: u64) -> Option<Box<Sweep>> {
        if self.sweep.as_ref()?.cycle == cycle { None } else { self.take_sweep() }
    }

    /// The sweep as far as it came; nothing when it holds no segment.
    pub(crate) fn take_sweep(&mut self) -> Option<Box<Sweep>> {
        self.sweep.take().filter(|sweep| sweep.segments > 0)
    }
}

impl Sweep {
    fn is_sound(&self, groups: usize) -> bool {
        self.averages.len() == groups
            && self.last_window >= self.first_window
            && self.envelopes.as_ref().is_none_or(|envelopes| envelopes.is_sound(groups))
            && (self.peaks.is_empty() || self.peaks.len() == groups)
            && self.averages.iter().chain(&self.peaks).all(|average| average.bins() == self.bins())
    }

    pub(crate) fn bins(&self) -> usize {
        self.averages.first().map_or(0, Average::bins)
    }

    fn add(&mut self, group: usize, squares: &[Frame]) {
        self.segments += u64::from(group == 0);
        if let Some(average) = self.averages.get_mut(group) {
            average.add(squares);
        }
        if let Some(peak) = self.peaks.get_mut(group) {
            peak.add(squares);
        }
    }
}

impl Settings {
    /// Windows of a cycle, and those of them that a spectrum is averaged over.
    fn sweep_windows(&self) -> (u64, u64) {
        let spectrum = &self.pipeline.spectrum;
        let windows = |length: std::time::Duration| {
            let windows = libm::round(length.as_secs_f64() / self.pipeline.window.as_secs_f64());
            (windows as u64).max(1)
        };
        let every = windows(spectrum.every);
        (every, windows(spectrum.average).min(every))
    }

    /// Where window `index` of a sensor lies.
    pub(crate) fn place(&self, key: &SensorKey, index: u64) -> Place {
        if !self.pipeline.spectrum.enabled {
            return Place { cycle: 0, is_swept: false, is_last: false };
        }
        let (every, average) = self.sweep_windows();
        let at = index.saturating_add(fnv1a(&[&key.site, &key.machine, &key.sensor]) % every);
        Place { cycle: at / every, is_swept: at % every >= every - average, is_last: at % every == every - 1 }
    }
}
