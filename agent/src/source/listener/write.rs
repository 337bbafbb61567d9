//! MQTT packets as a server writes them. OASIS: MQTT Version 5.0 (2019); its sections are given.

use super::packet::{Publish, Qos, Refusal, Version};
use bytes::{BufMut, BytesMut};

/// What the listener tells a client that it lets in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted<'a> {
    pub(super) version: Version,
    /// Given by the listener; `None` when the client has its own.
    pub(super) client_id: Option<&'a str>,
    pub(super) receive_max: u16,
    pub(super) packet_len_max: u32,
}

/// Writes the CONNACK that lets a client in.
pub(super) fn accept(accepted: &Accepted<'_>, out: &mut BytesMut) {
    if accepted.version == Version::V3 {
        out.put_slice(&[0x20, 2, 0, 0]);
        return;
    }
    let mut properties = Vec::with_capacity(64);
    // No session outlives its connection; QoS 1 at most; no subscription ids, no shared subscriptions (3.2.2.3).
    properties.put_slice(&[0x11, 0, 0, 0, 0, 0x24, 1, 0x29, 0, 0x2A, 0]);
    properties.put_u8(0x21);
    properties.put_u16(accepted.receive_max);
    properties.put_u8(0x27);
    properties.put_u32(accepted.packet_len_max);
    if let Some(client_id) = accepted.client_id {
        put_text(0x12, client_id, &mut properties);
    }
    put_head(0x20, 3 + properties.len(), out);
    out.put_slice(&[0, 0, properties.len() as u8]);
    out.put_slice(&properties);
}

/// Writes the CONNACK that turns a client away.
pub(super) fn refuse(version: Version, refusal: Refusal, out: &mut BytesMut) {
    if version == Version::V3 {
        out.put_slice(&[0x20, 2, 0, refusal.code_v3()]);
        return;
    }
    let properties = reason(refusal);
    put_head(0x20, 3 + properties.len(), out);
    out.put_slice(&[0, refusal.code(), properties.len() as u8]);
    out.put_slice(&properties);
}

/// Writes a DISCONNECT, which only MQTT 5 allows a server.
pub(super) fn disconnect(version: Version, refusal: Refusal, out: &mut BytesMut) {
    if version == Version::V5 {
        let properties = reason(refusal);
        put_head(0xE0, 2 + properties.len(), out);
        out.put_slice(&[refusal.code(), properties.len() as u8]);
        out.put_slice(&properties);
    }
}

/// Writes a PUBACK.
pub(super) fn puback(id: u16, out: &mut BytesMut) {
    out.put_slice(&[0x40, 2]);
    out.put_u16(id);
}

/// Writes the PUBACK of a message that its sender may not publish; MQTT 3.1.1 cannot say so.
pub(super) fn puback_unauthorized(version: Version, id: u16, out: &mut BytesMut) {
    match version {
        Version::V3 => puback(id, out),
        Version::V5 => {
            out.put_slice(&[0x40, 3]);
            out.put_u16(id);
            out.put_u8(0x87);
        }
    }
}

/// Writes a PINGRESP.
pub(super) fn pong(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// Writes a SUBACK with one code a filter.
pub(super) fn suback(version: Version, id: u16, codes: &[u8], out: &mut BytesMut) {
    let properties = usize::from(version == Version::V5);
    put_head(0x90, 2 + properties + codes.len(), out);
    out.put_u16(id);
    out.put_bytes(0, properties);
    out.put_slice(codes);
}

/// Writes an UNSUBACK; MQTT 5 has one code a filter.
pub(super) fn unsuback(version: Version, id: u16, codes: &[u8], out: &mut BytesMut) {
    let codes = if version == Version::V5 { codes } else { &[] };
    let properties = usize::from(version == Version::V5);
    put_head(0xB0, 2 + properties + codes.len(), out);
    out.put_u16(id);
    out.put_bytes(0, properties);
    out.put_slice(codes);
}

/// Length of a PUBLISH on the wire, at most.
pub(super) const fn publish_len_max(publish: &Publish<'_>) -> usize {
    13 + publish.topic.len() + publish.properties.len() + publish.payload.len()
}

/// Writes a PUBLISH.
pub(super) fn put_publish(version: Version, publish: &Publish<'_>, out: &mut BytesMut) {
    let at_least_once = publish.qos == Qos::AtLeastOnce;
    let properties = match version {
        Version::V3 => 0,
        Version::V5 => variable_len(publish.properties.len()) + publish.properties.len(),
    };
    let id = if at_least_once { 2 } else { 0 };
    let flags = u8::from(at_least_once) << 1 | u8::from(publish.retain);
    put_head(0x30 | flags, 2 + publish.topic.len() + id + properties + publish.payload.len(), out);
    out.put_u16(publish.topic.len() as u16);
    out.put_slice(publish.topic.as_bytes());
    if at_least_once {
        out.put_u16(publish.id);
    }
    if version == Version::V5 {
        put_variable(publish.properties.len(), out);
        out.put_slice(publish.properties);
    }
    out.put_slice(publish.payload);
}

fn put_head(first: u8, len: usize, out: &mut BytesMut) {
    out.put_u8(first);
    put_variable(len, out);
}

fn put_variable(mut number: usize, out: &mut BytesMut) {
    while number > 0x7F {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

const fn variable_len(number: usize) -> usize {
    match number {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

fn reason(refusal: Refusal) -> Vec<u8> {
    let mut properties = Vec::new();
    put_text(0x1F, &refusal.to_string(), &mut properties);
    // Its length is written in one byte; every refusal's text is shorter.
    if properties.len() > 0x7F { Vec::new() } else { properties }
}

fn put_text(property: u8, text: &str, out: &mut Vec<u8>) {
    out.put_u8(property);
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}
