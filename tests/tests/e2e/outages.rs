//! What may break in a factory breaks here: nothing that was acknowledged is missing, and the books balance.

use spindle_tests::agent::Agent;
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::node::{Node, Script};
use spindle_tests::proxy::Proxy;
use spindle_tests::raw;
use spindle_tests::wait::PATIENCE;
use std::time::Duration;

/// Everything that `script` played is in the topic, bit for bit and in order; duplicates only by the same id.
pub(crate) fn assert_all_in_kafka(kafka: &Kafka, prefix: &str, script: &Script) {
    let topic = format!("{prefix}.raw.v1");
    let expected = script.blocks as usize;
    let enough = |records: &[_]| raw::count_different(records) >= expected;
    let records = kafka.read_until(&topic, PATIENCE, enough).unwrap();
    let (unique, duplicates) = raw::without_duplicates(records).unwrap();
    println!("{prefix}: {} blocks, {duplicates} recognisable duplicates", unique.len());
    let streams = raw::streams(&unique).unwrap();
    let stream = &streams[&(script.node.clone(), script.boot, 0)];
    assert_eq!(stream.gaps, []);
    assert_eq!(stream.key, script.key());
    for axis in 0..3 {
        assert_eq!(raw::first_difference(&stream.channels[axis], &script.channel(axis)), None, "axis {axis}");
    }
}

#[test]
fn an_agent_killed_in_mid_stream_loses_nothing_it_acknowledged() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "killed", "")).unwrap();
    let node = Node::start(broker.port(), Script { pace_hz: Some(200), ..Script::new("n1", 1500) }).unwrap();
    for acknowledged in [300, 700, 1100] {
        node.wait_acknowledged(acknowledged, PATIENCE).unwrap();
        agent.kill();
        agent.start().unwrap();
    }
    let script = node.finish(PATIENCE).unwrap();
    assert_all_in_kafka(kafka, "killed", &script);
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    agent.stop().unwrap();
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
}

#[test]
fn kafka_killed_and_started_again_delays_but_loses_nothing() {
    let mut kafka = Kafka::start().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), &kafka, "outage", "")).unwrap();
    let node = Node::start(broker.port(), Script { pace_hz: Some(200), ..Script::new("n1", 1500) }).unwrap();
    node.wait_acknowledged(300, PATIENCE).unwrap();
    kafka.kill();
    // Kafka is away: the journal still takes and acknowledges.
    node.wait_acknowledged(1000, PATIENCE).unwrap();
    kafka.start_again().unwrap();
    let script = node.finish(PATIENCE).unwrap();
    assert_all_in_kafka(&kafka, "outage", &script);
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    agent.stop().unwrap();
}

#[test]
fn a_cut_or_silent_link_to_the_broker_heals_without_loss() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let link = Proxy::start(broker.port()).unwrap();
    let config = crate::config(&link.address(), kafka, "cut", "").replacen(
        "name = \"site\"",
        "name = \"site\"\nkeep_alive = \"5s\"",
        1,
    );
    let mut agent = Agent::started(&config).unwrap();
    let node = Node::start(broker.port(), Script { pace_hz: Some(200), ..Script::new("n1", 1500) }).unwrap();
    for (acknowledged, silent) in [(200, true), (600, false), (1000, false)] {
        node.wait_acknowledged(acknowledged, PATIENCE).unwrap();
        if silent {
            link.go_silent();
            // The gateway's keep-alive finds out that the link is dead.
            agent.process().unwrap().wait_for_log("trying again", PATIENCE).unwrap();
        } else {
            link.cut();
            std::thread::sleep(Duration::from_secs(3));
        }
        link.heal();
    }
    let script = node.finish(PATIENCE).unwrap();
    assert_all_in_kafka(kafka, "cut", &script);
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    agent.stop().unwrap();
}

#[test]
fn a_broker_that_drops_and_dies_as_people_install_it_loses_nothing_in_the_end() {
    let kafka = Kafka::shared().unwrap();
    // A short queue drops what the broker has already acknowledged to the board.
    let mut broker = Mosquitto::start("max_queued_messages 10").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "drops", "")).unwrap();
    let node = Node::start(broker.port(), Script::new("n1", 3000)).unwrap();
    node.wait_acknowledged(200, PATIENCE).unwrap();
    agent.kill();
    std::thread::sleep(Duration::from_secs(2));
    agent.start().unwrap();
    node.wait_acknowledged(1000, PATIENCE).unwrap();
    broker.restart().unwrap();
    let script = node.finish(PATIENCE).unwrap();
    assert_all_in_kafka(kafka, "drops", &script);
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    agent.stop().unwrap();
}

#[test]
fn two_boots_of_a_node_and_many_nodes_stay_apart() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "apart", "")).unwrap();
    let start =
        |node: &str, boot| Node::start(broker.port(), Script { boot, ..Script::new(node, 100) }).unwrap();
    let nodes: Vec<_> = (0..5).map(|index| start(&format!("n{index}"), 1)).collect();
    let mut scripts: Vec<_> = nodes.iter().map(|node| node.finish(PATIENCE).unwrap()).collect();
    let again = start("n0", 2);
    scripts.push(again.finish(PATIENCE).unwrap());
    let blocks = 600;
    let records = kafka.read_until("apart.raw.v1", PATIENCE, |records| records.len() >= blocks).unwrap();
    let streams = raw::streams(&records).unwrap();
    assert_eq!(streams.len(), scripts.len());
    for script in &scripts {
        let stream = &streams[&(script.node.clone(), script.boot, 0)];
        assert_eq!(raw::first_difference(&stream.channels[2], &script.channel(2)), None);
    }
    agent.stop().unwrap();
}
