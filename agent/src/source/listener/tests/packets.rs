//! Packets, held against rumqttc's, which were written by others.

use super::super::packet::{Packet, Publish, Qos, Refusal, Version, decode, frame};
use super::super::write::{self, Accepted};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rumqttc::mqttbytes::{QoS as QoS4, v4};
use rumqttc::v5::mqttbytes::{QoS as QoS5, v5};

fn whole(version: Version, bytes: &[u8]) -> Result<Packet<'_>, Refusal> {
    let (first, body) = frame(bytes, usize::MAX)?.expect("not whole");
    assert_eq!(body.end, bytes.len());
    decode(version, first, &bytes[body])
}

fn written5(packet: &v5::Packet) -> Bytes {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).unwrap();
    bytes.freeze()
}

fn written4(packet: &v4::Packet) -> Bytes {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, usize::MAX).unwrap();
    bytes.freeze()
}

#[test]
fn a_connect_with_all_that_we_use_is_understood_in_both_versions() {
    let mut connect = v4::Connect::new("node-1");
    connect.keep_alive = 30;
    connect.set_login("user", "password");
    connect.last_will = Some(v4::LastWill::new("a/offline", "gone", QoS4::AtLeastOnce, true));
    let bytes = written4(&v4::Packet::Connect(connect));
    let Ok(Packet::Connect(read)) = whole(Version::V5, &bytes) else { panic!("no CONNECT") };
    assert_eq!((read.version, read.client_id, read.keep_alive), (Version::V3, "node-1", 30));
    let will = read.will.unwrap();
    assert_eq!(
        (will.topic, will.payload, will.qos, will.retain),
        ("a/offline", &b"gone"[..], Qos::AtLeastOnce, true)
    );

    let mut properties = v5::ConnectProperties::new();
    properties.receive_maximum = Some(8);
    properties.max_packet_size = Some(4096);
    properties.user_properties = vec![("k".into(), "v".into())];
    let connect = v5::Connect {
        keep_alive: 10,
        client_id: "node-2".into(),
        clean_start: false,
        properties: Some(properties),
    };
    let will = v5::LastWill::new("b/offline", "away", QoS5::AtMostOnce, false, None);
    let bytes = written5(&v5::Packet::Connect(connect, Some(will), None));
    let Ok(Packet::Connect(read)) = whole(Version::V5, &bytes) else { panic!("no CONNECT") };
    assert_eq!(
        (read.version, read.client_id, read.keep_alive, read.clean),
        (Version::V5, "node-2", 10, false)
    );
    assert_eq!((read.receive_max, read.packet_len_max), (8, 4096));
    assert_eq!(read.will.unwrap().topic, "b/offline");
}

#[test]
fn what_the_listener_writes_is_what_rumqttc_reads() {
    let accepted = Accepted {
        version: Version::V5,
        client_id: Some("spindle-1"),
        receive_max: 256,
        packet_len_max: 1 << 18,
    };
    let mut out = BytesMut::new();
    write::accept(&accepted, &mut out);
    write::refuse(Version::V5, Refusal::Clients(4), &mut out);
    write::disconnect(Version::V5, Refusal::QosTwo, &mut out);
    write::suback(Version::V5, 5, &[1, 0x97], &mut out);
    write::unsuback(Version::V5, 6, &[0, 0x11], &mut out);
    let mut next = || v5::Packet::read(&mut out, None).unwrap();
    let v5::Packet::ConnAck(ack) = next() else { panic!("no CONNACK") };
    let properties = ack.properties.unwrap();
    assert_eq!(properties.assigned_client_identifier.as_deref(), Some("spindle-1"));
    assert_eq!((properties.receive_max, properties.max_packet_size), (Some(256), Some(1 << 18)));
    assert_eq!((properties.max_qos, properties.session_expiry_interval), (Some(1), Some(0)));
    let v5::Packet::ConnAck(ack) = next() else { panic!("no CONNACK") };
    assert_eq!(ack.code, v5::ConnectReturnCode::QuotaExceeded);
    assert_eq!(ack.properties.unwrap().reason_string.unwrap(), "too many clients: 4");
    let v5::Packet::Disconnect(disconnect) = next() else { panic!("no DISCONNECT") };
    assert_eq!(disconnect.reason_code, v5::DisconnectReasonCode::QoSNotSupported);
    let v5::Packet::SubAck(ack) = next() else { panic!("no SUBACK") };
    assert_eq!((ack.pkid, ack.return_codes.len()), (5, 2));
    let v5::Packet::UnsubAck(ack) = next() else { panic!("no UNSUBACK") };
    assert_eq!((ack.pkid, ack.reasons.len()), (6, 2));
}

