//! From messages to records: who sent it, was it here before, is something missing, when was it taken. A state machine
//! without I/O: it takes messages and a time, and gives records to commit and, after the commit, what to acknowledge.

mod board;
mod books;
mod boot;
pub mod dead;
mod foreign;
pub mod ingest;
pub mod json;
mod message;
mod node;
pub mod observe;
pub mod report;
mod stream;
#[cfg(test)]
mod tests;
mod twins;

use crate::api::metrics;
use crate::clock::Now;
use crate::config::{self, JsonMapping};
use crate::journal::{Key, State, Stateful};
use crate::record::{Record, RecordKind, SensorKey};
use crate::source::topic;
use crate::source::{Incoming, Outgoing, SourceId, Token};
use books::Books;
use bytes::Bytes;
use foreign::JsonSensor;
use json::Mapping;
use node::Node;
use spindle_common::hardware::Catalog;
use spindle_common::wire;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Topics whose meaning is remembered; when there are more, all are worked out anew.
const ROUTES_MAX: usize = 65_536;
/// A longer topic is worked out each time.
const ROUTE_LEN_MAX: usize = 256;
/// Bytes that all nodes together may hold for order.
const HELD_BYTES_MAX: usize = 64 << 20;
/// Held messages of all nodes whose transport waits for its acknowledgement; of more it gets it at once. A broker sends only so many
/// ahead (Mosquitto 20), and what is missing may be behind them; a node keeps what is held until the gateway's own acknowledgement.
const HELD_TOKENS_MAX: usize = 8;
/// A node that was heard within so long keeps its place.
const NODE_SILENCE_MIN: Duration = Duration::from_secs(600);
/// Sensors per node that the books keep apart.
const SENSORS_PER_NODE: usize = wire::STREAMS_MAX;
/// Room for a message to a node: settings of as many sensors as a node may have.
const TO_NODE_LEN_MAX: usize = 1024;
/// Where dead letters go whose topic gives no key.
const UNKNOWN: &str = "unknown";
/// A node is asked for its birth once in this time: each of its messages may come before it, its answer as well.
const ASK_EVERY_NS: u64 = 1_000_000_000;

/// Splits a session into what its parts work with and the nodes, so that both can be borrowed at once.
macro_rules! context {
    ($session:ident, $source:expr, $now:expr, $work:expr) => {{
        let source_name = $session.sources.get(usize::from($source.0)).map_or("", String::as_str);
        let ctx = Context {
            books: &mut $session.books,
            work: &mut *$work,
            now: $now,
            config: &$session.config,
            metrics: &$session.metrics.session,
            source_name,
            budget: $session.budgets.get_mut(usize::from($source.0)),
            held: &mut $session.held,
        };
        (ctx, &mut $session.nodes)
    }};
}
use context;

/// What a batch of messages came to.
#[derive(Debug, Default)]
pub struct Work {
    /// To be committed.
    pub records: Vec<Record>,
    /// To be acknowledged once the records are committed.
    pub release: Vec<Token>,
}

/// A message for a node, and the source that it is to go through.
#[derive(Debug)]
pub struct ToNode {
    /// The way to the node.
    pub source: SourceId,
    /// The message.
    pub message: Outgoing,
}

/// What the parts work with.
struct Context<'a> {
    books: &'a mut Books,
    work: &'a mut Work,
    now: Now,
    config: &'a config::Session,
    metrics: &'a metrics::Session,
    source_name: &'a str,
    /// For dead letters; none where there is no source.
    budget: Option<&'a mut dead::Budget>,
    held: &'a mut Held,
}

/// What all nodes together hold for order.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// Messages that a source waits to acknowledge.
    tokens: usize,
}

