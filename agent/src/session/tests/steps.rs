//! Nodes that keep samples back: decimated blocks, features, bursts; and what is known of nodes, and ordered of them.

use super::*;
use crate::session::report::{Order, OrderOutcome};
use proptest::prelude::*;
use spindle_common::settings::{Settings, Step};
use spindle_common::wire::messages::{AxisFeatures, MoreStatus, StepStatus, Trigger, TriggerKind};

/// A block that stands for `16 x decimation` samples.
fn decimated(seq: u32, first_sample: u64, decimation: u16) -> Bytes {
    let header = BlockHeader {
        node: "node",
        boot: BootId(1),
        stream: StreamId(0),
        seq: Seq(seq),
        first_sample,
        tick: first_sample * 1000,
        tick_hz: 1_000_000,
        rate_nominal_mhz: 1_000_000,
        rate_measured_mhz: 1_000_100,
        scale: 0.01,
        bits: 16,
        axes: 1,
        samples: SAMPLES as u16,
        flags: 0,
        encoding: Encoding::Raw16,
        decimation,
    };
    let samples = [5i16; SAMPLES as usize];
    encoded(|out| wire::encode_block(&header, Samples::I16(&samples), out))
}

fn features(seq: u32, first_sample: u64, samples: u32) -> Bytes {
    let axis =
        AxisFeatures { rms: 1.0, peak: 2.0, peak_to_peak: 3.0, kurtosis: 3.0, velocity_rms: 1.0, mean: 0.0 };
    let features = wire::Features {
        node: "node",
        boot: BootId(1),
        stream: StreamId(0),
        seq: Seq(seq),
        first_sample,
        samples,
        tick: first_sample * 1000,
        tick_hz: 1_000_000,
        rate_measured_mhz: 0,
        flags: 0,
        axes: std::iter::once(axis).collect(),
    };
    encoded(|out| features.encode(out))
}

fn burst(seq: u32, first_sample: u64) -> Bytes {
    let block = decimated(seq, first_sample, 1);
    let Ok(Message::Block(block)) = wire::decode(&block) else { panic!() };
    let trigger = Trigger { kind: TriggerKind::Level, sample: first_sample + 3, level: 20.0 };
    let samples = [5i16; SAMPLES as usize];
    encoded(|out| wire::encode_burst(&trigger, &block.header, Samples::I16(&samples), out))
}

#[test]
fn what_a_node_withholds_is_in_the_books_beside_what_it_sent() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.give("spindle/v1/hall/mill/s/raw", decimated(1, 16, 8));
    rig.give("spindle/v1/hall/mill/s/features", features(2, 16 + 128, 1000));
    rig.give("spindle/v1/hall/mill/s/burst", burst(3, 1130));
    // 56 are missing, by the numbers of the sensor.
    rig.give("spindle/v1/hall/mill/s/raw", decimated(4, 1200, 4));
    rig.give("spindle/v1/hall/mill/s/raw", decimated(4, 1200, 4));
    rig.give_status(status(1, 5, 5, 1264));
    let book = Book {
        taken: 1264,
        accepted: 16 + 16 + 16,
        withheld: 112 + 1000 + 48,
        lost: 56,
        duplicate: 64,
        ..Book::default()
    };
    assert_eq!(rig.book(), book);
    assert!(balanced(book));
    assert_eq!(rig.gaps(), [(1144, 56)]);
    rig.restart();
    assert_eq!(rig.book(), book);
    // One that begins before what a decimated block stood for is refused.
    rig.give_block(Spec { seq: 5, first_sample: 1216, ..nth(0) });
    assert_eq!(rig.reasons(), ["sample index runs backwards: block begins at 1216, but 1264 was next"]);
}

#[test]
fn a_late_decimated_block_is_no_longer_lost_but_stored_and_withheld() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.give_status(status(1, 2, 2, 144));
    assert_eq!(rig.book().lost, 128);
    rig.give("spindle/v1/hall/mill/s/raw", decimated(1, 16, 8));
    let book = rig.book();
    assert_eq!((book.accepted, book.withheld, book.lost), (32, 112, 0));
    assert!(balanced(book));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a node sends in whatever step, with messages lost, doubled and out of order: the books balance.
    #[test]
    fn books_balance_whatever_the_step(
        sent in proptest::collection::vec((0u8..6, 2u16..9, 0u64..40, 0u8..10), 1..60),
    ) {
        let mut rig = Rig::new();
        let (mut seq, mut next) = (0u32, 0u64);
        for (kind, decimation, skipped, fate) in sent {
            // The sensor's FIFO overran now and then.
            let first = if kind == 0 { next + skipped } else { next };
            let (topic, message, samples) = match kind {
                0 | 1 => ("raw", block(Spec { seq, first_sample: first, ..nth(0) }), SAMPLES),
                2 | 3 => {
                    let aligned = first.next_multiple_of(u64::from(decimation));
                    let covered = SAMPLES * u64::from(decimation);
                    ("raw", decimated(seq, aligned, decimation), aligned - first + covered)
                }
                4 => ("features", features(seq, first, 100), 100),
                _ => ("burst", burst(seq, first.saturating_sub(8)), 0),
            };
            seq += 1;
            next = if samples == 0 { next } else { first + samples };
            let topic = format!("spindle/v1/hall/mill/s/{topic}");
            for _ in 0..match fate { 0 => 0, 1 => 2, _ => 1 } {
                rig.give(&topic, message.clone());
            }
            if fate == 2 {
                rig.give_status(status(1, seq, seq, next));
            }
        }
        rig.give_status(status(1, seq, seq, next));
        rig.give_block(Spec { seq, first_sample: next, ..nth(0) });
        let book = rig.book();
        prop_assert_eq!(book.taken, next + SAMPLES);
        prop_assert!(balanced(book), "{:?}", book);
        prop_assert_eq!(book.held, 0);
    }
}

