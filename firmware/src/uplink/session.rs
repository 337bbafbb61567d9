//! The shell around the uplink's state machine: one task that owns the transport.

use super::{Action, Item, Uplink};
use crate::clock::{TICK_HZ, Timebase, UtcSource};
use crate::command;
use crate::log::log;
use crate::node::{AxesSent, Change, Node, PendingAnswer};
use crate::reduce::Governor;
use crate::settings::{self, Store};
use crate::supervise::{Supervisor, TaskId};
use crate::transport::{Channel, Link, Transport};
use core::pin::pin;
use embassy_futures::select::{Either, Either4, select, select4};
use embassy_futures::{poll_once, yield_now};
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::{Duration, Instant, Timer, with_timeout};
use spindle_common::wire::{self, Message, STREAMS_MAX, decode};

/// Longest message from the gateway: settings of eight streams, each field at its longest.
pub const INBOX_LEN: usize = {
    let names_and_numbers = 2 + 33 + 5 + 4;
    let trigger = 4 + 5 + 3 + 3 + 3;
    let stream = 1 + 1 + 1 + 1 + 3 + 1 + 3 + trigger;
    names_and_numbers + (5 + 3 + 3 + 1 + STREAMS_MAX * stream)
};

/// A send or connect that takes longer, in seconds, counts as a lost link.
const LINK_TIMEOUT_S: u32 = 10;

/// Messages sent between two looks at what came in, while the transport takes all at once.
const SENDS_PER_LOOK: u32 = 8;

/// Longest sleep, so that the task checks in with the supervisor.
const SLEEP_MS_MAX: u64 = 1_000;

/// Why the session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The gateway asked for a restart and has been answered.
    Reboot,
    /// The node was told to leave, and has said goodbye.
    Left,
}

/// The uplink's task. `scratch` holds one outgoing message: as large as the largest block.
pub struct Session<'t, 'a, M: RawMutex, B, const BLOCKS: usize, T> {
    /// The node.
    pub node: &'t Node<'a, M, B, BLOCKS>,
    /// The node's tick counter.
    pub time: &'t T,
    /// Room for one outgoing message.
    pub scratch: &'t mut [u8],
    /// Roll call, and this task's place in it.
    pub supervisor: Option<(&'t Supervisor, TaskId)>,
}

enum Lost {
    Link,
    Wanted(Exit),
}

/// What to do next on a link: see [`Session::turn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Send so many bytes of the scratch there.
    Send(Channel, usize),
    /// What was to be sent is gone: take the next turn.
    Skip,
    /// Nothing until then (ms), or until something happens.
    Wait(u64),
}

impl Turn {
    /// A message that was encoded; one that could not be is passed over, as its settings were checked before.
    fn of(channel: Channel, len: Option<usize>) -> Self {
        len.map_or(Self::Skip, |len| Self::Send(channel, len))
    }
}

/// What a message of the gateway asks for: see [`Session::hear`].
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "passed on at once, never kept")]
pub enum Heard<'m> {
    /// Nothing more.
    Done,
    /// A restart.
    Restart,
    /// Other settings.
    Settings(wire::Set<'m>),
}

