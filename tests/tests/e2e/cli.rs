//! Each verb as a user types it: its help, its success, its error.

use spindle_tests::agent::{Agent, Verb, spindle, text as agent_text};
use spindle_tests::kafka::{Kafka, KafkaRecord};
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::node::{Node, Script};
use spindle_tests::wait::PATIENCE;
use spindle_tests::{process, tools};
use std::process::Output;

const VERBS: [&str; 10] =
    ["run", "validate", "init", "tap", "simulate", "replay", "balance", "completions", "demo", "flash"];

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn each_verb_has_help_and_is_named_in_the_overview() {
    let overview = spindle(&["--help"]).unwrap();
    assert!(overview.status.success());
    for verb in VERBS {
        let listed = text(&overview).lines().any(|line| line.trim_start().starts_with(verb));
        assert!(listed, "{verb} is not in the overview:\n{}", text(&overview));
        let help = spindle(&[verb, "--help"]).unwrap();
        assert!(help.status.success(), "{verb} --help: {}", text(&help));
        assert!(text(&help).contains(&format!("Usage: spindle {verb}")), "{}", text(&help));
        let wide = text(&help).lines().find(|line| line.chars().count() > 120).map(str::to_owned);
        assert!(wide.is_none(), "{verb} --help has a line of more than 120 columns: {wide:?}");
    }
}

#[test]
fn each_verb_refuses_an_unknown_option_with_exit_code_2() {
    for verb in VERBS {
        let output = spindle(&[verb, "--no-such-option"]).unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb}: {}", text(&output));
        assert!(text(&output).contains("--no-such-option"), "{verb}: {}", text(&output));
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = spindle(&["completions", shell]).unwrap();
        assert!(output.status.success() && text(&output).contains("spindle"), "{shell}: {}", text(&output));
    }
}

#[test]
fn init_writes_a_configuration_that_validates_and_never_overwrites_one() {
    let folder = process::folder("init").unwrap();
    let file = folder.path().join("gateway.toml");
    let file = file.to_str().unwrap();
    let written = spindle(&["init", file]).unwrap();
    assert!(written.status.success(), "{}", text(&written));
    let valid = spindle(&["validate", file]).unwrap();
    assert_eq!(valid.status.code(), Some(0), "{}", text(&valid));
    let again = spindle(&["init", file]).unwrap();
    assert_eq!(again.status.code(), Some(3));
    assert!(text(&again).contains("exists already"), "{}", text(&again));
}

#[test]
fn validate_names_every_error_with_its_line_and_what_would_be_right() {
    let folder = process::folder("validate").unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "[gateway]\nname = \"a b\"\ndatadir = \"x\"\n\n[journal]\nsize_max = \"lots\"\n")
        .unwrap();
    let output = spindle(&["validate", file.to_str().unwrap()]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for part in ["bad.toml:3:", "did you mean `data_dir`", "bad.toml:6:", "\"64 KiB\""] {
        assert!(text(&output).contains(part), "{part:?} is not in: {}", text(&output));
    }
    let json = spindle(&["validate", "--json", file.to_str().unwrap()]).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["problems"].as_array().unwrap().iter().any(|problem| problem["line"] == 6), "{json}");
}

#[test]
fn a_missing_configuration_is_named_by_each_verb_that_needs_one() {
    let folder = process::folder("missing").unwrap();
    let out = folder.path().join("out").display().to_string();
    for (verb, more) in [("run", None), ("balance", None), ("tap", None), ("replay", Some(["--out", &out]))] {
        let args: Vec<_> = [verb, "--config", "/no/such/gateway.toml"]
            .into_iter()
            .chain(more.into_iter().flatten())
            .collect();
        let output = spindle(&args).unwrap();
        assert_eq!(output.status.code(), Some(3), "{verb}: {}", text(&output));
        assert!(text(&output).contains("/no/such/gateway.toml"), "{verb}: {}", text(&output));
    }
}

#[test]
fn tap_shows_what_a_node_sends_to_a_broker() {
    let broker = Mosquitto::start("").unwrap();
    let tap =
        Verb::start(&["tap", "--broker", &broker.address(), "--kind", "block", "--count", "5", "--json"])
            .unwrap();
    let _node =
        Node::start(broker.port(), Script { pace_hz: Some(20), ..Script::new("tapped", 1000) }).unwrap();
    let printed = tap.finish(PATIENCE).unwrap();
    let lines: Vec<serde_json::Value> =
        printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(lines.len(), 5, "{printed}");
    assert!(lines.iter().all(|line| line.to_string().contains("site/machine/tapped-acc")), "{printed}");
}

#[test]
fn tap_says_which_broker_it_cannot_reach() {
    let address = format!("127.0.0.1:{}", tools::free_port().unwrap());
    let output = spindle(&["tap", "--broker", &address]).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output).contains(&address), "{}", text(&output));
}

#[test]
fn replay_of_the_journal_gives_the_bytes_that_kafka_got_live() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "replayed", "")).unwrap();
    let node = Node::start(broker.port(), Script::new("replayed", 84)).unwrap();
    node.finish(PATIENCE).unwrap();
    // 84 blocks of 512 at 4096 Hz: ten whole windows of a second, and a half.
    let of = |records: &[KafkaRecord], kind: &str| {
        let kind = format!("io.spindle.{kind}.v1");
        let of_kind = records.iter().filter(|record| record.header("ce_type") == kind);
        of_kind.map(|record| String::from_utf8(record.value.clone()).unwrap()).collect::<Vec<_>>()
    };
    let enough = |records: &[KafkaRecord]| of(records, "features").len() >= 10;
    kafka.read_until("replayed.features.v1", PATIENCE, enough).unwrap();
    agent.stop().unwrap();

    let out = agent.data().join("../out");
    let (config, out) = (agent_text(&agent.config()), agent_text(&out));
    let replay = spindle(&["replay", "--config", &config, "--out", &out, "--json"]).unwrap();
    assert!(replay.status.success(), "{}", text(&replay));
    let live = kafka.read("replayed.features.v1").unwrap();
    for (file, kind) in [("features.jsonl", "features"), ("rollups.jsonl", "rollup")] {
        let replayed = std::fs::read_to_string(std::path::Path::new(&out).join(file)).unwrap();
        let replayed: Vec<_> = replayed.lines().collect();
        assert!(replayed.len() >= 9, "{file}: {replayed:?}");
        assert_eq!(of(&live, kind), replayed, "{file}");
    }

    let again =
        ["replay", "--config", &config, "--kafka", &kafka.address(), "--topic-prefix", "replayed-again"];
    let replay = spindle(&again).unwrap();
    assert!(replay.status.success(), "{}", text(&replay));
    let again = kafka.read("replayed-again.features.v1").unwrap();
    let identity = |records: &[KafkaRecord]| {
        records
            .iter()
            .map(|record| (record.header("ce_id").to_owned(), record.value.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(identity(&live), identity(&again));
}

#[test]
fn simulate_says_with_exit_code_1_that_nobody_acknowledged() {
    let address = format!("127.0.0.1:{}", tools::free_port().unwrap());
    let args = ["simulate", "--broker", &address, "--samples", "10", "--drain", "1s", "--speed", "full"];
    let output = spindle(&args).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}
