//! Against librdkafka's mock cluster: what a broker answers, and what comes out at the other end.

use super::*;
use crate::config::LaneName;
use crate::forward::log::{Content, Log, Progress};
use crate::record::SensorKey;
use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// A log in memory that tests append to; what lies before `first` is evicted.
#[derive(Clone, Default)]
struct MemoryLog(Arc<Mutex<(u64, Vec<Item>)>>);

impl MemoryLog {
    fn push(&self, key: &str, body: &[u8]) {
        let mut log = self.0.lock();
        let mut parts = key.split('/').map(Arc::<str>::from);
        let mut part = || parts.next().unwrap();
        let key = Arc::new(SensorKey { site: part(), machine: part(), sensor: part() });
        let offset = log.1.len() as u64 + 1;
        let content = Content::Json { body: Bytes::copy_from_slice(body), first_sample: offset * 100 };
        log.1.push(Item { offset, key, time_ns: 1_700_000_000_123_000_000, content });
    }
}

impl Log for MemoryLog {
    fn read(&mut self, from: u64, _: usize, items: &mut VecDeque<Item>) -> Result<Progress, String> {
        let log = self.0.lock();
        if from < log.0 {
            return Ok(Progress::Evicted(log.0));
        }
        let rest: Vec<Item> = log.1.iter().filter(|item| item.offset >= from).take(100).cloned().collect();
        let Some(last) = rest.last() else { return Ok(Progress::Idle) };
        let next = last.offset + 1;
        items.extend(rest);
        Ok(Progress::To(next))
    }
}

struct Bench {
    cluster: MockCluster<'static, DefaultProducerContext>,
    dir: tempfile::TempDir,
    raw: MemoryLog,
    alerts: MemoryLog,
    properties: BTreeMap<String, String>,
}

impl Bench {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["t.raw.v1", "t.features.v1", "t.alerts.v1", "t.dlq.v1"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let (raw, alerts) = (MemoryLog::default(), MemoryLog::default());
        Self { cluster, dir: tempfile::tempdir().unwrap(), raw, alerts, properties: BTreeMap::new() }
    }

    fn destination(&self) -> KafkaDestination {
        let text = format!("brokers = \"{}\"\ntopic_prefix = \"t\"", self.cluster.bootstrap_servers());
        let mut config: KafkaForward = toml::from_str(&text).unwrap();
        config.properties = self.properties.clone();
        let logs: Lanes = vec![
            (LaneName::Alerts, Box::new(self.alerts.clone())),
            (LaneName::Raw, Box::new(self.raw.clone())),
        ];
        KafkaDestination::new(&config, "gw", self.dir.path(), logs, Clock::system()).unwrap()
    }

    /// Runs a destination until `done` says so, at most 30 s, then stops it in order.
    fn run(&self, done: impl Fn(&Stats) -> bool) -> Arc<Stats> {
        let mut destination = self.destination();
        let stats = destination.stats();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // A test that fails must not wait for ever for the destination's end.
            let _stop = SetOnDrop(&stop);
            scope.spawn(|| destination.run(&stop).unwrap());
            wait_until(|| done(&stats));
        });
        stats
    }

    /// Everything that `topic` holds: key, ce_id, payload.
    fn consume(&self, topic: &str, at_least: usize) -> Vec<(String, String, Vec<u8>)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "test")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let mut found = Vec::new();
        wait_until(|| {
            while let Some(Ok(message)) = consumer.poll(Duration::from_millis(300)) {
                let headers = message.headers().unwrap();
                let id = headers.iter().find(|header| header.key == "ce_id").unwrap().value.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push((text(message.key().unwrap()), text(id), message.payload().unwrap().to_vec()));
                assert_eq!(message.timestamp().to_millis(), Some(1_700_000_000_123));
            }
            found.len() >= at_least
        });
        found
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a real client and a mock broker in their own threads need real time"
)]
fn wait_until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "still not so after 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn records_arrive_in_order_with_key_id_and_event_time() {
    let bench = Bench::new();
    for number in 0..500 {
        bench.raw.push("plant/mill/spindle", format!("{number}").as_bytes());
    }
    bench.alerts.push("plant/mill/spindle", b"{}");
    let stats = bench.run(|stats| count(&stats.raw.delivered) == 500 && count(&stats.alerts.delivered) == 1);
    assert_eq!(count(&stats.raw.cursor), 501);
    let found = bench.consume("t.raw.v1", 500);
    let payloads: Vec<Vec<u8>> = (0..500).map(|number| format!("{number}").into_bytes()).collect();
    assert_eq!(found.iter().map(|(_, _, payload)| payload.clone()).collect::<Vec<_>>(), payloads);
    assert_eq!((found[3].0.as_str(), found[3].1.as_str()), ("plant/mill/spindle", "plant/mill/spindle/400"));
}

#[test]
fn a_restart_goes_on_at_the_cursor_and_repeats_nothing_after_an_orderly_stop() {
    let bench = Bench::new();
    for number in 0..100 {
        bench.raw.push("a/b/c", format!("{number}").as_bytes());
    }
    bench.run(|stats| count(&stats.raw.delivered) == 100);
    for number in 100..150 {
        bench.raw.push("a/b/c", format!("{number}").as_bytes());
    }
    let stats = bench.run(|stats| count(&stats.raw.delivered) == 50);
    assert_eq!(count(&stats.raw.cursor), 151);
    let found = bench.consume("t.raw.v1", 150);
    assert_eq!(found.len(), 150);
    assert_eq!(found[149].2, b"149");
}