impl<M, B, const BLOCKS: usize, T> Session<'_, '_, M, B, BLOCKS, T>
where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
    T: Timebase,
{
    /// Connects, sends and connects again, until the gateway asks for a restart or the node is told to leave.
    pub async fn run<X: Transport>(
        &mut self,
        uplink: &mut Uplink,
        transport: &mut X,
        utc: &mut impl UtcSource,
        store: &mut impl Store,
    ) -> Exit {
        let mut governor = Governor::new();
        loop {
            self.check_in();
            self.node.note_uplink(uplink.counters(), false);
            self.govern(uplink, &mut governor, now_ms());
            if self.node.leaving.signaled() {
                return Exit::Left;
            }
            match uplink.next(self.node.held(), now_ms()) {
                Action::Connect => {
                    let Some(Ok(mut link)) = within_limit(self.supervisor, transport.open()).await else {
                        log!(warn, "no link");
                        uplink.disconnected(now_ms());
                        continue;
                    };
                    log!(info, "link up");
                    uplink.connected(now_ms());
                    if let Some(exchange) = utc.exchange() {
                        exchange.connected(self.time.now());
                    }
                    let lost = self.talk(uplink, &mut link, utc, store, &mut governor).await;
                    self.node.count_inbox_dropped(link.dropped());
                    log!(warn, "link left, {} connections so far", uplink.counters().connects);
                    uplink.disconnected(now_ms());
                    if let Some(exchange) = utc.exchange() {
                        exchange.disconnected();
                    }
                    if let Lost::Wanted(exit) = lost {
                        while let Ok(answer) = self.node.answers.try_receive() {
                            let _ = within_limit(self.supervisor, self.answer(&mut link, &answer)).await;
                        }
                        // Best effort: a link that does not take a goodbye is dropped without one.
                        let _ = within_limit(self.supervisor, link.close()).await;
                        return exit;
                    }
                }
                Action::Wait { until_ms } => sleep_until(until_ms).await,
                // Only a connected uplink sends.
                Action::Send(_) => uplink.disconnected(now_ms()),
            }
        }
    }

    /// Sends and receives on one link until it is lost.
    async fn talk<L: Link>(
        &mut self,
        uplink: &mut Uplink,
        link: &mut L,
        utc: &mut impl UtcSource,
        store: &mut impl Store,
        governor: &mut Governor,
    ) -> Lost {
        let mut inbox = [0; INBOX_LEN];
        let mut sends = 0;
        loop {
            self.check_in();
            self.govern(uplink, governor, now_ms());
            let ready = link.ready();
            let turn = if ready { self.turn(uplink, utc, now_ms()) } else { Turn::Wait(u64::MAX) };
            match turn {
                Turn::Wait(until_ms) => {
                    let node = self.node;
                    node.note_uplink(uplink.counters(), true);
                    let more = async {
                        if ready {
                            select(node.sealed.wait(), node.leaving.wait()).await
                        } else {
                            core::future::pending().await
                        }
                    };
                    let answer = async {
                        if ready { node.answers.receive().await } else { core::future::pending().await }
                    };
                    match select4(link.wait(&mut inbox), more, answer, sleep_until(until_ms)).await {
                        Either4::First(Ok(len)) => {
                            let arrived = self.time.now();
                            if self.take(uplink, &inbox, len, arrived, utc, store).await {
                                return Lost::Wanted(Exit::Reboot);
                            }
                        }
                        Either4::First(Err(_)) => return Lost::Link,
                        Either4::Third(answer) => {
                            let roll_call = self.supervisor;
                            let sent = within_limit(roll_call, self.answer(link, &answer)).await;
                            if !matches!(sent, Some(Ok(()))) {
                                return Lost::Link;
                            }
                        }
                        Either4::Second(Either::Second(())) => return Lost::Wanted(Exit::Left),
                        Either4::Second(Either::First(())) | Either4::Fourth(()) => {}
                    }
                    continue;
                }
                Turn::Send(channel, len) => {
                    let message = self.scratch.get(..len).unwrap_or_default();
                    let sent = within_limit(self.supervisor, link.send(channel, message)).await;
                    if !matches!(sent, Some(Ok(()))) {
                        return Lost::Link;
                    }
                }
                Turn::Skip => {}
            }
            // A transport that takes everything at once must not keep the other tasks from their turn.
            yield_now().await;
            sends += 1;
            if sends % SENDS_PER_LOOK != 0 {
                continue;
            }
            match poll_once(link.wait(&mut inbox)) {
                core::task::Poll::Ready(Ok(len)) => {
                    let arrived = self.time.now();
                    if self.take(uplink, &inbox, len, arrived, utc, store).await {
                        return Lost::Wanted(Exit::Reboot);
                    }
                }
                core::task::Poll::Ready(Err(_)) => return Lost::Link,
                core::task::Poll::Pending => {}
            }
        }
    }

    /// Steps down or up as the ring fills or empties, and tells what has come in force since this was last called.
    pub fn govern(&self, uplink: &mut Uplink, governor: &mut Governor, now_ms: u64) {
        let node = self.node;
        node.degrade(governor.step(now_ms, uplink.is_up(), node.fill_percent()));
        let (status_s, time_s) = node.intervals_s();
        uplink.set_intervals(u64::from(status_s) * 1000, u64::from(time_s) * 1000, now_ms);
        let Some((change, answer)) = node.take_change() else { return };
        if let Some(answer) = answer {
            node.answer_later(answer);
        }
        match change {
            Change::Settings => uplink.report(now_ms),
            Change::Steps => uplink.report_status(now_ms),
        }
    }

    /// What to do next on a link that takes messages; a message to send is in `scratch`. Answers first: whoever waits for one
    /// shall not wait behind a ring full of blocks. Then the time: it is only worth something fresh.
    pub fn turn(&mut self, uplink: &mut Uplink, utc: &mut impl UtcSource, now_ms: u64) -> Turn {
        if let Ok(answer) = self.node.answers.try_receive() {
            return Turn::of(Channel::Answer, self.node.answer(&answer).encode(self.scratch).ok());
        }
        let mut ask_at_ms = u64::MAX;
        if let Some(exchange) = utc.exchange() {
            exchange.set_every(self.node.intervals_s().1);
            let now = self.time.now();
            if let Some(ask) = exchange.poll(now) {
                let message = self.node.time_ask(ask.id, ask.tick).encode(self.scratch);
                return Turn::of(Channel::TimeAsk, message.ok());
            }
            let ticks = exchange.due().saturating_sub(now);
            ask_at_ms = now_ms.saturating_add(ticks.div_ceil(u64::from(TICK_HZ) / 1000));
        }
        match uplink.next(self.node.held(), now_ms) {
            Action::Send(item) => self.write(uplink, item, utc),
            Action::Wait { until_ms } => Turn::Wait(until_ms.min(ask_at_ms)),
            Action::Connect => Turn::Wait(0),
        }
    }

    /// Puts what the state machine wants sent into `scratch`.
    fn write(&mut self, uplink: &Uplink, item: Item, utc: &mut impl UtcSource) -> Turn {
        let counters = uplink.counters();
        match item {
            Item::Birth => {
                let mut letters = AxesSent::default();
                Turn::of(Channel::Birth, self.node.birth(&mut letters).encode(self.scratch).ok())
            }
            Item::Settings => Turn::of(Channel::Settings, self.node.in_force().encode(self.scratch).ok()),
            Item::Status => {
                let status = self.node.status(self.time.now(), counters.resent, counters.connects);
                Turn::of(Channel::Status, status.encode(self.scratch).ok())
            }
            Item::Time => match utc.pair() {
                Some(pair) => Turn::of(Channel::Time, self.node.time_pair(pair).encode(self.scratch).ok()),
                None => Turn::Skip,
            },
            // Dropped since the state machine looked: the status that follows says so.
            Item::Block(seq) => match self.node.copy_block(seq, self.scratch) {
                Some((channel, len)) => Turn::Send(channel, len),
                None => Turn::Skip,
            },
        }
    }

    async fn answer<L: Link>(&mut self, link: &mut L, answer: &PendingAnswer) -> Result<(), L::Error> {
        match self.node.answer(answer).encode(self.scratch) {
            Ok(len) => link.send(Channel::Answer, self.scratch.get(..len).unwrap_or_default()).await,
            Err(_) => Ok(()),
        }
    }

    /// Takes a message of the gateway that came in at tick `arrived`. Returns true when the node shall restart.
    async fn take(
        &mut self,
        uplink: &mut Uplink,
        inbox: &[u8],
        len: Option<usize>,
        arrived: u64,
        utc: &mut impl UtcSource,
        store: &mut impl Store,
    ) -> bool {
        let Some(len) = len else { return false };
        match self.hear(uplink, inbox.get(..len), arrived, utc, now_ms()) {
            Heard::Done => false,
            Heard::Restart => true,
            Heard::Settings(set) => {
                settings::take(self.node, &set, store).await;
                false
            }
        }
    }

    /// Takes a message of the gateway (`None`: one that was too long) that came in at tick `arrived`; what takes longer is left
    /// to the caller.
    pub fn hear<'m>(
        &mut self,
        uplink: &mut Uplink,
        message: Option<&'m [u8]>,
        arrived: u64,
        utc: &mut impl UtcSource,
        now_ms: u64,
    ) -> Heard<'m> {
        let Some(Ok(message)) = message.map(decode) else {
            self.node.count_inbox_dropped(1);
            return Heard::Done;
        };
        match message {
            Message::Ack(ack) if ack.node == self.node.facts.node => {
                if let Some(next) = uplink.acknowledged(ack.boot, ack.next, self.node.held(), now_ms) {
                    self.node.free_before(next);
                }
            }
            Message::Command(asked) if asked.node == self.node.facts.node => {
                let restarts = command::handle(self.node, &asked, || uplink.report(now_ms));
                if restarts {
                    return Heard::Restart;
                }
            }
            Message::Set(set) if set.node == self.node.facts.node => return Heard::Settings(set),
            Message::TimeTell(tell) if tell.node == self.node.facts.node => {
                let news = utc.exchange().is_some_and(|exchange| exchange.told(&tell, arrived));
                if news {
                    uplink.report_time(now_ms);
                }
            }
            _ => {}
        }
        Heard::Done
    }

    fn check_in(&self) {
        if let Some((supervisor, task)) = self.supervisor {
            supervisor.check_in(task);
        }
    }
}

/// Waits for what the other side may keep waiting, up to the limit, and checks in each second of it: a link that is slow or
/// dead is no reason for the watchdog to bite.
async fn within_limit<F: Future>(roll_call: Option<(&Supervisor, TaskId)>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..LINK_TIMEOUT_S {
        if let Ok(output) = with_timeout(Duration::from_secs(1), future.as_mut()).await {
            return Some(output);
        }
        if let Some((supervisor, task)) = roll_call {
            supervisor.check_in(task);
        }
    }
    None
}

fn now_ms() -> u64 {
    Instant::now().as_millis()
}

async fn sleep_until(until_ms: u64) {
    let wait_ms = until_ms.saturating_sub(now_ms()).min(SLEEP_MS_MAX);
    Timer::after(Duration::from_millis(wait_ms)).await;
}
