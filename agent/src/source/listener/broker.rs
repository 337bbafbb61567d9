//! What the listener's clients share: who subscribes to what, and retained messages.

use super::codec::Publish;
use crate::api::metrics;
use crate::source::topic;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Retained messages that are kept; further ones are not retained.
const RETAINED_MAX: usize = 10_000;
/// Largest message that is retained, in bytes.
const RETAINED_LEN_MAX: usize = 16 * 1024;
/// Subscriptions of one client.
const SUBSCRIPTIONS_MAX: usize = 64;

/// What a client's task is told by others.
#[derive(Debug)]
pub(super) enum Told {
    /// A message for one of its subscriptions; its QoS is the lower of both.
    Message(Publish),
    /// Another client came with its id.
    TakenOver,
}

#[derive(Debug)]
struct Client {
    id: String,
    tell: mpsc::Sender<Told>,
    /// Packet ids to acknowledge; bounded by the client's messages under way.
    release: mpsc::UnboundedSender<u16>,
    filters: Vec<(String, u8)>,
}

/// Who subscribes to what, and what is retained.
#[derive(Debug)]
pub(super) struct Broker {
    clients: HashMap<u64, Client>,
    by_id: HashMap<String, u64>,
    /// Subscribers of a filter without wildcards.
    exact: HashMap<Bytes, Vec<(u64, u8)>>,
    /// Subscribers of filters with wildcards.
    wild: Vec<(String, u64, u8)>,
    retained: BTreeMap<Bytes, Publish>,
    metrics: Arc<metrics::Metrics>,
}

impl Broker {
    pub(super) fn new(metrics: Arc<metrics::Metrics>) -> Self {
        Self {
            clients: HashMap::new(),
            by_id: HashMap::new(),
            exact: HashMap::new(),
            wild: Vec::new(),
            retained: BTreeMap::new(),
            metrics,
        }
    }

    /// Enters a client; an older one of the same id is told to go.
    pub(super) fn enter(
        &mut self,
        connection: u64,
        id: String,
        tell: mpsc::Sender<Told>,
        release: mpsc::UnboundedSender<u16>,
    ) {
        if let Some(older) = self.by_id.insert(id.clone(), connection)
            && let Some(client) = self.clients.get(&older)
        {
            // When its queue is full it finds out by its own time-out.
            let _ = client.tell.try_send(Told::TakenOver);
        }
        self.clients.insert(connection, Client { id, tell, release, filters: Vec::new() });
    }

    pub(super) fn leave(&mut self, connection: u64) {
        let Some(client) = self.clients.remove(&connection) else { return };
        for (filter, _) in &client.filters {
            self.unindex(filter, connection);
        }
        if self.by_id.get(&client.id) == Some(&connection) {
            self.by_id.remove(&client.id);
        }
    }

    pub(super) fn release(&self, connection: u64, packet: u16) -> bool {
        self.clients.get(&connection).is_some_and(|client| client.release.send(packet).is_ok())
    }

    /// Subscribes; gives the granted QoS, or `None` when the filter is refused.
    pub(super) fn subscribe(&mut self, connection: u64, filter: &str, qos: u8) -> Option<u8> {
        let granted = qos.min(1);
        // Shared subscriptions are not offered.
        if !topic::is_filter(filter) || filter.starts_with("$share/") {
            return None;
        }
        self.unsubscribe(connection, filter);
        let client = self.clients.get_mut(&connection)?;
        if client.filters.len() >= SUBSCRIPTIONS_MAX {
            return None;
        }
        client.filters.push((filter.to_owned(), granted));
        if filter.contains(['+', '#']) {
            self.wild.push((filter.to_owned(), connection, granted));
        } else {
            self.exact
                .entry(Bytes::copy_from_slice(filter.as_bytes()))
                .or_default()
                .push((connection, granted));
        }
        Some(granted)
    }

    pub(super) fn unsubscribe(&mut self, connection: u64, filter: &str) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.filters.retain(|(known, _)| known != filter);
        }
        self.unindex(filter, connection);
    }

    fn unindex(&mut self, filter: &str, connection: u64) {
        self.wild.retain(|(known, of, _)| known != filter || *of != connection);
        if let Some(subscribers) = self.exact.get_mut(filter.as_bytes()) {
            subscribers.retain(|(of, _)| *of != connection);
            if subscribers.is_empty() {
                self.exact.remove(filter.as_bytes());
            }
        }
    }

    /// The retained messages that a new subscription is to get.
    pub(super) fn retained(&self, filter: &str) -> Vec<Publish> {
        let matching = |(name, message): (&Bytes, &Publish)| {
            let name = std::str::from_utf8(name).ok()?;
            topic::matches(filter, name).then(|| message.clone())
        };
        self.retained.iter().filter_map(matching).collect()
    }

    /// Keeps a retained message; an empty one clears it.
    pub(super) fn retain(&mut self, message: &Publish) {
        let bytes = Bytes::copy_from_slice(&message.topic);
        if message.payload.is_empty() {
            self.retained.remove(&bytes);
            return;
        }
        let room = self.retained.len() < RETAINED_MAX || self.retained.contains_key(&bytes);
        if message.payload.len() > RETAINED_LEN_MAX || !room {
            self.metrics.source.subscriber_dropped.increment();
            return;
        }
        // A copy of its own: the payload would keep the connection's buffer alive.
        let payload = Bytes::copy_from_slice(&message.payload);
        self.retained.insert(bytes.clone(), Publish { topic: bytes, payload, ..message.clone() });
    }

    /// Whether anyone could want a message.
    pub(super) fn has_subscribers(&self, name: &[u8]) -> bool {
        !self.wild.is_empty() || self.exact.contains_key(name)
    }

    /// Hands a message to its subscribers; one whose queue is full does not get it.
    pub(super) fn route(&self, message: &Publish) {
        if let Some(subscribers) = self.exact.get(&message.topic) {
            for (connection, qos) in subscribers {
                self.tell(*connection, *qos, message);
            }
        }
        if self.wild.is_empty() {
            return;
        }
        let Ok(name) = std::str::from_utf8(&message.topic) else { return };
        for (filter, connection, qos) in &self.wild {
            if topic::matches(filter, name) {
                self.tell(*connection, *qos, message);
            }
        }
    }

    fn tell(&self, connection: u64, qos: u8, message: &Publish) {
        let Some(client) = self.clients.get(&connection) else { return };
        let qos = qos.min(message.qos);
        let message = Publish { qos, retain: false, dup: false, ..message.clone() };
        if client.tell.try_send(Told::Message(message)).is_err() {
            self.metrics.source.subscriber_dropped.increment();
        }
    }
}
