//! What metrics need of the session: the books and the nodes' clocks, so many of each one by one and the others in sum.

use super::Session;
use super::node::Node;
use crate::journal::Book;

/// The books and the nodes' clocks at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// Books by sensor (`site/machine/sensor`), in the order in which the sensors became known: so who is told one by one does
    /// not change while the gateway runs.
    pub sensors: Vec<(String, Book)>,
    /// Sensors that are told in sum.
    pub sensors_more: u64,
    /// Their books in sum.
    pub more: Book,
    /// Nodes, in the order in which they became known.
    pub nodes: Vec<NodeView>,
    /// Nodes that are not told.
    pub nodes_more: u64,
    /// Nodes whose clock is doubtful, of all.
    pub clocks_doubtful: u64,
}

/// A node as metrics see it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// `site/machine/node`.
    pub node: String,
    /// When it was heard last, UTC ns.
    pub heard_ns: Option<i64>,
    /// Whether its broker said since that its connection is lost.
    pub offline: bool,
    /// By how much its UTC was ahead of the gateway's, ns, the time on the way taken for none.
    pub clock_ahead_ns: Option<i64>,
    /// By how much its tick is longer than it should be, parts per million.
    pub clock_drift_ppm: Option<f64>,
    /// Whether its UTC was refused or is doubtful.
    pub clock_doubtful: bool,
}

impl Session {
    /// The books and clocks, at most `series_max` sensors and nodes one by one.
    #[must_use]
    pub fn observe(&self, series_max: usize) -> Observation {
        let mut observation = Observation::default();
        for (key, book) in self.books.iter() {
            if observation.sensors.len() < series_max {
                observation.sensors.push((key.to_string(), *book));
            } else {
                observation.sensors_more += 1;
                add(&mut observation.more, book);
            }
        }
        for node in self.nodes.iter().flatten() {
            observation.clocks_doubtful += u64::from(is_doubtful(node));
            if observation.nodes.len() < series_max {
                observation.nodes.push(view(node));
            } else {
                observation.nodes_more += 1;
            }
        }
        observation
    }
}

fn add(sum: &mut Book, book: &Book) {
    let pairs = [
        (&mut sum.taken, book.taken),
        (&mut sum.accepted, book.accepted),
        (&mut sum.duplicate, book.duplicate),
        (&mut sum.rejected, book.rejected),
        (&mut sum.lost, book.lost),
        (&mut sum.evicted, book.evicted),
        (&mut sum.held, book.held),
        (&mut sum.rejected_messages, book.rejected_messages),
        (&mut sum.withheld, book.withheld),
    ];
    for (sum, count) in pairs {
        *sum = sum.saturating_add(count);
    }
}

fn is_doubtful(node: &Node) -> bool {
    node.newest().is_some_and(|boot| boot.doubtful)
}

fn view(node: &Node) -> NodeView {
    let fit = node.newest().map(|boot| &boot.fit).filter(|fit| !fit.pairs().is_empty());
    NodeView {
        node: node.key.to_string(),
        heard_ns: node.news.heard_ns(),
        offline: node.news.is_offline(),
        clock_ahead_ns: node.ahead_ns,
        clock_drift_ppm: fit.map(|fit| fit.drift() * 1e6),
        clock_doubtful: is_doubtful(node),
    }
}
