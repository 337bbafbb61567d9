//! One client, from its CONNECT to its end. One task reads and writes, so that nothing on the way in can hold up what
//! goes out: acknowledgements and pings pass while the inbox is full.

use super::broker::{Link, Message, NotYet};
use super::packet::{self, Packet, Publish, Qos, Refusal, Version};
use super::write::{self, Accepted};
use super::{CONNECT_MAX, IN_FLIGHT_MAX, OUT_IN_FLIGHT_MAX, PACKET_LEN_MAX, PENDING_BYTES_MAX, Shared};
use crate::source::{BATCH_LEN_MAX, Incoming, Token, topic};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes read at a time.
const READ_LEN: usize = 32 * 1024;
/// Bytes ready to be written; with more, nothing is added and nothing is read.
const OUT_LEN_MAX: usize = 64 * 1024;
/// How long a farewell may take.
const FAREWELL_MAX: Duration = Duration::from_millis(200);
/// Keep-alive of a client that switched it off is watched as if this far away.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// The client said goodbye; `will`: but wants its will published.
    Farewell { will: bool },
    /// It closed or broke.
    Lost,
    /// The listener ends it.
    Refused(Refusal),
}

/// A topic as all need it, kept from one message to the next because it is mostly the same.
#[derive(Debug, Clone)]
struct Topic {
    text: Arc<str>,
    bytes: Bytes,
    /// Whether the gateway takes it.
    wanted: bool,
    /// Whether only the gateway may speak there: an ack that is not its own would make a node forget what is not safe.
    reserved: bool,
}

impl Topic {
    fn new(text: &str, shared: &Shared) -> Self {
        let wanted = shared.wanted.iter().any(|filter| topic::matches(filter, text));
        let reserved = topic::is_ours(text) && (text.ends_with("/ack") || text.ends_with("/cmd"));
        Self { text: text.into(), bytes: Bytes::copy_from_slice(text.as_bytes()), wanted, reserved }
    }
}

struct Connection {
    shared: Arc<Shared>,
    link: Arc<Link>,
    version: Version,
    out: BytesMut,
    /// For the inbox.
    pending: Vec<Incoming>,
    pending_bytes: usize,
    /// Packet ids of the client's messages that have no PUBACK yet.
    received: HashSet<u16>,
    /// Packet ids of messages to the client that it has not acknowledged.
    sent: HashSet<u16>,
    sent_max: usize,
    last_id: u16,
    topic: Option<Topic>,
}

/// Serves a client to its end.
pub(super) async fn serve(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    peer: SocketAddr,
    number: u64,
    _place: OwnedSemaphorePermit,
) {
    // Acks are small and awaited; nothing is gained by holding them back.
    let _ = stream.set_nodelay(true);
    let mut input = BytesMut::with_capacity(READ_LEN);
    let first = timeout(CONNECT_MAX, first_packet(&mut stream, &mut input)).await;
    let outcome = match first {
        Ok(Ok(Some(len))) => {
            let head = input.split_to(len);
            let outcome = enter(&shared, &head, number).await;
            outcome.map_err(|refusal| (offered(&head), refusal))
        }
        Ok(Ok(None)) => return,
        Ok(Err(refusal)) => Err((Version::V3, refusal)),
        Err(_) => Err((Version::V3, Refusal::Silent)),
    };
    match outcome {
        Ok((connection, keep_alive, will)) => {
            tracing::info!(client = &*connection.link.client_id, %peer, "MQTT client connected");
            connection.shared.metrics.source.connections.increment();
            connection.run(stream, input, keep_alive, will).await;
        }
        Err((version, refusal)) => {
            shared.metrics.source.clients_refused.increment();
            tracing::warn!(%peer, reason = %refusal, "MQTT client turned away");
            let mut out = BytesMut::new();
            write::refuse(version, refusal, &mut out);
            let _ = timeout(FAREWELL_MAX, stream.write_all(&out)).await;
        }
    }
}

