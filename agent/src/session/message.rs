//! What a wire message says to the session: whose it is, and which place it has.

use crate::record::SensorKey;
use crate::source::topic::{self, Channel};
use crate::source::{Incoming, Token};
use bytes::Bytes;
use spindle_common::id::{BootId, Seq};
use spindle_common::wire::Message;
use std::sync::Arc;

/// A message that has a place in its node's sequence.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) seq: Seq,
    pub(super) what: What,
    pub(super) stream: u8,
    pub(super) key: Arc<SensorKey>,
    pub(super) first_sample: u64,
    /// Samples per channel.
    pub(super) samples: u64,
    pub(super) tick: u64,
    pub(super) tick_hz: u32,
    pub(super) rate_mhz: u32,
    pub(super) payload: Bytes,
    pub(super) token: Option<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Block,
    /// Counts as its samples: it stands in their place.
    Features,
    /// Samples around a trigger; may repeat what features stand for, so it counts for nothing.
    Burst,
}

/// Whether a message is what its topic says.
pub(super) fn fits(message: &Message<'_>, topic: &topic::Topic) -> Result<(), String> {
    let expected = match message {
        Message::Block(_) => Channel::Raw,
        Message::Features(_) => Channel::Features,
        Message::Burst(_) => Channel::Burst,
        _ => Channel::Node,
    };
    if expected != topic.channel {
        return Err(format!("a message of another kind came on the topic of {:?} messages", topic.channel));
    }
    match node_name(message) {
        Some(name) if expected == Channel::Node && *name != *topic.key.sensor => {
            Err(format!("message names node {name:?}, but its topic names {:?}", topic.key.sensor))
        }
        _ => Ok(()),
    }
}

/// The node that a message is from; `None` for what only gateways send.
pub(super) fn node_name<'a>(message: &Message<'a>) -> Option<&'a str> {
    Some(match message {
        Message::Block(block) => block.header.node,
        Message::Features(features) => features.node,
        Message::Burst(burst) => burst.block.header.node,
        Message::Birth(birth) => birth.node,
        Message::Status(status) => status.node,
        Message::TimePair(pair) => pair.node,
        Message::Answer(answer) => answer.node,
        Message::Offline(offline) => offline.node,
        Message::InForce(in_force) => in_force.node,
        Message::TimeAsk(ask) => ask.node,
        Message::Ack(_) | Message::Command(_) | Message::Set(_) | Message::TimeTell(_) => return None,
    })
}

/// Boot and stream of a message that has a place in the sequence.
pub(super) fn place(message: &Message<'_>) -> Option<(BootId, u8)> {
    match message {
        Message::Block(block) => Some((block.header.boot, block.header.stream.0)),
        Message::Burst(burst) => Some((burst.block.header.boot, burst.block.header.stream.0)),
        Message::Features(features) => Some((features.boot, features.stream.0)),
        _ => None,
    }
}

pub(super) fn item(message: &Message<'_>, key: Arc<SensorKey>, incoming: &Incoming) -> Option<Item> {
    let (header, what) = match message {
        Message::Block(block) => (&block.header, What::Block),
        Message::Burst(burst) => (&burst.block.header, What::Burst),
        Message::Features(features) => {
            return Some(Item {
                seq: features.seq,
                what: What::Features,
                stream: features.stream.0,
                key,
                first_sample: features.first_sample,
                samples: u64::from(features.samples),
                tick: features.tick,
                tick_hz: features.tick_hz,
                rate_mhz: features.rate_measured_mhz,
                payload: incoming.payload.clone(),
                token: incoming.token,
            });
        }
        _ => return None,
    };
    let measured = header.rate_measured_mhz;
    Some(Item {
        seq: Seq(header.seq.0),
        what,
        stream: header.stream.0,
        key,
        first_sample: header.first_sample,
        samples: u64::from(header.samples),
        tick: header.tick,
        tick_hz: header.tick_hz,
        rate_mhz: if measured == 0 { header.rate_nominal_mhz } else { measured },
        payload: incoming.payload.clone(),
        token: incoming.token,
    })
}
