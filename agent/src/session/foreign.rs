//! What sensors of other makers send as JSON: numbered here, for they number nothing themselves.

use super::books::Slot;
use super::{Context, Session, Work, context};
use crate::clock::Now;
use crate::journal::{JsonState, Key};
use crate::record::{RecordKind, SensorKey, record_flags};
use crate::source::Incoming;
use std::collections::VecDeque;
use std::sync::Arc;

/// Messages of a JSON sensor that are remembered to know one that comes again.
const RECENT_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct JsonSensor {
    pub(super) key: Arc<SensorKey>,
    pub(super) slot: Slot,
    pub(super) next_sample: u64,
    pub(super) recent: VecDeque<u64>,
}

impl Session {
    /// Index of a sensor, made if it is new and there is room.
    fn json_sensor(&mut self, key: &Arc<SensorKey>) -> Option<usize> {
        if let Some(index) = self.json_by_key.get(key) {
            return Some(*index);
        }
        if self.json.len() >= self.config.nodes_max {
            return None;
        }
        let (key, slot) = (key.clone(), self.books.slot(key));
        self.json_by_key.insert(key.clone(), self.json.len());
        self.json.push(JsonSensor { key, slot, next_sample: 0, recent: VecDeque::new() });
        Some(self.json.len() - 1)
    }

    pub(super) fn take_json(
        &mut self,
        incoming: &Incoming,
        mapping: usize,
        key: &Arc<SensorKey>,
        now: Now,
        work: &mut Work,
    ) {
        let Some(mapping) = self.mappings.get(mapping) else { return };
        let decoded = match mapping.decode(&incoming.payload) {
            Ok(decoded) => decoded,
            Err(reason) => {
                // Garbage makes no sensor.
                if let Some(known) = self.json_by_key.get(key).and_then(|index| self.json.get(*index)) {
                    self.books.change(known.slot, |book| {
                        book.rejected_messages = book.rejected_messages.saturating_add(1);
                    });
                }
                return self.refuse(incoming, key.clone(), &reason, now, work);
            }
        };
        let Some(sensor) = self.json_sensor(key) else {
            self.metrics.session.newcomers_refused.increment();
            let reason = "there is no room for a further JSON sensor: session.nodes_max are known";
            return self.refuse(incoming, key.clone(), reason, now, work);
        };
        let (mut ctx, _) = context!(self, incoming.source, now, work);
        let Some(sensor_state) = self.json.get_mut(sensor) else { return };
        ctx.release(incoming.token);
        let samples = decoded.samples as u64;
        let digest = digest(&incoming.payload);
        if incoming.redelivered && sensor_state.recent.contains(&digest) {
            ctx.metrics.duplicates.increment();
            ctx.books
                .change(sensor_state.slot, |book| book.duplicate = book.duplicate.saturating_add(samples));
            return;
        }
        if sensor_state.recent.len() >= RECENT_MAX {
            sensor_state.recent.pop_front();
        }
        sensor_state.recent.push_back(digest);
        let first_sample = sensor_state.next_sample;
        sensor_state.next_sample = first_sample.saturating_add(samples);
        ctx.books.change(sensor_state.slot, |book| book.accepted = book.accepted.saturating_add(samples));
        ctx.metrics.samples.add(samples);
        let (time_ns, flags) = match decoded.time_ns {
            Some(time_ns) => {
                let off_ns = i128::from(time_ns) - i128::from(now.utc_ns);
                let wild = off_ns.unsigned_abs() > self.config.clock_error_max.as_nanos();
                (time_ns, if wild { record_flags::CLOCK_DOUBTFUL } else { 0 })
            }
            None => (now.utc_ns, record_flags::CLOCK_ARRIVAL),
        };
        let key = sensor_state.key.clone();
        ctx.push(RecordKind::Json, key, time_ns, flags, first_sample, incoming.payload.clone());
        self.changed_json.insert(sensor);
    }
}

impl JsonSensor {
    pub(super) fn state(&self) -> JsonState {
        JsonState {
            key: Key(self.key.clone()),
            next_sample: self.next_sample,
            recent: self.recent.iter().copied().collect(),
        }
    }
}

/// 64 bits that tell a message from others of its sensor.
fn digest(payload: &[u8]) -> u64 {
    let len = payload.len() as u64;
    u64::from(crc32c::crc32c(payload)) << 32 | u64::from(crc32c::crc32c(&len.to_le_bytes())) ^ len
}
