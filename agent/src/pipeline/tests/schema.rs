//! Every record is valid by the JSON Schemas that `agent/schema` promises to others, and they know the same words.

use super::*;
use crate::config::{Band, LimitRule, Severity};
use std::time::Duration;

fn schema(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("a schema")).expect("JSON")
}

#[test]
fn every_record_of_a_rough_day_is_valid() {
    let mut config = config();
    config.anomaly.learning_windows = 2;
    config.pipeline.high_frequency_hz = 1000.0;
    config.pipeline.spectrum.every = Duration::from_secs(1);
    config.pipeline.spectrum.average = Duration::from_secs(1);
    config.rules = FEATURES
        .map(|feature| LimitRule {
            name: feature.name.into(),
            sensor: "s/*/*".into(),
            axis: "*".into(),
            feature: feature.name.into(),
            unit: feature.unit.into(),
            above: if feature.name == "anomaly_score" { 5.0 } else { 0.5 },
            deadband: 0.1,
            on_delay: Duration::ZERO,
            severity: Severity::Advisory,
        })
        .to_vec();
    config.pipeline.bands = [("low", 0.0, 100.0), ("beyond", 5000.0, 6000.0)]
        .map(|(name, low_hz, high_hz)| Band { name: name.into(), low_hz, high_hz })
        .to_vec();
    config.rules.push(LimitRule {
        name: "low".into(),
        feature: "band:low".into(),
        unit: "m/s2".into(),
        ..config.rules[0].clone()
    });
    let board = Board { rate_nominal_hz: 3000.0, rate_hz: 2990.0, ..Board::new() };
    let quiet = |t: f64| 0.1 * (700.0 * t).sin();
    let rough = |t: f64| quiet(t) * if t > 5.0 { 500.0 } else { 1.0 };
    let silent = |t: f64| if t > 6.0 { 0.0 } else { quiet(t) };
    let mut records = board.blocks(0..20_480, &[&quiet, &rough, &silent]);
    records.push(board.gap(20_480, 2048));
    records.extend(board.blocks(22_528..30_000, &[&quiet, &quiet, &silent]));
    records.extend(Board { boot: 99, ..board }.blocks(0..9000, &[&quiet, &quiet, &quiet]));
    let outputs = run(&config, records);
    for (kind, name) in [
        (OutputKind::Features, "features.json"),
        (OutputKind::Rollup, "rollup.json"),
        (OutputKind::Spectrum, "spectrum.json"),
        (OutputKind::Alert, "alert.json"),
    ] {
        let validator = jsonschema::validator_for(&schema(name)).expect("a valid schema");
        let records = of_kind(&outputs, kind);
        assert!(records.len() >= 8, "{name}: {}", records.len());
        for record in &records {
            let errors: Vec<_> = validator.iter_errors(record).map(|error| error.to_string()).collect();
            assert_eq!(errors, [""; 0], "{record}");
        }
    }
    let alerts = of_kind(&outputs, OutputKind::Alert);
    assert!(alerts.iter().any(|alert| alert["feature"] == "anomaly_score" && alert["because"].is_string()));
}

#[test]
fn schema_and_code_know_the_same_features_and_flags() {
    let features = schema("features.json");
    let flags: Vec<_> = FLAG_NAMES.into_iter().map(Value::from).collect();
    assert_eq!(
        features.pointer("/properties/quality/properties/flags/items/enum"),
        Some(&Value::from(flags))
    );
    for feature in FEATURES {
        let unit = format!("/properties/measures/properties/{}/properties/unit/const", feature.name);
        assert_eq!(features.pointer(&unit), Some(&Value::from(feature.unit)), "{}", feature.name);
    }
    let names: Vec<_> = FEATURES.iter().map(|feature| Value::from(feature.name)).collect();
    assert_eq!(schema("alert.json").pointer("/properties/feature/anyOf/0/enum"), Some(&Value::from(names)));
}

#[test]
fn the_handbook_names_every_feature_and_flag() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("RECORDS.md");
    let text = std::fs::read_to_string(path).expect("RECORDS.md");
    for word in FEATURES.iter().map(|feature| feature.name).chain(FLAG_NAMES) {
        assert!(text.contains(&format!("`{word}`")), "{word}");
    }
}
