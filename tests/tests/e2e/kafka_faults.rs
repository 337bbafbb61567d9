//! What Kafka may do to the gateway: be slow, away, or refuse. Nothing that was acknowledged is missing in the end.

use crate::outages::assert_all_in_kafka;
use serde_json::Value;
use spindle_tests::agent::{self, Agent};
use spindle_tests::kafka::{Kafka, KafkaRecord, STORE_PASSWORD, Setup};
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::node::{Node, Script};
use spindle_tests::raw;
use spindle_tests::wait::{self, PATIENCE};
use std::collections::BTreeSet;

const DAY_MS: i64 = 86_400_000;

/// A configuration whose Kafka is at `address`, with `properties` of the client and `more` sections.
fn config(mqtt: &str, address: &str, prefix: &str, kafka: &str, more: &str) -> String {
    format!(
        "[[source.mqtt]]\nname = \"site\"\naddress = \"{mqtt}\"\n\n{more}\n\
         [forward.kafka]\nbrokers = \"{address}\"\ntopic_prefix = \"{prefix}\"\n{kafka}\n"
    )
}

/// `spindle dlq ... --json` on the gateway's folder.
pub(crate) fn dlq(agent: &Agent, args: &[&str]) -> Value {
    let config = agent::text(&agent.config());
    let args = [&["dlq"], args, &["--json", "--config", &config]].concat();
    let output = agent::spindle(&args).unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
}

fn of_node<'a>(records: &'a [KafkaRecord], node: &str) -> Vec<&'a KafkaRecord> {
    records.iter().filter(|record| record.id().starts_with(&format!("{node}/"))).collect()
}

/// How often `text` stands in the agent's log.
fn said(agent: &mut Agent, text: &str) -> usize {
    agent.process().unwrap().log().matches(text).count()
}

#[test]
fn a_record_too_large_for_its_topic_becomes_a_dead_letter_its_neighbours_arrive_and_a_retry_delivers_it() {
    let kafka = Kafka::shared().unwrap();
    kafka.create_topic("large.raw.v1", &[("max.message.bytes", "2000")]).unwrap();
    let broker = Mosquitto::start("").unwrap();
    let agent = Agent::started(&crate::config(&broker.address(), kafka, "large", "")).unwrap();
    let small = Script { block_samples: 64, ..Script::new("small", 30) };
    let (small, large) = (
        Node::start(broker.port(), small).unwrap(),
        Node::start(broker.port(), Script::new("large", 3)).unwrap(),
    );
    small.finish(PATIENCE).unwrap();
    large.finish(PATIENCE).unwrap();
    let letters = kafka.read_until("large.dlq.v1", PATIENCE, |records| records.len() >= 3).unwrap();
    for letter in &letters {
        let json = letter.json().unwrap();
        assert!(json["reason"].as_str().unwrap().to_lowercase().contains("too large"), "{json}");
        assert_eq!((&json["topic"], letter.key.as_str()), (&"large.raw.v1".into(), "site/machine/large-acc"));
    }
    let records =
        kafka.read_until("large.raw.v1", PATIENCE, |records| raw::count_different(records) >= 30).unwrap();
    let (unique, _) = raw::without_duplicates(records).unwrap();
    let streams = raw::streams(&unique).unwrap();
    assert_eq!(streams[&("small".into(), 7, 0)].blocks, 30);
    assert_eq!(of_node(&unique, "large").len(), 0);

    let listed = dlq(&agent, &["list"]);
    let ids: Vec<&str> =
        listed["letters"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.starts_with("kafka/raw/")), "{listed}");
    let shown = dlq(&agent, &["show", ids[0]]);
    assert_eq!(
        (&shown["decoded"]["kind"], shown["payload_base64"].is_string()),
        (&"block".into(), true),
        "{shown}"
    );

    let refused = dlq(&agent, &["retry", ids[0]]);
    assert_eq!(refused["retried"][0]["result"], "refused", "the topic is as it was: {refused}");
    kafka.set_topic("large.raw.v1", &[("max.message.bytes", "1000000")]).unwrap();
    let retried = dlq(&agent, &["retry", ids[0], ids[1], "--timeout", "30s"]);
    assert!(retried["retried"].as_array().unwrap().iter().all(|one| one["result"] == "done"), "{retried}");
    dlq(&agent, &["drop", ids[2]]);
    assert_eq!(dlq(&agent, &["list"])["letters"], serde_json::json!([]));
    assert_eq!(dlq(&agent, &["list", "--all"])["letters"].as_array().unwrap().len(), 3);
    let records = kafka.read("large.raw.v1").unwrap();
    let large: BTreeSet<&str> = of_node(&records, "large").iter().map(|record| record.id()).collect();
    assert_eq!(large.len(), 2, "both that were tried again, under their own ids: {large:?}");
}

