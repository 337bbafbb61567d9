//! Serial: each message one COBS frame, both ways. The line may garble or lose anything: the checksum in each message, the
//! gateway's acknowledgement and sending again make it whole.

use super::{Channel, Dial, Link, Transport};
use crate::uplink::session::INBOX_LEN;
use embedded_io_async::{Error as _, ErrorKind, Read, Write};
use spindle_common::wire::frame;

/// Bytes read at a time.
const READ_LEN: usize = 64;

/// What breaks a serial link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The port failed.
    #[error("serial port failed: {0:?}")]
    Io(ErrorKind),
    /// The port is gone.
    #[error("serial port closed")]
    Closed,
    /// The frame buffer is too small for a message of this length.
    #[error("message of {len} bytes does not fit the frame buffer")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

/// A serial port and a buffer for one frame.
#[derive(Debug)]
pub struct Serial<'b, D> {
    dial: D,
    frame: &'b mut [u8],
}

impl<'b, D: Dial> Serial<'b, D> {
    /// `frame` holds one encoded frame: `wire::frame::len_max` of the largest message.
    pub const fn new(dial: D, frame: &'b mut [u8]) -> Self {
        Self { dial, frame }
    }
}

impl<D: Dial> Transport for Serial<'_, D> {
    type Link<'t>
        = SerialLink<'t, D::Io<'t>>
    where
        Self: 't;
    type Error = Error;

    async fn open(&mut self) -> Result<Self::Link<'_>, Error> {
        let mut io = self.dial.dial().await.map_err(|_| Error::Closed)?;
        // Ends whatever half a frame the line still holds.
        write_all(&mut io, &[0]).await?;
        let decoder = frame::Decoder::new();
        Ok(SerialLink { io, frame: self.frame, decoder, read: [0; READ_LEN], at: 0, filled: 0 })
    }
}

/// An open serial line.
pub struct SerialLink<'t, I> {
    io: I,
    frame: &'t mut [u8],
    decoder: frame::Decoder<INBOX_LEN>,
    read: [u8; READ_LEN],
    at: usize,
    filled: usize,
}

impl<I: Read + Write> Link for SerialLink<'_, I> {
    type Error = Error;

    fn ready(&self) -> bool {
        true
    }

    async fn send(&mut self, _channel: Channel, message: &[u8]) -> Result<(), Error> {
        let len = frame::encode(message, self.frame).map_err(|_| Error::TooLong { len: message.len() })?;
        write_all(&mut self.io, &self.frame[..len]).await?;
        self.io.flush().await.map_err(|error| Error::Io(error.kind()))
    }

    async fn wait(&mut self, inbox: &mut [u8]) -> Result<Option<usize>, Error> {
        loop {
            while self.at < self.filled {
                let pushed = self.decoder.push(&self.read[self.at..self.filled]);
                self.at += pushed.consumed;
                if let Some(message) = pushed.frame
                    && let Some(place) = inbox.get_mut(..message.len())
                {
                    place.copy_from_slice(message);
                    return Ok(Some(message.len()));
                }
            }
            // Nothing is kept across this await but what is in `self`, so dropping it loses nothing.
            let count = self.io.read(&mut self.read).await.map_err(|error| Error::Io(error.kind()))?;
            if count == 0 {
                return Err(Error::Closed);
            }
            (self.at, self.filled) = (0, count);
        }
    }

    fn dropped(&self) -> u32 {
        u32::try_from(self.decoder.counters().refused).unwrap_or(u32::MAX)
    }

    async fn close(mut self) {
        // Best effort: the line may be dead.
        let _ = self.io.flush().await;
    }
}

async fn write_all<W: Write>(io: &mut W, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let count = io.write(bytes).await.map_err(|error| Error::Io(error.kind()))?;
        if count == 0 {
            return Err(Error::Closed);
        }
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}
