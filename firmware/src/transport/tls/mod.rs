//! TLS 1.3 (RFC 8446) over what another [`Dial`] dials, by embedded-tls.
//!
//! The broker is believed when the first certificate that it shows is signed by this site's authority itself, with ECDSA P-256
//! and SHA-256; is for servers; has the dialled IP address among its alternative names; and when it has proved that it has its
//! key. Not checked: from when to when the certificate is valid, as a board has no clock before it is connected, and whether it
//! was revoked. A broker whose key is lost is therefore shut out only by a new authority, and new firmware. There is no way to
//! switch the check off.
//!
//! When the broker asks for it, the node shows its own certificate. Whoever reads the board's flash has its key.
//!
//! Records of up to 4 kB are agreed with the broker (OpenSSL's know how; one that does not must send none that is longer), so that
//! [`TlsBuffers`] are about 17 kB and not twice 16 kB.
//!
//! What it costs on the emulated Cortex-M4, counted by QEMU: 31 million instructions a handshake, of which up to 10.5 million in
//! one go, and 205 a byte sent, so some 33 million a second for an IIS3DWB in raw form. On a core of 100 MHz the sensor's FIFO
//! overruns while the arithmetic of a handshake keeps the processor; that is counted as any other overrun.

mod der;
#[cfg(test)]
mod tests;
mod verify;
mod wire;

pub use verify::Distrust;
pub use wire::WireError;

use super::Dial;
use crate::config::TlsFiles;
use crate::log::log;
use core::cell::RefCell;
use core::net::SocketAddrV4;
use core::pin::pin;
use core::task::Poll;
use embassy_futures::{poll_once, yield_now};
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use embedded_tls::{FlushPolicy, MaxFragmentLength, TlsConfig, TlsConnection, TlsContext, TlsError};
use verify::{Identity, Suite};
use wire::{BODY_LEN, OUT_LEN, Queues, Wire, drain, is_wanted, opened, pull};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError<E> {
    /// No connection below.
    #[error("{0}")]
    Below(E),
    /// Not an IPv4 address and a port.
    #[error("broker is not ADDRESS:PORT")]
    Peer,
    /// The build takes no others.
    #[error("certificates or key built into this firmware are damaged")]
    Files,
    /// The connection below broke, or the broker sent nonsense.
    #[error("{0}")]
    Wire(WireError),
    /// The broker could not be agreed with, or refused us.
    #[error("TLS handshake failed: {0:?}")]
    Handshake(TlsError),
    /// The broker is not who it should be.
    #[error("broker is not believed: {0}")]
    Distrust(Distrust),
}

/// What breaks a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection below.
    #[error("{0}")]
    Wire(WireError),
    /// A record that does not decrypt, an alert, the end.
    #[error("TLS broke: {0:?}")]
    Tls(TlsError),
}

impl embedded_io_async::Error for StreamError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Wire(WireError::Below(kind)) => *kind,
            Self::Wire(WireError::Closed) | Self::Tls(TlsError::ConnectionClosed) => {
                ErrorKind::ConnectionReset
            }
            _ => ErrorKind::InvalidData,
        }
    }
}

/// Memory of one connection.
pub struct TlsBuffers {
    queues: RefCell<Queues>,
    read: [u8; BODY_LEN],
    write: [u8; OUT_LEN],
}

impl TlsBuffers {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { queues: RefCell::new(Queues::new()), read: [0; BODY_LEN], write: [0; OUT_LEN] }
    }
}

impl Default for TlsBuffers {
    fn default() -> Self {
        Self::new()
    }
}

/// Dials by `D` and makes the handshake on what it gives.
pub struct TlsDial<'b, D, F> {
    dial: D,
    peer: &'b str,
    files: TlsFiles,
    buffers: &'b mut TlsBuffers,
    fill: F,
}

impl<'b, D: Dial, F: FnMut(&mut [u8])> TlsDial<'b, D, F> {
    /// `peer` is what `dial` dials, `ADDRESS:PORT`, the address in numbers: it must be in the broker's certificate. `fill` fills
    /// with randomness that nobody can guess; keys are made of it.
    pub const fn new(dial: D, peer: &'b str, files: TlsFiles, buffers: &'b mut TlsBuffers, fill: F) -> Self {
        Self { dial, peer, files, buffers, fill }
    }
}