impl Context<'_> {
    fn release(&mut self, token: Option<Token>) {
        self.work.release.extend(token);
    }

    fn push(
        &mut self,
        kind: RecordKind,
        key: Arc<SensorKey>,
        time_ns: i64,
        flags: u16,
        first_sample: u64,
        body: Bytes,
    ) {
        let arrival_ns = self.now.utc_ns;
        // The journal gives the offset.
        self.work.records.push(Record {
            offset: 0,
            kind,
            key,
            time_ns,
            flags,
            first_sample,
            arrival_ns,
            body,
        });
    }

    fn dead(&mut self, reason: &str, key: Arc<SensorKey>, topic: Option<&[u8]>, payload: &[u8]) {
        self.metrics.dead_letters.increment();
        tracing::debug!(%key, reason, "refused");
        let body = dead::body(reason, self.source_name, topic, payload, self.now.utc_ns);
        let len = body.len() + dead::OVERHEAD;
        if let Some(budget) = &mut self.budget
            && !budget.take(len, self.now.mono_ns, self.source_name)
        {
            self.metrics.dead_letters_dropped.increment();
            return;
        }
        self.push(RecordKind::DeadLetter, key, self.now.utc_ns, 0, 0, body);
    }
}

/// What a topic means.
#[derive(Debug, Clone)]
enum Route {
    /// A board's; with the node that published there last.
    Board { topic: topic::Topic, node: Option<(Arc<str>, usize)> },
    /// Another maker's sensor's.
    Json { mapping: usize, key: Arc<SensorKey> },
    /// None that is known.
    Refused { key: Arc<SensorKey>, reason: Arc<str> },
}

/// All sessions.
#[derive(Debug)]
pub struct Session {
    config: config::Session,
    mappings: Vec<Mapping>,
    metrics: Arc<metrics::Metrics>,
    sources: Vec<String>,
    books: Books,
    /// By source.
    budgets: Vec<dead::Budget>,
    held: Held,
    /// Before this no node will have been silent for long enough to make room, monotonic ns.
    no_room_until_ns: u64,
    nodes: Vec<Option<Node>>,
    by_key: HashMap<Arc<SensorKey>, usize>,
    /// Nodes of a serial line, by their name: a line carries no topics.
    serial: HashMap<(SourceId, String), usize>,
    json: Vec<JsonSensor>,
    json_by_key: HashMap<Arc<SensorKey>, usize>,
    routes: HashMap<Bytes, Route>,
    /// Nodes with something held, or with an ended boot that is to be settled.
    holding: BTreeSet<usize>,
    /// Nodes to be acknowledged after the commit.
    touched: BTreeSet<usize>,
    changed_nodes: BTreeSet<usize>,
    changed_json: BTreeSet<usize>,
    forgotten: Vec<Key>,
    /// Serial lines that are to be asked for their birth, and when each was asked last, monotonic ns.
    ask: BTreeSet<(SourceId, String)>,
    asked: HashMap<(SourceId, String), u64>,
    /// Of the last order to a node; 0 before the first.
    order_id: u32,
    unknown: Arc<SensorKey>,
    /// What nodes should be.
    hardware: Option<Catalog>,
}

impl Session {
    /// Sessions that go on from `state`. `sources` are the names of the sources, by their ids.
    #[must_use]
    pub fn new(
        config: &config::Session,
        mappings: &[JsonMapping],
        sources: Vec<String>,
        state: State,
        metrics: Arc<metrics::Metrics>,
    ) -> Self {
        let unknown: Arc<str> = UNKNOWN.into();
        let mut session = Self {
            config: config.clone(),
            mappings: mappings.iter().map(Mapping::new).collect(),
            metrics,
            budgets: sources.iter().map(|_| dead::Budget::new(config)).collect(),
            held: Held::default(),
            no_room_until_ns: 0,
            sources,
            books: Books::new(config.nodes_max.saturating_mul(SENSORS_PER_NODE)),
            nodes: Vec::new(),
            by_key: HashMap::new(),
            serial: HashMap::new(),
            json: Vec::new(),
            json_by_key: HashMap::new(),
            routes: HashMap::new(),
            holding: BTreeSet::new(),
            touched: BTreeSet::new(),
            changed_nodes: BTreeSet::new(),
            changed_json: BTreeSet::new(),
            forgotten: Vec::new(),
            ask: BTreeSet::new(),
            asked: HashMap::new(),
            order_id: 0,
            unknown: Arc::new(SensorKey { site: unknown.clone(), machine: unknown.clone(), sensor: unknown }),
            hardware: None,
        };
        session.books.restore(state.books);
        for sensor in state.json {
            let slot = session.books.slot(&sensor.key.0);
            session.json_by_key.insert(sensor.key.0.clone(), session.json.len());
            let recent = sensor.recent.into();
            session.json.push(JsonSensor {
                key: sensor.key.0,
                slot,
                next_sample: sensor.next_sample,
                recent,
            });
        }
        for node in state.nodes {
            let node = Node::restore(node, &mut session.books);
            if node.is_waiting() {
                session.holding.insert(session.nodes.len());
            }
            session.by_key.insert(node.key.clone(), session.nodes.len());
            session.nodes.push(Some(node));
        }
        session.metrics.session.nodes.set(session.by_key.len() as u64);
        session
    }

