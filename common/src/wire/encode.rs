//! Writing messages. No allocation: everything goes straight into the caller's buffer.

use super::check::Checked;
use super::messages::{BurstHeader, Trigger};
use super::two::{BirthOfTwo, StatusOfTwo, Thinned};
use super::{
    Ack, Answer, Birth, Block, BlockHeader, Burst, Command, EncodeError, Encoding, Features, InForce, Kind,
    MESSAGE_LEN_MAX, Message, Offline, Set, Status, TimeAsk, TimePair, TimeTell, crc32c, raw, rice,
};
use serde::Serialize;

/// Samples to be encoded: planar, so all of channel 0 first, `axes * samples` of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Samples<'a> {
    /// Of up to 16 bits.
    I16(&'a [i16]),
    /// Of up to 24 bits.
    I32(&'a [i32]),
}

impl Samples<'_> {
    /// Samples over all channels.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::I16(samples) => samples.len(),
            Self::I32(samples) => samples.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every sample fits a two's complement of `bits` bits.
    fn fit(&self, bits: u32) -> bool {
        let half = 1_i32 << (bits - 1);
        match self {
            Self::I16(_) if bits >= 16 => true,
            Self::I16(samples) => samples.iter().all(|&sample| (-half..half).contains(&i32::from(sample))),
            Self::I32(samples) => samples.iter().all(|sample| (-half..half).contains(sample)),
        }
    }
}

/// Writes a block and returns its length. `header.encoding` is what is wanted: a Rice encoding falls back to the raw one
/// of the same width when that is not longer, and the encoded header says which it became.
///
/// # Errors
/// [`EncodeError::Field`] when a header field is out of range or the samples do not match it;
/// [`EncodeError::BufferTooSmall`] when `out` or [`MESSAGE_LEN_MAX`] is exceeded. A buffer of [`block_len_max`] is enough.
pub fn encode_block(
    header: &BlockHeader<'_>,
    samples: Samples<'_>,
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    if header.decimation == 1 {
        with_samples(Kind::Block, header, header, samples, out)
    } else {
        with_samples(Kind::Block, &Thinned::from(*header), header, samples, out)
    }
}

/// Writes a burst and returns its length; else like [`encode_block`].
///
/// # Errors
/// As [`encode_block`].
pub fn encode_burst(
    trigger: &Trigger,
    header: &BlockHeader<'_>,
    samples: Samples<'_>,
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    with_samples(Kind::Burst, &BurstHeader { trigger: *trigger, block: *header }, header, samples, out)
}

/// Largest header of a block in bytes: every field at its longest.
const BLOCK_HEADER_LEN_MAX: usize = 3 + 33 + 10 + 1 + 5 + 10 + 10 + 3 * 5 + 4 + 1 + 1 + 3 + 3 + 1;

/// Largest block of `axes` channels of `samples` samples in bytes, whatever its content. Rice never exceeds raw.
/// A burst needs [`TRIGGER_LEN_MAX`] more.
#[must_use]
pub const fn block_len_max(axes: usize, samples: usize, encoding: Encoding) -> usize {
    2 + BLOCK_HEADER_LEN_MAX + axes * samples * raw::bytes_per_sample(encoding.sample_bits()) + 4
}

/// What a burst's trigger adds to the length of its block, at most, in bytes.
pub const TRIGGER_LEN_MAX: usize = 1 + 10 + 4;

fn with_samples<H: Checked + Serialize>(
    kind: Kind,
    header: &H,
    block: &BlockHeader<'_>,
    samples: Samples<'_>,
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    let bits = block.encoding.sample_bits();
    let start = begin(kind, header, out)?;
    if samples.len() != block.len() || !samples.fit(bits) {
        return Err(EncodeError::Field { field: "samples" });
    }
    let body = body(out, start)?;
    let packed = match block.encoding {
        Encoding::Rice16 | Encoding::Rice24 => rice::encode(samples, usize::from(block.samples), bits, body),
        Encoding::Raw16 | Encoding::Raw24 => None,
    };
    #[cfg(not(feature = "std"))]
    if let (None, Samples::I16(samples), 16) = (packed, samples, bits) {
        return copying(block.encoding.raw(), samples, out, start);
    }
    let len = match packed {
        Some(len) => len,
        None => {
            let len = raw::encode(samples, bits, body)?;
            // The encoding is the header's last byte.
            out[start - 1] = block.encoding.raw() as u8;
            len
        }
    };
    finish(out, start + len)
}

/// Writes raw samples of 16 bits behind a header that ends at `start`, and the checksum: see [`super::crc::crc32c_copying`].
#[cfg(not(feature = "std"))]
fn copying(encoding: Encoding, samples: &[i16], out: &mut [u8], start: usize) -> Result<usize, EncodeError> {
    let too_small = EncodeError::BufferTooSmall { capacity: out.len() };
    let end = start + 2 * samples.len();
    let (Some(message), true) = (out.get_mut(..end + 4), end + 4 <= MESSAGE_LEN_MAX) else {
        return Err(too_small);
    };
    // The encoding is the header's last byte.
    message[start - 1] = encoding as u8;
    let (head, rest) = message.split_at_mut(start);
    let (body, checksum) = rest.split_at_mut(2 * samples.len());
    checksum.copy_from_slice(&super::crc::crc32c_copying(head, samples, body).to_le_bytes());
    Ok(end + 4)
}

