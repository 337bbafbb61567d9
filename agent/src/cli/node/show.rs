//! `spindle node show`.

use super::client::Client;
use super::{Target, ago};
use crate::cli::Outcome;
use crate::session::report::{NodeReport, Order, SettingsReport, StreamReport, TwinsReport};
use spindle_common::settings::StreamSettings;
use std::fmt::Write as _;

/// Show all that a node says of itself
///
/// It is asked to say it again first; when it does not answer in time, what is known is shown, with its age.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  spindle node show mill-3\n  spindle node show hall/mill/mill-3 --json | jq .settings"
)]
pub(super) struct Args {
    /// Its name, or site/machine/node
    node: String,
    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let mut client = Client::open(&self.target)?;
        let before = client.node(&self.node)?.1.status.map(|status| status.heard_ns);
        let fresh = client.order(&self.node, Order::Report).and_then(|_| {
            client.wait(&self.node, "answered", |report| {
                (report.status.as_ref().map(|status| status.heard_ns) != before).then_some(())
            })
        });
        let (now_ns, report) = client.node(&self.node)?;
        if self.target.json {
            println!("{}", serde_json::json!({ "now_ns": now_ns, "node": report }));
        } else {
            print!("{}", text(now_ns, &report));
            if let Err(error) = fresh {
                println!("what is shown is from before: {error}");
            }
        }
        Ok(Outcome::Done)
    }
}

/// A span of ns for people.
pub(super) fn time_text(ns: i64) -> String {
    match ns.unsigned_abs() {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} µs", ns / 1000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

fn text(now_ns: i64, node: &NodeReport) -> String {
    let mut text = String::new();
    let mut line = |name: &str, says: String| {
        let _ = writeln!(text, "{name:<10} {says}");
    };
    line("node", node.key.clone());
    let heard = node.heard_ns.map_or_else(
        || "not since the gateway started".to_owned(),
        |heard_ns| format!("{} ago", ago(now_ns, heard_ns)),
    );
    let by = node.source.as_ref().map(|source| format!(", by {source}")).unwrap_or_default();
    let offline = if node.offline { "; offline: its broker says that its connection is lost" } else { "" };
    line("heard", format!("{heard}{by}{offline}"));
    if let Some(twins) = &node.twins {
        line("twins", twins_text(twins, now_ns));
    }
    if let Some(birth) = &node.birth {
        line("board", format!("{}, firmware {}", birth.board, birth.firmware));
        line("boot", format!("{}, reset cause: {}", birth.boot, birth.reset_cause));
        if !birth.last_panic.is_empty() {
            line("panic", birth.last_panic.clone());
        }
        if let Some(life) = &birth.lifetime {
            line(
                "lifetime",
                format!(
                    "{} boots, {} by watchdog (tasks {:#b}), {} after panics, {} brown-outs, {} asked for",
                    life.boots,
                    life.watchdog_resets,
                    life.hung_tasks,
                    life.panics,
                    life.brown_outs,
                    life.software_resets
                ),
            );
            line(
                "run before",
                format!(
                    "{} blocks dropped, {} lost with its memory",
                    life.dropped_before, life.unacknowledged_before
                ),
            );
        }
    }
    if let Some(status) = &node.status {
        let of = node.birth.as_ref().map_or_else(String::new, |birth| format!(" of {}", birth.ring_capacity));
        line(
            "ring",
            format!(
                "{}{of} blocks held, {} dropped, {} sent again",
                status.ring_used, status.dropped, status.resent
            ),
        );
        let more = status.more.map_or_else(String::new, |[answers, inbox, line]| {
            format!(", {answers} answers and {inbox} messages dropped, {line} bytes lost on the line")
        });
        line(
            "link",
            format!("{} connections{more}; status is {} old", status.connects, ago(now_ns, status.heard_ns)),
        );
    }
    match &node.clock {
        Some(clock) => line(
            "clock",
            format!(
                "drift {:.2} ppm, error {}, pairs within {} of the line ({} pairs, from {}){}",
                clock.drift_ppm,
                time_text(clock.error_ns.into()),
                time_text(clock.off_line_ns),
                clock.pairs,
                clock.source,
                if clock.doubtful { "; doubtful" } else { "" }
            ),
        ),
        None => line("clock", "no (tick, UTC) pair yet: times start from arrival".into()),
    }
    match &node.settings {
        Some(settings) => text.push_str(&settings_text(settings, &node.streams)),
        None => line("settings", "not told since the gateway started".into()),
    }
    for stream in &node.streams {
        text.push_str(&stream_text(stream));
    }
    text
}

fn twins_text(twins: &TwinsReport, now_ns: i64) -> String {
    let (boots, sources) = (twins.boots.join(" and "), twins.sources.join(" and "));
    let what = if twins.boots.len() > 1 {
        "two boards use this id: give one of them another"
    } else {
        "it comes by two ways: one is enough"
    };
    format!("{what} (boots {boots} by {sources} take turns since {} ago)", ago(now_ns, twins.since_ns))
}

fn stream_text(stream: &StreamReport) -> String {
    let unknown = || "-".to_owned();
    let count = |count: Option<u64>| count.map_or_else(unknown, |count| count.to_string());
    let rate = stream.rate_true_hz.map_or_else(|| "not known yet".to_owned(), |hz| format!("{hz:.3} Hz"));
    let bursts = stream.bursts.map_or_else(String::new, |[released, missed]| {
        format!(", bursts {released} released, {missed} missed")
    });
    let step = stream.step.map_or_else(unknown, |step| format!("{step:?}").to_lowercase());
    let temperature = stream.temperature_c.map_or_else(String::new, |c| format!(", {c:.2} °C"));
    format!(
        "sensor     {}: {}, axes {}, {} Hz nominal, true rate {rate}{temperature}\n           step {step}, taken {}, withheld {}, lost {}, \
         bus errors {}{bursts}\n",
        stream.sensor,
        stream.model,
        stream.axes,
        stream.rate_nominal_hz,
        count(stream.taken),
        count(stream.withheld),
        count(stream.lost),
        count(stream.bus_errors.map(u64::from)),
    )
}

/// Settings as lines, in the form that `set` takes.
pub(super) fn settings_text(report: &SettingsReport, streams: &[StreamReport]) -> String {
    let settings = &report.settings;
    let mut text = format!(
        "settings   version {}{}: status_every={}s time_every={}s\n",
        settings.version,
        if settings.version == 0 { " (built in)" } else { "" },
        settings.status_every_s,
        settings.time_every_s
    );
    for stream in &settings.streams {
        let name =
            streams.iter().find(|known| known.stream == stream.stream.0).map(|known| known.sensor.clone());
        let name = name.unwrap_or_else(|| stream.stream.0.to_string());
        text.push_str(&stream_settings_text(&name, stream));
    }
    text
}

fn stream_settings_text(name: &str, stream: &StreamSettings) -> String {
    let trigger = &stream.trigger;
    format!(
        "           {name}.step={} {name}.may_degrade={} {name}.axes={:#b} {name}.decimation={} {name}.codec={} \
         {name}.block_samples={}\n           {name}.trigger.level={} {name}.trigger.every={}s {name}.trigger.before={} \
         {name}.trigger.after={} {name}.trigger.rest={}s\n",
        format!("{:?}", stream.step).to_lowercase(),
        stream.may_degrade,
        stream.axes,
        stream.decimation,
        format!("{:?}", stream.codec).to_lowercase(),
        stream.block_samples,
        trigger.level,
        trigger.every_s,
        trigger.before,
        trigger.after,
        trigger.rest_s
    )
}
