//! JSON sensors of other makers, published as a shell user would.

use serde_json::json;
use spindle_tests::agent::Agent;
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::{self, Mosquitto};
use spindle_tests::wait::PATIENCE;

const MAPPING: &str = r#"
[[source.json]]
name = "pump-house"
topic = "plant/{machine}/{sensor}/acc"
site = "works"
unit = "g"
rate_hz = 100.0
channels = [{ axis = "x", field = "ax" }, { axis = "y", field = "/data/ay" }]
time = { field = "t", format = "unix_ms" }
"#;

fn good(index: u64) -> String {
    let samples = |offset: u64| {
        (0..20).map(|n| f64::from((index * 20 + n + offset) as u32 % 97) / 97.0).collect::<Vec<_>>()
    };
    json!({ "t": 1_760_000_000_000_u64 + index * 200, "ax": samples(0), "data": { "ay": samples(31) } })
        .to_string()
}

#[test]
fn good_json_reaches_kafka_and_bad_json_the_dead_letters_with_its_reason() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "json", MAPPING)).unwrap();
    // mosquitto_pub will not say it again.
    agent.process().unwrap().wait_for_log("subscribed", PATIENCE).unwrap();

    let bad = [
        ("plant/pump1/de/acc", "no json at all".to_owned(), ""),
        ("plant/pump1/de/acc", r#"{"t": 1760000000000, "ax": [1, 2]}"#.to_owned(), "ay"),
        ("plant/pump1/de/acc", r#"{"t": "yesterday", "ax": [1], "data": {"ay": [1]}}"#.to_owned(), "t"),
        (
            "plant/pump1/de/acc",
            r#"{"t": 1760000000000, "ax": ["one"], "data": {"ay": [1]}}"#.to_owned(),
            "ax",
        ),
        (
            "plant/pump1/de/acc",
            r#"{"t": 1760000000000, "ax": [1, 2, 3], "data": {"ay": [1]}}"#.to_owned(),
            "",
        ),
        ("plant/pump 1/de/acc", good(0), "pump 1"),
    ];
    let mut sent = Vec::new();
    for index in 0..30 {
        let message = good(index);
        mosquitto::publish(broker.port(), "plant/pump1/de/acc", &message).unwrap();
        sent.push(message);
        if let Some((topic, message, _)) = bad.get(usize::try_from(index).unwrap()) {
            mosquitto::publish(broker.port(), topic, message).unwrap();
        }
    }

    let raw = kafka.read_until("json.raw.v1", PATIENCE, |records| records.len() >= sent.len()).unwrap();
    let received: Vec<_> =
        raw.iter().map(|record| String::from_utf8(record.value.clone()).unwrap()).collect();
    assert_eq!(received, sent, "the good messages, as they came and in order");
    for (index, record) in raw.iter().enumerate() {
        assert_eq!(record.key, "works/pump1/de");
        assert_eq!(record.header("content-type"), "application/json");
        assert_eq!(record.id(), format!("works/pump1/de/{}", index * 20));
        assert_eq!(record.header("ce_source"), "/spindle/gw-test");
        assert_eq!(record.header("ce_specversion"), "1.0");
        assert_eq!(record.timestamp_ms, 1_760_000_000_000 + i64::try_from(index).unwrap() * 200);
    }

    let dead = kafka.read_until("json.dlq.v1", PATIENCE, |records| records.len() >= bad.len()).unwrap();
    assert_eq!(dead.len(), bad.len());
    for (_, message, named) in &bad {
        let about = dead
            .iter()
            .map(|record| record.json().unwrap())
            .find(|letter| letter.to_string().contains(named));
        let letter =
            about.unwrap_or_else(|| panic!("no dead letter names {named:?} for {message}: {dead:?}"));
        assert!(letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{letter}");
    }

    // 30 messages of 0.2 s are 6 s: at least four whole windows of a second.
    let features = kafka.read_until("json.features.v1", PATIENCE, |records| records.len() >= 4).unwrap();
    crate::schema::assert_all_valid(&features);
    assert!(features.iter().all(|record| record.key == "works/pump1/de"));
    agent.stop().unwrap();
}
