//! Nodes that send less: thinned out samples, and features of their own.

use super::*;
use crate::config::{Band, LimitRule, Severity};
use crate::record::record_flags;
use spindle_common::wire::messages::AxisFeatures;
use std::collections::HashSet;
use std::time::Duration;

/// A block of the sensor's samples `first` on, one in `decimation`.
fn decimated(
    board: &Board,
    first: u64,
    samples: u16,
    decimation: u16,
    signal: &dyn Fn(f64) -> f64,
) -> Record {
    let header = BlockHeader {
        node: "n",
        boot: BootId(board.boot),
        stream: StreamId(0),
        seq: Seq(first as u32),
        first_sample: first,
        tick: first,
        tick_hz: 1_000_000,
        rate_nominal_mhz: (board.rate_nominal_hz * 1000.0) as u32,
        rate_measured_mhz: (board.rate_hz * 1000.0) as u32,
        scale: board.scale,
        bits: 16,
        axes: 1,
        samples,
        flags: 0,
        encoding: Encoding::Raw16,
        decimation,
    };
    let at = |i: u16| (first + u64::from(i) * u64::from(decimation)) as f64 / board.rate_hz;
    let counts: Vec<i16> = (0..samples).map(|i| (signal(at(i)) / f64::from(board.scale)) as i16).collect();
    let mut body = vec![0; 8192];
    let len = encode_block(&header, Samples::I16(&counts), &mut body).expect("a valid block");
    body.truncate(len);
    board.record(RecordKind::Block, first, body.into())
}

fn features(board: &Board, first: u64, samples: u32, rms: f32, flags: u16) -> Record {
    let axis = |rms: f32| AxisFeatures {
        rms,
        peak: 2.0 * rms,
        peak_to_peak: 4.0 * rms,
        kurtosis: 3.0,
        velocity_rms: 1.5,
        mean: 9.75,
    };
    let message = wire::Features {
        node: "n",
        boot: BootId(board.boot),
        stream: StreamId(0),
        seq: Seq(first as u32),
        first_sample: first,
        samples,
        tick: first,
        tick_hz: 1_000_000,
        rate_measured_mhz: (board.rate_hz * 1000.0) as u32,
        flags,
        // The second channel stands still in the first window.
        axes: [axis(rms), axis(if first == 52_000 { 0.0 } else { 0.5 })].into_iter().collect(),
    };
    let mut body = vec![0; 512];
    let len = message.encode(&mut body).expect("valid features");
    body.truncate(len);
    board.record(RecordKind::Node, first, body.into())
}

fn board() -> Board {
    Board { rate_nominal_hz: 8000.0, rate_hz: 8008.0, scale: 0.001, ..Board::new() }
}

fn config() -> Config {
    let mut config = super::config();
    config.anomaly.learning_windows = 3;
    config.pipeline.bands = vec![Band { name: "low".into(), low_hz: 10.0, high_hz: 400.0 }];
    config.pipeline.spectrum.every = Duration::from_secs(2);
    config.pipeline.spectrum.average = Duration::from_secs(2);
    config.rules = vec![LimitRule {
        name: "high".into(),
        sensor: "*/*/*".into(),
        axis: "*".into(),
        feature: "acceleration_rms".into(),
        unit: "m/s2".into(),
        above: 5.0,
        deadband: 0.5,
        on_delay: Duration::ZERO,
        severity: Severity::Alarm,
    }];
    config
}

/// Seconds of raw samples, of decimated ones with a gap in them, of features, and of raw samples again.
fn scene() -> Vec<Record> {
    let board = board();
    let wave = |t: f64| 1.5 * (2.0 * std::f64::consts::PI * 120.0 * t).sin();
    let mut records = board.blocks(0..20_000, &[&wave]);
    // To sample 52,000, in blocks of 200 for 1600; one is missing.
    for block in 0..20u64 {
        match block {
            7 => records.push(board.gap(20_000 + 7 * 1600, 1600)),
            _ => records.push(decimated(&board, 20_000 + block * 1600, 200, 8, &wave)),
        }
    }
    for second in 0..6u64 {
        let rms = if second == 4 { 8.0 } else { 1.0 + second as f32 * 0.01 };
        records.push(features(&board, 52_000 + second * 8000, 8000, rms, 0));
    }
    records.extend(board.blocks(100_000..120_000, &[&wave]));
    records
}

#[test]
fn a_thinned_out_stream_is_a_stream_of_its_own_rate() {
    let outputs = run(&config(), scene());
    let records = of_kind(&outputs, OutputKind::Features);
    let thinned: Vec<_> = records.iter().filter(|r| r["rate"]["nominal_hz"] == 1000.0).collect();
    // Samples 2500 to 6500 of the thinned out stream: the rest of window 2, windows 3 to 5, and half of window 6.
    let places: Vec<_> = thinned.iter().map(|r| number_at(r, "/window/first_sample")).collect();
    assert_eq!(places, [2000.0, 3000.0, 4000.0, 5000.0, 6000.0]);
    let samples: Vec<_> = thinned.iter().map(|r| number_at(r, "/quality/samples")).collect();
    assert_eq!(samples, [500.0, 900.0, 900.0, 1000.0, 500.0]);
    assert_near(number_at(thinned[3], "/rate/measured_hz"), 1001.0, 1e-6);
    assert_near(number_at(thinned[3], "/axes/0/acceleration_rms"), 1.5 / 2f64.sqrt(), 1e-3);
    // 1.5 m/s² at 120 Hz.
    let velocity = 1500.0 / (2.0 * std::f64::consts::PI * 120.0) / 2f64.sqrt();
    assert_near(number_at(thinned[3], "/axes/0/velocity_rms"), velocity, 0.02);
    assert_eq!(thinned[3]["computed_by"], "gateway");
    assert!(thinned[3]["quality"]["good"].as_bool().unwrap());
    assert!(thinned[1]["quality"]["flags"].as_array().unwrap().contains(&"gap".into()));
}

