//! Count, mean, central moments up to the fourth, minimum and maximum of a signal.
//!
//! A slice goes through twice, once for the mean and once for what is left, so that gravity in the signal costs no digits;
//! slices merge by the formulas of Pébay (Sandia report SAND2008-6212), which are exact.

use serde::{Deserialize, Serialize};

/// Partial sums, so that additions need not wait for each other.
const PARTS: usize = 8;

/// The same for four sums at a time, which together must fit the vector registers.
const PARTS_OF_POWERS: usize = 4;

/// Samples that [`Moments::of_single`] sums in single precision before it merges them in double: few enough to lose nothing that
/// matters, many enough that the merging costs little.
pub const SINGLE_LEN: usize = 128;

/// Moments of a signal; in the signal's unit and its powers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Samples.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared differences from the mean.
    pub m2: f64,
    /// Sum of cubed differences from the mean.
    pub m3: f64,
    /// Sum of fourth powers of the differences from the mean.
    pub m4: f64,
    /// Smallest sample; infinite when there is none.
    pub min: f32,
    /// Largest sample; minus infinite when there is none.
    pub max: f32,
}

impl Default for Moments {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Moments {
    /// Of no samples.
    pub const EMPTY: Self =
        Self { count: 0, mean: 0.0, m2: 0.0, m3: 0.0, m4: 0.0, min: f32::INFINITY, max: f32::NEG_INFINITY };

    /// Of a slice of finite samples.
    #[must_use]
    pub fn of(samples: &[f32]) -> Self {
        if samples.is_empty() {
            return Self::EMPTY;
        }
        let count = samples.len() as f64;
        let (mean, min, max) = {
            let (sum, min, max) = sum_min_max(samples);
            (sum / count, min, max)
        };
        let [m1, m2, m3, m4] = powers(samples, mean);
        // What rounding left in the mean.
        let off = m1 / count;
        Self {
            count: samples.len() as u64,
            mean: mean + off,
            m2: m2 - off * m1,
            m3: m3 - 3.0 * off * m2,
            m4: m4 - 4.0 * off * m3,
            min,
            max,
        }
    }

    /// As [`Self::of`], for processors that have single precision only: sums of differences from each part's own mean, in single
    /// precision over [`SINGLE_LEN`] samples, merged in double. Agrees with [`Self::of`] to a few parts in a million.
    #[must_use]
    pub fn of_single(samples: &[f32]) -> Self {
        let mut all = Self::EMPTY;
        for part in samples.chunks(SINGLE_LEN) {
            all.merge(&single(part));
        }
        all
    }

    /// Adds another slice's moments.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let total = a + b;
        let delta = other.mean - self.mean;
        let part = delta / total;
        let cross = delta * part * a * b;
        let m4 = self.m4
            + other.m4
            + cross * part * part * (a * a - a * b + b * b)
            + 6.0 * part * part * (a * a * other.m2 + b * b * self.m2)
            + 4.0 * part * (a * other.m3 - b * self.m3);
        let m3 = self.m3 + other.m3 + cross * part * (a - b) + 3.0 * part * (a * other.m2 - b * self.m2);
        *self = Self {
            count: self.count + other.count,
            mean: self.mean + part * b,
            m2: self.m2 + other.m2 + cross,
            m3,
            m4,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        };
    }

    /// Variance (divided by the count).
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.m2 / self.count as f64 }
    }

    /// RMS with the mean removed: the standard deviation.
    #[must_use]
    pub fn rms(&self) -> f64 {
        libm::sqrt(self.variance())
    }

    /// Largest magnitude with the mean removed.
    #[must_use]
    pub fn peak(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            (f64::from(self.max) - self.mean).max(self.mean - f64::from(self.min))
        }
    }

    /// Largest less smallest sample.
    #[must_use]
    pub fn peak_to_peak(&self) -> f64 {
        if self.count == 0 { 0.0 } else { f64::from(self.max) - f64::from(self.min) }
    }

    /// Peak over RMS; nothing for a constant.
    #[must_use]
    pub fn crest(&self) -> Option<f64> {
        (self.m2 > 0.0).then(|| self.peak() / self.rms())
    }

    /// Skewness; nothing for a constant.
    #[must_use]
    pub fn skewness(&self) -> Option<f64> {
        (self.m2 > 0.0).then(|| libm::sqrt(self.count as f64) * self.m3 / (self.m2 * libm::sqrt(self.m2)))
    }

    /// Pearson kurtosis: 3 for Gaussian noise, 1.5 for a sine; nothing for a constant.
    #[must_use]
    pub fn kurtosis(&self) -> Option<f64> {
        (self.m2 > 0.0).then(|| self.count as f64 * self.m4 / (self.m2 * self.m2))
    }
}

/// Moments of a short slice. Differences from its first sample are exact or nearly so, whatever constant lies beneath.
fn single(samples: &[f32]) -> Moments {
    let Some(&first) = samples.first() else { return Moments::EMPTY };
    let (mut sum, mut min, mut max) = (0.0_f32, first, first);
    for &sample in samples {
        sum += sample - first;
        min = if sample < min { sample } else { min };
        max = if sample > max { sample } else { max };
    }
    let mean = sum / samples.len() as f32;
    let [mut m1, mut m2, mut m3, mut m4] = [0.0_f32; 4];
    for &sample in samples {
        let off = (sample - first) - mean;
        let square = off * off;
        m1 += off;
        m2 += square;
        m3 += square * off;
        m4 += square * square;
    }
    let count = samples.len() as f64;
    let [m1, m2, m3, m4] = [m1, m2, m3, m4].map(f64::from);
    // What rounding left in the mean.
    let off = m1 / count;
    Moments {
        count: samples.len() as u64,
        mean: f64::from(first) + f64::from(mean) + off,
        m2: m2 - off * m1,
        m3: m3 - 3.0 * off * m2,
        m4: m4 - 4.0 * off * m3,
        min,
        max,
    }
}

fn sum_min_max(samples: &[f32]) -> (f64, f32, f32) {
    let (mut sums, mut mins, mut maxs) = ([0.0; PARTS], [f32::INFINITY; PARTS], [f32::NEG_INFINITY; PARTS]);
    let (chunks, rest) = samples.as_chunks::<PARTS>();
    for chunk in chunks {
        for part in 0..PARTS {
            let sample = chunk[part];
            sums[part] += f64::from(sample);
            mins[part] = if sample < mins[part] { sample } else { mins[part] };
            maxs[part] = if sample > maxs[part] { sample } else { maxs[part] };
        }
    }
    let sum = sums.iter().sum::<f64>() + rest.iter().map(|&sample| f64::from(sample)).sum::<f64>();
    let min = mins.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    let max = maxs.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    (sum, min, max)
}

/// Sums of the first to fourth powers of the differences from `mean`.
fn powers(samples: &[f32], mean: f64) -> [f64; 4] {
    let mut sums = [[0.0; PARTS_OF_POWERS]; 4];
    let (chunks, rest) = samples.as_chunks::<PARTS_OF_POWERS>();
    let mut add = |part: usize, sample: f32| {
        let off = f64::from(sample) - mean;
        let square = off * off;
        sums[0][part] += off;
        sums[1][part] += square;
        sums[2][part] += square * off;
        sums[3][part] += square * square;
    };
    for chunk in chunks {
        for (part, &sample) in chunk.iter().enumerate() {
            add(part, sample);
        }
    }
    for (part, &sample) in rest.iter().enumerate() {
        add(part, sample);
    }
    sums.map(|parts| parts.iter().sum())
}
