//! `spindle node` against nodes that answer, on each kind of link; and the time that they are told.

use serde_json::Value;
use spindle_firmware::host::{VirtualBoard, VirtualSensor};
use spindle_firmware::sensor::signal::Spindle;
use spindle_tests::agent::{Agent, spindle, text};
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::obedient::{Obedient, Told};
use spindle_tests::proxy::Proxy;
use spindle_tests::pty::PtyPair;
use spindle_tests::tools;
use spindle_tests::wait::{self, PATIENCE};
use std::time::Duration;

/// `spindle node ARGS`: exit code, standard output, standard error.
fn node(agent: &Agent, arguments: &[&str]) -> (i32, String, String) {
    let config = text(&agent.config());
    let mut all = vec!["node"];
    all.extend(arguments);
    all.extend(["--config", &config]);
    let output = spindle(&all).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(agent: &Agent, arguments: &[&str]) -> Value {
    let (code, out, error) = node(agent, &[arguments, &["--json"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out} {error}"))
}

fn wait_known(agent: &Agent, name: &str) {
    wait::until("the node to be known", PATIENCE, || {
        let nodes = json(agent, &["list"])["nodes"].as_array().cloned().unwrap_or_default();
        Ok(nodes.iter().any(|node| node["node"] == name && node["settings"].is_object()).then_some(()))
    })
    .unwrap();
}

/// Sets something, sees it in force, has something refused, and sees that nothing changed.
fn set_and_see(agent: &Agent, name: &str) {
    wait_known(agent, name);
    let (code, out, error) = node(
        agent,
        &["set", name, "acc.codec=rice", "acc.block_samples=256", "acc.axes=xz", "status_every=20s"],
    );
    assert_eq!(code, 0, "{out}{error}");
    assert!(
        out.contains("in force now") && out.contains("version 1") && out.contains("acc.axes=0b101"),
        "{out}"
    );
    let (code, out, _) = node(agent, &["set", name, "acc.block_samples=4096"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("refused: blocks are too long for this board; the settings before stay"), "{out}");
    let shown = json(agent, &["show", name]);
    let settings = &shown["node"]["settings"]["settings"];
    assert_eq!((&settings["version"], &settings["status_every_s"]), (&1.into(), &20.into()));
    let stream = &settings["streams"][0];
    assert_eq!((&stream["block_samples"], &stream["codec"]), (&256.into(), &"rice".into()));
    let (code, _, error) = node(agent, &["set", name, "acc.speed=3"]);
    assert_eq!(code, 3);
    assert!(error.contains("a sensor has step"), "{error}");
}

/// Half of a hundred questions are answered within these times.
fn time_of(link: &str, node: &Obedient) {
    let mut told: Vec<Told> = (1..=100).map(|id| node.ask_time(id).unwrap()).collect();
    told.sort_by_key(|told| told.inside);
    let inside = told[50].inside;
    told.sort_by_key(|told| told.round_trip);
    eprintln!("{link}: inside the gateway {inside:?}, round trip {:?}", told[50].round_trip);
    assert!(inside < Duration::from_millis(5), "{inside:?}");
}

#[test]
fn nodes_behind_a_broker_are_listed_set_tested_and_rebooted() {
    let broker = Mosquitto::start("").unwrap();
    let config = format!("[[source.mqtt]]\nname = \"site\"\naddress = \"{}\"\n", broker.address());
    let mut agent = Agent::started(&config).unwrap();
    let obedient = Obedient::over_mqtt("mill-3", broker.port(), false);
    let _deaf = Obedient::over_mqtt("deaf", broker.port(), true);
    set_and_see(&agent, "mill-3");
    time_of("Mosquitto", &obedient);

    let (code, list, _) = node(&agent, &["list"]);
    assert_eq!(code, 0);
    assert!(
        list.contains("site/machine/mill-3") && list.contains("scripted") && list.contains("power on"),
        "{list}"
    );
    let (code, out, _) = node(&agent, &["identify", "site/machine/mill-3"]);
    assert_eq!((code, out.contains("done: blinking")), (0, true), "{out}");
    let (code, out, _) = node(&agent, &["selftest", "mill-3", "acc"]);
    assert_eq!((code, out.contains("acc: failed: x moved 0.1 g")), (1, true), "{out}");
    let (code, out, _) = node(&agent, &["reboot", "mill-3"]);
    assert_eq!((code, out.contains("reset cause: software")), (0, true), "{out}");

    wait_known(&agent, "deaf");
    let (code, _, error) = node(&agent, &["identify", "deaf", "--timeout", "300ms"]);
    assert_eq!(code, 3);
    assert!(error.contains("deaf has not answered within 300ms; last heard"), "{error}");
    let (code, _, error) = node(&agent, &["show", "nobody"]);
    assert_eq!((code, error.contains("there is no node nobody")), (3, true), "{error}");
    agent.stop().unwrap();
    let (code, _, error) = node(&agent, &["list"]);
    assert_eq!((code, error.contains("no gateway runs here")), (3, true), "{error}");
}

#[test]
fn nodes_at_the_built_in_listener_are_set_alike() {
    let port = tools::free_port().unwrap();
    let mut agent = Agent::started(&format!("[source.listener]\nbind = \"127.0.0.1:{port}\"\n")).unwrap();
    let obedient = Obedient::over_mqtt("mill-4", port, false);
    set_and_see(&agent, "mill-4");
    time_of("listener", &obedient);
    agent.stop().unwrap();
}

#[test]
fn nodes_on_a_serial_line_are_set_alike() {
    let cable = PtyPair::start().unwrap();
    let config = format!("[[source.serial]]\ndevice = {:?}\nbaud = 921600\n", cable.gateway());
    let mut agent = Agent::started(&config).unwrap();
    let obedient = Obedient::over_serial("mill-5", &cable.board()).unwrap();
    set_and_see(&agent, "mill-5");
    time_of("serial line", &obedient);
    agent.stop().unwrap();
}

/// The step in which the status of the node's only sensor says that it is.
fn wait_step(agent: &Agent, name: &str, step: &str) {
    let stepped = wait::until(&format!("step {step}"), 3 * PATIENCE, || {
        Ok((json(agent, &["show", name])["node"]["streams"][0]["step"] == step).then_some(()))
    });
    stepped.unwrap_or_else(|error| panic!("{error:#}: {}", json(agent, &["show", name])["node"]["streams"]));
}

#[test]
fn a_board_whose_link_is_too_slow_steps_down_by_itself_and_up_again_and_its_books_balance() {
    let broker = Mosquitto::start("").unwrap();
    let link = Proxy::start(broker.port()).unwrap();
    let config = format!("[[source.mqtt]]\nname = \"site\"\naddress = \"{}\"\n", broker.address());
    let mut agent = Agent::started(&config).unwrap();
    // The window is short, so that a status does not wait behind seconds of blocks.
    let board = VirtualBoard::new("site", "mill", "slow")
        .sensor(VirtualSensor::spindle("acc", Spindle::default()))
        .mqtt(link.address())
        .ring_bytes(256 * 1024)
        .window(16)
        .start()
        .unwrap();
    wait_known(&agent, "slow");
    let (code, out, error) = node(&agent, &["set", "slow", "acc.may_degrade=true", "status_every=1s"]);
    assert_eq!(code, 0, "{out}{error}");
    wait_step(&agent, "slow", "raw");
    // A quarter of what it takes in raw form, and more than it takes decimated.
    link.slow_to(40_000);
    wait_step(&agent, "slow", "decimated");
    link.full_speed();
    wait_step(&agent, "slow", "raw");
    board.stop();
    let ended = board.drain_blocking(PATIENCE);
    let (taken, withheld) = (ended.counters.streams[0].taken, ended.counters.steps[0].withheld);
    assert!(ended.complete && withheld > 0, "{:?}", ended.counters);
    let settled = wait::until("the books to balance", PATIENCE, || {
        let row = crate::books::of(&agent, "site/mill/acc");
        Ok((row["balanced"] == true && row["taken"] == taken).then_some(row))
    });
    let row = settled.unwrap_or_else(|error| panic!("{error:#}: {:?}", agent.books()));
    let count = |key: &str| row[key].as_u64().unwrap();
    assert_eq!(count("withheld"), withheld, "{row}");
    assert_eq!(count("stored") + count("withheld") + count("lost"), taken, "{row}");
    assert!(count("lost") > 0, "the ring was full before the board stepped down: {row}");
    agent.stop().unwrap();
}
