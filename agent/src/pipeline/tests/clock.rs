//! Clocks that jump under the pipeline: it goes by sample index, so values, windows and alerts go on.

use super::*;
use crate::config::{LimitRule, Severity};
use crate::record::record_flags;
use std::time::Duration;

const HOUR_NS: i64 = 3_600_000_000_000;

/// Two seconds of rest, six of vibration, four of rest.
fn event(t: f64) -> f64 {
    let level = if (2.0..8.0).contains(&t) { 5.0 } else { 0.01 };
    level * (2.0 * std::f64::consts::PI * 130.0 * t).sin()
}

fn board() -> Board {
    Board { rate_nominal_hz: 2000.0, rate_hz: 2000.0, block_len: 100, ..Board::new() }
}

/// What comes out when the clock jumps by so much after so many seconds; each word of an alert, and the number of windows.
fn outputs(jump_ns: i64, after_s: u64) -> (Vec<String>, usize) {
    let mut config = config();
    config.rules = vec![LimitRule {
        name: "high".into(),
        sensor: "*/*/*".into(),
        axis: "*".into(),
        feature: "acceleration_rms".into(),
        unit: "m/s2".into(),
        above: 1.0,
        deadband: 0.1,
        on_delay: Duration::from_secs(2),
        severity: Severity::Alarm,
    }];
    let mut records = board().blocks(0..12 * 2000, &[&event]);
    for record in records.iter_mut().skip(after_s as usize * 20) {
        record.time_ns += jump_ns;
        record.flags |= record_flags::CLOCK_DOUBTFUL;
    }
    let outputs = run(&config, records);
    let event = |alert: &Value| alert["event"].as_str().expect("an event").to_owned();
    (
        of_kind(&outputs, OutputKind::Alert).iter().map(event).collect(),
        of_kind(&outputs, OutputKind::Features).len(),
    )
}

#[test]
fn an_alert_is_raised_and_cleared_whenever_the_clock_jumps_by_hours_or_by_a_leap_second() {
    let (events, windows) = outputs(0, 0);
    assert_eq!((events.len(), windows), (2, 12), "{events:?}");
    for jump_ns in [3 * HOUR_NS, -3 * HOUR_NS, HOUR_NS, -HOUR_NS, 1_000_000_000, -1_000_000_000] {
        for after_s in 1..12 {
            assert_eq!(outputs(jump_ns, after_s), (events.clone(), windows), "{jump_ns} after {after_s} s");
        }
    }
}
