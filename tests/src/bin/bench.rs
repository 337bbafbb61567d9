//! The program behind `tests/bench`; see there.

use anyhow::{Context, Result, bail};
use spindle_tests::bench;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["bare-subscriber", port, count] => bench::bare::subscribe(number(port)?, number(count)?),
        ["bare"] => {
            let broker = spindle_tests::mosquitto::Mosquitto::start(
                "max_queued_messages 0\nmax_inflight_messages 1000",
            )?;
            let messages: Vec<bytes::Bytes> = (0..1000u32).map(|n| vec![n as u8; 3140].into()).collect();
            println!("{:?}", bench::bare_subscriber(broker.port(), &messages, 100_000)?);
            Ok(())
        }
        other => bail!("unknown arguments {other:?}"),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("{text:?} is no number"))
}
