//! The bytes of the disk format, pinned. A test that fails here means that journals in the field cannot be read any more:
//! such a change needs a new schema version.

use super::*;
use crate::record::{Gap, RecordKind, SensorKey};
use bytes::Bytes;
use std::fmt::Write as _;

const KINDS: [RecordKind; 6] = [
    RecordKind::Block,
    RecordKind::Json,
    RecordKind::DeadLetter,
    RecordKind::Gap,
    RecordKind::Node,
    RecordKind::Context,
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn key() -> Arc<SensorKey> {
    Arc::new(SensorKey { site: "hall".into(), machine: "mill".into(), sensor: "s".into() })
}

fn record(kind: RecordKind) -> Record {
    Record {
        offset: 9,
        kind,
        key: key(),
        time_ns: 1_800_000_000_123_456_789,
        flags: 0x0102,
        first_sample: 0x1122_3344_5566_7788,
        arrival_ns: -2,
        body: Bytes::from_static(b"\x00\xFFbody"),
    }
}

fn state() -> State {
    let stream =
        StreamState { stream: 3, key: Key(key()), next_sample: 300, taken: 400, last: Some((70_000, -1)) };
    let clock = ClockState {
        tick_hz: 1_000_000,
        anchor: Some((5, 6)),
        pairs: vec![(1, 1_800_000_000_000_000_000, 250)],
        doubtful: true,
    };
    let boot = BootState {
        boot: 0xFEED_0000_0000_0001,
        next: 12,
        closed: true,
        given_up: vec![(4, 2)],
        streams: vec![stream],
        clock,
    };
    let book = Book {
        taken: 1,
        accepted: 2,
        duplicate: 3,
        rejected: 4,
        lost: 5,
        evicted: 6,
        held: 7,
        rejected_messages: 8,
        withheld: 0,
    };
    State {
        nodes: vec![NodeState { key: Key(key()), boots: vec![boot] }],
        json: vec![JsonState { key: Key(key()), next_sample: 128, recent: vec![u64::MAX, 0] }],
        books: vec![(Key(key()), book)],
        forgotten: vec![Key(key())],
    }
}

#[test]
fn a_record_of_each_kind_keeps_its_bytes() {
    for (kind, number) in KINDS.into_iter().zip(1u8..) {
        let mut bytes = Vec::new();
        frame::encode(&record(kind), 0x0A0B_0C0D, &mut bytes);
        let golden = format!(
            "060000000d0c0b0a{number:02x}00020115cd0f9b76e2fa18feffffffffffffff887766554433221100ff626f6479"
        );
        assert_eq!(hex(&bytes), golden, "{kind:?}");
        let mut read = Vec::new();
        frame::decode(&bytes.into(), 9, 1, |id| (id == 0x0A0B_0C0D).then(key), &mut read).unwrap();
        assert_eq!(format!("{:?}", read[0]), format!("{:?}", record(kind)));
    }
}

#[test]
fn a_record_of_a_kind_that_this_build_does_not_know_is_refused_in_words() {
    let mut bytes = Vec::new();
    frame::encode(&record(RecordKind::Context), 1, &mut bytes);
    bytes[8] = 7;
    let error = frame::decode(&bytes.into(), 9, 1, |_| Some(key()), &mut Vec::new()).unwrap_err();
    assert_eq!(error, "a record's kind is unknown");
}

#[test]
fn the_state_keeps_its_bytes() {
    let bytes = segment::encode_state(&state()).unwrap();
    let golden = concat!(
        "010468616c6c046d696c6c017301818080808080c0f6fe010c0101040201030468616c6c046d696c6c0173ac02900301f0a2",
        "0401c0843d01050c01018080a0bbd29df1fa31fa0101010468616c6c046d696c6c0173800102ffffffffffffffffff010001",
        "0468616c6c046d696c6c01730102030405060708010468616c6c046d696c6c0173",
    );
    assert_eq!(hex(&bytes), golden);
    assert_eq!(State::from_bytes(&bytes).unwrap(), state());
}

#[test]
fn samples_withheld_stand_behind_the_state_and_only_if_there_are_any() {
    let before = segment::encode_state(&state()).unwrap();
    let mut with = state();
    with.books[0].1.withheld = 300;
    with.books.push((Key(Arc::new(SensorKey { sensor: "t".into(), ..(*key()).clone() })), Book::default()));
    let bytes = segment::encode_state(&with).unwrap();
    let golden = "010468616c6c046d696c6c0173ac02";
    assert!(hex(&bytes).ends_with(golden), "{}", hex(&bytes));
    assert_eq!(State::from_bytes(&bytes).unwrap(), with);
    assert!(State::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    with.books.truncate(1);
    assert_eq!(segment::encode_state(&with).unwrap().len(), before.len() + golden.len() / 2);
}

#[test]
fn the_books_at_a_segments_head_keep_their_bytes() {
    let accepted = vec![(Key(key()), 300u64)];
    assert_eq!(hex(&postcard::to_stdvec(&accepted).unwrap()), "010468616c6c046d696c6c0173ac02");
}

#[test]
fn a_gap_keeps_its_bytes() {
    let gap = Gap { node: "node".into(), boot: 0xFEED, stream: 3, first_sample: 300, samples: 16 };
    let bytes = postcard::to_stdvec(&gap).unwrap();
    assert_eq!(hex(&bytes), "046e6f6465edfd0303ac0210");
    assert_eq!(postcard::from_bytes::<Gap>(&bytes).unwrap(), gap);
}

#[test]
fn the_checksums_of_rows_stay_what_they_are() {
    assert_eq!(segment::chunk_crc(9, 2, b"changes", b"body"), 79_067_980);
    assert_eq!(segment::row_crc(9, 1, b"body"), 1_801_206_845);
}
