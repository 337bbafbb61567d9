//! Everything that a crash run needs, alive through all its rounds.

use super::board::{self, BoardProcess, Spec};
use super::oracle::Oracle;
use super::plan::{Load, Memory, Plan, Random, Victim};
use crate::agent::Agent;
use crate::kafka::{Kafka, Setup};
use crate::mosquitto::Mosquitto;
use crate::{process, tools, wait};
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Prefix of the topics.
const PREFIX: &str = "crash";

/// Keeps Kafka's disk small: a run writes gigabytes, and each record is read once.
const RETENTION: &str = "log.segment.bytes=16777216\nlog.retention.bytes=33554432\n\
                         log.retention.check.interval.ms=5000\nlog.segment.delete.delay.ms=1000\n\
                         log.index.size.max.bytes=1048576\n";

/// Small logs that are evicted during the run, short windows, and a rule that every sensor breaks.
const SETTINGS: &str = r#"
partitions = 3

[journal]
size_max = "128 MiB"
segment_size = "16 MiB"

[outputs]
size_max = "64 MiB"

[pipeline]
window = "250ms"
rollup = "250ms"

[[rule]]
name = "rough"
feature = "acceleration_rms"
unit = "m/s2"
above = 0.5
on_delay = "250ms"
"#;

/// A sign of life: so many more blocks are acknowledged after a restart.
const ALIVE: usize = 5;

/// The run's servers, gateway and oracle.
pub struct World {
    seed: u64,
    agent: Agent,
    broker: Mosquitto,
    kafka: Kafka,
    folder: TempDir,
    /// What the boards were promised, found in Kafka, and more.
    pub oracle: Oracle,
    boards: Vec<BoardProcess>,
    started: u64,
}

impl World {
    /// Starts all of it.
    ///
    /// # Errors
    /// When a part does not come up.
    pub fn start(seed: u64) -> Result<Self> {
        let kafka = Kafka::start_with(&Setup { properties: RETENTION.into(), ..Setup::default() })?;
        let broker = Mosquitto::start(settings(Memory::Fresh))?;
        let agent = Agent::started(&format!(
            "[[source.mqtt]]\nname = \"site\"\naddress = \"{}\"\n\n\
             [forward.kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{PREFIX}\"{SETTINGS}",
            broker.address(),
            kafka.address()
        ))?;
        let oracle = Oracle::new(&kafka, PREFIX, wait::PATIENCE)?;
        let folder = process::folder("crash")?;
        Ok(Self { seed, agent, broker, kafka, folder, oracle, boards: Vec::new(), started: 0 })
    }

    /// Plays a round and judges it; gives the number of blocks that were acknowledged in it.
    ///
    /// # Errors
    /// What is not as it was promised.
    pub fn round(&mut self, plan: &Plan) -> Result<usize> {
        self.boards.clear();
        for name in std::fs::read_dir(self.folder.path())? {
            std::fs::remove_file(name?.path())?;
        }
        if plan.load != Load::None {
            for number in 0..plan.boards.len() {
                self.start_board(plan, number)?;
            }
            for board in &mut self.boards {
                board.wait_promises(0, 1)?;
            }
        }
        for (after_ms, victim) in &plan.strikes {
            std::thread::sleep(Duration::from_millis(*after_ms));
            self.kill(*victim);
        }
        std::thread::sleep(Duration::from_millis(plan.down_ms));
        // Also in another order than they went.
        for (_, victim) in plan.strikes.iter().rev() {
            self.start_again(plan, *victim)?;
        }
        if let Some(encore_ms) = plan.encore_ms {
            std::thread::sleep(Duration::from_millis(encore_ms));
            self.agent.kill();
            self.agent.launch()?;
        }
        if plan.strikes.iter().any(|(_, victim)| *victim == Victim::Agent) {
            self.agent.wait_until_up()?;
        }
        self.agent.process()?.ensure_running()?;
        if plan.load == Load::None {
            self.start_board(plan, 0)?;
        }
        self.settle()?;
        for board in &mut self.boards {
            board.account.look()?;
        }
        let accounts: Vec<_> = self.boards.iter().map(|board| &board.account).collect();
        self.oracle.judge(&self.agent, &accounts)?;
        Ok(accounts.iter().map(|account| account.promises.len()).sum())
    }

    /// New data gets through; then the boards end.
    fn settle(&mut self) -> Result<()> {
        let mut running: Vec<_> = self.boards.iter_mut().filter(|board| board.is_running()).collect();
        let before: Vec<_> = running.iter_mut().map(|board| board.account.look()).collect::<Result<_>>()?;
        for (board, before) in running.iter_mut().zip(before) {
            board.wait_promises(before, ALIVE)?;
        }
        for board in &running {
            board.ask_to_end()?;
        }
        running.into_iter().try_for_each(BoardProcess::finish)
    }

    fn start_board(&mut self, plan: &Plan, number: usize) -> Result<()> {
        self.started += 1;
        let name = format!("b{number}-{}", self.started);
        let (ledger, stop) = board::paths(self.folder.path(), &name);
        let spec = Spec {
            node: format!("b{number}"),
            boot: Random::new((self.seed, plan.round, self.started)).draw(),
            broker: self.broker.address(),
            ledger,
            stop,
            sensors: plan.boards[number].clone(),
        };
        self.boards.push(BoardProcess::start(spec)?);
        Ok(())
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Agent => self.agent.kill(),
            Victim::Broker(_) => self.broker.kill(),
            Victim::Kafka => self.kafka.kill(),
            Victim::Board(number) => self.boards[number].kill(),
        }
    }

    fn start_again(&mut self, plan: &Plan, victim: Victim) -> Result<()> {
        match victim {
            Victim::Agent => self.agent.launch(),
            Victim::Broker(memory) => {
                if memory == Memory::Nothing {
                    self.broker.forget()?;
                }
                self.broker.start_again(settings(memory))
            }
            Victim::Kafka => self.kafka.start_again(),
            Victim::Board(number) => self.start_board(plan, number),
        }
    }

    /// Copies everything that may tell what happened to a folder that stays, and gives its path.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn keep(&mut self, round: u64) -> Result<PathBuf> {
        self.agent.kill();
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tools::root().join("target"), PathBuf::from);
        let kept = target.join(format!("crash/seed-{}-round-{round}", self.seed));
        let _ = std::fs::remove_dir_all(&kept);
        for (name, folder) in [
            ("agent", self.agent.folder()),
            ("broker", self.broker.folder()),
            ("kafka", self.kafka.folder()),
            ("boards", self.folder.path()),
        ] {
            copy(folder, &kept.join(name))?;
        }
        Ok(kept)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status()?;
    ensure!(status.success(), "cannot copy {} to {}", from.display(), to.display());
    Ok(())
}

/// Lines of `mosquitto.conf`.
fn settings(memory: Memory) -> &'static str {
    match memory {
        Memory::Fresh => "autosave_interval 1",
        Memory::Stale => "autosave_interval 20",
        Memory::Nothing => "persistence false",
    }
}
