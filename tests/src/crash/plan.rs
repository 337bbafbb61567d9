//! What a round does: a function of seed and round alone, so that it can be played again.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Most boards of a round.
pub const BOARDS: usize = 3;

/// Numbers from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap_or(0)]
    }
}

/// What the boards send while something is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing; boards come only afterwards.
    None,
    /// One board.
    Light,
    /// All boards, small blocks.
    Heavy,
}

/// What a broker finds on its disk when it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// All but the last second.
    Fresh,
    /// What it saved up to 20 s before: the default interval is 30 minutes, far longer than a round.
    Stale,
    /// Nothing.
    Nothing,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// `spindle run`.
    Agent,
    /// Mosquitto; with what memory it comes back.
    Broker(Memory),
    /// Kafka.
    Kafka,
    /// A board, by its number.
    Board(usize),
}

impl Victim {
    /// Name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Broker(Memory::Fresh) => "broker, persistent",
            Self::Broker(Memory::Stale) => "broker, stale",
            Self::Broker(Memory::Nothing) => "broker, forgetful",
            Self::Kafka => "kafka",
            Self::Board(_) => "board",
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(number) => write!(f, "board {number}"),
            other => f.write_str(other.name()),
        }
    }
}

/// A sensor of a board.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SensorSpec {
    /// Its name.
    pub name: String,
    /// IIS3DWB at 26.7 kHz, else ADXL345 at 3.2 kHz.
    pub is_fast: bool,
    /// Samples per channel and block.
    pub block_samples: u16,
    /// Rice codes, else plain integers.
    pub is_coded: bool,
    /// Of its signal.
    pub seed: u32,
}

/// A round.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its number.
    pub round: u64,
    /// What is sent meanwhile.
    pub load: Load,
    /// Who is killed, and how long after what came before, ms.
    pub strikes: Vec<(u64, Victim)>,
    /// From the last kill to the restart, ms.
    pub down_ms: u64,
    /// The agent is killed once more so long after its restart, ms.
    pub encore_ms: Option<u64>,
    /// Sensors, by board.
    pub boards: Vec<Vec<SensorSpec>>,
}

impl Plan {
    /// The round of this number under this seed.
    #[must_use]
    pub fn new(seed: u64, round: u64) -> Self {
        let mut random = Random::new((seed, round));
        let load =
            random.one_of(&[Load::None, Load::Light, Load::Light, Load::Heavy, Load::Heavy, Load::Heavy]);
        let boards = if load == Load::Heavy { BOARDS } else { 1 };
        let mut strikes = vec![(random.below(700), victim(&mut random, load, boards))];
        if random.percent(25) {
            let second = victim(&mut random, load, boards);
            if std::mem::discriminant(&second) != std::mem::discriminant(&strikes[0].1) {
                strikes.push((random.below(120), second));
            }
        }
        let down_ms = if random.percent(40) { random.below(100) } else { random.below(1500) };
        let hits_agent = strikes.iter().any(|(_, victim)| *victim == Victim::Agent);
        let encore_ms = (hits_agent && random.percent(30)).then(|| random.below(600));
        let boards = (0..boards).map(|board| sensors(&mut random, load, board)).collect();
        Self { round, load, strikes, down_ms, encore_ms, boards }
    }

    /// Everyone who is killed, the agent twice if it is.
    pub fn killed(&self) -> impl Iterator<Item = Victim> + '_ {
        self.strikes.iter().map(|(_, victim)| *victim).chain(self.encore_ms.map(|_| Victim::Agent))
    }
}

fn victim(random: &mut Random, load: Load, boards: usize) -> Victim {
    match random.below(100) {
        0..42 => Victim::Agent,
        42..52 => Victim::Broker(Memory::Fresh),
        52..59 => Victim::Broker(Memory::Stale),
        59..70 => Victim::Broker(Memory::Nothing),
        // Takes several times as long as the others to come back.
        70..79 => Victim::Kafka,
        _ if load == Load::None => Victim::Agent,
        _ => Victim::Board(usize::try_from(random.below(boards as u64)).unwrap_or(0)),
    }
}

fn sensors(random: &mut Random, load: Load, board: usize) -> Vec<SensorSpec> {
    let count = if load == Load::Heavy { 2 } else { 1 };
    (0..count)
        .map(|index| {
            let is_fast = board == 0 && index == 0 && random.percent(50);
            let samples: &[u16] = match (load, is_fast) {
                (_, true) => &[256, 512],
                (Load::Heavy, false) => &[16, 32],
                (_, false) => &[32, 64, 128],
            };
            SensorSpec {
                name: format!("acc{index}-b{board}"),
                is_fast,
                block_samples: random.one_of(samples),
                is_coded: random.percent(30),
                seed: u32::try_from(random.below(1 << 20)).unwrap_or(1) + 1,
            }
        })
        .collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = match self.load {
            Load::None => "idle",
            Load::Light => "light",
            Load::Heavy => "heavy",
        };
        write!(f, "{load:<5}")?;
        for (index, (after_ms, victim)) in self.strikes.iter().enumerate() {
            write!(f, "{} {victim} after {after_ms} ms", if index == 0 { "" } else { "," })?;
        }
        write!(f, ", down {} ms", self.down_ms)?;
        if let Some(encore_ms) = self.encore_ms {
            write!(f, ", agent again after {encore_ms} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_same_for_the_same_seed_and_round_and_kills_everyone_in_the_end() {
        let text = |seed, round| format!("{:?}", Plan::new(seed, round));
        assert_eq!(text(7, 12), text(7, 12));
        assert_ne!(text(7, 12), text(8, 12));
        let killed: Vec<_> =
            (0..200).flat_map(|round| Plan::new(3, round).killed().collect::<Vec<_>>()).collect();
        for name in ["agent", "broker, persistent", "broker, stale", "broker, forgetful", "kafka", "board"] {
            assert!(killed.iter().any(|victim| victim.name() == name), "{name} is never killed");
        }
    }
}
