//! A node that sends no samples but does what it is told, over MQTT or a serial line: the board's side of commands and settings once
//! more, written from the wire format alone.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::settings::Settings;
use spindle_common::wire::messages::{Outcome, Request, ResetCause, StreamInfo};
use spindle_common::wire::{self, Message, frame};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Largest block that it can do; more is refused.
pub const BLOCK_SAMPLES_MAX: u16 = 1024;

/// What a question for the time came to.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// From the question to the answer, at the node.
    pub round_trip: Duration,
    /// From the question's arrival at the gateway to the answer's departure, by the gateway's own stamps.
    pub inside: Duration,
}

/// The node; it ends when dropped.
#[derive(Debug)]
pub struct Obedient {
    ended: Arc<AtomicBool>,
    /// Names of questions to ask.
    ask: mpsc::Sender<u32>,
    told: mpsc::Receiver<Told>,
    thread: Option<JoinHandle<()>>,
}

/// A message on its way: its topic's last level, and its bytes.
type Said = (&'static str, Bytes);

struct State {
    name: String,
    boot: u64,
    reset_cause: ResetCause,
    settings: Settings,
    /// Does not answer.
    is_deaf: bool,
    asked: Option<(u32, Instant)>,
    told: mpsc::Sender<Told>,
}

fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<usize, wire::EncodeError>) -> Bytes {
    let mut out = vec![0; 1024];
    let len = encode(&mut out).unwrap_or(0);
    out.truncate(len);
    out.into()
}

impl State {
    fn info(&self) -> StreamInfo<'static> {
        StreamInfo {
            stream: StreamId(0),
            sensor: "acc",
            model: "scripted",
            axes: "xyz",
            rate_nominal_mhz: 4_000_000,
            scale: 0.01,
            bits: 16,
            block_samples: 512,
            encoding: wire::Encoding::Raw16,
        }
    }

    /// What it says when it starts, connects, or is asked to.
    fn greet(&self) -> Vec<Said> {
        let birth = wire::Birth {
            node: &self.name,
            boot: BootId(self.boot),
            site: "site",
            machine: "machine",
            board: "scripted",
            firmware: "0.3",
            tick_hz: 1_000_000,
            reset_cause: self.reset_cause,
            last_panic: "",
            settings_version: self.settings.version,
            ring_capacity: 64,
            streams: std::iter::once(self.info()).collect(),
            lifetime: None,
        };
        let status = wire::Status {
            node: &self.name,
            boot: BootId(self.boot),
            tick: 0,
            oldest: Seq(0),
            next: Seq(0),
            ring_used: 0,
            dropped: 0,
            resent: 0,
            connects: 1,
            streams: std::iter::empty().collect(),
            more: None,
        };
        vec![
            ("birth", encoded(|out| birth.encode(out))),
            self.in_force(),
            ("status", encoded(|out| status.encode(out))),
        ]
    }

    fn in_force(&self) -> Said {
        let message =
            wire::InForce { node: &self.name, boot: BootId(self.boot), settings: self.settings.clone() };
        ("settings", encoded(|out| message.encode(out)))
    }

    fn answer(&self, id: u32, outcome: Outcome, text: &str) -> Said {
        let answer = wire::Answer { node: &self.name, boot: BootId(self.boot), id, outcome, text };
        ("answer", encoded(|out| answer.encode(out)))
    }

    fn question(&mut self, id: u32) -> Said {
        let ask = wire::TimeAsk { node: &self.name, boot: BootId(self.boot), id, tick: 5 };
        self.asked = Some((id, Instant::now()));
        ("timeask", encoded(|out| ask.encode(out)))
    }

    fn take(&mut self, message: &[u8]) -> Vec<Said> {
        match wire::decode(message) {
            Ok(Message::TimeTell(tell)) => {
                if let Some((id, asked)) = self.asked.take()
                    && id == tell.id
                {
                    let inside = u64::try_from(tell.sent_ns - tell.received_ns).unwrap_or(u64::MAX);
                    let told = Told { round_trip: asked.elapsed(), inside: Duration::from_nanos(inside) };
                    let _ = self.told.send(told);
                }
                Vec::new()
            }
            _ if self.is_deaf => Vec::new(),
            Ok(Message::Command(command)) => self.command(command.id, command.request),
            Ok(Message::Set(set)) => {
                let too_long =
                    set.settings.streams.iter().any(|stream| stream.block_samples > BLOCK_SAMPLES_MAX);
                if too_long {
                    return vec![self.answer(set.id, Outcome::Refused, "blocks are too long for this board")];
                }
                self.settings = set.settings;
                vec![self.answer(set.id, Outcome::Done, ""), self.in_force()]
            }
            _ => Vec::new(),
        }
    }

    fn command(&mut self, id: u32, request: Request) -> Vec<Said> {
        match request {
            Request::Report => {
                let mut said = self.greet();
                said.push(self.answer(id, Outcome::Done, ""));
                said
            }
            Request::Identify => vec![self.answer(id, Outcome::Done, "blinking")],
            Request::SelfTest { .. } => {
                vec![self.answer(id, Outcome::Failed, "x moved 0.1 g, 0.8 to 2.2 wanted")]
            }
            Request::Reboot => {
                let answer = self.answer(id, Outcome::Done, "");
                self.boot += 1;
                self.reset_cause = ResetCause::Software;
                [vec![answer], self.greet()].concat()
            }
        }
    }
}

