//! What boards send: to its node, made if it is new.

use super::message::{fits, item, node_name, place};
use super::node::Node;
use super::{Context, NODE_SILENCE_MIN, Route, Session, Work, context};
use crate::clock::Now;
use crate::hardware;
use crate::journal::Key;
use crate::record::{RecordKind, SensorKey};
use crate::source::{Incoming, SourceId, topic};
use spindle_common::wire::{self, Message};
use std::sync::Arc;

impl Session {
    pub(super) fn take_wire(
        &mut self,
        incoming: Incoming,
        topic: Option<topic::Topic>,
        known: Option<(Arc<str>, usize)>,
        now: Now,
        work: &mut Work,
    ) {
        let payload = incoming.payload.clone();
        let message = match wire::decode(&payload) {
            Ok(message) => message,
            Err(error) => {
                let key = topic.map_or_else(|| self.unknown.clone(), |topic| topic.key);
                return self.refuse(&incoming, key, &error.to_string(), now, work);
            }
        };
        if let Some(topic) = &topic
            && let Err(reason) = fits(&message, topic)
        {
            return self.refuse(&incoming, topic.key.clone(), &reason, now, work);
        }
        let Some(name) = node_name(&message) else {
            let key = topic.map_or_else(|| self.unknown.clone(), |topic| topic.key);
            return self.refuse(&incoming, key, "only the gateway sends acks and commands", now, work);
        };
        let index = match known {
            Some((known, index)) if *known == *name && self.nodes.get(index).is_some_and(Option::is_some) => {
                index
            }
            _ => match self.find_node(&incoming, topic.as_ref(), name, &message, now, work) {
                Some(index) => index,
                None => return,
            },
        };
        self.deliver(index, incoming, topic, &message, now, work);
    }

    /// The message's node, made if it is new; `None` when it cannot be known yet.
    fn find_node(
        &mut self,
        incoming: &Incoming,
        topic: Option<&topic::Topic>,
        name: &str,
        message: &Message<'_>,
        now: Now,
        work: &mut Work,
    ) -> Option<usize> {
        if let Some(topic) = topic {
            let key = SensorKey { sensor: name.into(), ..(*topic.key).clone() };
            let index = self.node_or_refuse(incoming, Arc::new(key), now, work)?;
            if let Some(topic_name) = &incoming.topic
                && let Some(Route::Board { node, .. }) = self.routes.get_mut(topic_name)
            {
                *node = Some((name.into(), index));
            }
            return Some(index);
        }
        let line = (incoming.source, name.to_owned());
        if let Message::Birth(birth) = message {
            let Ok(key) = topic::key(birth.site, birth.machine, name) else {
                self.refuse(
                    incoming,
                    self.unknown.clone(),
                    "site or machine of the birth is no name",
                    now,
                    work,
                );
                return None;
            };
            let index = self.node_or_refuse(incoming, Arc::new(key), now, work)?;
            if self.serial.len() >= self.config.nodes_max {
                self.serial.clear();
            }
            self.serial.insert(line, index);
            return Some(index);
        }
        let known = self.serial.get(&line).copied();
        let known = known.filter(|index| self.nodes.get(*index).is_some_and(Option::is_some));
        if known.is_none() {
            // It keeps what is not acknowledged, and sends it again after its birth.
            self.metrics.session.before_birth.increment();
            work.release.extend(incoming.token);
            self.ask(incoming.source, name, now);
        }
        known
    }

    /// Index of the message's node; without room for a new one its message is refused, and its node keeps what it has.
    fn node_or_refuse(
        &mut self,
        incoming: &Incoming,
        key: Arc<SensorKey>,
        now: Now,
        work: &mut Work,
    ) -> Option<usize> {
        let index = self.node(key.clone(), incoming.source, now, work);
        if index.is_none() {
            self.metrics.session.newcomers_refused.increment();
            let reason = "there is no room for a further node: session.nodes_max were heard of late";
            self.refuse(incoming, key, reason, now, work);
        }
        index
    }

    /// Index of a node by its key, made if it is new; one that was silent for long makes room.
    fn node(&mut self, key: Arc<SensorKey>, origin: SourceId, now: Now, work: &mut Work) -> Option<usize> {
        if let Some(index) = self.by_key.get(&key) {
            return Some(*index);
        }
        let index = if self.by_key.len() >= self.config.nodes_max.max(1) {
            Some(self.forget_longest_silent(now, work)?)
        } else {
            None
        };
        let mut node = Node::new(key.clone(), origin);
        node.seen_ns = now.mono_ns;
        self.forgotten.retain(|forgotten| forgotten.0 != key);
        let index = match index {
            Some(index) => index,
            None => {
                self.nodes.push(None);
                self.nodes.len() - 1
            }
        };
        if let Some(place) = self.nodes.get_mut(index) {
            *place = Some(node);
        }
        self.by_key.insert(key, index);
        self.metrics.session.nodes.set(self.by_key.len() as u64);
        Some(index)
    }

