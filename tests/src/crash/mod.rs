//! `tests/crash`: kill -9 of the gateway, its broker, Kafka or a board at random moments, again and again, in one world that lives
//! on. After each round everything that was acknowledged must be in Kafka, and the books must say so.

pub mod account;
pub mod board;
pub mod ledger;
pub mod oracle;
pub mod plan;
pub mod witness;
pub mod world;

use anyhow::{Context, Result};
use plan::Plan;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};
use world::World;

/// Of a message's bytes; the same in every process of this build.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Summary {
    seed: u64,
    rounds: u64,
    elapsed: Duration,
    killed: BTreeMap<&'static str, u64>,
    acknowledged: (u64, u64),
    blocks: u64,
    duplicates: u64,
    outputs: (u64, u64),
}

/// Plays the rounds of these numbers, each said in a line.
///
/// # Errors
/// At the first round that broke a promise: seed, round, plan, what is wrong, and where everything is kept.
pub fn run(seed: u64, rounds: std::ops::Range<u64>) -> Result<Summary> {
    let start = Instant::now();
    println!("seed {seed}");
    let mut world = World::start(seed)?;
    let mut summary = Summary { seed, ..Summary::default() };
    for round in rounds {
        let plan = Plan::new(seed, round);
        let (began, duplicates) = (Instant::now(), world.oracle.duplicates);
        let acknowledged = match world.round(&plan) {
            Ok(acknowledged) => acknowledged,
            Err(error) => {
                let kept = world
                    .keep(round)
                    .map_or_else(|error| format!("{error:#}"), |path| path.display().to_string());
                let again = format!("tests/crash --seed {seed} --round {round}");
                return Err(error).with_context(|| {
                    format!("round {round} of seed {seed} FAILED\n  plan: {plan}\n  kept: {kept}\n  again: {again}")
                });
            }
        };
        println!(
            "round {round:>4}  {:>4.1} s  {acknowledged:>5} acknowledged  {:>4} duplicates  {plan}",
            began.elapsed().as_secs_f64(),
            world.oracle.duplicates - duplicates,
        );
        summary.rounds += 1;
        for victim in plan.killed() {
            *summary.killed.entry(victim.name()).or_default() += 1;
        }
    }
    summary.acknowledged = world.oracle.acknowledged;
    summary.blocks = world.oracle.blocks() as u64;
    summary.duplicates = world.oracle.duplicates;
    summary.outputs = world.oracle.outputs_read;
    summary.elapsed = start.elapsed();
    Ok(summary)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: u64| writeln!(f, "{name:<44} {value:>10}");
        row("rounds", self.rounds)?;
        for (victim, count) in &self.killed {
            row(&format!("kill -9 of {victim}"), *count)?;
        }
        row("acknowledged blocks", self.acknowledged.0)?;
        row("different blocks in Kafka", self.blocks)?;
        row("recognisable duplicates of blocks", self.duplicates)?;
        row("features, rollups and alerts", self.outputs.0)?;
        row("recognisable duplicates of those", self.outputs.1)?;
        row("acknowledged blocks lost", self.acknowledged.0 - self.acknowledged.1)?;
        writeln!(
            f,
            "{} rounds of seed {} passed in {:.0} s",
            self.rounds,
            self.seed,
            self.elapsed.as_secs_f64()
        )
    }
}
