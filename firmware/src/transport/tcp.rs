//! TCP over a board's own stack (embassy-net): dials the broker once the stack has an address itself.

use super::Dial;
use core::net::{Ipv4Addr, SocketAddrV4};
use embassy_net::tcp::{ConnectError, Error as IoError, TcpSocket};
use embassy_net::{Config, DhcpConfig, Ipv4Cidr, Stack, StaticConfigV4};
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
    /// Not an IPv4 address and a port.
    #[error("broker is not ADDRESS:PORT")]
    Address,
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
    /// Dials `peer`: `ADDRESS:PORT`, the address in numbers.
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
        let peer: SocketAddrV4 = self.peer.parse().map_err(|_| DialError::Address)?;
        self.stack.wait_config_up().await;
        let mut socket = TcpSocket::new(self.stack, &mut self.buffers.rx, &mut self.buffers.tx);
        socket.set_timeout(Some(TIMEOUT));
        // Acks of blocks and pings are short; they must not wait for company.
        socket.set_nagle_enabled(false);
        socket.connect(peer).await.map_err(DialError::Connect)?;
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

/// The stack's own address: `address` with its prefix (`192.168.1.20/24`) and a router, or DHCP without them. `None` when one of
/// them is not written so.
#[must_use]
pub fn stack_config(address: Option<&str>, router: Option<&str>) -> Option<Config> {
    let Some(address) = address else { return Some(Config::dhcpv4(DhcpConfig::default())) };
    let (host, prefix) = address.split_once('/')?;
    let host: Ipv4Addr = host.parse().ok()?;
    let prefix = prefix.parse().ok().filter(|&prefix| prefix <= 32)?;
    let gateway = router.map(str::parse).transpose().ok()?;
    let address = Ipv4Cidr::new(host, prefix);
    Some(Config::ipv4_static(StaticConfigV4 { address, gateway, dns_servers: heapless::Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::stack_config;

    #[test]
    fn an_own_address_has_a_prefix_and_what_is_not_one_is_refused() {
        assert!(stack_config(None, None).is_some());
        assert!(stack_config(Some("192.168.1.20/24"), Some("192.168.1.1")).is_some());
        for (address, router) in
            [("192.168.1.20", None), ("192.168.1.20/33", None), ("10.0.0.1/8", Some("router"))]
        {
            assert!(stack_config(Some(address), router).is_none(), "{address} {router:?}");
        }
    }
}