    /// Compares births with what the nodes' files say.
    #[must_use]
    pub fn with_hardware(mut self, catalog: Option<Catalog>) -> Self {
        self.hardware = catalog;
        self
    }

    /// Takes a message.
    pub fn take(&mut self, incoming: Incoming, now: Now, work: &mut Work) {
        let Some(name) = incoming.topic.clone() else {
            return self.take_wire(incoming, None, None, now, work);
        };
        let route = match self.routes.get(&name) {
            Some(route) => route.clone(),
            None => self.route(&name),
        };
        match route {
            Route::Board { topic, node } => self.take_wire(incoming, Some(topic), node, now, work),
            Route::Json { mapping, key } => self.take_json(&incoming, mapping, &key, now, work),
            Route::Refused { key, reason } => self.refuse(&incoming, key, &reason, now, work),
        }
    }

    /// The source of this name, if there is one.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<SourceId> {
        let index = self.sources.iter().position(|source| source == name)?;
        Some(SourceId(u16::try_from(index).ok()?))
    }

    /// Lets go what has been held too long.
    pub fn expire(&mut self, now: Now, work: &mut Work) {
        for index in self.holding.clone() {
            let (mut ctx, nodes) = context!(self, SourceId(u16::MAX), now, work);
            let Some(node) = nodes.get_mut(index).and_then(Option::as_mut) else { continue };
            let records = ctx.work.records.len();
            if !node.expire(&mut ctx) {
                self.holding.remove(&index);
            }
            if work.records.len() > records {
                self.changed_nodes.insert(index);
                self.touched.insert(index);
            }
        }
        self.count_held();
    }

    /// When [`Session::expire`] has something to do, monotonic ns.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let wait_ns = u64::try_from(self.config.reorder_wait.as_nanos()).unwrap_or(u64::MAX);
        let nodes = self.holding.iter().filter_map(|index| self.nodes.get(*index)?.as_ref());
        nodes.filter_map(|node| node.deadline_ns(wait_ns)).min()
    }

    /// The acknowledgements that are due now that everything taken is committed, and questions to nodes not known.
    pub fn to_nodes(&mut self) -> Vec<ToNode> {
        let mut messages = Vec::new();
        for index in std::mem::take(&mut self.touched) {
            let Some(node) = self.nodes.get_mut(index).and_then(Option::as_mut) else { continue };
            let wanted = node.wanted();
            for (origin, boot, next) in wanted {
                let ack = wire::Ack { node: &node.key.sensor, boot, next };
                messages.extend(to_node(
                    origin,
                    topic::to_node(&node.key, "ack"),
                    |out| ack.encode(out),
                    false,
                ));
            }
        }
        for (source, node) in std::mem::take(&mut self.ask) {
            let command = wire::Command { node: &node, id: 0, request: wire::messages::Request::Report };
            messages.extend(to_node(source, String::new(), |out| command.encode(out), true));
        }
        messages
    }

    fn route(&mut self, name: &Bytes) -> Route {
        let route = self.work_out(name);
        if name.len() > ROUTE_LEN_MAX || matches!(route, Route::Refused { .. }) {
            return route;
        }
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        // A copy of its own: the message's bytes would keep the source's buffer alive.
        self.routes.insert(Bytes::copy_from_slice(name), route.clone());
        route
    }

    fn work_out(&self, name: &Bytes) -> Route {
        let refused =
            |key: &Arc<SensorKey>, reason: String| Route::Refused { key: key.clone(), reason: reason.into() };
        let Ok(text) = std::str::from_utf8(name) else {
            return refused(&self.unknown, "topic is no UTF-8 text".into());
        };
        if topic::is_ours(text) {
            return match topic::parse(text) {
                Ok(topic) => Route::Board { topic, node: None },
                Err(reason) => refused(&self.unknown, reason),
            };
        }
        for (mapping, found) in
            self.mappings.iter().enumerate().map(|(index, mapping)| (index, mapping.key(text)))
        {
            match found {
                Some(Ok(key)) => return Route::Json { mapping, key },
                Some(Err(reason)) => return refused(&self.unknown, reason),
                None => {}
            }
        }
        refused(&self.unknown, "no mapping covers the topic".into())
    }

    fn refuse(&mut self, incoming: &Incoming, key: Arc<SensorKey>, reason: &str, now: Now, work: &mut Work) {
        let (mut ctx, _) = context!(self, incoming.source, now, work);
        ctx.release(incoming.token);
        ctx.dead(reason, key, incoming.topic.as_deref(), &incoming.payload);
    }

    /// Lets a node be asked who it is, if that was not done just now.
    fn ask(&mut self, source: SourceId, name: &str, now: Now) {
        if self.asked.len() >= self.config.nodes_max.max(1) {
            self.asked.clear();
        }
        let line = (source, name.to_owned());
        let asked = self.asked.get(&line);
        if asked.is_none_or(|asked_ns| now.mono_ns.saturating_sub(*asked_ns) >= ASK_EVERY_NS) {
            self.asked.insert(line.clone(), now.mono_ns);
            self.ask.insert(line);
        }
    }

    fn count_held(&self) {
        let nodes = self.holding.iter().filter_map(|index| self.nodes.get(*index)?.as_ref());
        self.metrics.session.held.set(nodes.map(|node| node.held() as u64).sum());
    }
}

