//! What to send when: a pure state machine. Events and a time go in, actions come out; [`session`] does the sending.
//!
//! Rules: blocks go out in order, at most `window` ahead of the gateway's cumulative acknowledgement; only that
//! acknowledgement frees a block (a broker's does not); after a reconnect, or when the acknowledgement stands still for too
//! long, sending starts again behind the last one. When the full ring dropped what was not acknowledged, a status with the
//! oldest block still held goes out before the next block, so that the gateway can call the gap a gap.

pub mod session;

use crate::node::Held;
use spindle_common::id::{BootId, Seq};

/// Times in ms, counts in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Blocks sent ahead of the gateway's acknowledgement.
    pub window: u32,
    /// Without progress of the acknowledgement for so long, send again; doubles each time up to `ack_timeout_max_ms`.
    pub ack_timeout_ms: u64,
    /// Longest such wait.
    pub ack_timeout_max_ms: u64,
    /// First wait before connecting again; doubles each time up to `backoff_max_ms`, jittered by half.
    pub backoff_ms: u64,
    /// Longest wait before connecting again.
    pub backoff_max_ms: u64,
    /// How often a status is sent.
    pub status_every_ms: u64,
    /// How often a (tick, UTC) pair is sent; the first minute of a connection six times as often.
    pub time_every_ms: u64,
    /// Least time between two statuses that are due only because the ring dropped, while nothing can be sent.
    pub drop_status_every_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 64,
            ack_timeout_ms: 3_000,
            ack_timeout_max_ms: 60_000,
            backoff_ms: 250,
            backoff_max_ms: 30_000,
            status_every_ms: 10_000,
            time_every_ms: 30_000,
            drop_status_every_ms: 200,
        }
    }
}

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect; then tell [`Uplink::connected`] or [`Uplink::disconnected`].
    Connect,
    /// Send this message; when that fails tell [`Uplink::disconnected`].
    Send(Item),
    /// Nothing to do until this time (ms) or the next event.
    Wait {
        /// When to ask again.
        until_ms: u64,
    },
}

/// What can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// Who the node is.
    Birth,
    /// Counters, with the oldest block held.
    Status,
    /// A (tick, UTC) pair, if one is known.
    Time,
    /// The settings in force.
    Settings,
    /// The block, features or burst with this number.
    Block(Seq),
}

/// Counters since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks sent, again or for the first time.
    pub sent: u64,
    /// Blocks sent again.
    pub resent: u32,
    /// Connections made.
    pub connects: u32,
    /// Acknowledgements received for this boot.
    pub acks: u64,
    /// Acknowledgements ignored: another boot, or beyond what was ever sent.
    pub acks_ignored: u64,
    /// Times that sending started again because the acknowledgement stood still.
    pub timeouts: u32,
}

impl Counters {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { sent: 0, resent: 0, connects: 0, acks: 0, acks_ignored: 0, timeouts: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down { retry_at_ms: u64 },
    Connecting,
    Up { since_ms: u64 },
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Uplink {
    config: Config,
    boot: BootId,
    link: Link,
    /// First block that the gateway has not made durable, by its own word.
    acked: Seq,
    /// Next block to send.
    cursor: Seq,
    /// Behind the newest block ever sent.
    sent: Seq,
    /// When the acknowledgement last moved, or sending began.
    progress_at_ms: u64,
    ack_timeout_ms: u64,
    backoff_ms: u64,
    birth_due: bool,
    settings_due: bool,
    status_at_ms: u64,
    time_at_ms: u64,
    /// `oldest` as the last status told it, and when.
    told_oldest: Seq,
    told_at_ms: u64,
    random: u32,
    counters: Counters,
}

impl Uplink {
    /// An uplink of a node that has just booted; connects at once.
    #[must_use]
    pub const fn new(config: Config, boot: BootId) -> Self {
        Self {
            config,
            boot,
            link: Link::Down { retry_at_ms: 0 },
            acked: Seq(0),
            cursor: Seq(0),
            sent: Seq(0),
            progress_at_ms: 0,
            ack_timeout_ms: config.ack_timeout_ms,
            backoff_ms: config.backoff_ms,
            birth_due: false,
            settings_due: false,
            status_at_ms: 0,
            time_at_ms: 0,
            told_oldest: Seq(0),
            told_at_ms: 0,
            random: (boot.0 ^ boot.0 >> 32) as u32 | 1,
            counters: Counters::new(),
        }
    }

    /// The same, its first block having this number: to begin near the wrap, which takes years to reach.
    #[must_use]
    pub const fn numbered_from(mut self, first: Seq) -> Self {
        (self.acked, self.cursor, self.sent, self.told_oldest) = (first, first, first, first);
        self
    }

    /// Counters since boot.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// First block that the gateway has not acknowledged.
    #[must_use]
    pub const fn acked(&self) -> Seq {
        self.acked
    }

    /// Whether the link is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// The connection is made: introduce the node, then go on behind the last acknowledgement.
    pub fn connected(&mut self, now_ms: u64) {
        self.link = Link::Up { since_ms: now_ms };
        self.counters.connects = self.counters.connects.saturating_add(1);
        self.cursor = self.acked;
        self.progress_at_ms = now_ms;
        self.ack_timeout_ms = self.config.ack_timeout_ms;
        self.report(now_ms);
    }

    /// The connection is gone, or was not made.
    pub fn disconnected(&mut self, now_ms: u64) {
        let jitter = self.backoff_ms * u64::from(self.draw() % 512) / 1024;
        self.link = Link::Down { retry_at_ms: now_ms + self.backoff_ms / 2 + jitter };
        self.backoff_ms = (self.backoff_ms * 2).min(self.config.backoff_max_ms);
    }

