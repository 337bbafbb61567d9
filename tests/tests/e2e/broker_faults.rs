//! What brokers and networks do to messages on the way, with the firmware's core on the boards' side: nothing that was acknowledged
//! by the gateway is missing, and the books balance.

use spindle_firmware::host::{Board, Speed, VirtualBoard, VirtualSensor};
use spindle_firmware::sensor::signal::Spindle;
use spindle_tests::agent::Agent;
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::{self, Mosquitto};
use spindle_tests::process;
use spindle_tests::proxy::Proxy;
use spindle_tests::raw;
use spindle_tests::wait::{self, PATIENCE};
use std::time::Duration;

/// Samples per channel and block.
const BLOCK: u16 = 512;

/// Six seconds of the sensor.
const LONG: u64 = 160_000;

fn board(broker: &str, node: &str, speed: Speed, samples: u64) -> Board {
    let name = format!("acc0-{node}");
    let sensor = VirtualSensor::spindle(name, Spindle { seed: 5, ..Spindle::default() });
    VirtualBoard::new("site", "mill", node)
        .sensor(sensor.block_samples(BLOCK).stop_after(samples))
        .mqtt(broker)
        .speed(speed)
        .window(128)
        // Holds what the sensor takes in 19 s, longer than any link is away.
        .ring_bytes(8 << 20)
        .tapped()
        .start()
        .unwrap()
}

fn wait_acknowledged(board: &Board, blocks: u32) {
    let what = format!("the ack of {blocks} blocks of {}", board.node());
    let acknowledged = wait::until(&what, PATIENCE, || Ok((board.counters().acked >= blocks).then_some(())));
    acknowledged.unwrap_or_else(|error| panic!("{error:#}: {:?}", board.counters()));
}

/// The boards end with nothing dropped; every sample that they took is in Kafka, in order, and in the books. Gives how many blocks
/// the boards had to send again.
fn assert_nothing_lost(kafka: &Kafka, prefix: &str, agent: &Agent, boards: Vec<(Board, u64)>) -> u32 {
    let mut resent = 0;
    let mut played = Vec::new();
    for (board, samples) in boards {
        let complete = || Ok(board.counters().is_complete().then(|| board.counters()));
        let counters = wait::until("the board to be complete", PATIENCE, complete);
        let counters = counters.unwrap_or_else(|error| panic!("{error:#}: {:?}", board.counters()));
        assert_eq!(counters.dropped, 0, "{counters:?}");
        resent += counters.uplink.resent;
        played.push((crate::boards::finish(board), samples));
    }
    let blocks = played.iter().map(|(_, samples)| samples.div_ceil(BLOCK.into())).sum::<u64>();
    let blocks = usize::try_from(blocks).unwrap();
    let enough = |records: &[_]| raw::count_different(records) >= blocks;
    let records = kafka.read_until(&format!("{prefix}.raw.v1"), PATIENCE, enough).unwrap();
    let (unique, duplicates) = raw::without_duplicates(records).unwrap();
    println!("{prefix}: {blocks} blocks, {resent} sent again, {duplicates} recognisable duplicates");
    let streams = raw::streams(&unique).unwrap();
    for ((node, boot, taken), samples) in played {
        let stream = &streams[&(node.clone(), boot, 0)];
        assert_eq!(stream.gaps, [], "{node}");
        assert_eq!(raw::first_difference(&stream.interleaved(), &taken[0]), None, "{node}");
        crate::books::assert_balanced(agent, &stream.key, u32::try_from(samples).unwrap());
    }
    resent
}

/// What Mosquitto says it has dropped so far.
fn dropped(log: &str) -> u64 {
    let counts = log.lines().filter_map(|line| line.rsplit_once("messages/dropped ")?.1.trim().parse().ok());
    counts.max().unwrap_or(0)
}

