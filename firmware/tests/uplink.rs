//! The uplink's state machine and the ring against a gateway over a link that loses, doubles, reorders and breaks; all in
//! virtual time from a seed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use proptest::prelude::*;
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_firmware::node::Held;
use spindle_firmware::ring::Ring;
use spindle_firmware::transport::Channel;
use spindle_firmware::uplink::{Action, Config, Item, Uplink};
use std::collections::BTreeSet;

const BOOT: BootId = BootId(7);

#[derive(Debug, Clone)]
struct Weather {
    seed: u64,
    /// Per mille.
    loss: u64,
    double: u64,
    /// Longest delay of a message; longer than a step means reordering.
    delay_ms_max: u64,
    /// The link breaks about every so many ms; 0 never.
    breaks_every_ms: u64,
    /// The gateway is away from and until.
    away: (u64, u64),
    blocks: u32,
    window: u32,
}

fn weather() -> impl Strategy<Value = Weather> {
    (
        any::<u64>(),
        0u64..300,
        0u64..200,
        1u64..400,
        prop_oneof![Just(0u64), 300u64..5000],
        0u64..20_000,
        0u64..30_000,
        1u32..40,
    )
        .prop_map(|(seed, loss, double, delay_ms_max, breaks_every_ms, from, length, window)| Weather {
            seed,
            loss,
            double,
            delay_ms_max,
            breaks_every_ms,
            away: (from, from + length),
            blocks: 600,
            window,
        })
}

#[derive(Debug, Clone, Copy)]
enum Message {
    Block(Seq),
    Status { oldest: Seq },
    Ack(Seq),
}

struct World {
    weather: Weather,
    random: u64,
    ring: Ring<[u8; 1600], 64>,
    uplink: Uplink,
    /// (arrives at, epoch of the connection, message).
    flying: Vec<(u64, u32, Message)>,
    epoch: u32,
    /// The gateway: next wanted, what it has, what it gave up.
    wanted: Seq,
    accepted: BTreeSet<u32>,
    given_up: BTreeSet<u32>,
    dropped: BTreeSet<u32>,
    statuses: u64,
    blocks_sent: u64,
}

impl World {
    fn new(weather: Weather) -> Self {
        let config = Config { window: weather.window, ..Config::default() };
        Self {
            random: weather.seed | 1,
            weather,
            ring: Ring::new([0; 1600]),
            uplink: Uplink::new(config, BOOT),
            flying: Vec::new(),
            epoch: 0,
            wanted: Seq(0),
            accepted: BTreeSet::new(),
            given_up: BTreeSet::new(),
            dropped: BTreeSet::new(),
            statuses: 0,
            blocks_sent: 0,
        }
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 8
    }

    fn held(&self) -> Held {
        Held { oldest: self.ring.oldest(), next: self.ring.next() }
    }

    fn fly(&mut self, now: u64, message: Message, calm: bool) {
        let copies = match (self.draw() % 1000, self.draw() % 1000) {
            _ if calm => 1,
            (loss, _) if loss < self.weather.loss => 0,
            (_, double) if double < self.weather.double => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = 1 + if calm { 0 } else { self.draw() % self.weather.delay_ms_max };
            self.flying.push((now + delay, self.epoch, message));
        }
    }

    fn seal(&mut self) {
        let oldest = self.ring.oldest();
        let mut lost = 0;
        let seq = self
            .ring
            .push(
                Channel::Raw(StreamId(0)),
                1,
                40,
                |seq, out| {
                    out[..4].copy_from_slice(&seq.0.to_le_bytes());
                    Some(30)
                },
                |_| lost += 1,
            )
            .unwrap();
        assert!(seq == self.ring.next().plus(u32::MAX));
        // Dropping what the gateway has already is no loss; the test keeps only what it has not.
        self.dropped
            .extend((0..lost).map(|index| oldest.plus(index).0).filter(|seq| !self.accepted.contains(seq)));
    }

    fn gateway(&mut self, now: u64, message: Message, calm: bool) {
        match message {
            Message::Block(seq) if seq == self.wanted => {
                self.accepted.insert(seq.0);
                self.wanted = seq.next();
            }
            Message::Block(seq) if self.wanted.precedes(seq) => return,
            Message::Block(_) => {}
            Message::Status { oldest } => {
                while self.wanted.precedes(oldest) {
                    self.given_up.insert(self.wanted.0);
                    self.wanted = self.wanted.next();
                }
            }
            Message::Ack(_) => unreachable!("acks fly the other way"),
        }
        self.fly(now, Message::Ack(self.wanted), calm);
    }

    fn board(&mut self, now: u64, calm: bool) {
        for _ in 0..100 {
            match self.uplink.next(self.held(), now) {
                Action::Connect => {
                    self.epoch += 1;
                    if calm || !self.draw().is_multiple_of(4) {
                        self.uplink.connected(now);
                    } else {
                        self.uplink.disconnected(now);
                    }
                }
                Action::Send(Item::Block(seq)) => {
                    let held = self.held();
                    if !seq.precedes(held.oldest) {
                        let (_, bytes) = self.ring.get(seq).unwrap();
                        assert_eq!(bytes[..4], seq.0.to_le_bytes());
                        assert!(seq.since(self.uplink.acked()) < self.weather.window, "stays in its window");
                        self.blocks_sent += 1;
                        self.fly(now, Message::Block(seq), calm);
                    }
                }
                Action::Send(Item::Status) => {
                    self.statuses += 1;
                    let oldest = self.ring.oldest();
                    self.fly(now, Message::Status { oldest }, calm);
                }
                Action::Send(Item::Birth | Item::Settings | Item::Time) => {}
                Action::Wait { until_ms } => {
                    assert!(until_ms > now, "never asks to be woken at once");
                    return;
                }
            }
        }
        panic!("100 actions at one moment");
    }

