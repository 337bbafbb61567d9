//! Virtual boards against a small broker and gateway: the whole core, from the chip model to the acknowledgement.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests have threads and clocks of their own"
)]

#[path = "common/broker.rs"]
mod broker;
mod common;

use broker::Broker;
use spindle_common::wire::Encoding;
use spindle_firmware::host::{Chip, Playback, Speed, VirtualBoard, VirtualSensor};
use spindle_firmware::sensor::signal::Spindle;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn board(broker: &Broker) -> VirtualBoard {
    VirtualBoard::new("plant", "mill-1", "node-1").mqtt(broker.address.clone()).tapped()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn at_full_speed_every_sample_arrives_bit_for_bit_and_none_twice() {
    for (encoding, block_samples) in [(Encoding::Raw16, 512), (Encoding::Rice16, 700), (Encoding::Raw24, 33)]
    {
        let broker = Broker::start();
        let spindle =
            VirtualSensor::spindle("spindle", Spindle::default().with_outer_race_fault(30.0, 0.1, 1.0));
        let sensor =
            spindle.encoding(encoding).block_samples(block_samples).rate_error(0.013).stop_after(200_000);
        let board = board(&broker).sensor(sensor).speed(Speed::Full).start().unwrap();
        let tap = board.tap(0).unwrap().clone();
        wait_until("all acknowledged", || board.counters().is_complete());
        let drained = board.drain_blocking(LONG);
        assert!(drained.complete, "{drained:?}");
        assert_eq!((drained.counters.dropped, tap.produced()), (0, 200_000));
        wait_until("a goodbye", || *broker.goodbyes.lock().unwrap() == 1);
        let gateway = broker.gateway.lock().unwrap();
        let stream = &gateway.streams[&0];
        assert_eq!((stream.len(), stream.end()), (200_000, 200_000));
        stream.assert_equals(&tap.samples());
        let rate = f64::from(stream.rate_measured_mhz) / 1000.0;
        assert!((rate / (26_666.667 * 1.013) - 1.0).abs() < 50e-6, "{rate}");
        let topics = broker.topics.lock().unwrap();
        assert_eq!(topics[0], "spindle/v1/plant/mill-1/node-1/birth");
        assert!(topics.iter().any(|topic| topic == "spindle/v1/plant/mill-1/spindle/raw"));
        assert!(topics.iter().any(|topic| topic == "spindle/v1/plant/mill-1/node-1/time"));
    }
}

#[test]
fn in_real_time_a_broken_link_costs_nothing_while_the_ring_lasts() {
    let broker = Broker::start();
    let board = board(&broker).sensor(VirtualSensor::spindle("a", Spindle::default())).start().unwrap();
    let tap = board.tap(0).unwrap().clone();
    wait_until("some blocks", || broker.gateway.lock().unwrap().next > 10);
    board.cut_link(true);
    wait_until("link down", || !board.counters().connected);
    std::thread::sleep(Duration::from_millis(500));
    board.cut_link(false);
    let before = broker.gateway.lock().unwrap().next;
    wait_until("blocks again", || broker.gateway.lock().unwrap().next > before + 20);
    broker.cut();
    let drained = board.drain_blocking(LONG);
    assert!(drained.complete, "{drained:?}");
    assert!(drained.counters.uplink.connects >= 3);
    let gateway = broker.gateway.lock().unwrap();
    assert_eq!((gateway.streams[&0].len(), gateway.given_up), (tap.produced(), 0));
    gateway.streams[&0].assert_equals(&tap.samples());
    assert_eq!(drained.counters.streams[0].taken, tap.produced());
}

#[test]
fn what_a_full_ring_drops_is_a_gap_that_the_node_has_announced() {
    let broker = Broker::start();
    broker.gateway.lock().unwrap().deaf = true;
    let sensor = VirtualSensor::spindle("a", Spindle::default()).block_samples(128);
    let board = board(&broker).sensor(sensor).ring_bytes(40_000).window(8).start().unwrap();
    let tap = board.tap(0).unwrap().clone();
    wait_until("drops", || board.counters().dropped > 50);
    broker.gateway.lock().unwrap().deaf = false;
    let before = board.counters().dropped;
    wait_until("blocks again", || {
        broker.gateway.lock().unwrap().streams.get(&0).is_some_and(|s| s.blocks > 100)
    });
    let drained = board.drain_blocking(LONG);
    assert!(drained.complete, "{drained:?}");
    let gateway = broker.gateway.lock().unwrap();
    let stream = &gateway.streams[&0];
    stream.assert_equals(&tap.samples());
    let counters = &drained.counters.streams[0];
    assert_eq!(stream.end(), counters.taken);
    assert_eq!(counters.taken, tap.produced());
    // The gateway may have taken, before it went deaf to its own acks, blocks that the ring later dropped.
    let missing = stream.end() - stream.len();
    assert!(missing > 0 && missing <= counters.lost_ring, "{missing} of {}", counters.lost_ring);
    assert_eq!(missing, gateway.given_up * 128);
    assert!(before > 0);
}

#[test]
fn one_node_carries_chips_of_all_kinds_and_rates_and_every_frame_arrives_bit_for_bit() {
    let broker = Broker::start();
    let kinds = [
        ("iis3dwb", 16.0, 26_666_667u32, 200_000u64),
        ("adxl355", 8.0, 4_000_000, 30_000),
        ("adxl345", 16.0, 3_200_000, 24_000),
    ];
    let errors = [0.013, -0.02, 0.03];
    let mut spec = board(&broker).speed(Speed::Full);
    for (index, (&(model, full_scale_g, _, frames), error)) in kinds.iter().zip(errors).enumerate() {
        let spindle = Spindle { seed: index as u32 + 1, unbalance: 20.0, ..Spindle::default() };
        let spindle = spindle.with_outer_race_fault(30.0, 0.1, 1.0);
        let chip = Chip::named(model, full_scale_g).unwrap();
        spec = spec.sensor(VirtualSensor::of(chip, model, spindle).rate_error(error).stop_after(frames));
    }
    let board = spec.start().unwrap();
    let taps: Vec<_> = (0..kinds.len()).map(|index| board.tap(index).unwrap().clone()).collect();
    wait_until("all acknowledged", || board.counters().is_complete());
    let drained = board.drain_blocking(LONG);
    assert!(drained.complete, "{drained:?}");
    assert_eq!(drained.counters.dropped, 0);
    let gateway = broker.gateway.lock().unwrap();
    for (index, ((&(model, _, rate_mhz, frames), error), tap)) in
        kinds.iter().zip(errors).zip(&taps).enumerate()
    {
        let stream = &gateway.streams[&(index as u8)];
        assert_eq!((stream.len(), stream.end(), tap.produced()), (frames, frames, frames), "{model}");
        stream.assert_equals(&tap.samples());
        let values = tap.samples();
        assert!(values.iter().any(|&value| value != values[0]), "{model} measured something");
        let rate = f64::from(stream.rate_measured_mhz) / f64::from(rate_mhz) / (1.0 + error);
        assert!((rate - 1.0).abs() < 200e-6, "{model}: {rate}");
    }
}

#[test]
fn recordings_of_other_widths_and_shapes_play_through_the_same_core() {
    let broker = Broker::start();
    let samples: Vec<i32> = (0..30_000).map(|i| (i * 7919 % 400_000) - 200_000).collect();
    let playback = Playback::new(samples.clone().into(), "abc", 20, 2000.0, 0.01).unwrap();
    let sensor = VirtualSensor::playback("tool", playback).encoding(Encoding::Rice24).block_samples(1000);
    let board = board(&broker).sensor(sensor).speed(Speed::Full).start().unwrap();
    wait_until("all acknowledged", || board.counters().is_complete());
    assert!(board.drain_blocking(LONG).complete);
    let gateway = broker.gateway.lock().unwrap();
    assert_eq!(gateway.streams[&0].len(), 10_000);
    gateway.streams[&0].assert_equals(&samples);
}

#[test]
fn commands_are_answered_and_a_self_test_shows_as_a_counted_gap() {
    use spindle_common::id::StreamId;
    use spindle_common::wire::Command;
    use spindle_common::wire::messages::Request;
    let broker = Broker::start();
    let board = board(&broker).sensor(VirtualSensor::spindle("a", Spindle::default())).start().unwrap();
    let ask = |id, request| {
        let mut bytes = [0; 128];
        let len = Command { node: "node-1", id, request }.encode(&mut bytes).unwrap();
        broker.publish("spindle/v1/plant/mill-1/node-1/cmd", &bytes[..len]);
        wait_until("an answer", || broker.gateway.lock().unwrap().answers.iter().any(|(its, _)| *its == id));
        let gateway = broker.gateway.lock().unwrap();
        gateway.answers.iter().find(|(its, _)| *its == id).unwrap().1.clone()
    };
    wait_until("some blocks", || broker.gateway.lock().unwrap().next > 10);
    assert_eq!(ask(1, Request::Identify), "Done ");
    assert_eq!(ask(2, Request::SelfTest { stream: StreamId(3) }), "Refused no such sensor");
    let answer = ask(3, Request::SelfTest { stream: StreamId(0) });
    assert!(answer.starts_with("Done moved 1") && answer.ends_with("m/s2, allowed 7.8 to 31.4"), "{answer}");
    let births = broker.gateway.lock().unwrap().births;
    ask(4, Request::Report);
    wait_until("another birth", || broker.gateway.lock().unwrap().births > births);
    let next = broker.gateway.lock().unwrap().next;
    wait_until("blocks again", || broker.gateway.lock().unwrap().next > next + 10);
    let boot = board.boot().0;
    ask(5, Request::Reboot);
    wait_until("another boot", || broker.gateway.lock().unwrap().boot != Some(boot));
}

#[test]
fn fifty_boards_share_a_process() {
    let brokers: Vec<_> = (0..50).map(|_| Broker::start()).collect();
    let start = Instant::now();
    let boards: Vec<_> = brokers
        .iter()
        .map(|broker| {
            let sensor = VirtualSensor::spindle("a", Spindle::default()).stop_after(50_000);
            board(broker).sensor(sensor).speed(Speed::Full).start().unwrap()
        })
        .collect();
    for (board, broker) in boards.into_iter().zip(&brokers) {
        let tap = board.tap(0).unwrap().clone();
        wait_until("all acknowledged", || board.counters().is_complete());
        let gateway = broker.gateway.lock().unwrap();
        assert_eq!(gateway.streams[&0].len(), 50_000);
        gateway.streams[&0].assert_equals(&tap.samples());
    }
    eprintln!("50 boards x 50,000 samples in {:?}", start.elapsed());
}
