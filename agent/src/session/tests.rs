use super::*;
use crate::journal::Book;
use crate::record::Gap;
use proptest::prelude::*;
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::wire::messages::{ResetCause, StreamStatus, TimeSource};
use spindle_common::wire::{BlockHeader, Encoding, Samples};
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
        let session = Session::new(&config, mappings, vec!["site".into()], state, Arc::default());
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
        self.packets += 1;
        let source = SourceId(0);
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
    book.taken == book.accepted + book.lost + book.rejected
}

#[test]
fn blocks_in_order_are_accepted_and_acknowledged() {
    let mut rig = Rig::new();
    for n in 0..3 {
        rig.give_block(nth(n));
    }
    assert_eq!(rig.accepted(), [0, 16, 32]);
    assert_eq!(rig.acked(), [(1, 3)]);
    assert_eq!(rig.work.release.len(), 3);
    assert_eq!(rig.session.to_nodes().len(), 0);
    assert_eq!(rig.book(), Book { taken: 48, accepted: 48, ..Book::default() });
}

#[test]
fn a_block_that_comes_again_is_dropped_counted_and_acknowledged_also_after_a_restart() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.give_block(nth(0));
    rig.restart();
    rig.give_block(nth(0));
    assert_eq!(rig.accepted(), [0]);
    assert_eq!(rig.acked(), [(1, 1)]);
    assert_eq!(rig.work.release.len(), 1);
    assert_eq!(rig.book(), Book { taken: 16, accepted: 16, duplicate: 32, ..Book::default() });
}

#[test]
fn blocks_out_of_order_are_put_in_order_and_not_acknowledged_before() {
    let mut rig = Rig::new();
    for n in [2, 1, 2] {
        rig.give_block(nth(n));
    }
    assert_eq!((rig.accepted().len(), rig.work.release.len()), (0, 1));
    assert_eq!(rig.acked(), [(1, 0)]);
    assert_eq!(rig.book().held, 32);
    rig.give_block(nth(0));
    assert_eq!(rig.accepted(), [0, 16, 32]);
    assert_eq!(rig.acked(), [(1, 3)]);
    assert_eq!(rig.book(), Book { taken: 48, accepted: 48, duplicate: 16, ..Book::default() });
}

#[test]
fn the_reorder_buffer_is_bounded_and_lets_go_in_time() {
    let mut rig = Rig::new();
    for n in 1..20 {
        rig.give_block(nth(n));
    }
    assert_eq!(rig.session.metrics.session.held.get(), 8);
    assert_eq!(rig.work.release.len(), 11);
    assert!(rig.session.deadline_ns().is_some());
    rig.wait(Duration::from_secs(3));
    assert_eq!(rig.session.metrics.session.held.get(), 0);
    assert_eq!((rig.accepted().len(), rig.work.release.len(), rig.session.deadline_ns()), (0, 19, None));
    for n in 0..20 {
        rig.give_block(nth(n));
    }
    assert_eq!(rig.accepted().len(), 20);
}

#[test]
fn what_the_ring_dropped_becomes_a_gap_of_exactly_the_samples() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.give_block(nth(4));
    rig.give_status(status(1, 4, 5, 5 * SAMPLES));
    assert_eq!(rig.accepted(), [0, 64]);
    assert_eq!(rig.gaps(), [(16, 48)]);
    assert_eq!(rig.acked(), [(1, 5)]);
    assert!(balanced(rig.book()), "{:?}", rig.book());
    assert_eq!(rig.book().lost, 48);
}

#[test]
fn samples_lost_in_the_sensor_become_a_gap_also_when_nothing_follows() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.give_block(Spec { first_sample: 100, ..nth(1) });
    assert_eq!(rig.gaps(), [(16, 84)]);
    rig.give_status(status(1, 2, 2, 200));
    assert_eq!(rig.gaps(), [(16, 84), (116, 84)]);
    assert_eq!(rig.book(), Book { taken: 200, accepted: 32, lost: 168, ..Book::default() });
}

#[test]
fn a_status_that_is_ahead_of_the_blocks_declares_nothing_lost() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.give_status(status(1, 1, 4, 4 * SAMPLES));
    assert!(rig.gaps().is_empty());
    for n in 1..4 {
        rig.give_block(nth(n));
    }
    assert!(rig.gaps().is_empty() && balanced(rig.book()));
}

