//! Who is there, who wants what, and what is retained. Knows nothing of sockets.

use super::packet::{Connect, Publish, Qos, Version};
use super::write::publish_len_max;
use super::{QUEUE_BYTES_MAX, QUEUE_MAX, RETAINED_BYTES_MAX, RETAINED_MAX, SUBSCRIPTIONS_MAX, WILDCARDS_MAX};
use crate::api::metrics::{self, Metrics};
use crate::source::{Token, topic};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, Semaphore};

/// A published message, shared by all who get it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: Arc<str>,
    pub(super) payload: Bytes,
    /// As on the wire of MQTT 5.
    pub(super) properties: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

impl Message {
    pub(super) fn new(topic: Arc<str>, payload: Bytes, publish: &Publish<'_>) -> Self {
        let properties = Bytes::copy_from_slice(publish.properties);
        Self { topic, payload, properties, qos: publish.qos, retain: publish.retain }
    }

    fn len(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

/// A message on its way to a subscriber.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

impl Delivery {
    /// The packet; `id` counts with QoS 1 only.
    pub(super) fn publish(&self, id: u16) -> Publish<'_> {
        Publish {
            topic: &self.message.topic,
            payload: &self.message.payload,
            properties: &self.message.properties,
            qos: self.qos,
            retain: self.retain,
            duplicate: false,
            id,
        }
    }
}

/// What others leave for a connection. Its task takes it when woken.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) client_id: Arc<str>,
    version: Version,
    packet_len_max: usize,
    /// Something was left.
    pub(super) wake: Notify,
    /// Closed when the connection has left the broker.
    gone: Semaphore,
    taken_over: AtomicBool,
    acks: Mutex<Vec<u16>>,
    queue: Mutex<Queue>,
    filters: Mutex<Vec<Arc<str>>>,
}

#[derive(Debug, Default)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// Number of the last publication put here: filters that overlap give one delivery, not two.
    last: u64,
}

impl Link {
    pub(super) fn new(number: u64, client_id: Arc<str>, connect: &Connect<'_>) -> Arc<Self> {
        Arc::new(Self {
            number,
            client_id,
            version: connect.version,
            packet_len_max: connect.packet_len_max,
            wake: Notify::new(),
            gone: Semaphore::new(0),
            taken_over: AtomicBool::new(false),
            acks: Mutex::default(),
            queue: Mutex::default(),
            filters: Mutex::default(),
        })
    }

    /// Asks the connection to leave, and waits until it has.
    pub(super) async fn take_over(&self) {
        self.taken_over.store(true, Ordering::Relaxed);
        self.wake.notify_one();
        let _ = self.gone.acquire().await;
    }

    pub(super) fn is_taken_over(&self) -> bool {
        self.taken_over.load(Ordering::Relaxed)
    }

    pub(super) fn take_acks(&self) -> Vec<u16> {
        std::mem::take(&mut self.acks.lock())
    }

    /// The next delivery, unless it is of QoS 1 and `at_least_once` says that no more of them may be under way.
    pub(super) fn take_delivery(&self, at_least_once: bool) -> Option<Delivery> {
        let mut queue = self.queue.lock();
        if queue.deliveries.front()?.qos == Qos::AtLeastOnce && !at_least_once {
            return None;
        }
        let delivery = queue.deliveries.pop_front()?;
        queue.bytes -= delivery.message.len();
        Some(delivery)
    }

    fn put(&self, delivery: Delivery, publication: u64, metrics: &metrics::Source) {
        let mut queue = self.queue.lock();
        if publication != 0 && queue.last == publication {
            if let Some(last) = queue.deliveries.back_mut() {
                last.qos = last.qos.max(delivery.qos);
            }
            return;
        }
        let full =
            queue.deliveries.len() >= QUEUE_MAX || queue.bytes + delivery.message.len() > QUEUE_BYTES_MAX;
        if full || publish_len_max(&delivery.publish(0)) > self.packet_len_max {
            metrics.subscriber_dropped.increment();
            return;
        }
        queue.last = publication;
        queue.bytes += delivery.message.len();
        queue.deliveries.push_back(delivery);
        self.wake.notify_one();
    }
}

#[derive(Debug)]
struct Subscriber {
    link: Arc<Link>,
    qos: Qos,
    no_local: bool,
    retain_as_published: bool,
}

/// Why a client is not let in.
#[derive(Debug)]
pub(super) enum NotYet {
    /// Too many clients.
    Full,
    /// This one has its id, and must leave first.
    Occupied(Arc<Link>),
}

/// The table of all clients.
#[derive(Debug)]
pub(super) struct Broker {
    metrics: Arc<Metrics>,
    clients_max: usize,
    links: HashMap<u64, Arc<Link>>,
    by_client_id: HashMap<Arc<str>, Arc<Link>>,
    /// By topic: subscriptions without wildcards, as boards have them; found at once whatever their number.
    exact: HashMap<Arc<str>, Vec<Subscriber>>,
    /// Subscriptions with wildcards: few, tried one by one.
    wildcards: Vec<(Arc<str>, Subscriber)>,
    retained: BTreeMap<Arc<str>, Arc<Message>>,
    retained_bytes: usize,
    publications: u64,
}

