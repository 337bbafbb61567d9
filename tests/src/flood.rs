//! A hostile client: a raw MQTT 3.1.1 connection that writes what it likes as fast as it is read, and one flood of everything that
//! should neither fill the gateway's memory nor hold up others.

use crate::agent::Agent;
use crate::kafka::Kafka;
use crate::metrics::Metrics;
use crate::mosquitto::Mosquitto;
use crate::node::{Node, Script};
use crate::{tools, wait};
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Nodes, and JSON sensors, that the flooded gateway has room for.
pub const NODES_MAX: u64 = 2000;
/// What `agent/OPERATIONS.md` says a gateway of these limits may take.
pub const MEMORY_MAX: u64 = 640 << 20;
/// Largest payload that fits a packet of 256 KiB with its topic.
const PAYLOAD_MAX: usize = 256 * 1024 - 64;
/// Every so many messages one of the largest size.
const LARGE_EVERY: u64 = 1000;

/// A connection that publishes at QoS 0.
#[derive(Debug)]
pub struct Client {
    stream: BufWriter<TcpStream>,
}

impl Client {
    /// Connects to 127.0.0.1.
    ///
    /// # Errors
    /// When it is not let in.
    pub fn connect(port: u16, id: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        let patience = Some(Duration::from_secs(120));
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        put_text(&mut body, id)?;
        stream.write_all(&[&[0x10, u8::try_from(body.len())?], body.as_slice()].concat())?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).context("no CONNACK")?;
        ensure!(answer == [0x20, 2, 0, 0], "CONNACK says {answer:?}");
        Ok(Self { stream: BufWriter::with_capacity(1 << 16, stream) })
    }

    /// Publishes.
    ///
    /// # Errors
    /// When the connection is lost, or nothing is read for two minutes.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let mut head = vec![0x30];
        let mut len = 2 + topic.len() + payload.len();
        loop {
            let more = len >> 7;
            head.push((len & 0x7F) as u8 | if more > 0 { 0x80 } else { 0 });
            len = more;
            if len == 0 {
                break;
            }
        }
        put_text(&mut head, topic)?;
        self.stream.write_all(&head)?;
        self.stream.write_all(payload).context("publish")
    }

    /// Waits until the other side has read everything.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn settle(&mut self) -> Result<()> {
        self.stream.write_all(&[0xC0, 0])?;
        self.stream.flush()?;
        let mut answer = [0; 2];
        self.stream.get_mut().read_exact(&mut answer).context("no PINGRESP")?;
        ensure!(answer == [0xD0, 0], "PINGRESP is {answer:?}");
        Ok(())
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    out.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// JSON that means harm: nesting, arrays of more than fits, numbers that no float holds, members twice.
#[must_use]
pub fn bombs() -> Vec<Vec<u8>> {
    let array = format!("{{\"x\": [{}0]}}", "0,".repeat(100_000));
    let arrays = format!("{{\"x\": [{}0]}}", "[],".repeat(60_000));
    let twice = format!("{{{}\"x\": \"no number\"}}", "\"x\": 1, ".repeat(1000));
    let number = format!("{{\"x\": {}}}", "9".repeat(20_000));
    let name = format!("{{\"{}\": 1}}", "x".repeat(100_000));
    let texts = ["[".repeat(20_000), "{\"x\":".repeat(10_000), "{\"x\": [1e999]}".into()];
    texts.into_iter().chain([array, arrays, twice, number, name]).map(String::into_bytes).collect()
}

/// Which way the flood takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The gateway's own listener.
    Listener,
    /// Mosquitto.
    Broker,
}

/// What came of a flood.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    /// Messages of the flood.
    pub sent: u64,
    /// Of them, those that must be refused.
    pub refused_due: u64,
    /// Until all was taken.
    pub seconds: f64,
    /// Blocks of an honest node that were acknowledged meanwhile, all of them.
    pub honest_blocks: u32,
    /// How long they took.
    pub honest_seconds: f64,
    /// Most resident memory of the agent.
    pub memory_peak_bytes: u64,
    /// Messages that the gateway took in.
    pub taken: u64,
    /// Refused messages.
    pub dead_letters: u64,
    /// Of them, not kept.
    pub dead_letters_dropped: u64,
    /// Messages of newcomers refused for want of room.
    pub newcomers_refused: u64,
}

