//! A folder of files beside Kafka, each at its own pace; and dead letters in an operator's hands.

use crate::kafka_faults::dlq;
use crate::outages::assert_all_in_kafka;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use spindle_tests::agent::Agent;
use spindle_tests::kafka::{Kafka, KafkaRecord};
use spindle_tests::mosquitto::{self, Mosquitto};
use spindle_tests::node::{Node, Script};
use spindle_tests::raw;
use spindle_tests::wait::{self, PATIENCE};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RULE: &str = "[[rule]]\nname = \"loud\"\nfeature = \"acceleration_rms\"\nunit = \"m/s2\"\nabove = 1.0\non_delay = \"1s\"\n";

/// A `[[forward.files]]` with all lanes.
fn files(dir: &Path, more: &str) -> String {
    format!(
        "[[forward.files]]\nname = \"lake\"\ndir = {dir:?}\nformat = \"ndjson\"\n\
         lanes = [\"alerts\", \"features\", \"dlq\", \"raw\"]\n{more}\n{RULE}"
    )
}

/// The folder's files of `lane`, in the order of their positions.
fn paths(dir: &Path, lane: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{lane}-")));
    paths.sort();
    paths
}

/// The events of files, in order; a line that is not whole at the end of the last one is one that is being written.
fn events(paths: &[PathBuf]) -> Vec<Value> {
    let mut events = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            events.push(
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            );
        }
    }
    events
}

/// An event as the record that Kafka would have.
fn as_record(event: &Value) -> KafkaRecord {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let value = match event.get("data") {
        Some(data) => serde_json::to_vec(data).unwrap(),
        None => STANDARD.decode(text("data_base64")).unwrap(),
    };
    let headers =
        [("ce_id", "id"), ("ce_type", "type"), ("ce_time", "time"), ("content-type", "datacontenttype")];
    let headers = headers.map(|(header, name)| (header.to_owned(), text(name)));
    KafkaRecord {
        partition: 0,
        offset: 0,
        key: text("subject"),
        headers: headers.into(),
        timestamp_ms: 0,
        value,
    }
}

fn records(paths: &[PathBuf]) -> Vec<KafkaRecord> {
    events(paths).iter().map(as_record).collect()
}

/// All that `script` played is in the folder, bit for bit and in order; duplicates only by the same id. Gives how many those are.
fn assert_all_in_folder(dir: &Path, script: &Script) -> usize {
    let found = wait::until("all blocks in the folder", PATIENCE, || {
        let found = records(&paths(dir, "raw"));
        Ok((raw::count_different(&found) >= script.blocks as usize).then_some(found))
    })
    .unwrap();
    let (unique, duplicates) = raw::without_duplicates(found).unwrap();
    let stream = &raw::streams(&unique).unwrap()[&(script.node.clone(), script.boot, 0)];
    assert_eq!((&stream.gaps[..], &stream.key), (&[][..], &script.key()));
    for axis in 0..3 {
        assert_eq!(raw::first_difference(&stream.channels[axis], &script.channel(axis)), None, "axis {axis}");
    }
    duplicates
}

#[test]
fn a_folder_gets_what_kafka_gets_in_files_that_are_finished_by_size() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let dir = TempDir::new().unwrap();
    let more = files(&dir.path().join("lake"), "rotate_size = \"128 KiB\"");
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "folder", &more)).unwrap();
    let node = Node::start(broker.port(), Script { quiet_from: 100, ..Script::new("n1", 200) }).unwrap();
    let script = node.finish(PATIENCE).unwrap();
    mosquitto::publish(broker.port(), "spindle/v1/site/machine/n1-acc/raw", "no block").unwrap();
    kafka.read_until("folder.dlq.v1", PATIENCE, |records| !records.is_empty()).unwrap();
    kafka.read_until("folder.alerts.v1", PATIENCE, |records| records.len() >= 6).unwrap();
    agent.stop().unwrap();
    let lake = dir.path().join("lake");
    assert_eq!(assert_all_in_folder(&lake, &script), 0, "nothing was killed");
    for lane in ["raw", "features", "alerts", "dlq"] {
        let expected = kafka.read(&format!("folder.{lane}.v1")).unwrap();
        let mut expected: Vec<_> =
            expected.iter().map(|record| (record.id(), &record.value, &record.key)).collect();
        let found = records(&paths(&lake, lane));
        let mut found: Vec<_> =
            found.iter().map(|record| (record.id(), &record.value, &record.key)).collect();
        expected.sort();
        found.sort();
        assert!(!found.is_empty());
        let ids =
            |all: &[(&str, &Vec<u8>, &String)]| all.iter().map(|one| one.0.to_owned()).collect::<Vec<_>>();
        assert_eq!(ids(&found), ids(&expected), "{lane}");
        if lane == "raw" {
            assert!(found == expected, "the same bytes");
        }
    }
    let raw = paths(&lake, "raw");
    let unfinished = raw.iter().filter(|path| path.extension().unwrap() == "part").count();
    assert!(raw.len() >= 5 && unfinished <= 1, "{raw:?}");
}

#[test]
fn a_folder_survives_kills_and_a_torn_line_without_loss() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let dir = TempDir::new().unwrap();
    let more = files(dir.path(), "rotate_size = \"256 KiB\"");
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "torn", &more)).unwrap();
    let node = Node::start(broker.port(), Script { pace_hz: Some(200), ..Script::new("n1", 1500) }).unwrap();
    for acknowledged in [300, 700, 1100] {
        node.wait_acknowledged(acknowledged, PATIENCE).unwrap();
        agent.kill();
        if let Some(part) =
            paths(dir.path(), "raw").into_iter().find(|path| path.extension().unwrap() == "part")
        {
            let mut file = std::fs::OpenOptions::new().append(true).open(part).unwrap();
            file.write_all(b"{\"specversion\":\"1.0\",\"id\":\"n1/000").unwrap();
        }
        agent.start().unwrap();
    }
    let script = node.finish(PATIENCE).unwrap();
    let duplicates = assert_all_in_folder(dir.path(), &script);
    println!("{duplicates} recognisable duplicates after three kills");
    assert_all_in_kafka(kafka, "torn", &script);
    agent.stop().unwrap();
}

