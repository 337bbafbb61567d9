//! `hardware-configs` at run time: what a wrong folder is told, nodes played as their files say, and nodes that are not so.

use crate::books::assert_balanced;
use spindle_tests::agent::{Agent, spindle, text as path_text};
use spindle_tests::pty::PtyPair;
use spindle_tests::{process, tools};
use std::process::Output;
use std::time::Duration;

const CONTRADICTS: &str = "node is not as hardware-configs says";

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_node_plays_over_a_serial_line_as_its_file_says_and_a_stranger_is_told_and_kept() {
    let configs = tools::root().join("hardware-configs");
    let cable = PtyPair::start().unwrap();
    let mut agent = Agent::started(&format!(
        "hardware_configs = {configs:?}\n[[source.serial]]\ndevice = {:?}\n",
        cable.gateway()
    ))
    .unwrap();
    let (configs, board) = (path_text(&configs), path_text(&cable.board()));
    let simulate = ["simulate", "--serial", &board, "--speed", "full", "--json", "--samples", "6400"];
    let node = ["--node", "bench-serial", "--hardware-configs", &configs];
    let output = spindle(&[&simulate[..], &node].concat()).unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["samples_acknowledged"], &report["nodes"][0]["node"]),
        (&6400.into(), &"bench-serial".into())
    );
    assert_eq!(report["offset_dropped"], serde_json::json!([]));
    assert_balanced(&agent, "lab/cwru-rig/housing", 6400);
    let log = agent.process().unwrap().log();
    assert!(!log.contains(CONTRADICTS), "{log}");

    let output = spindle(&simulate).unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_balanced(&agent, "sim/mill-1/spindle", 6400);
    let process = agent.process().unwrap();
    process.wait_for_log("there is no file nodes/sim-1.toml", Duration::from_secs(5)).unwrap();
    assert_eq!(process.log().matches(CONTRADICTS).count(), 1, "{}", process.log());
    agent.stop().unwrap();
}

#[test]
fn run_and_validate_refuse_a_wrong_folder_with_every_error_s_file_and_line() {
    let folder = process::folder("hardware").unwrap();
    for (kind, file) in
        [("machines", "name = \"m\"\ntitel = \"M\"\n"), ("nodes", "name = \"n\"\n\nsite = 3\n")]
    {
        std::fs::create_dir(folder.path().join(kind)).unwrap();
        std::fs::write(folder.path().join(kind).join("m.toml"), file).unwrap();
    }
    let agent = Agent::new(&format!(
        "hardware_configs = {:?}\n[source.listener]\nbind = \"127.0.0.1:0\"\n",
        folder.path()
    ))
    .unwrap();
    let config = path_text(&agent.config());
    for (args, code) in [(["validate", "--config", &config], 1), (["run", "--config", &config], 3)] {
        let output = spindle(&args).unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        for place in ["machines/m.toml:2:", "nodes/m.toml:3:"] {
            assert!(text(&output).contains(place), "{place} is not in:\n{}", text(&output));
        }
    }
}