#[test]
fn what_was_given_up_and_comes_late_is_kept_once_and_flagged() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.give_status(status(1, 3, 4, 4 * SAMPLES));
    rig.give_block(nth(3));
    assert_eq!(rig.book().lost, 32);
    rig.restart();
    for n in [2, 2, 1] {
        rig.give_block(nth(n));
    }
    assert_eq!(rig.accepted(), [0, 48, 32, 16]);
    let late = |record: &&Record| record.flags & record_flags::LATE != 0;
    assert_eq!(rig.of(RecordKind::Block).iter().map(late).collect::<Vec<_>>(), [false, false, true, true]);
    assert_eq!(rig.book(), Book { taken: 64, accepted: 64, duplicate: 16, ..Book::default() });
}

#[test]
fn a_node_that_never_sends_what_is_missing_is_not_waited_for_for_ever() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    for second in 0..40 {
        rig.give_block(nth(5 + second));
        rig.wait(Duration::from_secs(3));
    }
    assert!(rig.accepted().len() > 1);
    assert!(!rig.gaps().is_empty());
    assert!(balanced(rig.book()), "{:?}", rig.book());
}

#[test]
fn a_new_boot_starts_a_new_sequence_and_settles_the_old_one() {
    let mut rig = Rig::new();
    for n in 0..3 {
        rig.give_block(nth(n));
    }
    rig.give_status(status(1, 3, 6, 6 * SAMPLES));
    rig.give_block(Spec { boot: 2, ..nth(0) });
    assert_eq!(rig.gaps(), [(48, 48)]);
    assert_eq!(rig.acked(), [(2, 1)]);
    assert_eq!(rig.book(), Book { taken: 112, accepted: 64, lost: 48, ..Book::default() });
    rig.give_block(nth(2));
    assert_eq!(rig.book().duplicate, 16);
    rig.give_block(nth(3));
    assert_eq!(rig.book(), Book { taken: 112, accepted: 80, lost: 32, duplicate: 16, ..Book::default() });
}

#[test]
fn two_boards_with_one_id_are_found_and_both_are_kept() {
    let mut rig = Rig::new();
    for n in 0..10 {
        rig.give_block(nth(n));
        rig.give_block(Spec { boot: 2, ..nth(n) });
    }
    assert_eq!(rig.session.metrics.session.twins.get(), 1);
    assert_eq!(rig.book().accepted, 20 * SAMPLES);
}

#[test]
fn the_sequence_wraps() {
    let mut rig = Rig::new();
    rig.give_status(status(1, u32::MAX, u32::MAX, 0));
    // Half the circle at a time, as serial numbers compare.
    rig.give_status(status(1, 0x7FFF_FFFF, 0x7FFF_FFFF, 0));
    rig.give_status(status(1, 0xFFFF_FFFE, 0xFFFF_FFFE, 0));
    for n in 0..4u32 {
        rig.give_block(Spec { seq: 0xFFFF_FFFE_u32.wrapping_add(n), ..nth(n) });
    }
    assert_eq!(rig.accepted().len(), 4);
    assert_eq!(rig.acked(), [(1, 2)]);
}

#[test]
fn sample_time_follows_the_nodes_clock_and_not_the_arrival() {
    let mut rig = Rig::new();
    // The tick is 100 ppm long, and the node's zero lies 5 s before the start.
    for second in 0..30u64 {
        let utc_ns = START_NS - 5_000_000_000 + (second as f64 * 1e9 * 1.0001) as i64;
        rig.give("spindle/v1/hall/mill/node/time", pair(second * 1_000_000, utc_ns));
    }
    rig.now.utc_ns += 60_000_000_000;
    rig.give_block(Spec { tick: 31_000_000, ..nth(0) });
    let record = rig.of(RecordKind::Block)[0];
    let expected = START_NS - 5_000_000_000 + (31e9 * 1.0001) as i64;
    assert!((record.time_ns - expected).abs() < 100_000, "{}", record.time_ns - expected);
    assert_eq!(record.flags, 0);
}

#[test]
fn without_pairs_time_is_anchored_once_at_arrival_and_flagged() {
    let mut rig = Rig::new();
    for n in 0..10 {
        rig.give_block(nth(n));
        rig.now.utc_ns += 500_000_000;
    }
    let times: Vec<i64> = rig.of(RecordKind::Block).iter().map(|record| record.time_ns).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 16_000_000), "{times:?}");
    assert_eq!(times[0], START_NS - 16_000_000);
    assert!(rig.of(RecordKind::Block).iter().all(|record| record.flags == record_flags::CLOCK_ARRIVAL));
}

#[test]
fn a_wild_clock_is_flagged_and_not_used() {
    let mut rig = Rig::new();
    for utc_ns in [START_NS + 86_400_000_000_000, 5] {
        rig.give("spindle/v1/hall/mill/node/time", pair(0, utc_ns));
    }
    rig.give_block(nth(0));
    let record = rig.of(RecordKind::Block)[0];
    assert_eq!(record.time_ns, START_NS - 16_000_000);
    assert_eq!(record.flags, record_flags::CLOCK_ARRIVAL | record_flags::CLOCK_DOUBTFUL);
    assert_eq!(rig.session.metrics.session.pairs_refused.get(), 2);
}