#[test]
fn what_a_broker_with_default_limits_drops_while_the_gateway_stands_still_is_sent_again() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("sys_interval 1").unwrap();
    let folder = process::folder("dropped").unwrap();
    let topic = "$SYS/broker/publish/messages/dropped";
    let drops = mosquitto::subscribe_as(broker.port(), &[], topic, &folder.path().join("log")).unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "stopped", "")).unwrap();
    let first = board(&broker.address(), "first", Speed::Real, LONG);
    wait_acknowledged(&first, 20);
    agent.process().unwrap().freeze().unwrap();
    let samples = 150 * u64::from(BLOCK);
    let more = (0..12).map(|number| board(&broker.address(), &format!("n{number}"), Speed::Full, samples));
    let more: Vec<_> = more.collect();
    // Twelve boards' windows are more than the 1,000 messages that the broker keeps for a slow subscriber.
    wait::until("the broker to drop", PATIENCE, || Ok((dropped(&drops.log()) > 0).then_some(()))).unwrap();
    let acknowledged: u32 = more.iter().map(|board| board.counters().acked).sum();
    assert_eq!(acknowledged, 0, "the broker's PUBACK counts for nothing");
    agent.process().unwrap().thaw().unwrap();
    let mut boards = vec![(first, LONG)];
    boards.extend(more.into_iter().map(|board| (board, samples)));
    let resent = assert_nothing_lost(kafka, "stopped", &agent, boards);
    assert!(resent > 0, "{} messages were dropped and none sent again", dropped(&drops.log()));
    agent.stop().unwrap();
}

#[test]
fn a_half_open_link_to_the_broker_is_found_by_keep_alive_and_made_anew_without_loss() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let link = Proxy::start(broker.port()).unwrap();
    let config = crate::config(&link.address(), kafka, "half-open", "");
    let config = config.replacen("name = \"site\"", "name = \"site\"\nkeep_alive = \"5s\"", 1);
    let mut agent = Agent::started(&config).unwrap();
    let board = board(&broker.address(), "n1", Speed::Real, LONG);
    wait_acknowledged(&board, 50);
    let before = link.connections();
    link.go_half_open();
    wait::until("a new connection", PATIENCE, || Ok((link.connections() > before).then_some(()))).unwrap();
    assert_nothing_lost(kafka, "half-open", &agent, vec![(board, LONG)]);
    agent.stop().unwrap();
}

#[test]
fn a_half_open_link_to_kafka_is_found_by_time_out_and_made_anew_without_loss() {
    let (kafka, link) = Kafka::start_behind_proxy().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let config = crate::config(&broker.address(), &kafka, "half-open", "");
    let config = config.replacen(&kafka.address(), &link.address(), 1)
        + "\n[forward.kafka.properties]\n\"socket.timeout.ms\" = \"5000\"\n\"request.timeout.ms\" = \"4000\"\n";
    let mut agent = Agent::started(&config).unwrap();
    let board = board(&broker.address(), "n1", Speed::Real, 3 * LONG);
    let begun = |records: &[_]| records.len() > 20;
    kafka.read_until("half-open.raw.v1", PATIENCE, begun).unwrap();
    let before = link.connections();
    link.go_half_open();
    // The journal goes on taking meanwhile.
    let acknowledged = board.counters().acked;
    wait_acknowledged(&board, acknowledged + 100);
    wait::until("a new connection", PATIENCE, || Ok((link.connections() > before).then_some(()))).unwrap();
    assert_nothing_lost(&kafka, "half-open", &agent, vec![(board, 3 * LONG)]);
    agent.stop().unwrap();
}

#[test]
fn a_broker_that_is_restarted_in_order_and_remembers_nothing_loses_nothing() {
    let kafka = Kafka::shared().unwrap();
    let mut broker = Mosquitto::start("persistence false").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "forgetful", "")).unwrap();
    let board = board(&broker.address(), "n1", Speed::Real, LONG);
    for acknowledged in [50, 150] {
        wait_acknowledged(&board, acknowledged);
        broker.stop().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        broker.start_again("persistence false").unwrap();
    }
    assert_nothing_lost(kafka, "forgetful", &agent, vec![(board, LONG)]);
    agent.stop().unwrap();
}

#[test]
fn a_broker_killed_again_and_again_under_load_loses_nothing() {
    let kafka = Kafka::shared().unwrap();
    let mut broker = Mosquitto::start("autosave_interval 1").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "broker-killed", "")).unwrap();
    let names = ["n1", "n2", "n3"];
    let boards = names.map(|node| (board(&broker.address(), node, Speed::Real, LONG), LONG));
    for acknowledged in [40, 100, 160, 220] {
        boards.iter().for_each(|(board, _)| wait_acknowledged(board, acknowledged));
        broker.kill();
        broker.start_again("autosave_interval 1").unwrap();
    }
    assert_nothing_lost(kafka, "broker-killed", &agent, boards.into());
    agent.stop().unwrap();
}
