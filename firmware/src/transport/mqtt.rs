//! MQTT v5 over TCP by minimq: QoS 1 for everything, last will, retained birth.
//!
//! minimq keeps up to eight messages in flight to the broker and sends those again itself; that is between node and broker
//! only. Session expiry is 0: each connection starts afresh, and the uplink goes on behind the gateway's acknowledgement.
//! minimq's `InflightExhausted` and `NotReady` mean "poll and wait", so [`Link::ready`] is asked before each send.

use super::{Channel, Dial, Link, Transport};
use crate::node::Facts;
use crate::uplink::session::INBOX_LEN;
use core::fmt::Write as _;
use embedded_io_async::{Read, Write};
use heapless::{Deque, String, Vec};
use minimq::{ConfigBuilder, Connection, Publication, QoS, Session, SubscriptionOptions, TopicFilter, Will};
use spindle_common::wire::STREAMS_MAX;

/// Longest topic: `spindle/v1/` and three names of 32 bytes and the kind.
pub const TOPIC_LEN_MAX: usize = 128;

/// A topic.
pub type Topic = String<TOPIC_LEN_MAX>;

/// The longest packet that a broker sends to a node: a topic, a few properties, and the longest message of the gateway.
pub const RX_LEN_MIN: usize = TOPIC_LEN_MAX + INBOX_LEN + 64;

/// Seconds between signs of life; the broker publishes the last will after one and a half times this.
const KEEP_ALIVE_S: u16 = 10;

/// What breaks an MQTT link, or keeps it from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No TCP connection.
    #[error("broker cannot be reached")]
    Dial,
    /// The broker refused, or the connection broke.
    #[error("MQTT connection refused or broken")]
    Broken,
}

/// A setting that cannot work; found at start, not in the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("MQTT cannot be set up: {what}")]
pub struct SetupError {
    what: &'static str,
}

/// Topics of a node: made when they are needed, which costs less than the memory to keep them.
#[derive(Debug, Clone)]
pub struct Topics {
    /// `spindle/v1/SITE/MACHINE/SENSOR/`, by stream.
    streams: Vec<Topic, STREAMS_MAX>,
    /// `spindle/v1/SITE/MACHINE/NODE/`.
    node: Topic,
}

impl Topics {
    /// The topics of this node.
    #[must_use]
    pub fn new(facts: &Facts<'_>) -> Self {
        let prefix = |name: &str| {
            let mut topic = Topic::new();
            // Fits: names are at most 32 bytes each.
            let _ = write!(topic, "spindle/v1/{}/{}/{name}/", facts.site, facts.machine);
            topic
        };
        Self {
            streams: facts.streams.iter().map(|stream| prefix(stream.sensor)).collect(),
            node: prefix(facts.node),
        }
    }

    fn of_node(&self, kind: &str) -> Topic {
        let mut topic = self.node.clone();
        // Fits: kinds are at most 8 bytes.
        let _ = topic.push_str(kind);
        topic
    }

    fn of(&self, channel: Channel) -> Option<Topic> {
        let kind = match channel {
            Channel::Raw(_) => "raw",
            Channel::Features(_) => "features",
            Channel::Burst(_) => "burst",
            Channel::Birth => "birth",
            Channel::Status => "status",
            Channel::Time => "time",
            Channel::Answer => "answer",
            Channel::Settings => "settings",
            Channel::TimeAsk => "timeask",
        };
        let Some(stream) = channel.stream() else { return Some(self.of_node(kind)) };
        let mut topic = self.streams.get(usize::from(stream.0))?.clone();
        // Fits, as above.
        let _ = topic.push_str(kind);
        Some(topic)
    }
}

/// MQTT over whatever `D` dials.
pub struct Mqtt<'b, D> {
    dial: D,
    session: Session<'b>,
    topics: Topics,
    /// Longest message that surely fits beside seven others in flight.
    message_len_max: usize,
}

/// Buffers and credentials of an MQTT transport.
#[derive(Debug)]
pub struct Setup<'b> {
    /// For one packet of the broker: [`RX_LEN_MIN`] bytes are enough.
    pub rx: &'b mut [u8],
    /// For messages in flight: as many as shall be, up to eight, plus 512 bytes.
    pub tx: &'b mut [u8],
    /// The last will's payload: an encoded `Offline`.
    pub offline: &'b [u8],
    /// User name and password.
    pub login: Option<(&'b str, &'b str)>,
}

impl<'b, D: Dial> Mqtt<'b, D> {
    /// Prepares a session. `message_len_max` is the node's longest message.
    ///
    /// # Errors
    /// When a buffer cannot hold even one message, or minimq refuses a setting.
    pub fn new(
        dial: D,
        facts: &Facts<'_>,
        setup: Setup<'b>,
        message_len_max: usize,
    ) -> Result<Self, SetupError> {
        let topics = Topics::new(facts);
        if setup.tx.len() < message_len_max + TOPIC_LEN_MAX + 512 {
            return Err(SetupError { what: "transmit buffer is smaller than a message" });
        }
        if setup.rx.len() < RX_LEN_MIN {
            return Err(SetupError { what: "receive buffer is smaller than the longest packet" });
        }
        let mut client_id: String<64> = String::new();
        // Fits: a name is at most 32 bytes.
        let _ = write!(client_id, "spindle-node-{}", facts.node);
        let will = Will::new(&topics.of_node("offline"), setup.offline, &[])
            .map_err(|_| SetupError { what: "last will's topic is too long" })?
            .qos(QoS::AtLeastOnce);
        let mut config = ConfigBuilder::new(minimq::Buffers::new(setup.rx, setup.tx))
            .client_id(&client_id)
            .and_then(|config| config.will(will))
            .map_err(|_| SetupError { what: "client id or last will is refused" })?
            .keepalive_interval(KEEP_ALIVE_S);
        if let Some((user, password)) = setup.login {
            config = config
                .auth(user, password.as_bytes())
                .map_err(|_| SetupError { what: "credentials are refused" })?;
        }
        Ok(Self { dial, session: Session::new(config), topics, message_len_max })
    }
}

