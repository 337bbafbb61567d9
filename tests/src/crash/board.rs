//! A board as a process of its own, so that it can be killed: the firmware's core and chip models behind the witness.

use super::account::Account;
use super::ledger::{Counts, Entry, Ledger};
use super::plan::SensorSpec;
use super::witness;
use crate::process::Process;
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use spindle_common::wire::Encoding;
use spindle_firmware::host::{Board, Chip, VirtualBoard, VirtualSensor};
use spindle_firmware::sensor::signal::Spindle;
use spindle_firmware::sensor::{adxl345, iis3dwb};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Site and machine of all boards.
pub const PLACE: &str = "site/mill";

/// How long a board waits for its last acknowledgement.
const DRAIN: Duration = Duration::from_secs(90);

/// What the process is told, as one argument in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub node: String,
    /// This run of it.
    pub boot: u64,
    /// `HOST:PORT` of the broker.
    pub broker: String,
    /// Its ledger.
    pub ledger: PathBuf,
    /// It ends in order when this file appears.
    pub stop: PathBuf,
    /// Its sensors.
    pub sensors: Vec<SensorSpec>,
}

/// What the board's process does.
///
/// # Errors
/// When it cannot start, or not everything was acknowledged in the end.
pub fn run(spec: &str) -> Result<()> {
    let spec: Spec = serde_json::from_str(spec).context("what the board is told")?;
    let witness = witness::start(spec.broker.clone(), spec.boot, Ledger::create(&spec.ledger)?)?;
    let (site, machine) = PLACE.split_once('/').context("site/machine")?;
    let board =
        VirtualBoard::new(site, machine, &spec.node).boot(spec.boot).mqtt(format!("127.0.0.1:{witness}"));
    let board = spec.sensors.iter().map(sensor).fold(board, VirtualBoard::sensor).start()?;
    while !spec.stop.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    board.stop();
    wait_told(&board, &spec)?;
    let drained = board.drain_blocking(DRAIN);
    println!("{drained:?}");
    let streams = drained.counters.streams.iter();
    let counts = Counts {
        is_complete: drained.complete,
        streams: streams.map(|stream| (stream.taken, stream.lost_ring + stream.lost_overrun)).collect(),
    };
    Ledger::create(&spec.ledger)?.write(&[Entry::Ended(counts)])?;
    ensure!(drained.complete, "not everything was acknowledged in {DRAIN:?}");
    Ok(())
}

/// Waits until all is acknowledged and a status has told what the sensors lost last: real boards do not leave before.
fn wait_told(board: &Board, spec: &Spec) -> Result<()> {
    let mut account = Account::new(spec.clone());
    wait::until("the board's last word", DRAIN, || {
        account.look()?;
        let counters = board.counters();
        let is_told = counters.streams.iter().zip(&account.told).all(|(stream, told)| *told >= stream.taken);
        Ok((counters.is_complete() && is_told).then_some(()))
    })
}

fn sensor(spec: &SensorSpec) -> VirtualSensor {
    let signal = Spindle { seed: spec.seed, ..Spindle::default() }.with_outer_race_fault(20.0, 0.3, 0.5);
    let chip = if spec.is_fast {
        Chip::Iis3dwb(iis3dwb::FullScale::G4)
    } else {
        Chip::Adxl345(adxl345::FullScale::G16)
    };
    let encoding = if spec.is_coded { Encoding::Rice16 } else { Encoding::Raw16 };
    VirtualSensor::of(chip, &spec.name, signal).block_samples(spec.block_samples).encoding(encoding)
}

/// A board's process, and what its ledger says so far.
#[derive(Debug)]
pub struct BoardProcess {
    process: Process,
    is_killed: bool,
    /// What its ledger says so far.
    pub account: Account,
}

impl BoardProcess {
    /// Starts it.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(spec: Spec) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("board").arg(serde_json::to_string(&spec)?);
        let process = Process::spawn("board", &mut command, &spec.ledger.with_extension("log"))?;
        Ok(Self { process, is_killed: false, account: Account::new(spec) })
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
        self.is_killed = true;
    }

    /// Whether it was not killed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.is_killed
    }

    /// Waits for `more` acknowledged blocks beyond `before`.
    ///
    /// # Errors
    /// When they do not come.
    pub fn wait_promises(&mut self, before: usize, more: usize) -> Result<()> {
        let what = format!("{more} more acknowledged blocks of {} after {before}", self.account.spec.node);
        wait::until(&what, wait::PATIENCE, || {
            self.process.ensure_running()?;
            Ok((self.account.look()? >= before + more).then_some(()))
        })
    }

    /// Asks it to end in order.
    ///
    /// # Errors
    /// When the sign cannot be given.
    pub fn ask_to_end(&self) -> Result<()> {
        Ok(std::fs::write(&self.account.spec.stop, "")?)
    }

    /// Waits for its end in order, which it was asked for: everything that it had is acknowledged then.
    ///
    /// # Errors
    /// When it does not end, or not complete.
    pub fn finish(&mut self) -> Result<()> {
        let status = self.process.wait(DRAIN + wait::PATIENCE)?;
        self.account.look()?;
        let complete = self.account.counts.as_ref().is_some_and(|counts| counts.is_complete);
        let node = &self.account.spec.node;
        ensure!(status.success() && complete, "{node} was not drained: {}", self.process.log());
        Ok(())
    }
}

/// Where a board's files are.
#[must_use]
pub fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.ledger")), folder.join(format!("{name}.stop")))
}
