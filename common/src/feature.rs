//! Features of a window: what the gateway computes from raw samples, and what a node computes in place of them.
//!
//! Both go from the same accumulated sums ([`Moments`], velocity energy) to numbers by [`Values::of`], start their filters by the
//! same rule, and wait for them to settle equally long. The gateway accumulates in double precision; a node, whose processor has
//! single precision only, by [`Meter`], which agrees within 0.01 % (velocity 0.1 %).

use crate::dsp::moments::SINGLE_LEN;
use crate::dsp::{Moments, SingleVelocity};
use crate::wire::{AXES_MAX, AxisFeatures};
use heapless::Vec;

/// The velocity band of ISO 2954, Hz.
pub const VELOCITY_BAND_HZ: [f64; 2] = [10.0, 1000.0];

/// Filters are designed anew, and settle again, when the measured rate has moved this far from the one they are made for.
pub const REDESIGN_MIN: f64 = 0.005;

/// Periods of the velocity band's lower edge until the filters have settled: the slowest poles of the third-order high-pass at
/// 0.85 of the edge decay by e^(-0.85 pi) a period, so 0.00002 of a step is left.
const SETTLE_PERIODS: f64 = 4.0;

/// Samples that the velocity's filters need before their output counts.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
pub fn settle_len(low_hz: f64, rate_hz: f64) -> u64 {
    libm::ceil(SETTLE_PERIODS / low_hz * rate_hz) as u64
}

/// One channel's features over one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values {
    /// Acceleration RMS, mean removed, m/s².
    pub rms: f64,
    /// Largest magnitude, mean removed, m/s².
    pub peak: f64,
    /// Peak to peak, m/s².
    pub peak_to_peak: f64,
    /// Peak over RMS; nothing for a constant.
    pub crest: Option<f64>,
    /// Pearson kurtosis; nothing for a constant.
    pub kurtosis: Option<f64>,
    /// Velocity RMS in the band, mm/s; nothing where no sample is settled or the rate is too low.
    pub velocity_rms: Option<f64>,
    /// The mean that was removed, m/s².
    pub mean: f64,
}

/// What velocity is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Energy {
    /// Sum of squared velocities, (mm/s)² at the rate that the filters are designed for.
    pub sum: f64,
    /// Samples in it.
    pub settled: u64,
    /// That rate over the true one: an integrator at the wrong rate is wrong by it.
    pub rate_factor: f64,
}

impl Values {
    /// From a window's moments and velocity energy.
    #[must_use]
    pub fn of(moments: &Moments, energy: Option<Energy>) -> Self {
        let velocity = energy
            .filter(|energy| energy.settled > 0)
            .map(|energy| energy.rate_factor * libm::sqrt(energy.sum / energy.settled as f64));
        Self {
            rms: moments.rms(),
            peak: moments.peak(),
            peak_to_peak: moments.peak_to_peak(),
            crest: moments.crest(),
            kurtosis: moments.kurtosis(),
            velocity_rms: velocity,
            mean: moments.mean,
        }
    }

