//! The program behind `tests/crash`; see there.

use anyhow::{Context, Result, bail};
use spindle_tests::crash;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    for cause in error.chain() {
        eprintln!("{cause}");
    }
    ExitCode::FAILURE
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, spec] = args.as_slice()
        && verb == "board"
    {
        return crash::board::run(spec);
    }
    let (mut rounds, mut seed, mut only) = (30, None, None);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, args.next()),
        };
        let value = value.with_context(|| format!("{name} needs a number"))?;
        let number: u64 = value.parse().with_context(|| format!("{name} needs a number, not {value:?}"))?;
        match name.as_str() {
            "--rounds" => rounds = number,
            "--seed" => seed = Some(number),
            "--round" => only = Some(number),
            _ => bail!("unknown argument {name:?}; there are --rounds N, --seed S, --round K"),
        }
    }
    let seed = seed.map_or_else(random_seed, Ok)?;
    let rounds = only.map_or(1..rounds + 1, |round| round..round + 1);
    print!("{}", crash::run(seed, rounds)?);
    Ok(())
}

fn random_seed() -> Result<u64> {
    #[allow(clippy::disallowed_methods, reason = "each run tries other moments; the seed is printed")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(now.as_millis() as u64 % 1_000_000_000)
}