#[test]
fn a_nodes_wild_clock_neither_blocks_its_topic_nor_loses_a_record() {
    let kafka = Kafka::shared().unwrap();
    let limit = DAY_MS.to_string();
    kafka.create_topic("wild.raw.v1", &[("message.timestamp.before.max.ms", &limit)]).unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "wild", "")).unwrap();
    // A node tells its time once, and not again to who comes later.
    agent.process().unwrap().wait_for_log("subscribed", PATIENCE).unwrap();
    let play = |node: &str, days: i64| {
        let script = Script { clock_ahead_s: days * 86_400, pace_hz: Some(100), ..Script::new(node, 200) };
        Node::start(broker.port(), script).unwrap()
    };
    let nodes = [play("sane", 0), play("past", -30), play("future", 30)];
    for node in &nodes {
        node.finish(PATIENCE).unwrap();
    }
    let records =
        kafka.read_until("wild.raw.v1", PATIENCE, |records| raw::count_different(records) >= 600).unwrap();
    let (unique, _) = raw::without_duplicates(records).unwrap();
    let streams = raw::streams(&unique).unwrap();
    // A pair of the future is refused by the session itself, and the node's time taken from its blocks' arrival.
    for (node, days) in [("sane", 0), ("past", -30), ("future", 0)] {
        let stream = &streams[&(node.into(), 7, 0)];
        assert_eq!((stream.blocks, &stream.gaps[..]), (200, &[][..]), "{node}");
        let record = of_node(&unique, node)[100];
        let event = record.header("ce_time").parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let now = jiff::Timestamp::now().as_millisecond();
        let near = |one: i64, other: i64| (one - other).abs() < DAY_MS / 4;
        assert!(
            near(record.timestamp_ms, now) && near(event, now + days * DAY_MS),
            "{node}: {event}, {} at {now}",
            record.timestamp_ms
        );
        assert_eq!(record.timestamp_ms == event, days == 0, "{node}");
    }
    assert_eq!(kafka.read("wild.dlq.v1").unwrap().len(), 0);
    assert_eq!(dlq(&agent, &["list"])["letters"], serde_json::json!([]));
    // What the topic takes is known from the start: nothing was refused, and no batch with it.
    assert_eq!(said(&mut agent, "kafka refuses the record's time"), 0);
    agent.stop().unwrap();
}

