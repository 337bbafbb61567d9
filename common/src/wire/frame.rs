//! Framing for serial lines: COBS (consistent overhead byte stuffing), each frame ended by one zero byte.
//!
//! The receiver needs no state to find its place again: whatever came before, the byte after a zero starts a frame. Empty
//! frames (zeros in a row) are skipped, so a sender may put a zero before its first frame to end whatever garbage the
//! line held. A frame says nothing about its content: the message inside carries the checksum.

use super::EncodeError;

/// Largest frame of a message of `len` bytes: one code byte per 254 bytes begun, and the zero.
#[must_use]
pub const fn len_max(len: usize) -> usize {
    len + len / 254 + 2
}

/// Writes `message` as one frame, its final zero included, and returns the frame's length.
///
/// # Errors
/// [`EncodeError::BufferTooSmall`]; [`len_max`] bytes are always enough.
pub fn encode(message: &[u8], out: &mut [u8]) -> Result<usize, EncodeError> {
    let too_small = EncodeError::BufferTooSmall { capacity: out.len() };
    let mut rest = message;
    let mut at = 0;
    loop {
        let run = rest.iter().take(254).position(|&byte| byte == 0).unwrap_or(rest.len().min(254));
        // A full group of 254 stands for no zero; a shorter one stands for one, or for the end.
        let (skip, last) = if run == 254 { (254, rest.len() == 254) } else { (run + 1, run == rest.len()) };
        let group = out.get_mut(at..at + run + 1).ok_or(too_small)?;
        group[0] = (run + 1) as u8;
        group[1..].copy_from_slice(&rest[..run]);
        at += run + 1;
        if last {
            break;
        }
        rest = &rest[skip..];
    }
    *out.get_mut(at).ok_or(too_small)? = 0;
    Ok(at + 1)
}

/// What a [`Decoder`] has seen, all since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Whole frames handed out.
    pub frames: u64,
    /// Frames that were no COBS or did not fit the buffer.
    pub refused: u64,
    /// Bytes of refused frames.
    pub bytes_refused: u64,
}

/// What one call of [`Decoder::push`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed<'a> {
    /// How many of the bytes given were used; the others must be pushed again.
    pub consumed: usize,
    /// A whole frame's content, if the last byte used ended one.
    pub frame: Option<&'a [u8]>,
}

/// Takes a serial line's bytes as they come and gives back each frame's content, of at most `N` bytes. What is no frame
/// is dropped up to the next zero byte and counted.
#[derive(Debug)]
pub struct Decoder<const N: usize> {
    buffer: [u8; N],
    /// Bytes decoded of the frame so far.
    len: usize,
    /// Encoded bytes of the frame so far.
    taken: u64,
    /// Data bytes still to come in the current group.
    left: u8,
    /// Whether a zero stands between this group and the next.
    zero_due: bool,
    /// The frame is beyond saving; wait for its end.
    spoiled: bool,
    counters: Counters,
}

impl<const N: usize> Default for Decoder<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Decoder<N> {
    /// A decoder at the start of a frame.
    #[must_use]
    pub const fn new() -> Self {
        let counters = Counters { frames: 0, refused: 0, bytes_refused: 0 };
        Self { buffer: [0; N], len: 0, taken: 0, left: 0, zero_due: false, spoiled: false, counters }
    }

    /// What was seen so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes bytes up to the end of the next frame. Call again with the bytes not consumed until all are.
    pub fn push(&mut self, bytes: &[u8]) -> Pushed<'_> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if byte == 0 {
                at += 1;
                if let Some(len) = self.end() {
                    return Pushed { consumed: at, frame: self.buffer.get(..len) };
                }
                continue;
            }
            let used = if self.left == 0 {
                self.group(byte);
                1
            } else {
                self.data(&bytes[at..])
            };
            at += used;
            self.taken += used as u64;
        }
        Pushed { consumed: at, frame: None }
    }

    /// Takes all bytes and calls `on_frame` for each frame that ends in them.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let Pushed { consumed, frame } = self.push(bytes);
            if let Some(frame) = frame {
                on_frame(frame);
            }
            bytes = &bytes[consumed..];
        }
    }

    /// Ends the frame and gives the length of its content if it is whole.
    fn end(&mut self) -> Option<usize> {
        let (len, taken) = (self.len, self.taken);
        let whole = !self.spoiled && self.left == 0;
        (self.len, self.taken, self.left, self.zero_due, self.spoiled) = (0, 0, 0, false, false);
        if taken == 0 {
            return None;
        }
        if !whole {
            self.counters.refused += 1;
            self.counters.bytes_refused += taken;
            return None;
        }
        self.counters.frames += 1;
        Some(len)
    }

    fn group(&mut self, code: u8) {
        if self.zero_due {
            self.put(&[0]);
        }
        self.left = code - 1;
        self.zero_due = code != 0xFF;
    }

    /// Takes data bytes of the current group up to its end, the next zero or the end of `bytes`.
    fn data(&mut self, bytes: &[u8]) -> usize {
        let most = bytes.len().min(usize::from(self.left));
        let run = bytes[..most].iter().position(|&byte| byte == 0).unwrap_or(most);
        self.put(&bytes[..run]);
        self.left -= run as u8;
        run
    }

    fn put(&mut self, bytes: &[u8]) {
        match self.buffer.get_mut(self.len..self.len + bytes.len()) {
            Some(space) if !self.spoiled => {
                space.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.spoiled = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut out = std::vec![0; len_max(message.len())];
        let len = encode(message, &mut out).unwrap();
        out.truncate(len);
        out
    }

    #[test]
    fn frames_of_the_cobs_paper_come_out_byte_for_byte() {
        assert_eq!(frame(&[]), [1, 0]);
        assert_eq!(frame(&[0]), [1, 1, 0]);
        assert_eq!(frame(&[0, 0]), [1, 1, 1, 0]);
        assert_eq!(frame(&[0x11, 0x22, 0, 0x33]), [3, 0x11, 0x22, 2, 0x33, 0]);
        assert_eq!(frame(&[0x11, 0, 0, 0]), [2, 0x11, 1, 1, 1, 0]);
        let full: Vec<u8> = (1..=254).collect();
        let framed = frame(&full);
        assert_eq!((framed[0], framed.len(), framed[255]), (0xFF, 256, 0));
        let over: Vec<u8> = (1..=255).collect();
        let framed = frame(&over);
        assert_eq!((framed[0], &framed[255..]), (0xFF, &[2, 0xFF, 0][..]));
    }

    #[test]
    fn a_frame_cut_in_the_middle_costs_only_itself() {
        let mut decoder = Decoder::<16>::new();
        let good = frame(&[1, 2, 3]);
        let mut line = good[..3].to_vec();
        line.push(0);
        line.extend(&good);
        line.extend([9, 9, 9, 0]);
        line.extend(&good);
        let mut frames = Vec::new();
        decoder.feed(&line, |content| frames.push(content.to_vec()));
        assert_eq!(frames, [[1, 2, 3], [1, 2, 3]]);
        assert_eq!(decoder.counters(), Counters { frames: 2, refused: 2, bytes_refused: 6 });
    }

    #[test]
    fn a_frame_longer_than_the_buffer_is_refused_and_the_next_is_read() {
        let mut decoder = Decoder::<4>::new();
        let mut line = frame(&[1, 2, 3, 4, 5]);
        line.extend(frame(&[1, 2, 0, 4]));
        let mut frames = Vec::new();
        decoder.feed(&line, |content| frames.push(content.to_vec()));
        assert_eq!(frames, [[1, 2, 0, 4]]);
        assert_eq!(decoder.counters().refused, 1);
    }
}