impl<'b, D: Dial> Transport for Mqtt<'b, D> {
    type Link<'t>
        = MqttLink<'t, 'b, D::Io<'t>>
    where
        Self: 't;
    type Error = Error;

    async fn open(&mut self) -> Result<Self::Link<'_>, Error> {
        let io = self.dial.dial().await.map_err(|_| Error::Dial)?;
        let mut connection = self.session.connect(io).await.map_err(|_| Error::Broken)?;
        let at_least_once = SubscriptionOptions::default().maximum_qos(QoS::AtLeastOnce);
        let (ack, cmd) = (self.topics.of_node("ack"), self.topics.of_node("cmd"));
        let filters = [TopicFilter::new(&ack), TopicFilter::new(&cmd).options(at_least_once)];
        let subscribed = connection.subscribe(&filters, &[]).await.map_err(|_| Error::Broken)?;
        while connection.is_pending(&subscribed) {
            connection.poll().await.map_err(|_| Error::Broken)?;
        }
        let message_len_max = self.message_len_max;
        Ok(MqttLink { connection, topics: &self.topics, message_len_max, early: Deque::new(), dropped: 0 })
    }
}

/// An open MQTT connection.
pub struct MqttLink<'t, 'b, I: Read + Write> {
    connection: Connection<'t, 'b, I>,
    topics: &'t Topics,
    message_len_max: usize,
    /// Came in while a send waited for room; full, the oldest goes (acks are cumulative, commands are asked again).
    early: Deque<Vec<u8, INBOX_LEN>, 4>,
    /// Those that went, and those that were too long to be kept.
    dropped: u32,
}

impl<I: Read + Write> Link for MqttLink<'_, '_, I> {
    type Error = Error;

    fn ready(&self) -> bool {
        self.connection.can_publish(QoS::AtLeastOnce)
    }

    async fn send(&mut self, channel: Channel, message: &[u8]) -> Result<(), Error> {
        let Some(topic) = self.topics.of(channel) else { return Ok(()) };
        loop {
            // A question for the time that comes late is worth nothing.
            let qos = if channel == Channel::TimeAsk { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            let mut publication = Publication::bytes(&topic, message).qos(qos);
            if channel == Channel::Birth {
                publication = publication.retain();
            }
            match self.connection.publish(publication).await {
                Ok(_) => return Ok(()),
                Err(error) if is_full(&error) && message.len() <= self.message_len_max => {}
                Err(_) => return Err(Error::Broken),
            }
            if self.connection.session().is_publish_quiescent() {
                // Nothing is in flight, so waiting would make no room.
                return Err(Error::Broken);
            }
            let Some(publish) = self.connection.poll().await.map_err(|_| Error::Broken)? else { continue };
            let Ok(payload) = Vec::from_slice(publish.payload()) else {
                self.dropped = self.dropped.saturating_add(1);
                continue;
            };
            if self.early.is_full() {
                self.early.pop_front();
                self.dropped = self.dropped.saturating_add(1);
            }
            // There is room: the oldest was just dropped.
            let _ = self.early.push_back(payload);
        }
    }

    async fn wait(&mut self, inbox: &mut [u8]) -> Result<Option<usize>, Error> {
        if let Some(early) = self.early.pop_front() {
            let Some(place) = inbox.get_mut(..early.len()) else { return Ok(None) };
            place.copy_from_slice(&early);
            return Ok(Some(early.len()));
        }
        let Some(publish) = self.connection.poll().await.map_err(|_| Error::Broken)? else { return Ok(None) };
        let payload = publish.payload();
        if let Some(place) = inbox.get_mut(..payload.len()) {
            place.copy_from_slice(payload);
        }
        Ok(Some(payload.len()))
    }

    fn dropped(&self) -> u32 {
        self.dropped
    }

    async fn close(mut self) {
        // Best effort: the link may be dead already. The broker closes after a DISCONNECT; reading until it does gives
        // the goodbye time to get out.
        if self.connection.disconnect().await.is_ok() {
            let mut io = self.connection.into_inner();
            while matches!(io.read(&mut [0; 16]).await, Ok(count) if count > 0) {}
        }
    }
}

fn is_full<P, T>(error: &minimq::PubError<P, T>) -> bool {
    use minimq::{Error as E, PubError, ResourceError as R};
    match error {
        // The payload closure fails exactly when the rest of the buffer is too small.
        PubError::Payload(_) => true,
        PubError::Session(E::NotReady | E::Resource(R::InflightExhausted | R::BufferTooSmall)) => true,
        PubError::Session(_) => false,
    }
}
