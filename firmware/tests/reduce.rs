//! What a stream sends stands for every sample once, or the sample is counted: over random settings at random moments, overruns,
//! steps down and up, and a ring that is too small.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use proptest::prelude::*;
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::settings::{Codec, Settings, Step, StreamSettings, TriggerSettings};
use spindle_common::wire::block::flags;
use spindle_common::wire::messages::{ResetCause, TriggerKind};
use spindle_common::wire::{Encoding, Message, StreamInfo, decode};
use spindle_firmware::acquire::SampleClock;
use spindle_firmware::node::{Facts, Limits, Node};
use spindle_firmware::reduce::{CHUNK_FRAMES, Memory, Reducer};
use spindle_firmware::sensor::ends;

type TestNode = Node<'static, NoopRawMutex, Vec<u8>, 64>;

const STREAM: StreamId = StreamId(0);
const RATE_HZ: u64 = 2_000;

fn info() -> StreamInfo<'static> {
    StreamInfo {
        stream: STREAM,
        sensor: "a",
        model: "test",
        axes: "xyz",
        rate_nominal_mhz: RATE_HZ as u32 * 1000,
        scale: 0.001,
        bits: 16,
        block_samples: 100,
        encoding: Encoding::Raw16,
    }
}

fn node(ring: usize) -> TestNode {
    let facts = Facts {
        site: "s",
        machine: "m",
        node: "n",
        board: "host",
        firmware: "1",
        boot: BootId(5),
        reset_cause: ResetCause::PowerOn,
        last_panic: "",
        streams: [info()].into_iter().collect(),
        lifetime: None,
        limits: Limits {
            link_bits_per_s: 1_000_000_000,
            block_samples_max: 400,
            burst_samples_max: 300,
            message_len_max: 4096,
        },
    };
    let settings = Settings::built_in(&facts.streams);
    Node::new(facts, settings, vec![0; ring])
}

struct Bench {
    block: Vec<i16>,
    chunk: Vec<i16>,
    history: Vec<i16>,
    decimators: Vec<Option<spindle_common::dsp::Decimator>>,
}

impl Bench {
    fn new() -> Self {
        Self {
            block: vec![0; 3 * 400],
            chunk: vec![0; 3 * CHUNK_FRAMES],
            history: vec![0; 3 * 300],
            decimators: vec![None],
        }
    }

    fn reducer(&mut self, settings: &StreamSettings) -> Reducer<'_, i16> {
        let Self { block, chunk, history, decimators } = self;
        Reducer::new(&info(), ends(16), 0, Memory { block, chunk, history, decimators }, settings)
    }
}

fn sample(index: u64, axis: u64) -> i16 {
    // A loud stretch of 50 samples in every 3,000, to release bursts.
    let quiet = (index.wrapping_mul(7919).wrapping_add(axis * 13) % 41) as i16 - 20;
    if index % 3_000 < 50 { quiet * 500 } else { quiet }
}

/// What came out of the ring: what messages stand for, and bursts.
#[derive(Default)]
struct Book {
    next: u32,
    covered: Vec<(u64, u64)>,
    withheld: u64,
    bursts: u32,
    kinds: [u32; 3],
}

impl Book {
    /// Takes everything that is in the ring, as a gateway does, and frees it.
    fn take(&mut self, node: &TestNode) {
        let held = node.held();
        let mut seq = held.oldest;
        while seq != held.next {
            let mut bytes = vec![0; 8192];
            let (_, len) = node.copy_block(seq, &mut bytes).unwrap();
            match decode(&bytes[..len]).unwrap() {
                Message::Block(block) => {
                    let header = block.header;
                    assert_eq!(header.seq, seq);
                    assert_eq!(header.first_sample % u64::from(header.decimation), 0);
                    self.withheld += header.covered() - u64::from(header.samples);
                    self.kinds[usize::from(header.decimation > 1)] += 1;
                    if header.decimation == 1 {
                        self.assert_samples(&block, block.header.first_sample);
                    }
                    self.cover(header.first_sample, header.covered());
                }
                Message::Features(features) => {
                    assert_eq!(features.seq, seq);
                    self.withheld += u64::from(features.samples);
                    self.kinds[2] += 1;
                    self.cover(features.first_sample, features.samples.into());
                }
                Message::Burst(burst) => {
                    let header = burst.block.header;
                    assert_eq!(header.seq, seq);
                    self.bursts += 1;
                    let (first, end) = (header.first_sample, header.first_sample + u64::from(header.samples));
                    assert!((first..end).contains(&burst.trigger.sample), "{burst:?}");
                    self.assert_samples(&burst.block, first);
                }
                other => panic!("{other:?}"),
            }
            seq = seq.next();
        }
        self.next = held.next.0;
        node.free_before(held.next);
    }

