//! Tokio's sockets and serial ports as the core's byte streams.
//!
//! Writes are gathered and go out when the board next waits for input, or when 64 KiB have gathered; on TCP `flush` does
//! nothing. So many messages share one system call, and no message costs a round trip.

use super::tap::Switches;
use crate::transport::Dial;
use embassy_time::{Duration, Timer};
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use std::path::PathBuf;
use std::string::String;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::vec::Vec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GATHER_LEN: usize = 64 * 1024;
const READ_LEN: usize = 4096;

/// A byte stream that a switch can cut.
pub(crate) struct HostIo<I> {
    io: I,
    out: Vec<u8>,
    sent: usize,
    input: Box<[u8; READ_LEN]>,
    at: usize,
    filled: usize,
    /// `flush` writes at once: for lines without round trips.
    eager: bool,
    switches: Arc<Switches>,
}

impl<I> HostIo<I> {
    fn new(io: I, eager: bool, switches: Arc<Switches>) -> Self {
        Self {
            io,
            out: Vec::new(),
            sent: 0,
            input: Box::new([0; READ_LEN]),
            at: 0,
            filled: 0,
            eager,
            switches,
        }
    }

    fn check(&self) -> Result<(), ErrorKind> {
        if self.switches.cut.load(Ordering::Relaxed) { Err(ErrorKind::ConnectionReset) } else { Ok(()) }
    }
}

impl<I: tokio::io::AsyncWrite + Unpin> HostIo<I> {
    /// Writes what has gathered. Dropped half-way it goes on where it was.
    async fn push(&mut self) -> Result<(), ErrorKind> {
        while self.sent < self.out.len() {
            let count = self.io.write(&self.out[self.sent..]).await.map_err(|error| kind(&error))?;
            if count == 0 {
                return Err(ErrorKind::WriteZero);
            }
            self.sent += count;
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }
}

impl<I> ErrorType for HostIo<I> {
    type Error = ErrorKind;
}

impl<I: tokio::io::AsyncWrite + Unpin> Write for HostIo<I> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.check()?;
        if self.out.len() >= GATHER_LEN {
            self.push().await?;
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        if self.eager { self.push().await } else { Ok(()) }
    }
}

impl<I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Read for HostIo<I> {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, ErrorKind> {
        if self.at == self.filled {
            self.push().await?;
            self.check()?;
            (self.at, self.filled) = (0, 0);
            loop {
                // A cut link is noticed here too, without traffic.
                let look = Timer::after(Duration::from_millis(100));
                match embassy_futures::select::select(self.io.read(&mut self.input[..]), look).await {
                    embassy_futures::select::Either::First(count) => {
                        self.filled = count.map_err(|error| kind(&error))?;
                        break;
                    }
                    embassy_futures::select::Either::Second(()) => self.check()?,
                }
            }
        }
        let count = out.len().min(self.filled - self.at);
        out[..count].copy_from_slice(&self.input[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// The core only asks whether a stream broke; the rest is for people.
fn kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => ErrorKind::ConnectionRefused,
        std::io::ErrorKind::ConnectionReset => ErrorKind::ConnectionReset,
        std::io::ErrorKind::BrokenPipe => ErrorKind::BrokenPipe,
        _ => ErrorKind::Other,
    }
}

/// Dials TCP.
pub(crate) struct TcpDial {
    pub(crate) address: String,
    pub(crate) switches: Arc<Switches>,
}

impl Dial for TcpDial {
    type Io<'d> = HostIo<tokio::net::TcpStream>;
    type Error = ErrorKind;

    async fn dial(&mut self) -> Result<Self::Io<'_>, ErrorKind> {
        if self.switches.cut.load(Ordering::Relaxed) {
            return Err(ErrorKind::ConnectionRefused);
        }
        let stream = tokio::net::TcpStream::connect(&self.address).await.map_err(|error| kind(&error))?;
        stream.set_nodelay(true).map_err(|error| kind(&error))?;
        Ok(HostIo::new(stream, false, self.switches.clone()))
    }
}

/// Opens a serial device or pseudo terminal.
pub(crate) struct SerialDial {
    pub(crate) device: PathBuf,
    pub(crate) baud: u32,
    pub(crate) switches: Arc<Switches>,
}

impl Dial for SerialDial {
    type Io<'d> = HostIo<tokio_serial::SerialStream>;
    type Error = ErrorKind;

    async fn dial(&mut self) -> Result<Self::Io<'_>, ErrorKind> {
        if self.switches.cut.load(Ordering::Relaxed) {
            return Err(ErrorKind::ConnectionRefused);
        }
        let port = tokio_serial::new(self.device.to_string_lossy(), self.baud);
        let stream = tokio_serial::SerialStream::open(&port).map_err(|_| ErrorKind::NotConnected)?;
        Ok(HostIo::new(stream, true, self.switches.clone()))
    }
}
