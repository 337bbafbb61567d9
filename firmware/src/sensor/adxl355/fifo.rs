//! From FIFO entries of one axis each to frames. The x axis carries a marker; y and z follow it.

use super::registers::{EMPTY, ENTRY_LEN, X_MARKER, ZEROS};
use crate::sensor::magnitude;

/// Bytes of a frame.
pub(super) const FRAME_LEN: usize = 3 * ENTRY_LEN;

/// The entries make no sense: the bus garbled them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

/// Bytes at the start that are no whole frame, because an overrun dropped their x.
pub(super) fn headless(bytes: &[u8]) -> usize {
    bytes.chunks_exact(ENTRY_LEN).take_while(|entry| entry[2] & X_MARKER == 0).count() * ENTRY_LEN
}

/// Checks that `bytes` begins with a frame and goes on with frames; the last may be cut. Returns how many are whole.
pub(super) fn whole_frames(bytes: &[u8]) -> Result<usize, Garbled> {
    for (index, entry) in bytes.chunks_exact(ENTRY_LEN).enumerate() {
        let marked = entry[2] & X_MARKER != 0;
        if marked != index.is_multiple_of(3) || entry[2] & (EMPTY | ZEROS) != 0 {
            return Err(Garbled);
        }
    }
    Ok(bytes.len() / FRAME_LEN)
}

/// The sample in an entry, 20 bits.
pub(super) fn sample(entry: &[u8]) -> i32 {
    i32::from_be_bytes([entry[0], entry[1], entry[2] & 0xF0, 0]) >> 12
}

/// Puts the frames in `bytes` into their places. Returns the samples' [`magnitude`]s put together.
pub(super) fn unpack(bytes: &[u8], [xs, ys, zs]: [&mut [i32]; 3]) -> u32 {
    let mut bits = 0;
    let places = xs.iter_mut().zip(ys).zip(zs);
    for (nine, ((x, y), z)) in bytes.chunks_exact(FRAME_LEN).zip(places) {
        (*x, *y, *z) = (sample(&nine[..3]), sample(&nine[3..6]), sample(&nine[6..]));
        bits |= magnitude(*x) | magnitude(*y) | magnitude(*z);
    }
    bits
}

/// An entry: what the model puts into its FIFO.
pub(super) const fn entry(sample: i32, marker: u8) -> [u8; ENTRY_LEN] {
    let [a, b, c, _] = (sample << 12).to_be_bytes();
    [a, b, c | marker]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn bytes(frames: &[[i32; 3]]) -> Vec<u8> {
        let axes = |&[x, y, z]: &[i32; 3]| [entry(x, X_MARKER), entry(y, 0), entry(z, 0)];
        frames.iter().flat_map(axes).flatten().collect()
    }

    #[test]
    fn twenty_bits_come_through_at_both_ends() {
        let given = [[524_287, -524_288, -1], [0, 1, -2]];
        let bytes = bytes(&given);
        assert_eq!(whole_frames(&bytes), Ok(2));
        let (mut x, mut y, mut z) = ([0; 2], [0; 2], [0; 2]);
        let bits = unpack(&bytes, [&mut x, &mut y, &mut z]);
        assert_eq!(([x[0], y[0], z[0]], [x[1], y[1], z[1]], bits), (given[0], given[1], 524_287));
    }

    #[test]
    fn a_frame_that_an_overrun_cut_is_skipped_and_one_that_is_not_yet_whole_waits() {
        let bytes = bytes(&[[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
        for cut in [1, 2] {
            let rest = &bytes[cut * ENTRY_LEN..];
            assert_eq!(headless(rest), (3 - cut) * ENTRY_LEN);
            assert_eq!(whole_frames(&rest[headless(rest)..rest.len() - ENTRY_LEN]), Ok(1));
        }
        assert_eq!(headless(&bytes), 0);
    }

    #[test]
    fn a_marker_out_of_place_an_empty_entry_and_bits_that_must_be_zero_are_noticed() {
        for (at, bit) in [(2, X_MARKER), (5, X_MARKER), (8, EMPTY), (11, 0x08)] {
            let mut bytes = bytes(&[[1, 2, 3], [4, 5, 6]]);
            bytes[at] ^= bit;
            assert_eq!(whole_frames(&bytes), Err(Garbled), "bit {bit:#x} of byte {at}");
        }
    }
}
