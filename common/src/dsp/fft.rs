//! Fourier transforms of four channels at a time, by the `rustfft` and `realfft` crates.
//!
//! Their generic algorithms run over [`Lanes`], a number per channel, so the compiler vectorises across channels and no kernel is
//! ever picked by what the processor can do: those crates choose AVX or NEON kernels for `f32` and `f64` alone. What they take from
//! the platform is the sine and cosine of their twiddle factors, in double precision; rounded to single precision these are the
//! same whatever the platform's last bit, which `common/tests/fft.rs` shows for the lengths in use.

use super::{Frame, LANES};
use core::ops::{Add, Div, Mul, Neg, Rem, Sub};
use realfft::{RealFftPlanner, RealToComplex};
use rustfft::num_complex::Complex;
use rustfft::num_traits::{FromPrimitive, Num, One, Signed, Zero};
use rustfft::{Fft, FftPlanner};
use std::sync::Arc;
use std::vec::Vec;

/// Longest transform: 39 s at 26.667 kHz, 50 MB of buffers.
pub const LEN_MAX: usize = 1 << 20;

/// Shortest transform.
pub const LEN_MIN: usize = 16;

/// One number per channel, aligned for vector registers; each operation goes channel by channel.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C, align(16))]
pub struct Lanes(pub Frame);

macro_rules! lanewise {
    ($($name:ident $method:ident $operator:tt),*) => {$(
        impl $name for Lanes {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let mut out = self.0;
                for lane in 0..LANES {
                    out[lane] = self.0[lane] $operator other.0[lane];
                }
                Self(out)
            }
        }
    )*};
}

lanewise!(Add add +, Sub sub -, Mul mul *, Div div /, Rem rem %);

impl Neg for Lanes {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self(self.0.map(|value| -value))
    }
}

impl Lanes {
    /// The same number in each channel.
    #[inline(always)]
    #[must_use]
    pub const fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
}

impl Zero for Lanes {
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    fn is_zero(&self) -> bool {
        self.0 == [0.0; LANES]
    }
}

impl One for Lanes {
    #[inline(always)]
    fn one() -> Self {
        Self::splat(1.0)
    }
}

impl Num for Lanes {
    type FromStrRadixErr = <f32 as Num>::FromStrRadixErr;

    fn from_str_radix(text: &str, radix: u32) -> Result<Self, Self::FromStrRadixErr> {
        <f32 as Num>::from_str_radix(text, radix).map(Self::splat)
    }
}

impl Signed for Lanes {
    fn abs(&self) -> Self {
        Self(self.0.map(f32::abs))
    }

    fn abs_sub(&self, other: &Self) -> Self {
        Self((*self - *other).0.map(|value| value.max(0.0)))
    }

    fn signum(&self) -> Self {
        Self(self.0.map(f32::signum))
    }

    fn is_positive(&self) -> bool {
        self.0.iter().all(|&value| value > 0.0)
    }

    fn is_negative(&self) -> bool {
        self.0.iter().all(|&value| value < 0.0)
    }
}

impl FromPrimitive for Lanes {
    fn from_i64(value: i64) -> Option<Self> {
        Some(Self::splat(value as f32))
    }

    fn from_u64(value: u64) -> Option<Self> {
        Some(Self::splat(value as f32))
    }

    fn from_f64(value: f64) -> Option<Self> {
        Some(Self::splat(value as f32))
    }

    fn from_f32(value: f32) -> Option<Self> {
        Some(Self::splat(value))
    }
}

/// Why a transform cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FftError {
    /// The length cannot be transformed quickly, or is out of range.
    #[error(
        "{len} samples cannot be transformed: it must be even, {LEN_MIN} to {LEN_MAX}, with no prime factor above 7"
    )]
    Len {
        /// The length asked for.
        len: usize,
    },
}

/// Whether a real transform of this length can be made.
#[must_use]
pub fn is_len(len: usize) -> bool {
    (LEN_MIN..=LEN_MAX).contains(&len) && len.is_multiple_of(2) && is_smooth(len)
}

