//! A real Apache Kafka: one node, KRaft, its own folder and ports.

use crate::process::{self, Process};
use crate::proxy::Proxy;
use crate::{tools, wait};
use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A reader that gets nothing for so long although there is something connects anew.
const STALL: Duration = Duration::from_secs(5);

/// A broker; its folder survives [`Kafka::kill`] and goes with the value.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    port: u16,
    link: u16,
    folder: TempDir,
}

/// What differs from a broker as it is started by default. Besides the listener that tests use it has a second one, the
/// link, for the gateway alone.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Further lines of `server.properties`.
    pub properties: String,
    /// Protocol of the link: `PLAINTEXT` when empty.
    pub protocol: String,
    /// Port of the link that clients are told, such as a proxy's, and the broker's own.
    pub link: Option<(u16, u16)>,
}

/// A record as a consumer sees it.
#[derive(Debug, Clone)]
pub struct KafkaRecord {
    /// Partition.
    pub partition: i32,
    /// Position in the partition.
    pub offset: i64,
    /// Key, as text.
    pub key: String,
    /// Headers, as text.
    pub headers: BTreeMap<String, String>,
    /// Record time, ms since 1970.
    pub timestamp_ms: i64,
    /// Value.
    pub value: Vec<u8>,
}

impl KafkaRecord {
    /// The header `ce_id`, empty when missing.
    #[must_use]
    pub fn id(&self) -> &str {
        self.header("ce_id")
    }

    /// A header, empty when missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The value as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.value)
            .with_context(|| format!("value of record {} is no JSON", self.id()))
    }
}

