//! Who sends what: refusals, births, serial lines, JSON.

use super::*;

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
        lifetime: None,
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
fn nodes_are_bounded_and_the_longest_silent_makes_room_but_none_that_was_heard_of_late() {
    let config = config::Session { nodes_max: 3, ..config::Session::default() };
    let mut session = Session::new(&config, &[], vec!["site".into()], State::default(), Arc::default());
    let mut work = Work::default();
    let silence_ns = NODE_SILENCE_MIN.as_nanos() as u64;
    for n in 0..50u64 {
        let now = Now { utc_ns: START_NS, mono_ns: n * silence_ns };
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

    let (rows, refused) = (work.records.len(), session.metrics.session.newcomers_refused.get());
    for n in 100..200u64 {
        let topic = Some(Bytes::from(format!("spindle/v1/hall/m{n}/s/raw")));
        let incoming =
            Incoming { source: SourceId(0), topic, payload: block(nth(0)), redelivered: false, token: None };
        let now = Now { utc_ns: START_NS, mono_ns: 49 * silence_ns + n };
        session.take(incoming, now, &mut work);
    }
    // One place was free to take: of the node that was heard a whole silence ago.
    assert_eq!(session.metrics.session.newcomers_refused.get() - refused, 99);
    assert!(session.by_key.keys().any(|key| &*key.machine == "live"));
    let good = work.records[rows..].iter().filter(|record| record.kind != RecordKind::DeadLetter).count();
    assert_eq!(good, 1);
}

#[test]
fn a_flood_of_garbage_is_counted_and_only_so_much_of_it_is_kept() {
    let mut rig = json_rig();
    for n in 0..20_000 {
        rig.give(&format!("wireless-xyz/m{n}/s"), Bytes::from(vec![b'['; 1000]));
        rig.give(&format!("spindle/v1/hall/{n}/s/raw"), Bytes::from_static(b"garbage"));
    }
    let (kept, metrics) = (rig.work.records.len() as u64, rig.session.metrics.clone());
    assert_eq!(metrics.session.dead_letters.get(), 40_000);
    assert_eq!(metrics.session.dead_letters_dropped.get(), 40_000 - kept);
    let bytes: usize = rig.work.records.iter().map(|record| record.body.len()).sum();
    assert!(bytes <= 4 << 20 && kept > 1000, "{kept} letters of {bytes} bytes");
    assert_eq!(rig.work.release.len(), 40_000, "each is acknowledged: it would only come again");
    assert_eq!((rig.session.json.len(), rig.session.by_key.len()), (0, 0), "garbage makes no sensor");
    // What is good goes on.
    rig.give("wireless-xyz/mill/s", Bytes::from_static(br#"{"x": [1]}"#));
    assert_eq!(rig.of(RecordKind::Json).len(), 1);
}

#[test]
fn what_all_nodes_together_hold_for_order_is_bounded() {
    let mut rig = Rig::new();
    for machine in 0..100 {
        for seq in 1..8 {
            rig.give(&format!("spindle/v1/hall/m{machine}/s/raw"), block(nth(seq)));
        }
    }
    assert_eq!(rig.session.held.tokens, HELD_TOKENS_MAX);
    assert_eq!(rig.work.release.len(), 700 - HELD_TOKENS_MAX);
    rig.wait(Duration::from_secs(3));
    assert_eq!((rig.session.held.tokens, rig.session.held.bytes), (0, 0));
    assert_eq!(rig.work.release.len(), 700);
}

fn json_rig() -> Rig {
    let channel = |axis: &str| config::JsonChannel { axis: axis.into(), field: axis.into() };
    let mapping = JsonMapping {
        name: "wireless-xyz".into(),
        topic: "wireless-xyz/{machine}/{sensor}".into(),
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
    rig.give("wireless-xyz/mill/s", message.clone());
    rig.give("wireless-xyz/mill/s", message.clone());
    rig.give_again("wireless-xyz/mill/s", message, true);
    rig.give("wireless-xyz/mill/s", Bytes::from_static(b"{}"));
    let json = rig.of(RecordKind::Json);
    assert_eq!(json.iter().map(|record| record.first_sample).collect::<Vec<_>>(), [0, 3]);
    assert!(json.iter().all(|record| record.flags == record_flags::CLOCK_ARRIVAL));
    assert_eq!(rig.reasons(), ["field \"x\" is missing"]);
    assert_eq!(rig.book(), Book { accepted: 6, duplicate: 3, rejected_messages: 1, ..Book::default() });
}
