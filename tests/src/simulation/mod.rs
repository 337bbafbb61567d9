//! Board and gateway against each other in virtual time: the firmware's ring, uplink and clock exchange, and the agent's session
//! with its state as the journal keeps it, over a network, a broker and a disk that misbehave. One seed decides everything, so
//! what fails once fails again: `tests/simulate --seed S --trace`.
//!
//! It must come out that each sample is in the journal exactly once with the bytes that the board made, or lies in a gap of
//! exactly its size for a reason; that nothing is acknowledged before it is committed; that the books agree; that memory is
//! bounded; and that all of it settles in bounded time once the faults have ended.

pub mod batch;
mod board;
mod broker;
mod event;
mod faults;
mod gateway;
mod ingest;
mod network;
mod oracle;
mod outcome;
mod random;
mod scenario;

use board::Board;
use broker::Broker;
use event::{Event, Timed};
use gateway::Gateway;
use oracle::Oracle;
pub use outcome::{Failure, Outcome};
use random::Random;
use scenario::{SECOND, Scenario};
use spindle_agent::journal::{BootState, ClockState, Key, NodeState, State, Stateful};
use spindle_agent::record::SensorKey;
use spindle_common::id::{BootId, Seq};
use std::collections::{BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Virtual time in which everything must have settled once the faults have ended.
const SETTLE: u64 = 400 * SECOND;
/// And for so long it is watched on, for the last statuses to come.
const WATCH: u64 = 45 * SECOND;
/// Events of a run, at most: more means that something goes round in circles.
const EVENTS_MAX: u64 = 3_000_000;
/// Lines of the trace that are kept.
const TRACE_MAX: usize = 2_000;
/// UTC ns at the start.
const EPOCH_NS: i64 = 1_800_000_000_000_000_000;

/// Plays a seed to its end.
///
/// # Errors
/// What did not hold; with `trace`, also what happened before.
pub fn run(seed: u64, trace: bool) -> Result<Outcome, Box<Failure>> {
    let mut random = Random::new(seed);
    let plan = Scenario::draw(&mut random);
    let shown = if trace { format!("{plan:?}") } else { String::new() };
    let fail = |reason, at, trace: VecDeque<String>| {
        Box::new(Failure { seed, reason, at, plan: shown.clone(), trace: trace.into() })
    };
    let mut world = World::new(plan, random, trace).map_err(|reason| fail(reason, 0, VecDeque::new()))?;
    // What is under test must not panic, whatever comes.
    match catch_unwind(AssertUnwindSafe(|| world.play())) {
        Ok(Ok(())) => Ok(world.outcome()),
        Ok(Err(reason)) => Err(fail(reason, world.now, world.trace)),
        Err(_) => Err(fail("panic".into(), world.now, world.trace)),
    }
}

struct World {
    plan: Scenario,
    random: Random,
    now: u64,
    events: BinaryHeap<Timed>,
    order: u64,
    played: u64,
    boards: Vec<Option<Board>>,
    links: Vec<network::Link>,
    /// Counts calls of each board, of the gateway: an older call is void.
    turns: Vec<u64>,
    gateway_turn: u64,
    boots: Vec<u32>,
    broker: Broker,
    gateway: Gateway,
    oracle: Oracle,
    weather: network::Weather,
    disk_fails_until: u64,
    connections: u64,
    /// Messages with a place that the session took, and records of such, in this run of the gateway.
    places: u64,
    stored: u64,
    twins: u64,
    /// Times that the session took something new of a boot after something of its twin.
    turns_taken: u64,
    last_boot: BootId,
    starts: u64,
    settled_at: Option<u64>,
    tracing: bool,
    trace: VecDeque<String>,
}

impl World {
    fn new(plan: Scenario, random: Random, tracing: bool) -> Result<Self, String> {
        let count = plan.boards.len();
        let mut random = random;
        let boots: Vec<BootId> = (0..count).map(|_| BootId(random.draw())).collect();
        // Years old boards are known to the gateway, as they are to theirs: that is how a sequence nears its wrap.
        let mut state = State::default();
        if plan.first_seq != 0 {
            for (place, node) in plan.boards.iter().enumerate() {
                add_known(&mut state, board::NODES[*node], boots[place], plan.first_seq);
            }
        }
        let mut world = Self {
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            played: 0,
            boards: (0..count).map(|_| None).collect(),
            links: vec![network::Link::default(); count],
            turns: vec![0; count],
            gateway_turn: 0,
            boots: vec![0; count],
            broker: Broker::new(plan.queue_max, plan.inflight_max),
            gateway: Gateway::new(&plan, &state, EPOCH_NS)?,
            oracle: Oracle { epoch_ns: EPOCH_NS, clocks_are_true: !plan.clocks_jump, ..Oracle::default() },
            weather: network::Weather::of(&plan),
            disk_fails_until: 0,
            connections: 0,
            places: 0,
            stored: 0,
            twins: 0,
            turns_taken: 0,
            last_boot: BootId(0),
            starts: 1,
            settled_at: None,
            tracing,
            trace: VecDeque::new(),
            plan,
            random,
        };
        for (place, boot) in boots.into_iter().enumerate() {
            let first = Seq(world.plan.first_seq);
            world.boot(place, boot, first);
        }
        world.after(0, Event::GatewayWake { run: 1, turn: 0 });
        world.after(0, Event::GatewayConnect { run: 1 });
        if world.plan.fault_every > 0 {
            world.after(world.plan.fault_every, Event::Fault);
        }
        world.after(5 * SECOND, Event::Command);
        Ok(world)
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.tracing {
            if self.trace.len() >= TRACE_MAX {
                self.trace.pop_front();
            }
            self.trace.push_back(format!("{:>10.3} ms  {}", self.now as f64 / 1e6, what()));
        }
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.events.push(Timed { at: self.now.saturating_add(delay), order: self.order, event });
    }

    fn is_calm(&self) -> bool {
        self.now >= self.plan.calm_at
    }

    fn play(&mut self) -> Result<(), String> {
        let mut calm = false;
        while let Some(Timed { at, event, .. }) = self.events.pop() {
            self.played += 1;
            if self.played > EVENTS_MAX {
                return Err("goes round in circles".into());
            }
            let passed = at.saturating_sub(self.now);
            self.now = at;
            self.gateway.clock.advance(std::time::Duration::from_nanos(passed));
            if !calm && self.is_calm() {
                calm = true;
                self.calm_down()?;
            }
            self.happen(event)?;
            if !calm {
                continue;
            }
            match self.settled_at {
                None if self.is_at_rest() => self.settled_at = Some(self.now),
                None if self.now > self.plan.calm_at + SETTLE => return Err(self.unsettled()),
                Some(since) if self.now > since + WATCH && self.is_at_rest() => return self.judge(),
                Some(since) if self.now > since + WATCH + SETTLE => return Err(self.unsettled()),
                _ => {}
            }
        }
        Err("nothing happens any more".into())
    }

    fn is_at_rest(&self) -> bool {
        self.boards.iter().all(Option::is_some)
            && self.oracle.is_settled(&self.boards)
            && self.gateway.commit.is_none()
            && self.gateway.inbox.is_empty()
            && self.gateway.metrics.session.held.get() == 0
    }

    fn unsettled(&self) -> String {
        let held = self.boards.iter().flatten().map(|board| (board.held(), board.is_up()));
        let held: Vec<_> = held.collect();
        format!("not settled: rings hold {held:?}, gateway {:?}", self.gateway.metrics.session)
    }

    fn judge(&self) -> Result<(), String> {
        let Some(session) = self.gateway.session() else { return Err("gateway is down".into()) };
        self.oracle.settled(&self.boards, &session.snapshot())?;
        let metrics = &self.gateway.metrics.session;
        let counted =
            self.stored + metrics.duplicates.get() + metrics.held_dropped.get() + metrics.before_birth.get();
        // A message of a node that is not known yet counts there whether it has a place or not.
        if counted < self.places || metrics.before_birth.get() == 0 && counted != self.places {
            return Err(format!("{} messages came, {counted} are counted", self.places));
        }
        if !self.plan.twins && self.twins() > 0 {
            return Err("two boards with one id are named where there are none".into());
        }
        Ok(())
    }

    fn twins(&self) -> u64 {
        self.twins + self.gateway.metrics.session.twins.get()
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            events: self.played,
            records: self.oracle.records,
            gap_samples: self.oracle.gap_samples,
            late: self.oracle.late,
            duplicates: self.gateway.metrics.session.duplicates.get(),
            starts: self.starts,
            unflagged: self.oracle.unflagged,
            twins: self.twins(),
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Wake { board, turn } if self.turns[board] == turn => self.poll(board),
            Event::Seal { board, boot, stream } => self.seal(board, boot, stream),
            Event::GatewayWake { run, turn } if self.gateway.run == run && self.gateway_turn == turn => {
                self.work()
            }
            Event::CommitEnd { run } if self.gateway.run == run => self.commit_end(),
            Event::Wake { .. } | Event::GatewayWake { .. } | Event::CommitEnd { .. } => Ok(()),
            Event::GatewayStart => self.start_gateway(),
            Event::BoardStart { board } => {
                let boot = BootId(self.random.draw());
                self.boot(board, boot, Seq(0));
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Command => self.command(),
            other => self.carry(other),
        }
    }

    fn boot(&mut self, place: usize, boot: BootId, first: Seq) {
        let node = self.plan.boards[place];
        let mut board = Board::new(&self.plan, place, boot, first, self.now, &mut self.random);
        if self.plan.clocks_jump && self.random.chance(300) {
            board.off_ns = self.wild_ns();
        }
        self.say(|| format!("board {place} starts as {:x}", boot.0));
        self.oracle.booted(boot.0, node, first);
        self.boots[place] += 1;
        self.starts += 1;
        if !self.is_calm() {
            for stream in 0..self.plan.streams as u8 {
                let period = board.period(stream);
                let first = self.random.between(period / 2, period + period / 2);
                self.after(first, Event::Seal { board: place, boot, stream });
            }
        }
        self.boards[place] = Some(board);
        self.wake(place, 0);
    }

    fn wake(&mut self, board: usize, delay: u64) {
        self.turns[board] += 1;
        let turn = self.turns[board];
        self.after(delay, Event::Wake { board, turn });
    }

    fn seal(&mut self, place: usize, boot: BootId, stream: u8) -> Result<(), String> {
        let Some(board) = self.boards[place].as_mut().filter(|board| board.boot == boot) else {
            return Ok(());
        };
        if self.now >= self.plan.calm_at {
            return Ok(());
        }
        // What a boot loses before its first block is known by that block: the birth that tells of its streams may be lost.
        let has_place = board.has_sealed(stream) || self.now + board.period(stream) < self.plan.calm_at;
        if self.random.chance(10) && has_place {
            let count = self.random.between(1, 500);
            let lost = board.overrun(stream, count);
            self.oracle.overrun(boot.0, stream, lost);
        } else {
            let made = board.seal(stream, self.now, &mut self.random);
            self.oracle.sealed(boot.0, made, board.held())?;
        }
        let period = board.period(stream);
        self.after(period, Event::Seal { board: place, boot, stream });
        self.poll(place)
    }
}

/// Adds a boot that the gateway has known for long.
fn add_known(state: &mut State, name: &str, boot: BootId, next: u32) {
    let boot = BootState {
        boot: boot.0,
        next,
        closed: false,
        given_up: Vec::new(),
        streams: Vec::new(),
        clock: ClockState::default(),
    };
    let key = SensorKey { site: "hall".into(), machine: "mill".into(), sensor: name.into() };
    match state.nodes.iter_mut().find(|node| *node.key.0 == key) {
        Some(node) => node.boots.push(boot),
        None => state.nodes.push(NodeState { key: Key(Arc::new(key)), boots: vec![boot] }),
    }
}
