//! One client's connection.

use super::broker::Told;
use super::codec::{self, Connect, Error, Limits, Packet, Publish, Version};
use super::{INFLIGHT_MAX, Shared, TELL_MAX};
use crate::source::{BATCH_LEN_MAX, Inbox, Incoming, PACKET_LEN_MAX, Token, topic};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// A connection that has not sent its CONNECT by then is closed.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A client that takes nothing for this long is closed.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Room to read into.
const READ_LEN: usize = 64 * 1024;
/// Packets that a client without keep-alive may be silent for.
const SILENCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Serves a connection until it ends.
pub(super) async fn serve(stream: TcpStream, connection: u64, shared: Arc<Shared>, inbox: Inbox) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let mut session = Session {
        connection,
        reader,
        writer,
        input: BytesMut::new(),
        output: BytesMut::new(),
        version: Version::V3,
        inflight: 0,
        deliveries: 0,
        deliveries_max: INFLIGHT_MAX,
        next_packet: 0,
        waiting: VecDeque::new(),
    };
    let connected = tokio::time::timeout(CONNECT_MAX, session.connect()).await;
    let Ok(Ok(connect)) = connected else {
        shared.metrics.source.clients_refused.increment();
        return;
    };
    session.version = connect.version;
    let Some(_place) = shared.place() else {
        codec::connack_busy(connect.version, &mut session.output);
        let _ = session.flush().await;
        shared.metrics.source.clients_refused.increment();
        return;
    };
    session.attend(connect, &shared, &inbox).await;
}

struct Session {
    connection: u64,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    input: BytesMut,
    output: BytesMut,
    version: Version,
    /// Messages of the client that are not acknowledged yet.
    inflight: u16,
    /// Messages for the client that it has not acknowledged yet.
    deliveries: u16,
    deliveries_max: u16,
    next_packet: u16,
    /// Messages for the client that wait for it to acknowledge others.
    waiting: VecDeque<Publish>,
}

/// Why a connection ends.
enum End {
    /// The client said goodbye.
    Goodbye,
    /// Anything else: its will is published.
    Lost(String),
}

impl Session {
    async fn connect(&mut self) -> Result<Connect, Error> {
        loop {
            match codec::read_connect(&mut self.input, PACKET_LEN_MAX) {
                Err(Error::Incomplete) => {}
                other => return other,
            }
            match self.reader.read_buf(&mut self.input).await {
                Ok(1..) => {}
                _ => return Err(Error::Malformed("closed".into())),
            }
        }
    }

    async fn attend(&mut self, connect: Connect, shared: &Arc<Shared>, inbox: &Inbox) {
        let (tell, mut told) = mpsc::channel(TELL_MAX);
        let (release, mut released) = mpsc::unbounded_channel();
        let assigned = connect.client_id.is_empty().then(|| format!("auto-{}", self.connection));
        let id = assigned.clone().unwrap_or(connect.client_id);
        self.deliveries_max = connect.receive_maximum.clamp(1, INFLIGHT_MAX);
        shared.broker.lock().enter(self.connection, id.clone(), tell, release);
        let _left = Leave { shared, connection: self.connection };
        shared.metrics.source.connections.increment();
        let limits = Limits { packet_len_max: PACKET_LEN_MAX as u32, inflight_max: INFLIGHT_MAX };
        codec::connack(self.version, limits, assigned, &mut self.output);
        let silence_max = match connect.keep_alive_s {
            0 => SILENCE_MAX,
            seconds => Duration::from_secs(u64::from(seconds)) * 3 / 2,
        };
        tracing::debug!(client = id, version = ?self.version, "client connected");
        let end = self.work(silence_max, shared, inbox, &mut told, &mut released).await;
        shared.metrics.source.disconnections.increment();
        match end {
            End::Goodbye => tracing::debug!(client = id, "client left"),
            End::Lost(reason) => {
                tracing::debug!(client = id, reason, "client lost");
                if let Some(will) = connect.will {
                    self.publish_will(will, shared, inbox).await;
                }
            }
        }
    }

