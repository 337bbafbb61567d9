//! A node's time by exchange with the gateway, over links that delay, through the gateway's own fit; all in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use spindle_common::id::BootId;
use spindle_common::time::{ClockFit, Pair};
use spindle_common::wire::TimeTell;
use spindle_firmware::acquire::SampleClock;
use spindle_firmware::clock::{Exchange, TICK_HZ, UtcSource};

const BOOT: BootId = BootId(3);
const START_NS: i64 = 1_800_000_000_000_000_000;

/// A link's delay, one way, µs: least and most, drawn evenly but for a few that take far longer.
#[derive(Clone, Copy)]
struct Delay {
    there: (u64, u64),
    back: (u64, u64),
}

const LAN: Delay = Delay { there: (200, 700), back: (200, 700) };
const JITTER: Delay = Delay { there: (200, 20_000), back: (200, 20_000) };
const LOPSIDED: Delay = Delay { there: (4_000, 12_000), back: (200, 1_000) };

struct World {
    /// How much longer than nominal the node's ticks are.
    drift: f64,
    delay: Delay,
    random: u64,
    /// Steps of the gateway's clock: from this second on, by so many ns.
    step: (f64, i64),
    exchange: Exchange,
    fit: ClockFit,
    /// True seconds since the start.
    now: f64,
    worst_bound_ns: i64,
}

impl World {
    fn new(drift: f64, delay: Delay, step: (f64, i64)) -> Self {
        let mut exchange = Exchange::new(BOOT);
        exchange.connected(0);
        Self {
            drift,
            delay,
            random: 88_172_645_463_325_252,
            step,
            exchange,
            fit: ClockFit::new(TICK_HZ),
            now: 0.0,
            worst_bound_ns: 0,
        }
    }

    fn draw(&mut self, (least, most): (u64, u64)) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let late = if self.random >> 40 & 15 == 0 { 3 } else { 1 };
        (least + self.random % (most - least)) as f64 * 1e-6 * late as f64
    }

    fn tick(&self, seconds: f64) -> u64 {
        (seconds * f64::from(TICK_HZ) / (1.0 + self.drift)) as u64
    }

    fn utc_ns(&self, seconds: f64) -> i64 {
        let stepped = if seconds >= self.step.0 { self.step.1 } else { 0 };
        START_NS + (seconds * 1e9) as i64 + stepped
    }

    fn run_until(&mut self, end: f64) {
        while self.now < end {
            let due = self.exchange.due() as f64 * (1.0 + self.drift) / f64::from(TICK_HZ);
            if due.max(self.now + 1e-5) > end {
                self.now = end;
                return;
            }
            self.now = due.max(self.now + 1e-5);
            let Some(ask) = self.exchange.poll(self.tick(self.now)) else { continue };
            let received = self.now + self.draw(self.delay.there);
            let sent = received + 150e-6;
            let back = sent + self.draw(self.delay.back);
            let tell = TimeTell {
                node: "n",
                boot: BOOT,
                id: ask.id,
                tick: ask.tick,
                received_ns: self.utc_ns(received),
                sent_ns: self.utc_ns(sent),
                error_ns: 1_000,
            };
            self.now = back;
            if self.exchange.told(&tell, self.tick(back)) {
                let pair = self.exchange.pair().unwrap();
                let truth = self.utc_ns(pair.tick as f64 * (1.0 + self.drift) / f64::from(TICK_HZ));
                // A pair of ticks that drift is bounded over the time that it took.
                let bound = i64::from(pair.error_ns) + 10_000;
                assert!((pair.utc_ns - truth).abs() <= bound, "{} over {bound}", pair.utc_ns - truth);
                self.worst_bound_ns = self.worst_bound_ns.max(bound);
                self.fit.add(Pair { tick: pair.tick, utc_ns: pair.utc_ns, error_ns: pair.error_ns });
            }
        }
    }

    /// How far the fit is off now, ns.
    fn error_ns(&self) -> i64 {
        (self.fit.utc_ns(self.tick(self.now)).unwrap() - self.utc_ns(self.now)).abs()
    }
}

#[test]
fn over_a_lan_a_drifting_clock_is_known_within_a_millisecond_from_the_second_minute_on() {
    for drift in [0.0, 200e-6, -200e-6, 35e-6] {
        let mut world = World::new(drift, LAN, (f64::MAX, 0));
        world.run_until(120.0);
        for minute in 3..40 {
            world.run_until(f64::from(minute) * 60.0 + 17.0);
            assert!(world.error_ns() < 1_000_000, "{drift}, minute {minute}: {} ns", world.error_ns());
        }
    }
}

#[test]
fn over_a_link_that_jitters_or_is_lopsided_the_error_stays_within_the_bound() {
    for delay in [JITTER, LOPSIDED] {
        for drift in [200e-6, -200e-6] {
            let mut world = World::new(drift, delay, (f64::MAX, 0));
            world.run_until(300.0);
            for minute in 6..40 {
                world.run_until(f64::from(minute) * 60.0);
                assert!(world.error_ns() <= world.worst_bound_ns, "{} ns", world.error_ns());
            }
        }
    }
}

#[test]
fn a_clock_that_is_set_by_hours_is_followed_after_three_pairs() {
    for hours in [3i64, -3] {
        let mut world = World::new(50e-6, LAN, (600.0, hours * 3_600_000_000_000));
        world.run_until(599.0);
        assert!(world.error_ns() < 1_000_000);
        world.run_until(600.0 + 3.5 * 30.0 + 5.0);
        assert!(world.error_ns() < 5_000_000, "{hours}: {} ns", world.error_ns());
        world.run_until(1_500.0);
        assert!(world.error_ns() < 1_000_000, "{hours}: {} ns", world.error_ns());
    }
}

#[test]
fn after_ten_minutes_the_sensors_true_rate_is_known_to_ten_ppm_whatever_the_nodes_crystal() {
    for (drift, delay) in [(200e-6, LAN), (-200e-6, LAN), (30e-6, LAN), (120e-6, JITTER)] {
        let mut world = World::new(drift, delay, (f64::MAX, 0));
        let rate = 26_667.0 * 1.0123;
        let mut clock = SampleClock::new(26_666_667);
        let mut read_at = 0.0;
        while read_at < 600.0 {
            // A read every 9.6 ms, delayed by up to 3 ms.
            read_at += 0.0096 + world.draw((0, 3_000));
            clock.observe((read_at * rate) as u64, world.tick(read_at));
            world.run_until(read_at.min(600.0));
        }
        let by_ticks = f64::from(clock.rate_mhz()) / 1000.0;
        let known = by_ticks / (1.0 + world.fit.drift());
        let off = known / rate - 1.0;
        assert!(off.abs() < 10e-6, "{drift}: {:.2} ppm", off * 1e6);
    }
}