/// Writes version, kind and header, and returns where the samples start.
fn begin<H: Checked + Serialize>(kind: Kind, header: &H, out: &mut [u8]) -> Result<usize, EncodeError> {
    if let Some(field) = header.field_out_of_range() {
        return Err(EncodeError::Field { field });
    }
    let too_small = EncodeError::BufferTooSmall { capacity: out.len() };
    let [version, kind_byte, rest @ ..] = out else { return Err(too_small) };
    (*version, *kind_byte) = (H::VERSION, kind as u8);
    let written = postcard::to_slice(header, rest).map_err(|_| too_small)?;
    Ok(2 + written.len())
}

/// The part of `out` between the header and the checksum.
fn body(out: &mut [u8], start: usize) -> Result<&mut [u8], EncodeError> {
    let capacity = out.len();
    let end = capacity.min(MESSAGE_LEN_MAX).saturating_sub(4);
    out.get_mut(start..end).ok_or(EncodeError::BufferTooSmall { capacity })
}

/// Writes the checksum of the first `len` bytes behind them.
fn finish(out: &mut [u8], len: usize) -> Result<usize, EncodeError> {
    let capacity = out.len();
    let Some((message, rest)) = out.split_at_mut_checked(len) else {
        return Err(EncodeError::BufferTooSmall { capacity });
    };
    let checksum = rest.first_chunk_mut::<4>().ok_or(EncodeError::BufferTooSmall { capacity })?;
    *checksum = crc32c(message).to_le_bytes();
    if len + 4 > MESSAGE_LEN_MAX {
        return Err(EncodeError::BufferTooSmall { capacity });
    }
    Ok(len + 4)
}

fn whole<H: Checked + Serialize>(kind: Kind, header: &H, out: &mut [u8]) -> Result<usize, EncodeError> {
    let len = begin(kind, header, out)?;
    finish(out, len)
}

/// Writes a header and samples that are encoded already.
fn copied<H: Checked + Serialize>(
    kind: Kind,
    header: &H,
    samples: &[u8],
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    let start = begin(kind, header, out)?;
    let capacity = out.len();
    let space = body(out, start)?.get_mut(..samples.len()).ok_or(EncodeError::BufferTooSmall { capacity })?;
    space.copy_from_slice(samples);
    finish(out, start + samples.len())
}

impl Block<'_> {
    /// Writes the block with its samples as they are encoded already, and returns the message's length.
    ///
    /// # Errors
    /// As [`encode_block`].
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        self.check_len().map_err(|_| EncodeError::Field { field: "samples" })?;
        if self.header.decimation == 1 {
            copied(Kind::Block, &self.header, self.samples, out)
        } else {
            copied(Kind::Block, &Thinned::from(self.header), self.samples, out)
        }
    }
}

impl Burst<'_> {
    /// Writes the burst with its samples as they are encoded already, and returns the message's length.
    ///
    /// # Errors
    /// As [`encode_block`].
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        self.block.check_len().map_err(|_| EncodeError::Field { field: "samples" })?;
        let header = BurstHeader { trigger: self.trigger, block: self.block.header };
        copied(Kind::Burst, &header, self.block.samples, out)
    }
}

macro_rules! encode_whole {
    ($($message:ident),*) => {$(
        impl $message<'_> {
            /// Writes the whole message into `out` and returns its length.
            ///
            /// # Errors
            /// [`EncodeError::Field`] when a field is out of range, [`EncodeError::BufferTooSmall`] when `out` is.
            pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
                whole(Kind::$message, self, out)
            }
        }
    )*};
}

encode_whole!(Features, TimePair, Ack, Command, Answer, Offline, Set, InForce, TimeAsk, TimeTell);

impl Birth<'_> {
    /// Writes the whole message into `out` and returns its length.
    ///
    /// # Errors
    /// [`EncodeError::Field`] when a field is out of range, [`EncodeError::BufferTooSmall`] when `out` is.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        match self.lifetime {
            None => whole(Kind::Birth, self, out),
            Some(lifetime) => whole(Kind::Birth, &BirthOfTwo { birth: self.clone(), lifetime }, out),
        }
    }
}

impl Status<'_> {
    /// Writes the whole message into `out` and returns its length.
    ///
    /// # Errors
    /// [`EncodeError::Field`] when a field is out of range, [`EncodeError::BufferTooSmall`] when `out` is.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        match &self.more {
            None => whole(Kind::Status, self, out),
            Some(more) => whole(Kind::Status, &StatusOfTwo { status: self.clone(), more: more.clone() }, out),
        }
    }
}

impl Message<'_> {
    /// Writes the whole message into `out` and returns its length.
    ///
    /// # Errors
    /// As the encoder of its kind.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        match self {
            Self::Block(message) => message.encode(out),
            Self::Birth(message) => message.encode(out),
            Self::Features(message) => message.encode(out),
            Self::Burst(message) => message.encode(out),
            Self::Status(message) => message.encode(out),
            Self::TimePair(message) => message.encode(out),
            Self::Ack(message) => message.encode(out),
            Self::Command(message) => message.encode(out),
            Self::Answer(message) => message.encode(out),
            Self::Offline(message) => message.encode(out),
            Self::Set(message) => message.encode(out),
            Self::InForce(message) => message.encode(out),
            Self::TimeAsk(message) => message.encode(out),
            Self::TimeTell(message) => message.encode(out),
        }
    }
}
