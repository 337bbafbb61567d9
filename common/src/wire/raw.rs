//! The raw sample layouts: little-endian two's complement of 2 or 3 bytes, planar.
//! Plain loops over fixed-size chunks, so that they compile to vector code.

use super::{EncodeError, Samples};

/// Bytes of one sample of an encoding whose samples have `bits` bits.
pub(super) const fn bytes_per_sample(bits: u32) -> usize {
    bits as usize / 8
}

pub(super) fn decode16<T>(bytes: &[u8], out: &mut [T], convert: impl Fn(i32) -> T) {
    for (pair, sample) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *sample = convert(i32::from(i16::from_le_bytes(*pair)));
    }
}

pub(super) fn decode24<T>(bytes: &[u8], out: &mut [T], convert: impl Fn(i32) -> T) {
    for ([low, middle, high], sample) in bytes.as_chunks::<3>().0.iter().zip(out) {
        *sample = convert(i32::from_le_bytes([0, *low, *middle, *high]) >> 8);
    }
}

/// Writes all samples in `bits` (16 or 24) and returns the length in bytes.
pub(super) fn encode(samples: Samples<'_>, bits: u32, out: &mut [u8]) -> Result<usize, EncodeError> {
    let capacity = out.len();
    let len = samples.len() * bytes_per_sample(bits);
    let out = out.get_mut(..len).ok_or(EncodeError::BufferTooSmall { capacity })?;
    match (samples, bits) {
        (Samples::I16(samples), 16) => {
            for (sample, pair) in samples.iter().zip(out.as_chunks_mut::<2>().0) {
                *pair = sample.to_le_bytes();
            }
        }
        (Samples::I32(samples), 16) => {
            for (sample, pair) in samples.iter().zip(out.as_chunks_mut::<2>().0) {
                let [low, high, ..] = sample.to_le_bytes();
                *pair = [low, high];
            }
        }
        (Samples::I16(samples), _) => put24(samples.iter().map(|&sample| i32::from(sample)), out),
        (Samples::I32(samples), _) => put24(samples.iter().copied(), out),
    }
    Ok(len)
}

fn put24(samples: impl Iterator<Item = i32>, out: &mut [u8]) {
    for (sample, triple) in samples.zip(out.as_chunks_mut::<3>().0) {
        let [low, middle, high, _] = sample.to_le_bytes();
        *triple = [low, middle, high];
    }
}
