//! One lane's books, without I/O: what is under way, what has arrived, what goes again.
//!
//! Constraints: at most [`IN_FLIGHT_MAX`] records and the lane's byte limit are under way at a time; each carries a serial
//! number (dense, never repeated) by which its delivery report finds it in constant time. After a failure nothing new is
//! sent until everything under way is decided; then the lane goes back to the first record that did not arrive and sends
//! from there, leaving out what did. So records of one key keep their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most records of a lane under way.
pub const IN_FLIGHT_MAX: usize = 65_536;

/// First wait after a failure that is not a record's own, in ns; doubles up to [`BACKOFF_MAX_NS`].
pub const BACKOFF_MIN_NS: u64 = 500_000_000;

/// Longest such wait, in ns.
pub const BACKOFF_MAX_NS: u64 = 30_000_000_000;

/// Whose fault a failed delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Passing: the same again later.
    Passing,
    /// The record itself: never arrives as it is.
    Record,
    /// The record's time, which lies too far off for the destination's taste: arrives with another.
    Time,
    /// Settings on either side: again, but slowly, and said clearly.
    Configuration,
}

/// What a lane wants to do with the record at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Send it.
    Send,
    /// Send it when nothing else is under way: it may have failed for a neighbour's fault.
    SendAlone,
    /// Its own time is refused: send it, when nothing else is under way, with the time of sending.
    SendRestamped,
    /// It cannot be delivered for this reason: send a dead letter in its place.
    DeadLetter(String),
    /// It has arrived already.
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    UnderWay,
    Delivered,
    Failed,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    offset: u64,
    bytes: u32,
    state: State,
}

/// A lane's books.
#[derive(Debug)]
pub struct Lane {
    bytes_max: u64,
    under_way: VecDeque<Sent>,
    serial_first: u64,
    bytes: u64,
    pending: usize,
    /// Where reading goes on: everything before is under way or settled.
    next: u64,
    /// Arrived out of turn before the lane went back.
    arrived: BTreeSet<u64>,
    /// Refused once; are sent alone.
    suspects: BTreeMap<u64, String>,
    /// Refused for their time alone.
    untimely: BTreeSet<u64>,
    /// Refused for good.
    condemned: BTreeMap<u64, String>,
    /// A suspect is under way.
    alone: bool,
    failed: bool,
    rewinds: u64,
    backoff_ns: u64,
    wait_until_ns: u64,
}

impl Lane {
    /// A lane that starts at `cursor` and keeps at most `bytes_max` bytes under way.
    #[must_use]
    pub fn new(cursor: u64, bytes_max: u64) -> Self {
        Self {
            bytes_max,
            under_way: VecDeque::new(),
            serial_first: 0,
            bytes: 0,
            pending: 0,
            next: cursor,
            arrived: BTreeSet::new(),
            suspects: BTreeMap::new(),
            untimely: BTreeSet::new(),
            condemned: BTreeMap::new(),
            alone: false,
            failed: false,
            rewinds: 0,
            backoff_ns: 0,
            wait_until_ns: 0,
        }
    }

