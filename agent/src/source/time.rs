//! Tells nodes the time: a question is answered by the source that reads it, at once, past the session, its commits and every
//! queue, for each moment between the two stamps makes the node's answer worse.

use super::{Outgoing, topic};
use crate::api::metrics::Metrics;
use crate::clock::Clock;
use crate::record::SensorKey;
use bytes::Bytes;
use spindle_common::wire::{self, Message};
use std::sync::Arc;
use std::time::Duration;

/// Where a message of version 2 has its kind, and that of a question.
const ASK_HEAD: [u8; 2] = [2, 13];
/// Room for an answer: its fields at their longest are 91 bytes.
const TELL_LEN_MAX: usize = 128;

/// Answers questions for the time.
#[derive(Debug, Clone)]
pub struct TimeTeller {
    clock: Clock,
    error_ns: u32,
    metrics: Arc<Metrics>,
}

impl TimeTeller {
    /// By `clock`, whose error is at most `error`.
    #[must_use]
    pub fn new(clock: Clock, error: Duration, metrics: Arc<Metrics>) -> Self {
        Self { clock, error_ns: u32::try_from(error.as_nanos()).unwrap_or(u32::MAX), metrics }
    }

    /// UTC now, ns: what sources stamp with when they have read.
    #[must_use]
    pub fn utc_ns(&self) -> i64 {
        self.clock.now().utc_ns
    }

    /// The answer to a message that came in at `received_ns` if it asks for the time: it need not go further then. One that is
    /// damaged, or came where its node does not publish, is left to the session, which says what is wrong.
    #[must_use]
    pub fn answer(&self, topic: Option<&[u8]>, payload: &[u8], received_ns: i64) -> Option<Outgoing> {
        if payload.get(..2)? != ASK_HEAD {
            return None;
        }
        let Ok(Message::TimeAsk(ask)) = wire::decode(payload) else { return None };
        let topic = match topic {
            None => String::new(),
            Some(name) => {
                let parsed = topic::parse(std::str::from_utf8(name).ok()?).ok()?;
                if !name.ends_with(b"/timeask") || *parsed.key.sensor != *ask.node {
                    return None;
                }
                topic::to_node(&SensorKey { sensor: ask.node.into(), ..(*parsed.key).clone() }, "cmd")
            }
        };
        let tell = wire::TimeTell {
            node: ask.node,
            boot: ask.boot,
            id: ask.id,
            tick: ask.tick,
            received_ns,
            // A clock that was set back meanwhile must not make an answer that is refused.
            sent_ns: self.utc_ns().max(received_ns),
            error_ns: self.error_ns,
        };
        let mut buffer = [0; TELL_LEN_MAX];
        let len = tell.encode(&mut buffer).ok()?;
        self.metrics.session.times_told.increment();
        Some(Outgoing { topic, payload: Bytes::copy_from_slice(buffer.get(..len)?), at_least_once: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_common::id::BootId;

    const START_NS: i64 = 1_800_000_000_000_000_000;

    fn teller() -> (TimeTeller, Clock) {
        let clock = Clock::manual(START_NS);
        (TimeTeller::new(clock.clone(), Duration::from_millis(1), Arc::default()), clock)
    }

    fn ask(node: &str) -> Vec<u8> {
        let ask = wire::TimeAsk { node, boot: BootId(u64::MAX), id: u32::MAX, tick: u64::MAX };
        let mut buffer = vec![0; 128];
        let len = ask.encode(&mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    }

    #[test]
    fn a_question_is_answered_with_its_own_numbers_and_both_stamps() {
        let (teller, clock) = teller();
        clock.advance(Duration::from_micros(70));
        let node = "a-node-with-a-name-of-32-letters";
        let topic = format!("spindle/v1/hall/mill/{node}/timeask");
        let answer = teller.answer(Some(topic.as_bytes()), &ask(node), START_NS).unwrap();
        assert_eq!(answer.topic, format!("spindle/v1/hall/mill/{node}/cmd"));
        assert!(!answer.at_least_once);
        let Ok(Message::TimeTell(tell)) = wire::decode(&answer.payload) else { panic!() };
        assert_eq!((tell.node, tell.boot, tell.id, tell.tick), (node, BootId(u64::MAX), u32::MAX, u64::MAX));
        assert_eq!((tell.received_ns, tell.sent_ns), (START_NS, START_NS + 70_000));
        assert_eq!(tell.error_ns, 1_000_000);
        assert_eq!(teller.metrics.session.times_told.get(), 1);
        // A serial line has no topics.
        assert_eq!(teller.answer(None, &ask(node), START_NS).unwrap().topic, "");
        // The clock was set back between the stamps.
        let answer = teller.answer(None, &ask(node), START_NS + 1_000_000).unwrap();
        assert!(wire::decode(&answer.payload).is_ok());
    }

    #[test]
    fn what_is_no_question_or_came_from_elsewhere_is_left_to_the_session() {
        let (teller, _) = teller();
        let right = ask("node");
        let mut damaged = right.clone();
        damaged[4] ^= 1;
        let ours = Some(&b"spindle/v1/hall/mill/node/timeask"[..]);
        assert!(teller.answer(ours, &right, 0).is_some());
        assert!(teller.answer(ours, &damaged, 0).is_none());
        assert!(teller.answer(ours, &right[..1], 0).is_none());
        for topic in ["spindle/v1/hall/mill/other/timeask", "spindle/v1/hall/mill/node/status", "else"] {
            assert!(teller.answer(Some(topic.as_bytes()), &right, 0).is_none(), "{topic}");
        }
    }
}
