//! Too much of everything.

use super::super::{IN_FLIGHT_MAX, QUEUE_MAX, RETAINED_MAX, SUBSCRIPTIONS_MAX};
use super::*;
use crate::source::{Outgoing, PACKET_LEN_MAX};

async fn disconnected(client: &mut Raw) -> v5::DisconnectReasonCode {
    match client.receive().await {
        Some(v5::Packet::Disconnect(disconnect)) => {
            assert!(disconnect.properties.unwrap().reason_string.is_some());
            disconnect.reason_code
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_too_many_is_told_so() {
    let site = Site::new(2).await;
    let _first = Raw::connected(&site, "first", 0).await;
    let _second = Raw::connected(&site, "second", 0).await;
    for (refused, version) in (1..).zip(["311", "5"]) {
        let publisher = site.mosquitto("mosquitto_pub", version, &["-t", "in/a", "-m", "x"]);
        let (success, words) = finished(publisher).await;
        assert!(!success && (words.contains("refused") || words.contains("Quota exceeded")), "{words}");
        assert_eq!(site.metrics.source.clients_refused.get(), refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_too_large_and_qos_2_end_the_connection_in_words() {
    let mut site = Site::new(8).await;
    let mut client = Raw::connected(&site, "a", 0).await;
    client.publish("in/a", 1, &vec![0; PACKET_LEN_MAX]).await;
    assert_eq!(disconnected(&mut client).await, v5::DisconnectReasonCode::PacketTooLarge);

    let mut client = Raw::connected(&site, "b", 0).await;
    client.stream.write_all(b"\x34\x07\0\x02in\0\x01\0").await.unwrap();
    assert_eq!(disconnected(&mut client).await, v5::DisconnectReasonCode::QoSNotSupported);

    let mut client = Raw::connected(&site, "c", 0).await;
    client.stream.write_all(b"\x30\x05\0\x02\xFF\xFF\0").await.unwrap();
    assert_eq!(disconnected(&mut client).await, v5::DisconnectReasonCode::MalformedPacket);

    assert_eq!(site.metrics.source.packets_refused.get(), 3);
    let wills = [site.next().await, site.next().await, site.next().await];
    assert_eq!(wills.map(|will| will.payload), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_packet_passes() {
    let mut site = Site::new(8).await;
    let mut client = Raw::connected(&site, "a", 0).await;
    let payload = vec![7; PACKET_LEN_MAX - 1024];
    client.publish("in/a", 1, &payload).await;
    assert_eq!(site.next().await.payload, payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_receive_maximum_nothing_is_read_until_a_commit() {
    let mut site = Site::new(8).await;
    let mut client = Raw::connected(&site, "a", 0).await;
    for id in 1..=IN_FLIGHT_MAX as u16 + 1 {
        client.publish("in/a", id, &id.to_be_bytes()).await;
    }
    let first = site.next().await;
    for _ in 1..IN_FLIGHT_MAX {
        site.next().await;
    }
    assert!(site.nothing_comes().await);
    site.release(&first);
    assert_eq!(site.next().await.payload, (IN_FLIGHT_MAX as u16 + 1).to_be_bytes().to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inbox_holds_up_neither_pings_nor_acknowledgements_and_loses_nothing() {
    let mut site = Site::new(8).await;
    let mut client = Raw::connected(&site, "a", 0).await;
    client.publish("in/a", 1, &[0]).await;
    let first = site.next().await;
    let messages = BATCHES_MAX as u8 * 3;
    for number in 1..=messages {
        client.publish("in/a", u16::from(number) + 1, &[number]).await;
        client.send(&v5::Packet::PingReq(v5::PingReq)).await;
        assert!(matches!(client.receive().await, Some(v5::Packet::PingResp(_))));
    }
    assert_eq!(site.inbox.len(), BATCHES_MAX);
    site.release(&first);
    assert!(matches!(client.receive().await, Some(v5::Packet::PubAck(ack)) if ack.pkid == 1));
    for number in 1..=messages {
        assert_eq!(site.next().await.payload, vec![number]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_acknowledges_nothing_loses_messages_and_they_are_counted() {
    let site = Site::new(8).await;
    let mut slow = Raw::connected(&site, "slow", 0).await;
    slow.subscribe("plant/#").await;
    let sent = QUEUE_MAX * 3;
    for _ in 0..sent {
        let message = Outgoing { topic: "plant/x".into(), payload: vec![0; 100].into(), at_least_once: true };
        site.handle.outgoing.send(message).await.unwrap();
    }
    // The last that is sent to another comes after all.
    let mut other = Raw::connected(&site, "other", 0).await;
    other.subscribe("plant/y").await;
    let message = Outgoing { topic: "plant/y".into(), payload: "".into(), at_least_once: true };
    site.handle.outgoing.send(message).await.unwrap();
    other.receive().await.unwrap();
    let dropped = site.metrics.source.subscriber_dropped.get() as usize;
    let taken = QUEUE_MAX + super::super::OUT_IN_FLIGHT_MAX;
    assert!((sent - taken..=sent - QUEUE_MAX + 1).contains(&dropped), "{dropped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_and_retained_messages_have_a_limit() {
    let mut site = Site::new(8).await;
    let mut client = Raw::connected(&site, "a", 0).await;
    for number in 0..SUBSCRIPTIONS_MAX {
        let codes = client.subscribe(&format!("plant/{number}")).await;
        assert!(matches!(codes[..], [v5::SubscribeReasonCode::Success(_)]));
    }
    assert_eq!(client.subscribe("one/more").await, [v5::SubscribeReasonCode::QuotaExceeded]);
    assert_eq!(
        client.subscribe("$share/g/plant").await,
        [v5::SubscribeReasonCode::SharedSubscriptionsNotSupported]
    );
    assert_eq!(client.subscribe("a/#/b").await, [v5::SubscribeReasonCode::TopicFilterInvalid]);
    assert_eq!(site.metrics.source.subscriptions_refused.get(), 1);

    for number in 0..=RETAINED_MAX {
        let qos = rumqttc::v5::mqttbytes::QoS::AtMostOnce;
        let mut publish = v5::Publish::new(format!("keep/{number}"), qos, "x", None);
        publish.retain = true;
        client.send(&v5::Packet::Publish(publish)).await;
    }
    client.publish("in/done", 0, b"").await;
    site.next().await;
    assert_eq!(site.metrics.source.retained_dropped.get(), 1);
}
