//! Stands on the wire between a board and its broker and writes down what the gateway acknowledged, before the board can
//! know it. It reads MQTT 5 and the wire format only, so it shares no opinion with the firmware.

use super::hash;
use super::ledger::{Entry, Ledger, Promise};
use anyhow::{Context, Result};
use parking_lot::Mutex;
use spindle_common::wire::{self, Message};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

/// Type of an MQTT PUBLISH, upper half of its first byte.
const PUBLISH: u8 = 3;

struct Witness {
    boot: u64,
    ledger: Ledger,
    /// Sent and not acknowledged, by number.
    sent: BTreeMap<u32, Promise>,
    /// By sensor: samples that the gateway may have heard of.
    told: BTreeMap<u8, u64>,
}

/// Listens on a port of its own and passes everything on to the broker at `broker`; gives the port. Ends with the process.
///
/// # Errors
/// When there is no port.
pub fn start(broker: String, boot: u64, ledger: Ledger) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("bind the witness")?;
    let port = listener.local_addr()?.port();
    let witness = Witness { boot, ledger, sent: BTreeMap::new(), told: BTreeMap::new() };
    let witness = Arc::new(Mutex::new(witness));
    std::thread::spawn(move || {
        for board in listener.incoming() {
            // No broker: the board's connection is closed with the value.
            let (Ok(board), Ok(broker)) = (board, TcpStream::connect(&broker)) else { continue };
            for (from, to, up) in [(&board, &broker, true), (&broker, &board, false)] {
                let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                let witness = witness.clone();
                std::thread::spawn(move || carry(from, to, &witness, up));
            }
        }
    });
    Ok(port)
}

/// Carries whole packets one way, each after it was looked at.
fn carry(mut from: TcpStream, mut to: TcpStream, witness: &Mutex<Witness>, up: bool) {
    let _ = to.set_nodelay(true);
    let (mut waiting, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(len @ 1..) = from.read(&mut chunk) {
        waiting.extend_from_slice(&chunk[..len]);
        let mut entries = Vec::new();
        let mut whole = 0;
        let mut witness = witness.lock();
        while let Some(len) = packet_len(&waiting[whole..]) {
            let packet = &waiting[whole..whole + len];
            if let Some((topic, payload)) = publish(packet) {
                if up {
                    witness.hear_board(topic, payload, &mut entries)
                } else {
                    witness.hear_gateway(payload, &mut entries)
                }
            }
            whole += len;
        }
        // A promise that is not in the ledger must not reach the board.
        if !entries.is_empty() && witness.ledger.write(&entries).is_err() {
            break;
        }
        drop(witness);
        if to.write_all(&waiting[..whole]).is_err() {
            break;
        }
        waiting.drain(..whole);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

impl Witness {
    fn hear_board(&mut self, topic: &str, payload: &[u8], entries: &mut Vec<Entry>) {
        match wire::decode(payload) {
            Ok(Message::Block(block)) if topic.ends_with("/raw") => {
                let (header, covered) =
                    (block.header, u64::from(block.header.samples) * u64::from(block.header.decimation));
                let (stream, seq) = (header.stream.0, header.seq.0);
                let promise =
                    Promise { stream, seq, end: header.first_sample + covered, hash: hash(payload) };
                let before = self.sent.insert(seq, promise);
                if before.is_some_and(|before| before != promise) {
                    entries.push(Entry::Forked { seq });
                }
                self.tell(stream, promise.end, entries);
            }
            Ok(Message::Status(status)) => {
                // What it does not hold and was not acknowledged is dropped and counted on the board.
                self.sent = self.sent.split_off(&status.oldest.0);
                for stream in &status.streams {
                    self.tell(stream.stream.0, stream.taken, entries);
                }
            }
            _ => {}
        }
    }

    fn tell(&mut self, stream: u8, taken: u64, entries: &mut Vec<Entry>) {
        let told = self.told.entry(stream).or_default();
        if taken > *told {
            *told = taken;
            entries.push(Entry::Told { stream, taken });
        }
    }

    fn hear_gateway(&mut self, payload: &[u8], entries: &mut Vec<Entry>) {
        if let Ok(Message::Ack(ack)) = wire::decode(payload)
            && ack.boot.0 == self.boot
        {
            let open = self.sent.split_off(&ack.next.0);
            let kept = std::mem::replace(&mut self.sent, open);
            entries.extend(kept.into_values().map(Entry::Acknowledged));
        }
    }
}

/// A number of MQTT's: 7 bits a byte, lowest first; with how many bytes it took.
fn variable(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Length of the first packet, when all of it is there.
fn packet_len(bytes: &[u8]) -> Option<usize> {
    let (rest, len) = variable(bytes.get(1..)?)?;
    let whole = 1 + len + rest;
    (whole <= bytes.len()).then_some(whole)
}

/// Topic and payload, when it is a PUBLISH (MQTT 5.0, section 3.3).
fn publish(packet: &[u8]) -> Option<(&str, &[u8])> {
    let first = *packet.first()?;
    if first >> 4 != PUBLISH {
        return None;
    }
    let (_, len) = variable(&packet[1..])?;
    let body = packet.get(1 + len..)?;
    let (&topic_len, rest) = body.split_first_chunk::<2>()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(topic_len)))?;
    let rest = if first >> 1 & 3 == 0 { rest } else { rest.get(2..)? };
    let (properties, len) = variable(rest)?;
    Some((std::str::from_utf8(topic).ok()?, rest.get(len + properties..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_told_from_other_packets_and_from_half_of_one() {
        let packet = [0x32, 14, 0, 3, b'a', b'/', b'b', 0, 9, 2, 1, 0, b'h', b'e', b'l', b'o'];
        assert_eq!(packet_len(&packet), Some(16));
        assert_eq!(packet_len(&packet[..15]), None);
        assert_eq!(publish(&packet), Some(("a/b", b"helo".as_slice())));
        assert_eq!(publish(&[0xC0, 0]), None);
        assert_eq!(variable(&[0x80, 0x01]), Some((128, 2)));
    }
}