    async fn work(
        &mut self,
        silence_max: Duration,
        shared: &Arc<Shared>,
        inbox: &Inbox,
        told: &mut mpsc::Receiver<Told>,
        released: &mut mpsc::UnboundedReceiver<u16>,
    ) -> End {
        loop {
            if let Err(end) = self.read_packets(shared, inbox).await {
                let _ = self.flush().await;
                return end;
            }
            if let Err(end) = self.flush().await {
                return end;
            }
            // With too much under way, the client's bytes stay in the socket until some is committed.
            let may_read = self.inflight < INFLIGHT_MAX;
            self.input.reserve(READ_LEN);
            tokio::select! {
                packet = released.recv() => {
                    let mut packet = packet;
                    while let Some(acknowledged) = packet {
                        self.inflight = self.inflight.saturating_sub(1);
                        codec::puback(acknowledged, &mut self.output);
                        packet = released.try_recv().ok();
                    }
                }
                message = told.recv(), if self.waiting.is_empty() => match message {
                    Some(Told::Message(message)) => self.deliver(message),
                    Some(Told::TakenOver) | None => return End::Lost("another client has its id".into()),
                },
                read = tokio::time::timeout(silence_max, self.reader.read_buf(&mut self.input)), if may_read => {
                    match read {
                        Ok(Ok(1..)) => {}
                        Ok(Ok(_)) => return End::Lost("closed".into()),
                        Ok(Err(error)) => return End::Lost(error.to_string()),
                        Err(_) => return End::Lost("silent for longer than its keep-alive".into()),
                    }
                }
                // The last acknowledgements come before the end.
                () = shared.closing.wait_closed(), if released.is_empty() && told.is_empty() => {
                    return End::Goodbye;
                }
            }
        }
    }

    /// Takes the packets that have been read.
    async fn read_packets(&mut self, shared: &Arc<Shared>, inbox: &Inbox) -> Result<(), End> {
        let mut batch = Vec::new();
        let result = loop {
            if self.inflight >= INFLIGHT_MAX {
                break Ok(());
            }
            match codec::read(self.version, &mut self.input, PACKET_LEN_MAX) {
                Ok(Packet::Publish(publish)) => {
                    if let Err(end) = self.take(publish, shared, &mut batch) {
                        break Err(end);
                    }
                    if batch.len() >= BATCH_LEN_MAX {
                        hand_on(&mut batch, inbox).await?;
                    }
                }
                Ok(Packet::PubAck) => {
                    self.deliveries = self.deliveries.saturating_sub(1);
                    if let Some(message) = self.waiting.pop_front() {
                        self.deliver(message);
                    }
                }
                Ok(Packet::Subscribe { packet, filters }) => self.subscribe(packet, &filters, shared),
                Ok(Packet::Unsubscribe { packet, filters }) => {
                    let mut broker = shared.broker.lock();
                    for filter in &filters {
                        broker.unsubscribe(self.connection, filter);
                    }
                    drop(broker);
                    codec::unsuback(self.version, packet, filters.len(), &mut self.output);
                }
                Ok(Packet::Ping) => codec::pong(&mut self.output),
                Ok(Packet::Disconnect { with_will: false }) => break Err(End::Goodbye),
                Ok(Packet::Disconnect { with_will: true }) => break Err(End::Lost("wants its will".into())),
                Err(Error::Incomplete) => break Ok(()),
                Err(Error::Malformed(reason)) => break Err(End::Lost(reason)),
            }
        };
        // What came before the end counts all the same.
        hand_on(&mut batch, inbox).await?;
        result
    }

