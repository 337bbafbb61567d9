//! Dead letters that are to be tried again (`spindle dlq retry`): one at a time, out of turn by their nature.

use super::{Code, KafkaDestination, LANE_SHIFT, NAME, Producer, fault, timestamp_ms};
use crate::clock::Now;
use crate::forward::lane::Fault;
use crate::forward::letters::{Letter, Letters};
use crate::forward::log::{Item, Progress};
use rdkafka::producer::BaseRecord;
use std::collections::VecDeque;

/// How often the list is looked at.
const INTERVAL_NS: u64 = 500_000_000;
/// Wait after a failure that is not the record's own.
const FAILED_INTERVAL_NS: u64 = 5_000_000_000;
/// Stands for no lane in the opaque.
const NO_LANE: usize = 0xF;

/// The letter that is under way.
#[derive(Debug, Default)]
pub(super) struct Again {
    serial: u64,
    under_way: Option<Letter>,
    due_ns: u64,
    failed: bool,
}

impl Again {
    /// Books the report of `serial`.
    pub(super) fn decided(&mut self, serial: u64, failure: Option<Code>, letters: &Letters) {
        if serial != self.serial {
            return;
        }
        let Some(letter) = self.under_way.take() else { return };
        let noted = match failure {
            None => letters.retried(&letter, None),
            Some(code) if matches!(fault::of_code(code), Fault::Record | Fault::Time) => {
                letters.retried(&letter, Some(&code.to_string()))
            }
            // It stays asked for.
            Some(_) => {
                self.failed = true;
                Ok(())
            }
        };
        if let Err(error) = noted {
            tracing::error!(%error, "what became of a dead letter is not noted; it will be tried once more");
        }
    }

    /// The producer is gone, and with it what was under way.
    pub(super) fn abandon(&mut self) {
        self.under_way = None;
    }
}

impl KafkaDestination {
    /// Sends the next dead letter that is to be tried again, if there is one and none is under way.
    pub(super) fn send_again(&mut self, producer: &Producer, now: Now) {
        if self.again.under_way.is_some() || now.mono_ns < self.again.due_ns {
            return;
        }
        let failed = std::mem::take(&mut self.again.failed);
        self.again.due_ns = now.mono_ns + if failed { FAILED_INTERVAL_NS } else { INTERVAL_NS };
        if failed {
            return;
        }
        // What cannot be read now is read later.
        let Ok(Some(letter)) = self.letters.next_asked(NAME) else { return };
        let found = self.find(&letter);
        let (index, item) = match found {
            Ok(found) => found,
            Err(reason) => {
                let _ = self.letters.retried(&letter, Some(&reason));
                return;
            }
        };
        self.again.serial += 1;
        let headers = self.envelope.address(&item);
        let opaque = NO_LANE << LANE_SHIFT | self.again.serial as usize;
        let record = BaseRecord::with_opaque_to(&self.topics[index], opaque)
            .key(&self.envelope.key)
            .payload(&item.content.payload()[..])
            .timestamp(timestamp_ms(self.limits[index].stamp(item.time_ns, now.utc_ns)))
            .headers(headers);
        match producer.send(record) {
            Ok(()) => self.again.under_way = Some(letter),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                if fault::of_code(code) == Fault::Record {
                    let _ = self.letters.retried(&letter, Some(&code.to_string()));
                }
            }
        }
    }

    /// The record that `letter` is of, and its lane.
    fn find(&mut self, letter: &Letter) -> Result<(usize, Item), String> {
        let index = self.lanes.iter().position(|runner| runner.name.as_str() == letter.lane);
        let index = index.ok_or_else(|| format!("the lane {} does not go to kafka any more", letter.lane))?;
        let mut items = VecDeque::new();
        match self.lanes[index].log.read(letter.position, 1, &mut items)? {
            Progress::To(_) => {}
            Progress::Evicted(_) => return Err("evicted since".into()),
            Progress::Idle | Progress::Closed => return Err("its log does not reach so far".into()),
        }
        let item = items.into_iter().find(|item| item.offset == letter.position);
        item.map(|item| (index, item)).ok_or_else(|| "its log has something else in its place".into())
    }
}
