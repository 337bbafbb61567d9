//! TCP over a board's own stack (embassy-net): dials the broker by address or name, once the stack has an address itself.

use super::Dial;
use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::{Error as IoError, TcpSocket};
use embassy_net::{Stack, tcp::ConnectError};
use embassy_time::Duration;
use embedded_io_async::{ErrorType, Read, Write};

/// A peer that acknowledges nothing for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Room for what comes in. It is also the window that the peer sees, and so the most that it sends at a time: acks and
/// commands are small, and chips such as the LAN9118 overflow silently when more than about 8 kB arrives at once.
pub const RX_LEN: usize = 4096;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Not `ADDRESS:PORT` or `NAME:PORT`.
    #[error("broker is not ADDRESS:PORT")]
    Address,
    /// The name has no address.
    #[error("broker's name has no address")]
    Name,
    /// Nobody answers there.
    #[error("no TCP connection: {0:?}")]
    Connect(ConnectError),
}

/// Dials one peer. `TX` bytes wait for the peer's acknowledgement; over a round trip of `t` seconds that carries at most
/// `TX / t` bytes per second.
pub struct TcpDial<'b, const TX: usize> {
    stack: Stack<'static>,
    peer: &'b str,
    buffers: &'b mut TcpBuffers<TX>,
}

/// Memory of one connection.
pub struct TcpBuffers<const TX: usize> {
    rx: [u8; RX_LEN],
    tx: [u8; TX],
}

impl<const TX: usize> TcpBuffers<TX> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { rx: [0; RX_LEN], tx: [0; TX] }
    }
}

impl<const TX: usize> Default for TcpBuffers<TX> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'b, const TX: usize> TcpDial<'b, TX> {
    /// Dials `peer`: `ADDRESS:PORT` or `NAME:PORT`.
    pub const fn new(stack: Stack<'static>, peer: &'b str, buffers: &'b mut TcpBuffers<TX>) -> Self {
        Self { stack, peer, buffers }
    }
}

impl<const TX: usize> Dial for TcpDial<'_, TX> {
    type Io<'d>
        = TcpIo<'d>
    where
        Self: 'd;
    type Error = DialError;

    /// Waits for the stack's own address as well; the caller sets the limit.
    async fn dial(&mut self) -> Result<TcpIo<'_>, DialError> {
        let (host, port) = host_port(self.peer).ok_or(DialError::Address)?;
        self.stack.wait_config_up().await;
        let addresses = self.stack.dns_query(host, DnsQueryType::A).await.map_err(|_| DialError::Name)?;
        let address = *addresses.first().ok_or(DialError::Name)?;
        let mut socket = TcpSocket::new(self.stack, &mut self.buffers.rx, &mut self.buffers.tx);
        socket.set_timeout(Some(TIMEOUT));
        // Acks of blocks and pings are short; they must not wait for company.
        socket.set_nagle_enabled(false);
        socket.connect((address, port)).await.map_err(DialError::Connect)?;
        Ok(TcpIo { socket })
    }
}

/// A connection whose `flush` does not wait for the peer: what was written goes out by itself, and waiting for TCP's
/// acknowledgement would cost a round trip a message.
pub struct TcpIo<'d> {
    socket: TcpSocket<'d>,
}

impl ErrorType for TcpIo<'_> {
    type Error = IoError;
}

impl Read for TcpIo<'_> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, IoError> {
        self.socket.read(bytes).await
    }
}

impl Write for TcpIo<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, IoError> {
        self.socket.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// Splits `HOST:PORT`.
fn host_port(peer: &str) -> Option<(&str, u16)> {
    let (host, port) = peer.rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::host_port;

    #[test]
    fn a_peer_is_a_host_and_a_port() {
        assert_eq!(host_port("10.0.2.2:1883"), Some(("10.0.2.2", 1883)));
        assert_eq!(host_port("broker.plant:8883"), Some(("broker.plant", 8883)));
        for wrong in ["10.0.2.2", ":1883", "broker:", "broker:0", "broker:65536", "broker:x"] {
            assert_eq!(host_port(wrong), None, "{wrong}");
        }
    }
}
