//! UTC from the gateway: a pure state machine that asks, and takes the answers.
//!
//! It asks a few times in quick succession and keeps the answer that was under way for the shortest time: its error is bounded
//! by half of that. Between such rounds it waits for as long as the settings say.

use super::{Doubt, RoundTrip, TICK_HZ, UtcPair, UtcSource};
use spindle_common::id::BootId;
use spindle_common::wire::TimeTell;
use spindle_common::wire::messages::TimeSource;

/// Questions of a round.
const ASKS: u8 = 8;

/// Ticks between the questions of a round.
const ASK_EVERY: u64 = TICK_HZ as u64 / 10;

/// Ticks after a connection in which rounds come six times as often: the gateway's fit is new then.
const YOUNG: u64 = 60 * TICK_HZ as u64;

/// Ticks after which a question is given up.
const TIMEOUT: u64 = 2 * TICK_HZ as u64;

/// A question to be sent at once: its tick is the time of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The question's number.
    pub id: u32,
    /// When it was asked.
    pub tick: u64,
}

/// What became of questions and answers, since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions sent.
    pub asked: u32,
    /// Answers used.
    pub told: u32,
    /// Questions without an answer in two seconds.
    pub unanswered: u32,
    /// Answers to another question or boot.
    pub unmatched: u32,
    /// Answers that took too long.
    pub slow: u32,
    /// Answers that contradict the tick counter.
    pub inconsistent: u32,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Exchange {
    boot: BootId,
    every: u64,
    next_id: u32,
    /// The question that waits for its answer.
    open: Option<Ask>,
    asks_left: u8,
    /// Tick of the next question, or of the next round.
    due: u64,
    best: Option<(UtcPair, i64)>,
    fresh: Option<UtcPair>,
    /// Since when the link is up.
    connected: Option<u64>,
    counters: Counters,
}

impl Exchange {
    /// For this run of the node. Asks nothing until [`Exchange::connected`].
    #[must_use]
    pub const fn new(boot: BootId) -> Self {
        Self {
            boot,
            every: 30 * TICK_HZ as u64,
            next_id: 0,
            open: None,
            asks_left: 0,
            due: 0,
            best: None,
            fresh: None,
            connected: None,
            counters: Counters { asked: 0, told: 0, unanswered: 0, unmatched: 0, slow: 0, inconsistent: 0 },
        }
    }

    /// Counters since boot.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Seconds between rounds; the first minute after a connection they come six times as often.
    pub fn set_every(&mut self, seconds: u16) {
        self.every = u64::from(seconds.max(1)) * u64::from(TICK_HZ);
    }

    /// The link is up: asks at once.
    pub const fn connected(&mut self, now: u64) {
        self.connected = Some(now);
        self.start_round(now);
    }

    /// The link is gone: what was asked will not be answered.
    pub const fn disconnected(&mut self) {
        self.connected = None;
        self.open = None;
        self.asks_left = 0;
        self.best = None;
    }

    const fn start_round(&mut self, now: u64) {
        self.open = None;
        self.asks_left = ASKS;
        self.best = None;
        self.due = now;
    }

    /// A question, if one is due. Send it at once, with this tick.
    pub fn poll(&mut self, now: u64) -> Option<Ask> {
        self.connected?;
        if self.open.is_some_and(|open| now.saturating_sub(open.tick) >= TIMEOUT) {
            self.open = None;
            self.counters.unanswered = self.counters.unanswered.saturating_add(1);
            self.answered(now);
        }
        if self.open.is_some() || now < self.due {
            return None;
        }
        if self.asks_left == 0 {
            self.start_round(now);
        }
        self.asks_left -= 1;
        let ask = Ask { id: self.next_id, tick: now };
        self.next_id = self.next_id.wrapping_add(1);
        self.counters.asked = self.counters.asked.saturating_add(1);
        self.open = Some(ask);
        Some(ask)
    }

    /// Tick at which [`Exchange::poll`] wants to be asked again.
    #[must_use]
    pub const fn due(&self) -> u64 {
        match self.open {
            _ if self.connected.is_none() => u64::MAX,
            Some(open) => open.tick.saturating_add(TIMEOUT),
            None => self.due,
        }
    }

    /// An answer came in at tick `now`. Returns true when a round has ended with a new pair.
    pub fn told(&mut self, tell: &TimeTell<'_>, now: u64) -> bool {
        let matches = |open: &Ask| tell.boot == self.boot && tell.id == open.id && tell.tick == open.tick;
        let Some(open) = self.open.filter(matches) else {
            self.counters.unmatched = self.counters.unmatched.saturating_add(1);
            return false;
        };
        self.open = None;
        let trip = RoundTrip {
            asked: open.tick,
            received_ns: tell.received_ns,
            sent_ns: tell.sent_ns,
            answered: now,
        };
        match trip.pair(tell.error_ns, TimeSource::Gateway) {
            Ok((pair, way_ns)) => {
                self.counters.told = self.counters.told.saturating_add(1);
                if self.best.is_none_or(|(_, best_ns)| way_ns < best_ns) {
                    self.best = Some((pair, way_ns));
                }
            }
            Err(Doubt::Slow) => self.counters.slow = self.counters.slow.saturating_add(1),
            Err(Doubt::Inconsistent) => {
                self.counters.inconsistent = self.counters.inconsistent.saturating_add(1);
            }
        }
        self.answered(now)
    }