/// Reads until the first packet is whole and gives its length; `None` when the connection is gone.
async fn first_packet(stream: &mut TcpStream, input: &mut BytesMut) -> Result<Option<usize>, Refusal> {
    loop {
        if input.first().is_some_and(|&first| first != 0x10) {
            return Err(Refusal::Protocol("the first packet is not CONNECT"));
        }
        if let Some((_, body)) = packet::frame(input, PACKET_LEN_MAX)? {
            return Ok(Some(body.end));
        }
        input.reserve(READ_LEN);
        if !matches!(stream.read_buf(input).await, Ok(1..)) {
            return Ok(None);
        }
    }
}

/// The version in which a client that sent this CONNECT understands an answer.
fn offered(head: &[u8]) -> Version {
    let level =
        packet::frame(head, PACKET_LEN_MAX).ok().flatten().and_then(|(_, body)| head.get(body.start + 6));
    if level.is_some_and(|&level| level >= 5) { Version::V5 } else { Version::V3 }
}

/// Lets a client in: its id is free or made free, and there is room.
async fn enter(
    shared: &Arc<Shared>,
    head: &[u8],
    number: u64,
) -> Result<(Connection, u16, Option<Message>), Refusal> {
    let Some((first, body)) = packet::frame(head, PACKET_LEN_MAX)? else {
        return Err(Refusal::Malformed("it ends too early"));
    };
    let Packet::Connect(connect) = packet::decode(Version::V5, first, &head[body])? else {
        return Err(Refusal::Protocol("the first packet is not CONNECT"));
    };
    let given = connect.client_id.is_empty();
    if given && connect.version == Version::V3 && !connect.clean {
        return Err(Refusal::ClientId);
    }
    let client_id: Arc<str> =
        if given { format!("spindle-{number}").into() } else { connect.client_id.into() };
    let link = Link::new(number, client_id.clone(), &connect);
    loop {
        let admitted = shared.broker.lock().admit(&link);
        match admitted {
            Ok(()) => break,
            Err(NotYet::Full) => return Err(Refusal::Clients(shared.broker.lock().clients())),
            Err(NotYet::Occupied(old)) => old.take_over().await,
        }
    }
    let will = connect
        .will
        .as_ref()
        .map(|will| Message::new(will.topic.into(), Bytes::copy_from_slice(will.payload), will));
    let mut connection = Connection {
        shared: shared.clone(),
        link,
        version: connect.version,
        out: BytesMut::new(),
        pending: Vec::new(),
        pending_bytes: 0,
        received: HashSet::new(),
        sent: HashSet::new(),
        sent_max: usize::from(connect.receive_max).min(OUT_IN_FLIGHT_MAX),
        last_id: 0,
        topic: None,
    };
    let accepted = Accepted {
        version: connect.version,
        client_id: given.then_some(&*client_id),
        receive_max: IN_FLIGHT_MAX as u16,
        packet_len_max: PACKET_LEN_MAX as u32,
    };
    write::accept(&accepted, &mut connection.out);
    Ok((connection, connect.keep_alive, will))
}

impl Connection {
    async fn run(
        mut self,
        mut stream: TcpStream,
        mut input: BytesMut,
        keep_alive: u16,
        will: Option<Message>,
    ) {
        let patience = match keep_alive {
            0 => NEVER,
            seconds => Duration::from_millis(u64::from(seconds) * 1500),
        };
        let end = self.work(&mut stream, &mut input, patience).await;
        let will = match &end {
            End::Farewell { will: wanted } => will.filter(|_| *wanted),
            // The gateway's own stop says nothing about the client.
            End::Refused(Refusal::Stopping) => None,
            End::Lost | End::Refused(_) => will,
        };
        self.say_goodbye(stream, end).await;
        if let Some(will) = will {
            self.publish_will(will);
        }
        // Before the client's id is free, so that a will cannot come after what the same client says next.
        for batch in batches(std::mem::take(&mut self.pending)) {
            if self.shared.inbox.send(batch).await.is_err() {
                break;
            }
        }
    }

