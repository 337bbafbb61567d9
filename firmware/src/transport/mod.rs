//! Ways to the gateway behind one trait: [`mqtt`] and [`serial`], the latter over a [`line`]. Feature `tls`: MQTT over TLS.

pub mod line;
pub mod mqtt;
pub mod serial;
#[cfg(feature = "net")]
pub mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "net")]
pub mod udp;

use embedded_io_async::{Read, Write};
use spindle_common::id::StreamId;

/// Where a message belongs: an MQTT topic; on a serial line the message itself says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Blocks of a stream.
    Raw(StreamId),
    /// Features of a stream.
    Features(StreamId),
    /// Bursts of a stream.
    Burst(StreamId),
    /// Who the node is; retained.
    Birth,
    /// Counters.
    Status,
    /// (tick, UTC) pairs.
    Time,
    /// Answers to commands.
    Answer,
    /// Settings in force.
    Settings,
    /// Questions for the time.
    TimeAsk,
}

impl Channel {
    /// The sensor that it is about, where it is about one.
    #[must_use]
    pub const fn stream(self) -> Option<StreamId> {
        match self {
            Self::Raw(stream) | Self::Features(stream) | Self::Burst(stream) => Some(stream),
            _ => None,
        }
    }
}

/// Opens byte streams to the other side: a TCP socket to the broker, or the serial port.
#[allow(async_fn_in_trait, reason = "tasks of one board run on one executor and need no Send")]
pub trait Dial {
    /// The byte stream. Its `flush` must not wait for the other side (a round trip a message otherwise).
    type Io<'d>: Read + Write
    where
        Self: 'd;
    /// Why it was not opened.
    type Error: core::fmt::Debug;

    /// Opens a stream; any earlier one is closed.
    async fn dial(&mut self) -> Result<Self::Io<'_>, Self::Error>;
}

/// A way to the gateway.
#[allow(async_fn_in_trait, reason = "tasks of one board run on one executor and need no Send")]
pub trait Transport {
    /// An open link.
    type Link<'t>: Link
    where
        Self: 't;
    /// Why it was not opened.
    type Error: core::fmt::Debug;

    /// Opens the link, ready for the node's birth.
    async fn open(&mut self) -> Result<Self::Link<'_>, Self::Error>;
}

/// An open link to the gateway.
#[allow(async_fn_in_trait, reason = "tasks of one board run on one executor and need no Send")]
pub trait Link {
    /// What breaks it.
    type Error: core::fmt::Debug;

    /// Whether [`Link::send`] would take a message now. When not, [`Link::wait`] until it does.
    fn ready(&self) -> bool;

    /// Hands a message over. What happens to it afterwards only the gateway's acknowledgement tells.
    async fn send(&mut self, channel: Channel, message: &[u8]) -> Result<(), Self::Error>;

    /// Waits for a message of the gateway (its length in `inbox`) or for any progress (`None`). A message that does not fit is
    /// dropped, and its length told nevertheless. Safe to drop half-way.
    async fn wait(&mut self, inbox: &mut [u8]) -> Result<Option<usize>, Self::Error>;

    /// Messages or frames that came in and were dropped, since the link was opened: garbled, or too many at once.
    fn dropped(&self) -> u32;

    /// Says goodbye, so that the gateway need not guess.
    async fn close(self);
}
