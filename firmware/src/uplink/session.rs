//! The shell around the uplink's state machine: one task that owns the transport.

use super::{Action, Item, Uplink};
use crate::clock::{Timebase, UtcSource};
use crate::command;
use crate::log::log;
use crate::node::{Node, PendingAnswer};
use crate::supervise::{Supervisor, TaskId};
use crate::transport::{Channel, Link, Transport};
use core::pin::pin;
use embassy_futures::select::{Either, Either4, select, select4};
use embassy_futures::{poll_once, yield_now};
use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::{Duration, Instant, Timer, with_timeout};
use spindle_common::wire::{Message, decode};

/// Longest message from the gateway: acks and commands.
pub const INBOX_LEN: usize = 128;

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
    ) -> Exit {
        loop {
            self.check_in();
            self.node.note_uplink(uplink.counters(), false);
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
                    let lost = self.talk(uplink, &mut link, utc).await;
                    log!(warn, "link left, {} connections so far", uplink.counters().connects);
                    uplink.disconnected(now_ms());
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
    async fn talk<L: Link>(&mut self, uplink: &mut Uplink, link: &mut L, utc: &mut impl UtcSource) -> Lost {
        let mut inbox = [0; INBOX_LEN];
        let mut sends = 0;
        loop {
            self.check_in();
            let ready = link.ready();
            let action = if ready { self.next(uplink) } else { Next::Wait(u64::MAX) };
            match action {
                Next::Send(item) => {
                    let roll_call = self.supervisor;
                    let sent = within_limit(roll_call, self.send(uplink, link, item, utc)).await;
                    if !matches!(sent, Some(Ok(()))) {
                        return Lost::Link;
                    }
                    // A transport that takes everything at once must not keep the other tasks from their turn.
                    yield_now().await;
                    sends += 1;
                    if sends % SENDS_PER_LOOK != 0 {
                        continue;
                    }
                    match poll_once(link.wait(&mut inbox)) {
                        core::task::Poll::Ready(Ok(len)) => {
                            if self.take(uplink, &inbox, len).await {
                                return Lost::Wanted(Exit::Reboot);
                            }
                        }
                        core::task::Poll::Ready(Err(_)) => return Lost::Link,
                        core::task::Poll::Pending => {}
                    }
                }
                Next::Wait(until_ms) => {
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
                            if self.take(uplink, &inbox, len).await {
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
                }
            }
        }
    }

    fn next(&self, uplink: &mut Uplink) -> Next {
        match uplink.next(self.node.held(), now_ms()) {
            Action::Send(item) => Next::Send(item),
            Action::Wait { until_ms } => Next::Wait(until_ms),
            Action::Connect => Next::Wait(0),
        }
    }

    async fn send<L: Link>(
        &mut self,
        uplink: &Uplink,
        link: &mut L,
        item: Item,
        utc: &mut impl UtcSource,
    ) -> Result<(), L::Error> {
        let counters = uplink.counters();
        let (channel, len) = match item {
            Item::Birth => (Channel::Birth, self.node.birth().encode(self.scratch).ok()),
            Item::Status => {
                let status = self.node.status(self.time.now(), counters.resent, counters.connects);
                (Channel::Status, status.encode(self.scratch).ok())
            }
            Item::Time => match utc.pair() {
                Some(pair) => (Channel::Time, self.node.time_pair(pair).encode(self.scratch).ok()),
                None => return Ok(()),
            },
            // Dropped since the state machine looked: the status that follows says so.
            Item::Block(seq) => match self.node.copy_block(seq, self.scratch) {
                Some((stream, len)) => (Channel::Raw(stream), Some(len)),
                None => return Ok(()),
            },
        };
        match len.and_then(|len| self.scratch.get(..len)) {
            Some(message) => link.send(channel, message).await,
            None => Ok(()),
        }
    }

    async fn answer<L: Link>(&mut self, link: &mut L, answer: &PendingAnswer) -> Result<(), L::Error> {
        match self.node.answer(answer).encode(self.scratch) {
            Ok(len) => link.send(Channel::Answer, self.scratch.get(..len).unwrap_or_default()).await,
            Err(_) => Ok(()),
        }
    }

    /// Takes a message of the gateway. Returns true when the node shall restart.
    async fn take(&mut self, uplink: &mut Uplink, inbox: &[u8], len: Option<usize>) -> bool {
        let Some(Ok(message)) = len.and_then(|len| inbox.get(..len)).map(decode) else { return false };
        match message {
            Message::Ack(ack) if ack.node == self.node.facts.node => {
                if let Some(next) = uplink.acknowledged(ack.boot, ack.next, self.node.held(), now_ms()) {
                    self.node.free_before(next);
                }
                false
            }
            Message::Command(asked) if asked.node == self.node.facts.node => {
                command::handle(self.node, &asked, || uplink.report(now_ms())).await
            }
            _ => false,
        }
    }

    fn check_in(&self) {
        if let Some((supervisor, task)) = self.supervisor {
            supervisor.check_in(task);
        }
    }
}

enum Next {
    Send(Item),
    Wait(u64),
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