    fn forget_longest_silent(&mut self, now: Now, work: &mut Work) -> Option<usize> {
        if now.mono_ns < self.no_room_until_ns {
            return None;
        }
        let seen =
            self.nodes.iter().enumerate().filter_map(|(index, node)| Some((node.as_ref()?.seen_ns, index)));
        let (seen_ns, index) = seen.min()?;
        let silence_ns = u64::try_from(NODE_SILENCE_MIN.as_nanos()).unwrap_or(u64::MAX);
        if now.mono_ns.saturating_sub(seen_ns) < silence_ns {
            // Whoever is heard meanwhile only makes it later: so a flood of new names costs no search each.
            self.no_room_until_ns = seen_ns.saturating_add(silence_ns);
            return None;
        }
        let (mut ctx, nodes) = context!(self, SourceId(u16::MAX), now, work);
        let mut node = nodes.get_mut(index)?.take()?;
        node.forget(&mut ctx);
        self.metrics.session.nodes_forgotten.increment();
        tracing::debug!(node = %node.key, "forgotten: too many nodes");
        self.by_key.remove(&node.key);
        for set in [&mut self.holding, &mut self.touched, &mut self.changed_nodes] {
            set.remove(&index);
        }
        self.serial.retain(|_, known| *known != index);
        // Routes may point at the place that another node takes now.
        self.routes.clear();
        self.forgotten.push(Key(node.key));
        Some(index)
    }

    /// Hands a message to its node.
    fn deliver(
        &mut self,
        index: usize,
        incoming: Incoming,
        topic: Option<topic::Topic>,
        message: &Message<'_>,
        now: Now,
        work: &mut Work,
    ) {
        let (mut ctx, nodes) = context!(self, incoming.source, now, work);
        let Some(node) = nodes.get_mut(index).and_then(Option::as_mut) else { return };
        node.origin = incoming.source;
        node.seen_ns = now.mono_ns;
        node.news.take(message, &incoming.payload, now.utc_ns);
        self.touched.insert(index);
        self.changed_nodes.insert(index);
        if let Some((boot, stream)) = place(message) {
            let key = match topic {
                Some(topic) => Some(topic.key),
                None => node.stream_key(boot, stream),
            };
            let Some(key) = key else {
                ctx.metrics.before_birth.increment();
                ctx.release(incoming.token);
                let name = node.key.sensor.clone();
                self.ask(incoming.source, &name, now);
                return;
            };
            if let Some(item) = item(message, key, &incoming) {
                node.take(boot, item, &mut ctx);
            }
            self.note_waiting(index);
            return;
        }
        ctx.release(incoming.token);
        let mut time_ns = now.utc_ns;
        match message {
            Message::Birth(birth) => {
                node.birth(birth, &mut ctx);
                // Its own checksum: a CRC over a message and its CRC is the same number for every message.
                let digest = incoming.payload.last_chunk().copied().map_or(0, u32::from_le_bytes);
                if node.birth.replace(digest) == Some(digest) {
                    return self.note_waiting(index);
                }
                if let Some(catalog) = &self.hardware {
                    node.contradiction = hardware::compare(catalog, birth, node.contradiction, ctx.metrics);
                }
            }
            Message::Status(status) => {
                node.status(status, &mut ctx);
                time_ns = node.utc_ns(status.boot, status.tick).unwrap_or(time_ns);
            }
            Message::TimePair(pair) => {
                node.time(pair, &mut ctx);
                time_ns = node.utc_ns(pair.boot, pair.tick).unwrap_or(time_ns);
            }
            _ => {}
        }
        let key = node.key.clone();
        ctx.push(RecordKind::Node, key, time_ns, 0, 0, incoming.payload);
        self.note_waiting(index);
    }

    /// A node may wait for something since it was heard, or no longer.
    fn note_waiting(&mut self, index: usize) {
        let waits = self.nodes.get(index).and_then(Option::as_ref).is_some_and(Node::is_waiting);
        let changed = if waits { self.holding.insert(index) } else { self.holding.remove(&index) };
        if waits || changed {
            self.count_held();
        }
    }
}