#[test]
fn a_nodes_report_says_what_it_said_and_orders_go_to_it_by_name() {
    let mut rig = Rig::new();
    rig.give_block(Spec { boot: 1, ..nth(0) });
    let settings = Settings { version: 7, status_every_s: 10, time_every_s: 30, ..Settings::default() };
    let in_force = wire::InForce { node: "node", boot: BootId(1), settings: settings.clone() };
    rig.give("spindle/v1/hall/mill/node/settings", encoded(|out| in_force.encode(out)));
    for second in 0..8u32 {
        let wanted = START_NS + i64::from(second) * 1_000_020_000;
        rig.wait(Duration::from_secs(1));
        rig.give("spindle/v1/hall/mill/node/time", pair(u64::from(second) * 1_000_000, wanted));
    }
    let more = MoreStatus {
        answers_dropped: 1,
        inbox_dropped: 2,
        line_errors: 3,
        steps: std::iter::once(StepStatus { step: Step::Features, withheld: 9, bursts: 4, bursts_missed: 5 })
            .collect(),
    };
    let Ok(Message::Status(mut said)) = wire::decode(&status(1, 1, 1, 16)).map(|_| {
        let bytes: &'static [u8] = Box::leak(status(1, 1, 1, 16).to_vec().into_boxed_slice());
        wire::decode(bytes).unwrap()
    }) else {
        panic!()
    };
    said.more = Some(more);
    rig.give_status(encoded(|out| said.encode(out)));
    let (id, to_node) = rig.session.order("node", &Order::Reboot, rig.now).unwrap();
    assert_eq!(to_node.message.topic, "spindle/v1/hall/mill/node/cmd");
    assert!(to_node.message.at_least_once);
    let Ok(Message::Command(command)) = wire::decode(&to_node.message.payload) else { panic!() };
    assert_eq!((command.id, command.request), (id, wire::messages::Request::Reboot));
    let order = Order::Set { settings: Box::new(settings) };
    let (other, to_node) = rig.session.order("hall/mill/node", &order, rig.now).unwrap();
    assert_ne!(other, id);
    let Ok(Message::Set(set)) = wire::decode(&to_node.message.payload) else { panic!() };
    assert_eq!((set.id, set.settings.version), (other, 7));
    for id in [id, other] {
        let outcome = wire::messages::Outcome::Refused;
        let answer = wire::Answer { node: "node", boot: BootId(1), id, outcome, text: "no" };
        rig.give("spindle/v1/hall/mill/node/answer", encoded(|out| answer.encode(out)));
    }
    let report = &rig.session.reports(Some("node"), rig.now)[0];
    assert_eq!(report.key, "hall/mill/node");
    assert_eq!(report.source.as_deref(), Some("site"));
    assert_eq!(report.heard_ns, Some(rig.now.utc_ns));
    assert_eq!(report.settings.as_ref().unwrap().settings.version, 7);
    assert_eq!(report.status.as_ref().unwrap().more, Some([1, 2, 3]));
    let clock = report.clock.as_ref().unwrap();
    assert!((clock.drift_ppm - 20.0).abs() < 0.5, "{clock:?}");
    assert_eq!(
        report.answers.last().map(|answer| (answer.id, answer.outcome)),
        Some((other, OrderOutcome::Refused))
    );
    let offline = wire::Offline { node: "node", boot: BootId(1) };
    rig.give("spindle/v1/hall/mill/node/offline", encoded(|out| offline.encode(out)));
    assert!(rig.session.reports(None, rig.now)[0].offline);
    let unknown = rig.session.order("other", &Order::Report, rig.now).unwrap_err();
    assert!(unknown.contains("no node other"), "{unknown}");
    rig.restart();
    let silent = rig.session.order("node", &Order::Report, rig.now).unwrap_err();
    assert!(silent.contains("has not been heard since"), "{silent}");
}
