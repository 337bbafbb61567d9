//! The gateway: the agent's own session, with what the ingest thread does around it, and a journal that takes its time.

use super::scenario::{MS, Scenario};
use spindle_agent::api::metrics::Metrics;
use spindle_agent::clock::Clock;
use spindle_agent::config;
use spindle_agent::journal::{State, Stateful};
use spindle_agent::record::Record;
use spindle_agent::session::{Session, ToNode, Work};
use spindle_agent::source::time::TimeTeller;
use spindle_agent::source::{Incoming, Token};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Messages that a commit takes at most.
const COMMIT_MAX: usize = 200;
/// How often the ingest thread looks around while nothing comes.
const IDLE: u64 = 500 * MS;

/// What is on its way to the disk.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) records: Vec<Record>,
    pub(super) backoff: u64,
}

/// See the module.
pub(super) struct Gateway {
    pub(super) clock: Clock,
    config: config::Session,
    sources: Vec<String>,
    /// `None` while it is down.
    session: Option<Session>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) teller: TimeTeller,
    pub(super) inbox: VecDeque<Incoming>,
    work: Work,
    pub(super) commit: Option<Commit>,
    /// What was committed of the state, as bytes: the whole, and the changes since.
    committed: Vec<Vec<u8>>,
    /// Counts starts.
    pub(super) run: u64,
    heard: bool,
}

/// What the ingest thread does next.
pub(super) enum Step {
    /// Wait for the disk.
    Commit,
    /// Tell the sources and the nodes.
    Acknowledge(Vec<Token>, Vec<ToNode>),
    /// Wait for a message, or until then.
    Wait(u64),
}

impl Gateway {
    pub(super) fn new(plan: &Scenario, state: &State, utc_ns: i64) -> Result<Self, String> {
        let clock = Clock::manual(utc_ns);
        let config = config::Session {
            reorder_blocks_max: plan.reorder_blocks_max,
            reorder_wait: Duration::from_millis(plan.reorder_wait_ms),
            ..config::Session::default()
        };
        let metrics = Arc::<Metrics>::default();
        let mut gateway = Self {
            teller: TimeTeller::new(clock.clone(), Duration::from_millis(1), metrics.clone()),
            clock,
            config,
            sources: (0..=plan.boards.len()).map(|source| format!("source-{source}")).collect(),
            session: None,
            metrics,
            inbox: VecDeque::new(),
            work: Work::default(),
            commit: None,
            committed: vec![state.to_bytes().map_err(|error| error.to_string())?],
            run: 0,
            heard: false,
        };
        gateway.start()?;
        Ok(gateway)
    }

    /// Starts from what is committed.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let parts: Result<Vec<State>, _> =
            self.committed.iter().map(|part| State::from_bytes(part)).collect();
        let state = State::fold(parts.map_err(|error| format!("committed state cannot be read: {error}"))?);
        self.committed = vec![state.to_bytes().map_err(|error| error.to_string())?];
        self.metrics = Arc::default();
        self.teller = TimeTeller::new(self.clock.clone(), Duration::from_millis(1), self.metrics.clone());
        let session = Session::new(&self.config, &[], self.sources.clone(), state, self.metrics.clone());
        self.session = Some(session);
        self.run += 1;
        self.heard = false;
        Ok(())
    }

    /// Everything that is not committed is gone.
    pub(super) fn crash(&mut self) {
        self.session = None;
        self.inbox.clear();
        self.work = Work::default();
        self.commit = None;
        self.run += 1;
    }

    pub(super) const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) const fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// One round of the ingest thread; `seen` is told of each message that the session takes.
    pub(super) fn step(&mut self, mut seen: impl FnMut(&Incoming)) -> Option<Step> {
        if self.commit.is_some() {
            return None;
        }
        let session = self.session.as_mut()?;
        let now = self.clock.now();
        let idle = self.inbox.is_empty() && !self.heard;
        self.heard = false;
        let mut taken = 0;
        while taken < COMMIT_MAX
            && let Some(incoming) = self.inbox.pop_front()
        {
            seen(&incoming);
            session.take(incoming, now, &mut self.work);
            taken += 1;
        }
        if session.deadline_ns().is_some_and(|deadline| deadline <= now.mono_ns) {
            session.expire(now, &mut self.work);
        }
        if !self.work.records.is_empty() || idle && !session.changes().is_empty() {
            self.commit = Some(Commit { records: std::mem::take(&mut self.work.records), backoff: 100 * MS });
            return Some(Step::Commit);
        }
        if !self.work.release.is_empty() || taken > 0 {
            self.heard = true;
            return Some(self.acknowledge());
        }
        let due = session.deadline_ns().unwrap_or(u64::MAX);
        Some(Step::Wait(due.min(now.mono_ns + IDLE).max(now.mono_ns + 1)))
    }

    /// What is on its way is on the disk.
    pub(super) fn durable(&mut self) -> Result<Vec<Record>, String> {
        let (Some(commit), Some(session)) = (self.commit.take(), self.session.as_mut()) else {
            return Ok(Vec::new());
        };
        self.committed.push(session.changes().to_bytes().map_err(|error| error.to_string())?);
        session.committed();
        Ok(commit.records)
    }

    pub(super) fn acknowledge(&mut self) -> Step {
        let tokens = std::mem::take(&mut self.work.release);
        let to_nodes = self.session.as_mut().map(Session::to_nodes).unwrap_or_default();
        Step::Acknowledge(tokens, to_nodes)
    }
}
