//! Kafka in this process: librdkafka's mock cluster, and a consumer that reads everything back and compares it with what
//! the models produced, sample by sample.

use super::view::View;
use anyhow::Context as _;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use spindle_common::wire::{self, Message};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Partitions of each topic.
const PARTITIONS: i32 = 3;
/// The four topics, in the order that the consumer counts them.
const TOPICS: [&str; 4] = ["spindle.raw.v1", "spindle.features.v1", "spindle.alerts.v1", "spindle.dlq.v1"];

/// The mock cluster with its topics.
pub(super) fn cluster() -> anyhow::Result<MockCluster<'static, DefaultProducerContext>> {
    let cluster = MockCluster::new(1).context("librdkafka's mock cluster does not start")?;
    for topic in TOPICS {
        cluster.create_topic(topic, PARTITIONS, 1).with_context(|| format!("mock topic {topic}"))?;
    }
    Ok(cluster)
}

/// Gives the samples that a model produced since the last call, channels interleaved.
pub(super) type Take = Box<dyn FnMut() -> Vec<i32> + Send>;

/// One sensor's stream as it must come.
struct Expected {
    take: Take,
    axes: usize,
    samples: VecDeque<i32>,
    /// Index of the first frame in `samples`.
    at: u64,
}

/// What a block was.
#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    same: u64,
    different: u64,
    missing: u64,
    repeated: u64,
}

impl Expected {
    /// Compares a block's samples (planar, counts) that begin at frame `first`.
    fn compare(&mut self, first: u64, planar: &[i32]) -> Compared {
        let mut result = Compared::default();
        let frames = planar.len() / self.axes.max(1);
        if first < self.at {
            result.repeated = frames as u64;
            return result;
        }
        self.samples.extend((self.take)());
        while self.at < first && self.samples.len() >= self.axes {
            self.samples.drain(..self.axes);
            self.at += 1;
            result.missing += 1;
        }
        for frame in 0..frames {
            let same = (0..self.axes)
                .all(|axis| self.samples.pop_front() == planar.get(axis * frames + frame).copied());
            if same {
                result.same += 1;
            } else {
                result.different += 1;
            }
            self.at += 1;
        }
        result
    }
}

/// Reads everything back until told to stop.
pub(super) struct Sink {
    consumer: BaseConsumer,
    expected: HashMap<String, Expected>,
    samples: Vec<i32>,
    view: Arc<Mutex<View>>,
    started: Box<dyn Fn() -> u64 + Send>,
}

impl Sink {
    /// A consumer of the cluster at `brokers`; `started` tells the seconds since the demo's start.
    pub(super) fn new(
        brokers: &str,
        view: Arc<Mutex<View>>,
        started: impl Fn() -> u64 + Send + 'static,
    ) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "spindle-demo")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "50")
            .create()
            .context("Kafka consumer")?;
        let mut assignment = TopicPartitionList::new();
        for topic in TOPICS {
            for partition in 0..PARTITIONS {
                assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment).context("Kafka consumer")?;
        Ok(Self { consumer, expected: HashMap::new(), samples: Vec::new(), view, started: Box::new(started) })
    }

    /// Whatever `take` gives must come under `key`.
    pub(super) fn expect(&mut self, key: &str, axes: usize, take: Take) {
        self.expected.insert(key.to_owned(), Expected { take, axes, samples: VecDeque::new(), at: 0 });
    }

    /// Reads until `stop`.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            // The message borrows the consumer: it is taken apart before anything else is touched.
            let message = match self.consumer.poll(Duration::from_millis(50)) {
                None => continue,
                Some(Err(error)) => {
                    tracing::debug!("demo consumer: {error}");
                    continue;
                }
                Some(Ok(message)) => Received::new(&message),
            };
            self.take(&message);
        }
    }

    fn take(&mut self, message: &Received) {
        let at_s = (self.started)();
        match message.topic {
            0 => self.raw(message),
            1 => {
                let mut view = self.view.lock();
                view.features += 1;
                if let Ok(record) = serde_json::from_slice::<serde_json::Value>(&message.payload)
                    && record["type"] == "spindle.features.v1"
                {
                    view.features_record(&message.key, &record);
                }
            }
            2 => {
                let mut view = self.view.lock();
                view.alerts += 1;
                if let Ok(record) = serde_json::from_slice(&message.payload) {
                    view.alert_record(at_s, &message.key, &record);
                }
            }
            _ => {
                let mut view = self.view.lock();
                view.dead += 1;
                let text = String::from_utf8_lossy(&message.payload).chars().take(60).collect::<String>();
                view.event(at_s, true, format!("dead letter: {text}"));
            }
        }
    }

    fn raw(&mut self, message: &Received) {
        let mut result = Compared { different: 1, ..Compared::default() };
        if let Ok(Message::Block(block)) = wire::decode(&message.payload) {
            self.samples.clear();
            self.samples.resize(block.header.len(), 0);
            if let (Ok(()), Some(expected)) =
                (block.decode_samples(&mut self.samples), self.expected.get_mut(&message.key))
            {
                result = expected.compare(block.header.first_sample, &self.samples);
            }
        }
        let mut view = self.view.lock();
        view.raw += 1;
        view.compared += result.same + result.different;
        view.different += result.different;
        view.missing += result.missing;
        view.repeated += result.repeated;
    }
}

/// A message, taken apart.
struct Received {
    /// Index in [`TOPICS`].
    topic: usize,
    key: String,
    payload: Vec<u8>,
}

impl Received {
    fn new(message: &BorrowedMessage<'_>) -> Self {
        let topic = TOPICS.iter().position(|topic| *topic == message.topic()).unwrap_or(TOPICS.len());
        let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        Self { topic, key, payload: message.payload().unwrap_or_default().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(samples: Vec<i32>) -> Expected {
        let mut samples = Some(samples);
        let take = Box::new(move || samples.take().unwrap_or_default());
        Expected { take, axes: 2, samples: VecDeque::new(), at: 0 }
    }

    #[test]
    fn a_block_is_compared_frame_by_frame_with_what_was_produced() {
        let mut stream = expected(vec![1, 10, 2, 20, 3, 30, 4, 40]);
        assert_eq!(stream.compare(0, &[1, 2, 10, 20]), Compared { same: 2, ..Compared::default() });
        assert_eq!(stream.compare(0, &[1, 2, 10, 20]), Compared { repeated: 2, ..Compared::default() });
        assert_eq!(
            stream.compare(2, &[3, 4, 30, 41]),
            Compared { same: 1, different: 1, ..Compared::default() }
        );
    }

    #[test]
    fn frames_that_were_jumped_over_are_missing() {
        let mut stream = expected(vec![1, 10, 2, 20, 3, 30]);
        assert_eq!(stream.compare(2, &[3, 30]), Compared { same: 1, missing: 2, ..Compared::default() });
    }

    #[test]
    fn what_was_never_produced_is_different() {
        assert_eq!(expected(vec![1, 10]).compare(0, &[1, 5, 10, 50]).different, 1);
    }
}
