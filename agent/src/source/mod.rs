//! Ways in. Each source hands batches of [`Incoming`] to one bounded channel and waits when it is full, so back-pressure
//! reaches the wire; none drops. What a source has to acknowledge it does when it is told to, after the commit. Only a node's
//! question for the time it answers itself, at once: see [`time`].

pub mod listener;
pub mod mqtt;
pub mod recording;
pub mod serial;
pub mod time;
pub mod tls;
pub mod topic;

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Largest packet or message that any source takes, in bytes: a wire message, its topic, and room for JSON.
pub const PACKET_LEN_MAX: usize = 256 * 1024;
/// Most messages in one batch.
pub const BATCH_LEN_MAX: usize = 256;
/// Bytes of payload with which a batch is full; one message more may be in it.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches that may wait for the session.
pub const BATCHES_MAX: usize = 8;
/// Messages to nodes that may wait for a source; more are dropped and counted, for an ack is overtaken by the next one.
pub const OUTGOING_MAX: usize = 4096;

/// Index of a source in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u16);

/// What a source needs to know to acknowledge a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Where it came from.
    pub source: SourceId,
    /// Which connection (of the source, or of its client): one that has ended needs no acknowledgement.
    pub connection: u64,
    /// The packet's id on that connection.
    pub packet: u16,
}

/// A message as a source got it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Where it came from.
    pub source: SourceId,
    /// MQTT topic; `None` on a serial line.
    pub topic: Option<Bytes>,
    /// The message.
    pub payload: Bytes,
    /// Whether the transport says that it may have come before (MQTT's DUP).
    pub redelivered: bool,
    /// What to hand back after the commit; `None` when the transport wants no acknowledgement.
    pub token: Option<Token>,
}

/// A message for a node.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// MQTT topic; a serial line ignores it.
    pub topic: String,
    /// The wire message.
    pub payload: Bytes,
    /// Whether it is to be delivered at least once (else at most once).
    pub at_least_once: bool,
}

/// Where sources put what they get.
pub type Inbox = mpsc::Sender<Vec<Incoming>>;

/// Whether a source can bring anything now, for people and supervisors.
#[derive(Debug)]
pub struct SourceState(Mutex<Option<String>>);

impl SourceState {
    /// Connected and subscribed, or listening, or open.
    pub fn up(&self) {
        *self.0.lock() = None;
    }

    /// Not so, for this reason.
    pub fn down(&self, reason: impl Into<String>) {
        *self.0.lock() = Some(reason.into());
    }

    /// Why it is not up; none when it is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// The agent's hold on a running source.
#[derive(Debug, Clone)]
pub struct SourceHandle {
    /// Tokens to acknowledge. Unbounded, but what can be in it is bounded by the messages that the source lets be under
    /// way unacknowledged.
    pub release: mpsc::UnboundedSender<Vec<Token>>,
    /// Messages to nodes; dropped when full.
    pub outgoing: mpsc::Sender<Outgoing>,
    /// Whether it works.
    pub state: Arc<SourceState>,
}

/// A source's own end of its [`SourceHandle`].
#[derive(Debug)]
pub struct SourceEnd {
    /// Tokens to acknowledge.
    pub release: mpsc::UnboundedReceiver<Vec<Token>>,
    /// Messages to nodes.
    pub outgoing: mpsc::Receiver<Outgoing>,
    /// Whether it works, as it tells itself.
    pub state: Arc<SourceState>,
}

/// Both ends.
#[must_use]
pub fn handle() -> (SourceHandle, SourceEnd) {
    let (release, release_end) = mpsc::unbounded_channel();
    let (outgoing, outgoing_end) = mpsc::channel(OUTGOING_MAX);
    let state = Arc::new(SourceState(Mutex::new(Some("not connected yet".into()))));
    let end = SourceEnd { release: release_end, outgoing: outgoing_end, state: state.clone() };
    (SourceHandle { release, outgoing, state }, end)
}
