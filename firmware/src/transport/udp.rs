//! UDP to one peer over a board's own stack (embassy-net): for the time server.

use crate::clock::sntp::Datagram;
use core::net::{Ipv4Addr, SocketAddrV4};
use embassy_net::Stack;
use embassy_net::udp::{PacketMetadata, UdpSocket};

/// SNTP's port (RFC 4330).
pub const SNTP_PORT: u16 = 123;

/// Largest datagram, bytes; an SNTP packet has 48.
const DATAGRAM_LEN: usize = 128;

/// Any port may ask.
const LOCAL_PORT: u16 = 50_123;

/// Memory of one socket.
pub struct UdpBuffers {
    rx_meta: [PacketMetadata; 4],
    tx_meta: [PacketMetadata; 2],
    rx: [u8; 4 * DATAGRAM_LEN],
    tx: [u8; 2 * DATAGRAM_LEN],
}

impl UdpBuffers {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rx_meta: [PacketMetadata::EMPTY; 4],
            tx_meta: [PacketMetadata::EMPTY; 2],
            rx: [0; 4 * DATAGRAM_LEN],
            tx: [0; 2 * DATAGRAM_LEN],
        }
    }
}

impl Default for UdpBuffers {
    fn default() -> Self {
        Self::new()
    }
}

/// Why there is no exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UdpError {
    /// The stack has no way to the peer yet.
    #[error("no way to the peer")]
    Send,
    /// Longer than any that was expected.
    #[error("datagram is too long")]
    Length,
    /// No local port.
    #[error("no free port")]
    Bind,
}

/// A socket that hears one peer only.
pub struct UdpPeer<'b> {
    socket: UdpSocket<'b>,
    peer: SocketAddrV4,
}

impl<'b> UdpPeer<'b> {
    /// To `port` of `address`, in numbers; `None` when it is not one.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(
        stack: Stack<'static>,
        address: &str,
        port: u16,
        buffers: &'b mut UdpBuffers,
    ) -> Result<Option<Self>, UdpError> {
        let Ok(address) = address.parse::<Ipv4Addr>() else { return Ok(None) };
        let UdpBuffers { rx_meta, tx_meta, rx, tx } = buffers;
        let mut socket = UdpSocket::new(stack, rx_meta, rx, tx_meta, tx);
        socket.bind(LOCAL_PORT).map_err(|_| UdpError::Bind)?;
        Ok(Some(Self { socket, peer: SocketAddrV4::new(address, port) }))
    }
}

impl Datagram for UdpPeer<'_> {
    type Error = UdpError;

    async fn send(&mut self, packet: &[u8]) -> Result<(), UdpError> {
        self.socket.send_to(packet, self.peer).await.map_err(|_| UdpError::Send)
    }

    async fn receive(&mut self, packet: &mut [u8]) -> Result<usize, UdpError> {
        loop {
            let (len, from) = self.socket.recv_from(packet).await.map_err(|_| UdpError::Length)?;
            if from.endpoint == self.peer.into() {
                return Ok(len);
            }
        }
    }
}