    fn assert_samples(&self, block: &spindle_common::wire::Block<'_>, first: u64) {
        let mut planar = vec![0; block.header.len()];
        block.decode_samples(&mut planar).unwrap();
        // Which channels they are is told by the settings; the first is among them in these tests.
        for (index, value) in (first..).zip(planar.iter().take(usize::from(block.header.samples))) {
            assert_eq!(*value, i32::from(sample(index, 0)), "sample {index}");
        }
    }

    fn cover(&mut self, first: u64, count: u64) {
        if let Some((before, len)) = self.covered.last() {
            assert!(first >= before + len, "{first} comes after {before} + {len}");
        }
        self.covered.push((first, count));
    }

    fn total(&self) -> u64 {
        self.covered.iter().map(|(_, count)| count).sum()
    }
}

#[derive(Debug, Clone)]
enum Event {
    Frames(u32),
    Lose(u16, bool),
    Configure(StreamSettings),
    Drain,
}

fn settings() -> impl Strategy<Value = StreamSettings> {
    let steps = prop_oneof![Just(Step::Raw), Just(Step::Decimated), Just(Step::Features)];
    let axes = prop_oneof![Just(0b111u8), Just(0b001), Just(0b101)];
    let factors = prop_oneof![Just(2u16), Just(8), Just(10), Just(26)];
    let triggers = (prop_oneof![Just(0.0f32), Just(2.0)], 0u32..3, 0u16..100, 1u16..200, 0u16..3);
    (steps, axes, factors, any::<bool>(), 1u16..400, triggers).prop_map(
        |(step, axes, decimation, rice, block_samples, (level, every_s, before, after, rest_s))| {
            StreamSettings {
                stream: STREAM,
                step,
                may_degrade: false,
                axes,
                decimation,
                codec: if rice { Codec::Rice } else { Codec::Raw },
                block_samples,
                trigger: TriggerSettings { level, every_s, before, after, rest_s },
            }
        },
    )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (1u32..6_000).prop_map(Event::Frames),
        2 => (0u16..3_000, any::<bool>()).prop_map(|(lost, restart)| Event::Lose(lost, restart)),
        3 => settings().prop_map(Event::Configure),
        3 => Just(Event::Drain),
    ];
    proptest::collection::vec(event, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_sample_is_stood_for_once_or_counted_as_lost(
        first in settings(), events in events(), ring in 5_000usize..40_000,
    ) {
        let node = node(ring);
        let mut bench = Bench::new();
        let mut reducer = bench.reducer(&first);
        let mut clock = SampleClock::new(RATE_HZ as u32 * 1000);
        let mut book = Book::default();
        clock.observe(0, 0);
        for event in events.into_iter().chain([Event::Drain]) {
            match event {
                Event::Frames(count) => for _ in 0..count {
                    let index = reducer.next_sample();
                    if reducer.push(&[sample(index, 0), sample(index, 1), sample(index, 2)]) {
                        reducer.flush(&clock, &node);
                    }
                },
                Event::Lose(lost, restart) => {
                    let flag = if restart { flags::RESTART } else { flags::OVERRUN };
                    reducer.lose(lost.into(), flag, &clock, &node);
                }
                Event::Configure(settings) => reducer.configure(&settings, &clock, &node),
                Event::Drain => {
                    reducer.seal(&clock, &node);
                    book.take(&node);
                }
            }
        }
        let counters = node.counters(STREAM).unwrap();
        let step = node.step(STREAM).unwrap();
        let end = book.covered.last().map_or(0, |(first, count)| first + count);
        prop_assert!(end <= counters.taken && counters.taken <= reducer.next_sample());
        prop_assert_eq!(counters.taken, book.total() + counters.lost_overrun + counters.lost_ring);
        // What the ring dropped was withheld as well, where it was not raw.
        prop_assert!(book.withheld <= step.withheld && step.withheld <= book.withheld + counters.lost_ring);
        if node.dropped() == 0 {
            prop_assert_eq!((step.withheld, step.bursts), (book.withheld, book.bursts));
        }
    }
}

fn run(
    reducer: &mut Reducer<'_, i16>,
    clock: &SampleClock,
    node: &TestNode,
    frames: u64,
    signal: impl Fn(u64) -> i16,
) {
    for _ in 0..frames {
        let index = reducer.next_sample();
        if reducer.push(&[signal(index), 0, 0]) {
            reducer.flush(clock, node);
        }
    }
}

fn in_step(step: Step) -> StreamSettings {
    let mut settings = Settings::built_in(&[info()]).streams[0];
    settings.step = step;
    settings
}

