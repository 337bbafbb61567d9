//! What a seed decides beforehand: who takes part, over what ways, in what weather.

use super::random::Random;

/// ns of a millisecond and of a second.
pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// How boards reach the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// MQTT through a broker.
    Broker,
    /// A line of its own into the gateway: no topics, no acknowledgements of the transport.
    Line,
}

/// A seed's plan.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) way: Way,
    /// Node of each board: two boards with the same one are twins.
    pub(super) boards: Vec<usize>,
    pub(super) twins: bool,
    pub(super) streams: u64,
    pub(super) ring_len: usize,
    pub(super) window: u32,
    /// First sequence number of boots that begin with the gateway knowing them.
    pub(super) first_seq: u32,
    /// Least and most delay of a message.
    pub(super) delay: (u64, u64),
    /// Messages may overtake each other.
    pub(super) reorders: bool,
    /// Per mille.
    pub(super) loss: u64,
    pub(super) repeats: u64,
    /// Time that a board's link takes for a message.
    pub(super) send_ns: u64,
    /// Blocks that a stream seals in a second.
    pub(super) blocks_per_s: u64,
    /// When sampling ends, and with it all faults.
    pub(super) calm_at: u64,
    /// Mean time between two faults; 0: none.
    pub(super) fault_every: u64,
    /// Messages that the broker keeps for a client that is away, or in flight to it.
    pub(super) queue_max: usize,
    pub(super) inflight_max: usize,
    /// Least and most time of a commit.
    pub(super) commit: (u64, u64),
    /// Per mille of commits that fail.
    pub(super) commit_fails: u64,
    /// Clocks jump, of the gateway and of nodes.
    pub(super) clocks_jump: bool,
    /// Nodes ask the gateway for the time (else they have their own).
    pub(super) time_from_gateway: bool,
    pub(super) reorder_blocks_max: usize,
    pub(super) reorder_wait_ms: u64,
}

impl Scenario {
    pub(super) fn draw(random: &mut Random) -> Self {
        let way = if random.chance(650) { Way::Broker } else { Way::Line };
        let twins = random.chance(150);
        let mut boards: Vec<usize> = (0..random.between(1, 3) as usize).collect();
        if twins {
            boards.push(0);
        }
        let least = random.scaled(10_000, 20 * MS);
        let rough = random.chance(500);
        Self {
            way,
            boards,
            twins,
            streams: random.between(1, 3),
            ring_len: random.scaled(1_500, 60_000) as usize,
            window: random.scaled(1, 64) as u32,
            first_seq: if random.chance(200) { u32::MAX - random.between(0, 60) as u32 } else { 0 },
            delay: (least, least + random.scaled(10_000, 300 * MS)),
            reorders: random.chance(300),
            loss: if rough { random.scaled(1, 200) } else { 0 },
            repeats: if rough { random.scaled(1, 200) } else { 0 },
            send_ns: random.scaled(20_000, 30 * MS),
            blocks_per_s: random.scaled(1, 12),
            calm_at: random.between(5, 40) * SECOND,
            fault_every: if random.chance(900) { random.scaled(500 * MS, 10 * SECOND) } else { 0 },
            queue_max: random.scaled(10, 1000) as usize,
            inflight_max: random.scaled(10, 100) as usize,
            commit: {
                let least = random.scaled(50_000, 5 * MS);
                (least, least + random.scaled(100_000, 500 * MS))
            },
            commit_fails: if random.chance(300) { random.between(1, 300) } else { 0 },
            clocks_jump: random.chance(250),
            time_from_gateway: random.chance(600),
            reorder_blocks_max: random.scaled(2, 64) as usize,
            reorder_wait_ms: random.between(200, 2_000),
        }
    }
}