impl Stateful for Session {
    fn changes(&self) -> State {
        let nodes = self.changed_nodes.iter().filter_map(|index| self.nodes.get(*index)?.as_ref());
        let json = self.changed_json.iter().filter_map(|index| self.json.get(*index));
        State {
            nodes: nodes.map(Node::state).collect(),
            json: json.map(JsonSensor::state).collect(),
            books: self.books.changes(),
            forgotten: self.forgotten.clone(),
        }
    }

    fn committed(&mut self) {
        self.changed_nodes.clear();
        self.changed_json.clear();
        self.books.committed();
        self.forgotten.clear();
    }

    fn snapshot(&self) -> State {
        State {
            nodes: self.nodes.iter().flatten().map(Node::state).collect(),
            json: self.json.iter().map(JsonSensor::state).collect(),
            books: self.books.all(),
            forgotten: Vec::new(),
        }
    }

    fn evicted(&mut self, key: &Arc<SensorKey>, samples: u64) {
        let slot = self.books.slot(key);
        self.books.change(slot, |book| book.evicted = book.evicted.saturating_add(samples));
    }
}

fn to_node(
    source: SourceId,
    topic: String,
    encode: impl FnOnce(&mut [u8]) -> Result<usize, wire::EncodeError>,
    at_least_once: bool,
) -> Option<ToNode> {
    let mut buffer = [0u8; TO_NODE_LEN_MAX];
    let len = encode(&mut buffer).ok()?;
    let payload = Bytes::copy_from_slice(buffer.get(..len)?);
    Some(ToNode { source, message: Outgoing { topic, payload, at_least_once } })
}
