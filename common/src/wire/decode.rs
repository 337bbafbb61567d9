//! Reading messages. Decoding borrows from the received bytes, never panics and does work linear in their number.

use super::check::Checked;
use super::messages::BurstHeader;
use super::two::{BirthOfTwo, StatusOfTwo, Thinned};
use super::{
    Birth, Block, BlockHeader, Burst, DecodeError, Encoding, Kind, MESSAGE_LEN_MAX, Message, Status, VERSION,
    VERSION_2, crc32c, raw, rice,
};
use serde::Deserialize;

impl Kind {
    /// The kind that a message's second byte names.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Block,
            2 => Self::Birth,
            3 => Self::Features,
            4 => Self::Burst,
            5 => Self::Status,
            6 => Self::TimePair,
            7 => Self::Ack,
            8 => Self::Command,
            9 => Self::Answer,
            10 => Self::Offline,
            11 => Self::Set,
            12 => Self::InForce,
            13 => Self::TimeAsk,
            14 => Self::TimeTell,
            _ => return None,
        })
    }

    /// Whether messages of this kind exist in this version.
    const fn is_in(self, version: u8) -> bool {
        match self {
            Self::Block | Self::Birth | Self::Status => version == VERSION || version == VERSION_2,
            Self::Set | Self::InForce | Self::TimeAsk | Self::TimeTell => version == VERSION_2,
            _ => version == VERSION,
        }
    }
}

/// Reads one message. Length, version, kind, checksum, header, field ranges and the length of raw samples are checked;
/// the content of Rice-coded samples is checked when they are decoded.
///
/// # Errors
/// [`DecodeError`] names what is wrong first.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let len = bytes.len();
    if len > MESSAGE_LEN_MAX {
        return Err(DecodeError::TooLong { len });
    }
    let Some((&[version, kind], rest)) = bytes.split_first_chunk::<2>() else {
        return Err(DecodeError::TooShort { len });
    };
    let Some((body, &checksum)) = rest.split_last_chunk::<4>() else {
        return Err(DecodeError::TooShort { len });
    };
    if version != VERSION && version != VERSION_2 {
        return Err(DecodeError::UnknownVersion { version });
    }
    let known = Kind::from_byte(kind).filter(|known| version != VERSION || known.is_in(version));
    let kind = known.ok_or(DecodeError::UnknownKind { kind })?;
    if !kind.is_in(version) {
        return Err(DecodeError::UnknownVersion { version });
    }
    let (found, computed) = (u32::from_le_bytes(checksum), crc32c(&bytes[..len - 4]));
    if found != computed {
        return Err(DecodeError::Checksum { found, computed });
    }
    let extended = version == VERSION_2;
    Ok(match kind {
        Kind::Block => {
            let (header, samples) = if extended {
                let (Thinned { decimation, block }, samples) = header(kind, body)?;
                (BlockHeader { decimation, ..block }, samples)
            } else {
                header(kind, body)?
            };
            let block = Block { header, samples };
            block.check_len()?;
            Message::Block(block)
        }
        Kind::Burst => {
            let (BurstHeader { trigger, block }, samples) = header(kind, body)?;
            let block = Block { header: block, samples };
            block.check_len()?;
            Message::Burst(Burst { trigger, block })
        }
        Kind::Birth if extended => {
            let BirthOfTwo { birth, lifetime } = whole(kind, body)?;
            Message::Birth(Birth { lifetime: Some(lifetime), ..birth })
        }
        Kind::Birth => Message::Birth(whole(kind, body)?),
        Kind::Features => Message::Features(whole(kind, body)?),
        Kind::Status if extended => {
            let StatusOfTwo { status, more } = whole(kind, body)?;
            Message::Status(Status { more: Some(more), ..status })
        }
        Kind::Status => Message::Status(whole(kind, body)?),
        Kind::TimePair => Message::TimePair(whole(kind, body)?),
        Kind::Ack => Message::Ack(whole(kind, body)?),
        Kind::Command => Message::Command(whole(kind, body)?),
        Kind::Answer => Message::Answer(whole(kind, body)?),
        Kind::Offline => Message::Offline(whole(kind, body)?),
        Kind::Set => Message::Set(whole(kind, body)?),
        Kind::InForce => Message::InForce(whole(kind, body)?),
        Kind::TimeAsk => Message::TimeAsk(whole(kind, body)?),
        Kind::TimeTell => Message::TimeTell(whole(kind, body)?),
    })
}

fn header<'a, H: Checked + Deserialize<'a>>(
    kind: Kind,
    body: &'a [u8],
) -> Result<(H, &'a [u8]), DecodeError> {
    let (header, rest) = postcard::take_from_bytes::<H>(body).map_err(|_| DecodeError::Header { kind })?;
    match header.field_out_of_range() {
        Some(field) => Err(DecodeError::Field { kind, field }),
        None => Ok((header, rest)),
    }
}

fn whole<'a, H: Checked + Deserialize<'a>>(kind: Kind, body: &'a [u8]) -> Result<H, DecodeError> {
    match header(kind, body)? {
        (message, []) => Ok(message),
        _ => Err(DecodeError::Header { kind }),
    }
}

impl Block<'_> {
    /// Decodes all samples as counts: planar, so all of channel 0 first. `out` must be `header.len()` long.
    ///
    /// # Errors
    /// [`DecodeError::Samples`] when `out` has another length or the encoded samples are malformed.
    pub fn decode_samples(&self, out: &mut [i32]) -> Result<(), DecodeError> {
        self.decode_as(out, |count| count)
    }

    /// Decodes all samples times `scale` (the header's, or 1 for counts; counts of 24 bits are exact in an `f32`):
    /// planar, so all of channel 0 first. `out` must be `header.len()` long.
    ///
    /// # Errors
    /// [`DecodeError::Samples`] when `out` has another length or the encoded samples are malformed.
    pub fn decode_f32(&self, scale: f32, out: &mut [f32]) -> Result<(), DecodeError> {
        self.decode_as(out, |count| count as f32 * scale)
    }

    fn decode_as<T: Copy>(
        &self,
        out: &mut [T],
        convert: impl Fn(i32) -> T + Copy,
    ) -> Result<(), DecodeError> {
        if out.len() != self.header.len() {
            return Err(DecodeError::Samples { reason: "the output has another length than the block" });
        }
        self.check_len()?;
        match self.header.encoding {
            Encoding::Raw16 => raw::decode16(self.samples, out, convert),
            Encoding::Raw24 => raw::decode24(self.samples, out, convert),
            Encoding::Rice16 | Encoding::Rice24 => {
                let bits = self.header.encoding.sample_bits();
                rice::decode(self.samples, usize::from(self.header.samples), bits, out, convert)?;
            }
        }
        Ok(())
    }

    /// Whether the sample bytes have the length that the header announces; for Rice, one below raw's.
    pub(super) fn check_len(&self) -> Result<(), DecodeError> {
        let raw = self.header.len() * raw::bytes_per_sample(self.header.encoding.sample_bits());
        match self.header.encoding {
            Encoding::Raw16 | Encoding::Raw24 if self.samples.len() != raw => {
                Err(DecodeError::Samples { reason: "raw samples have another length than the header says" })
            }
            Encoding::Rice16 | Encoding::Rice24 if self.samples.len() >= raw => {
                Err(DecodeError::Samples { reason: "Rice-coded samples are not shorter than raw ones" })
            }
            _ => Ok(()),
        }
    }
}
