//! What the other tests stand on: the servers behave as servers do.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::{self, Mosquitto};
use spindle_tests::pty::PtyPair;
use spindle_tests::tools;
use std::io::{Read, Write};
use std::time::Duration;

#[test]
fn kafka_keeps_what_it_acknowledged_through_a_kill() {
    let mut kafka = Kafka::start().unwrap();
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", kafka.address())
        .set("acks", "all")
        .create_with_context(rdkafka::producer::DefaultProducerContext)
        .unwrap();
    for number in 0..100 {
        let (key, value) = (format!("key-{}", number % 7), number.to_string());
        producer.send(BaseRecord::to("kept").key(&key).payload(&value)).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    kafka.kill();
    kafka.start_again().unwrap();
    let records = kafka.read("kept").unwrap();
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|record| record.key.starts_with("key-") && record.timestamp_ms > 0));
    assert!(kafka.read("never-written").unwrap().is_empty());
}

#[test]
fn mosquitto_starts_again_on_its_port() {
    let mut broker = Mosquitto::start("").unwrap();
    mosquitto::publish(broker.port(), "a/b", "before").unwrap();
    broker.restart().unwrap();
    mosquitto::publish(broker.port(), "a/b", "after").unwrap();
}

#[test]
fn a_pseudo_terminal_pair_carries_bytes_and_can_be_unplugged() {
    let mut pair = PtyPair::start().unwrap();
    for _ in 0..2 {
        let mut gateway = std::fs::File::open(pair.gateway()).unwrap();
        let mut board = std::fs::OpenOptions::new().write(true).open(pair.board()).unwrap();
        board.write_all(&[0, 1, 3, 4, 13, 10, 17, 19, 255]).unwrap();
        let mut bytes = [0; 9];
        gateway.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 3, 4, 13, 10, 17, 19, 255]);
        pair.unplug();
        assert!(!pair.board().exists());
        pair.plug_in().unwrap();
    }
}

#[test]
fn python_has_numpy_and_scipy() {
    let mut command = std::process::Command::new(tools::python().unwrap());
    tools::output_of(command.args(["-c", "import numpy, scipy"])).unwrap();
}