#[test]
fn a_nodes_own_features_are_records_like_others_and_raise_alerts() {
    let outputs = run(&config(), scene());
    let records = of_kind(&outputs, OutputKind::Features);
    let own: Vec<_> = records.iter().filter(|r| r["computed_by"] == "node").collect();
    assert_eq!(own.len(), 6);
    let first = own[0];
    assert_eq!(
        first["id"],
        format!("s/m/a/features/n/{:016x}/0/node/52000/{}", 7, first["config"].as_str().unwrap())
    );
    assert_eq!(number_at(first, "/window/first_sample"), 52_000.0);
    assert_eq!(number_at(first, "/window/samples"), 8000.0);
    assert_near(number_at(first, "/window/duration_s"), 8000.0 / 8008.0, 1e-6);
    assert_eq!(first["start_ns"], board().time_of(52_000));
    assert_eq!(first["axes"][0]["crest"], 2.0);
    // A channel that does not move.
    assert_eq!((&first["axes"][1]["crest"], &first["axes"][1]["kurtosis"]), (&Value::Null, &Value::Null));
    assert_eq!(first["measures"]["velocity_rms"]["band_hz"], serde_json::json!([10, 1000]));
    // What nodes do not compute.
    for name in ["skewness", "displacement_peak_to_peak", "high_frequency_rms"] {
        assert_eq!(first["axes"][0][name], Value::Null, "{name}");
        assert_eq!(first["measures"][name]["band_hz"], Value::Null, "{name}");
    }
    assert_eq!(first["axes"][0]["bands"], serde_json::json!({ "low": null }));
    let states: Vec<_> = own.iter().map(|r| r["anomaly"]["state"].as_str().unwrap()).collect();
    assert_eq!(states[0], "learning");
    assert!(number_at(own[4], "/axes/0/anomaly_score") > 8.0, "{}", own[4]);
    let alerts = of_kind(&outputs, OutputKind::Alert);
    let events: Vec<_> = alerts.iter().map(|alert| alert["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["raised", "cleared"]);
    assert_eq!(alerts[0]["features"], own[4]["id"]);
}

#[test]
fn no_id_comes_twice_when_the_step_changes_in_mid_window() {
    let mut outputs = run(&config(), scene());
    let board = board();
    let wave = |t: f64| (300.0 * t).sin();
    // Raw, thinned out, and raw again within one second; and another number of axes.
    let mut records = board.blocks(0..1024, &[&wave]);
    records.push(decimated(&board, 1024, 100, 8, &wave));
    records.extend(board.blocks(1824..4000, &[&wave]));
    records.extend(board.blocks(4000..12_000, &[&wave, &wave]));
    records.extend(board.blocks(12_000..18_000, &[&wave]));
    outputs.extend(run(&config(), records.into_iter().map(|r| Record { key: other(), ..r }).collect()));
    let ids: HashSet<_> = outputs.iter().map(|output| output.ce_id.clone()).collect();
    assert_eq!(ids.len(), outputs.len());
}

fn other() -> Arc<SensorKey> {
    Arc::new(SensorKey { site: "s".into(), machine: "m".into(), sensor: "b".into() })
}

#[test]
fn features_lost_late_and_saturated_are_flagged() {
    let board = board();
    let saturated = wire::block::flags::SATURATED;
    let mut late = features(&board, 8000, 8000, 1.0, 0);
    late.flags |= record_flags::LATE;
    let records = vec![
        features(&board, 0, 8000, 1.0, 0),
        board.gap(8000, 8000),
        features(&board, 16_000, 8000, 1.0, saturated),
        late,
        features(&board, 16_000, 8000, 1.0, 0),
        features(&board, 24_000, 8000, 1.0, 0),
    ];
    let records = of_kind(&run(&config(), records), OutputKind::Features);
    assert_eq!(records.len(), 3);
    assert_eq!(records[1]["quality"]["flags"], serde_json::json!(["gap", "saturated"]));
    assert_eq!(number_at(&records[1], "/quality/gap_before"), 8000.0);
    assert_eq!(records[1]["axes"][0]["saturated"], Value::Null);
    assert_eq!(records[2]["axes"][0]["saturated"], 0.0);
    assert_eq!(records[2]["quality"]["good"], true);
}

#[test]
fn a_restart_at_any_record_changes_no_byte() {
    let records = number(scene());
    let text = |outputs: &[Output]| -> Vec<_> {
        outputs.iter().map(|o| (o.ce_id.to_string(), o.json.clone(), o.time_ns)).collect()
    };
    let wanted = run(&config(), records.clone());
    for at in (0..records.len()).step_by(3) {
        let mut pipeline = Pipeline::new(&config());
        let mut outputs = Vec::new();
        for record in &records[..at] {
            pipeline.push(record, &mut outputs);
        }
        let mut commit = Commit::default();
        pipeline.save(&mut commit, true);
        let loaded = Loaded { checkpoint: commit.checkpoint, sensors: commit.sensors };
        let (mut pipeline, errors) = Pipeline::restore(&config(), &loaded);
        assert!(errors.is_empty(), "{errors:?}");
        for record in &records[at..] {
            pipeline.push(record, &mut outputs);
        }
        assert!(text(&outputs) == text(&wanted), "restart at record {at}");
    }
}

#[test]
fn records_of_every_step_are_valid_by_the_schema() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/features.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for record in of_kind(&run(&config(), scene()), OutputKind::Features) {
        let errors: Vec<_> = validator.iter_errors(&record).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{record}");
    }
}
