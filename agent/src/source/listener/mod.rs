//! The built-in MQTT server, for sites without a broker: MQTT 3.1.1 and 5 on one port, QoS 0 and 1, wildcards, retained
//! messages, last wills, keep-alive and session take-over; enough for our boards and for everyone's command-line clients.
//!
//! Its one purpose is what ready-made servers do not do: **a PUBACK waits for the journal's commit**, and nothing else
//! waits for it. What was considered:
//! - rumqttd 0.20 acknowledges when its own in-memory log has the message, and has no hook between the two.
//! - ntex-mqtt 9.0 lets the PUBACK wait for a handler, many handlers at a time. But its dispatcher (`io.rs`, the `queue` of
//!   responses) writes all responses of a connection in the order of the requests: a withheld PUBACK withholds PINGRESP,
//!   SUBACK and the acks of later messages, so a disk that is slow for one keep-alive would cut off every client. It also
//!   brings a second runtime that spawns threads of its own, and both protocol versions as separate sets of types.
//! - The packets of rumqttc, which the gateway's own client uses, take a DISCONNECT of MQTT 5 without a body (what
//!   mosquitto sends) for an error: an orderly farewell would be mistaken for a lost connection, and its will published.
//!
//! So the packets are in [`packet`] (reading allocates nothing), the table of clients in [`broker`] (no I/O), and one task
//! a client in [`connection`].
//!
//! Limits, each with a counter in `metrics.source`: clients (`clients_refused`), bytes a packet and all else that ends a
//! connection for cause (`packets_refused`), subscriptions (`subscriptions_refused`), retained messages
//! (`retained_dropped`), messages waiting for a subscriber, of either QoS (`subscriber_dropped`). Unacknowledged messages
//! a client are limited by not reading further.
//!
//! Not kept: sessions. CONNACK never says "session present", and says to clients of MQTT 5 that the session ends with the
//! connection. A client whose connection was lost sends again what had no PUBACK, and the gateway knows duplicates.
//! Acknowledgements come in the order of commits, which may differ from that of arrival. Only the gateway publishes to
//! `.../ack` and `.../cmd`. No TLS, no passwords: bind it to a network that is trusted.

mod broker;
mod connection;
mod packet;
#[cfg(test)]
mod tests;
mod write;

use super::time::TimeTeller;
use super::{Inbox, Outgoing, PACKET_LEN_MAX, SourceEnd, SourceId};
use crate::api::metrics::Metrics;
use crate::config::ListenerSource;
use crate::runtime::Stop;
use broker::{Broker, Message};
use packet::Qos;
use parking_lot::Mutex;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Messages of QoS 1 from a client that may wait for their commit (receive maximum); then it is not read.
const IN_FLIGHT_MAX: usize = 256;
/// Messages of QoS 1 to a client that may wait for its PUBACK.
const OUT_IN_FLIGHT_MAX: usize = 64;
/// Bytes of a client's messages that may wait for a place in the inbox; then it is not read.
const PENDING_BYTES_MAX: usize = 256 << 10;
/// Messages, and their bytes, that may wait for a subscriber; further ones are dropped and counted.
const QUEUE_MAX: usize = 1024;
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Subscriptions a client.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Subscriptions with wildcards in all: every message is compared with each.
const WILDCARDS_MAX: usize = 1024;
/// Retained messages, and their bytes.
const RETAINED_MAX: usize = 1024;
const RETAINED_BYTES_MAX: usize = 16 << 20;
/// Connections that have not said who they are, besides the clients.
const STRANGERS_MAX: usize = 32;
/// How long they have for it.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long connections may take to close.
const CLOSE_MAX: Duration = Duration::from_millis(400);
/// Pause after a failed accept: it means that there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Any bytes as what a client sends: one byte of version, then packets. For `fuzz`.
#[doc(hidden)]
pub fn fuzz_packets(data: &[u8]) {
    let Some((version, mut rest)) = data.split_first() else { return };
    let version = if version & 1 == 0 { packet::Version::V3 } else { packet::Version::V5 };
    while let Ok(Some((first, body))) = packet::frame(rest, PACKET_LEN_MAX) {
        let end = body.end;
        let Ok(packet) = packet::decode(version, first, &rest[body]) else { return };
        if let packet::Packet::Subscribe(_, mut filters) | packet::Packet::Unsubscribe(_, mut filters) =
            packet
        {
            while let Ok(Some((filter, _))) = filters.next() {
                let _ = crate::source::topic::is_filter(filter);
            }
        }
        rest = &rest[end..];
    }
}