#[test]
fn a_topic_without_access_and_one_that_is_missing_are_said_once_stop_no_other_and_recover_by_themselves() {
    let setup = Setup {
        protocol: "SASL_PLAINTEXT".into(),
        properties: "sasl.enabled.mechanisms=PLAIN\n\
                     listener.name.link.plain.sasl.jaas.config=\
                     org.apache.kafka.common.security.plain.PlainLoginModule required user_gw=\"secret\";\n\
                     authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                     super.users=User:ANONYMOUS\nauto.create.topics.enable=false"
            .into(),
        ..Setup::default()
    };
    let kafka = Kafka::start_with(&setup).unwrap();
    for lane in ["raw", "features", "alerts", "dlq"] {
        if lane != "features" {
            kafka.create_topic(&format!("acl.{lane}.v1"), &[]).unwrap();
        }
        if lane != "raw" {
            let topic = format!("acl.{lane}.v1");
            let rule = ["--add", "--allow-principal", "User:gw", "--operation", "Write", "--topic", &topic];
            kafka.access_rules(&rule).unwrap();
        }
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "wrong\n").unwrap();
    let properties = format!(
        "[forward.kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
         \"sasl.username\" = \"gw\"\n\"topic.metadata.propagation.max.ms\" = \"2000\"\n\
         \"topic.metadata.refresh.interval.ms\" = \"1000\"\n[forward.kafka.secret_files]\n\"sasl.password\" = {:?}\n",
        secret.path()
    );
    let broker = Mosquitto::start("").unwrap();
    let text = config(&broker.address(), &kafka.link_address(), "acl", &properties, "");
    let mut agent = Agent::started(&text).unwrap();
    let node = Node::start(broker.port(), Script { pace_hz: Some(100), ..Script::new("n1", 600) }).unwrap();
    let stranger =
        Node::start(broker.port(), Script { pace_hz: Some(100), ..Script::new("n2", 50) }).unwrap();
    node.wait_acknowledged(100, PATIENCE).unwrap();
    agent.process().unwrap().wait_for_log("does not accept the user", PATIENCE).unwrap();
    assert_eq!(said(&mut agent, "does not accept the user"), 1);
    agent.stop().unwrap();
    std::fs::write(secret.path(), "secret\n").unwrap();
    agent.start().unwrap();
    agent.process().unwrap().wait_for_log("topic acl.raw.v1: ", PATIENCE).unwrap();
    agent.process().unwrap().wait_for_log("topic acl.features.v1: ", PATIENCE).unwrap();
    node.finish(PATIENCE).unwrap();
    stranger.finish(PATIENCE).unwrap();
    assert_eq!(kafka.read("acl.raw.v1").unwrap().len(), 0);
    for topic in ["topic acl.raw.v1: ", "topic acl.features.v1: "] {
        assert_eq!(said(&mut agent, topic), 1, "{}", agent.process().unwrap().log());
    }

    let rule = ["--add", "--allow-principal", "User:gw", "--operation", "Write", "--topic", "acl.raw.v1"];
    kafka.access_rules(&rule).unwrap();
    let script = node.finish(PATIENCE).unwrap();
    let enough = |records: &[_]| raw::count_different(records) >= 650;
    let records = kafka.read_until("acl.raw.v1", 2 * PATIENCE, enough).unwrap();
    let (unique, _) = raw::without_duplicates(records).unwrap();
    assert_eq!(raw::streams(&unique).unwrap()[&("n1".into(), 7, 0)].blocks, 600);
    assert_eq!(kafka.read("acl.features.v1").unwrap().len(), 0, "still missing, and stopped nothing");
    kafka.create_topic("acl.features.v1", &[]).unwrap();
    kafka.read_until("acl.features.v1", 2 * PATIENCE, |records| records.len() >= 60).unwrap();
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    agent.stop().unwrap();
}

#[test]
fn a_broker_that_wants_tls_is_named_as_such_and_nothing_is_lost() {
    let setup = Setup {
        protocol: "SSL".into(),
        properties: format!(
            "listener.name.link.ssl.keystore.location={{folder}}/broker.p12\n\
             listener.name.link.ssl.keystore.password={STORE_PASSWORD}\nlistener.name.link.ssl.keystore.type=PKCS12\n\
             listener.name.link.ssl.key.password={STORE_PASSWORD}"
        ),
        ..Setup::default()
    };
    let kafka = Kafka::start_with(&setup).unwrap();
    let broker = Mosquitto::start("").unwrap();
    let text = config(&broker.address(), &kafka.link_address(), "tls-kafka", "", "");
    let mut agent = Agent::started(&text).unwrap();
    let node = Node::start(broker.port(), Script { pace_hz: Some(200), ..Script::new("n1", 300) }).unwrap();
    agent.process().unwrap().wait_for_log("do not agree on TLS", PATIENCE).unwrap();
    node.finish(PATIENCE).unwrap();
    assert_eq!(said(&mut agent, "do not agree on TLS"), 1);
    agent.stop().unwrap();
    // Mended as an operator would: the right address.
    let mended =
        std::fs::read_to_string(agent.config()).unwrap().replace(&kafka.link_address(), &kafka.address());
    std::fs::write(agent.config(), mended).unwrap();
    agent.start().unwrap();
    assert_all_in_kafka(&kafka, "tls-kafka", &node.finish(PATIENCE).unwrap());
    agent.stop().unwrap();
}

