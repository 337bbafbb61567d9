//! The ingest thread: takes what the sources have, makes records of it, commits them, and then acknowledges. A commit
//! takes whatever waits, up to a limit: alone at once when idle, in batches under load.

use super::{Session, ToNode, Work};
use crate::api::control::{Ask, Request, Response};
use crate::api::metrics::Metrics;
use crate::clock::Clock;
use crate::config;
use crate::journal::{Journal, Stateful};
use crate::runtime::Stop;
use crate::source::{Incoming, SourceHandle, Token};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// First and longest pause after a failed commit.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often the ingest looks whether anything is due while nothing comes.
const IDLE_WAIT: Duration = Duration::from_millis(500);
/// Longest that a commit is tried again after the stop.
const STOP_RETRIES: u32 = 5;

/// What the ingest thread wakes up for.
enum Event {
    Batch(Vec<Incoming>),
    Ask(Ask),
    /// All sources have ended.
    End,
}

/// The ingest thread's work.
#[derive(Debug)]
pub struct Ingest {
    /// Order, duplicates, clocks.
    pub session: Session,
    /// The durable log.
    pub journal: Journal,
    /// Its configuration.
    pub config: config::Journal,
    /// What the sources have.
    pub inbox: mpsc::Receiver<Vec<Incoming>>,
    /// What commands ask.
    pub control: mpsc::Receiver<Ask>,
    /// The sources, by their ids.
    pub sources: Vec<SourceHandle>,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Ingest {
    /// Works until all sources have ended, or until the stop when nothing is left to take. The journal is closed then,
    /// and the sources are told that there is nothing more to acknowledge.
    pub fn run(mut self, runtime: &tokio::runtime::Handle, stop: &Stop) {
        let mut work = Work::default();
        self.show();
        loop {
            let wait = self.wait();
            let event = async {
                tokio::select! {
                    batch = self.inbox.recv() => batch.map_or(Event::End, Event::Batch),
                    Some(ask) = self.control.recv() => Event::Ask(ask),
                }
            };
            let idle = match runtime.block_on(async { tokio::time::timeout(wait, event).await }) {
                Ok(Event::Batch(batch)) => {
                    self.take(batch, &mut work);
                    false
                }
                Ok(Event::Ask(ask)) => {
                    self.answer(ask);
                    false
                }
                Ok(Event::End) => break,
                Err(_) => true,
            };
            let now = self.clock.now();
            if self.session.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now.mono_ns) {
                self.session.expire(now, &mut work);
            }
            // Counters alone are not worth a commit of their own while more is coming.
            let changed = idle && !self.session.changes().is_empty();
            if !work.records.is_empty() || changed {
                if !self.commit(&mut work, stop) {
                    break;
                }
            } else if !work.release.is_empty() || !idle {
                self.acknowledge(&mut work);
            }
            if idle {
                // Readers meet damage also when nothing comes.
                self.show();
            }
            if idle && stop.is_set() {
                break;
            }
        }
        let records = Vec::new();
        if let Err(error) = self.journal.append(records, &mut self.session) {
            tracing::error!(%error, "the last counters were not written");
        }
        self.journal.close();
    }

    /// Answers a command; what it orders goes to the node at once.
    fn answer(&mut self, ask: Ask) {
        let now = self.clock.now();
        let response = match ask.request {
            Request::Nodes { node } => {
                Response::Nodes { now_ns: now.utc_ns, nodes: self.session.reports(node.as_deref(), now) }
            }
            Request::Order { node, order } => match self.session.order(&node, &order, now) {
                Ok((id, message)) => match self.send(message) {
                    true => Response::Sent { id },
                    false => Response::Error { reason: format!("the way to {node} is full or gone") },
                },
                Err(reason) => Response::Error { reason },
            },
        };
        // Who does not wait for it any more has given up.
        let _ = ask.reply.send(response);
    }

    /// Sends a message to a node; says whether its source takes it.
    fn send(&self, to_node: ToNode) -> bool {
        let handle = self.sources.get(usize::from(to_node.source.0));
        let sent = handle.is_some_and(|handle| handle.outgoing.try_send(to_node.message).is_ok());
        if !sent {
            self.metrics.source.outgoing_dropped.increment();
        }
        sent
    }

    /// Shows what became of the journal.
    fn show(&self) {
        let totals = self.journal.totals();
        let metrics = &self.metrics.journal;
        metrics.bytes.set(totals.bytes);
        metrics.next_offset.set(self.journal.next_offset());
        metrics.segments_evicted.set(totals.segments_evicted);
        metrics.segments_damaged.set(totals.segments_damaged);
        metrics.damages.set(totals.damages);
        metrics.records_damaged.set(totals.records_damaged);
    }

    fn wait(&self) -> Duration {
        let now_ns = self.clock.now().mono_ns;
        let due =
            self.session.deadline_ns().map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns)));
        due.map_or(IDLE_WAIT, |due| due.min(IDLE_WAIT))
    }

    /// Takes a batch and whatever else waits, up to the size of a commit.
    fn take(&mut self, batch: Vec<Incoming>, work: &mut Work) {
        let bytes_max = usize::try_from(self.config.commit_bytes_max.as_u64()).unwrap_or(usize::MAX);
        let now = self.clock.now();
        let mut bytes = 0;
        let mut next = Some(batch);
        while let Some(batch) = next {
            for incoming in batch {
                bytes += incoming.payload.len();
                self.session.take(incoming, now, work);
            }
            next = if bytes < bytes_max { self.inbox.try_recv().ok() } else { None };
        }
    }

    /// Commits, trying again for as long as it takes; says whether it was done. Meanwhile the sources wait.
    fn commit(&mut self, work: &mut Work, stop: &Stop) -> bool {
        let mut records = std::mem::take(&mut work.records);
        let mut backoff = BACKOFF_MIN;
        let mut retries = 0;
        let started = self.clock.now();
        loop {
            match self.journal.append(records, &mut self.session) {
                Ok(batch) => {
                    if retries > 0 {
                        tracing::info!(retries, "the journal takes records again");
                    }
                    let metrics = &self.metrics.journal;
                    metrics.commits.increment();
                    metrics.records.add(batch.records.len() as u64);
                    self.show();
                    let took = self.clock.now().since(started);
                    metrics.commit_us.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                    self.acknowledge(work);
                    return true;
                }
                Err(error) => {
                    self.metrics.journal.failures.increment();
                    if retries == 0 {
                        tracing::error!(%error, "commit failed; nothing is acknowledged until it succeeds");
                    }
                    records = error.records;
                    retries += 1;
                    if stop.is_set() && retries > STOP_RETRIES {
                        tracing::error!(
                            "stopped with records that could not be committed; their senders have them"
                        );
                        return false;
                    }
                    stop.sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Tells the sources what to acknowledge, and nodes what they need not keep.
    fn acknowledge(&mut self, work: &mut Work) {
        let tokens = std::mem::take(&mut work.release);
        for (handle, tokens) in self.sources.iter().zip(by_source(tokens, self.sources.len())) {
            if !tokens.is_empty() {
                // A source that has ended needs no acknowledgements.
                let _ = handle.release.send(tokens);
            }
        }
        for to_node in self.session.to_nodes() {
            self.send(to_node);
        }
    }
}

fn by_source(tokens: Vec<Token>, sources: usize) -> Vec<Vec<Token>> {
    let mut sorted = vec![Vec::new(); sources];
    for token in tokens {
        if let Some(of_source) = sorted.get_mut(usize::from(token.source.0)) {
            of_source.push(token);
        }
    }
    sorted
}