    /// As a node sends them; what is not known is 0.
    #[must_use]
    pub fn on_wire(&self) -> AxisFeatures {
        let finite = |value: f64| {
            let value = value as f32;
            if value.is_finite() { value } else { 0.0 }
        };
        AxisFeatures {
            rms: finite(self.rms),
            peak: finite(self.peak),
            peak_to_peak: finite(self.peak_to_peak),
            kurtosis: finite(self.kurtosis.unwrap_or(0.0)),
            velocity_rms: finite(self.velocity_rms.unwrap_or(0.0)),
            mean: finite(self.mean),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Channel {
    moments: Moments,
    /// None where the rate is too low for the velocity band.
    velocity: Option<SingleVelocity>,
    energy: f64,
    /// Moments of the samples taken last: what a trigger looks at.
    newest: Moments,
}

/// Accumulates one sensor's window in single precision, up to eight channels. About 1.5 kB.
#[derive(Debug, Clone, PartialEq)]
pub struct Meter {
    channels: Vec<Channel, AXES_MAX>,
    rate_hz: f64,
    /// First sample at which velocity counts; none before the filters were started.
    settled_at: Option<u64>,
    settled: u64,
}

impl Meter {
    /// For so many channels, at most eight.
    #[must_use]
    pub fn new(axes: usize) -> Self {
        let channel =
            Channel { moments: Moments::EMPTY, velocity: None, energy: 0.0, newest: Moments::EMPTY };
        let channels = core::iter::repeat_n(channel, axes.min(AXES_MAX)).collect();
        Self { channels, rate_hz: 0.0, settled_at: None, settled: 0 }
    }

    /// Channels.
    #[must_use]
    pub fn axes(&self) -> usize {
        self.channels.len()
    }

    /// Samples per channel in the window so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.channels.first().map_or(0, |channel| channel.moments.count)
    }

    /// After a gap: the filters start anew with the next samples.
    pub fn interrupt(&mut self) {
        self.settled_at = None;
    }

    /// Between two windows: when the rate as measured has moved too far from the one that the filters are for, they start anew.
    pub fn adapt(&mut self, rate_hz: f64) {
        if self.rate_hz > 0.0 && libm::fabs(rate_hz / self.rate_hz - 1.0) > REDESIGN_MIN {
            self.interrupt();
        }
    }

    /// Takes samples of one channel after the other: `fill(channel, from, out)` writes those from place `from` on, in m/s².
    /// The first has index `first_sample`; there are `count`, and `rate_hz` is the rate as well as it is known.
    pub fn take(
        &mut self,
        first_sample: u64,
        count: usize,
        rate_hz: f64,
        mut fill: impl FnMut(usize, usize, &mut [f32]),
    ) {
        if count == 0 {
            return;
        }
        let starts = self.settled_at.is_none();
        if starts {
            self.rate_hz = rate_hz;
        }
        let settled_at = *self
            .settled_at
            .get_or_insert(first_sample.saturating_add(settle_len(VELOCITY_BAND_HZ[0], rate_hz)));
        let unsettled = usize::try_from(settled_at.saturating_sub(first_sample)).unwrap_or(usize::MAX);
        let unsettled = unsettled.min(count);
        let mut buffer = [0.0; SINGLE_LEN];
        for (axis, channel) in self.channels.iter_mut().enumerate() {
            channel.newest = Moments::EMPTY;
            let mut at = 0;
            while at < count {
                let Some(samples) = buffer.get_mut(..SINGLE_LEN.min(count - at)) else { break };
                fill(axis, at, samples);
                if starts && at == 0 {
                    let [low_hz, high_hz] = VELOCITY_BAND_HZ;
                    channel.velocity = SingleVelocity::new(low_hz, high_hz, rate_hz).ok();
                    if let Some(velocity) = &mut channel.velocity {
                        velocity.settle(samples[0]);
                    }
                }
                channel.newest.merge(&Moments::of_single(samples));
                if let Some(velocity) = &mut channel.velocity {
                    let (early, late) = samples.split_at(unsettled.saturating_sub(at).min(samples.len()));
                    velocity.energy(early);
                    channel.energy += velocity.energy(late);
                }
                at += samples.len();
            }
            let newest = channel.newest;
            channel.moments.merge(&newest);
        }
        self.settled += (count - unsettled) as u64;
    }

    /// Whether the filters were settled for all of the window so far.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled == self.samples()
    }

    /// Smallest and largest of the samples taken last, per channel, m/s².
    pub fn newest(&self) -> impl Iterator<Item = [f32; 2]> + '_ {
        self.channels.iter().map(|channel| [channel.newest.min, channel.newest.max])
    }

    /// Means of the window so far, m/s².
    pub fn means(&self) -> impl Iterator<Item = f32> + '_ {
        self.channels.iter().map(|channel| channel.moments.mean as f32)
    }

    /// The window's features at the rate as measured, and a new window.
    pub fn close(&mut self, rate_hz: f64) -> Vec<AxisFeatures, AXES_MAX> {
        let (settled, rate_factor) = (self.settled, self.rate_hz / rate_hz);
        self.settled = 0;
        let close = |channel: &mut Channel| {
            let energy = Energy { sum: core::mem::take(&mut channel.energy), settled, rate_factor };
            let moments = core::mem::replace(&mut channel.moments, Moments::EMPTY);
            Values::of(&moments, channel.velocity.map(|_| energy)).on_wire()
        };
        self.channels.iter_mut().map(close).collect()
    }
}
