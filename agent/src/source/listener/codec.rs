//! MQTT 3.1.1 and 5 as the listener sees them: one set of packets, read and written by rumqttc's codecs.
//!
//! Of the MQTT server crates, rumqttd acknowledges a publish as soon as it is in its own log, so a PUBACK cannot wait for
//! the journal's commit; ntex-mqtt can wait, but brings a second async runtime with its own worker threads. The protocol
//! needed here is small, and rumqttc, which is here anyway, has complete codecs for both versions.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use rumqttc::{mqttbytes, v5::mqttbytes as mqttbytes5};

/// Which MQTT a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V3,
    V5,
}

/// What a client wants when it connects.
#[derive(Debug)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) keep_alive_s: u16,
    pub(super) will: Option<Publish>,
    /// Messages of QoS 1 that it takes at a time.
    pub(super) receive_maximum: u16,
}

/// A message, either way.
#[derive(Debug, Clone)]
pub(super) struct Publish {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    /// 0, 1 or 2.
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) packet: u16,
}

/// What a client sends once it is connected.
#[derive(Debug)]
pub(super) enum Packet {
    Publish(Publish),
    PubAck,
    Subscribe {
        packet: u16,
        filters: Vec<(String, u8)>,
    },
    Unsubscribe {
        packet: u16,
        filters: Vec<String>,
    },
    Ping,
    Disconnect {
        /// The client wants its will published all the same.
        with_will: bool,
    },
}

/// Why bytes are no packet.
#[derive(Debug)]
pub(super) enum Error {
    /// They are only the beginning of one.
    Incomplete,
    /// They never will be.
    Malformed(String),
}

fn qos(qos: mqttbytes::QoS) -> u8 {
    qos as u8
}

fn error3(error: mqttbytes::Error) -> Error {
    match error {
        mqttbytes::Error::InsufficientBytes(_) => Error::Incomplete,
        other => Error::Malformed(other.to_string()),
    }
}

fn error5(error: mqttbytes5::Error) -> Error {
    match error {
        mqttbytes5::Error::InsufficientBytes(_) => Error::Incomplete,
        other => Error::Malformed(other.to_string()),
    }
}

/// Reads the first packet of a connection, which says the version.
pub(super) fn read_connect(buffer: &mut BytesMut, len_max: usize) -> Result<Connect, Error> {
    // Fixed header of 2 to 5 bytes, then the protocol's name "MQTT" with its length, then the version.
    let Some(name) = buffer.iter().take(16).position(|byte| *byte == b'M') else {
        return if buffer.len() < 16 {
            Err(Error::Incomplete)
        } else {
            Err(Error::Malformed("no MQTT".into()))
        };
    };
    if buffer.get(name..name + 4).is_some_and(|bytes| bytes != b"MQTT") {
        return Err(Error::Malformed("protocol is not MQTT 3.1.1 or 5".into()));
    }
    match buffer.get(name + 4) {
        None => Err(Error::Incomplete),
        Some(4) => match v4::Packet::read(buffer, len_max).map_err(error3)? {
            v4::Packet::Connect(connect) => Ok(Connect {
                version: Version::V3,
                client_id: connect.client_id,
                keep_alive_s: connect.keep_alive,
                will: connect.last_will.map(|will| Publish {
                    topic: will.topic.into(),
                    payload: will.message,
                    qos: qos(will.qos),
                    retain: will.retain,
                    dup: false,
                    packet: 0,
                }),
                receive_maximum: u16::MAX,
            }),
            _ => Err(Error::Malformed("first packet is no CONNECT".into())),
        },
        Some(5) => match v5::Packet::read(buffer, u32::try_from(len_max).ok()).map_err(error5)? {
            v5::Packet::Connect(connect, will, _) => Ok(Connect {
                version: Version::V5,
                client_id: connect.client_id,
                keep_alive_s: connect.keep_alive,
                will: will.map(|will| Publish {
                    topic: will.topic,
                    payload: will.message,
                    qos: will.qos as u8,
                    retain: will.retain,
                    dup: false,
                    packet: 0,
                }),
                receive_maximum: connect.properties.and_then(|p| p.receive_maximum).unwrap_or(u16::MAX),
            }),
            _ => Err(Error::Malformed("first packet is no CONNECT".into())),
        },
        Some(version) => Err(Error::Malformed(format!("protocol level {version} is neither 4 nor 5"))),
    }
}

/// Reads the next packet.
pub(super) fn read(version: Version, buffer: &mut BytesMut, len_max: usize) -> Result<Packet, Error> {
    // A DISCONNECT without reason, which the version 5 codec does not know.
    if buffer.starts_with(&[0xE0, 0]) {
        let _ = buffer.split_to(2);
        return Ok(Packet::Disconnect { with_will: false });
    }
    match version {
        Version::V3 => read3(v4::Packet::read(buffer, len_max).map_err(error3)?),
        Version::V5 => read5(v5::Packet::read(buffer, u32::try_from(len_max).ok()).map_err(error5)?),
    }
}

fn read3(packet: v4::Packet) -> Result<Packet, Error> {
    Ok(match packet {
        v4::Packet::Publish(publish) => Packet::Publish(Publish {
            topic: publish.topic.into(),
            payload: publish.payload,
            qos: qos(publish.qos),
            retain: publish.retain,
            dup: publish.dup,
            packet: publish.pkid,
        }),
        v4::Packet::PubAck(_) => Packet::PubAck,
        v4::Packet::Subscribe(subscribe) => Packet::Subscribe {
            packet: subscribe.pkid,
            filters: subscribe.filters.into_iter().map(|filter| (filter.path, qos(filter.qos))).collect(),
        },
        v4::Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe { packet: unsubscribe.pkid, filters: unsubscribe.topics }
        }
        v4::Packet::PingReq => Packet::Ping,
        v4::Packet::Disconnect => Packet::Disconnect { with_will: false },
        other => return Err(Error::Malformed(format!("a client may not send {other:?}"))),
    })
}