    fn run(&mut self) {
        let mut now = 0;
        let mut sealed = 0;
        let trouble_ends = 40_000;
        while now < 300_000 {
            let calm = now > trouble_ends;
            if sealed < self.weather.blocks && now % 50 == 0 {
                self.seal();
                sealed += 1;
            }
            if self.weather.breaks_every_ms > 0 && !calm && self.draw() % self.weather.breaks_every_ms < 5 {
                self.uplink.disconnected(now);
                self.epoch += 1;
            }
            let away = (self.weather.away.0..self.weather.away.1).contains(&now) && !calm;
            let arrived: Vec<_> = self.flying.extract_if(.., |(at, _, _)| *at <= now).collect();
            for (_, epoch, message) in arrived {
                match message {
                    // Acks of an earlier connection are gone with it; blocks may be under way in a broker.
                    Message::Ack(next) if epoch == self.epoch && self.uplink.is_up() => {
                        if let Some(next) = self.uplink.acknowledged(BOOT, next, self.held(), now) {
                            assert!(!self.wanted.precedes(next), "frees only what the gateway has");
                            self.ring.free_before(next, |_| ());
                        }
                    }
                    Message::Ack(_) => {}
                    other if !away => self.gateway(now, other, calm),
                    _ => {}
                }
            }
            self.board(now, calm);
            let settled = sealed == self.weather.blocks && self.ring.is_empty() && calm;
            if settled && self.wanted == self.ring.next() {
                return;
            }
            now += 5;
        }
        panic!(
            "does not come to rest: wanted {:?}, held {:?}, {:?}",
            self.wanted,
            self.held(),
            self.uplink.counters()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn every_block_is_accepted_once_in_order_or_was_dropped_and_announced(weather in weather()) {
        let mut world = World::new(weather);
        world.run();
        let all: BTreeSet<u32> = (0..world.weather.blocks).collect();
        let both: BTreeSet<u32> = world.accepted.union(&world.given_up).copied().collect();
        prop_assert_eq!(&both, &all, "each is accepted or given up");
        prop_assert!(world.accepted.is_disjoint(&world.given_up));
        prop_assert!(world.given_up.is_subset(&world.dropped), "nothing is given up that the ring still had");
    }
}

#[test]
fn over_a_good_link_nothing_is_sent_twice_and_little_besides_blocks() {
    let weather = Weather {
        seed: 1,
        loss: 0,
        double: 0,
        delay_ms_max: 20,
        breaks_every_ms: 0,
        away: (0, 0),
        blocks: 1000,
        window: 32,
    };
    let mut world = World::new(weather);
    // Delays within a step keep the order, as TCP does.
    world.weather.delay_ms_max = 1;
    world.run();
    assert_eq!((world.blocks_sent, world.uplink.counters().resent), (1000, 0));
    assert!(world.statuses < 10, "{}", world.statuses);
}

#[test]
fn acks_of_another_boot_or_beyond_what_was_sealed_free_nothing() {
    let mut uplink = Uplink::new(Config::default(), BOOT);
    let held = Held { oldest: Seq(0), next: Seq(5) };
    assert_eq!(uplink.next(held, 0), Action::Connect);
    uplink.connected(0);
    assert_eq!(uplink.acknowledged(BootId(8), Seq(3), held, 1), None);
    assert_eq!(uplink.acknowledged(BOOT, Seq(6), held, 1), None);
    assert_eq!(uplink.counters().acks_ignored, 2);
    assert_eq!(uplink.acknowledged(BOOT, Seq(5), held, 1), Some(Seq(5)));
    assert_eq!(uplink.acknowledged(BOOT, Seq(4), held, 1), None, "an old ack moves nothing back");
    assert_eq!(uplink.acked(), Seq(5));
}

#[test]
fn reconnecting_backs_off_with_jitter_and_starts_over_after_an_ack() {
    let mut uplink = Uplink::new(Config::default(), BOOT);
    let held = Held { oldest: Seq(0), next: Seq(1) };
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(uplink.next(held, now), Action::Connect);
        uplink.disconnected(now);
        let Action::Wait { until_ms } = uplink.next(held, now) else { panic!("waits before the next try") };
        waits.push(until_ms - now);
        now = until_ms;
    }
    assert!(waits[0] <= 250 && waits[11] >= 15_000 && waits.iter().all(|&wait| wait <= 30_000), "{waits:?}");
    assert_eq!(uplink.next(held, now), Action::Connect);
    uplink.connected(now);
    uplink.acknowledged(BOOT, Seq(1), held, now);
    uplink.disconnected(now);
    let Action::Wait { until_ms } = uplink.next(held, now) else { panic!("waits") };
    assert!(until_ms - now <= 250);
}