const MAPPING: &str = "
[[source.json]]
name = \"any\"
topic = \"plant/{machine}/{sensor}\"
site = \"works\"
unit = \"m/s2\"
rate_hz = 10.0
channels = [{ axis = \"x\", field = \"x\" }]
";

/// Lets a hostile client send `messages`: as many topics as messages, a fourth of them garbage on boards' topics, a fourth good blocks
/// of as many node ids, a fourth good JSON of as many sensors, a fourth JSON bombs, and some of the largest size; while an honest
/// node plays `honest_blocks` in real time. Ends when all is taken and the honest blocks are in Kafka.
///
/// # Errors
/// When something fails or does not come to its end.
pub fn hostile(way: Way, messages: u64, honest_blocks: u32) -> Result<Outcome> {
    let kafka = Kafka::shared()?;
    let broker = Mosquitto::start("")?;
    let port = if way == Way::Listener { tools::free_port()? } else { broker.port() };
    let source = match way {
        Way::Listener => format!("[source.listener]\nbind = \"127.0.0.1:{port}\"\n"),
        Way::Broker => format!("[[source.mqtt]]\nname = \"site\"\naddress = \"{}\"\n", broker.address()),
    };
    let prefix = if way == Way::Listener { "flood-listener" } else { "flood-broker" };
    let mut agent = Agent::started(&format!(
        "{source}\n[session]\nnodes_max = {NODES_MAX}\n\n[journal]\nsize_max = \"256 MiB\"\nsegment_size = \"32 MiB\"\n\n\
         [outputs]\nsize_max = \"128 MiB\"\n\n[forward.kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{prefix}\"\n{MAPPING}",
        kafka.address()
    ))?;
    if way == Way::Broker {
        agent.process()?.wait_for_log("subscribed", wait::PATIENCE)?;
    }
    let api = agent.api()?;
    // Known before the flood, as those of a running plant are.
    let script = Script { pace_hz: Some(20), ..Script::new("honest", honest_blocks) };
    let honest = Node::start(port, script.clone())?;
    honest.wait_acknowledged(1, wait::PATIENCE)?;

    let start = Instant::now();
    let flood = std::thread::spawn(move || send(port, messages));
    let patience = Duration::from_secs(600);
    honest.wait_acknowledged(honest_blocks, patience)?;
    let honest_seconds = start.elapsed().as_secs_f64();
    // It would go on telling its account.
    drop(honest);
    let refused_due = flood.join().ok().context("the flood panicked")??;
    let metrics = wait::until("the flood to be taken", patience, || {
        let before = Metrics::of(api)?;
        std::thread::sleep(Duration::from_millis(300));
        let after = Metrics::of(api)?;
        let taken = |metrics: &Metrics| metrics.value("spindle_source_messages_total");
        let still = taken(&before)? == taken(&after)? && after.value("spindle_pipeline_lag_records")? == 0.0;
        Ok(still.then_some(after))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let of_honest = |record: &crate::kafka::KafkaRecord| record.key == script.key();
    kafka.read_until(&format!("{prefix}.raw.v1"), patience, |records| {
        let ids: std::collections::BTreeSet<&str> =
            records.iter().filter(|record| of_honest(record)).map(|record| record.id()).collect();
        ids.len() >= honest_blocks as usize
    })?;
    let value = |name: &str| Ok::<_, anyhow::Error>(metrics.value(name)? as u64);
    let outcome = Outcome {
        sent: messages,
        refused_due,
        seconds,
        honest_blocks,
        honest_seconds,
        memory_peak_bytes: agent.process()?.memory_peak_bytes()?,
        taken: value("spindle_source_messages_total")?,
        dead_letters: value("spindle_session_dead_letters_total")?,
        dead_letters_dropped: value("spindle_session_dead_letters_dropped_total")?,
        newcomers_refused: value("spindle_session_newcomers_refused_total")?,
    };
    agent.stop()?;
    Ok(outcome)
}

/// Sends the flood; gives how many of its messages must be refused.
fn send(port: u16, messages: u64) -> Result<u64> {
    let mut client = Client::connect(port, "hostile")?;
    let bombs = bombs();
    let large = vec![b'['; PAYLOAD_MAX];
    let mut refused = 0;
    for index in 0..messages {
        if index % LARGE_EVERY == 7 {
            client.publish("plant/large/s", &large)?;
            refused += 1;
            continue;
        }
        let among = index / 4;
        match index % 4 {
            0 => {
                client.publish(&format!("spindle/v1/site/g{among}/s/raw"), b"garbage")?;
                refused += 1;
            }
            1 => {
                let script = Script { block_samples: 8, ..Script::new(&format!("f{among}"), 1) };
                client.publish(&format!("spindle/v1/{}/raw", script.key()), &script.block(0)?)?;
                refused += u64::from(among >= NODES_MAX);
            }
            2 => {
                client.publish(&format!("plant/m{among}/s"), b"{\"x\": [1, 2, 3]}")?;
                refused += u64::from(among >= NODES_MAX);
            }
            _ => {
                // The large ones rarely: the flood is one of messages.
                let small = among % 50 != 0;
                let choice = if small { among % 3 } else { among / 50 % bombs.len() as u64 };
                let bomb = &bombs[usize::try_from(choice)?];
                client
                    .publish("plant/bomb/s", if small && bomb.len() > 4096 { &bomb[..4096] } else { bomb })?;
                refused += 1;
            }
        }
    }
    client.settle()?;
    Ok(refused)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<52} {value:>20}");
        row("messages of a hostile client, as many topics", self.sent.to_string())?;
        row("  taken in by the gateway", self.taken.to_string())?;
        row("  until all was taken", format!("{:.1} s", self.seconds))?;
        row("refused and counted", self.dead_letters.to_string())?;
        row("  of them not kept", self.dead_letters_dropped.to_string())?;
        row("  of newcomers, for want of room", self.newcomers_refused.to_string())?;
        row("an honest node's blocks acknowledged meanwhile", self.honest_blocks.to_string())?;
        row("  in", format!("{:.1} s", self.honest_seconds))?;
        row(
            "peak memory of the agent",
            format!("{:.0} MiB", self.memory_peak_bytes as f64 / f64::from(1 << 20)),
        )
    }
}