    /// Takes a publish of the client.
    fn take(&mut self, publish: Publish, shared: &Shared, batch: &mut Vec<Incoming>) -> Result<(), End> {
        shared.metrics.source.messages.increment();
        shared.metrics.source.bytes.add(publish.payload.len() as u64);
        let name = std::str::from_utf8(&publish.topic).ok().filter(|name| !name.contains(['+', '#', '\0']));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(End::Lost("a publish without a valid topic".into()));
        };
        if publish.qos > 1 {
            return Err(End::Lost("QoS 2 is not offered".into()));
        }
        let wanted = shared.wants(name);
        // Only the gateway speaks to nodes.
        let to_nodes = topic::is_ours(name) && (name.ends_with("/ack") || name.ends_with("/cmd"));
        if !to_nodes {
            relay(&publish, shared);
        }
        if wanted && !shared.stop.is_set() {
            batch.push(self.incoming(&publish, shared));
            self.inflight += u16::from(publish.qos > 0);
        } else if publish.qos > 0 && !wanted {
            codec::puback(publish.packet, &mut self.output);
        }
        Ok(())
    }

    fn incoming(&self, publish: &Publish, shared: &Shared) -> Incoming {
        let token = Token { source: shared.id, connection: self.connection, packet: publish.packet };
        Incoming {
            source: shared.id,
            topic: Some(publish.topic.clone()),
            payload: publish.payload.clone(),
            redelivered: publish.dup,
            token: (publish.qos > 0).then_some(token),
        }
    }

    fn subscribe(&mut self, packet: u16, filters: &[(String, u8)], shared: &Shared) {
        let mut broker = shared.broker.lock();
        let mut codes = Vec::new();
        let mut retained = Vec::new();
        for (filter, qos) in filters {
            let code = broker.subscribe(self.connection, filter, *qos);
            if let Some(granted) = code {
                let messages = broker.retained(filter).into_iter();
                retained.extend(messages.map(|message| Publish { qos: granted.min(message.qos), ..message }));
            }
            codes.push(code);
        }
        drop(broker);
        codec::suback(self.version, packet, &codes, &mut self.output);
        for message in retained {
            self.deliver(Publish { retain: true, dup: false, ..message });
        }
    }

    /// Sends a message to the client, or keeps it until the client may have it.
    fn deliver(&mut self, mut message: Publish) {
        if message.qos > 0 {
            if self.deliveries >= self.deliveries_max {
                // Bounded by what is retained, for no more is taken from the others while something waits.
                self.waiting.push_back(message);
                return;
            }
            self.deliveries += 1;
            self.next_packet = self.next_packet.checked_add(1).unwrap_or(1);
            message.packet = self.next_packet;
        }
        codec::publish(self.version, &message, &mut self.output);
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = tokio::time::timeout(WRITE_MAX, self.writer.write_all(&self.output)).await;
        self.output.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::Lost(error.to_string())),
            Err(_) => Err(End::Lost("takes nothing".into())),
        }
    }

    async fn publish_will(&mut self, will: Publish, shared: &Shared, inbox: &Inbox) {
        let Ok(name) = std::str::from_utf8(&will.topic) else { return };
        let wanted = shared.wants(name);
        relay(&will, shared);
        if wanted && !shared.stop.is_set() {
            let incoming = Incoming {
                source: shared.id,
                topic: Some(will.topic),
                payload: will.payload,
                redelivered: false,
                token: None,
            };
            let _ = inbox.send(vec![incoming]).await;
        }
    }
}

/// Hands a message to those who subscribe to it.
fn relay(publish: &Publish, shared: &Shared) {
    let mut broker = shared.broker.lock();
    if publish.retain {
        broker.retain(publish);
    }
    if broker.has_subscribers(&publish.topic) {
        broker.route(publish);
    }
}

async fn hand_on(batch: &mut Vec<Incoming>, inbox: &Inbox) -> Result<(), End> {
    if batch.is_empty() {
        return Ok(());
    }
    inbox.send(std::mem::take(batch)).await.map_err(|_| End::Goodbye)
}

/// Leaves the broker however the connection ends.
struct Leave<'a> {
    shared: &'a Shared,
    connection: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.broker.lock().leave(self.connection);
    }
}
