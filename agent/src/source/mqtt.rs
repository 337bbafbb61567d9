//! A broker of the site, to which the gateway is a client (rumqttc, MQTT 5): a persistent session, subscriptions made anew
//! at every CONNACK, and a PUBACK only when told so. A packet id counts on its own connection alone: what is left to
//! acknowledge of an earlier one is dropped, for the broker sends those messages again.

use super::time::TimeTeller;
use super::tls::{Trouble, Tunnel, TunnelError};
use super::{
    BATCH_BYTES_MAX, BATCH_LEN_MAX, Inbox, Incoming, Outgoing, PACKET_LEN_MAX, SourceEnd, SourceId,
    SourceState, Token,
};
use crate::api::metrics;
use crate::config::{Gateway, MqttSource};
use crate::runtime::Stop;
use bytes::Bytes;
use rumqttc::Transport;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// First and longest pause before connecting again; each is drawn between half and the whole.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long the farewell may take.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
/// Room in the request channel besides that for acknowledgements.
const REQUESTS_MAX: usize = 1024;
/// Pause before trying again when the request channel is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Why a broker cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// `address` is not `HOST:PORT`.
    #[error("address {0:?} of an MQTT source is not HOST:PORT")]
    Address(String),
    /// The password file cannot be read.
    #[error("password file {path} of an MQTT source: {source}")]
    Password {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// TLS cannot be prepared.
    #[error(transparent)]
    Tls(#[from] TunnelError),
}

/// A source that is ready to connect.
pub struct Mqtt {
    id: SourceId,
    name: String,
    client: AsyncClient,
    events: EventLoop,
    tunnel: Option<Tunnel>,
    trouble: Trouble,
    filters: Vec<String>,
    metrics: Arc<metrics::Metrics>,
    time: TimeTeller,
    /// Of the connection; 0 when there is none.
    connection: Arc<AtomicU64>,
    connections: u64,
}

impl Mqtt {
    /// Prepares the connection.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(
        id: SourceId,
        config: &MqttSource,
        gateway: &Gateway,
        filters: Vec<String>,
        metrics: Arc<metrics::Metrics>,
        time: TimeTeller,
    ) -> Result<Self, MqttError> {
        let address = || MqttError::Address(config.address.clone());
        let (host, port) = config.address.rsplit_once(':').ok_or_else(address)?;
        let port = port.parse().map_err(|_| address())?;
        let client_id = config.client_id.clone().unwrap_or_else(|| format!("spindle-{}", gateway.name));
        let tls = config.tls.as_ref();
        let tunnel =
            tls.map(|tls| Tunnel::open(tls, &config.address, &gateway.data_dir, &config.name)).transpose()?;
        let mut options = match &tunnel {
            Some(tunnel) => MqttOptions::new(client_id, tunnel.path(), port),
            None => MqttOptions::new(client_id, host, port),
        };
        if tunnel.is_some() {
            options.set_transport(Transport::Unix);
        } else if config.password_file.is_some() && !is_this_machine(host) {
            tracing::warn!(
                source = config.name,
                "without `tls` everyone on the network can read the password"
            );
        }
        options.set_keep_alive(config.keep_alive.max(Duration::from_secs(1)));
        options.set_clean_start(false);
        let expiry = u32::try_from(config.session_expiry.as_secs()).unwrap_or(u32::MAX);
        options.set_session_expiry_interval(Some(expiry));
        options.set_receive_maximum(Some(config.receive_maximum));
        options.set_max_packet_size(u32::try_from(PACKET_LEN_MAX).ok());
        options.set_manual_acks(true);
        if let Some(username) = &config.username {
            let password = match &config.password_file {
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|source| MqttError::Password { path: path.display().to_string(), source })?,
                None => String::new(),
            };
            options.set_credentials(username, password.trim_end_matches(['\n', '\r']));
        }
        let (client, events) = AsyncClient::new(options, usize::from(config.receive_maximum) + REQUESTS_MAX);
        Ok(Self {
            id,
            name: config.name.clone(),
            client,
            events,
            trouble: tunnel.as_ref().map(Tunnel::trouble).unwrap_or_default(),
            tunnel,
            filters,
            metrics,
            time,
            connection: Arc::new(AtomicU64::new(0)),
            connections: 0,
        })
    }

    /// Works until `stop`, and then until all that it had handed on is acknowledged or given up.
    pub async fn run(mut self, inbox: Inbox, end: SourceEnd, stop: Stop) {
        let Some(tunnel) = self.tunnel.take() else { return self.work(inbox, end, stop).await };
        tokio::select! {
            () = self.work(inbox, end, stop) => {}
            () = tunnel.run() => {}
        }
    }

    async fn work(mut self, inbox: Inbox, end: SourceEnd, stop: Stop) {
        let state = end.state.clone();
        let control = control(
            self.client.clone(),
            end,
            self.connection.clone(),
            self.metrics.clone(),
            self.name.clone(),
        );
        let client = self.client.clone();
        tokio::select! {
            () = self.receive(inbox, &stop, &state) => {}
            () = control => {}
        }
        // Control has ended, so all is acknowledged that will be: say goodbye, so that the broker need not wait.
        if client.try_disconnect().is_ok() {
            let farewell = async { while self.events.poll().await.is_ok() {} };
            let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
        }
    }

    /// Polls for ever.
    async fn receive(&mut self, inbox: Inbox, stop: &Stop, state: &SourceState) {
        let mut backoff = BACKOFF_MIN;
        let mut said = false;
        let mut batch = Vec::new();
        let mut bytes = 0;
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    self.connected();
                    backoff = BACKOFF_MIN;
                    said = false;
                }
                Ok(Event::Incoming(Packet::Publish(publish))) if !stop.is_set() => {
                    bytes += publish.payload.len();
                    self.take(publish, &mut batch);
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    let failed =
                        |code: &SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                    if ack.return_codes.iter().any(failed) {
                        state.down("broker refuses a subscription");
                        tracing::error!(source = self.name, codes = ?ack.return_codes, "broker refuses a subscription");
                    } else {
                        state.up();
                        tracing::info!(source = self.name, "subscribed");
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    if self.connection.swap(0, Ordering::Relaxed) != 0 {
                        self.metrics.source.disconnections.increment();
                    }
                    let error = self.words(&error);
                    state.down(error.clone());
                    if !said {
                        tracing::warn!(source = self.name, error, "broker is not reached; trying again");
                        said = true;
                    }
                    tokio::time::sleep(jittered(backoff)).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
            // Events that rumqttc has read already are taken without waiting; then the batch goes on.
            let ready = !self.events.state.events.is_empty();
            if !batch.is_empty() && (!ready || batch.len() >= BATCH_LEN_MAX || bytes >= BATCH_BYTES_MAX) {
                bytes = 0;
                if inbox.send(std::mem::take(&mut batch)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What the broker has said counts; else the tunnel knows more than rumqttc, which has seen a socket close.
    fn words(&self, error: &ConnectionError) -> String {
        let words = self.trouble.words().filter(|_| !matches!(error, ConnectionError::ConnectionRefused(_)));
        words.unwrap_or_else(|| error.to_string())
    }

    fn connected(&mut self) {
        self.connections += 1;
        self.connection.store(self.connections, Ordering::Relaxed);
        self.metrics.source.connections.increment();
        tracing::info!(source = self.name, "connected to broker");
        let filters = self.filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
        if let Err(error) = self.client.try_subscribe_many(filters.collect::<Vec<_>>()) {
            // The request channel is full of messages to nodes: connect again, when it has been drained.
            tracing::error!(source = self.name, %error, "cannot subscribe");
            self.events.clean();
        }
    }

    fn take(&self, publish: Publish, batch: &mut Vec<Incoming>) {
        let received_ns = self.time.utc_ns();
        self.metrics.source.messages.increment();
        self.metrics.source.bytes.add(publish.payload.len() as u64);
        let token = Token {
            source: self.id,
            connection: self.connection.load(Ordering::Relaxed),
            packet: publish.pkid,
        };
        if let Some(answer) = self.time.answer(Some(&publish.topic), &publish.payload, received_ns) {
            if self.client.try_publish(answer.topic, QoS::AtMostOnce, false, answer.payload).is_err() {
                self.metrics.source.outgoing_dropped.increment();
            }
            if publish.qos != QoS::AtMostOnce {
                // Nothing is to be kept. One that is not acknowledged now comes again, and is.
                let _ = self.client.try_ack(&publish);
            }
            return;
        }
        batch.push(Incoming {
            source: self.id,
            topic: Some(publish.topic),
            // A copy of its own: a slice would keep the whole of what was read at once alive, for as long as it waits in a tail.
            payload: Bytes::copy_from_slice(&publish.payload),
            redelivered: publish.dup,
            token: (publish.qos != QoS::AtMostOnce).then_some(token),
        });
    }
}

/// Does what the agent asks, until it asks no more.
async fn control(
    client: AsyncClient,
    mut end: SourceEnd,
    connection: Arc<AtomicU64>,
    metrics: Arc<metrics::Metrics>,
    name: String,
) {
    let publish = |message: Outgoing| {
        let qos = if message.at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let connected = connection.load(Ordering::Relaxed) != 0;
        if !connected || client.try_publish(&message.topic, qos, false, message.payload).is_err() {
            metrics.source.outgoing_dropped.increment();
            tracing::debug!(source = name, topic = message.topic, "message to a node dropped");
        }
    };
    loop {
        tokio::select! {
            tokens = end.release.recv() => {
                let Some(tokens) = tokens else { break };
                for token in tokens {
                    acknowledge(&client, token, &connection, &metrics).await;
                }
            }
            Some(message) = end.outgoing.recv() => publish(message),
        }
    }
    while let Ok(message) = end.outgoing.try_recv() {
        publish(message);
    }
}

async fn acknowledge(client: &AsyncClient, token: Token, connection: &AtomicU64, metrics: &metrics::Metrics) {
    let publish = Publish { qos: QoS::AtLeastOnce, pkid: token.packet, ..Publish::default() };
    while connection.load(Ordering::Relaxed) == token.connection {
        match client.try_ack(&publish) {
            Ok(()) => return,
            Err(ClientError::TryRequest(_) | ClientError::Request(_)) => tokio::time::sleep(FULL_PAUSE).await,
        }
    }
    metrics.source.acks_stale.increment();
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Between half and the whole of a pause, so that gateways do not come back all at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(pause) % 1000;
    pause / 2 + pause / 2 * u32::try_from(random).unwrap_or(0) / 1000
}