#[test]
fn a_thinned_stream_is_the_low_passed_signal_and_starts_behind_the_filters_settling() {
    let node = node(60_000);
    let mut bench = Bench::new();
    let mut reducer = bench.reducer(&in_step(Step::Decimated));
    let clock = SampleClock::new(RATE_HZ as u32 * 1000);
    // 20 Hz stays, 700 Hz goes: the output rate is 250 Hz.
    let tone = |index: u64, hz: f64| (index as f64 / RATE_HZ as f64 * hz * std::f64::consts::TAU).sin();
    run(&mut reducer, &clock, &node, 10_000, |index| {
        (5_000.0 + 3_000.0 * tone(index, 20.0) + 2_000.0 * tone(index, 700.0)).round() as i16
    });
    reducer.seal(&clock, &node);
    let held = node.held();
    let mut seq = held.oldest;
    let mut end = None;
    while seq != held.next {
        let mut bytes = vec![0; 8192];
        let (_, len) = node.copy_block(seq, &mut bytes).unwrap();
        let Message::Block(block) = decode(&bytes[..len]).unwrap() else { panic!("only blocks") };
        let mut planar = vec![0; block.header.len()];
        block.decode_samples(&mut planar).unwrap();
        for (at, value) in planar.iter().take(usize::from(block.header.samples)).enumerate() {
            let centre = block.header.first_sample + at as u64 * 8;
            let want = 5_000.0 + 3_000.0 * tone(centre, 20.0);
            assert!((f64::from(*value) - want).abs() < 8.0, "{centre}: {value} against {want}");
        }
        assert_eq!(end.unwrap_or(block.header.first_sample), block.header.first_sample);
        end = Some(block.header.first_sample + block.header.covered());
        seq = seq.next();
    }
    let lost = node.counters(STREAM).unwrap().lost_overrun;
    assert!((200..300).contains(&lost), "{lost}");
}

#[test]
fn a_level_releases_a_burst_with_what_was_before_it_and_rest_holds_the_next_back() {
    let node = node(60_000);
    let mut bench = Bench::new();
    let mut settings = in_step(Step::Features);
    settings.trigger = TriggerSettings { level: 2.0, every_s: 0, before: 40, after: 60, rest_s: 2 };
    let mut reducer = bench.reducer(&settings);
    let clock = SampleClock::new(RATE_HZ as u32 * 1000);
    // Gravity of 9.8 m/s² is no excursion; 3 m/s² at samples 5,000 and 6,000 and 12,000 are.
    let signal = |index: u64| match index {
        5_000 | 6_000 | 12_000 => 12_800,
        _ => 9_800 + (index % 7) as i16,
    };
    run(&mut reducer, &clock, &node, 14_000, signal);
    reducer.seal(&clock, &node);
    let held = node.held();
    let (mut seq, mut bursts, mut features) = (held.oldest, Vec::new(), 0);
    while seq != held.next {
        let mut bytes = vec![0; 8192];
        let (channel, len) = node.copy_block(seq, &mut bytes).unwrap();
        match decode(&bytes[..len]).unwrap() {
            Message::Burst(burst) => {
                assert_eq!(channel, spindle_firmware::transport::Channel::Burst(STREAM));
                let mut planar = vec![0; burst.block.header.len()];
                burst.block.decode_samples(&mut planar).unwrap();
                for (index, value) in (burst.block.header.first_sample..).zip(&planar[..100]) {
                    assert_eq!(*value, i32::from(signal(index)));
                }
                assert_eq!((burst.trigger.kind, burst.trigger.level), (TriggerKind::Level, 2.0));
                bursts.push((burst.block.header.first_sample, burst.trigger.sample));
            }
            Message::Features(window) => {
                features += 1;
                assert_eq!(window.samples, 2_000);
                assert!((window.axes[0].mean - 9.803).abs() < 0.01);
            }
            other => panic!("{other:?}"),
        }
        seq = seq.next();
    }
    assert_eq!((bursts, features), (vec![(4_960, 5_000), (11_960, 12_000)], 7));
    let step = node.step(STREAM).unwrap();
    assert_eq!((step.bursts, step.bursts_missed, step.withheld), (2, 1, 14_000));
}

#[test]
fn a_burst_is_due_every_so_often_and_a_full_ring_counts_what_it_drops() {
    let node = node(3_000);
    let mut bench = Bench::new();
    let mut settings = in_step(Step::Features);
    settings.trigger = TriggerSettings { level: 0.0, every_s: 1, before: 0, after: 100, rest_s: 0 };
    let mut reducer = bench.reducer(&settings);
    let clock = SampleClock::new(RATE_HZ as u32 * 1000);
    run(&mut reducer, &clock, &node, 20_000, |index| (index % 100) as i16);
    reducer.seal(&clock, &node);
    assert_eq!(node.step(STREAM).unwrap().bursts, 9);
    let counters = node.counters(STREAM).unwrap();
    assert!(node.dropped() > 0 && counters.lost_ring > 0);
    let mut book = Book::default();
    // Other axes are zero here: only what messages stand for is looked at.
    let held = node.held();
    let mut seq = held.oldest;
    while seq != held.next {
        let mut bytes = vec![0; 8192];
        let (_, len) = node.copy_block(seq, &mut bytes).unwrap();
        if let Message::Features(features) = decode(&bytes[..len]).unwrap() {
            book.cover(features.first_sample, features.samples.into());
        }
        seq = Seq(seq.0 + 1);
    }
    assert_eq!(book.total() + counters.lost_ring, 20_000);
}
