//! Counters of this run, shared by all rooms: each room adds to its own, anyone reads.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only its room changes and anyone reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets it: for what is a level and not a count.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads it.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of a histogram's classes, µs.
pub const BOUNDS_US: [u64; 21] = [
    100, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000, 20_000, 30_000,
    50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
];

/// Durations, counted by classes: see [`BOUNDS_US`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// One class more than there are bounds.
    classes: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Enters a duration.
    pub fn enter(&self, duration_us: u64) {
        let class = BOUNDS_US.partition_point(|bound| *bound < duration_us);
        if let Some(class) = self.classes.get(class) {
            class.increment();
        }
        self.sum_us.add(duration_us);
    }

    /// Count of each class, those beyond the last bound at the end, and the sum of all durations, µs.
    #[must_use]
    pub fn read(&self) -> ([u64; BOUNDS_US.len() + 1], u64) {
        (self.classes.each_ref().map(Counter::get), self.sum_us.get())
    }
}

/// All counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Ways in.
    pub source: Source,
    /// Order, duplicates, clocks.
    pub session: Session,
    /// The durable log.
    pub journal: Journal,
    /// Signs of life.
    pub turns: Turns,
    /// HTTP requests answered.
    pub requests: Counter,
}

/// When a thread's loop came round last: monotonic ns.
#[derive(Debug, Default)]
pub struct Turns {
    /// Ingest: session and journal.
    pub ingest: Counter,
    /// Pipeline.
    pub pipeline: Counter,
}

/// Ways in.
#[derive(Debug, Default)]
pub struct Source {
    /// Connections made: to brokers, by clients of the listener, serial ports opened.
    pub connections: Counter,
    /// Connections lost or refused.
    pub disconnections: Counter,
    /// Clients turned away: too many, or wrong protocol.
    pub clients_refused: Counter,
    /// Messages received.
    pub messages: Counter,
    /// Bytes of their payloads.
    pub bytes: Counter,
    /// Acknowledgements dropped because their connection had ended.
    pub acks_stale: Counter,
    /// Messages to nodes dropped because the way to them was full.
    pub outgoing_dropped: Counter,
    /// Messages for a subscriber of the listener dropped because it read too slowly.
    pub subscriber_dropped: Counter,
    /// Connections of the listener ended for what the client sent: malformed, too large, against the protocol.
    pub packets_refused: Counter,
    /// Subscriptions of the listener's clients refused: too many.
    pub subscriptions_refused: Counter,
    /// Messages that the listener did not retain: too many.
    pub retained_dropped: Counter,
    /// Serial frames that were damaged.
    pub frames_damaged: Counter,
}

/// Order, duplicates, clocks.
#[derive(Debug, Default)]
pub struct Session {
    /// Samples per channel accepted.
    pub samples: Counter,
    /// Samples per channel that nodes kept back: thinned out, or stood for by features.
    pub withheld: Counter,
    /// Questions for the time answered.
    pub times_told: Counter,
    /// Blocks accepted.
    pub blocks: Counter,
    /// Messages that came again.
    pub duplicates: Counter,
    /// Messages refused: they are in the dead letters.
    pub dead_letters: Counter,
    /// Of them, those not kept, because their source had spent what it may fill with dead letters.
    pub dead_letters_dropped: Counter,
    /// Samples per channel lost before the gateway.
    pub lost: Counter,
    /// Samples per channel of refused messages, where they are known and came no other way.
    pub rejected: Counter,
    /// Messages that came after their place had been given up.
    pub late: Counter,
    /// Messages held for order now.
    pub held: Counter,
    /// Messages held for order that were let go, to be sent again by their node: waited too long, or too many.
    pub held_dropped: Counter,
    /// Nodes known now.
    pub nodes: Counter,
    /// Nodes forgotten because too many were known.
    pub nodes_forgotten: Counter,
    /// Messages of nodes and JSON sensors that were not known and for which there was no room: all places are of others that were
    /// heard of late.
    pub newcomers_refused: Counter,
    /// Boots seen for the first time.
    pub boots: Counter,
    /// Times that one node id was found to be used by two boards.
    pub twins: Counter,
    /// Blocks whose time is doubtful.
    pub clock_doubtful: Counter,
    /// (tick, UTC) pairs refused.
    pub pairs_refused: Counter,
    /// Messages from a serial node whose birth has not come yet: dropped, to be sent again.
    pub before_birth: Counter,
    /// Births that contradict their node's file in `hardware-configs`.
    pub births_contradicting: Counter,
}

/// The durable log.
#[derive(Debug, Default)]
pub struct Journal {
    /// Commits.
    pub commits: Counter,
    /// Commits that failed.
    pub failures: Counter,
    /// Records committed.
    pub records: Counter,
    /// Bytes of records committed.
    pub bytes: Counter,
    /// Offset after the last record.
    pub next_offset: Counter,
    /// Time of all commits, µs.
    pub commit_us: Counter,
    /// How long commits took, those that had to be tried again included.
    pub commit_time: Histogram,
    /// Why nothing can be committed now; none while it works.
    pub problem: Mutex<Option<String>>,
    /// Segments evicted.
    pub segments_evicted: Counter,
    /// Segments set aside as damaged.
    pub segments_damaged: Counter,
    /// Damaged places that readers met and skipped, once each.
    pub damages: Counter,
    /// Records in them: they are in no output and went to no destination, unless that was before the damage.
    pub records_damaged: Counter,
}