    async fn work(&mut self, stream: &mut TcpStream, input: &mut BytesMut, patience: Duration) -> End {
        let shared = self.shared.clone();
        let link = self.link.clone();
        let (mut reader, mut writer) = stream.split();
        let mut deadline = Instant::now() + patience;
        loop {
            if let Some(end) = self.take_packets(input) {
                return end;
            }
            // Looked at before what is left is taken, so that the last acknowledgements are not missed.
            let closing = shared.closing.is_set();
            self.give();
            if link.is_taken_over() {
                return End::Refused(Refusal::TakenOver);
            }
            if closing {
                return End::Refused(Refusal::Stopping);
            }
            let may_take = self.may_take();
            if !may_take {
                // What the gateway does not read, the client cannot be blamed for.
                deadline = Instant::now() + patience;
            }
            let has_room = self.out.len() < OUT_LEN_MAX;
            input.reserve(READ_LEN);
            tokio::select! {
                () = link.wake.notified() => {}
                read = reader.read_buf(input), if may_take && has_room => match read {
                    Ok(1..) => deadline = Instant::now() + patience,
                    _ => return End::Lost,
                },
                written = writer.write_buf(&mut self.out), if !self.out.is_empty() => {
                    if !matches!(written, Ok(1..)) {
                        return End::Lost;
                    }
                }
                place = shared.inbox.reserve(), if !self.pending.is_empty() => match place {
                    Ok(place) => {
                        place.send(std::mem::take(&mut self.pending));
                        self.pending_bytes = 0;
                    }
                    Err(_) => return End::Refused(Refusal::Stopping),
                },
                () = sleep_until(deadline), if may_take => return End::Refused(Refusal::KeepAlive),
            }
        }
    }

    fn may_take(&self) -> bool {
        self.pending.len() < BATCH_LEN_MAX
            && self.pending_bytes < PENDING_BYTES_MAX
            && self.received.len() < IN_FLIGHT_MAX
            && !self.shared.stop.is_set()
    }

    /// Takes what has been read, packet by packet, as long as there is room for more.
    fn take_packets(&mut self, input: &mut BytesMut) -> Option<End> {
        while self.may_take() && self.out.len() < OUT_LEN_MAX {
            let (first, body) = match packet::frame(input, PACKET_LEN_MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => return None,
                Err(refusal) => return Some(End::Refused(refusal)),
            };
            let len = body.end;
            let taken =
                packet::decode(self.version, first, &input[body]).and_then(|packet| self.take(packet));
            input.advance(len);
            match taken {
                Ok(None) => {}
                Ok(end) => return end,
                Err(refusal) => return Some(End::Refused(refusal)),
            }
        }
        None
    }

    fn take(&mut self, packet: Packet<'_>) -> Result<Option<End>, Refusal> {
        match packet {
            Packet::Publish(publish) => self.take_publish(&publish)?,
            Packet::PubAck(id) => {
                self.sent.remove(&id);
            }
            Packet::Subscribe(id, mut filters) => {
                let mut codes = Vec::new();
                while let Some((filter, options)) = filters.next()? {
                    codes.push(self.shared.broker.lock().subscribe(&self.link, filter, options));
                }
                write::suback(self.version, id, &codes, &mut self.out);
            }
            Packet::Unsubscribe(id, mut filters) => {
                let mut codes = Vec::new();
                while let Some((filter, _)) = filters.next()? {
                    codes.push(self.shared.broker.lock().unsubscribe(&self.link, filter));
                }
                write::unsuback(self.version, id, &codes, &mut self.out);
            }
            Packet::PingReq => write::pong(&mut self.out),
            Packet::Disconnect { will } => return Ok(Some(End::Farewell { will })),
            Packet::Connect(_) => return Err(Refusal::Protocol("a second CONNECT")),
        }
        Ok(None)
    }

