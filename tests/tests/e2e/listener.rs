//! The built-in MQTT listener, with the clients that everyone has.

use spindle_tests::agent::Agent;
use spindle_tests::kafka::Kafka;
use spindle_tests::node::{Node, Script};
use spindle_tests::process::{self, Process};
use spindle_tests::wait::PATIENCE;
use spindle_tests::{mosquitto, raw, tools, wait};
use std::time::Duration;

const MAPPING: &str = r#"
[[source.json]]
name = "any"
topic = "plant/{machine}/{sensor}"
site = "works"
unit = "m/s2"
rate_hz = 10.0
channels = [{ axis = "x", field = "x" }]
"#;

fn config(port: u16, kafka: &Kafka, prefix: &str) -> String {
    format!(
        "[source.listener]\nbind = \"127.0.0.1:{port}\"\n\n\
         [forward.kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{prefix}\"\n{MAPPING}",
        kafka.address()
    )
}

#[test]
fn what_mosquitto_pub_got_a_puback_for_survives_a_kill_of_the_gateway() {
    let kafka = Kafka::shared().unwrap();
    let port = tools::free_port().unwrap();
    let mut agent = Agent::started(&config(port, kafka, "listener")).unwrap();
    let mut sent = Vec::new();
    for round in 0..4 {
        for number in 0..5 {
            let message = format!(r#"{{"x": [{round}, {number}]}}"#);
            mosquitto::publish(port, "plant/lathe/spindle", &message).unwrap();
            sent.push(message);
        }
        agent.kill();
        agent.start().unwrap();
    }
    let records =
        kafka.read_until("listener.raw.v1", PATIENCE, |records| records.len() >= sent.len()).unwrap();
    let (unique, _) = raw::without_duplicates(records).unwrap();
    let received: Vec<_> =
        unique.iter().map(|record| String::from_utf8(record.value.clone()).unwrap()).collect();
    assert_eq!(received, sent);
    agent.stop().unwrap();
}

#[test]
fn a_node_and_mosquitto_sub_use_the_listener_as_their_broker() {
    let kafka = Kafka::shared().unwrap();
    let port = tools::free_port().unwrap();
    let mut agent = Agent::started(&config(port, kafka, "direct")).unwrap();

    let folder = process::folder("sub").unwrap();
    let mut command = tools::command("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-v", "-t", "plant/#"]);
    let mut subscriber = Process::spawn("mosquitto_sub", &mut command, &folder.path().join("log")).unwrap();
    let seen = wait::until("mosquitto_sub to see what mosquitto_pub sent", PATIENCE, || {
        mosquitto::publish(port, "plant/lathe/spindle", r#"{"x": 1.5}"#)?;
        subscriber.ensure_running()?;
        Ok(subscriber.log().lines().next().map(str::to_owned))
    });
    assert_eq!(seen.unwrap(), r#"plant/lathe/spindle {"x": 1.5}"#);

    let node = Node::start(port, Script::new("direct", 200)).unwrap();
    let script = node.finish(PATIENCE).unwrap();
    let enough = |records: &[_]| raw_blocks(records) >= 200;
    let records = kafka.read_until("direct.raw.v1", PATIENCE, enough).unwrap();
    let streams = raw::streams(&records).unwrap();
    let stream = &streams[&("direct".to_owned(), script.boot, 0)];
    assert_eq!(raw::first_difference(&stream.channels[0], &script.channel(0)), None);
    agent.stop().unwrap();
    subscriber.terminate(Duration::from_secs(10)).unwrap();
}

fn raw_blocks(records: &[spindle_tests::kafka::KafkaRecord]) -> usize {
    records.iter().filter(|record| record.header("content-type") != "application/json").count()
}
