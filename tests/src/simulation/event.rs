//! What happens in virtual time, in order.

use super::broker;
use spindle_common::id::BootId;
use std::cmp::Ordering;

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    Wake {
        board: usize,
        turn: u64,
    },
    Connected {
        board: usize,
        link: u64,
    },
    ConnectFailed {
        board: usize,
        link: u64,
    },
    LinkLost {
        board: usize,
        link: u64,
    },
    Seal {
        board: usize,
        boot: BootId,
        stream: u8,
    },
    /// A board's message arrives at the broker, or at the gateway's end of the line.
    Up {
        board: usize,
        link: u64,
        topic: String,
        payload: Vec<u8>,
    },
    Down {
        board: usize,
        link: u64,
        payload: Vec<u8>,
    },
    /// A message of the broker arrives at the gateway.
    Taken {
        connection: u64,
        packet: u64,
        message: broker::Message,
    },
    /// The gateway's acknowledgement arrives at the broker.
    Released {
        connection: u64,
        packets: Vec<u16>,
    },
    GatewayWake {
        run: u64,
        turn: u64,
    },
    CommitEnd {
        run: u64,
    },
    GatewayStart,
    GatewayConnect {
        run: u64,
    },
    BrokerStart,
    BoardStart {
        board: usize,
    },
    Fault,
    Command,
}

/// An event and its time; of two at once the one that was planned first comes first.
pub(super) struct Timed {
    pub(super) at: u64,
    pub(super) order: u64,
    pub(super) event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        // The earliest is the greatest: the heap gives the greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
