use super::*;
use crate::record::SensorKey;
use proptest::prelude::*;
use std::time::Duration;

const SECOND_NS: i64 = 1_000_000_000;

fn rule(above: f64, deadband: f64, on_delay_s: u64) -> Rule {
    let config = LimitRule {
        name: "high".into(),
        sensor: "*/*/*".into(),
        axis: "*".into(),
        feature: "velocity_rms".into(),
        unit: "mm/s".into(),
        above,
        deadband,
        on_delay: Duration::from_secs(on_delay_s),
        severity: Severity::Warning,
    };
    Rule::new(&config, &[]).expect("the feature exists")
}

fn span(second: i64) -> Span {
    Span { start_ns: second * SECOND_NS, end_ns: (second + 1) * SECOND_NS }
}

fn run(rule: &Rule, values: &[Option<f32>]) -> Vec<(usize, Event)> {
    let mut phase = Phase::default();
    let steps = values.iter().enumerate();
    steps.filter_map(|(i, v)| Some((i, phase.step(rule, span(i as i64), *v)?.event))).collect()
}

#[test]
fn raises_after_the_on_delay_and_clears_below_the_deadband() {
    let values = [1.0, 3.0, 3.1, 3.2, 3.0, 1.95, 1.79, 1.0].map(Some);
    let changes = run(&rule(2.0, 0.2, 3), &values);
    assert_eq!(changes, [(3, Event::Raised), (6, Event::Cleared)]);
}

#[test]
fn a_single_window_at_or_below_the_limit_restarts_the_on_delay() {
    let values = [3.0, 3.0, 2.0, 3.0, 3.0, 3.0].map(Some);
    assert_eq!(run(&rule(2.0, 0.2, 3), &values), [(5, Event::Raised)]);
}

#[test]
fn without_on_delay_the_first_window_raises() {
    assert_eq!(run(&rule(2.0, 0.0, 0), &[Some(2.1), Some(2.0)]), [(0, Event::Raised), (1, Event::Cleared)]);
}

#[test]
fn a_window_without_a_value_is_no_evidence_either_way() {
    let values = [Some(3.0), None, Some(3.0), Some(3.0), None, Some(1.0)];
    assert_eq!(run(&rule(2.0, 0.2, 3), &values), [(3, Event::Raised), (5, Event::Cleared)]);
}

#[test]
fn after_a_hole_longer_than_the_on_delay_the_count_starts_again() {
    let values = [Some(3.0), Some(3.0), None, None, None, None, Some(3.0), Some(3.0), Some(3.0)];
    assert_eq!(run(&rule(2.0, 0.2, 3), &values), [(8, Event::Raised)]);
}

#[test]
fn the_change_tells_when_it_began_and_how_high_it_went() {
    let rule = rule(2.0, 0.2, 2);
    let mut phase = Phase::default();
    assert_eq!(phase.step(&rule, span(10), Some(3.0)), None);
    let raised = phase.step(&rule, span(11), Some(4.0)).expect("raised");
    assert_eq!((raised.since_ns, raised.raised_ns), (10 * SECOND_NS, 12 * SECOND_NS));
    assert_eq!(phase.step(&rule, span(12), Some(9.0)), None);
    let cleared = phase.step(&rule, span(13), Some(1.0)).expect("cleared");
    assert_eq!((cleared.since_ns, cleared.at_ns, cleared.highest), (10 * SECOND_NS, 14 * SECOND_NS, 9.0));
}

#[test]
fn noise_at_the_limit_does_not_flap() {
    let rule = rule(2.0, 0.5, 3);
    // Uniform noise of +-0.4 around the limit: it must settle into one state and stay.
    let mut state = 7_u32;
    let values: Vec<_> = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some(1.6 + 0.8 * (state >> 8) as f32 / (1 << 24) as f32)
        })
        .collect();
    let changes = run(&rule, &values);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].1, Event::Raised);
}

#[test]
fn a_withdrawn_rule_clears_its_alert_once() {
    let rule = rule(2.0, 0.2, 0);
    let mut phase = Phase::default();
    assert_eq!(phase.withdraw(0), None);
    phase.step(&rule, span(0), Some(3.0)).expect("raised");
    assert_eq!(phase.withdraw(5).map(|c| (c.event, c.value)), Some((Event::Withdrawn, None)));
    assert_eq!(phase.withdraw(6), None);
}

#[test]
fn patterns_select_sensors_and_axes() {
    let key = SensorKey { site: "s".into(), machine: "m1".into(), sensor: "a".into() };
    let covers = |pattern: &str| {
        let mut rule = rule(1.0, 0.0, 0);
        rule.config.sensor = pattern.into();
        rule.covers_sensor(&key)
    };
    assert!(covers("*/*/*") && covers("s/m1/a") && covers("s/*/a"));
    assert!(!covers("s/m2/a") && !covers("s/m1") && !covers("s/m1/a/b") && !covers(""));
    let mut rule = rule(1.0, 0.0, 0);
    assert!(rule.covers_axis("x"));
    rule.config.axis = "z".into();
    assert!(!rule.covers_axis("x"));
}

#[test]
fn a_rule_with_an_unknown_feature_or_unit_is_refused() {
    let mut config = rule(1.0, 0.0, 0).config;
    config.unit = "in/s".into();
    assert!(Rule::new(&config, &[]).is_none());
    config.unit = "mm/s".into();
    config.feature = "velocity".into();
    assert!(Rule::new(&config, &[]).is_none());
}

proptest! {
    /// Model: raised and cleared alternate; raised only after windows above the limit that add up to the on-delay; cleared only at or
    /// below limit less deadband.
    #[test]
    fn raised_and_cleared_alternate_and_have_their_reasons(
        values in prop::collection::vec(prop::option::of(0.0_f32..4.0), 1..200),
        deadband in 0.0_f64..1.0,
        on_delay_s in 0_u64..6,
    ) {
        let rule = rule(2.0, deadband, on_delay_s);
        let changes = run(&rule, &values);
        for (i, (at, event)) in changes.iter().enumerate() {
            let value = f64::from(values[*at].expect("a change needs a value"));
            if i % 2 == 0 {
                prop_assert_eq!(*event, Event::Raised);
                let evidence = values[..=*at].iter().rev().flatten().take_while(|v| f64::from(**v) > 2.0).count();
                prop_assert!(evidence as u64 >= on_delay_s.max(1));
            } else {
                prop_assert_eq!(*event, Event::Cleared);
                prop_assert!(value <= 2.0 - deadband);
            }
        }
    }
}