#[test]
fn a_folder_that_is_away_or_full_does_not_touch_kafkas_progress_nor_kafka_the_folders() {
    let (kafka, link) = Kafka::start_behind_proxy().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let dir = TempDir::new().unwrap();
    let lake = dir.path().join("lake");
    std::fs::write(&lake, "a file where the folder should be").unwrap();
    let text = format!(
        "[[source.mqtt]]\nname = \"site\"\naddress = \"{}\"\n\n[forward.kafka]\nbrokers = \"{}\"\ntopic_prefix = \"away\"\n{}",
        broker.address(),
        kafka.link_address(),
        files(&lake, "rotate_size = \"512 KiB\"\nsize_max = \"4 MiB\"")
    );
    let mut agent = Agent::started(&text).unwrap();
    let first = Node::start(broker.port(), Script::new("first", 1500)).unwrap();
    let first = first.finish(PATIENCE).unwrap();
    assert_all_in_kafka(&kafka, "away", &first);
    agent.process().unwrap().wait_for_log("lake: ", PATIENCE).unwrap();
    link.cut();
    std::fs::remove_file(&lake).unwrap();
    // 1,500 blocks are 6 MiB as text: the folder is full before all are in it.
    agent.process().unwrap().wait_for_log("take finished files away", PATIENCE).unwrap();
    assert!(kafka.counter().unwrap().records("away.raw.v1").unwrap() == 1500);
    // Kafka is away now; the folder goes on as files are taken out of it, and loses none.
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    let second = Node::start(broker.port(), Script::new("second", 500)).unwrap();
    let second = second.finish(PATIENCE).unwrap();
    let found = wait::until("both nodes' blocks in files", 2 * PATIENCE, || {
        for path in paths(&lake, "raw").into_iter().filter(|path| path.extension().unwrap() == "ndjson") {
            std::fs::rename(&path, taken.join(path.file_name().unwrap())).unwrap();
        }
        let found = records(&[paths(&taken, "raw"), paths(&lake, "raw")].concat());
        Ok((raw::count_different(&found) >= 2000).then_some(found))
    })
    .unwrap();
    let (unique, _) = raw::without_duplicates(found).unwrap();
    let streams = raw::streams(&unique).unwrap();
    for script in [&first, &second] {
        assert_eq!(streams[&(script.node.clone(), script.boot, 0)].blocks, script.blocks as usize);
    }
    assert_eq!(kafka.counter().unwrap().records("away.raw.v1").unwrap(), 1500, "Kafka is still away");
    link.heal();
    kafka.read_until("away.raw.v1", PATIENCE, |records| raw::count_different(records) >= 2000).unwrap();
    agent.stop().unwrap();
}

const MAPPING: &str = r#"
[[source.json]]
name = "pump-house"
topic = "plant/{machine}/{sensor}/acc"
site = "works"
unit = "g"
rate_hz = 100.0
channels = [{ axis = "x", field = "FIELD" }]
time = { field = "t", format = "unix_ms" }
"#;

#[test]
fn refused_input_is_listed_shown_and_taken_again_once_the_configuration_fits() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let wrong = MAPPING.replace("FIELD", "accel");
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "again", &wrong)).unwrap();
    agent.process().unwrap().wait_for_log("subscribed", PATIENCE).unwrap();
    let message = r#"{"t": 1760000000000, "ax": [0.1, 0.2, 0.3, 0.4]}"#;
    for _ in 0..2 {
        mosquitto::publish(broker.port(), "plant/pump1/de/acc", message).unwrap();
    }
    let listed = wait::until("both letters", PATIENCE, || {
        let listed = dlq(&agent, &["list"]);
        Ok((listed["letters"].as_array().unwrap().len() == 2).then_some(listed))
    })
    .unwrap();
    let ids: Vec<&str> =
        listed["letters"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    let shown = dlq(&agent, &["show", ids[0]]);
    assert_eq!(
        (&shown["payload"], &shown["topic"]),
        (&message.into(), &"plant/pump1/de/acc".into()),
        "{shown}"
    );
    assert!(shown["reason"].as_str().unwrap().contains("accel"), "{shown}");

    let refused = dlq(&agent, &["retry", ids[0]]);
    assert_eq!(refused["retried"][0]["result"], "refused", "{refused}");
    let relisted = dlq(&agent, &["list"]);
    let new = relisted["letters"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    assert!(
        new != ids[1] && relisted["letters"].as_array().unwrap().len() == 2,
        "a new letter took its place: {relisted}"
    );

    agent.stop().unwrap();
    let mended = std::fs::read_to_string(agent.config()).unwrap().replace("accel", "ax");
    std::fs::write(agent.config(), mended).unwrap();
    agent.start().unwrap();
    let retried = dlq(&agent, &["retry", &new]);
    assert_eq!(retried["retried"][0]["result"], "done", "{retried}");
    let records = kafka.read_until("again.raw.v1", PATIENCE, |records| !records.is_empty()).unwrap();
    assert_eq!((&records[0].value[..], records[0].key.as_str()), (message.as_bytes(), "works/pump1/de"));
    dlq(&agent, &["drop", "--all"]);
    agent.kill();
    assert_eq!(dlq(&agent, &["list"])["letters"], serde_json::json!([]), "durable");
}