    fn take_publish(&mut self, publish: &Publish<'_>) -> Result<(), Refusal> {
        let received_ns = self.shared.time.utc_ns();
        let acknowledged = publish.qos == Qos::AtLeastOnce;
        if acknowledged && self.received.contains(&publish.id) {
            // The same message again: its acknowledgement is already waited for.
            return if publish.duplicate { Ok(()) } else { Err(Refusal::Protocol("packet id in use")) };
        }
        let topic = match self.topic.take() {
            Some(topic) if *topic.text == *publish.topic => topic,
            _ => Topic::new(publish.topic, &self.shared),
        };
        let payload = Bytes::copy_from_slice(publish.payload);
        let answer = self
            .shared
            .time
            .answer(Some(&topic.bytes), publish.payload, received_ns)
            .filter(|_| topic.wanted);
        if let Some(answer) = answer {
            self.shared.broker.lock().publish(super::own(answer), None);
            if acknowledged {
                write::puback(publish.id, &mut self.out);
            }
        } else if topic.wanted {
            let token = Token { source: self.shared.id, connection: self.link.number, packet: publish.id };
            if acknowledged {
                self.received.insert(publish.id);
            }
            self.hand_on(&topic, payload.clone(), publish.duplicate, acknowledged.then_some(token));
        } else if acknowledged && topic.reserved {
            write::puback_unauthorized(self.version, publish.id, &mut self.out);
        } else if acknowledged {
            write::puback(publish.id, &mut self.out);
        }
        if !topic.reserved {
            let message = Message::new(topic.text.clone(), payload, publish);
            self.shared.broker.lock().publish(message, Some(self.link.number));
        }
        self.topic = Some(topic);
        Ok(())
    }

    fn hand_on(&mut self, topic: &Topic, payload: Bytes, redelivered: bool, token: Option<Token>) {
        self.shared.metrics.source.messages.increment();
        self.shared.metrics.source.bytes.add(payload.len() as u64);
        self.pending_bytes += payload.len();
        let topic = Some(topic.bytes.clone());
        self.pending.push(Incoming { source: self.shared.id, topic, payload, redelivered, token });
    }

    fn publish_will(&mut self, will: Message) {
        let topic = Topic::new(&will.topic, &self.shared);
        if topic.wanted {
            self.hand_on(&topic, will.payload.clone(), false, None);
        }
        if !topic.reserved {
            self.shared.broker.lock().publish(will, Some(self.link.number));
        }
    }

    /// Writes what was left for the client, as far as there is room.
    fn give(&mut self) {
        for id in self.link.take_acks() {
            if self.received.remove(&id) {
                write::puback(id, &mut self.out);
            } else {
                self.shared.metrics.source.acks_stale.increment();
            }
        }
        while self.out.len() < OUT_LEN_MAX {
            let Some(delivery) = self.link.take_delivery(self.sent.len() < self.sent_max) else { return };
            let id = if delivery.qos == Qos::AtLeastOnce { self.new_id() } else { 0 };
            write::put_publish(self.version, &delivery.publish(id), &mut self.out);
        }
    }

    fn new_id(&mut self) -> u16 {
        // Ends: far fewer ids are in use than there are.
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.sent.insert(self.last_id) {
                return self.last_id;
            }
        }
    }

    async fn say_goodbye(&mut self, mut stream: TcpStream, end: End) {
        let client = &*self.link.client_id;
        match end {
            End::Farewell { .. } => tracing::info!(client, "MQTT client said goodbye"),
            End::Lost => tracing::info!(client, "connection of an MQTT client lost"),
            End::Refused(refusal) => {
                if !matches!(refusal, Refusal::TakenOver | Refusal::KeepAlive | Refusal::Stopping) {
                    self.shared.metrics.source.packets_refused.increment();
                }
                tracing::info!(client, reason = %refusal, "connection of an MQTT client ended");
                write::disconnect(self.version, refusal, &mut self.out);
                let farewell = async {
                    let _ = stream.write_all_buf(&mut self.out).await;
                    let _ = stream.shutdown().await;
                };
                let _ = timeout(FAREWELL_MAX, farewell).await;
            }
        }
    }
}

/// Leaves however the connection ends.
impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.broker.lock().leave(&self.link);
        self.shared.metrics.source.disconnections.increment();
    }
}

/// At most two: a full one, and the will.
fn batches(mut pending: Vec<Incoming>) -> impl Iterator<Item = Vec<Incoming>> {
    let rest = pending.split_off(pending.len().min(BATCH_LEN_MAX));
    [pending, rest].into_iter().filter(|batch| !batch.is_empty())
}