impl Broker {
    pub(super) fn new(clients_max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            clients_max,
            links: HashMap::new(),
            by_client_id: HashMap::new(),
            exact: HashMap::new(),
            wildcards: Vec::new(),
            retained: BTreeMap::new(),
            retained_bytes: 0,
            publications: 0,
        }
    }

    pub(super) fn admit(&mut self, link: &Arc<Link>) -> Result<(), NotYet> {
        if let Some(old) = self.by_client_id.get(&link.client_id) {
            return Err(NotYet::Occupied(old.clone()));
        }
        if self.links.len() >= self.clients_max {
            return Err(NotYet::Full);
        }
        self.by_client_id.insert(link.client_id.clone(), link.clone());
        self.links.insert(link.number, link.clone());
        Ok(())
    }

    pub(super) fn clients(&self) -> usize {
        self.links.len()
    }

    pub(super) fn leave(&mut self, link: &Link) {
        let filters = std::mem::take(&mut *link.filters.lock());
        for filter in filters {
            self.remove(link, &filter);
        }
        if self.links.remove(&link.number).is_some() {
            self.by_client_id.remove(&link.client_id);
        }
        link.gone.close();
    }

    /// Passes acknowledgements on to their connections.
    pub(super) fn release(&self, tokens: &[Token]) {
        for token in tokens {
            match self.links.get(&token.connection) {
                Some(link) => {
                    link.acks.lock().push(token.packet);
                    link.wake.notify_one();
                }
                None => self.metrics.source.acks_stale.increment(),
            }
        }
    }

    pub(super) fn wake_all(&self) {
        self.links.values().for_each(|link| link.wake.notify_one());
    }

    /// Gives a message to all who want it, and keeps it if it is to be retained. `from` is the connection it came from.
    pub(super) fn publish(&mut self, message: Message, from: Option<u64>) {
        let retain = message.retain;
        let exact = self.exact.get(&message.topic);
        if exact.is_none() && self.wildcards.is_empty() && !retain {
            return;
        }
        let message = Arc::new(message);
        self.publications += 1;
        let wildcards = self
            .wildcards
            .iter()
            .filter(|(filter, _)| topic::matches(filter, &message.topic))
            .map(|(_, subscriber)| subscriber);
        for subscriber in exact.into_iter().flatten().chain(wildcards) {
            if subscriber.no_local && from == Some(subscriber.link.number) {
                continue;
            }
            let delivery = Delivery {
                message: message.clone(),
                qos: message.qos.min(subscriber.qos),
                retain: message.retain && subscriber.retain_as_published,
            };
            subscriber.link.put(delivery, self.publications, &self.metrics.source);
        }
        if retain {
            self.retain(message);
        }
    }

    fn retain(&mut self, message: Arc<Message>) {
        if let Some(old) = self.retained.remove(&message.topic) {
            self.retained_bytes -= old.len();
        }
        if message.payload.is_empty() {
            return;
        }
        let bytes = self.retained_bytes + message.len();
        if self.retained.len() >= RETAINED_MAX || bytes > RETAINED_BYTES_MAX {
            self.metrics.source.retained_dropped.increment();
            return;
        }
        self.retained_bytes = bytes;
        self.retained.insert(message.topic.clone(), message);
    }

    /// Adds or replaces a subscription and queues what is retained for it. Gives the code for SUBACK (3.9.3).
    pub(super) fn subscribe(&mut self, link: &Arc<Link>, filter: &str, options: u8) -> u8 {
        let refused = |code| if link.version == Version::V5 { code } else { 0x80 };
        if filter.starts_with("$share/") {
            return refused(0x9E);
        }
        if !topic::is_filter(filter) {
            return refused(0x8F);
        }
        let wildcard = filter.contains(['+', '#']);
        let known = link.filters.lock().iter().find(|known| &***known == filter).cloned();
        let existed = known.is_some();
        let filter = known.unwrap_or_else(|| filter.into());
        if existed {
            self.remove(link, &filter);
        } else {
            let full = link.filters.lock().len() >= SUBSCRIPTIONS_MAX
                || wildcard && self.wildcards.len() >= WILDCARDS_MAX;
            if full {
                self.metrics.source.subscriptions_refused.increment();
                return refused(0x97);
            }
            link.filters.lock().push(filter.clone());
        }
        let qos = if options & 3 == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        let subscriber = Subscriber {
            link: link.clone(),
            qos,
            no_local: options & 4 != 0,
            retain_as_published: options & 8 != 0,
        };
        if wildcard {
            self.wildcards.push((filter.clone(), subscriber));
        } else {
            self.exact.entry(filter.clone()).or_default().push(subscriber);
        }
        match options >> 4 & 3 {
            0 => self.give_retained(link, &filter, wildcard, qos),
            1 if !existed => self.give_retained(link, &filter, wildcard, qos),
            _ => {}
        }
        qos as u8
    }

    fn give_retained(&self, link: &Link, filter: &str, wildcard: bool, qos: Qos) {
        let give = |message: &Arc<Message>| {
            let qos = message.qos.min(qos);
            link.put(Delivery { message: message.clone(), qos, retain: true }, 0, &self.metrics.source);
        };
        if wildcard {
            let matching = self.retained.iter().filter(|(topic, _)| topic::matches(filter, topic));
            matching.for_each(|(_, message)| give(message));
        } else if let Some(message) = self.retained.get(filter) {
            give(message);
        }
    }

    /// Ends a subscription and gives the code for UNSUBACK.
    pub(super) fn unsubscribe(&mut self, link: &Link, filter: &str) -> u8 {
        let mut filters = link.filters.lock();
        match filters.iter().position(|known| &**known == filter) {
            Some(index) => {
                self.remove(link, &filters.swap_remove(index));
                0
            }
            None => 0x11,
        }
    }

    fn remove(&mut self, link: &Link, filter: &Arc<str>) {
        if let Some(subscribers) = self.exact.get_mut(filter) {
            subscribers.retain(|subscriber| subscriber.link.number != link.number);
            if subscribers.is_empty() {
                self.exact.remove(filter);
            }
        } else {
            self.wildcards
                .retain(|(other, subscriber)| other != filter || subscriber.link.number != link.number);
        }
    }
}
