//! An alert is raised and cleared once in its topic, whatever the gateway goes through meanwhile.

use spindle_tests::agent::Agent;
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::node::{Node, Script};
use spindle_tests::raw;
use spindle_tests::wait::PATIENCE;
use std::collections::BTreeMap;

const RULE: &str = r#"
[[rule]]
name = "too-rough"
feature = "acceleration_rms"
unit = "m/s2"
above = 1.0
deadband = 0.2
on_delay = "3s"
severity = "alarm"
"#;

#[test]
fn an_alert_is_raised_once_and_cleared_once_though_the_gateway_is_killed_while_it_stands() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "alerts", RULE)).unwrap();
    // 8 blocks a second: rough for 10 s, quiet for 10 s.
    let script = Script { quiet_from: 80, pace_hz: Some(40), ..Script::new("rough", 160) };
    let node = Node::start(broker.port(), script).unwrap();
    for acknowledged in [40, 70] {
        node.wait_acknowledged(acknowledged, PATIENCE).unwrap();
        agent.kill();
        agent.start().unwrap();
    }
    node.finish(PATIENCE).unwrap();
    let complete = |records: &[_]| raw::count_different(records) >= 6;
    let records = kafka.read_until("alerts.alerts.v1", PATIENCE, complete).unwrap();
    let (unique, _) = raw::without_duplicates(records).unwrap();
    crate::schema::assert_all_valid(&unique);

    let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in &unique {
        let alert = record.json().unwrap();
        assert_eq!(record.key, "site/machine/rough-acc");
        assert_eq!(alert["rule"], "too-rough");
        assert_eq!(alert["severity"], "alarm");
        let axis = alert["axis"].as_str().unwrap().to_owned();
        events.entry(axis).or_default().push(alert["event"].as_str().unwrap().to_owned());
    }
    let once = ["raised", "cleared"].map(str::to_owned).to_vec();
    let expected: BTreeMap<_, _> = ["x", "y", "z"].map(|axis| (axis.to_owned(), once.clone())).into();
    assert_eq!(events, expected);

    // Features of white noise of 65536 / 64 / sqrt(12) counts of 0.00980665 m/s².
    let features = kafka.read("alerts.features.v1").unwrap();
    crate::schema::assert_all_valid(&features);
    let first = features
        .iter()
        .map(|record| record.json().unwrap())
        .find(|json| json["window"]["index"] == 2)
        .unwrap();
    let rms = first["axes"][0]["acceleration_rms"].as_f64().unwrap();
    assert!((rms - 2.899).abs() < 0.06, "{rms}");
    agent.stop().unwrap();
}