fn read5(packet: v5::Packet) -> Result<Packet, Error> {
    Ok(match packet {
        v5::Packet::Publish(publish) => {
            let alias = publish.properties.as_ref().and_then(|properties| properties.topic_alias);
            if alias.is_some() {
                return Err(Error::Malformed("topic aliases were not offered".into()));
            }
            Packet::Publish(Publish {
                topic: publish.topic,
                payload: publish.payload,
                qos: publish.qos as u8,
                retain: publish.retain,
                dup: publish.dup,
                packet: publish.pkid,
            })
        }
        v5::Packet::PubAck(_) => Packet::PubAck,
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe {
            packet: subscribe.pkid,
            filters: subscribe.filters.into_iter().map(|filter| (filter.path, filter.qos as u8)).collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe { packet: unsubscribe.pkid, filters: unsubscribe.filters }
        }
        v5::Packet::PingReq(_) => Packet::Ping,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect {
            with_will: disconnect.reason_code == v5::DisconnectReasonCode::DisconnectWithWillMessage,
        },
        other => return Err(Error::Malformed(format!("a client may not send {other:?}"))),
    })
}

/// Limits that a version 5 client is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) packet_len_max: u32,
    pub(super) inflight_max: u16,
}

/// CONNACK that takes the client in; `assigned` is the id given to one that came without.
pub(super) fn connack(version: Version, limits: Limits, assigned: Option<String>, out: &mut BytesMut) {
    let _ = match version {
        Version::V3 => v4::ConnAck::new(v4::ConnectReturnCode::Success, false).write(out).map_err(|_| ()),
        Version::V5 => {
            let properties = v5::ConnAckProperties {
                session_expiry_interval: Some(0),
                receive_max: Some(limits.inflight_max),
                max_qos: Some(1),
                retain_available: None,
                max_packet_size: Some(limits.packet_len_max),
                assigned_client_identifier: assigned,
                topic_alias_max: None,
                reason_string: None,
                user_properties: Vec::new(),
                wildcard_subscription_available: None,
                subscription_identifiers_available: Some(0),
                shared_subscription_available: Some(0),
                server_keep_alive: None,
                response_information: None,
                server_reference: None,
                authentication_method: None,
                authentication_data: None,
            };
            let ack = v5::ConnAck {
                session_present: false,
                code: v5::ConnectReturnCode::Success,
                properties: Some(properties),
            };
            v5::Packet::ConnAck(ack).write(out, None).map_err(|_| ())
        }
    };
}

/// CONNACK that says the server is busy.
pub(super) fn connack_busy(version: Version, out: &mut BytesMut) {
    let _ = match version {
        Version::V3 => {
            v4::ConnAck::new(v4::ConnectReturnCode::ServiceUnavailable, false).write(out).map_err(|_| ())
        }
        Version::V5 => {
            let code = v5::ConnectReturnCode::ServerBusy;
            let ack = v5::ConnAck { session_present: false, code, properties: None };
            v5::Packet::ConnAck(ack).write(out, None).map_err(|_| ())
        }
    };
}

/// PUBACK of a packet: the same four bytes in both versions.
pub(super) fn puback(packet: u16, out: &mut BytesMut) {
    let [high, low] = packet.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// PINGRESP.
pub(super) fn pong(out: &mut BytesMut) {
    out.extend_from_slice(&[0xD0, 0]);
}

/// SUBACK; each code is the granted QoS, or `None` for a filter that is refused.
pub(super) fn suback(version: Version, packet: u16, codes: &[Option<u8>], out: &mut BytesMut) {
    let [high, low] = packet.to_be_bytes();
    let properties = usize::from(version == Version::V5);
    out.extend_from_slice(&[0x90]);
    remaining_len(2 + properties + codes.len(), out);
    out.extend_from_slice(&[high, low]);
    out.extend_from_slice(&[0][..properties]);
    let refused = if version == Version::V5 { 0x8F } else { 0x80 };
    out.extend(codes.iter().map(|code| code.unwrap_or(refused)));
}

/// UNSUBACK of `count` filters.
pub(super) fn unsuback(version: Version, packet: u16, count: usize, out: &mut BytesMut) {
    let [high, low] = packet.to_be_bytes();
    out.extend_from_slice(&[0xB0]);
    match version {
        Version::V3 => out.extend_from_slice(&[2, high, low]),
        Version::V5 => {
            remaining_len(3 + count, out);
            out.extend_from_slice(&[high, low, 0]);
            out.extend(std::iter::repeat_n(0, count));
        }
    }
}

/// PUBLISH.
pub(super) fn publish(version: Version, message: &Publish, out: &mut BytesMut) {
    let properties = usize::from(version == Version::V5);
    let packet = if message.qos > 0 { 2 } else { 0 };
    out.extend_from_slice(&[0x30 | u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain)]);
    remaining_len(2 + message.topic.len() + packet + properties + message.payload.len(), out);
    // Topics come from packets, where their length has 16 bits, or from the gateway, where they are short.
    let len = u16::try_from(message.topic.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&message.topic);
    if message.qos > 0 {
        out.extend_from_slice(&message.packet.to_be_bytes());
    }
    out.extend_from_slice(&[0][..properties]);
    out.extend_from_slice(&message.payload);
}

fn remaining_len(mut len: usize, out: &mut BytesMut) {
    loop {
        let byte = (len % 128) as u8;
        len /= 128;
        out.extend_from_slice(&[if len > 0 { byte | 0x80 } else { byte }]);
        if len == 0 {
            return;
        }
    }
}
