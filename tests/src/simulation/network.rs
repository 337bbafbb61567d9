//! Ways between boards, broker and gateway, and what the weather does to messages on them.

use super::scenario::{MS, SECOND, Scenario, Way};
use super::{Event, World, board};
use board::{NODES, SENSORS};
use bytes::Bytes;
use spindle_agent::session::ToNode;
use spindle_agent::source::{Incoming, SourceId, Token};
use spindle_common::wire::{self, Message};
use spindle_firmware::transport::Channel;

/// Messages that a source lets wait for the session.
const INBOX_MAX: usize = 2048;

/// A board's link.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    /// Counts connections.
    pub(super) number: u64,
    pub(super) up: bool,
    /// Nothing gets through this way any more, and nobody says so.
    pub(super) dead_up: bool,
    pub(super) dead_down: bool,
    /// No connection can be made before.
    pub(super) away_until: u64,
    last_up: u64,
    last_down: u64,
}

/// What may become of messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: u64,
    pub(super) repeats: u64,
    reorders: bool,
    delay: (u64, u64),
}

impl Weather {
    pub(super) const fn of(plan: &Scenario) -> Self {
        Self { loss: plan.loss, repeats: plan.repeats, reorders: plan.reorders, delay: plan.delay }
    }
}

impl World {
    /// Lets a board do what it wants to.
    pub(super) fn poll(&mut self, place: usize) -> Result<(), String> {
        let utc_ns = super::EPOCH_NS + self.now as i64;
        let Some(board) = &mut self.boards[place] else { return Ok(()) };
        match board.turn(self.now, utc_ns) {
            board::Want::Connect => {
                self.links[place].number += 1;
                let link = self.links[place].number;
                let reachable = self.now >= self.links[place].away_until
                    && (self.plan.way == Way::Line || self.broker.up);
                let delay = self.random.between(self.weather.delay.0, self.weather.delay.1) * 2;
                if reachable {
                    self.after(delay, Event::Connected { board: place, link });
                } else {
                    self.after(delay + 500 * MS, Event::ConnectFailed { board: place, link });
                }
            }
            board::Want::Send(channel, payload) => {
                let node = self.plan.boards[place];
                let topic = topic(node, channel);
                self.say(|| format!("board {place} sends {}", told(&payload)));
                self.send_up(place, &topic, &payload);
                // The link takes one at a time.
                self.wake(place, self.plan.send_ns);
            }
            board::Want::Wait(until) => {
                let until = until.min(self.now + SECOND);
                self.wake(place, until.saturating_sub(self.now).max(1_000));
            }
        }
        Ok(())
    }

    /// When a message arrives, if it does, by the weather: none, one or more times.
    fn arrivals(&mut self, last: u64) -> ([Option<u64>; 2], u64) {
        let mut times = [None, None];
        let mut newest = last;
        if self.random.chance(self.weather.loss) {
            return (times, last);
        }
        let count = if self.random.chance(self.weather.repeats) { 2 } else { 1 };
        for time in times.iter_mut().take(count) {
            let mut at = self.now + self.random.between(self.weather.delay.0, self.weather.delay.1);
            if !self.weather.reorders {
                at = at.max(newest + 1);
            }
            newest = newest.max(at);
            *time = Some(at);
        }
        (times, newest)
    }

    fn send_up(&mut self, place: usize, topic: &str, payload: &[u8]) {
        if self.links[place].dead_up {
            return;
        }
        let (times, newest) = self.arrivals(self.links[place].last_up);
        self.links[place].last_up = newest;
        let link = self.links[place].number;
        for at in times.into_iter().flatten() {
            let event = Event::Up { board: place, link, topic: topic.into(), payload: payload.to_vec() };
            self.after(at - self.now, event);
        }
    }

    fn send_down(&mut self, place: usize, payload: &[u8]) {
        if !self.links[place].up || self.links[place].dead_down {
            return;
        }
        let (times, newest) = self.arrivals(self.links[place].last_down);
        self.links[place].last_down = newest;
        let link = self.links[place].number;
        for at in times.into_iter().flatten() {
            self.after(at - self.now, Event::Down { board: place, link, payload: payload.to_vec() });
        }
    }

