//! What Mosquitto's own clients can do with the built-in listener, gateway in this process.

use spindle_agent::clock::Clock;
use spindle_agent::config;
use spindle_agent::journal::Read;
use spindle_agent::record::{Record, RecordKind};
use spindle_agent::runtime::{self, Gateway, Stop};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

struct Rig {
    gateway: Gateway,
    port: String,
    _dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let text = format!(
            "[gateway]\nname = \"test\"\ndata_dir = {:?}\n[source.listener]\nbind = \"127.0.0.1:0\"\nclients_max = 4\n\
             [[source.json]]\nname = \"wireless-xyz\"\ntopic = \"wireless-xyz/{{machine}}/{{sensor}}\"\nsite = \"hall\"\nunit = \"g\"\n\
             rate_hz = 100.0\nchannels = [{{ axis = \"x\", field = \"x\" }}]\n",
            dir.path().join("data")
        );
        let config = config::parse(&text, "test").unwrap();
        let gateway = runtime::start(&config, &Clock::system(), &Stop::new()).unwrap();
        let port = gateway.listener.unwrap().port().to_string();
        Self { gateway, port, _dir: dir }
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn publish(&self, args: &[&str]) -> Output {
        self.client("mosquitto_pub", args).output().expect("mosquitto_pub is installed")
    }

    /// Subscribes, and waits until that is done.
    fn subscribe(&self, args: &[&str]) -> Child {
        let before = self.gateway.metrics.source.connections.get();
        let child = self.client("mosquitto_sub", args).spawn().expect("mosquitto_sub is installed");
        while self.gateway.metrics.source.connections.get() == before {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        child
    }

    fn records(&self, count: usize) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        while records.len() < count {
            let from = records.last().map_or(1, |record| record.offset + 1);
            match self.gateway.journal.read(from, 1 << 20, Duration::from_secs(10)).unwrap() {
                Read::Batch(view) => records.extend(view.iter().cloned()),
                other => panic!("{other:?} after {} of {count}", records.len()),
            }
        }
        records
    }
}

fn text(output: Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn ordinary_clients_of_both_versions_publish_and_the_puback_means_committed() {
    let rig = Rig::new();
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1"] {
            let args = ["-V", version, "-q", qos, "-t", "wireless-xyz/mill/s1", "-m", "{\"x\": 1}", "-d"];
            let said = text(rig.publish(&args));
            if qos == "1" {
                assert!(said.contains("received PUBACK"), "{said}");
            }
        }
    }
    let records = rig.records(4);
    assert!(records.iter().all(|record| record.kind == RecordKind::Json));
    assert_eq!(records[0].key.to_string(), "hall/mill/s1");
    rig.gateway.finish().unwrap();
}

#[test]
fn subscriptions_wildcards_and_retained_messages_work_between_clients() {
    let rig = Rig::new();
    rig.publish(&["-q", "1", "-r", "-t", "news/a", "-m", "kept"]);
    let child = rig.subscribe(&["-V", "mqttv5", "-q", "1", "-t", "news/+", "-C", "3", "-W", "10", "-v"]);
    rig.publish(&["-q", "1", "-t", "news/b", "-m", "one"]);
    rig.publish(&["-q", "0", "-t", "other/b", "-m", "not this"]);
    rig.publish(&["-V", "mqttv5", "-q", "0", "-t", "news/c", "-m", "two"]);
    let said = text(child.wait_with_output().unwrap());
    assert_eq!(said, "news/a kept\nnews/b one\nnews/c two\n");
    rig.gateway.finish().unwrap();
}

#[test]
fn a_last_will_is_published_when_a_client_is_killed() {
    let rig = Rig::new();
    let watcher = rig.subscribe(&["-t", "wills/#", "-C", "1", "-W", "10", "-v"]);
    let mut dying = rig.subscribe(&["-t", "x", "--will-topic", "wills/me", "--will-payload", "gone"]);
    dying.kill().unwrap();
    dying.wait().unwrap();
    assert_eq!(text(watcher.wait_with_output().unwrap()), "wills/me gone\n");
    rig.gateway.finish().unwrap();
}

#[test]
fn clients_beyond_the_most_are_turned_away_and_others_stay() {
    let rig = Rig::new();
    let mut children: Vec<Child> = (0..4).map(|_| rig.subscribe(&["-t", "x"])).collect();
    let refused = text(rig.publish(&["-t", "x", "-m", "y"]));
    assert!(refused.contains("Connection Refused"), "{refused}");
    assert_eq!(rig.gateway.metrics.source.clients_refused.get(), 1);
    children.remove(0).kill().unwrap();
    while rig.gateway.metrics.source.disconnections.get() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(rig.publish(&["-q", "1", "-t", "x", "-m", "y"]).status.success());
    for mut child in children {
        child.kill().unwrap();
    }
    rig.gateway.finish().unwrap();
}

#[test]
fn garbage_on_the_port_and_refused_messages_harm_nobody() {
    use std::io::Write;
    let rig = Rig::new();
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x10, 0xFF, 0xFF, 0xFF, 0x7F], &[0x10, 12, 0, 4, b'M'], &[0; 64]]
    {
        let mut socket = std::net::TcpStream::connect(format!("127.0.0.1:{}", rig.port)).unwrap();
        socket.write_all(garbage).unwrap();
    }
    rig.publish(&["-q", "1", "-t", "spindle/v1/hall/mill/s/raw", "-m", "no block"]);
    rig.publish(&["-q", "1", "-t", "wireless-xyz/mill/s1", "-m", "{}"]);
    let records = rig.records(2);
    assert!(records.iter().all(|record| record.kind == RecordKind::DeadLetter));
    rig.gateway.finish().unwrap();
}

#[test]
fn an_address_in_use_is_said() {
    let rig = Rig::new();
    let bind = rig.gateway.listener.unwrap();
    let config = config::ListenerSource { bind, clients_max: 1 };
    let io = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let id = spindle_agent::source::SourceId(0);
    let error = io
        .block_on(spindle_agent::source::listener::Listener::bind(
            id,
            &config,
            Vec::new(),
            std::sync::Arc::default(),
            spindle_agent::source::time::TimeTeller::new(
                spindle_agent::clock::Clock::system(),
                std::time::Duration::ZERO,
                std::sync::Arc::default(),
            ),
        ))
        .unwrap_err();
    assert!(error.to_string().contains(&format!("cannot bind {bind}")), "{error}");
    rig.gateway.finish().unwrap();
}
