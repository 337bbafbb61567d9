//! A broker as people install it: it keeps a bounded queue for the gateway's session, gives it so many at a time, sends again
//! what was not acknowledged when the gateway comes back, and may forget everything in a restart.

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// A message for the gateway.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    pub(super) redelivered: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) up: bool,
    /// The gateway has a session here.
    subscribed: bool,
    /// The gateway's connection, if there is one now.
    pub(super) connection: Option<u64>,
    queue: VecDeque<Message>,
    inflight: BTreeMap<u64, Message>,
    next_packet: u64,
    retained: BTreeMap<Bytes, Bytes>,
    queue_max: usize,
    inflight_max: usize,
    /// Dropped because the queue was full, or because nobody subscribed.
    pub(super) dropped: u64,
}

impl Broker {
    pub(super) fn new(queue_max: usize, inflight_max: usize) -> Self {
        Self { up: true, queue_max, inflight_max, ..Self::default() }
    }

    /// A board published.
    pub(super) fn publish(&mut self, topic: Bytes, payload: Bytes) {
        if topic.ends_with(b"/birth") {
            self.retained.insert(topic.clone(), payload.clone());
        }
        if !self.subscribed || self.queue.len() >= self.queue_max {
            self.dropped += 1;
            return;
        }
        self.queue.push_back(Message { topic, payload, redelivered: false });
    }

    /// The gateway connects, and subscribes if its session is gone.
    pub(super) fn connect(&mut self, connection: u64) {
        self.connection = Some(connection);
        let unacknowledged = std::mem::take(&mut self.inflight);
        for (_, message) in unacknowledged.into_iter().rev() {
            self.queue.push_front(Message { redelivered: true, ..message });
        }
        self.subscribed = true;
        // Each connection subscribes again, and is sent what is retained.
        for (topic, payload) in &self.retained {
            self.queue.push_back(Message {
                topic: topic.clone(),
                payload: payload.clone(),
                redelivered: false,
            });
        }
    }

    /// The next message that may go to the gateway, with its packet id.
    pub(super) fn next(&mut self) -> Option<(u64, Message)> {
        if !self.up || self.connection.is_none() || self.inflight.len() >= self.inflight_max {
            return None;
        }
        let message = self.queue.pop_front()?;
        self.next_packet += 1;
        self.inflight.insert(self.next_packet, message.clone());
        Some((self.next_packet, message))
    }

    /// The gateway acknowledged a packet of this connection.
    pub(super) fn acknowledged(&mut self, connection: u64, packet: u16) {
        if self.connection == Some(connection) {
            let found = self.inflight.keys().find(|id| **id as u16 == packet).copied();
            found.and_then(|id| self.inflight.remove(&id));
        }
    }

    pub(super) fn stop(&mut self, forgets: bool) {
        self.up = false;
        self.connection = None;
        if forgets {
            self.subscribed = false;
            self.queue.clear();
            self.inflight.clear();
            self.retained.clear();
        }
    }
}
