//! `spindle run`: the gateway.

use super::{Context, Outcome};
use crate::clock::Clock;
use crate::config::{self, LogFormat};
use crate::runtime::{self, Stop};
use anyhow::Context as _;
use std::path::PathBuf;
use std::time::Duration;

/// How often the flag that a signal sets is looked at.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Run the gateway until SIGTERM or Ctrl-C
///
/// It ends in order and within 10 s: no more input, everything accepted is committed, and forwarded as far as Kafka takes it;
/// what is left goes out after the next start. A second signal ends it at once, which loses nothing either. When a part of
/// it fails for good it ends by itself, with exit code 3, so that a supervisor can start it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  spindle run --config gateway.toml\n  \
                        spindle run --config gateway.toml --log info,spindle_agent::forward=debug\n  \
                        spindle run --config gateway.toml --log-format json")]
pub struct Args {
    /// The configuration (`spindle init` writes one)
    #[arg(long, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
}

impl Args {
    /// Runs it.
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = config::load(&self.config)?;
        context.start_log(&config.log.level, config.log.format == LogFormat::Json)?;
        let stop = stop_on_signal()?;
        let gateway =
            runtime::start(&config, &Clock::system(), &stop).context("the gateway does not start")?;
        let listener = gateway.listener.map(|address| address.to_string());
        let api = gateway.api.map(|address| address.to_string());
        tracing::info!(name = config.gateway.name, listener, api, "gateway is up");
        while !stop.is_set() {
            std::thread::sleep(SIGNAL_INTERVAL);
        }
        tracing::info!("stopping: no more input, then what was accepted is committed and forwarded");
        // The signal's handler may only set the flag: this wakes everyone who waits for it.
        stop.set();
        gateway.finish().context("the gateway did not end as asked")?;
        tracing::info!("gateway has ended");
        Ok(Outcome::Done)
    }
}

/// A stop whose flag SIGTERM and SIGINT set; at the second one the process ends at once.
pub(super) fn stop_on_signal() -> anyhow::Result<Stop> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Stop::new();
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset, the second finds it set.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.flag())
            .and_then(|_| signal_hook::flag::register(signal, stop.flag()))
            .context("cannot listen for signals")?;
    }
    Ok(stop)
}