impl<D: Dial, F: FnMut(&mut [u8])> Dial for TlsDial<'_, D, F> {
    type Io<'d>
        = TlsIo<'d, D::Io<'d>>
    where
        Self: 'd;
    type Error = DialError<D::Error>;

    /// The caller sets the limit.
    async fn dial(&mut self) -> Result<TlsIo<'_, D::Io<'_>>, DialError<D::Error>> {
        let peer: SocketAddrV4 = self.peer.parse().map_err(|_| DialError::Peer)?;
        let Some(mut identity) = Identity::new(&self.files, *peer.ip(), &mut self.fill) else {
            return Err(DialError::Files);
        };
        let mut io = self.dial.dial().await.map_err(DialError::Below)?;
        let TlsBuffers { queues, read, write } = &mut *self.buffers;
        queues.get_mut().clear();
        let queues: &RefCell<Queues> = queues;
        let mut tls = TlsConnection::new(Wire(queues), read, write);
        let config = TlsConfig::new().with_max_fragment_length(MaxFragmentLength::Bits12);
        let result = {
            let mut handshake = pin!(tls.open(TlsContext::new(&config, &mut identity)));
            loop {
                if let Poll::Ready(result) = poll_once(handshake.as_mut()) {
                    break result;
                }
                drain(queues, &mut io).await.map_err(DialError::Wire)?;
                // The arithmetic between two records is long enough for others to have their turn.
                yield_now().await;
                if is_wanted(queues) {
                    pull(queues, &mut io).await.map_err(DialError::Wire)?;
                }
            }
        };
        match (result, identity.verifier.is_satisfied()) {
            (Ok(()), Ok(())) => {}
            // Its doubt, and not what TLS makes of it, is the reason. Without a certificate TLS may know more.
            (Err(error), Ok(()) | Err(Distrust::Unproved)) => {
                return Err(DialError::Handshake(error));
            }
            (_, Err(distrust)) => {
                log!(warn, "broker is not believed");
                return Err(DialError::Distrust(distrust));
            }
        }
        tls.set_flush_policy(FlushPolicy::Relaxed);
        drain(queues, &mut io).await.map_err(DialError::Wire)?;
        opened(queues);
        Ok(TlsIo { tls, io, queues })
    }
}

/// An open connection. Safe to give up waiting for.
pub struct TlsIo<'d, I> {
    tls: TlsConnection<'d, Wire<'d>, Suite>,
    io: I,
    queues: &'d RefCell<Queues>,
}

impl<I> ErrorType for TlsIo<'_, I> {
    type Error = StreamError;
}

impl<I: Read + Write> Read for TlsIo<'_, I> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, StreamError> {
        // A flush that was given up half-way goes on here.
        self.flush().await?;
        loop {
            // Pends between records only, where nothing is lost.
            if let Poll::Ready(result) = poll_once(self.tls.read(bytes)) {
                return result.map_err(StreamError::Tls);
            }
            pull(self.queues, &mut self.io).await.map_err(StreamError::Wire)?;
        }
    }
}

impl<I: Read + Write> Write for TlsIo<'_, I> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        drain(self.queues, &mut self.io).await.map_err(StreamError::Wire)?;
        // The queue is empty and holds the one record that this may close.
        match poll_once(self.tls.write(bytes)) {
            Poll::Ready(result) => result.map_err(StreamError::Tls),
            Poll::Pending => Err(StreamError::Tls(TlsError::InsufficientSpace)),
        }
    }

    /// Hands all to the stream below; does not wait for the broker.
    async fn flush(&mut self) -> Result<(), StreamError> {
        drain(self.queues, &mut self.io).await.map_err(StreamError::Wire)?;
        match poll_once(self.tls.flush()) {
            Poll::Ready(result) => result.map_err(StreamError::Tls)?,
            Poll::Pending => return Err(StreamError::Tls(TlsError::InsufficientSpace)),
        }
        drain(self.queues, &mut self.io).await.map_err(StreamError::Wire)?;
        self.io
            .flush()
            .await
            .map_err(|error| StreamError::Wire(WireError::Below(embedded_io_async::Error::kind(&error))))
    }
}
