//! Feature, rollup and alert records against the JSON Schemas that `agent/schema` promises to others.

use spindle_tests::kafka::KafkaRecord;
use spindle_tests::tools;
use std::collections::BTreeMap;

/// Each record must be valid by the schema of its `ce_type`.
pub(crate) fn assert_all_valid(records: &[KafkaRecord]) {
    let mut validators = BTreeMap::new();
    for record in records {
        let kind = record.header("ce_type").to_owned();
        let validator = validators.entry(kind.clone()).or_insert_with(|| validator(&kind));
        let value = record.json().unwrap();
        let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "record {} is not valid by {kind}: {errors:?}\n{value}", record.id());
        assert_eq!(record.header("content-type"), "application/json");
    }
}

fn validator(kind: &str) -> jsonschema::Validator {
    // io.spindle.NAME.v1 is described by agent/schema/NAME.json.
    let name = kind.strip_prefix("io.spindle.").and_then(|kind| kind.strip_suffix(".v1"));
    let name = name.unwrap_or_else(|| panic!("ce_type {kind:?} is not io.spindle.NAME.v1"));
    let path = tools::root().join(format!("agent/schema/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}
