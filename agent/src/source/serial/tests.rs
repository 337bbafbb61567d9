//! Over a pair of pseudo terminals that socat ties together; to kill it is to pull the plug.

use super::*;
use crate::clock::Clock;
use crate::source::{BATCHES_MAX, Outgoing, handle};
use spindle_common::id::BootId;
use spindle_common::wire::Message;
use std::path::Path;
use std::process::Stdio;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

fn plug(dir: &Path) -> Child {
    let end = |name: &str| format!("pty,raw,echo=0,link={}", dir.join(name).display());
    let mut command = Command::new("socat");
    command.args([end("gateway"), end("node")]).stdin(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// The node's end, once it is there.
async fn node(dir: &Path) -> SerialStream {
    let device = dir.join("node").display().to_string();
    let opened = async {
        loop {
            match open(&device, 921_600) {
                Ok(port) => return port,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, opened).await.expect("socat makes no pty")
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; frame::len_max(message.len())];
    let len = frame::encode(message, &mut out).unwrap();
    out.truncate(len);
    out
}

async fn next_frame(node: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut decoder = Box::new(frame::Decoder::<MESSAGE_LEN_MAX>::new());
    let mut found = Vec::new();
    while found.is_empty() {
        let byte = node.read_u8().await.unwrap();
        decoder.feed(&[byte], |message| found = message.to_vec());
    }
    found
}

async fn next(inbox: &mut mpsc::Receiver<Vec<Incoming>>, waiting: &mut Vec<Incoming>) -> Bytes {
    while waiting.is_empty() {
        *waiting = timeout(PATIENCE, inbox.recv()).await.expect("no message").unwrap();
    }
    let message = waiting.remove(0);
    assert_eq!((message.source, message.topic, message.token), (SourceId(5), None, None));
    message.payload
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_pass_both_ways_through_garbage_and_after_the_plug_was_pulled() {
    let dir = tempfile::tempdir().unwrap();
    let config = SerialSource { device: dir.path().join("gateway"), baud: 921_600 };
    let metrics = Arc::new(metrics::Metrics::default());
    let (sender, mut inbox) = mpsc::channel(BATCHES_MAX);
    let (agent, end) = handle();
    // The device is not there yet: that is waited for too.
    let time = TimeTeller::new(Clock::system(), Duration::from_millis(1), metrics.clone());
    let serial = Serial::new(SourceId(5), config, metrics.clone(), time);
    let run = Handle::current().spawn(serial.run(sender, end, Stop::new()));

    let mut waiting = Vec::new();
    for round in 1..=2 {
        let mut socat = plug(dir.path());
        let mut node = node(dir.path()).await;
        let opened = async {
            while metrics.source.connections.get() < round {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, opened).await.expect("not opened");

        let long: Vec<u8> = (0..3000_u32).map(|number| (number % 7) as u8).collect();
        for bytes in [&framed(&long)[..], b"\x09garbage\0", &framed(b"after")] {
            node.write_all(bytes).await.unwrap();
        }
        assert_eq!(next(&mut inbox, &mut waiting).await, long);
        assert_eq!(next(&mut inbox, &mut waiting).await, "after");
        assert_eq!(metrics.source.frames_damaged.get(), round);

        let topic = "not for a serial line".into();
        agent.outgoing.send(Outgoing { topic, payload: "ack".into(), at_least_once: false }).await.unwrap();
        let mut answer = vec![0; framed(b"ack").len()];
        timeout(PATIENCE, node.read_exact(&mut answer)).await.expect("no answer").unwrap();
        assert_eq!(answer, framed(b"ack"));

        // A question for the time is answered by the source itself, and goes no further.
        let ask = spindle_common::wire::TimeAsk { node: "n", boot: BootId(1), id: 7, tick: 9 };
        let mut buffer = [0; 64];
        let len = ask.encode(&mut buffer).unwrap();
        node.write_all(&framed(&buffer[..len])).await.unwrap();
        let told = timeout(PATIENCE, next_frame(&mut node)).await.expect("no time");
        let Ok(Message::TimeTell(tell)) = spindle_common::wire::decode(&told) else { panic!("{told:?}") };
        assert_eq!((tell.node, tell.id, tell.tick, tell.error_ns), ("n", 7, 9, 1_000_000));
        assert!(tell.received_ns <= tell.sent_ns);
        assert!(waiting.is_empty() && inbox.try_recv().is_err());

        socat.kill().await.unwrap();
        let lost = async {
            while metrics.source.disconnections.get() < round {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, lost).await.expect("loss not noticed");
    }
    drop(agent);
    timeout(PATIENCE, run).await.expect("does not end").unwrap();
}
