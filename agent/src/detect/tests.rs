use super::*;

fn config(history_windows: usize, learning_windows: usize) -> config::Anomaly {
    config::Anomaly { enabled: true, history_windows, learning_windows }
}

/// Values around 1 that repeat every 7 windows, so that the spread is known and steady.
fn values(window: usize, factor: f32) -> Values {
    let wobble = 1.0 + 0.05 * ((window % 7) as f32 - 3.0) / 3.0;
    [Some(wobble * factor), Some(3.0 * wobble), Some(3.0), Some(0.8 * wobble)]
}

#[test]
fn says_nothing_until_it_has_learned() {
    let mut baseline = Baseline::new(&config(50, 10), 1);
    for window in 0..10 {
        assert_eq!(baseline.score(0, &values(window, 100.0)), None);
        baseline.learn(&[values(window, 1.0)], None);
    }
    assert!(!baseline.is_learning());
    assert!(baseline.score(0, &values(3, 1.0)).is_some_and(|s| s.score < 1.0));
}

#[test]
fn names_the_feature_that_stands_out_and_its_side() {
    let mut baseline = Baseline::new(&config(50, 10), 1);
    for window in 0..40 {
        baseline.learn(&[values(window, 1.0)], None);
    }
    let high = baseline.score(0, &values(3, 2.0)).expect("has learned");
    assert!(high.score > 10.0 && high.column == 0 && high.above, "{high:?}");
    let low = baseline.score(0, &values(3, 0.5)).expect("has learned");
    assert!(low.score > 10.0 && low.column == 0 && !low.above, "{low:?}");
}

#[test]
fn does_not_learn_a_fault_but_starts_anew_when_it_stays() {
    let mut baseline = Baseline::new(&config(20, 5), 1);
    for window in 0..20 {
        baseline.learn(&[values(window, 1.0)], None);
    }
    for window in 0..19 {
        let score = baseline.score(0, &values(window, 4.0)).expect("has learned").score;
        assert!(score > FREEZE_SCORE, "window {window}: {score}");
        baseline.learn(&[values(window, 4.0)], Some(score));
    }
    baseline.learn(&[values(0, 4.0)], Some(99.0));
    assert!(baseline.is_learning());
    assert_eq!(baseline.head(), BaselineHead::default());
    assert_eq!(baseline.rows(), 0);
}

#[test]
fn a_window_without_all_values_is_not_learned() {
    let mut baseline = Baseline::new(&config(20, 5), 1);
    baseline.learn(&[[Some(1.0), Some(1.0), Some(3.0), None]], None);
    assert_eq!(baseline.head().learned, 0);
}

#[test]
fn median_and_mad_equal_the_definition_on_every_size() {
    let mut state = 1_u32;
    for n in 1..60 {
        let mut sorted: Vec<f32> = (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 20) as f32
            })
            .collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let (median, mad) = median_and_mad(&sorted);
        let middle = (f64::from(sorted[(n - 1) / 2]) + f64::from(sorted[n / 2])) / 2.0;
        let mut distances: Vec<f64> = sorted.iter().map(|v| (f64::from(*v) - middle).abs()).collect();
        distances.sort_unstable_by(f64::total_cmp);
        assert_eq!((median, mad), (middle, distances[(n - 1) / 2]), "n = {n}");
    }
}

#[test]
fn is_the_same_after_saving_and_restoring_at_any_window() {
    let config = config(12, 4);
    let mut whole = Baseline::new(&config, 2);
    let mut kept = std::collections::BTreeMap::new();
    let mut restored = Baseline::new(&config, 2);
    for window in 0..60 {
        let row = [values(window, 1.0), values(window + 3, 1.5)];
        assert_eq!(whole.score(1, &row[1]), restored.score(1, &row[1]), "window {window}");
        whole.learn(&row, None);
        restored.learn(&row, None);
        for changed in restored.take_changed() {
            kept.insert(changed.slot, changed.row);
        }
        let rows: Vec<_> =
            kept.iter().map(|(slot, row)| BaselineRow { slot: *slot, row: row.clone() }).collect();
        restored = Baseline::restore(&config, 2, restored.head(), &rows).expect("rows fit");
        assert_eq!(restored.ring, whole.ring);
        assert_eq!(restored.sorted, whole.sorted);
    }
}

#[test]
fn rows_of_another_shape_are_refused() {
    let config = config(12, 4);
    let head = BaselineHead { learned: 1, frozen: 0 };
    assert!(Baseline::restore(&config, 2, head, &[]).is_none());
    assert!(Baseline::restore(&config, 2, head, &[BaselineRow { slot: 0, row: vec![0; 5] }]).is_none());
    assert!(Baseline::restore(&config, 2, head, &[BaselineRow { slot: 1, row: vec![0; 32] }]).is_none());
}
