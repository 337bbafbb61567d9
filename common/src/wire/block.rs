//! The block: raw samples of one stream with all that is needed to read them alone.

use crate::id::{BootId, Seq, StreamId};
use serde::{Deserialize, Serialize};

/// How the samples of a block are laid out. Samples are always planar: all of channel 0, then all of channel 1, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// Little-endian two's complement, 2 bytes a sample.
    Raw16,
    /// Little-endian two's complement, 3 bytes a sample.
    Raw24,
    /// Lossless: fixed polynomial predictor and Rice codes, samples of up to 16 bits.
    Rice16,
    /// Lossless: fixed polynomial predictor and Rice codes, samples of up to 24 bits.
    Rice24,
}

impl Encoding {
    /// Bits of the samples it holds: 16 or 24.
    #[must_use]
    pub const fn sample_bits(self) -> u32 {
        match self {
            Self::Raw16 | Self::Rice16 => 16,
            Self::Raw24 | Self::Rice24 => 24,
        }
    }

    /// The raw encoding of the same width.
    #[must_use]
    pub const fn raw(self) -> Self {
        match self {
            Self::Raw16 | Self::Rice16 => Self::Raw16,
            Self::Raw24 | Self::Rice24 => Self::Raw24,
        }
    }
}

/// Flag bits of [`BlockHeader::flags`].
pub mod flags {
    /// The sensor's FIFO overran before this block: `first_sample` jumps by the samples lost (as the node estimates them).
    pub const OVERRUN: u16 = 1 << 0;
    /// At least one sample sits at the end of the sensor's range.
    pub const SATURATED: u16 = 1 << 1;
    /// The sensor's self-test was active.
    pub const SELF_TEST: u16 = 1 << 2;
    /// The sensor was restarted or reconfigured just before this block.
    pub const RESTART: u16 = 1 << 3;
    /// The samples come from a recording or a model, not from a sensor.
    pub const SYNTHETIC: u16 = 1 << 4;
    /// All bits that version 1 defines; others must be zero.
    pub const ALL: u16 = 0x1F;
}

/// What precedes the samples of a block.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BlockHeader<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Which run of the node's firmware.
    pub boot: BootId,
    /// Which of the node's sensors.
    pub stream: StreamId,
    /// Place in the node's sequence.
    pub seq: Seq,
    /// Index of the first sample (per channel) since boot; it counts every sample that the sensor took, sent or not, so a
    /// jump beyond the previous block's end is the number of samples lost on the node.
    pub first_sample: u64,
    /// The node's tick counter when the first sample was taken.
    pub tick: u64,
    /// Ticks per second, nominal.
    pub tick_hz: u32,
    /// The sensor's nominal sample rate in mHz.
    pub rate_nominal_mhz: u32,
    /// The sample rate as the node measured it against its own ticks, in mHz; 0 when not yet known.
    pub rate_measured_mhz: u32,
    /// Acceleration per count, in m/s².
    pub scale: f32,
    /// Bits of the sensor's converter: counts lie in `-2^(bits-1) .. 2^(bits-1)`.
    pub bits: u8,
    /// Number of channels, 1 to 8.
    pub axes: u8,
    /// Samples per channel, 1 to 8192.
    pub samples: u16,
    /// See [`flags`].
    pub flags: u16,
    /// How the samples are encoded.
    pub encoding: Encoding,
    /// Samples of the sensor per sample of the block, 1 to 256: above 1 the node has low-passed and thinned them, sample `i` is
    /// centred on the sensor's sample `first_sample + i * decimation`, and rates are still the sensor's. Not part of a version 1
    /// header; a block of version 2 has it in front.
    #[serde(skip, default = "undecimated")]
    pub decimation: u16,
}

/// Every sample of the sensor is in the block.
pub(super) const fn undecimated() -> u16 {
    1
}

/// A block as it came: header and still encoded samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block<'a> {
    /// The header, its ranges checked.
    pub header: BlockHeader<'a>,
    /// Encoded samples, planar; lengths of raw encodings are checked when decoding the message.
    pub samples: &'a [u8],
}

impl BlockHeader<'_> {
    /// Samples in the block over all channels.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.axes as usize * self.samples as usize
    }

    /// Samples per channel of the sensor that the block stands for: from `first_sample` on, this many.
    #[must_use]
    pub const fn covered(&self) -> u64 {
        self.samples as u64 * self.decimation as u64
    }

    /// Whether the block holds no samples; a decoded block never does.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
