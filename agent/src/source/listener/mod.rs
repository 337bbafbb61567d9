//! The built-in MQTT listener, for sites without a broker: MQTT 3.1.1 and 5, QoS 0 and 1, subscriptions with wildcards,
//! retained messages, last wills. A PUBACK for what the gateway takes in waits for the commit. Sessions end with their
//! connection: a client that comes back subscribes anew, and a node sends what was not acknowledged.

mod broker;
mod client;
mod codec;

use super::{Inbox, Outgoing, SourceEnd, SourceId, topic};
use crate::api::metrics;
use crate::config::ListenerSource;
use crate::runtime::Stop;
use broker::Broker;
use codec::Publish;
use parking_lot::Mutex;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

/// Messages of one client that may be under way unacknowledged; beyond, it is not read.
const INFLIGHT_MAX: u16 = 512;
/// Messages that may wait for one client; further ones are dropped and counted.
const TELL_MAX: usize = 1024;
/// Pause after an accept that failed, such as for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the listener does not listen.
#[derive(Debug, thiserror::Error)]
#[error("listener cannot bind {address}: {source}")]
pub struct ListenerError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// Why it cannot.
    pub source: std::io::Error,
}

/// What the connections share.
#[derive(Debug)]
struct Shared {
    id: SourceId,
    broker: Mutex<Broker>,
    /// Topic filters of what the gateway takes in, besides its own tree.
    filters: Vec<String>,
    clients: Arc<AtomicUsize>,
    clients_max: usize,
    metrics: Arc<metrics::Metrics>,
    /// No more is taken in.
    stop: Stop,
    /// All is acknowledged that will be: connections end.
    closing: Closing,
}

#[derive(Debug, Default)]
struct Closing(Stop);

impl Closing {
    async fn wait_closed(&self) {
        self.0.wait().await;
    }
}

/// A client's place among the most that are allowed.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn place(&self) -> Option<Place> {
        let taken = self.clients.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clients.clone());
        (taken < self.clients_max).then_some(place)
    }

    /// Whether the gateway takes in what is published there.
    fn wants(&self, name: &str) -> bool {
        match name.rsplit_once('/') {
            Some((_, last)) if topic::is_ours(name) => topic::FROM_NODES.contains(&last),
            _ => self.filters.iter().any(|filter| topic::matches(filter, name)),
        }
    }
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
    filters: Vec<String>,
    metrics: Arc<metrics::Metrics>,
}

impl Listener {
    /// Binds the address. `filters` are the topic filters of what the gateway takes in.
    ///
    /// # Errors
    /// It cannot be bound.
    pub async fn bind(
        id: SourceId,
        config: &ListenerSource,
        filters: Vec<String>,
        metrics: Arc<metrics::Metrics>,
    ) -> Result<Self, ListenerError> {
        let error = |source| ListenerError { address: config.bind, source };
        let socket = TcpListener::bind(config.bind).await.map_err(error)?;
        let address = socket.local_addr().map_err(error)?;
        tracing::info!(%address, "MQTT listener is bound");
        let filters = filters.into_iter().filter(|filter| !topic::is_ours(filter)).collect();
        Ok(Self { id, socket, address, clients_max: config.clients_max, filters, metrics })
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
            broker: Mutex::new(Broker::new(self.metrics.clone())),
            filters: self.filters,
            clients: Arc::new(AtomicUsize::new(0)),
            clients_max: self.clients_max,
            metrics: self.metrics,
            stop,
            closing: Closing::default(),
        });
        tokio::select! {
            () = accept(&self.socket, &shared, inbox, spawn) => {}
            () = control(&shared, end) => {}
        }
        shared.closing.0.set();
    }
}

async fn accept(socket: &TcpListener, shared: &Arc<Shared>, inbox: Inbox, spawn: impl Fn(ClientTask)) {
    let mut connection = 0;
    loop {
        match socket.accept().await {
            // Connections that have not said who they are count too, or they could exhaust the process.
            Ok((stream, _)) if Arc::strong_count(shared) <= shared.clients_max.saturating_mul(2) + 16 => {
                connection += 1;
                let client = client::serve(stream, connection, shared.clone(), inbox.clone());
                spawn(Box::pin(client));
            }
            Ok(_) => shared.metrics.source.clients_refused.increment(),
            Err(error) => {
                tracing::warn!(%error, "listener cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Does what the agent asks, until it asks no more.
async fn control(shared: &Shared, mut end: SourceEnd) {
    loop {
        tokio::select! {
            tokens = end.release.recv() => {
                let Some(tokens) = tokens else { break };
                let broker = shared.broker.lock();
                let stale = tokens.iter().filter(|token| !broker.release(token.connection, token.packet)).count();
                shared.metrics.source.acks_stale.add(stale as u64);
            }
            Some(message) = end.outgoing.recv() => to_node(shared, message),
        }
    }
    while let Ok(message) = end.outgoing.try_recv() {
        to_node(shared, message);
    }
}

fn to_node(shared: &Shared, message: Outgoing) {
    shared.broker.lock().route(&Publish {
        topic: message.topic.into(),
        payload: message.payload,
        qos: u8::from(message.at_least_once),
        retain: false,
        dup: false,
        packet: 0,
    });
}