#[test]
fn a_record_too_large_goes_to_the_dead_letters_with_its_reason_and_the_next_go_on() {
    let mut bench = Bench::new();
    bench.properties.insert("message.max.bytes".into(), "20000".into());
    bench.raw.push("a/b/c", b"before");
    bench.raw.push("a/b/c", &vec![b'x'; 30_000]);
    bench.raw.push("a/b/c", b"after");
    let stats = bench.run(|stats| count(&stats.raw.delivered) == 3);
    assert_eq!(count(&stats.raw.dead), 1);
    let found = bench.consume("t.raw.v1", 2);
    assert_eq!(found.iter().map(|record| &record.2[..]).collect::<Vec<_>>(), [&b"before"[..], b"after"]);
    let letters = bench.consume("t.dlq.v1", 1);
    let letter: serde_json::Value = serde_json::from_slice(&letters[0].2).unwrap();
    assert!(letter["reason"].as_str().unwrap().contains("too large"), "{letter}");
    assert_eq!((&letter["topic"], &letter["payload_bytes"]), (&"t.raw.v1".into(), &30_000.into()));
    assert_eq!(letters[0].1, "gw/undeliverable/raw/2");
}

#[test]
fn a_record_that_the_broker_refuses_twice_is_condemned_and_its_neighbours_arrive() {
    let bench = Bench::new();
    bench.raw.push("a/b/c", b"refused");
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &[refusal; 2]);
    let stats = bench.run(|stats| count(&stats.raw.delivered) == 1);
    assert_eq!((count(&stats.raw.dead), count(&stats.raw.failed)), (1, 2));
    assert_eq!(bench.consume("t.dlq.v1", 1).len(), 1);
}

#[test]
fn errors_of_the_broker_that_pass_lose_and_repeat_nothing() {
    let bench = Bench::new();
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &errors);
    for number in 0..200 {
        bench.raw.push("a/b/c", format!("{number}").as_bytes());
    }
    bench.run(|stats| count(&stats.raw.delivered) == 200);
    let found = bench.consume("t.raw.v1", 200);
    let payloads: Vec<Vec<u8>> = (0..200).map(|number| format!("{number}").into_bytes()).collect();
    assert_eq!(found.into_iter().map(|record| record.2).collect::<Vec<_>>(), payloads);
}

#[test]
fn a_producer_beyond_repair_is_replaced_and_nothing_is_lost() {
    let bench = Bench::new();
    for number in 0..50 {
        bench.raw.push("a/b/c", format!("{number}").as_bytes());
    }
    // At the head of the line this error is fatal to an idempotent producer.
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
    bench.run(|stats| count(&stats.raw.cursor) == 51);
    let found = bench.consume("t.raw.v1", 50);
    let first_of = |number: u32| found.iter().position(|record| record.2 == format!("{number}").as_bytes());
    let order: Vec<Option<usize>> = (0..50).map(first_of).collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?}");
}

#[test]
fn a_topic_that_is_refused_is_said_and_holds_up_no_other_topic() {
    let bench = Bench::new();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    bench.cluster.topic_error("t.alerts.v1", refused).unwrap();
    bench.alerts.push("a/b/c", b"{}");
    bench.raw.push("a/b/c", b"1");
    let seen = Mutex::new(None);
    let stats = bench.run(|stats| {
        let mut seen = seen.lock();
        if let Some(problem) = stats.problem.lock().clone() {
            *seen = Some(problem);
        }
        count(&stats.raw.delivered) == 1 && seen.is_some()
    });
    assert!(seen.lock().as_deref().unwrap().to_lowercase().contains("authorization"), "{seen:?}");
    assert_eq!((count(&stats.alerts.cursor), count(&stats.alerts.delivered)), (1, 0), "the alert is kept");

    let allowed = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    bench.cluster.topic_error("t.alerts.v1", allowed).unwrap();
    bench.run(|stats| count(&stats.alerts.delivered) == 1);
}

#[test]
fn an_outage_is_waited_for_and_the_backlog_follows_in_order() {
    let bench = Bench::new();
    bench.cluster.broker_down(1).unwrap();
    for number in 0..300 {
        bench.raw.push("a/b/c", format!("{number}").as_bytes());
    }
    let up = AtomicBool::new(false);
    bench.run(|stats| {
        if count(&stats.raw.sent) == 300 && !up.swap(true, Ordering::Relaxed) {
            assert_eq!(count(&stats.raw.delivered), 0);
            bench.cluster.broker_up(1).unwrap();
        }
        count(&stats.raw.delivered) == 300
    });
    let found = bench.consume("t.raw.v1", 300);
    assert_eq!(found.len(), 300);
    assert!((0..300).all(|number| found[number].2 == format!("{number}").as_bytes()));
}

#[test]
fn what_was_evicted_before_it_could_go_out_is_counted() {
    let bench = Bench::new();
    for _ in 0..10 {
        bench.raw.push("a/b/c", b"x");
    }
    bench.raw.0.lock().0 = 7;
    let stats = bench.run(|stats| count(&stats.raw.delivered) == 4);
    assert_eq!(count(&stats.raw.evicted), 6);
}
