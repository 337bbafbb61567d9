//! The time of samples.

use super::*;

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

const HOUR_NS: i64 = 3_600_000_000_000;

/// Blocks for ten minutes, each second one, and every ten seconds a pair of a node whose clock is as `node_ns` says; the gateway's
/// is as `gateway_ns` says. Both get the true time in seconds.
fn ten_minutes(node_ns: impl Fn(u64) -> i64, gateway_ns: impl Fn(u64) -> i64) -> Rig {
    let mut rig = Rig::new();
    for second in 0..600u64 {
        rig.now = Now { utc_ns: START_NS + gateway_ns(second), mono_ns: second * 1_000_000_000 };
        rig.session.expire(rig.now, &mut rig.work);
        if second % 10 == 0 {
            rig.give("spindle/v1/hall/mill/node/time", pair(second * 1_000_000, START_NS + node_ns(second)));
        }
        rig.give_block(Spec { tick: second * 1_000_000, ..nth(second as u32) });
    }
    rig
}

fn true_ns(second: u64) -> i64 {
    second as i64 * 1_000_000_000
}

/// What must hold whatever clocks do: nothing is lost, and time goes on.
fn nothing_is_lost(rig: &Rig) {
    assert_eq!(rig.book(), Book { taken: 9600, accepted: 9600, ..Book::default() });
    let times: Vec<i64> = rig.of(RecordKind::Block).iter().map(|record| record.time_ns).collect();
    assert!(times.windows(2).all(|pair| pair[1] > pair[0]));
}

/// By how much the block of a second is off the truth, and whether it is flagged.
fn stamp(rig: &Rig, second: usize) -> (i64, bool) {
    let record = rig.of(RecordKind::Block)[second];
    let off_ns = record.time_ns - START_NS - true_ns(second as u64);
    (off_ns, record.flags & record_flags::CLOCK_DOUBTFUL != 0)
}

#[test]
fn a_gateway_clock_that_jumps_by_hours_and_back_loses_nothing_and_moves_no_sample_of_a_node_with_its_own_time()
 {
    for jump_ns in [3 * HOUR_NS, -3 * HOUR_NS] {
        let wrong = |second: u64| (200..400).contains(&second);
        let gateway_ns = |second| true_ns(second) + if wrong(second) { jump_ns } else { 0 };
        let rig = ten_minutes(true_ns, gateway_ns);
        nothing_is_lost(&rig);
        for second in 0..600 {
            assert!(stamp(&rig, second).0.abs() < 1_000_000, "{second}");
        }
        assert!(!stamp(&rig, 190).1 && stamp(&rig, 300).1 && !stamp(&rig, 500).1, "{jump_ns}");
        assert!(rig.session.reports(None, rig.now)[0].clock.as_ref().is_some_and(|clock| !clock.doubtful));
    }
}

#[test]
fn what_is_held_for_order_waits_by_monotonic_time_whatever_utc_does() {
    let mut rig = Rig::new();
    rig.give_block(nth(1));
    for jump_ns in [3 * HOUR_NS, -6 * HOUR_NS] {
        rig.now.utc_ns += jump_ns;
        rig.session.expire(rig.now, &mut rig.work);
        assert_eq!(rig.session.metrics.session.held.get(), 1);
    }
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.session.metrics.session.held.get(), 0);
}

#[test]
fn a_node_clock_that_jumps_by_hours_is_flagged_and_time_goes_on() {
    for jump_ns in [3 * HOUR_NS, -3 * HOUR_NS] {
        let node_ns = |second| true_ns(second) + if (200..400).contains(&second) { jump_ns } else { 0 };
        let rig = ten_minutes(node_ns, true_ns);
        nothing_is_lost(&rig);
        assert!(!stamp(&rig, 190).1 && stamp(&rig, 300).1, "{jump_ns}");
        // Ahead of the gateway it is not believed at all; behind, it may be right and late, and stamps do not run backwards.
        let off_ns = stamp(&rig, 599).0;
        assert!(off_ns.abs() < 200_000_000_000, "{jump_ns}: off by {off_ns} ns");
    }
}

#[test]
fn a_node_with_a_wild_clock_does_not_touch_the_stamps_of_its_neighbours() {
    let plain = ten_minutes(true_ns, true_ns);
    let mut rig = Rig::new();
    for second in 0..600u64 {
        rig.now = Now { utc_ns: START_NS + true_ns(second), mono_ns: second * 1_000_000_000 };
        if second % 10 == 0 {
            rig.give("spindle/v1/hall/mill/node/time", pair(second * 1_000_000, START_NS + true_ns(second)));
            let wild_ns = if second % 20 == 0 { 400 * 24 * HOUR_NS } else { -400 * 24 * HOUR_NS };
            let wild = wire::TimePair {
                node: "wild",
                boot: BootId(9),
                tick: second * 1_000_000,
                tick_hz: 1_000_000,
                utc_ns: START_NS + wild_ns,
                error_ns: 0,
                source: TimeSource::Sntp,
            };
            rig.give("spindle/v1/hall/mill/wild/time", encoded(|out| wild.encode(out)));
        }
        rig.give_block(Spec { tick: second * 1_000_000, ..nth(second as u32) });
    }
    let stamps = |rig: &Rig| -> Vec<(i64, u16)> {
        rig.of(RecordKind::Block).iter().map(|record| (record.time_ns, record.flags)).collect()
    };
    assert_eq!(stamps(&rig), stamps(&plain));
    let reports = rig.session.reports(Some("wild"), rig.now);
    assert!(reports[0].clock.as_ref().is_some_and(|clock| clock.doubtful), "{reports:?}");
}

#[test]
fn a_leap_second_repeated_or_smeared_moves_no_sample_by_more_than_it_and_loses_none() {
    // The gateway and its node, which asks it, repeat a second at 300 s.
    let repeated = |second| true_ns(second) - if second >= 300 { 1_000_000_000 } else { 0 };
    // Or they go slower for the whole time, as a smear over a day does.
    let smeared = |second: u64| true_ns(second) - second as i64 * 11_574;
    for (clock, most_ns) in [(&repeated as &dyn Fn(u64) -> i64, 1_010_000_000), (&smeared, 20_000_000)] {
        let rig = ten_minutes(clock, clock);
        nothing_is_lost(&rig);
        assert!((0..600).all(|second| stamp(&rig, second).0.abs() <= most_ns));
        assert!(!stamp(&rig, 299).1 && !stamp(&rig, 599).1);
        assert_eq!(rig.session.metrics.session.dead_letters.get(), 0);
    }
}