    /// Birth, settings, status and time are wanted now.
    pub const fn report(&mut self, now_ms: u64) {
        (self.birth_due, self.settings_due) = (true, true);
        (self.status_at_ms, self.time_at_ms) = (now_ms, now_ms);
    }

    /// A status is wanted now.
    pub const fn report_status(&mut self, now_ms: u64) {
        self.status_at_ms = now_ms;
    }

    /// There is a new (tick, UTC) pair.
    pub const fn report_time(&mut self, now_ms: u64) {
        self.time_at_ms = now_ms;
    }

    /// Other intervals of statuses and (tick, UTC) pairs, from now on.
    pub fn set_intervals(&mut self, status_every_ms: u64, time_every_ms: u64, now_ms: u64) {
        if (self.config.status_every_ms, self.config.time_every_ms) == (status_every_ms, time_every_ms) {
            return;
        }
        (self.config.status_every_ms, self.config.time_every_ms) = (status_every_ms, time_every_ms);
        self.status_at_ms = self.status_at_ms.min(now_ms + status_every_ms);
        self.time_at_ms = self.time_at_ms.min(now_ms + time_every_ms);
    }

    /// The gateway has acknowledged everything before `next`. Returns the number before which the ring may free.
    pub fn acknowledged(&mut self, boot: BootId, next: Seq, held: Held, now_ms: u64) -> Option<Seq> {
        let known = held.next.since(self.acked);
        let moved = next.since(self.acked);
        if boot != self.boot || (moved > known && !next.precedes(self.acked)) {
            self.counters.acks_ignored += 1;
            return None;
        }
        self.counters.acks += 1;
        self.backoff_ms = self.config.backoff_ms;
        if next == self.acked || next.precedes(self.acked) {
            return None;
        }
        self.acked = next;
        if self.cursor.precedes(next) {
            self.cursor = next;
        }
        self.progress_at_ms = now_ms;
        self.ack_timeout_ms = self.config.ack_timeout_ms;
        Some(next)
    }

    /// The next thing to do.
    pub fn next(&mut self, held: Held, now_ms: u64) -> Action {
        let since_ms = match self.link {
            Link::Down { retry_at_ms } if now_ms < retry_at_ms => {
                return Action::Wait { until_ms: retry_at_ms };
            }
            Link::Down { .. } => {
                self.link = Link::Connecting;
                return Action::Connect;
            }
            Link::Connecting => return Action::Wait { until_ms: u64::MAX },
            Link::Up { since_ms } => since_ms,
        };
        if core::mem::take(&mut self.birth_due) {
            return Action::Send(Item::Birth);
        }
        if core::mem::take(&mut self.settings_due) {
            return Action::Send(Item::Settings);
        }
        if now_ms >= self.status_at_ms {
            return self.send_status(held, now_ms);
        }
        if now_ms >= self.time_at_ms {
            let young = now_ms.saturating_sub(since_ms) < 60_000;
            self.time_at_ms =
                now_ms + if young { self.config.time_every_ms / 6 } else { self.config.time_every_ms };
            return Action::Send(Item::Time);
        }
        if self.cursor.precedes(held.oldest) {
            self.cursor = held.oldest;
        }
        if self.in_flight() > 0 && now_ms >= self.progress_at_ms.saturating_add(self.ack_timeout_ms) {
            self.start_again(held, now_ms);
        }
        let may_send = self.cursor != held.next && self.in_flight() < self.config.window;
        let untold = self.acked.precedes(held.oldest) && self.told_oldest != held.oldest;
        let status_allowed_at = self.told_at_ms.saturating_add(self.config.drop_status_every_ms);
        if untold && (may_send || now_ms >= status_allowed_at) {
            return self.send_status(held, now_ms);
        }
        if may_send {
            return self.send_block(now_ms);
        }
        let mut until_ms = self.status_at_ms.min(self.time_at_ms);
        if self.in_flight() > 0 {
            until_ms = until_ms.min(self.progress_at_ms.saturating_add(self.ack_timeout_ms));
        }
        if untold {
            until_ms = until_ms.min(status_allowed_at);
        }
        Action::Wait { until_ms }
    }

    /// Blocks between the acknowledgement and the next to send, dropped ones included.
    fn in_flight(&self) -> u32 {
        self.cursor.since(self.acked)
    }

    fn send_status(&mut self, held: Held, now_ms: u64) -> Action {
        self.status_at_ms = now_ms + self.config.status_every_ms;
        (self.told_oldest, self.told_at_ms) = (held.oldest, now_ms);
        Action::Send(Item::Status)
    }

    fn send_block(&mut self, now_ms: u64) -> Action {
        let seq = self.cursor;
        if self.in_flight() == 0 {
            self.progress_at_ms = now_ms;
        }
        self.counters.sent += 1;
        if seq.precedes(self.sent) {
            self.counters.resent = self.counters.resent.saturating_add(1);
        } else {
            self.sent = seq.next();
        }
        self.cursor = seq.next();
        Action::Send(Item::Block(seq))
    }

    fn start_again(&mut self, held: Held, now_ms: u64) {
        self.counters.timeouts = self.counters.timeouts.saturating_add(1);
        self.cursor = if self.acked.precedes(held.oldest) { held.oldest } else { self.acked };
        // Whatever the gateway missed, it must learn first what will never come.
        self.told_oldest = self.acked;
        self.progress_at_ms = now_ms;
        self.ack_timeout_ms = (self.ack_timeout_ms * 2).min(self.config.ack_timeout_max_ms);
    }

    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }
}