impl Obedient {
    fn spawn(
        name: &str,
        is_deaf: bool,
        run: impl FnOnce(State, Arc<AtomicBool>, mpsc::Receiver<u32>) -> Result<()> + Send + 'static,
    ) -> Self {
        let (ask, asks) = mpsc::channel();
        let (told_sender, told) = mpsc::channel();
        let mut state = State {
            name: name.into(),
            boot: 1,
            reset_cause: ResetCause::PowerOn,
            settings: Settings::default(),
            is_deaf,
            asked: None,
            told: told_sender,
        };
        state.settings = Settings::built_in(&[state.info()]);
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let name = name.to_owned();
        let thread = std::thread::spawn(move || {
            if let Err(error) = run(state, flag, asks) {
                eprintln!("node {name}: {error:#}");
            }
        });
        Self { ended, ask, told, thread: Some(thread) }
    }

    /// One that is reached over a broker on 127.0.0.1. A deaf one answers no command.
    #[must_use]
    pub fn over_mqtt(name: &str, port: u16, is_deaf: bool) -> Self {
        let level = format!("spindle/v1/site/machine/{name}");
        let id = format!("node-{name}");
        Self::spawn(name, is_deaf, move |mut state, ended, asks| {
            let (client, mut connection) = Client::new(MqttOptions::new(id, "127.0.0.1", port), 64);
            let publish = |said: Vec<Said>| -> Result<()> {
                for (what, payload) in said {
                    let qos = if what == "timeask" { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                    client.try_publish(format!("{level}/{what}"), qos, what == "birth", payload)?;
                }
                Ok(())
            };
            while !ended.load(Ordering::SeqCst) {
                if let Ok(id) = asks.try_recv() {
                    publish(vec![state.question(id)])?;
                }
                match connection.recv_timeout(Duration::from_millis(10)) {
                    Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                        client.try_subscribe(format!("{level}/cmd"), QoS::AtLeastOnce)?;
                        publish(state.greet())?;
                    }
                    Ok(Ok(Event::Incoming(Packet::Publish(message)))) => {
                        publish(state.take(&message.payload))?
                    }
                    Ok(Err(_)) => std::thread::sleep(Duration::from_millis(100)),
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// One at the end of a serial line.
    ///
    /// # Errors
    /// When the device cannot be opened.
    pub fn over_serial(name: &str, device: &Path) -> Result<Self> {
        let mut writer = std::fs::OpenOptions::new().read(true).write(true).open(device)?;
        let mut reader = writer.try_clone().context("a second handle of the line")?;
        let (heard, messages) = mpsc::channel();
        // It ends when the line does.
        std::thread::spawn(move || {
            let mut decoder = Box::new(frame::Decoder::<{ wire::MESSAGE_LEN_MAX }>::new());
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                decoder.feed(&buffer[..len], |message| {
                    let _ = heard.send(message.to_vec());
                });
            }
        });
        Ok(Self::spawn(name, false, move |mut state, ended, asks| {
            let mut send = |said: Vec<Said>| -> Result<()> {
                for (_, payload) in said {
                    let mut framed = vec![0; frame::len_max(payload.len())];
                    let Ok(len) = frame::encode(&payload, &mut framed) else { bail!("a frame is too long") };
                    writer.write_all(&framed[..len])?;
                }
                Ok(())
            };
            send(state.greet())?;
            while !ended.load(Ordering::SeqCst) {
                if let Ok(id) = asks.try_recv() {
                    send(vec![state.question(id)])?;
                }
                if let Ok(message) = messages.recv_timeout(Duration::from_millis(5)) {
                    send(state.take(&message))?;
                }
            }
            Ok(())
        }))
    }

    /// Asks the gateway for the time.
    ///
    /// # Errors
    /// When no answer comes in five seconds.
    pub fn ask_time(&self, id: u32) -> Result<Told> {
        self.ask.send(id).context("the node has ended")?;
        self.told.recv_timeout(Duration::from_secs(5)).context("the gateway has not told the time")
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
