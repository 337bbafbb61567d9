//! Gaps, late blocks, saturation, stuck sensors, clocks, restarts.

use super::*;
use crate::record::record_flags;

fn flags(window: &Value) -> Vec<&str> {
    window["quality"]["flags"].as_array().expect("flags").iter().filter_map(Value::as_str).collect()
}

fn wave(t: f64) -> f64 {
    5.0 * (2.0 * std::f64::consts::PI * 130.0 * t).sin() + 9.8
}

fn features(records: Vec<Record>) -> Vec<Value> {
    of_kind(&run(&config(), records), OutputKind::Features)
}

#[test]
fn the_first_window_is_settling_and_the_others_are_good() {
    let windows = features(Board::new().blocks(0..100_000, &[&wave, &wave, &wave]));
    assert_eq!(windows.len(), 3);
    assert_eq!(flags(&windows[0]), ["settling"]);
    assert_near(number_at(&windows[0], "/quality/settled"), 0.6 * 26_667.0, 1e-3);
    assert_eq!(flags(&windows[1]), [""; 0]);
    assert_eq!(windows[1]["quality"]["good"], true);
    let velocity = |w: usize| number_at(&windows[w], "/axes/0/velocity_rms");
    assert_near(velocity(0), velocity(1), 1e-2);
}

#[test]
fn a_gap_is_marked_and_shifts_nothing_in_time() {
    let board = Board::new();
    let mut records = board.blocks(0..30_720, &[&wave]);
    records.extend(board.blocks(40_960..120_000, &[&wave]));
    let windows = features(records);
    assert_eq!(windows.len(), 4);
    assert_eq!(windows[1]["quality"]["missing"], 40_960 - 30_720);
    assert_eq!(flags(&windows[1]), ["gap", "settling"]);
    assert_eq!(windows[1]["quality"]["good"], false);
    assert_eq!(flags(&windows[2]), [""; 0]);
    for (index, window) in windows.iter().enumerate() {
        assert_eq!(window["window"]["first_sample"], 26_667 * index as u64);
        let off = number_at(window, "/start_ns") - board.time_of(26_667 * index as u64) as f64;
        assert!(off.abs() < 1000.0, "window {index} is off by {off} ns");
    }
    // The sine goes on through the gap, so the settled part after it reads as ever.
    assert_near(
        number_at(&windows[1], "/axes/0/acceleration_rms"),
        number_at(&windows[2], "/axes/0/acceleration_rms"),
        1e-2,
    );
}

#[test]
fn a_gap_record_closes_the_window_before_the_next_block_comes() {
    let board = Board::new();
    let mut records = board.blocks(0..30_720, &[&wave]);
    records.push(board.gap(30_720, 30_720));
    let windows = features(records);
    assert_eq!(windows.len(), 2);
    assert_eq!(windows[1]["quality"]["coverage"], 0.151_985_6);
    assert_eq!(flags(&windows[1]), ["gap", "low_coverage"]);
    assert_eq!(windows[1]["axes"][0]["acceleration_rms"], Value::Null);
    assert_eq!(windows[1]["axes"][0]["velocity_rms"], Value::Null);
}

#[test]
fn hours_of_silence_give_one_number_not_thousands_of_records() {
    let board = Board::new();
    let mut records = board.blocks(0..30_720, &[&wave]);
    let later = 26_667 * 7200;
    records.extend(board.blocks(later..later + 53_334, &[&wave]));
    let windows = features(records);
    assert_eq!(windows.len(), 4);
    assert_eq!(windows[2]["quality"]["gap_before"], later - 2 * 26_667);
    assert!(flags(&windows[2]).contains(&"gap"));
    assert_eq!(windows[3]["quality"]["gap_before"], 0);
}

#[test]
fn late_and_repeated_blocks_change_no_value_and_are_counted() {
    let board = Board::new();
    let plain = board.blocks(0..100_000, &[&wave]);
    let mut disturbed = plain.clone();
    let mut late = plain[3].clone();
    late.flags = record_flags::LATE;
    disturbed.insert(20, late);
    disturbed.insert(70, plain[60].clone());
    let (plain, disturbed) = (features(plain), features(disturbed));
    assert_eq!(plain.len(), disturbed.len());
    for (a, b) in plain.iter().zip(&disturbed) {
        assert_eq!(a["axes"][0]["acceleration_rms"], b["axes"][0]["acceleration_rms"]);
        assert_eq!(a["axes"][0]["velocity_rms"], b["axes"][0]["velocity_rms"]);
    }
    assert_eq!(disturbed[0]["quality"]["late"], 512);
    assert_eq!(disturbed[1]["quality"]["late"], 512);
    assert!(flags(&disturbed[1]).contains(&"late"));
}

#[test]
fn trap_6_saturation_is_counted_per_axis() {
    let board = Board::new();
    // +-4 g range: 10 g of sine clips most of the time.
    let loud = |t: f64| 20.0 * wave(t);
    let windows = features(board.blocks(0..60_000, &[&wave, &loud]));
    assert_eq!(windows[1]["axes"][0]["saturated"], 0);
    assert!(number_at(&windows[1], "/axes/1/saturated") > 0.5);
    assert!(flags(&windows[1]).contains(&"saturated"));
    assert_eq!(windows[1]["quality"]["good"], false);
}

