//! What Mosquitto's clients and ours see.

use super::*;
use crate::source::Outgoing;

const VERSIONS: [&str; 2] = ["311", "5"];

#[tokio::test(flavor = "multi_thread")]
async fn a_puback_waits_for_the_commit() {
    let mut site = Site::new(8).await;
    for version in VERSIONS {
        let arguments = ["-q", "1", "-t", "in/a", "-m", "hello"];
        let mut publisher = site.mosquitto("mosquitto_pub", version, &arguments);
        let message = site.next().await;
        assert_eq!(message.topic.as_deref(), Some(&b"in/a"[..]));
        assert_eq!(message.payload, "hello");
        assert!(timeout(A_WHILE, publisher.wait()).await.is_err(), "the client has a PUBACK already");
        site.release(&message);
        assert!(finished(publisher).await.0);
    }
    assert_eq!(site.metrics.source.acks_stale.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_qos_0_comes_without_a_token() {
    let mut site = Site::new(8).await;
    for version in VERSIONS {
        let publisher = site.mosquitto("mosquitto_pub", version, &["-t", "in/b", "-m", "quick"]);
        assert_eq!(site.next().await.token, None);
        assert!(finished(publisher).await.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_get_what_their_wildcards_match_and_the_gateway_only_what_it_wants() {
    let mut site = Site::new(8).await;
    for (version, other) in [("311", "5"), ("5", "311")] {
        let filters = ["-q", "1", "-t", "plant/+/x", "-t", "deep/#", "-t", "plant/+/+"];
        let mut lines = site.subscriber(version, &filters).await;
        for topic in ["plant/1/x/no", "elsewhere", "plant/1/x", "deep", "deep/er/still"] {
            let publisher = site.mosquitto("mosquitto_pub", other, &["-q", "1", "-t", topic, "-m", topic]);
            assert!(finished(publisher).await.0);
        }
        // Filters that overlap give one copy.
        for topic in ["plant/1/x", "deep", "deep/er/still"] {
            assert_eq!(lines.line().await, format!("{topic} {topic}"));
        }
    }
    assert!(site.nothing_comes().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_greets_new_subscribers_until_it_is_cleared() {
    let site = Site::new(8).await;
    for version in VERSIONS {
        let keep = site.mosquitto("mosquitto_pub", version, &["-r", "-t", "birth/1", "-m", "born"]);
        assert!(finished(keep).await.0);
        let greeted = ["-C", "1", "-W", "10", "-F", "%r %p", "-t", "birth/+"];
        let child = site.mosquitto("mosquitto_sub", version, &greeted);
        assert_eq!(timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap().stdout, b"1 born\n");
        let clear = site.mosquitto("mosquitto_pub", version, &["-r", "-n", "-t", "birth/1"]);
        assert!(finished(clear).await.0);
        let mut late = site.subscriber(version, &["-t", "birth/+"]).await;
        assert!(timeout(A_WHILE, late.lines.next_line()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_will_is_published_when_the_connection_is_lost_and_only_then() {
    let mut site = Site::new(8).await;
    for version in VERSIONS {
        let mut watcher = site.subscriber(version, &["-t", "in/offline"]).await;
        let will = ["--will-topic", "in/offline", "--will-payload", "gone"];
        let mut lost = site.subscriber(version, &will).await;
        lost.child.kill().await.unwrap();
        // The watcher is greeted again by the topic that told when the other was ready.
        assert_eq!(watcher.line().await, "ready/now yes");
        assert_eq!(watcher.line().await, "in/offline gone");
        assert_eq!(site.next().await.payload, "gone");

        // mosquitto_sub says goodbye when it has got what it was to wait for.
        let leaving = site.subscriber(version, &[&will[..], &["-C", "1"]].concat()).await;
        finished(leaving.child).await;
        assert!(site.nothing_comes().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_sends_reaches_the_node_and_nobody_else_may_send_it() {
    let mut site = Site::new(8).await;
    let mut node = Raw::connected(&site, "node", 0).await;
    node.subscribe("spindle/v1/s/m/n/ack").await;
    let mut stranger = Raw::connected(&site, "stranger", 0).await;
    stranger.publish("spindle/v1/s/m/n/ack", 7, b"forged").await;
    match stranger.receive().await {
        Some(v5::Packet::PubAck(ack)) => assert_eq!(ack.reason, v5::PubAckReason::NotAuthorized),
        other => panic!("{other:?}"),
    }
    for at_least_once in [true, false] {
        let topic = "spindle/v1/s/m/n/ack".to_owned();
        let message = Outgoing { topic, payload: "ours".into(), at_least_once };
        site.handle.outgoing.send(message).await.unwrap();
        match node.receive().await {
            Some(v5::Packet::Publish(publish)) => {
                assert_eq!((&publish.payload[..], publish.pkid), (&b"ours"[..], u16::from(at_least_once)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(site.nothing_comes().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_properties_of_a_message_reach_subscribers_of_mqtt_5() {
    let site = Site::new(8).await;
    let mut subscriber = Raw::connected(&site, "subscriber", 0).await;
    subscriber.subscribe("plant/x").await;
    let properties =
        ["-D", "PUBLISH", "content-type", "text/csv", "-D", "PUBLISH", "user-property", "k", "v"];
    let arguments = [&["-t", "plant/x", "-m", "1,2"], &properties[..]].concat();
    assert!(finished(site.mosquitto("mosquitto_pub", "5", &arguments)).await.0);
    let Some(v5::Packet::Publish(publish)) = subscriber.receive().await else { panic!("no PUBLISH") };
    let properties = publish.properties.unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("text/csv"));
    assert_eq!(properties.user_properties, [("k".to_owned(), "v".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_takes_over_even_when_full_after_its_old_will() {
    let mut site = Site::new(1).await;
    let mut old = Raw::connected(&site, "node", 0).await;
    let mut new = Raw::connected(&site, "node", 0).await;
    new.publish("in/birth", 1, b"born").await;
    match old.receive().await {
        Some(v5::Packet::Disconnect(disconnect)) => {
            assert_eq!(disconnect.reason_code, v5::DisconnectReasonCode::SessionTakenOver);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(site.next().await.topic.unwrap(), "in/will");
    assert_eq!(site.next().await.topic.unwrap(), "in/birth");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_falls_silent_is_given_up_after_its_keep_alive() {
    let mut site = Site::new(8).await;
    let mut silent = Raw::connected(&site, "silent", 1).await;
    silent.subscribe("chatter").await;
    // What others send it does not count as a sign of its life.
    for _ in 0..10 {
        let chatter = Outgoing { topic: "chatter".into(), payload: "x".into(), at_least_once: false };
        site.handle.outgoing.send(chatter).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(timeout(Duration::from_millis(100), site.next()).await.unwrap().payload, "silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_acknowledgements_out_takes_nothing_in_and_ends_soon() {
    let mut site = Site::new(8).await;
    let mut client = Raw::connected(&site, "node", 0).await;
    client.publish("in/a", 1, b"before").await;
    let message = site.next().await;
    site.stop.set();
    client.publish("in/a", 2, b"after").await;
    assert!(site.nothing_comes().await);
    site.release(&message);
    drop(site.handle);
    assert!(matches!(client.receive().await, Some(v5::Packet::PubAck(ack)) if ack.pkid == 1));
    timeout(Duration::from_secs(2), site.run).await.expect("too slow").unwrap();
    match client.receive().await {
        Some(v5::Packet::Disconnect(disconnect)) => {
            assert_eq!(disconnect.reason_code, v5::DisconnectReasonCode::ServerShuttingDown);
        }
        other => panic!("{other:?}"),
    }
    assert!(timeout(PATIENCE, site.inbox.recv()).await.unwrap().is_none(), "a stop is nobody's last will");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_for_the_time_is_answered_while_nobody_takes_anything_in() {
    use spindle_common::id::BootId;
    use spindle_common::wire::{Message, TimeAsk, decode};
    use std::io::Write as _;
    let mut site = Site::new(8).await;
    let ask = TimeAsk { node: "node", boot: BootId(5), id: 6, tick: 7 };
    let mut buffer = [0; 64];
    let len = ask.encode(&mut buffer).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&buffer[..len]).unwrap();
    for version in VERSIONS {
        let ready = ["-r", "-t", "ready/now", "-m", "yes"];
        assert!(finished(site.mosquitto("mosquitto_pub", version, &ready)).await.0);
        let arguments = ["-F", "%x", "-t", "ready/now", "-t", "spindle/v1/hall/mill/node/cmd"];
        let mut child = site.mosquitto("mosquitto_sub", version, &arguments);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = Subscriber { child, lines };
        assert_eq!(lines.line().await, "796573");
        // The inbox is full soon, for it is not read.
        let flood = ["-t", "in/flood", "-m", "x", "--repeat", "20000"];
        let mut publisher = site.mosquitto("mosquitto_pub", version, &flood);
        for qos in ["0", "1"] {
            let path = file.path().display().to_string();
            let arguments = ["-q", qos, "-t", "spindle/v1/hall/mill/node/timeask", "-f", &path];
            assert!(finished(site.mosquitto("mosquitto_pub", version, &arguments)).await.0);
            let line = lines.line().await;
            let bytes: Vec<u8> = (0..line.len() / 2)
                .map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let Ok(Message::TimeTell(tell)) = decode(&bytes) else { panic!("{line}") };
            assert_eq!((tell.boot.0, tell.id, tell.tick), (5, 6, 7));
            assert!(tell.sent_ns - tell.received_ns < 10_000_000, "{tell:?}");
        }
        publisher.kill().await.unwrap();
    }
    assert_eq!(site.metrics.session.times_told.get(), 4);
    while let Ok(batch) = site.inbox.try_recv() {
        assert!(batch.iter().all(|message| message.topic.as_deref() == Some(b"in/flood")));
    }
}
