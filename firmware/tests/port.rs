//! A port starts what the node's file says is wired there; the board gives a bus and a pin.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "common/hand.rs"]
mod hand;

use embassy_futures::block_on;
use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use hand::Hand;
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::settings::Settings;
use spindle_common::wire::messages::ResetCause;
use spindle_common::wire::{Message, decode};
use spindle_firmware::acquire::Options;
use spindle_firmware::config::{self, NodeConfig, SensorConfig};
use spindle_firmware::node::{Facts, Limits, Node, WhenFull};
use spindle_firmware::sensor::port::{self, PortError};
use spindle_firmware::sensor::signal::Signal;
use spindle_firmware::sensor::{adxl345, adxl355, analog, iis3dwb};

const FRAMES: u64 = 4_000;

type TestNode = Node<'static, NoopRawMutex, Vec<u8>, 256>;

fn node(config: &NodeConfig) -> TestNode {
    let facts = Facts {
        site: config.site,
        machine: config.machine,
        node: config.name,
        board: config.board,
        firmware: "test",
        boot: BootId(7),
        reset_cause: ResetCause::PowerOn,
        last_panic: "",
        lifetime: None,
        streams: config.streams(),
        limits: Limits {
            link_bits_per_s: 100_000_000,
            block_samples_max: 1024,
            burst_samples_max: 1024,
            message_len_max: 16_384,
        },
    };
    let settings = Settings::built_in(&facts.streams);
    Node::new(facts, settings, vec![0; 1 << 20])
}

const OPTIONS: Options<'static> =
    Options { stream: StreamId(0), when_full: WhenFull::DropOldest, flags: 0, supervisor: None };

/// Even numbers, as the ADXL345 has no others at its rate, until the end.
struct Counting(u64);

impl Counting {
    fn step(&mut self) -> Option<i16> {
        self.0 += 1;
        (self.0 <= FRAMES).then(|| value(self.0 - 1))
    }
}

fn value(n: u64) -> i16 {
    (n % 1000) as i16 * 2
}

impl Signal for Counting {
    fn next(&mut self, _scale: f32) -> Option<[i16; 3]> {
        self.step().map(|count| [count, count, -count])
    }
}

impl Signal<i32> for Counting {
    fn next(&mut self, _scale: f32) -> Option<[i32; 3]> {
        self.step().map(|count| [count, count, -count].map(i32::from))
    }
}

/// The sensor of this type in the first node that has one, as if it were the only one.
fn wired(model: &str) -> (&'static NodeConfig, SensorConfig) {
    let node = config::NODES.iter().find(|node| node.sensors[0].model == model);
    match node {
        Some(node) => (node, node.sensors[0]),
        None => {
            // None comes first in its node: the type is put on the first one's place.
            let all = config::NODES.iter().flat_map(|node| node.sensors);
            let sensor = *all.clone().find(|sensor| sensor.model == model).unwrap();
            let sensors: &'static [SensorConfig] = Box::leak(Box::new([sensor]));
            let node = Box::leak(Box::new(NodeConfig { sensors, ..config::NODES[0] }));
            (node, sensor)
        }
    }
}

/// Every sample of the model is in the node's ring, in order.
fn assert_whole(node: &TestNode) {
    let (mut seq, mut n) = (node.held().oldest, 0);
    let mut bytes = vec![0; 1 << 16];
    while seq != node.held().next {
        let (_, len) = node.copy_block(seq, &mut bytes).unwrap();
        let Ok(Message::Block(block)) = decode(&bytes[..len]) else { panic!("a block") };
        assert_eq!(block.header.first_sample, n);
        let mut planar = vec![0; block.header.len()];
        block.decode_samples(&mut planar).unwrap();
        let frames = usize::from(block.header.samples);
        for frame in 0..frames {
            let wanted = i32::from(value(n));
            let found = [planar[frame], planar[frames + frame], planar[2 * frames + frame]];
            assert_eq!(found, [wanted, wanted, -wanted], "sample {n}");
            n += 1;
        }
        seq = Seq(seq.0.wrapping_add(1));
    }
    assert_eq!(n, FRAMES);
    assert_eq!(node.counters(StreamId(0)).unwrap().taken, FRAMES);
}

macro_rules! runs {
    ($chip:ident) => {{
        let (config, sensor) = wired(stringify!($chip));
        let (time, node) = (Hand::default(), node(config));
        let model = $chip::model::Model::new(Counting(0), time.clone(), 0.01);
        block_on(async {
            let running = port::run::<1536, _, _, 256, _, _, _>(
                &node,
                (model.spi(), model.int1()),
                &time,
                &sensor,
                OPTIONS,
            );
            let ending = async {
                model.drained().await;
                node.halt(StreamId(0));
                core::future::pending::<()>().await;
            };
            select(running, ending).await;
        });
        assert_whole(&node);
    }};
}

#[test]
fn each_chip_is_started_by_its_name_and_its_samples_reach_the_ring() {
    runs!(iis3dwb);
    runs!(adxl355);
    runs!(adxl345);
}

#[test]
fn what_the_firmware_cannot_drive_is_named() {
    let (config, sensor) = wired("iis3dwb");
    let (time, node) = (Hand::default(), node(config));
    let model = iis3dwb::model::Model::new(Counting(0), time.clone(), 0.0);
    let start = |sensor: SensorConfig| {
        let pins = (model.spi(), model.int1());
        block_on(port::run::<1536, _, _, 256, _, _, _>(&node, pins, &time, &sensor, OPTIONS)).unwrap_err()
    };
    let name = sensor.name;
    assert_eq!(
        start(SensorConfig { full_scale_g: 5.0, ..sensor }),
        PortError::Range { name, model: "iis3dwb" }
    );
    let error = start(SensorConfig { model: "kx134", ..sensor });
    assert_eq!(error, PortError::Model { name, model: "kx134" });
    assert!(error.to_string().contains("no driver of type kx134"), "{error}");
    let adc = analog::model::Model::new(Counting(0), time.clone(), &sensor, 0.0);
    let analog = port::run_analog::<1536, 768, _, _, 256, _, _>(&node, &adc, &time, &sensor, OPTIONS);
    assert_eq!(block_on(analog), Err(PortError::Model { name, model: "iis3dwb" }));
}