#[test]
fn while_kafka_is_slow_boards_are_acknowledged_memory_stays_bounded_and_all_arrives_in_order() {
    let (kafka, link) = Kafka::start_behind_proxy().unwrap();
    link.slow_to(200_000);
    let broker = Mosquitto::start("").unwrap();
    let small = "[journal]\ntail_size = \"1 MiB\"\n[outputs]\ntail_size = \"1 MiB\"\n";
    let text = config(&broker.address(), &kafka.link_address(), "slow", "queue_size = \"1 MiB\"", small);
    let mut agent = Agent::started(&text).unwrap();
    let node = Node::start(broker.port(), Script::new("n1", 8000)).unwrap();
    node.wait_acknowledged(2000, PATIENCE).unwrap();
    let early = agent.process().unwrap().memory_peak_bytes().unwrap();
    let script = node.finish(PATIENCE).unwrap();
    let late = agent.process().unwrap().memory_peak_bytes().unwrap();
    let arrived = kafka.counter().unwrap().records("slow.raw.v1").unwrap();
    println!(
        "peak {early} then {late} bytes; {arrived} of 8000 blocks were in Kafka when all were acknowledged"
    );
    assert!(arrived < 4000, "{arrived} of 8000 blocks: Kafka was not slow");
    assert!(late < early + (12 << 20), "19 MB more came, and memory grew from {early} to {late} bytes");
    link.full_speed();
    assert_all_in_kafka(&kafka, "slow", &script);
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    agent.stop().unwrap();
}

#[test]
fn after_an_outage_the_backlog_drains_at_five_times_the_live_rate() {
    let (kafka, link) = Kafka::start_behind_proxy().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let text = config(&broker.address(), &kafka.link_address(), "drain", "", "");
    let mut agent = Agent::started(&text).unwrap();
    link.cut();
    let backlog = 3000;
    let old = Node::start(broker.port(), Script::new("old", backlog)).unwrap();
    old.finish(PATIENCE).unwrap();
    let live =
        Node::start(broker.port(), Script { pace_hz: Some(40), ..Script::new("live", 20_000) }).unwrap();
    live.wait_acknowledged(20, PATIENCE).unwrap();
    link.heal();
    // What it takes to connect again is no draining.
    let counter = kafka.counter().unwrap();
    let first = wait::until("the first of the backlog", PATIENCE, || {
        Ok((counter.records("drain.raw.v1")? > 0).then(|| live.acknowledged()))
    })
    .unwrap();
    let mut reader = kafka.reader("drain.raw.v1").unwrap();
    wait::until("all of the backlog", PATIENCE, || {
        reader.catch_up()?;
        Ok((of_node(&reader.records, "old").len() >= backlog as usize).then_some(()))
    })
    .unwrap();
    let came = live.acknowledged() - first;
    println!("{backlog} blocks of backlog went out while {came} live blocks came");
    assert!(came < backlog / 5, "{came} live blocks came while {backlog} of the backlog went out");
    let target = live.acknowledged() as usize;
    kafka
        .read_until("drain.raw.v1", PATIENCE, |records| of_node(records, "live").len() >= target)
        .expect("live data keeps flowing");
    agent.stop().unwrap();
}

#[test]
fn an_alert_and_the_features_of_live_data_overtake_a_backlog_of_raw_blocks() {
    let (kafka, link) = Kafka::start_behind_proxy().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let rule = "[[rule]]\nname = \"loud\"\nsensor = \"site/machine/live-acc\"\nfeature = \"acceleration_rms\"\n\
                unit = \"m/s2\"\nabove = 1.0\non_delay = \"1s\"\n";
    let text = config(&broker.address(), &kafka.link_address(), "over", "", rule);
    let mut agent = Agent::started(&text).unwrap();
    link.cut();
    let backlog = 6000;
    let old = Node::start(broker.port(), Script::new("old", backlog)).unwrap();
    old.finish(PATIENCE).unwrap();
    link.slow_to(400_000);
    link.heal();
    let counter = kafka.counter().unwrap();
    wait::until("raw blocks to flow again", PATIENCE, || {
        Ok((counter.records("over.raw.v1")? > 0).then_some(()))
    })
    .unwrap();
    let live = Node::start(broker.port(), Script { pace_hz: Some(40), ..Script::new("live", 200) }).unwrap();
    let alerts = kafka.read_until("over.alerts.v1", PATIENCE, |records| !records.is_empty()).unwrap();
    let raw_by_then = counter.records("over.raw.v1").unwrap();
    assert_eq!(alerts[0].key, "site/machine/live-acc");
    let of_live =
        |records: &[KafkaRecord]| records.iter().any(|record| record.key == "site/machine/live-acc");
    kafka.read_until("over.features.v1", PATIENCE, of_live).unwrap();
    let raw_then = counter.records("over.raw.v1").unwrap();
    println!(
        "{raw_by_then} blocks of the backlog of {backlog} were out at the alert, {raw_then} at the features"
    );
    assert!(raw_by_then < u64::from(backlog) && raw_then < u64::from(backlog));
    link.full_speed();
    let script = live.finish(PATIENCE).unwrap();
    let all = (backlog + script.blocks) as usize;
    kafka.read_until("over.raw.v1", PATIENCE, |records| raw::count_different(records) >= all).unwrap();
    agent.stop().unwrap();
}

