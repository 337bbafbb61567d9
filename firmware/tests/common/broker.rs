//! Just enough of an MQTT 5 broker to stand between one board and the gateway of these tests.

use crate::common::Gateway;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Serves boards, one thread a connection, all into one gateway per node name given by topic.
pub(crate) struct Broker {
    pub(crate) address: String,
    pub(crate) gateway: Arc<Mutex<Gateway>>,
    pub(crate) topics: Arc<Mutex<Vec<String>>>,
    pub(crate) goodbyes: Arc<Mutex<u32>>,
    pub(crate) sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = Self {
            address: listener.local_addr().unwrap().to_string(),
            gateway: Arc::default(),
            topics: Arc::default(),
            goodbyes: Arc::default(),
            sockets: Arc::default(),
        };
        let (gateway, topics) = (broker.gateway.clone(), broker.topics.clone());
        let (goodbyes, sockets) = (broker.goodbyes.clone(), broker.sockets.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.unwrap();
                socket.set_nodelay(true).unwrap();
                sockets.lock().unwrap().push(socket.try_clone().unwrap());
                let (gateway, topics, goodbyes) = (gateway.clone(), topics.clone(), goodbyes.clone());
                std::thread::spawn(move || serve(socket, &gateway, &topics, &goodbyes));
            }
        });
        broker
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Publishes to the boards, QoS 0.
    pub(crate) fn publish(&self, topic: &str, payload: &[u8]) {
        for mut socket in self.sockets.lock().unwrap().iter() {
            let _ = socket.write_all(&publish(topic, payload));
        }
    }
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let len = 2 + topic.len() + 1 + payload.len();
    let mut packet = vec![0x30];
    varint(len, &mut packet);
    packet.extend((topic.len() as u16).to_be_bytes());
    packet.extend(topic.as_bytes());
    packet.push(0);
    packet.extend(payload);
    packet
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        out.push(if value > 0 { byte | 0x80 } else { byte });
        if value == 0 {
            return;
        }
    }
}

fn read_packet(socket: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    socket.read_exact(&mut byte).ok()?;
    let kind = byte[0];
    let (mut len, mut shift) = (0usize, 0);
    loop {
        socket.read_exact(&mut byte).ok()?;
        len |= usize::from(byte[0] & 0x7F) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; len];
    socket.read_exact(&mut body).ok()?;
    Some((kind, body))
}

fn serve(
    mut socket: TcpStream,
    gateway: &Mutex<Gateway>,
    topics: &Mutex<Vec<String>>,
    goodbyes: &Mutex<u32>,
) {
    let mut input = std::io::BufReader::new(socket.try_clone().unwrap());
    while let Some((kind, body)) = read_packet(&mut input) {
        let mut out = Vec::new();
        match kind >> 4 {
            1 => out.extend([0x20, 3, 0, 0, 0]),
            8 => {
                let filters = 2;
                out.extend([0x90, 3 + filters, body[0], body[1], 0, 0, 1]);
            }
            3 => {
                let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..2 + topic_len].to_vec()).unwrap();
                let asks = topic.ends_with("/timeask");
                assert_eq!(kind >> 1 & 3, u8::from(!asks), "boards publish with QoS 1 all but questions");
                let id_len = if asks { 0 } else { 2 };
                let id = &body[2 + topic_len..][..id_len];
                assert_eq!(body[2 + topic_len + id_len], 0, "no properties");
                let payload = &body[3 + topic_len + id_len..];
                assert_eq!(kind & 1 == 1, topic.ends_with("/birth"), "only the birth is retained");
                let answer = gateway.lock().unwrap().take(payload);
                if !asks {
                    out.extend([0x40, 2, id[0], id[1]]);
                }
                if let Some(answer) = answer {
                    let (site_machine, _) =
                        topic.strip_prefix("spindle/v1/").unwrap().rsplit_once('/').unwrap();
                    let (site_machine, _) = site_machine.rsplit_once('/').unwrap();
                    let node = gateway.lock().unwrap().node.clone();
                    let kind = if asks { "cmd" } else { "ack" };
                    out.extend(publish(&format!("spindle/v1/{site_machine}/{node}/{kind}"), &answer));
                }
                topics.lock().unwrap().push(topic);
            }
            12 => out.extend([0xD0, 0]),
            14 => {
                *goodbyes.lock().unwrap() += 1;
                let _ = socket.shutdown(std::net::Shutdown::Both);
                return;
            }
            other => panic!("packet type {other}"),
        }
        if socket.write_all(&out).is_err() {
            return;
        }
    }
}
