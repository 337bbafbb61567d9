//! What is durable besides the records: where each node stands, its clock, and the books. It rides in the same
//! transaction as the records: whole at the head of a segment, then the changed parts with each chunk.
//!
//! The form on disk is postcard of [`State`], and after it, when there is one, the list of what came to be withheld: see
//! [`State::to_bytes`]. Any other change of these types is a new schema version.

use crate::record::SensorKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Samples (per channel) of one sensor: guarantee G5. At rest, `taken == accepted + withheld + rejected + lost` for sensors
/// that report what they took; what was accepted is in the journal, or was forwarded and `evicted`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Taken by the sensor, by the node's own account, summed over its boots. 0 for JSON sensors, which give no account.
    pub taken: u64,
    /// Committed to the journal, once each.
    pub accepted: u64,
    /// Came again and were dropped.
    pub duplicate: u64,
    /// Refused although the message was intact (see the dead letters), and came no other way. A message too broken to say
    /// which samples it holds is not counted here: its node sends it again, or declares them lost.
    pub rejected: u64,
    /// Lost before the gateway, known by gap records.
    pub lost: u64,
    /// Of the accepted: left the journal because its size was reached.
    pub evicted: u64,
    /// In the reorder buffer when this was written; not durable, not acknowledged.
    pub held: u64,
    /// Messages refused (samples unknown).
    pub rejected_messages: u64,
    /// Kept back by the node, as its settings say: thinned out by decimation, or stood for by features. Not part of the
    /// form that journals began with: see [`State::to_bytes`].
    #[serde(skip)]
    pub withheld: u64,
}

impl Book {
    /// Enters `samples` of the sensor that came, `stored` of them as such.
    pub fn enter(&mut self, samples: u64, stored: u64) {
        self.accepted = self.accepted.saturating_add(stored);
        self.withheld = self.withheld.saturating_add(samples.saturating_sub(stored));
    }
}

/// One stream of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Index on the node.
    pub stream: u8,
    /// Whose samples.
    pub key: Key,
    /// First sample that has neither come nor been declared lost.
    pub next_sample: u64,
    /// Most that the node said it took.
    pub taken: u64,
    /// Tick and time of the last block, for a time that never runs backwards.
    pub last: Option<(u64, i64)>,
}

/// One boot of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootState {
    /// Boot id.
    pub boot: u64,
    /// Sequence number wanted next.
    pub next: u32,
    /// Whether a later boot was seen.
    pub closed: bool,
    /// Sequence numbers given up (first, count): those that still come are late, not duplicates.
    pub given_up: Vec<(u32, u32)>,
    /// Its streams.
    pub streams: Vec<StreamState>,
    /// The clock: see `spindle_common::time`.
    pub clock: ClockState,
}

/// What is kept of a boot's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    /// Ticks per second, nominal; 0 when not known yet.
    pub tick_hz: u32,
    /// Anchor by arrival (tick, UTC ns), for want of pairs.
    pub anchor: Option<(u64, i64)>,
    /// Newest pairs: tick, UTC ns, error ns.
    pub pairs: Vec<(u64, i64, u32)>,
    /// Whether its last pair was refused or doubtful.
    pub doubtful: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// `site/machine/node`.
    pub key: Key,
    /// Its last boots, the newest last.
    pub boots: Vec<BootState>,
}

/// One JSON sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonState {
    /// Whose samples.
    pub key: Key,
    /// Index of the next sample.
    pub next_sample: u64,
    /// Digests of its last messages, the newest last.
    pub recent: Vec<u64>,
}

/// The state, or the part of it that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Nodes.
    pub nodes: Vec<NodeState>,
    /// JSON sensors.
    pub json: Vec<JsonState>,
    /// Books.
    pub books: Vec<(Key, Book)>,
    /// Nodes to forget (in a change).
    pub forgotten: Vec<Key>,
}

/// What shares the journal's transactions: the session.
pub trait Stateful {
    /// What changed since the last [`Stateful::committed`]. Asked again when a commit failed.
    fn changes(&self) -> State;
    /// The changes are durable.
    fn committed(&mut self);
    /// The whole.
    fn snapshot(&self) -> State;
    /// `samples` of a sensor leave the journal for want of space.
    fn evicted(&mut self, key: &Arc<SensorKey>, samples: u64);
}

/// A [`SensorKey`] as the disk knows it: three strings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub Arc<SensorKey>);

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&*self.0.site, &*self.0.machine, &*self.0.sensor).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (site, machine, sensor) = <(String, String, String)>::deserialize(deserializer)?;
        Ok(Self(Arc::new(SensorKey { site: site.into(), machine: machine.into(), sensor: sensor.into() })))
    }
}

impl State {
    /// The form on disk. Books of samples withheld stand behind the state, and only if there are any: so what was written
    /// before there were such is read as ever, and what has none is written as ever.
    ///
    /// # Errors
    /// Not for want of space: never, as it is made of what can be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        let bytes = postcard::to_stdvec(self)?;
        let withheld: Vec<(&Key, u64)> = self
            .books
            .iter()
            .filter(|(_, book)| book.withheld > 0)
            .map(|(key, book)| (key, book.withheld))
            .collect();
        if withheld.is_empty() { Ok(bytes) } else { postcard::to_extend(&withheld, bytes) }
    }

    /// Reads [`State::to_bytes`].
    ///
    /// # Errors
    /// The bytes are not what was written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let (mut state, rest) = postcard::take_from_bytes::<Self>(bytes)?;
        if !rest.is_empty() {
            let withheld: Vec<(Key, u64)> = postcard::from_bytes(rest)?;
            let mut withheld: BTreeMap<Key, u64> = withheld.into_iter().collect();
            for (key, book) in &mut state.books {
                book.withheld = withheld.remove(key).unwrap_or(0);
            }
        }
        Ok(state)
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.json.is_empty() && self.books.is_empty() && self.forgotten.is_empty()
    }

    /// Joins a snapshot and the changes after it, in order.
    #[must_use]
    pub fn fold(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut nodes = BTreeMap::new();
        let mut json = BTreeMap::new();
        let mut books = BTreeMap::new();
        for part in parts {
            for key in part.forgotten {
                nodes.remove(&key);
            }
            nodes.extend(part.nodes.into_iter().map(|node| (node.key.clone(), node)));
            json.extend(part.json.into_iter().map(|sensor| (sensor.key.clone(), sensor)));
            books.extend(part.books);
        }
        Self {
            nodes: nodes.into_values().collect(),
            json: json.into_values().collect(),
            books: books.into_iter().collect(),
            forgotten: Vec::new(),
        }
    }
}