#[test]
fn trap_6_a_stuck_axis_is_named() {
    let board = Board::new();
    let sticks = |t: f64| wave(if t > 1.2 && t < 1.5 { 1.2 } else { t });
    let windows = features(board.blocks(0..100_000, &[&wave, &sticks]));
    assert_eq!(flags(&windows[1]), ["stuck"]);
    assert_eq!(windows[1]["axes"][0]["stuck"], false);
    assert_eq!(windows[1]["axes"][1]["stuck"], true);
    assert_eq!(flags(&windows[2]), [""; 0]);
}

#[test]
fn a_dead_sensor_has_no_crest_and_no_kurtosis() {
    let windows = features(Board::new().blocks(0..60_000, &[&|_| 0.0]));
    assert_eq!(windows[1]["axes"][0]["acceleration_rms"], 0);
    assert_eq!(windows[1]["axes"][0]["crest"], Value::Null);
    assert_eq!(windows[1]["axes"][0]["kurtosis"], Value::Null);
    assert_eq!(windows[1]["axes"][0]["stuck"], true);
}

#[test]
fn values_that_are_not_finite_are_held_and_counted() {
    let mut pipeline = Pipeline::new(&config());
    let mut out = Vec::new();
    let axes = ["x".to_owned()];
    for block in 0..8_u64 {
        let mut planar: Vec<f32> = (0..500).map(|i| (i % 50) as f32).collect();
        if block == 1 {
            planar[7] = f32::NAN;
            planar[8] = f32::INFINITY;
        }
        let samples = RawSamples {
            first_sample: block * 500,
            time_ns: START_NS + (block * 500_000_000) as i64,
            axes: &axes,
            rate_hz: 1000.0,
            range: None,
            planar: &mut planar,
        };
        pipeline.push_samples(&key(), samples, &mut out);
    }
    let windows = of_kind(&out, OutputKind::Features);
    assert_eq!(windows[0]["quality"]["non_finite"], 2);
    assert!(flags(&windows[0]).contains(&"non_finite"));
    assert_near(number_at(&windows[0], "/axes/0/acceleration_rms"), 14.43, 0.01);
    assert_eq!(windows[1]["quality"]["non_finite"], 0);
}

#[test]
fn a_wild_clock_is_flagged_and_does_not_touch_the_values() {
    let board = Board::new();
    let mut records = board.blocks(0..160_000, &[&wave]);
    for record in &mut records[150..] {
        record.time_ns += 3_600_000_000_000;
        record.flags |= record_flags::CLOCK_DOUBTFUL;
    }
    let plain = features(board.blocks(0..160_000, &[&wave]));
    let windows = features(records);
    assert!(flags(&windows[2]).contains(&"clock_doubtful") && flags(&windows[3]).contains(&"clock_doubtful"));
    for (a, b) in plain.iter().zip(&windows) {
        assert_near(number_at(b, "/window/duration_s"), 1.0, 1e-5);
        assert_near(number_at(b, "/rate/measured_hz"), number_at(a, "/rate/measured_hz"), 1e-5);
        assert_near(number_at(b, "/axes/0/velocity_rms"), number_at(a, "/axes/0/velocity_rms"), 1e-5);
    }
}

#[test]
fn a_reboot_ends_the_window_and_starts_anew() {
    let board = Board::new();
    let mut records = board.blocks(0..40_000, &[&wave]);
    let again = Board { boot: 8, ..board.clone() };
    records.extend(again.blocks(0..60_000, &[&wave]));
    let windows = features(records);
    let boots: Vec<_> = windows.iter().map(|w| w["source"]["boot"].as_str().expect("boot")).collect();
    assert_eq!(boots, ["0000000000000007", "0000000000000007", "0000000000000008", "0000000000000008"]);
    assert_eq!(windows[1]["quality"]["samples"], 40_000 - 26_667);
    assert_eq!(windows[2]["window"]["index"], 0);
}

#[test]
fn damaged_and_foreign_records_are_counted_and_stop_nothing() {
    let board = Board::new();
    let mut records = board.blocks(0..60_000, &[&wave]);
    records.insert(5, board.record(RecordKind::Block, 0, Bytes::from_static(b"nonsense")));
    records.insert(6, board.record(RecordKind::Gap, 0, Bytes::from_static(b"\xff\xff")));
    records.insert(7, board.record(RecordKind::Json, 0, Bytes::from_static(b"{}")));
    records.insert(8, board.record(RecordKind::Node, 0, Bytes::from_static(b"")));
    records.insert(9, board.record(RecordKind::DeadLetter, 0, Bytes::from_static(b"{}")));
    let mut pipeline = Pipeline::new(&config());
    let mut out = Vec::new();
    for record in &number(records) {
        pipeline.push(record, &mut out);
    }
    assert_eq!(pipeline.stats().undecodable, 3);
    let windows = of_kind(&out, OutputKind::Features);
    assert_eq!(windows.len(), 2);
    assert!(windows.iter().all(|w| w["quality"]["good"] == true));
}