    /// A message, a connection or an acknowledgement comes through.
    pub(super) fn carry(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Connected { board, link } => self.connected(board, link),
            Event::ConnectFailed { board, link } | Event::LinkLost { board, link } => self.lose(board, link),
            Event::Up { board, link, topic, payload } => {
                // What was under way when a connection broke is gone, but for networks that hold things back.
                let now = &self.links[board];
                if self.weather.reorders || now.number == link && now.up {
                    self.arrive(board, topic, payload);
                }
                Ok(())
            }
            Event::Down { board, link, payload } => self.hear(board, link, &payload),
            Event::Taken { connection, packet, message } => {
                if self.broker.connection == Some(connection) && self.gateway.session().is_some() {
                    let token = Token { source: SourceId(0), connection, packet: packet as u16 };
                    self.take(Incoming {
                        source: SourceId(0),
                        topic: Some(message.topic),
                        payload: message.payload,
                        redelivered: message.redelivered,
                        token: Some(token),
                    });
                }
                Ok(())
            }
            Event::Released { connection, packets } => {
                for packet in packets {
                    self.broker.acknowledged(connection, packet);
                }
                self.pump();
                Ok(())
            }
            Event::GatewayConnect { run } => {
                if run == self.gateway.run && self.gateway.session().is_some() && self.plan.way == Way::Broker
                {
                    if self.broker.up && self.broker.connection.is_none() {
                        self.connections += 1;
                        self.broker.connect(self.connections);
                        self.say(|| "gateway connects to the broker".into());
                        self.pump();
                    }
                    self.after(SECOND, Event::GatewayConnect { run });
                }
                Ok(())
            }
            Event::BrokerStart => {
                self.broker.up = true;
                self.say(|| "broker starts".into());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn connected(&mut self, place: usize, link: u64) -> Result<(), String> {
        if self.links[place].number != link || self.boards[place].is_none() {
            return Ok(());
        }
        if self.now < self.links[place].away_until || self.plan.way == Way::Broker && !self.broker.up {
            return self.lose(place, link);
        }
        let state = &mut self.links[place];
        (state.up, state.dead_up, state.dead_down) = (true, false, false);
        if self.plan.way == Way::Broker {
            // One name, one connection: the broker ends the older one.
            for other in 0..self.links.len() {
                if other != place
                    && self.plan.boards[other] == self.plan.boards[place]
                    && self.links[other].up
                {
                    let link = self.links[other].number;
                    self.after(MS, Event::LinkLost { board: other, link });
                }
            }
        }
        self.say(|| format!("board {place} is connected"));
        if let Some(board) = &mut self.boards[place] {
            board.connected(self.now);
        }
        self.poll(place)
    }

    pub(super) fn lose(&mut self, place: usize, link: u64) -> Result<(), String> {
        if self.links[place].number != link {
            return Ok(());
        }
        self.links[place].up = false;
        self.links[place].number += 1;
        self.say(|| format!("board {place} has no link"));
        if let Some(board) = &mut self.boards[place] {
            board.disconnected(self.now);
        }
        self.poll(place)
    }

    fn arrive(&mut self, place: usize, topic: String, payload: Vec<u8>) {
        match self.plan.way {
            Way::Broker if self.broker.up => {
                self.broker.publish(Bytes::from(topic), payload.into());
                self.pump();
            }
            Way::Broker => {}
            Way::Line if self.gateway.session().is_some() => {
                let source = SourceId(place as u16 + 1);
                let incoming = Incoming {
                    source,
                    topic: None,
                    payload: payload.into(),
                    redelivered: false,
                    token: None,
                };
                self.take(incoming);
            }
            Way::Line => {}
        }
    }

    /// Lets the broker send what it may.
    pub(super) fn pump(&mut self) {
        let Some(connection) = self.broker.connection else { return };
        while let Some((packet, message)) = self.broker.next() {
            // In order, as TCP keeps it.
            self.after(200_000, Event::Taken { connection, packet, message });
        }
    }

    /// A source of the gateway has read a message.
    fn take(&mut self, incoming: Incoming) {
        let received_ns = self.gateway.clock.now().utc_ns;
        if let Some(answer) =
            self.gateway.teller.answer(incoming.topic.as_deref(), &incoming.payload, received_ns)
        {
            let message = spindle_agent::session::ToNode { source: incoming.source, message: answer };
            self.carry_to_node(&message);
            if let Some(token) = incoming.token {
                self.release(vec![token], Vec::new());
            }
            return;
        }
        // A full line loses; a broker is never allowed so many.
        if self.gateway.inbox.len() < INBOX_MAX {
            self.gateway.inbox.push_back(incoming);
        }
        if self.gateway.commit.is_none() {
            self.nudge(0);
        }
    }

    pub(super) fn release(&mut self, tokens: Vec<Token>, to_nodes: Vec<ToNode>) {
        if let Some(connection) = self.broker.connection {
            let ours = tokens.iter().filter(|token| token.connection == connection);
            let packets: Vec<u16> = ours.map(|token| token.packet).collect();
            if !packets.is_empty() {
                self.after(200_000, Event::Released { connection, packets });
            }
        }
        for to_node in to_nodes {
            self.carry_to_node(&to_node);
        }
    }

    /// A message for a node goes out by its source.
    pub(super) fn carry_to_node(&mut self, to_node: &ToNode) {
        self.say(|| {
            format!("gateway sends {} by source {}", told(&to_node.message.payload), to_node.source.0)
        });
        let payload = to_node.message.payload.clone();
        if to_node.source.0 == 0 {
            if self.broker.connection.is_none() {
                return;
            }
            let name = to_node.message.topic.split('/').nth(4).unwrap_or_default().to_owned();
            for place in 0..self.plan.boards.len() {
                if NODES[self.plan.boards[place]] == name {
                    self.send_down(place, &payload);
                }
            }
        } else if usize::from(to_node.source.0) <= self.plan.boards.len() {
            self.send_down(usize::from(to_node.source.0) - 1, &payload);
        }
    }

    fn hear(&mut self, place: usize, link: u64, payload: &[u8]) -> Result<(), String> {
        if self.links[place].number != link {
            return Ok(());
        }
        let Some(board) = &mut self.boards[place] else { return Ok(()) };
        let restart = board.hear(payload, self.now);
        let (boot, held) = (board.boot, board.held());
        self.say(|| format!("board {place} hears {}", told(payload)));
        self.oracle.freed(boot.0, held)?;
        if restart { self.reboot(place) } else { self.poll(place) }
    }

    /// A board goes down with its memory, and starts again.
    pub(super) fn reboot(&mut self, place: usize) -> Result<(), String> {
        let Some(board) = self.boards[place].take() else { return Ok(()) };
        self.say(|| format!("board {place} restarts"));
        self.oracle.died(board.boot.0);
        self.links[place].up = false;
        self.links[place].number += 1;
        let delay = self.random.between(100 * MS, 2 * SECOND);
        self.after(delay, Event::BoardStart { board: place });
        Ok(())
    }
}

fn topic(node: usize, channel: Channel) -> String {
    let sensor = |stream: usize| SENSORS[node].get(stream).copied().unwrap_or_default();
    let name = channel.stream().map_or(NODES[node], |stream| sensor(usize::from(stream.0)));
    let last = match channel {
        Channel::Raw(_) => "raw",
        Channel::Features(_) => "features",
        Channel::Burst(_) => "burst",
        Channel::Birth => "birth",
        Channel::Status => "status",
        Channel::Time => "time",
        Channel::Answer => "answer",
        Channel::Settings => "settings",
        Channel::TimeAsk => "timeask",
    };
    format!("spindle/v1/hall/mill/{name}/{last}")
}

fn told(payload: &[u8]) -> String {
    wire::decode(payload).map_or_else(|error| error.to_string(), |message| described(&message))
}

pub(super) fn described(message: &Message<'_>) -> String {
    match message {
        Message::Block(block) => {
            let header = &block.header;
            format!(
                "block {:x} seq {} stream {} from {} covers {}",
                header.boot.0,
                header.seq.0,
                header.stream.0,
                header.first_sample,
                header.covered()
            )
        }
        Message::Features(features) => {
            format!(
                "features {:x} seq {} stream {} from {} covers {}",
                features.boot.0, features.seq.0, features.stream.0, features.first_sample, features.samples
            )
        }
        Message::Burst(burst) => {
            format!("burst {:x} seq {}", burst.block.header.boot.0, burst.block.header.seq.0)
        }
        Message::Status(status) => {
            let taken: Vec<u64> = status.streams.iter().map(|stream| stream.taken).collect();
            format!(
                "status {:x} oldest {} next {} taken {taken:?}",
                status.boot.0, status.oldest.0, status.next.0
            )
        }
        Message::Ack(ack) => format!("ack {:x} next {}", ack.boot.0, ack.next.0),
        Message::Birth(birth) => format!("birth {:x}", birth.boot.0),
        Message::TimePair(pair) => {
            format!("time {:x} tick {} utc {} error {}", pair.boot.0, pair.tick, pair.utc_ns, pair.error_ns)
        }
        other => format!("{other:?}").chars().take(100).collect(),
    }
}