    /// A question is done with: the next one, or the end of the round.
    fn answered(&mut self, now: u64) -> bool {
        if self.asks_left > 0 {
            self.due = now + ASK_EVERY;
            return false;
        }
        let young = self.connected.is_some_and(|since| now.saturating_sub(since) < YOUNG);
        self.due = now + if young { self.every / 6 } else { self.every };
        let best = self.best.take();
        if let Some((pair, _)) = best {
            self.fresh = Some(pair);
        }
        best.is_some()
    }
}

impl UtcSource for Exchange {
    /// Each pair once: there is no newer one until the next round.
    fn pair(&mut self) -> Option<UtcPair> {
        self.fresh.take()
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId(9);
    const UTC: i64 = 1_800_000_000_000_000_000;

    fn tell(ask: Ask, way_there: u64, hold: u64) -> TimeTell<'static> {
        let at = |tick: u64| UTC + i64::try_from(tick).expect("small") * 1000;
        TimeTell {
            node: "node-1",
            boot: BOOT,
            id: ask.id,
            tick: ask.tick,
            received_ns: at(ask.tick + way_there),
            sent_ns: at(ask.tick + way_there + hold),
            error_ns: 500,
        }
    }

    #[test]
    fn of_a_round_the_answer_that_was_quickest_is_kept_with_half_its_way_as_its_bound() {
        let mut exchange = Exchange::new(BOOT);
        assert_eq!(exchange.poll(0), None, "nobody is there to ask");
        exchange.connected(1_000);
        let mut now = 1_000;
        for (index, (there, back)) in
            [(900, 100), (40, 60), (2_000, 50), (70, 40)].into_iter().cycle().take(8).enumerate()
        {
            let ask = exchange.poll(now).expect("due");
            assert_eq!(exchange.poll(now + 10), None, "one question at a time");
            let done = exchange.told(&tell(ask, there, 5_000), now + there + 5_000 + back);
            assert_eq!(done, index == 7);
            now = exchange.due();
        }
        let pair = exchange.pair().expect("a round has ended");
        // 100 µs under way, off by the asymmetry of 10 µs; bound 50 µs, the gateway's 500 ns and two ticks of 1 µs.
        assert_eq!((pair.source, pair.error_ns), (TimeSource::Gateway, 52_500));
        let off = pair.utc_ns - (UTC + i64::try_from(pair.tick).expect("small") * 1000);
        assert!(off.abs() <= 10_500, "{off}");
        assert_eq!(exchange.pair(), None, "each pair is told once");
        assert!((5_000_000..7_000_000).contains(&now), "the first minute's rounds come six times as often");
    }

    #[test]
    fn answers_that_are_slow_contradictory_or_not_to_the_question_are_counted_and_not_used() {
        let mut exchange = Exchange::new(BOOT);
        exchange.connected(0);
        let ask = exchange.poll(0).expect("due");
        assert!(!exchange.told(&TimeTell { id: 7, ..tell(ask, 1, 1) }, 2));
        assert!(!exchange.told(&TimeTell { boot: BootId(1), ..tell(ask, 1, 1) }, 2));
        assert!(!exchange.told(&tell(ask, 1, 50), 20), "held for longer than it took");
        let ask = exchange.poll(exchange.due()).expect("due");
        assert!(!exchange.told(&tell(ask, 1, 50), ask.tick + 2_500_000));
        let ask = exchange.poll(exchange.due()).expect("due");
        assert_eq!(exchange.poll(ask.tick + 1_999_999), None);
        assert_eq!(exchange.poll(ask.tick + 2_000_000), None, "the next question waits its time");
        let ask = exchange.poll(exchange.due()).expect("due");
        assert!(!exchange.told(&tell(ask, 1, 50), ask.tick), "before it was asked for long enough");
        assert_eq!(exchange.pair(), None);
        let counters = exchange.counters();
        assert_eq!((counters.asked, counters.told, counters.unanswered), (4, 0, 1));
        assert_eq!((counters.unmatched, counters.slow, counters.inconsistent), (2, 1, 2));
    }

    #[test]
    fn a_lost_link_ends_the_round_and_an_answer_to_it_is_not_taken() {
        let mut exchange = Exchange::new(BOOT);
        exchange.connected(0);
        let ask = exchange.poll(0).expect("due");
        exchange.disconnected();
        assert_eq!(exchange.due(), u64::MAX);
        assert!(!exchange.told(&tell(ask, 1, 1), 3));
        exchange.connected(500);
        assert!(exchange.poll(500).is_some());
    }
}