#[test]
fn goodbyes_without_a_reason_and_with_one_are_told_apart() {
    assert_eq!(whole(Version::V5, b"\xE0\0"), Ok(Packet::Disconnect { will: false }));
    assert_eq!(whole(Version::V3, b"\xE0\0"), Ok(Packet::Disconnect { will: false }));
    assert_eq!(whole(Version::V5, b"\xE0\x02\x04\0"), Ok(Packet::Disconnect { will: true }));
}

#[test]
fn what_a_client_may_not_send_is_named() {
    let refusal = |bytes: &[u8]| whole(Version::V5, bytes).unwrap_err().to_string();
    assert!(refusal(b"\x10\x07\0\x04MQTT\x03").contains("protocol level 3"));
    assert!(refusal(b"\x30\x06\0\x01+\0xx").contains("wildcards"));
    assert!(refusal(b"\x30\x07\0\x01a\x03\x23\0\x01").contains("topic alias"));
    assert!(refusal(b"\x32\x06\0\x01a\0\0\0").contains("packet id 0"));
    assert!(refusal(b"\x82\x03\0\x01\0").contains("no topic filter"));
    assert!(refusal(b"\x80\x03\0\x01\0").contains("flags"));
    assert!(refusal(b"\x20\x02\0\0").contains("only servers"));
    assert!(frame(b"\x30\xFF\xFF\xFF\xFF\x01", usize::MAX).is_err());
    assert_eq!(frame(b"\x30\x80\x08", 1024), Err(Refusal::TooLarge { len: 1027, max: 1024 }));
}

proptest! {
    #[test]
    fn any_bytes_are_a_packet_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), v5 in any::<bool>()) {
        let version = if v5 { Version::V5 } else { Version::V3 };
        if let Ok(Some((first, body))) = frame(&bytes, 1000)
            && let Ok(Packet::Subscribe(_, mut filters) | Packet::Unsubscribe(_, mut filters)) =
                decode(version, first, &bytes[body])
        {
            while let Ok(Some(_)) = filters.next() {}
        }
        // Every kind of packet, whatever the chance of a fitting length.
        for kind in 0..16 {
            let _ = decode(version, kind << 4 | bytes.first().unwrap_or(&0) & 0xF, &bytes);
        }
    }

    #[test]
    fn a_connect_cut_or_changed_anywhere_is_no_panic(at in 0_usize..60, value in any::<u8>(), len in 0_usize..60) {
        let connect = v5::Connect {
            keep_alive: 10,
            client_id: "node".into(),
            clean_start: true,
            properties: Some(v5::ConnectProperties { receive_maximum: Some(8), ..v5::ConnectProperties::new() }),
        };
        let will = v5::LastWill::new("b/offline", "away", QoS5::AtMostOnce, false, None);
        let mut body = written5(&v5::Packet::Connect(connect, Some(will), None))[2..].to_vec();
        if let Some(byte) = body.get_mut(at) {
            *byte = value;
        }
        body.truncate(len);
        let _ = decode(Version::V5, 0x10, &body);
    }

    #[test]
    fn messages_of_rumqttc_come_through_and_back(
        topic in "[a-z/]{1,300}",
        payload in proptest::collection::vec(any::<u8>(), 0..20_000),
        id in 0_u16..,
        retain in any::<bool>(),
        content_type in proptest::option::of("[a-z/]{0,200}"),
    ) {
        let qos = if id == 0 { QoS5::AtMostOnce } else { QoS5::AtLeastOnce };
        let properties = content_type.map(|content_type| v5::PublishProperties {
            content_type: Some(content_type),
            ..v5::PublishProperties::default()
        });
        let mut publish = v5::Publish::new(topic.clone(), qos, payload.clone(), properties);
        (publish.pkid, publish.retain) = (id, retain);
        let bytes = written5(&v5::Packet::Publish(publish.clone()));
        let Ok(Packet::Publish(read)) = whole(Version::V5, &bytes) else { panic!("no PUBLISH") };
        prop_assert_eq!((read.topic, read.payload, read.id), (&*topic, &payload[..], id));
        let mut out = BytesMut::new();
        write::put_publish(Version::V5, &read, &mut out);
        prop_assert_eq!(&out[..], &bytes[..]);
        prop_assert!(out.len() <= write::publish_len_max(&read));

        let mut out = BytesMut::new();
        write::put_publish(Version::V3, &Publish { properties: &[], ..read }, &mut out);
        let qos = if id == 0 { QoS4::AtMostOnce } else { QoS4::AtLeastOnce };
        let mut publish = v4::Publish::new(topic, qos, payload);
        (publish.pkid, publish.retain) = (id, retain);
        prop_assert_eq!(&out[..], &written4(&v4::Packet::Publish(publish))[..]);
    }
}