/// Why the listener does not listen.
#[derive(Debug, thiserror::Error)]
#[error("listener cannot bind {address}: {source}")]
pub struct ListenerError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// Why it cannot.
    pub source: std::io::Error,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    id: SourceId,
    /// Topic filters of what the gateway itself takes; everything else is between the clients.
    wanted: Vec<String>,
    inbox: Inbox,
    metrics: Arc<Metrics>,
    time: TimeTeller,
    broker: Mutex<Broker>,
    /// Nothing is read any more; acknowledgements still go out.
    stop: Stop,
    /// All is acknowledged that will be: connections end.
    closing: Stop,
}

/// A client's work, to be spawned.
pub type ClientTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    id: SourceId,
    socket: TcpListener,
    address: SocketAddr,
    clients_max: usize,
    wanted: Vec<String>,
    metrics: Arc<Metrics>,
    time: TimeTeller,
}

impl Listener {
    /// Binds the address. `wanted` are the topic filters of what the gateway takes in; other messages are for
    /// subscribers only.
    ///
    /// # Errors
    /// It cannot be bound.
    pub async fn bind(
        id: SourceId,
        config: &ListenerSource,
        wanted: Vec<String>,
        metrics: Arc<Metrics>,
        time: TimeTeller,
    ) -> Result<Self, ListenerError> {
        let error = |source| ListenerError { address: config.bind, source };
        let socket = TcpListener::bind(config.bind).await.map_err(error)?;
        let address = socket.local_addr().map_err(error)?;
        tracing::info!(%address, "listening for MQTT clients");
        Ok(Self { id, socket, address, clients_max: config.clients_max, wanted, metrics, time })
    }

    /// Where it listens: tells the port when the configuration left it open.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Works until the agent has no more to acknowledge; takes nothing in from `stop` on. `spawn` starts a client's work.
    pub async fn run(self, inbox: Inbox, end: SourceEnd, stop: Stop, spawn: impl Fn(ClientTask) + Send) {
        let shared = Arc::new(Shared {
            id: self.id,
            wanted: self.wanted,
            inbox,
            metrics: self.metrics.clone(),
            time: self.time,
            broker: Mutex::new(Broker::new(self.clients_max, self.metrics)),
            stop,
            closing: Stop::new(),
        });
        end.state.up();
        let sockets_max = self.clients_max.saturating_add(STRANGERS_MAX).min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(sockets_max));
        tokio::select! {
            () = accept(&self.socket, &shared, &places, spawn) => {}
            () = control(&shared, end) => {}
        }
        shared.closing.set();
        shared.broker.lock().wake_all();
        let all = u32::try_from(sockets_max).unwrap_or(u32::MAX);
        let _ = timeout(CLOSE_MAX, places.acquire_many(all)).await;
    }
}

async fn accept(
    socket: &TcpListener,
    shared: &Arc<Shared>,
    places: &Arc<Semaphore>,
    spawn: impl Fn(ClientTask),
) {
    let mut number = 0;
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => match places.clone().try_acquire_owned() {
                Ok(place) => {
                    number += 1;
                    spawn(Box::pin(connection::serve(shared.clone(), stream, peer, number, place)));
                }
                // Dropping the socket is the answer: who it is would have to be read first.
                Err(_) => shared.metrics.source.clients_refused.increment(),
            },
            Err(error) => {
                tracing::warn!(%error, "listener cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Does what the agent asks, until it asks no more.
async fn control(shared: &Shared, mut end: SourceEnd) {
    loop {
        tokio::select! {
            tokens = end.release.recv() => match tokens {
                Some(tokens) => shared.broker.lock().release(&tokens),
                None => break,
            },
            Some(message) = end.outgoing.recv() => shared.broker.lock().publish(own(message), None),
        }
    }
    // The last acks to nodes.
    while let Ok(message) = end.outgoing.try_recv() {
        shared.broker.lock().publish(own(message), None);
    }
}

/// A message of the gateway's own.
fn own(message: Outgoing) -> Message {
    Message {
        topic: message.topic.into(),
        payload: message.payload,
        properties: bytes::Bytes::new(),
        qos: if message.at_least_once { Qos::AtLeastOnce } else { Qos::AtMostOnce },
        retain: false,
    }
}
