//! Spindle's wire format, versions 1 and 2; `WIRE.md` beside this crate describes it byte by byte.
//!
//! Version 2 adds kinds, and fields to three of version 1's. A message is written in the lowest version that can say it, so
//! what version 1 could say has the same bytes as ever.
//!
//! Every message is `version (1 byte) | kind (1 byte) | header (postcard) | samples (blocks and bursts only) |
//! CRC-32C of all before it (4 bytes, little-endian)`. On a serial line a message is framed with COBS and ends in a zero
//! byte (see `frame`); over MQTT it is the payload of one PUBLISH.
//!
//! Encoding needs no allocation; decoding borrows from the received bytes.

pub mod block;
pub(crate) mod check;
mod crc;
mod decode;
mod encode;
pub mod frame;
pub mod messages;
mod raw;
mod rice;
mod two;

pub use block::{Block, BlockHeader, Encoding};
pub use crc::crc32c;
pub use decode::decode;
pub use encode::{Samples, TRIGGER_LEN_MAX, block_len_max, encode_block, encode_burst};
pub use messages::{
    Ack, Answer, AxisFeatures, Birth, Burst, Command, Features, InForce, Lifetime, MoreStatus, Offline, Set,
    Status, StepStatus, StreamInfo, StreamStatus, TimeAsk, TimePair, TimeTell,
};

/// The version in which every message is written that it can say.
pub const VERSION: u8 = 1;

/// The version of what [`VERSION`] cannot say, and the newest that this crate reads.
pub const VERSION_2: u8 = 2;

/// Largest encoded message in bytes, COBS framing not counted.
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// Most channels in one block.
pub const AXES_MAX: usize = 8;

/// Most samples per channel in one block.
pub const BLOCK_SAMPLES_MAX: usize = 8192;

/// Most streams on one node.
pub const STREAMS_MAX: usize = 8;

/// Largest sample index or count of samples in any field, so that sums of two never overflow.
pub const SAMPLE_INDEX_MAX: u64 = 1 << 62;

/// The kind of a message: its second byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Raw samples of one stream.
    Block = 1,
    /// Who the node is; retained.
    Birth = 2,
    /// Features that the node computed itself, in place of raw samples.
    Features = 3,
    /// Raw samples around a trigger.
    Burst = 4,
    /// Counters of the node, among them the oldest sequence number that it still holds.
    Status = 5,
    /// The node's tick counter beside UTC.
    TimePair = 6,
    /// The gateway's cumulative acknowledgement.
    Ack = 7,
    /// The gateway asks something of a node.
    Command = 8,
    /// The node's answer to a command.
    Answer = 9,
    /// The node's last will.
    Offline = 10,
    /// The gateway gives a node its run-time settings. From version 2 on, as all that follow.
    Set = 11,
    /// The run-time settings in force on a node.
    InForce = 12,
    /// A node asks for the time.
    TimeAsk = 13,
    /// The gateway tells it.
    TimeTell = 14,
}

/// Any message, decoded; strings and samples borrow from the bytes it came in.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<'a> {
    /// See [`Kind::Block`].
    Block(Block<'a>),
    /// See [`Kind::Birth`].
    Birth(Birth<'a>),
    /// See [`Kind::Features`].
    Features(Features<'a>),
    /// See [`Kind::Burst`].
    Burst(Burst<'a>),
    /// See [`Kind::Status`].
    Status(Status<'a>),
    /// See [`Kind::TimePair`].
    TimePair(TimePair<'a>),
    /// See [`Kind::Ack`].
    Ack(Ack<'a>),
    /// See [`Kind::Command`].
    Command(Command<'a>),
    /// See [`Kind::Answer`].
    Answer(Answer<'a>),
    /// See [`Kind::Offline`].
    Offline(Offline<'a>),
    /// See [`Kind::Set`].
    Set(Set<'a>),
    /// See [`Kind::InForce`].
    InForce(InForce<'a>),
    /// See [`Kind::TimeAsk`].
    TimeAsk(TimeAsk<'a>),
    /// See [`Kind::TimeTell`].
    TimeTell(TimeTell<'a>),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the shortest message has.
    #[error("message of {len} bytes is shorter than the shortest, 6 bytes")]
    TooShort {
        /// Bytes received.
        len: usize,
    },
    /// More bytes than [`MESSAGE_LEN_MAX`].
    #[error("message of {len} bytes is longer than the longest, {MESSAGE_LEN_MAX} bytes")]
    TooLong {
        /// Bytes received.
        len: usize,
    },
    /// The version byte is none that this kind of message has.
    #[error(
        "wire version {version} is unknown for this kind; this side reads version {VERSION}, and {VERSION_2} of the kinds that it adds or extends"
    )]
    UnknownVersion {
        /// The version byte.
        version: u8,
    },
    /// The kind byte names no [`Kind`].
    #[error("message kind {kind} is unknown")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// The checksum does not match.
    #[error("checksum is {found:#010x} but the bytes give {computed:#010x}")]
    Checksum {
        /// CRC-32C as received.
        found: u32,
        /// CRC-32C of the bytes as received.
        computed: u32,
    },
    /// The header is not the postcard form of this kind's fields.
    #[error("header of a {kind:?} message is malformed")]
    Header {
        /// Which kind.
        kind: Kind,
    },
    /// A field's value is outside its documented range.
    #[error("field {field} of a {kind:?} message is out of range")]
    Field {
        /// Which kind.
        kind: Kind,
        /// Which field.
        field: &'static str,
    },
    /// The sample bytes are not what header and encoding announce.
    #[error("samples do not match their header: {reason}")]
    Samples {
        /// What is wrong.
        reason: &'static str,
    },
}

/// Why a message was not encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The output buffer is too small, or the message exceeds [`MESSAGE_LEN_MAX`].
    #[error("message does not fit its buffer of {capacity} bytes")]
    BufferTooSmall {
        /// The buffer's length.
        capacity: usize,
    },
    /// A field's value is outside its documented range.
    #[error("field {field} is out of range")]
    Field {
        /// Which field.
        field: &'static str,
    },
}