impl Kafka {
    /// The broker that the tests of one process share; each test has topics of its own prefix. It ends with the process.
    ///
    /// # Errors
    /// When it did not come up.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Kafka, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        shared.as_ref().map_err(|error| anyhow::anyhow!(error.clone()))
    }

    /// Formats a folder and starts a broker on it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(&Setup::default())
    }

    /// [`Kafka::start`] with a link that leads through a proxy.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_behind_proxy() -> Result<(Self, Proxy)> {
        let link = tools::free_port()?;
        let proxy = Proxy::start(link)?;
        let setup = Setup { link: Some((proxy.port(), link)), ..Setup::default() };
        Ok((Self::start_with(&setup)?, proxy))
    }

    /// [`Kafka::start`] with what `setup` says.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_with(setup: &Setup) -> Result<Self> {
        let folder = process::folder("kafka")?;
        let (port, controller) = (tools::free_port()?, tools::free_port()?);
        let (link, link_port) = match setup.link {
            Some(link) => link,
            None => tools::free_port().map(|port| (port, port))?,
        };
        let path = folder.path().display();
        let protocol = if setup.protocol.is_empty() { "PLAINTEXT" } else { &setup.protocol };
        let more = setup.properties.replace("{folder}", &path.to_string());
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},LINK://127.0.0.1:{link_port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},LINK://127.0.0.1:{link}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,LINK:{protocol},CONTROLLER:PLAINTEXT\n\
             log.dirs={path}/data\nnum.partitions=3\noffsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n{more}\n"
        );
        if protocol.ends_with("SSL") {
            let mut keytool = tools::command("keytool");
            keytool.args(["-genkeypair", "-alias", "broker", "-keyalg", "EC", "-dname", "CN=127.0.0.1"]);
            keytool.args(["-ext", "SAN=ip:127.0.0.1", "-storetype", "PKCS12", "-storepass", STORE_PASSWORD]);
            tools::output_of(keytool.arg("-keystore").arg(folder.path().join("broker.p12")))?;
        }
        std::fs::write(folder.path().join("server.properties"), properties)?;
        // Any 16 bytes in base64 are a cluster id.
        let mut format = java(&folder)?;
        format.args(["kafka.tools.StorageTool", "format", "-t", "c3BpbmRsZS10ZXN0cy0wMQ", "-c"]);
        tools::output_of(format.arg(folder.path().join("server.properties")))
            .context("format Kafka's folder")?;
        let process = Self::launch(&folder)?;
        let mut kafka = Self { process, port, link, folder };
        kafka.wait_until_up()?;
        Ok(kafka)
    }

    fn launch(folder: &TempDir) -> Result<Process> {
        let mut command = java(folder)?;
        command.arg("kafka.Kafka").arg(folder.path().join("server.properties"));
        Process::spawn("kafka", &mut command, &folder.path().join("log"))
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let client = self.consumer()?;
        wait::until("Kafka to answer", wait::PATIENCE, || {
            self.process.ensure_running()?;
            Ok(client.fetch_metadata(None, Duration::from_secs(1)).ok().map(drop))
        })
    }

    /// `HOST:PORT` for `bootstrap.servers`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its folder: properties, data and log.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// `HOST:PORT` of the link.
    #[must_use]
    pub fn link_address(&self) -> String {
        format!("127.0.0.1:{}", self.link)
    }

    /// Creates a topic of one partition with properties of its own.
    ///
    /// # Errors
    /// When the broker does not.
    pub fn create_topic(&self, topic: &str, properties: &[(&str, &str)]) -> Result<()> {
        let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        let topic = properties.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
        let results =
            block_on(async { self.admin()?.create_topics([&topic], &options).await.map_err(Into::into) })?;
        for result in results {
            result.map_err(|(name, code)| anyhow::anyhow!("create {name}: {code}"))?;
        }
        Ok(())
    }

    /// Gives a topic these properties and no others.
    ///
    /// # Errors
    /// When the broker does not.
    pub fn set_topic(&self, topic: &str, properties: &[(&str, &str)]) -> Result<()> {
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let config = properties.iter().fold(config, |config, (name, value)| config.set(name, value));
        let options = AdminOptions::new();
        let results =
            block_on(async { self.admin()?.alter_configs([&config], &options).await.map_err(Into::into) })?;
        for result in results {
            result.map_err(|(name, code)| anyhow::anyhow!("alter {name:?}: {code}"))?;
        }
        Ok(())
    }

    /// Runs Kafka's own command for access rules with `args`.
    ///
    /// # Errors
    /// When it fails.
    pub fn access_rules(&self, args: &[&str]) -> Result<()> {
        let mut command = java(&self.folder)?;
        command.args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.address()]);
        tools::output_of(command.args(args)).map(drop)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(ClientConfig::new().set("bootstrap.servers", self.address()).create()?)
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports and folder after [`Kafka::kill`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = Self::launch(&self.folder)?;
        self.wait_until_up()
    }

    fn consumer(&self) -> Result<BaseConsumer> {
        consumer(&self.address())
    }

    /// Everything that `topic` holds now, by partition and offset; empty when there is no such topic yet.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn read(&self, topic: &str) -> Result<Vec<KafkaRecord>> {
        let mut reader = self.reader(topic)?;
        reader.catch_up()?;
        Ok(reader.records)
    }

    /// Reads `topic` until `enough` says so of all its records, and returns them.
    ///
    /// # Errors
    /// When it was not enough within `patience`; the error says how many there were.
    pub fn read_until(
        &self,
        topic: &str,
        patience: Duration,
        mut enough: impl FnMut(&[KafkaRecord]) -> bool,
    ) -> Result<Vec<KafkaRecord>> {
        let mut reader = self.reader(topic)?;
        let deadline = Instant::now() + patience;
        loop {
            reader.catch_up()?;
            if enough(&reader.records) {
                return Ok(reader.records);
            }
            if Instant::now() > deadline {
                bail!(
                    "gave up after {patience:?}: {} records in {topic} were not enough",
                    reader.records.len()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A counter of the records of topics.
    ///
    /// # Errors
    /// When no consumer can be made.
    pub fn counter(&self) -> Result<Counter> {
        Ok(Counter(self.consumer()?))
    }

    /// A reader of `topic` from its start.
    ///
    /// # Errors
    /// When no consumer can be made.
    pub fn reader(&self, topic: &str) -> Result<Reader> {
        Ok(Reader {
            consumer: self.consumer()?,
            watcher: self.consumer()?,
            address: self.address(),
            topic: topic.into(),
            next: Vec::new(),
            records: Vec::new(),
        })
    }
}

/// Counts the records of topics without reading them.
pub struct Counter(BaseConsumer);

impl Counter {
    /// Records that `topic` holds now; 0 when there is no such topic yet.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn records(&self, topic: &str) -> Result<u64> {
        let metadata = self.0.fetch_metadata(Some(topic), TIMEOUT)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        let mut records = 0;
        for partition in (0i32..).take(partitions) {
            // A partition that was just made has no leader for a moment, and no records.
            let (start, end) = self.0.fetch_watermarks(topic, partition, TIMEOUT).unwrap_or_default();
            records += u64::try_from(end - start)?;
        }
        Ok(records)
    }
}

/// Of the key stores of brokers that speak TLS.
pub const STORE_PASSWORD: &str = "spindle-tests";

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn consumer(address: &str) -> Result<BaseConsumer> {
    let consumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "spindle-tests")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("topic.metadata.refresh.interval.ms", "500")
        .set("reconnect.backoff.max.ms", "500")
        .create()?;
    Ok(consumer)
}

fn java(folder: &TempDir) -> Result<Command> {
    let mut command = tools::command("java");
    command
        .args(["-Xms128m", "-Xmx512m", "-cp"])
        .arg(tools::kafka_jars()?.join("*"))
        .current_dir(folder.path());
    Ok(command)
}

/// Reads one topic from its start, further at each [`Reader::catch_up`].
pub struct Reader {
    consumer: BaseConsumer,
    /// Asks for the ends: behind a consumer's own fetch, which waits for records, each question takes half a second.
    watcher: BaseConsumer,
    address: String,
    topic: String,
    /// Next offset wanted of each partition.
    next: Vec<i64>,
    /// What was read, in the order of reading: a partition's records are in order.
    pub records: Vec<KafkaRecord>,
}

impl Reader {
    /// Waits for the next record for at most `patience`, without keeping it.
    ///
    /// # Errors
    /// When the topic's metadata cannot be read.
    pub fn next(&mut self, patience: Duration) -> Result<Option<KafkaRecord>> {
        if self.next.is_empty() && !self.assign()? {
            std::thread::sleep(patience.min(Duration::from_millis(50)));
            return Ok(None);
        }
        Ok(self.consumer.poll(patience).and_then(Result::ok).map(|message| to_record(&message)))
    }

    /// Reads what is there now.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn catch_up(&mut self) -> Result<()> {
        if self.next.is_empty() && !self.assign()? {
            return Ok(());
        }
        let mut renewed = Instant::now();
        // The partitions of a topic that was just made have no leader for a moment, nor those of a broker that was killed.
        let ends = wait::until(&format!("the ends of {}", self.topic), wait::PATIENCE, || {
            let ends = self.ends().ok();
            if ends.is_none() && Instant::now() > renewed + STALL {
                // As the consumer below.
                renewed = Instant::now();
                self.watcher = consumer(&self.address)?;
            }
            Ok(ends)
        })?;
        let mut deadline = Instant::now() + wait::PATIENCE;
        let mut stalled = Instant::now() + STALL;
        while self.next.iter().zip(&ends).any(|(next, end)| next < end) {
            match self.consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let record = to_record(&message);
                    let next =
                        usize::try_from(record.partition).ok().and_then(|index| self.next.get_mut(index));
                    *next.context("record of an unknown partition")? = record.offset + 1;
                    self.records.push(record);
                    (deadline, stalled) = (Instant::now() + wait::PATIENCE, Instant::now() + STALL);
                }
                // librdkafka's consumer does not always find its way back to a broker that was killed: a new one does.
                _ if Instant::now() > stalled => {
                    stalled = Instant::now() + STALL;
                    self.consumer = consumer(&self.address)?;
                    self.consumer.assign(&self.places()?)?;
                    ensure!(
                        Instant::now() < deadline,
                        "{} gives no records up to its end {ends:?}, at {:?}",
                        self.topic,
                        self.next
                    );
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }

    /// The offset after the last record of each partition.
    fn ends(&self) -> Result<Vec<i64>> {
        let partitions = (0i32..).take(self.next.len());
        partitions
            .map(|partition| Ok(self.watcher.fetch_watermarks(&self.topic, partition, TIMEOUT)?.1))
            .collect()
    }

    fn assign(&mut self) -> Result<bool> {
        let metadata = self.watcher.fetch_metadata(Some(&self.topic), TIMEOUT)?;
        let partitions = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let Some(partitions) =
            partitions.filter(|topic| topic.error().is_none()).map(|topic| topic.partitions().len())
        else {
            return Ok(false);
        };
        if partitions == 0 {
            return Ok(false);
        }
        self.next = vec![0; partitions];
        self.consumer.assign(&self.places()?)?;
        Ok(true)
    }

    /// Where to read on.
    fn places(&self) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in (0i32..).zip(&self.next) {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(*next))?;
        }
        Ok(list)
    }
}

fn to_record(message: &rdkafka::message::BorrowedMessage<'_>) -> KafkaRecord {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().map(|headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default()))
            .collect()
    });
    KafkaRecord {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(text).unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}
