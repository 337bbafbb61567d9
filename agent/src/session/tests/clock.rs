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
