//! A listener with real clients, and with bytes that no client sends.

mod clients;
mod limits;
mod packets;

use super::Listener;
use crate::api::metrics::Metrics;
use crate::clock::Clock;
use crate::config::ListenerSource;
use crate::runtime::Stop;
use crate::source::time::TimeTeller;
use crate::source::{BATCHES_MAX, Incoming, SourceHandle, SourceId, handle};
use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For what must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// For what must not.
const A_WHILE: Duration = Duration::from_millis(300);

/// A listener that takes in `in/#`, and the agent's end of it.
struct Site {
    port: u16,
    inbox: mpsc::Receiver<Vec<Incoming>>,
    waiting: Vec<Incoming>,
    handle: SourceHandle,
    stop: Stop,
    metrics: Arc<Metrics>,
    run: JoinHandle<()>,
}

impl Site {
    async fn new(clients_max: usize) -> Self {
        let config = ListenerSource { bind: "127.0.0.1:0".parse().unwrap(), clients_max };
        let metrics = Arc::new(Metrics::default());
        let (sender, inbox) = mpsc::channel(BATCHES_MAX);
        let (handle, end) = handle();
        let stop = Stop::new();
        let wanted = vec!["in/#".into(), "spindle/v1/+/+/+/timeask".into()];
        let time = TimeTeller::new(Clock::system(), Duration::from_millis(1), metrics.clone());
        let listener = Listener::bind(SourceId(3), &config, wanted, metrics.clone(), time).await.unwrap();
        let port = listener.address().port();
        let tasks = Handle::current();
        let spawn = move |client| drop(tasks.spawn(client));
        let run = Handle::current().spawn(listener.run(sender, end, stop.clone(), spawn));
        Self { port, inbox, waiting: Vec::new(), handle, stop, metrics, run }
    }

    /// The next message that the gateway takes in.
    async fn next(&mut self) -> Incoming {
        while self.waiting.is_empty() {
            self.waiting = timeout(PATIENCE, self.inbox.recv()).await.expect("no message").unwrap();
        }
        self.waiting.remove(0)
    }

    async fn nothing_comes(&mut self) -> bool {
        self.waiting.is_empty() && timeout(A_WHILE, self.inbox.recv()).await.is_err()
    }

    fn release(&self, message: &Incoming) {
        self.handle.release.send(vec![message.token.unwrap()]).unwrap();
    }

    /// A command-line client for this listener.
    fn mosquitto(&self, tool: &str, version: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new(tool);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-V", version]).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    /// `mosquitto_sub -v`, once it is subscribed to `arguments` and to a topic that tells.
    async fn subscriber(&self, version: &str, arguments: &[&str]) -> Subscriber {
        let ready = ["-r", "-t", "ready/now", "-m", "yes"];
        assert!(finished(self.mosquitto("mosquitto_pub", version, &ready)).await.0);
        let arguments = [arguments, &["-v", "-t", "ready/now"]].concat();
        let mut child = self.mosquitto("mosquitto_sub", version, &arguments);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut subscriber = Subscriber { child, lines };
        assert_eq!(subscriber.line().await, "ready/now yes");
        subscriber
    }
}

struct Subscriber {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Subscriber {
    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.next_line()).await.expect("no line").unwrap().unwrap()
    }
}

/// Whether a tool succeeded, and what it said.
async fn finished(child: Child) -> (bool, String) {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("does not end").unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A client of MQTT 5 made of rumqttc's packets, that does only what it is told.
struct Raw {
    stream: TcpStream,
    input: BytesMut,
}

impl Raw {
    async fn open(site: &Site) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", site.port)).await.unwrap();
        Self { stream, input: BytesMut::new() }
    }

    /// Connects with a will on `in/will`.
    async fn connected(site: &Site, id: &str, keep_alive: u16) -> Self {
        let mut client = Self::open(site).await;
        let connect = v5::Connect { keep_alive, client_id: id.into(), clean_start: true, properties: None };
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        let will = v5::LastWill::new("in/will", id.to_owned(), qos, false, None);
        client.send(&v5::Packet::Connect(connect, Some(will), None)).await;
        let answer = client.receive().await;
        assert!(
            matches!(&answer, Some(v5::Packet::ConnAck(ack)) if ack.code == v5::ConnectReturnCode::Success),
            "{answer:?}"
        );
        client
    }

    async fn send(&mut self, packet: &v5::Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn publish(&mut self, topic: &str, id: u16, payload: &[u8]) {
        let qos = if id == 0 {
            rumqttc::v5::mqttbytes::QoS::AtMostOnce
        } else {
            rumqttc::v5::mqttbytes::QoS::AtLeastOnce
        };
        let mut publish = v5::Publish::new(topic, qos, payload.to_vec(), None);
        publish.pkid = id;
        self.send(&v5::Packet::Publish(publish)).await;
    }

    async fn subscribe(&mut self, filter: &str) -> Vec<v5::SubscribeReasonCode> {
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        let mut subscribe = v5::Subscribe::new(v5::Filter::new(filter, qos), None);
        subscribe.pkid = 1;
        self.send(&v5::Packet::Subscribe(subscribe)).await;
        match self.receive().await {
            Some(v5::Packet::SubAck(ack)) => ack.return_codes,
            other => panic!("{other:?}"),
        }
    }

    /// The next packet; `None` when the listener has closed.
    async fn receive(&mut self) -> Option<v5::Packet> {
        loop {
            if let Ok(packet) = v5::Packet::read(&mut self.input, None) {
                return Some(packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            if !matches!(read.expect("no packet"), Ok(1..)) {
                return None;
            }
        }
    }
}