#[test]
fn time_never_runs_backwards_within_a_stream() {
    let mut rig = Rig::new();
    rig.give("spindle/v1/hall/mill/node/time", pair(0, START_NS));
    for n in 0..100u32 {
        if n == 50 {
            for step in 0..3 {
                let tick = u64::from(n) * TICKS + step;
                rig.give("spindle/v1/hall/mill/node/time", pair(tick, START_NS - 60_000_000_000));
            }
        }
        rig.give_block(nth(n));
    }
    let times: Vec<i64> = rig.of(RecordKind::Block).iter().map(|record| record.time_ns).collect();
    assert!(times.windows(2).all(|pair| pair[1] > pair[0]));
}

#[test]
fn bad_messages_become_dead_letters_with_reasons_and_stop_nothing() {
    let mut rig = Rig::new();
    let mut broken = block(nth(0)).to_vec();
    broken[20] ^= 1;
    rig.give("spindle/v1/hall/mill/s/raw", broken.into());
    rig.give("spindle/v1/hall/mill/s/raw", status(1, 0, 0, 0));
    rig.give("spindle/v1/hall/mill/other/status", status(1, 0, 0, 0));
    rig.give("spindle/v1/hall/mill/s", block(nth(0)));
    rig.give("else", Bytes::from_static(b"x"));
    rig.give("spindle/v1/hall/mill/s/raw", Bytes::from_static(&[9; 40]));
    rig.give_block(nth(0));
    rig.give_block(Spec { first_sample: 3, ..nth(1) });
    rig.give_block(nth(2));
    let reasons = rig.reasons();
    for (reason, says) in reasons.iter().zip([
        "checksum",
        "another kind",
        "names node \"node\"",
        "has 3 levels",
        "no mapping",
        "wire version 9 is unknown",
        "sample index runs backwards",
    ]) {
        assert!(reason.contains(says), "{reason}");
    }
    assert_eq!(reasons.len(), 7);
    assert_eq!(rig.accepted(), [0, 32]);
    assert_eq!(rig.work.release.len(), 9);
}

#[test]
fn a_retained_birth_is_kept_once_and_names_the_streams() {
    let info = wire::StreamInfo {
        stream: StreamId(0),
        sensor: "s",
        model: "iis3dwb",
        axes: "x",
        rate_nominal_mhz: 1_000_000,
        scale: 0.01,
        bits: 16,
        block_samples: 16,
        encoding: Encoding::Raw16,
    };
    let birth = wire::Birth {
        node: "node",
        boot: BootId(1),
        site: "hall",
        machine: "mill",
        board: "virtual",
        firmware: "0.1.0",
        tick_hz: 1_000_000,
        reset_cause: ResetCause::PowerOn,
        last_panic: "",
        settings_version: 0,
        ring_capacity: 64,
        streams: std::iter::once(info).collect(),
    };
    let birth = encoded(|out| birth.encode(out));
    let mut rig = Rig::new();
    let serial =
        |payload| Incoming { source: SourceId(0), topic: None, payload, redelivered: false, token: None };
    rig.session.take(serial(block(nth(0))), rig.now, &mut rig.work);
    assert_eq!(rig.session.metrics.session.before_birth.get(), 1);
    let asked = rig.session.to_nodes();
    assert!(matches!(wire::decode(&asked[0].message.payload).unwrap(), Message::Command(_)));
    for _ in 0..2 {
        rig.session.take(serial(birth.clone()), rig.now, &mut rig.work);
    }
    rig.session.take(serial(block(nth(0))), rig.now, &mut rig.work);
    assert_eq!(rig.of(RecordKind::Node).len(), 1);
    assert_eq!(rig.of(RecordKind::Block)[0].key.to_string(), "hall/mill/s");
    // Everything was lost: nothing but the birth and the status tells of it.
    rig.session.take(serial(status(1, 9, 9, 500)), rig.now, &mut rig.work);
    assert_eq!(rig.book(), Book { taken: 500, accepted: 16, lost: 484, ..Book::default() });
}

