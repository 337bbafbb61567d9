//! The gateway's ingest thread and its disk, in virtual time.

use super::gateway::Step;
use super::scenario::SECOND;
use super::{Event, World, board, network};
use spindle_agent::record::{Record, RecordKind};
use spindle_agent::source::Incoming;
use spindle_common::id::BootId;
use spindle_common::wire::{self, Message};

impl World {
    /// Wakes the gateway's ingest thread.
    pub(super) fn nudge(&mut self, delay: u64) {
        self.gateway_turn += 1;
        let (run, turn) = (self.gateway.run, self.gateway_turn);
        self.after(delay, Event::GatewayWake { run, turn });
    }

    /// The gateway's ingest thread goes on.
    pub(super) fn work(&mut self) -> Result<(), String> {
        let (places, turns_taken, last_boot) = (&mut self.places, &mut self.turns_taken, &mut self.last_boot);
        let twins = self.plan.twins;
        let step = self.gateway.step(|incoming| {
            if let Some(boot) = place_of(incoming) {
                *places += 1;
                *turns_taken += u64::from(twins && boot != *last_boot);
                *last_boot = boot;
            }
        });
        let held = self.gateway.metrics.session.held.get();
        let most = self.plan.reorder_blocks_max as u64 * board::NODES.len() as u64;
        if held > most {
            return Err(format!("{held} messages are held, and at most {most} may be"));
        }
        match step {
            Some(Step::Commit) => {
                let delay = self.commit_time();
                let run = self.gateway.run;
                self.after(delay, Event::CommitEnd { run });
            }
            Some(Step::Acknowledge(tokens, to_nodes)) => {
                self.release(tokens, to_nodes);
                self.nudge(1);
            }
            Some(Step::Wait(until)) => self.nudge(until.saturating_sub(self.now).max(1)),
            None => {}
        }
        Ok(())
    }

    fn commit_time(&mut self) -> u64 {
        self.random.between(self.plan.commit.0, self.plan.commit.1)
    }

    pub(super) fn commit_end(&mut self) -> Result<(), String> {
        let fails =
            self.now < self.disk_fails_until || !self.is_calm() && self.random.chance(self.plan.commit_fails);
        if fails && let Some(commit) = &mut self.gateway.commit {
            let delay = commit.backoff;
            commit.backoff = (commit.backoff * 2).min(5 * SECOND);
            let run = self.gateway.run;
            self.say(|| "commit failed".into());
            let took = self.commit_time();
            self.after(delay + took, Event::CommitEnd { run });
            return Ok(());
        }
        self.write_down()?;
        if let Step::Acknowledge(tokens, to_nodes) = self.gateway.acknowledge() {
            self.release(tokens, to_nodes);
        }
        self.nudge(0);
        Ok(())
    }

    /// What is on its way to the disk gets there.
    pub(super) fn write_down(&mut self) -> Result<(), String> {
        let records = self.gateway.durable()?;
        self.say(|| format!("committed {} records", records.len()));
        if self.tracing {
            for record in &records {
                self.say(|| format!("  {}", described(record)));
            }
        }
        self.stored += records.iter().filter(|record| has_place(record)).count() as u64;
        self.oracle.committed(&records)
    }

    pub(super) fn start_gateway(&mut self) -> Result<(), String> {
        if self.gateway.session().is_some() {
            return Ok(());
        }
        self.gateway.start()?;
        self.say(|| "gateway starts".into());
        self.starts += 1;
        (self.places, self.stored) = (0, 0);
        self.nudge(0);
        let run = self.gateway.run;
        self.after(0, Event::GatewayConnect { run });
        Ok(())
    }
}

fn place_of(incoming: &Incoming) -> Option<BootId> {
    match wire::decode(&incoming.payload) {
        Ok(Message::Block(block)) => Some(block.header.boot),
        Ok(Message::Features(features)) => Some(features.boot),
        Ok(Message::Burst(burst)) => Some(burst.block.header.boot),
        _ => None,
    }
}

fn has_place(record: &Record) -> bool {
    match record.kind {
        RecordKind::Block => true,
        RecordKind::Node => {
            matches!(wire::decode(&record.body), Ok(Message::Features(_) | Message::Burst(_)))
        }
        _ => false,
    }
}

fn described(record: &Record) -> String {
    let what = match wire::decode(&record.body) {
        Ok(message) if record.kind != RecordKind::Gap => network::described(&message),
        _ => format!("{:?}", record.kind),
    };
    format!("{} {what} flags {} at {} ns", record.key, record.flags, record.time_ns)
}
