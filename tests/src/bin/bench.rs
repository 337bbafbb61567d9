//! The program behind `tests/bench`; see there.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use spindle_tests::bench::{self, Size};
use spindle_tests::flood::{Way, hostile};
use std::fmt::Display;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["bare-subscriber", port, count] = args.as_slice() {
        return bench::bare::subscribe(number(port)?, number(count)?);
    }
    let mut size = Size { boards: 16, blocks: 160_000, real_time_boards: 4, real_time_seconds: 25 };
    let (mut json, mut firmware, mut durability) = (false, false, false);
    let (mut nodes, mut flood, mut backlog_mib) = (None, None, None);
    for arg in args {
        match arg.split_once('=') {
            None if arg == "--json" => json = true,
            None if arg == "--firmware" => firmware = true,
            None if arg == "--durability" => durability = true,
            None if arg == "--flood" => flood = Some(1_000_000),
            Some(("--flood", messages)) => flood = Some(number(messages)?),
            Some(("--nodes", count)) => nodes = Some(number(count)?),
            None if arg == "--quick" => (size.blocks, size.real_time_seconds) = (16_000, 10),
            Some(("--backlog", mib)) => backlog_mib = Some(number::<u64>(mib)?),
            Some(("--boards", boards)) => size.boards = number(boards)?,
            Some(("--blocks", blocks)) => size.blocks = number(blocks)?,
            _ => bail!(
                "unknown argument {arg:?}; there are --json, --quick, --boards=N, --blocks=N, --durability, --nodes=N, --flood[=N], \
                 --firmware, --backlog=MIB"
            ),
        }
    }
    if durability {
        return print(&bench::durability::measure(size)?, json);
    }
    if let Some(count) = nodes {
        return print(&bench::durability::nodes(count)?, json);
    }
    if let Some(messages) = flood {
        for way in [Way::Listener, Way::Broker] {
            println!("{way:?}");
            print(&hostile(way, messages, 200)?, json)?;
        }
        return Ok(());
    }
    if let Some(mib) = backlog_mib {
        return print(&bench::backlog::measure(mib << 20)?, json);
    }
    if firmware { print(&bench::firmware::measure()?, json) } else { print(&bench::run(size)?, json) }
}

fn print(report: &(impl Display + Serialize), json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("{text:?} is no number"))
}