#[test]
fn nodes_are_bounded_and_the_longest_silent_is_forgotten() {
    let config = config::Session { nodes_max: 3, ..config::Session::default() };
    let mut session = Session::new(&config, &[], vec!["site".into()], State::default(), Arc::default());
    let mut work = Work::default();
    for n in 0..50u64 {
        let now = Now { utc_ns: START_NS, mono_ns: n };
        for machine in ["live".to_owned(), format!("m{n}")] {
            let topic = Some(Bytes::from(format!("spindle/v1/hall/{machine}/s/raw")));
            let payload = block(nth(n as u32 * u32::from(machine == "live")));
            let incoming = Incoming { source: SourceId(0), topic, payload, redelivered: false, token: None };
            session.take(incoming, now, &mut work);
        }
    }
    assert_eq!(session.snapshot().nodes.len(), 3);
    let live = work.records.iter().filter(|record| &*record.key.machine == "live").count();
    assert_eq!(live, 50);
    assert!(session.changes().forgotten.len() >= 47);
}

fn json_rig() -> Rig {
    let channel = |axis: &str| config::JsonChannel { axis: axis.into(), field: axis.into() };
    let mapping = JsonMapping {
        name: "acme".into(),
        topic: "acme/{machine}/{sensor}".into(),
        site: Some("hall".into()),
        machine: None,
        sensor: None,
        channels: vec![channel("x")],
        unit: config::AccelerationUnit::G,
        rate_hz: 100.0,
        time: None,
        full_scale: None,
    };
    Rig::with(State::default(), &[mapping])
}

#[test]
fn json_messages_are_numbered_refused_with_reason_and_known_when_redelivered() {
    let mut rig = json_rig();
    let message = Bytes::from_static(br#"{"x": [1, 2, 3]}"#);
    rig.give("acme/mill/s", message.clone());
    rig.give("acme/mill/s", message.clone());
    rig.give_again("acme/mill/s", message, true);
    rig.give("acme/mill/s", Bytes::from_static(b"{}"));
    let json = rig.of(RecordKind::Json);
    assert_eq!(json.iter().map(|record| record.first_sample).collect::<Vec<_>>(), [0, 3]);
    assert!(json.iter().all(|record| record.flags == record_flags::CLOCK_ARRIVAL));
    assert_eq!(rig.reasons(), ["field \"x\" is missing"]);
    assert_eq!(rig.book(), Book { accepted: 6, duplicate: 3, rejected_messages: 1, ..Book::default() });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// A board that sends again from the last acknowledgement, over a way that loses, repeats and reorders, with a gateway
    /// that restarts: every block is accepted exactly once, in order, unless the board said that it dropped it.
    #[test]
    fn no_way_of_losing_repeating_and_reordering_loses_or_doubles_a_block(
        seed in any::<u64>(), blocks in 1u32..120, loss in 0u32..60, drops in 0u32..8,
    ) {
        let mut random = seed | 1;
        let mut chance = |percent: u32| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 20) % 100 < u64::from(percent)
        };
        let mut rig = Rig::new();
        let (mut acked, mut oldest, mut dropped) = (0u32, 0u32, 0u32);
        let mut rounds = 0;
        while acked < blocks {
            rounds += 1;
            prop_assert!(rounds < 3000);
            if dropped < drops && chance(10) && oldest < blocks - 1 {
                // The ring is full: the oldest unacknowledged is dropped.
                oldest += 1;
                dropped += 1;
            }
            let mut sent: Vec<u32> = (oldest..blocks.min(oldest + 6)).collect();
            if chance(30) && sent.len() > 1 {
                let last = sent.len() - 1;
                sent.swap(0, last);
            }
            if !chance(loss) {
                rig.give_status(status(1, oldest, blocks, u64::from(blocks) * SAMPLES));
            }
            for n in sent {
                for _ in 0..1 + u32::from(chance(20)) {
                    if !chance(loss) {
                        rig.give_block(nth(n));
                    }
                }
            }
            if chance(5) {
                rig.restart();
            }
            if chance(20) {
                rig.wait(Duration::from_millis(1500));
            }
            for (_, next) in rig.acked() {
                if !chance(loss) {
                    acked = acked.max(next);
                    oldest = oldest.max(acked);
                }
            }
        }
        rig.give_status(status(1, blocks, blocks, u64::from(blocks) * SAMPLES));
        let late = |record: &&&Record| record.flags & record_flags::LATE != 0;
        let records = rig.of(RecordKind::Block);
        prop_assert_eq!(records.iter().filter(late).count(), 0);
        let accepted = rig.accepted();
        prop_assert!(accepted.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", accepted);
        let lost: u64 = rig.gaps().iter().map(|gap| gap.1).sum();
        prop_assert_eq!(accepted.len() as u64 * SAMPLES + lost, u64::from(blocks) * SAMPLES);
        prop_assert!(lost <= u64::from(dropped) * SAMPLES);
        prop_assert!(balanced(rig.book()) && rig.book().held == 0);
    }
}
