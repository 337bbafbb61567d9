//! The gateway's own clock jumps by hours, both ways, under the real program: libfaketime gives it a UTC of the test's choice.

use crate::books::assert_balanced;
use spindle_tests::agent::{self, Agent, text};
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::node::{Node, Script};
use spindle_tests::raw;
use spindle_tests::wait::{self, PATIENCE};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const RULE: &str = r#"
[[rule]]
name = "too-rough"
feature = "acceleration_rms"
unit = "m/s2"
above = 1.0
deadband = 0.2
on_delay = "3s"
severity = "alarm"
"#;

/// Where Debian's package faketime puts its library.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let library = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketime.so.1");
    let found = folders.map(library).find(|path| path.exists());
    found.expect("package faketime is installed: tests/run does that")
}

/// By how many seconds the gateway's UTC is ahead of this machine's.
fn ahead_s(agent: &Agent) -> i64 {
    let output = agent::spindle(&["node", "list", "--json", "--config", &text(&agent.config())]).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    list["now_ns"].as_i64().unwrap() / 1_000_000_000 - now.as_secs() as i64
}

#[test]
fn a_gateway_whose_clock_jumps_by_hours_both_ways_loses_nothing_and_leaves_no_alert_stuck() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::new(&crate::config(&broker.address(), kafka, "clocks", RULE)).unwrap();
    let offset = agent.folder().join("offset");
    let set = |by: &str| std::fs::write(&offset, by).unwrap();
    // Never ahead of this machine's clock: C11's `cnd_timedwait`, on which librdkafka waits, is not told of the shifted time,
    // and would wait for as long as the shift.
    set("-5h");
    for (name, value) in [
        ("LD_PRELOAD", text(&faketime())),
        ("FAKETIME_TIMESTAMP_FILE", text(&offset)),
        ("FAKETIME_NO_CACHE", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
        ("NO_FAKE_STAT", "1".into()),
        // Local time is nobody's business.
        ("TZ", "Europe/Berlin".into()),
    ] {
        agent.set_environment(name, &value);
    }
    agent.start().unwrap();
    // 8 blocks a second: rough for 10 s, quiet for 10 s.
    let script = Script { quiet_from: 80, pace_hz: Some(40), ..Script::new("jumpy", 160) };
    let key = script.key();
    let node = Node::start(broker.port(), script).unwrap();
    for (acknowledged, by, hours) in [(30, "-2h", -2), (60, "-9h", -9), (90, "-2h", -2), (120, "-5h", -5)] {
        node.wait_acknowledged(acknowledged, PATIENCE).unwrap();
        set(by);
        wait::until("the gateway's clock to jump", Duration::from_secs(20), || {
            Ok(((ahead_s(&agent) - hours * 3600).abs() < 60).then_some(()))
        })
        .unwrap();
    }
    node.finish(PATIENCE).unwrap();
    assert_balanced(&agent, &key, 160 * 512);
    let complete = |records: &[_]| raw::count_different(records) >= 6;
    let alerts = kafka.read_until("clocks.alerts.v1", PATIENCE, complete).unwrap();
    let (alerts, _) = raw::without_duplicates(alerts).unwrap();
    for axis in ["x", "y", "z"] {
        let of_axis =
            alerts.iter().map(|record| record.json().unwrap()).filter(|alert| alert["axis"] == axis);
        let events: Vec<_> = of_axis.map(|alert| alert["event"].as_str().unwrap().to_owned()).collect();
        assert_eq!(events, ["raised", "cleared"], "{axis}");
    }
    agent.stop().unwrap();
}