/// The shortest length that can be transformed and holds `at_least` samples.
///
/// # Errors
/// [`FftError::Len`] when that is above [`LEN_MAX`].
pub fn next_len(at_least: usize) -> Result<usize, FftError> {
    (at_least.max(LEN_MIN)..=LEN_MAX).find(|&len| is_len(len)).ok_or(FftError::Len { len: at_least })
}

/// No prime factor above 7.
pub(super) fn is_smooth(mut len: usize) -> bool {
    if len == 0 {
        return false;
    }
    for prime in [2, 3, 5, 7] {
        while len.is_multiple_of(prime) {
            len /= prime;
        }
    }
    len == 1
}

/// A plan and its buffers: transforms `len` real samples of four channels to `len / 2 + 1` complex bins. Holds no state between
/// calls, so one serves all sensors of a thread. About 80 bytes a sample.
pub struct RealFft {
    plan: Arc<dyn RealToComplex<Lanes>>,
    input: Vec<Lanes>,
    output: Vec<Complex<Lanes>>,
    scratch: Vec<Complex<Lanes>>,
}

impl core::fmt::Debug for RealFft {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("RealFft").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl RealFft {
    /// For segments of `len` samples; see [`is_len`].
    ///
    /// # Errors
    /// [`FftError::Len`] for a length that cannot be transformed.
    pub fn new(len: usize) -> Result<Self, FftError> {
        if !is_len(len) {
            return Err(FftError::Len { len });
        }
        let plan = RealFftPlanner::new().plan_fft_forward(len);
        let (input, output) = (plan.make_input_vec(), plan.make_output_vec());
        let scratch = plan.make_scratch_vec();
        Ok(Self { plan, input, output, scratch })
    }

    /// Samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.input.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// Lets `fill` write all samples and returns the bins `X[k] = sum x[n] e^(-2 pi i k n / len)`, unscaled. What the buffer holds
    /// before is left over from the last call.
    pub fn run(&mut self, fill: impl FnOnce(&mut [Lanes])) -> &[Complex<Lanes>] {
        fill(&mut self.input);
        let done = self.plan.process_with_scratch(&mut self.input, &mut self.output, &mut self.scratch);
        // The buffers are the plan's own, so their lengths fit.
        debug_assert!(done.is_ok());
        &self.output
    }
}

/// A plan and its buffers for the inverse transform of a band of bins: see [`Demodulator::run`].
pub struct Demodulator {
    plan: Arc<dyn Fft<Lanes>>,
    signal: Vec<Complex<Lanes>>,
    scratch: Vec<Complex<Lanes>>,
}

impl core::fmt::Debug for Demodulator {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("Demodulator").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Demodulator {
    /// For bands of `count` bins: `len` samples come out, the shortest quick length of at least `oversampling x count`.
    ///
    /// # Errors
    /// [`FftError::Len`] when that is above [`LEN_MAX`].
    pub fn new(count: usize, oversampling: usize) -> Result<Self, FftError> {
        let len = next_len(count.saturating_mul(oversampling))?;
        let plan = FftPlanner::new().plan_fft_inverse(len);
        let zero = Complex::new(Lanes::zero(), Lanes::zero());
        let signal = core::iter::repeat_n(zero, len).collect();
        let scratch = core::iter::repeat_n(zero, plan.get_inplace_scratch_len()).collect();
        Ok(Self { plan, signal, scratch })
    }

    /// Samples that come out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.signal.len()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.signal.is_empty()
    }

    /// The analytic signal of a band of bins of a [`RealFft`], moved down so that the band starts at frequency 0: its magnitude is
    /// the envelope of what the band holds, in the signal's unit when `scale` is 2 over the real transform's length. The samples
    /// are spread evenly over the segment that was transformed. Bins that do not fit are left out.
    pub fn run(&mut self, band: &[Complex<Lanes>], scale: f32) -> &[Complex<Lanes>] {
        let scale = Lanes::splat(scale);
        let zero = Complex::new(Lanes::zero(), Lanes::zero());
        let bins = band.iter().map(|bin| Complex::new(bin.re * scale, bin.im * scale));
        for (slot, bin) in self.signal.iter_mut().zip(bins.chain(core::iter::repeat(zero))) {
            *slot = bin;
        }
        self.plan.process_with_scratch(&mut self.signal, &mut self.scratch);
        &self.signal
    }
}
