//! Signal processing for vibration: filters, integration, moments, rate conversion, and on hosts spectra and what is read from them.
//!
//! Four channels go through together, one [`Frame`] a sample, so that the compiler keeps them in vector registers. A
//! sensor with fewer channels leaves lanes at zero; one with more takes two groups. Everything is deterministic: the same
//! frames in the same calls give the same bits, on every machine (`libm`, no fused operations). All states can be
//! serialised, and go on bit for bit where they stopped.

#[cfg(feature = "std")]
pub mod band;
pub mod condition;
pub mod decimate;
pub mod design;
pub mod displacement;
#[cfg(feature = "std")]
pub mod envelope;
#[cfg(feature = "std")]
pub mod fft;
pub mod filter;
pub mod fitness;
#[cfg(feature = "std")]
pub mod kurtogram;
pub mod machine;
pub mod moments;
#[cfg(feature = "std")]
pub mod orders;
#[cfg(feature = "std")]
pub mod resample;
#[cfg(feature = "std")]
pub mod spectrum;
pub mod velocity;
pub mod window;

#[cfg(feature = "std")]
pub use band::{BandSum, Octave};
pub use condition::{Conditioner, Corner};
pub use decimate::Decimator;
pub use design::{Biquad, Sections, butterworth_high_pass, butterworth_low_pass, gain};
pub use displacement::{Displacement, Extremes};
#[cfg(feature = "std")]
pub use envelope::{Envelope, EnvelopeError};
#[cfg(feature = "std")]
pub use fft::{Demodulator, FftError, Lanes, RealFft};
pub use filter::Cascade;
pub use fitness::Fitness;
#[cfg(feature = "std")]
pub use kurtogram::{BandKurtosis, Kurtogram};
pub use machine::{Bearing, BearingOrders, GeometryError, gear_mesh_hz, tooth_pass_hz};
pub use moments::Moments;
#[cfg(feature = "std")]
pub use orders::{Chatter, EstimatedSpeed, Line, Lines, SideBands, SpeedSearch};
#[cfg(feature = "std")]
pub use resample::{ResampleError, Resampler};
#[cfg(feature = "std")]
pub use spectrum::{Analyser, Average, Averaging, Bin, Grid, Scale, Scaling, Segmenter, Welch};
pub use velocity::{SingleVelocity, Velocity};
pub use window::Window;

/// Channels that are processed together.
pub const LANES: usize = 4;

/// One sample of up to [`LANES`] channels.
pub type Frame = [f32; LANES];

/// Turns planar samples (`per_channel` of each channel in turn) into frames, from the channels `first_channel` on; lanes
/// without a channel are zero. As many frames as both `out` and the channels hold.
pub fn to_frames(planar: &[f32], per_channel: usize, first_channel: usize, out: &mut [Frame]) {
    let zeros: &[f32] = &[];
    let channel = |lane| {
        let start = (first_channel + lane) * per_channel;
        planar.get(start..start + per_channel).unwrap_or(zeros)
    };
    let lanes = [channel(0), channel(1), channel(2), channel(3)];
    if let [x, y, z, []] = lanes
        && x.len() == per_channel
        && y.len() == per_channel
        && z.len() == per_channel
    {
        for (((frame, x), y), z) in out.iter_mut().zip(x).zip(y).zip(z) {
            *frame = [*x, *y, *z, 0.0];
        }
        return;
    }
    for (index, frame) in out.iter_mut().enumerate().take(per_channel) {
        *frame = lanes.map(|lane| lane.get(index).copied().unwrap_or(0.0));
    }
}

/// Why a filter cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum DesignError {
    /// A corner frequency is not above zero and below half the sample rate.
    #[error("corner of {corner_hz} Hz does not lie between 0 and half the sample rate of {rate_hz} Hz")]
    Corner {
        /// The corner asked for.
        corner_hz: f64,
        /// The sample rate.
        rate_hz: f64,
    },
    /// A sample rate is not finite and above zero.
    #[error("sample rate of {rate_hz} Hz is not above 0")]
    Rate {
        /// The sample rate.
        rate_hz: f64,
    },
    /// A filter order is not 1 to 16.
    #[error("filter order {order} is not 1 to 16")]
    Order {
        /// The order asked for.
        order: usize,
    },
    /// A downsampling factor is 0, or has a prime factor that is too large.
    #[error("cannot downsample by {factor}: it must be 1 to 4096 with no prime factor above 13")]
    Factor {
        /// The factor asked for.
        factor: u32,
    },
}
