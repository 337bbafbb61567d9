//! What goes wrong, and the end of it.

use super::scenario::{SECOND, Way};
use super::{Event, World};
use spindle_agent::session::report::Order;

/// Boots that a node may have: as many as the gateway remembers.
const BOOTS_MAX: u32 = 4;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.is_calm() {
            return Ok(());
        }
        let next = self.random.between(1, self.plan.fault_every * 2);
        self.after(next, Event::Fault);
        let place = self.random.between(0, self.plan.boards.len() as u64 - 1) as usize;
        match self.random.between(0, 11) {
            0 => self.cut(place),
            1 => self.go_half_open(place, 0),
            2 => self.go_half_open(place, 1),
            3 | 4 => self.crash(),
            5 => self.stop_broker(true),
            6 => self.stop_broker(false),
            7 if self.may_boot(place) => self.reboot(place),
            8 => {
                self.broker.connection = None;
                Ok(())
            }
            9 => {
                let away = self.random.scaled(SECOND, 30 * SECOND);
                self.links[place].away_until = self.now + away;
                self.say(|| format!("board {place} is away for {} ms", away / 1_000_000));
                self.cut(place)
            }
            10 if self.plan.clocks_jump => {
                self.jump(place);
                Ok(())
            }
            11 => {
                self.disk_fails_until = self.now + self.random.scaled(SECOND / 10, 20 * SECOND);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn may_boot(&self, place: usize) -> bool {
        let node = self.plan.boards[place];
        let boots =
            self.plan.boards.iter().zip(&self.boots).filter(|(of, _)| **of == node).map(|(_, boots)| boots);
        boots.sum::<u32>() < BOOTS_MAX
    }

    /// A step of hours or minutes, either way.
    pub(super) fn wild_ns(&mut self) -> i64 {
        let size = self.random.scaled(SECOND, 20_000 * SECOND) as i64;
        if self.random.chance(500) { size } else { -size }
    }

    fn jump(&mut self, place: usize) {
        let by_ns = self.wild_ns();
        if self.random.chance(500) {
            let utc_ns = self.gateway.clock.now().utc_ns;
            self.gateway.clock.set_utc(utc_ns + by_ns);
            self.say(|| format!("the gateway's clock jumps by {} ms", by_ns / 1_000_000));
        } else if let Some(board) = &mut self.boards[place] {
            board.off_ns = by_ns;
            self.say(|| format!("board {place}'s UTC is off by {} ms", by_ns / 1_000_000));
        }
    }

    fn cut(&mut self, place: usize) -> Result<(), String> {
        if self.links[place].up {
            self.say(|| format!("board {place} is cut"));
            let link = self.links[place].number;
            return self.lose(place, link);
        }
        Ok(())
    }

    /// Nothing gets through one way or both, and the ends find out late.
    fn go_half_open(&mut self, place: usize, way: u64) -> Result<(), String> {
        let link = &mut self.links[place];
        if !link.up {
            return Ok(());
        }
        let both = self.random.chance(300);
        link.dead_up |= way == 0 || both;
        link.dead_down |= way == 1 || both;
        let (number, noticed) = (link.number, self.random.between(SECOND, 15 * SECOND));
        self.say(|| format!("board {place}'s link is half-open"));
        self.after(noticed, Event::LinkLost { board: place, link: number });
        Ok(())
    }

    fn crash(&mut self) -> Result<(), String> {
        if self.gateway.session().is_none() {
            return Ok(());
        }
        // What was on its way to the disk is there or not.
        if self.gateway.commit.is_some() && self.now >= self.disk_fails_until && self.random.chance(500) {
            self.write_down()?;
        }
        self.say(|| "gateway is killed".into());
        self.twins += self.gateway.metrics.session.twins.get();
        self.gateway.crash();
        self.broker.connection = None;
        let down = self.random.scaled(SECOND / 10, 20 * SECOND);
        self.after(down, Event::GatewayStart);
        Ok(())
    }

    fn stop_broker(&mut self, forgets: bool) -> Result<(), String> {
        if self.plan.way != Way::Broker || !self.broker.up {
            return Ok(());
        }
        self.say(|| format!("broker stops{}", if forgets { " and forgets" } else { "" }));
        self.broker.stop(forgets);
        for place in 0..self.links.len() {
            self.cut(place)?;
        }
        let down = self.random.scaled(SECOND / 10, 10 * SECOND);
        self.after(down, Event::BrokerStart);
        Ok(())
    }

    /// An order to a node now and then: it must be in nobody's way.
    pub(super) fn command(&mut self) -> Result<(), String> {
        if self.is_calm() {
            return Ok(());
        }
        let next = self.random.between(SECOND, 10 * SECOND);
        self.after(next, Event::Command);
        let place = self.random.between(0, self.plan.boards.len() as u64 - 1) as usize;
        let order = match self.random.between(0, 9) {
            0 if self.may_boot(place) && !self.plan.twins => Order::Reboot,
            1..=3 => Order::Identify,
            4 => Order::SelfTest { stream: 9 },
            _ => Order::Report,
        };
        let name = super::board::NODES[self.plan.boards[place]];
        let now = self.gateway.clock.now();
        let sent = self.gateway.session_mut().map(|session| session.order(name, &order, now));
        if let Some(Ok((_, message))) = sent {
            self.carry_to_node(&message);
        }
        Ok(())
    }

    /// All faults end: what is down starts, what is broken is whole.
    pub(super) fn calm_down(&mut self) -> Result<(), String> {
        self.say(|| "calm".into());
        self.weather.loss = 0;
        self.weather.repeats = 0;
        self.disk_fails_until = 0;
        self.broker.up = true;
        for place in 0..self.links.len() {
            self.links[place].away_until = 0;
            if self.links[place].dead_up || self.links[place].dead_down {
                self.cut(place)?;
            }
        }
        self.start_gateway()
    }
}
