//! What the firmware costs, in instructions that QEMU counts (`-icount`): the same on every machine, however busy.

use crate::agent::Agent;
use crate::mosquitto::Mosquitto;
use crate::qemu::{Emulated, Image, Wiring};
use crate::tools;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// One IIS3DWB, three axes, over Ethernet.
const NODE: &str = "qemu-demo";

/// Its nominal rate, Hz, and its axes.
const RATE_HZ: f64 = 80_000.0 / 3.0;
const AXES: f64 = 3.0;

/// Ten seconds of it.
const FRAMES: u64 = 266_667;

/// An instruction takes 2^3 ns of the machine's time, a step of its counter 40.
const SHIFT: u32 = 3;
const STEP_NS: f64 = 40.0;

/// The processor that the load is told for.
const INSTRUCTIONS_PER_S: f64 = 100e6;

/// What one run measured.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Costs {
    /// Instructions per sample and axis, from the FIFO's words to a message in the ring, by what is sent.
    pub per_sample: BTreeMap<String, f64>,
    /// Instructions of the whole board per sample and axis, sent raw by MQTT: with uplink, TCP/IP and Ethernet driver.
    pub whole_board_per_sample: f64,
    /// The same as a share of 100 million instructions a second, at the sensor's rate.
    pub load: f64,
    /// Frames that were lost; the load means little when there are any.
    pub lost: u64,
}

/// Builds the emulated board's two programs and runs them: the second with Mosquitto and `spindle run`.
///
/// # Errors
/// When one cannot be built or does not do its work.
pub fn measure() -> Result<Costs> {
    let image = Image::of(NODE)?;
    let per_sample = per_sample(&image.cost)?;
    let broker = Mosquitto::start("")?;
    let gateway = format!("[[source.mqtt]]\nname = \"bench\"\naddress = \"{}\"\n", broker.address());
    let mut agent = Agent::started(&gateway)?;
    let wiring = Wiring { broker_port: Some(broker.port()), icount_shift: Some(SHIFT), ..Wiring::default() };
    let board = Emulated::start(&image, &wiring, &[&format!("samples={FRAMES}")])?;
    let end = board.finish(Duration::from_secs(300))?;
    agent.stop()?;
    let number = |name: &str| -> Result<u64> {
        let value = end.get(name).with_context(|| format!("the board told no {name}"))?;
        value.parse().with_context(|| format!("{name}={value} is no number"))
    };
    let steps = number("steps")?.saturating_sub(number("asleep")?).saturating_sub(number("models")?);
    let instructions = steps as f64 * STEP_NS / f64::from(1 << SHIFT);
    let per_frame = instructions / number("taken")? as f64;
    Ok(Costs {
        per_sample,
        whole_board_per_sample: per_frame / AXES,
        load: per_frame * RATE_HZ / INSTRUCTIONS_PER_S,
        lost: number("lost_overrun")? + number("lost_ring")?,
    })
}

/// Runs the program that measures the parts. It calibrates its counter itself.
fn per_sample(program: &Path) -> Result<BTreeMap<String, f64>> {
    let mut command = tools::command("timeout");
    command.args(["120", "qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-monitor", "none"]);
    command.args(["-serial", "null", "-semihosting-config", "enable=on,target=native", "-icount", "shift=6"]);
    said(&tools::output_of(command.arg("-kernel").arg(program))?)
}

fn said(output: &str) -> Result<BTreeMap<String, f64>> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("cost ")?.split_once(": "));
    let costs = lines.map(|(name, cost)| {
        let number = cost.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
        Ok((name.to_owned(), number.with_context(|| format!("no number in {cost:?}"))?))
    });
    let costs: BTreeMap<_, _> = costs.collect::<Result<_>>()?;
    anyhow::ensure!(!costs.is_empty(), "the program for the costs printed {output:?}");
    Ok(costs)
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "a board with one IIS3DWB (26.667 kHz, 3 axes, 16 bits), in QEMU with -icount, Cortex-M4F;"
        )?;
        writeln!(f, "instructions per sample and axis, from the FIFO's words to a message in the ring\n")?;
        for (name, cost) in &self.per_sample {
            writeln!(f, "{name:<58} {cost:>9.1}")?;
        }
        let whole = "raw, the whole board: also MQTT, TCP/IP, Ethernet driver";
        writeln!(f, "{whole:<58} {:>9.1}", self.whole_board_per_sample)?;
        let load = "  as a share of 100 million instructions a second";
        writeln!(f, "{load:<58} {:>7.1} %", self.load * 100.0)?;
        if self.lost > 0 {
            writeln!(f, "frames lost meanwhile: {}", self.lost)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn costs_are_read_from_what_the_program_prints_and_nothing_is_not_taken_for_no_cost() {
        let costs = super::said("counter: 1\ncost decimated by 8: 355.84 instructions per sample\n");
        assert_eq!(costs.unwrap().get("decimated by 8"), Some(&355.84));
        assert!(super::said("panicked").is_err());
    }
}
