//! A session without a source or a journal: what a board or another sensor sends, and what comes of it.

mod clock;
mod intake;
mod order;
mod steps;
mod twins;

use super::*;
use crate::journal::Book;
use crate::record::{Gap, record_flags};
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::wire::messages::{ResetCause, StreamStatus, TimeSource};
use spindle_common::wire::{BlockHeader, Encoding, Message, Samples};
use std::time::Duration;

const START_NS: i64 = 1_800_000_000_000_000_000;
const SAMPLES: u64 = 16;
/// 1 kHz: 16 ms a block, 16,000 ticks.
const TICKS: u64 = 16_000;

/// Encodes with `f` into a buffer.
fn encoded(f: impl FnOnce(&mut [u8]) -> Result<usize, wire::EncodeError>) -> Bytes {
    let mut out = vec![0; 4096];
    let len = f(&mut out).unwrap();
    out.truncate(len);
    out.into()
}

#[derive(Clone, Copy)]
struct Spec {
    boot: u64,
    stream: u8,
    seq: u32,
    first_sample: u64,
    tick: u64,
}

/// The `n`th block of an undisturbed stream.
fn nth(n: u32) -> Spec {
    Spec { boot: 1, stream: 0, seq: n, first_sample: u64::from(n) * SAMPLES, tick: u64::from(n) * TICKS }
}

fn block(spec: Spec) -> Bytes {
    let header = BlockHeader {
        node: "node",
        boot: BootId(spec.boot),
        stream: StreamId(spec.stream),
        seq: Seq(spec.seq),
        first_sample: spec.first_sample,
        tick: spec.tick,
        tick_hz: 1_000_000,
        rate_nominal_mhz: 1_000_000,
        rate_measured_mhz: 0,
        scale: 0.01,
        bits: 16,
        axes: 1,
        samples: SAMPLES as u16,
        flags: 0,
        encoding: Encoding::Raw16,
        decimation: 1,
    };
    let samples: Vec<i16> = (0..SAMPLES).map(|n| (spec.first_sample + n) as i16).collect();
    encoded(|out| wire::encode_block(&header, Samples::I16(&samples), out))
}

fn status(boot: u64, oldest: u32, next: u32, taken: u64) -> Bytes {
    let counters = StreamStatus {
        stream: StreamId(0),
        taken,
        lost_overrun: 0,
        lost_ring: 0,
        bus_errors: 0,
        temperature_centi_c: 0,
    };
    let status = wire::Status {
        node: "node",
        boot: BootId(boot),
        tick: 0,
        oldest: Seq(oldest),
        next: Seq(next),
        ring_used: 0,
        dropped: 0,
        resent: 0,
        connects: 1,
        streams: std::iter::once(counters).collect(),
        more: None,
    };
    encoded(|out| status.encode(out))
}

fn pair(tick: u64, utc_ns: i64) -> Bytes {
    let pair = wire::TimePair {
        node: "node",
        boot: BootId(1),
        tick,
        tick_hz: 1_000_000,
        utc_ns,
        error_ns: 1000,
        source: TimeSource::Host,
    };
    encoded(|out| pair.encode(out))
}

struct Rig {
    session: Session,
    now: Now,
    work: Work,
    packets: u16,
}

impl Rig {
    fn new() -> Self {
        Self::with(State::default(), &[])
    }

    fn with(state: State, mappings: &[JsonMapping]) -> Self {
        let config = config::Session { reorder_blocks_max: 8, ..config::Session::default() };
        let session =
            Session::new(&config, mappings, vec!["site".into(), "other".into()], state, Arc::default());
        Self { session, now: Now { utc_ns: START_NS, mono_ns: 0 }, work: Work::default(), packets: 0 }
    }

    fn wait(&mut self, time: Duration) {
        self.now.mono_ns += time.as_nanos() as u64;
        self.now.utc_ns += time.as_nanos() as i64;
        self.session.expire(self.now, &mut self.work);
    }

    fn give(&mut self, topic: &str, payload: Bytes) {
        self.give_again(topic, payload, false);
    }

    fn give_again(&mut self, topic: &str, payload: Bytes, redelivered: bool) {
        self.give_from(SourceId(0), topic, payload, redelivered);
    }

    fn give_from(&mut self, source: SourceId, topic: &str, payload: Bytes, redelivered: bool) {
        self.packets += 1;
        let token = Some(Token { source, connection: 1, packet: self.packets });
        let topic = Some(Bytes::copy_from_slice(topic.as_bytes()));
        self.session.take(Incoming { source, topic, payload, redelivered, token }, self.now, &mut self.work);
    }

    fn give_block(&mut self, spec: Spec) {
        self.give("spindle/v1/hall/mill/s/raw", block(spec));
    }

    fn give_status(&mut self, message: Bytes) {
        self.give("spindle/v1/hall/mill/node/status", message);
    }

    fn of(&self, kind: RecordKind) -> Vec<&Record> {
        self.work.records.iter().filter(|record| record.kind == kind).collect()
    }

    /// First samples of the accepted blocks, in order.
    fn accepted(&self) -> Vec<u64> {
        let first = |record: &&Record| match wire::decode(&record.body).unwrap() {
            Message::Block(block) => block.header.first_sample,
            other => panic!("{other:?}"),
        };
        self.of(RecordKind::Block).iter().map(first).collect()
    }

    fn gaps(&self) -> Vec<(u64, u64)> {
        let gap = |record: &&Record| postcard::from_bytes::<Gap>(&record.body).unwrap();
        self.of(RecordKind::Gap).iter().map(gap).map(|gap| (gap.first_sample, gap.samples)).collect()
    }

    fn reasons(&self) -> Vec<String> {
        let reason = |record: &&Record| {
            let letter: serde_json::Value = serde_json::from_slice(&record.body).unwrap();
            letter["reason"].as_str().unwrap().to_owned()
        };
        self.of(RecordKind::DeadLetter).iter().map(reason).collect()
    }

    fn book(&self) -> Book {
        let books = self.session.snapshot().books;
        books.iter().find(|(key, _)| &*key.0.sensor == "s").map(|(_, book)| *book).unwrap()
    }

    /// What the node is told to send next.
    fn acked(&mut self) -> Vec<(u64, u32)> {
        let ack = |message: &ToNode| match wire::decode(&message.message.payload).unwrap() {
            Message::Ack(ack) => (ack.boot.0, ack.next.0),
            other => panic!("{other:?}"),
        };
        self.session.to_nodes().iter().map(ack).collect()
    }

    /// As after a crash and a restart from what was committed.
    fn restart(&mut self) {
        let state = self.session.snapshot();
        let records = std::mem::take(&mut self.work.records);
        *self = Self { now: self.now, ..Self::with(state, &[]) };
        self.work.records = records;
    }
}

fn balanced(book: Book) -> bool {
    book.taken == book.accepted + book.withheld + book.lost + book.rejected
}
