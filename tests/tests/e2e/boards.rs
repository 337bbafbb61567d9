//! Virtual boards: the firmware's core, the IIS3DWB driver and the register-level model of the chip, through the gateway
//! into Kafka. What the model produced must be in the raw topic, bit for bit.

use spindle_common::wire::Encoding;
use spindle_firmware::host::{Board, Speed, VirtualBoard, VirtualSensor};
use spindle_firmware::sensor::signal::Spindle;
use spindle_tests::agent::Agent;
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::pty::PtyPair;
use spindle_tests::raw;
use spindle_tests::wait::PATIENCE;
use std::time::Duration;

/// Samples per channel that each sensor takes: not a whole number of blocks.
const SAMPLES: u64 = 40_000;

fn sensor(name: &str, seed: u32, encoding: Encoding) -> VirtualSensor {
    let spindle = Spindle { seed, ..Spindle::default() }.with_outer_race_fault(20.0, 0.3, 0.5);
    VirtualSensor::spindle(name, spindle).rate_error(0.013).encoding(encoding).stop_after(SAMPLES)
}

/// Waits for a board's end and gives what each of its sensors produced.
pub(crate) fn finish(board: Board) -> (String, u64, Vec<Vec<i32>>) {
    let (node, boot) = (board.node().to_owned(), board.boot().0);
    let taps: Vec<_> = (0..).map_while(|stream| board.tap(stream).cloned()).collect();
    let drained = wait_complete(board);
    assert!(drained, "{node} was not drained");
    (node, boot, taps.iter().map(|tap| tap.samples()).collect())
}

fn wait_complete(board: Board) -> bool {
    let complete = spindle_tests::wait::until("the board to be complete", PATIENCE, || {
        Ok(board.counters().is_complete().then_some(()))
    });
    if let Err(error) = complete {
        panic!("{error:#}: {:?}", board.counters());
    }
    board.drain_blocking(PATIENCE).complete
}

/// Each produced sample is in `topic` once, in order, with the right key.
fn assert_bit_exact(kafka: &Kafka, topic: &str, machine: &str, produced: &[(String, u64, Vec<Vec<i32>>)]) {
    let sensors: usize = produced.iter().map(|(_, _, streams)| streams.len()).sum();
    let blocks = sensors * usize::try_from(SAMPLES.div_ceil(512)).unwrap();
    let records = kafka.read_until(topic, PATIENCE, |records| records.len() >= blocks).unwrap();
    let streams = raw::streams(&records).unwrap();
    assert_eq!(streams.len(), sensors);
    for (node, boot, sensors) in produced {
        for (index, samples) in (0u8..).zip(sensors) {
            let stream = &streams[&(node.clone(), *boot, index)];
            assert_eq!(stream.key, format!("site/{machine}/acc{index}-{node}"));
            assert_eq!((stream.first_sample, stream.gaps.as_slice()), (0, [].as_slice()), "{node} {index}");
            assert_eq!(samples.len() as u64, 3 * SAMPLES);
            assert_eq!(raw::first_difference(&stream.interleaved(), samples), None, "{node} stream {index}");
        }
    }
}

#[test]
fn every_sample_of_virtual_boards_over_mosquitto_is_in_kafka_bit_for_bit() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "boards", "")).unwrap();
    let start = |node: &str, speed, encoding| {
        VirtualBoard::new("site", "mill", node)
            .sensor(sensor(&format!("acc0-{node}"), 1, encoding))
            .sensor(sensor(&format!("acc1-{node}"), 2, encoding))
            .mqtt(broker.address())
            .speed(speed)
            .tapped()
            .start()
            .unwrap()
    };
    let boards = [
        start("real", Speed::Real, Encoding::Raw16),
        start("full", Speed::Full, Encoding::Raw16),
        start("rice", Speed::Full, Encoding::Rice16),
    ];
    let produced: Vec<_> = boards.into_iter().map(finish).collect();
    assert_bit_exact(kafka, "boards.raw.v1", "mill", &produced);
    for (node, _, sensors) in &produced {
        for index in 0..sensors.len() {
            let key = format!("site/mill/acc{index}-{node}");
            crate::books::assert_balanced(&agent, &key, u32::try_from(SAMPLES).unwrap());
        }
    }
    let features = kafka.read_until("boards.features.v1", PATIENCE, |records| records.len() >= 6).unwrap();
    crate::schema::assert_all_valid(&features);
    agent.stop().unwrap();
}

#[test]
fn every_sample_of_a_virtual_board_on_a_pseudo_terminal_is_in_kafka_bit_for_bit_though_it_was_unplugged() {
    let kafka = Kafka::shared().unwrap();
    let mut cable = PtyPair::start().unwrap();
    let mut agent = Agent::started(&format!(
        "[[source.serial]]\ndevice = {:?}\n\n[forward.kafka]\nbrokers = \"{}\"\ntopic_prefix = \"serial\"\n",
        cable.gateway(),
        kafka.address()
    ))
    .unwrap();
    let board = VirtualBoard::new("site", "lathe", "wired")
        .sensor(sensor("acc0-wired", 3, Encoding::Raw16))
        .serial(cable.board(), 921_600)
        .speed(Speed::Real)
        .tapped()
        .start()
        .unwrap();
    spindle_tests::wait::until("some blocks over the cable", PATIENCE, || {
        Ok((board.counters().acked >= 10).then_some(()))
    })
    .unwrap();
    cable.unplug();
    std::thread::sleep(Duration::from_millis(300));
    cable.plug_in().unwrap();
    let produced = [finish(board)];
    assert_bit_exact(kafka, "serial.raw.v1", "lathe", &produced);
    crate::books::assert_balanced(&agent, "site/lathe/acc0-wired", u32::try_from(SAMPLES).unwrap());
    agent.stop().unwrap();
}
