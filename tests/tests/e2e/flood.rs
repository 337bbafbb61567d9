//! Who sends too much, or harm, takes no memory and holds up nobody. `tests/bench --flood` does the same with a million.

use spindle_tests::agent::Agent;
use spindle_tests::flood::{self, MEMORY_MAX, NODES_MAX, Way};
use spindle_tests::kafka::Kafka;
use spindle_tests::metrics::Metrics;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::node::{Node, Script};
use spindle_tests::wait::PATIENCE;

/// Messages of a flood here.
const MESSAGES: u64 = 200_000;

#[test]
fn a_hostile_client_of_the_listener_is_counted_to_the_last_message_and_holds_up_nobody() {
    let outcome = flood::hostile(Way::Listener, MESSAGES, 100).unwrap();
    println!("{outcome}");
    assert!(outcome.memory_peak_bytes < MEMORY_MAX, "{outcome}");
    // The honest node has one of the places.
    assert!((outcome.refused_due..=outcome.refused_due + 1).contains(&outcome.dead_letters), "{outcome:?}");
    assert!(outcome.taken >= outcome.sent, "{outcome:?}");
    assert!(outcome.newcomers_refused >= 2 * (MESSAGES / 4 - MESSAGES / 1000 - NODES_MAX), "{outcome:?}");
    assert!(outcome.dead_letters_dropped > outcome.dead_letters / 2, "{outcome:?}");
}

#[test]
fn a_hostile_client_of_the_sites_broker_takes_no_memory_and_holds_up_nobody() {
    let outcome = flood::hostile(Way::Broker, MESSAGES, 100).unwrap();
    println!("{outcome}");
    assert!(outcome.memory_peak_bytes < MEMORY_MAX, "{outcome}");
    // A broker drops for a slow subscriber what came at QoS 0; what it passes on is counted.
    assert!(outcome.dead_letters > 0 && outcome.dead_letters <= outcome.refused_due + 1, "{outcome:?}");
}

#[test]
fn a_node_at_fifty_times_its_rate_holds_up_nobody_and_its_blocks_arrive_too() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "fifty", "")).unwrap();
    // 4096 Hz in blocks of 512 are 8 blocks a second.
    let quiet = Node::start(broker.port(), Script { pace_hz: Some(8), ..Script::new("quiet", 80) }).unwrap();
    let loud =
        Node::start(broker.port(), Script { pace_hz: Some(400), ..Script::new("loud", 4000) }).unwrap();
    quiet.wait_acknowledged(80, PATIENCE).unwrap();
    let scripts = [quiet.finish(PATIENCE).unwrap(), loud.finish(PATIENCE).unwrap()];
    for script in &scripts {
        crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    }
    let enough = |records: &[_]| spindle_tests::raw::count_different(records) >= 4080;
    kafka.read_until("fifty.raw.v1", PATIENCE, enough).unwrap();
    let metrics = Metrics::of(agent.api().unwrap()).unwrap();
    assert_eq!(metrics.value("spindle_session_dead_letters_total").unwrap(), 0.0);
    assert!(agent.process().unwrap().memory_peak_bytes().unwrap() < MEMORY_MAX);
    agent.stop().unwrap();
}