#[test]
fn kafka_gone_for_a_day_at_a_small_disk_budget_costs_raw_blocks_that_are_counted_and_no_feature_or_alert() {
    let (kafka, link) = Kafka::start_behind_proxy().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let small = "[journal]\nsize_max = \"8 MiB\"\nsegment_size = \"2 MiB\"\ncommit_bytes_max = \"1 MiB\"\n\
                 tail_size = \"1 MiB\"\n\
                 [pipeline]\nwindow = \"60s\"\nrollup = \"60s\"\nvelocity_band_hz = [2.0, 20.0]\n\
                 [[rule]]\nname = \"loud\"\nfeature = \"acceleration_rms\"\nunit = \"m/s2\"\nabove = 1.0\n\
                 on_delay = \"60s\"\n";
    let text = config(&broker.address(), &kafka.link_address(), "day", "", small);
    let mut agent = Agent::started(&text).unwrap();
    link.cut();
    // 64 samples a second: 10,800 blocks of 512 are a day; loud in the first half of it.
    let script =
        Script { rate_hz: 64, blocks: 10_800, quiet_from: 5400, pace_hz: Some(700), ..Script::new("n1", 0) };
    let node = Node::start(broker.port(), script).unwrap();
    let script = node.finish(3 * PATIENCE).unwrap();
    let books = wait::until("the books to balance", PATIENCE, || {
        let row = crate::books::of(&agent, &script.key());
        Ok((row["balanced"] == true && row["taken"] == script.blocks * 512).then_some(row))
    })
    .unwrap();
    let evicted = books["evicted"].as_u64().unwrap();
    assert!(evicted > 0 && books["stored"] == script.blocks * 512 && books["lost"] == 0, "{books}");
    link.heal();
    let kept = |evicted: u64| usize::try_from(u64::from(script.blocks) - evicted / 512).unwrap();
    let records = kafka
        .read_until("day.raw.v1", PATIENCE, |records| {
            let last = format!("n1/{:016x}/0/{}", 7, script.blocks - 1);
            raw::count_different(records) >= kept(evicted) && records.iter().any(|record| record.id() == last)
        })
        .unwrap();
    let (unique, _) = raw::without_duplicates(records).unwrap();
    // Of what was evicted some was under way already and arrives; of the rest all does.
    let stream = &raw::streams(&unique).unwrap()[&("n1".into(), 7, 0)];
    let missing: u64 = stream.gaps.iter().map(|(_, samples)| samples).sum();
    assert!(stream.gaps.iter().all(|(first, samples)| first + samples <= evicted), "{:?}", stream.gaps);
    assert_eq!(stream.first_sample + missing + stream.len() as u64, u64::from(script.blocks) * 512);
    assert!(stream.first_sample + missing > 0 && stream.first_sample <= evicted);

    let windows = |records: &[KafkaRecord]| {
        let of = records.iter().filter(|record| record.header("ce_type") == "io.spindle.features.v1");
        of.map(|record| record.json().unwrap()["window"]["index"].to_string()).collect::<BTreeSet<_>>().len()
    };
    let features = kafka.read_until("day.features.v1", PATIENCE, |records| windows(records) >= 1439).unwrap();
    println!(
        "{} windows of a day's 1440, {} of {} blocks evicted",
        windows(&features),
        evicted / 512,
        script.blocks
    );
    let alerts =
        kafka.read_until("day.alerts.v1", PATIENCE, |records| raw::count_different(records) >= 6).unwrap();
    let states: Vec<bool> = alerts.iter().map(|record| record.json().unwrap()["event"] == "raised").collect();
    assert_eq!(
        states.iter().filter(|raised| **raised).count(),
        3,
        "raised and cleared on each axis: {states:?}"
    );
    assert_eq!(said(&mut agent, "journal is full"), 1, "the whole day is one episode");
    agent.stop().unwrap();
}
