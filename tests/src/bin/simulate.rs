//! The program behind `tests/simulate`; see there.

use anyhow::{Context, Result, bail};
use spindle_tests::simulation::{self, batch};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut seed, mut seeds, mut from, mut trace, mut threads) = (None, 1_000, 0, false, 0);
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64> {
            let text = args.next().with_context(|| format!("{arg} wants a number"))?;
            text.parse().ok().with_context(|| format!("{text:?} is no number"))
        };
        match arg.as_str() {
            "--seed" => seed = Some(number()?),
            "--seeds" => seeds = number()?,
            "--from" => from = number()?,
            "--threads" => threads = number()?,
            "--trace" => trace = true,
            _ => bail!(
                "unknown argument {arg:?}; there are --seeds N, --from S, --threads N, --seed S, --trace"
            ),
        }
    }
    if let Some(seed) = seed {
        match simulation::run(seed, trace) {
            Ok(outcome) => println!("seed {seed}: {outcome:?}"),
            Err(failure) => bail!("{failure}"),
        }
        return Ok(());
    }
    let threads = usize::try_from(threads).unwrap_or(0);
    match batch::run_all(from, seeds, threads, |done| eprintln!("{done} of {seeds} seeds")) {
        Ok(sum) => println!("{seeds} seeds from {from} on: {sum:?}"),
        Err(failure) => bail!("{failure}"),
    }
    Ok(())
}