    /// The first position that is not known to be delivered: what a restart begins with.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.under_way.front().map_or(self.next, |sent| sent.offset)
    }

    /// Where reading goes on.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How often it went back: when this changes, reading goes on at [`Self::next`].
    #[must_use]
    pub fn rewinds(&self) -> u64 {
        self.rewinds
    }

    /// The serial number that the next [`Self::sent`] gives.
    #[must_use]
    pub fn serial_next(&self) -> u64 {
        self.serial_first + self.under_way.len() as u64
    }

    /// Records under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Whether something new may be sent at `mono_ns`. When it may not, reports or time will change that.
    #[must_use]
    pub fn may_send(&self, mono_ns: u64) -> bool {
        !self.failed
            && !self.alone
            && mono_ns >= self.wait_until_ns
            && self.bytes < self.bytes_max
            && self.under_way.len() < IN_FLIGHT_MAX
    }

    /// What to do with the record at `offset`, which is at or after [`Self::next`].
    #[must_use]
    pub fn decide(&self, offset: u64) -> Decision {
        if self.arrived.is_empty()
            && self.suspects.is_empty()
            && self.untimely.is_empty()
            && self.condemned.is_empty()
        {
            return Decision::Send;
        }
        if self.arrived.contains(&offset) {
            Decision::Skip
        } else if let Some(reason) = self.condemned.get(&offset) {
            Decision::DeadLetter(reason.clone())
        } else if self.untimely.contains(&offset) {
            Decision::SendRestamped
        } else if self.suspects.contains_key(&offset) {
            Decision::SendAlone
        } else {
            Decision::Send
        }
    }

    /// Notes that the record at `offset` was handed over; its report must bring the returned serial number back.
    pub fn sent(&mut self, offset: u64, bytes: usize, decision: &Decision) -> u64 {
        let serial = self.serial_next();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.under_way.push_back(Sent { offset, bytes, state: State::UnderWay });
        self.bytes += u64::from(bytes);
        self.pending += 1;
        self.alone = matches!(decision, Decision::SendAlone | Decision::SendRestamped);
        self.next = offset + 1;
        serial
    }

    /// Notes that everything before `next` that was not sent needs no sending.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Condemns the record at `offset`, which was refused before it was under way.
    pub fn condemn(&mut self, offset: u64, reason: String) {
        self.condemned.insert(offset, reason);
    }

    /// A record has arrived; returns its payload's length. Unknown serial numbers are ignored.
    pub fn delivered(&mut self, serial: u64) -> Option<u64> {
        let sent = self.decide_report(serial, State::Delivered)?;
        self.backoff_ns = 0;
        self.suspects.remove(&sent.offset);
        self.untimely.remove(&sent.offset);
        self.condemned.remove(&sent.offset);
        self.settle();
        Some(u64::from(sent.bytes))
    }

    /// A record has not arrived.
    pub fn failed(&mut self, serial: u64, fault: Fault, reason: &str, mono_ns: u64) {
        let was_alone = self.alone;
        let Some(sent) = self.decide_report(serial, State::Failed) else { return };
        self.failed = true;
        match fault {
            Fault::Time if was_alone && !self.untimely.contains(&sent.offset) => {
                self.suspects.remove(&sent.offset);
                self.untimely.insert(sent.offset);
            }
            Fault::Record | Fault::Time if was_alone => {
                self.suspects.remove(&sent.offset);
                self.untimely.remove(&sent.offset);
                self.condemned.insert(sent.offset, reason.to_owned());
            }
            Fault::Record | Fault::Time => {
                self.suspects.insert(sent.offset, reason.to_owned());
            }
            Fault::Passing => self.back_off(mono_ns, 1),
            // Slower from the start: a human has to act first.
            Fault::Configuration => self.back_off(mono_ns, 4),
        }
        self.settle();
    }

    /// Everything under way is lost (the client was taken down): as if each had failed in passing.
    pub fn abandon(&mut self, mono_ns: u64) {
        if self.pending > 0 {
            for sent in &mut self.under_way {
                if sent.state == State::UnderWay {
                    sent.state = State::Failed;
                    self.bytes -= u64::from(sent.bytes);
                }
            }
            self.pending = 0;
            self.alone = false;
            self.failed = true;
        }
        self.back_off(mono_ns, 1);
        self.settle();
    }

    /// Sends nothing for a while: the client took nothing for a reason that a human has to remove.
    pub fn hold(&mut self, mono_ns: u64) {
        self.back_off(mono_ns, 4);
    }

    fn back_off(&mut self, mono_ns: u64, factor: u64) {
        // The many failures of one outage are one failure: only the first after the last wait counts.
        if mono_ns >= self.wait_until_ns {
            self.backoff_ns = (self.backoff_ns * 2).clamp(BACKOFF_MIN_NS * factor, BACKOFF_MAX_NS);
            self.wait_until_ns = mono_ns + self.backoff_ns;
        }
    }

    fn decide_report(&mut self, serial: u64, state: State) -> Option<Sent> {
        let index = usize::try_from(serial.checked_sub(self.serial_first)?).ok()?;
        let sent = self.under_way.get_mut(index).filter(|sent| sent.state == State::UnderWay)?;
        sent.state = state;
        self.bytes -= u64::from(sent.bytes);
        self.pending -= 1;
        self.alone = false;
        Some(*sent)
    }

    /// Drops the delivered prefix; after a failure, when all is decided, goes back.
    fn settle(&mut self) {
        while self.under_way.front().is_some_and(|sent| sent.state == State::Delivered) {
            self.under_way.pop_front();
            self.serial_first += 1;
        }
        if !self.failed || self.pending > 0 {
            return;
        }
        self.failed = false;
        let cursor = self.cursor();
        self.serial_first += self.under_way.len() as u64;
        let again = self.under_way.drain(..).filter(|sent| sent.state == State::Delivered);
        self.arrived.extend(again.map(|sent| sent.offset));
        self.next = cursor;
        self.rewinds += 1;
    }

    /// Forgets what lies before the cursor. Cheap; called now and then.
    pub fn tidy(&mut self) {
        let cursor = self.cursor();
        if self.arrived.first().is_some_and(|&offset| offset < cursor) {
            self.arrived = self.arrived.split_off(&cursor);
        }
        if self.condemned.first_key_value().is_some_and(|(&offset, _)| offset < cursor) {
            self.condemned = self.condemned.split_off(&cursor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn send(lane: &mut Lane, offset: u64) -> u64 {
        let decision = lane.decide(offset);
        lane.sent(offset, 10, &decision)
    }

    #[test]
    fn the_cursor_is_the_contiguous_delivered_prefix() {
        let mut lane = Lane::new(1, 1000);
        let serials: Vec<u64> = (1..=4).map(|offset| send(&mut lane, offset)).collect();
        lane.delivered(serials[1]);
        lane.delivered(serials[2]);
        assert_eq!(lane.cursor(), 1);
        lane.delivered(serials[0]);
        assert_eq!(lane.cursor(), 4);
        lane.delivered(serials[3]);
        assert_eq!(lane.cursor(), 5);
    }

    #[test]
    fn records_of_no_interest_move_the_cursor_only_when_nothing_before_them_is_under_way() {
        let mut lane = Lane::new(1, 1000);
        lane.skip_to(5);
        assert_eq!(lane.cursor(), 5);
        let serial = send(&mut lane, 7);
        lane.skip_to(20);
        assert_eq!(lane.cursor(), 7);
        lane.delivered(serial);
        assert_eq!(lane.cursor(), 20);
    }

    #[test]
    fn after_a_failure_it_goes_back_and_leaves_out_what_arrived() {
        let mut lane = Lane::new(1, 1000);
        let serials: Vec<u64> = (1..=4).map(|offset| send(&mut lane, offset)).collect();
        lane.delivered(serials[0]);
        lane.failed(serials[1], Fault::Passing, "gone", 0);
        assert!(!lane.may_send(u64::MAX), "two are still undecided");
        lane.delivered(serials[2]);
        lane.failed(serials[3], Fault::Passing, "gone", 0);
        assert_eq!((lane.cursor(), lane.next()), (2, 2));
        assert!(!lane.may_send(BACKOFF_MIN_NS - 1) && lane.may_send(BACKOFF_MIN_NS));
        assert_eq!(lane.decide(2), Decision::Send);
        assert_eq!(lane.decide(3), Decision::Skip);
        let again = send(&mut lane, 2);
        lane.skip_to(4);
        let last = send(&mut lane, 4);
        lane.delivered(last);
        lane.delivered(again);
        assert_eq!(lane.cursor(), 5);
    }

    #[test]
    fn a_record_refused_twice_is_condemned_and_the_next_goes_on() {
        let mut lane = Lane::new(1, 1000);
        let serial = send(&mut lane, 1);
        lane.failed(serial, Fault::Record, "too large", 0);
        assert_eq!(lane.decide(1), Decision::SendAlone);
        let serial = send(&mut lane, 1);
        assert!(!lane.may_send(0), "it is alone");
        lane.failed(serial, Fault::Record, "too large", 0);
        assert_eq!(lane.decide(1), Decision::DeadLetter("too large".into()));
        let letter = send(&mut lane, 1);
        let next = send(&mut lane, 2);
        lane.delivered(letter);
        lane.delivered(next);
        lane.tidy();
        assert_eq!(lane.cursor(), 3);
        assert_eq!(lane.decide(1), Decision::Send, "nothing is remembered of it");
    }

    #[test]
    fn the_limits_hold_records_back() {
        let mut lane = Lane::new(1, 25);
        for offset in 1..=3 {
            assert!(lane.may_send(0));
            send(&mut lane, offset);
        }
        assert!(!lane.may_send(0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever arrives, fails, is abandoned or restarted at a cursor saved some time ago, each record arrives at least
        /// once, and never is the cursor beyond one that has not arrived; without failures of its own an offset is sent in order.
        #[test]
        fn every_record_arrives_whatever_fails_and_whenever_it_restarts(
            script in prop::collection::vec((0u8..9, 0usize..8), 0..400)
        ) {
            let last = 30u64;
            let mut lane = Lane::new(1, 80);
            let mut saved = 1;
            let mut arrived = BTreeSet::new();
            let mut pending: Vec<(u64, u64)> = Vec::new();
            let mut mono = 0u64;
            let mut script = script.into_iter();
            for _ in 0..5_000 {
                let (what, which) = script.next().unwrap_or((0, 0));
                mono += BACKOFF_MAX_NS;
                while lane.may_send(mono) && lane.next() <= last {
                    let offset = lane.next();
                    let decision = lane.decide(offset);
                    match decision {
                        Decision::Skip => lane.skip_to(offset + 1),
                        Decision::SendAlone | Decision::SendRestamped if lane.pending() > 0 => break,
                        _ => { let serial = lane.sent(offset, 10, &decision); pending.push((serial, offset)); }
                    }
                }
                match what {
                    5 => { lane.abandon(mono); pending.clear(); }
                    6 => saved = lane.cursor(),
                    7 => { lane = Lane::new(saved, 80); pending.clear(); }
                    _ if !pending.is_empty() => {
                        let (serial, offset) = pending.remove(which % pending.len());
                        match what {
                            1 => lane.failed(serial, Fault::Passing, "x", mono),
                            2 => lane.failed(serial, Fault::Record, "x", mono),
                            3 => lane.failed(serial, Fault::Configuration, "x", mono),
                            8 => lane.failed(serial, Fault::Time, "x", mono),
                            _ => { arrived.insert(offset); lane.delivered(serial); }
                        }
                    }
                    _ => {}
                }
                lane.tidy();
                for offset in 1..lane.cursor() {
                    prop_assert!(arrived.contains(&offset), "cursor {} is beyond {offset}", lane.cursor());
                }
                if lane.cursor() > last { break; }
            }
            prop_assert_eq!(lane.cursor(), last + 1);
        }

        /// A destination that takes records in order, and after one that failed none that was under way behind it (as Kafka
        /// does with an idempotent producer), has them in order: what comes twice comes after its first time.
        #[test]
        fn order_is_kept_over_failures_and_restarts(script in prop::collection::vec((0u8..8, 0usize..8), 0..400)) {
            let last = 40u64;
            let mut lane = Lane::new(1, 80);
            let mut saved = 1;
            let mut log: Vec<u64> = Vec::new();
            let mut pending: VecDeque<(u64, u64)> = VecDeque::new();
            let mut mono = 0u64;
            let mut script = script.into_iter();
            for _ in 0..5_000 {
                let (what, how_many) = script.next().unwrap_or((0, 8));
                mono += BACKOFF_MAX_NS;
                while lane.may_send(mono) && lane.next() <= last {
                    let offset = lane.next();
                    let decision = lane.decide(offset);
                    if decision == Decision::Skip {
                        lane.skip_to(offset + 1);
                    } else {
                        pending.push_back((lane.sent(offset, 10, &decision), offset));
                    }
                }
                let arrive = pending.drain(..how_many.min(pending.len())).collect::<Vec<_>>();
                log.extend(arrive.iter().map(|(_, offset)| *offset));
                match what {
                    // A crash: what arrived was never reported.
                    1 => { lane = Lane::new(saved, 80); pending.clear(); continue; }
                    2 => saved = lane.cursor(),
                    _ => {}
                }
                for (serial, _) in arrive {
                    lane.delivered(serial);
                }
                if what == 3 {
                    for (serial, _) in pending.drain(..) {
                        lane.failed(serial, Fault::Passing, "x", mono);
                    }
                }
                if lane.cursor() > last { break; }
            }
            let mut seen = BTreeSet::new();
            let firsts: Vec<u64> = log.into_iter().filter(|offset| seen.insert(*offset)).collect();
            prop_assert_eq!(firsts, (1..=last).collect::<Vec<_>>());
        }
    }
}
