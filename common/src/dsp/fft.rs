//! Fourier transforms of four channels at a time, by the `rustfft` crate.
//!
//! Its generic algorithms run over [`Lanes`], a number per channel, so the compiler vectorises across channels and no kernel is
//! ever picked by what the processor can do: the crate has AVX and NEON kernels for `f32` and `f64` alone. What it takes from the
//! platform is the sine and cosine of its twiddle factors, in double precision; rounded to single precision these are the same
//! whatever the platform's last bit, which `common/tests/fft.rs` shows for every length there is. Lengths are `2^k` and `3 x 2^k`,
//! for which five small transforms and one radix are compiled; the crate's planner would bring thirty.
//!
//! A real signal goes through a complex transform of half the length (W. H. Press and others, Numerical Recipes, section 12.3).

use super::{Frame, LANES};
use core::f64::consts::PI;
use core::ops::{Add, Div, Mul, Neg, Rem, Sub};
use rustfft::algorithm::Radix4;
use rustfft::algorithm::butterflies::{Butterfly8, Butterfly12, Butterfly16, Butterfly24, Butterfly32};
pub use rustfft::num_complex::Complex;
use rustfft::num_traits::{FromPrimitive, Num, One, Signed, Zero};
use rustfft::{Fft, FftDirection};
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
        "{len} samples cannot be transformed: it must be {LEN_MIN} to {LEN_MAX}, and a power of two or three times one"
    )]
    Len {
        /// The length asked for.
        len: usize,
    },
}

/// Whether a transform of this length can be made: 16, 24, 32, 48, 64, 96 ... 1,048,576.
#[must_use]
pub fn is_len(len: usize) -> bool {
    let odd = len >> len.trailing_zeros().min(usize::BITS - 1);
    (LEN_MIN..=LEN_MAX).contains(&len) && (odd == 1 || odd == 3)
}

/// The shortest length that can be transformed and holds `at_least` samples: up to half as long again.
///
/// # Errors
/// [`FftError::Len`] when that is above [`LEN_MAX`].
pub fn next_len(at_least: usize) -> Result<usize, FftError> {
    if at_least > LEN_MAX {
        return Err(FftError::Len { len: at_least });
    }
    let power = at_least.max(LEN_MIN).next_power_of_two();
    let less = power / 4 * 3;
    Ok(if less >= at_least && is_len(less) { less } else { power })
}

/// A complex transform of 8, 12, 16, 24 ... numbers.
fn plan(len: usize, direction: FftDirection) -> Arc<dyn Fft<Lanes>> {
    let mut base = len;
    let mut fours = 0;
    while base > 32 {
        base /= 4;
        fours += 1;
    }
    let base: Arc<dyn Fft<Lanes>> = match base {
        12 => Arc::new(Butterfly12::new(direction)),
        16 => Arc::new(Butterfly16::new(direction)),
        24 => Arc::new(Butterfly24::new(direction)),
        32 => Arc::new(Butterfly32::new(direction)),
        // Only of the shortest.
        _ => Arc::new(Butterfly8::new(direction)),
    };
    if fours == 0 { base } else { Arc::new(Radix4::new_with_base(fours, base)) }
}

fn zeros(len: usize) -> Vec<Complex<Lanes>> {
    core::iter::repeat_n(Complex::new(Lanes::zero(), Lanes::zero()), len).collect()
}

/// Squared magnitude, channel by channel.
#[inline(always)]
pub(super) fn square(value: &Complex<Lanes>) -> Frame {
    (value.re * value.re + value.im * value.im).0
}

/// A plan and its buffers: transforms `len` real samples of four channels to `len / 2 + 1` complex bins. Holds no state between
/// calls, so one serves all sensors of a thread. About 50 bytes a sample.
pub struct RealFft {
    len: usize,
    plan: Arc<dyn Fft<Lanes>>,
    /// Samples in pairs, as complex numbers.
    pairs: Vec<Complex<Lanes>>,
    output: Vec<Complex<Lanes>>,
    scratch: Vec<Complex<Lanes>>,
    /// Half of `e^(-2 pi i k / len)` for 1 up to a quarter of the length.
    twiddles: Vec<Complex<f32>>,
}

impl core::fmt::Debug for RealFft {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("RealFft").field("len", &self.len).finish_non_exhaustive()
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
        let half = len / 2;
        let plan = plan(half, FftDirection::Forward);
        let scratch = zeros(plan.get_outofplace_scratch_len());
        let twiddle = |index: usize| {
            let angle = -2.0 * PI * index as f64 / len as f64;
            Complex::new((libm::cos(angle) / 2.0) as f32, (libm::sin(angle) / 2.0) as f32)
        };
        let twiddles = (1..half / 2).map(twiddle).collect();
        Ok(Self { len, plan, pairs: zeros(half), output: zeros(half + 1), scratch, twiddles })
    }

    /// Samples.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bins `X[k] = sum x[n] e^(-2 pi i k n / len)` of the samples, unscaled. Samples that are missing are zero; none beyond
    /// the length is taken.
    #[inline]
    pub fn run(&mut self, samples: impl IntoIterator<Item = Lanes>) -> &[Complex<Lanes>] {
        let mut samples = samples.into_iter();
        for pair in &mut self.pairs {
            pair.re = samples.next().unwrap_or(Lanes::splat(0.0));
            pair.im = samples.next().unwrap_or(Lanes::splat(0.0));
        }
        self.transform();
        &self.output
    }

    fn transform(&mut self) {
        let half = self.len / 2;
        let Some(transformed) = self.output.get_mut(..half) else { return };
        self.plan.process_outofplace_with_scratch(&mut self.pairs, transformed, &mut self.scratch);
        let (left, right) = self.output.split_at_mut(half / 2 + 1);
        if let ([first, .., middle], [.., last]) = (&mut *left, &mut *right) {
            let Complex { re, im } = *first;
            *first = Complex::new(re + im, Lanes::zero());
            *last = Complex::new(re - im, Lanes::zero());
            middle.im = -middle.im;
        }
        let mirrored = right.iter_mut().rev().skip(1);
        let bins = left.iter_mut().skip(1);
        for ((twiddle, bin), mirror) in self.twiddles.iter().zip(bins).zip(mirrored) {
            let (halve, cos, sin) = (Lanes::splat(0.5), Lanes::splat(twiddle.re), Lanes::splat(twiddle.im));
            let even = Complex::new((bin.re + mirror.re) * halve, (bin.im - mirror.im) * halve);
            // The odd samples' transform, twice: (bin - conjugate of the mirror) / i.
            let (odd_re, odd_im) = (bin.im + mirror.im, mirror.re - bin.re);
            let turned = Complex::new(odd_re * cos - odd_im * sin, odd_re * sin + odd_im * cos);
            *bin = Complex::new(even.re + turned.re, even.im + turned.im);
            *mirror = Complex::new(even.re - turned.re, turned.im - even.im);
        }
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
    /// For bands of `count` bins: `len` samples come out, the shortest length of at least `oversampling x count`.
    ///
    /// # Errors
    /// [`FftError::Len`] when that is above [`LEN_MAX`].
    pub fn new(count: usize, oversampling: usize) -> Result<Self, FftError> {
        let len = next_len(count.saturating_mul(oversampling))?;
        let plan = plan(len, FftDirection::Inverse);
        let scratch = zeros(plan.get_inplace_scratch_len());
        Ok(Self { plan, signal: zeros(len), scratch })
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
