//! Two boards with one id, and what only looks like it.

use super::*;
use crate::session::report::TwinsReport;

fn birth(boot: u64) -> Bytes {
    let info = wire::StreamInfo {
        stream: StreamId(0),
        sensor: "s",
        model: "iis3dwb",
        axes: "x",
        rate_nominal_mhz: 1_000_000,
        scale: 0.01,
        bits: 16,
        block_samples: SAMPLES as u16,
        encoding: Encoding::Raw16,
    };
    let birth = wire::Birth {
        node: "node",
        boot: BootId(boot),
        site: "hall",
        machine: "mill",
        board: "b",
        firmware: "f",
        tick_hz: 1_000_000,
        reset_cause: ResetCause::PowerOn,
        last_panic: "",
        settings_version: 0,
        ring_capacity: 8,
        streams: std::iter::once(info).collect(),
        lifetime: None,
    };
    encoded(|out| birth.encode(out))
}

fn found(rig: &Rig) -> Option<TwinsReport> {
    rig.session.reports(None, rig.now)[0].twins.clone()
}

#[test]
fn two_boards_with_one_id_are_named_kept_apart_and_each_acknowledged() {
    let mut rig = Rig::new();
    for n in 0..10 {
        rig.give_block(nth(n));
        rig.give_block(Spec { boot: 2, ..nth(n) });
        assert_eq!(rig.acked(), [(1, n + 1), (2, n + 1)]);
        rig.wait(Duration::from_millis(600));
    }
    assert_eq!(rig.session.metrics.session.twins.get(), 1);
    let twins = found(&rig).unwrap();
    assert_eq!(twins.boots, [format!("{:016x}", 1), format!("{:016x}", 2)]);
    assert_eq!(twins.sources, ["site"]);
    assert_eq!(rig.book(), Book { taken: 320, accepted: 320, ..Book::default() });
    assert!(rig.gaps().is_empty());
    // Once one of them is gone, the other is nobody's twin after a while.
    for n in 10..15 {
        rig.give_block(nth(n));
        rig.wait(Duration::from_secs(200));
    }
    assert_eq!(found(&rig), None);
}

#[test]
fn a_board_that_restarts_over_and_over_is_not_taken_for_two() {
    let mut rig = Rig::new();
    for boot in 1..12 {
        for n in 0..4 {
            rig.give_block(Spec { boot, ..nth(n) });
        }
        // What was still under way of the boot before, and what a broker sends again.
        if boot > 1 {
            for n in [2, 3, 4] {
                rig.give_block(Spec { boot: boot - 1, ..nth(n) });
                rig.give_block(Spec { boot, ..nth(n) });
            }
        }
        rig.wait(Duration::from_secs(2));
    }
    assert_eq!((rig.session.metrics.session.twins.get(), found(&rig)), (0, None));
}

#[test]
fn one_board_that_comes_by_two_ways_is_named() {
    let mut rig = Rig::new();
    for n in 0..10 {
        for source in 0..2 {
            rig.give_from(SourceId(source), "spindle/v1/hall/mill/s/raw", block(nth(n)), false);
        }
        rig.wait(Duration::from_millis(600));
    }
    assert_eq!(rig.session.metrics.session.twins.get(), 1);
    let twins = found(&rig).unwrap();
    assert_eq!((twins.boots.len(), twins.sources), (1, vec!["other".to_owned(), "site".to_owned()]));
    assert_eq!(rig.book(), Book { taken: 160, accepted: 160, duplicate: 160, ..Book::default() });
}

#[test]
fn a_board_that_restarted_is_acknowledged_before_it_could_send_a_block() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.acked();
    // Its ring has dropped more than it sends ahead, so it says no more than this until it is acknowledged.
    rig.give_status(status(2, 70, 80, 80 * SAMPLES));
    assert_eq!(rig.acked(), [(2, 70)]);
}

#[test]
fn a_line_that_says_much_before_its_birth_is_asked_once_a_second() {
    let mut rig = Rig::new();
    let mut asked = 0;
    for _ in 0..40 {
        let incoming = Incoming {
            source: SourceId(0),
            topic: None,
            payload: block(nth(0)),
            redelivered: false,
            token: None,
        };
        rig.session.take(incoming, rig.now, &mut rig.work);
        asked += rig.session.to_nodes().len();
        rig.wait(Duration::from_millis(100));
    }
    assert_eq!(asked, 4);
}

#[test]
fn one_of_two_boards_that_was_cut_off_sends_what_it_holds_though_it_was_taken_for_ended() {
    let mut rig = Rig::new();
    rig.give_block(nth(0));
    rig.give_block(Spec { boot: 2, ..nth(0) });
    rig.give_status(status(1, 1, 6, 6 * SAMPLES));
    for n in [2, 4] {
        rig.give_block(nth(n));
    }
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.gaps(), [(16, 16), (48, 16), (80, 16)]);
    rig.acked();
    for restart in [false, true] {
        if restart {
            rig.restart();
        }
        rig.give_block(nth(0));
        assert_eq!(rig.acked(), [(1, 1)], "it still holds 1 and 3");
    }
    for (n, next) in [(3, 1), (1, 5), (5, 6)] {
        rig.give_block(nth(n));
        assert_eq!(rig.acked(), [(1, next)]);
    }
    assert_eq!(rig.accepted(), [0, 0, 32, 64, 48, 16, 80]);
    assert_eq!(rig.book(), Book { taken: 112, accepted: 112, duplicate: 32, ..Book::default() });
}

#[test]
fn of_two_boards_on_two_lines_each_is_acknowledged_on_its_own() {
    let mut rig = Rig::new();
    let line = |rig: &mut Rig, source: u16, payload: Bytes| {
        let incoming =
            Incoming { source: SourceId(source), topic: None, payload, redelivered: false, token: None };
        rig.session.take(incoming, rig.now, &mut rig.work);
    };
    for source in 0..2u16 {
        line(&mut rig, source, birth(u64::from(source) + 1));
    }
    rig.acked();
    for source in 0..2u16 {
        line(&mut rig, source, block(Spec { boot: u64::from(source) + 1, ..nth(0) }));
    }
    let to: Vec<u16> = rig.session.to_nodes().iter().map(|to_node| to_node.source.0).collect();
    assert_eq!(to, [0, 1]);
}
