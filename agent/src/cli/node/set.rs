//! `spindle node set`.

use super::Target;
use super::change::{self, Named};
use super::client::{Client, words};
use super::show::settings_text;
use crate::cli::Outcome;
use crate::hardware;
use crate::session::report::{NodeReport, Order, OrderOutcome};
use anyhow::{Context as _, bail};
use spindle_common::hardware::Catalog;
use spindle_common::id::StreamId;
use spindle_common::settings::{Abilities, BURST_SAMPLES_MAX, Settings};
use spindle_common::wire::{BLOCK_SAMPLES_MAX, StreamInfo};
use std::path::PathBuf;

/// Change a node's settings while it runs
///
/// Reads those in force, changes what is named, checks the result against hardware-configs where the configuration names it, sends
/// it, and waits until the node says that it is in force. The node checks too: what it refuses changes nothing. It keeps them in
/// its flash.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys: status_every, time_every; per sensor step (raw, decimated, features), may_degrade (true, false), axes (xy), \
                  decimation (8), codec (raw, rice), block_samples (256), trigger.level (m/s²; 0: never), trigger.every (60s; 0: never), \
                  trigger.before, trigger.after (samples), trigger.rest (5s).\n\nExit code 1 when the node refuses.\n\nExamples:\n  \
                  spindle node set mill-3 spindle.step=decimated spindle.decimation=8 spindle.axes=xy\n  \
                  spindle node set mill-3 spindle.step=features spindle.trigger.level=20 spindle.trigger.after=512\n  \
                  spindle node set mill-3 --file quiet.toml      with status_every = \"60s\", [spindle], step = \"features\", ..."
)]
pub(super) struct Args {
    /// Its name, or site/machine/node
    node: String,
    /// What to change, such as spindle.codec=rice
    #[arg(value_name = "KEY=VALUE", value_parser = change::split, required_unless_present = "file")]
    changes: Vec<(String, String)>,
    /// Changes from a TOML file; those on the command line come after
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

impl Args {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let mut client = Client::open(&self.target)?;
        let catalog = self.target.place.hardware()?.as_deref().map(hardware::load).transpose()?;
        let mut changes = match &self.file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(anyhow::Error::from)
                .and_then(|text| change::of_toml(&text))
                .with_context(|| path.display().to_string())?,
            None => Vec::new(),
        };
        changes.extend(self.changes.iter().cloned());
        let before = client.node(&self.node)?.1.settings.map(|settings| settings.heard_ns);
        client.order(&self.node, Order::Report)?;
        let report = client.wait(&self.node, "told its settings", |report| {
            let heard = report.settings.as_ref().map(|settings| settings.heard_ns);
            (heard.is_some() && heard != before && report.birth.is_some()).then(|| report.clone())
        })?;
        let Some(in_force) = &report.settings else { bail!("{} has not told its settings", self.node) };
        let mut settings = in_force.settings.clone();
        let sensors = named(&report, catalog.as_ref());
        for (key, value) in &changes {
            change::apply(&mut settings, &sensors, key, value)?;
        }
        settings.version = in_force.settings.version.checked_add(1).unwrap_or(1);
        if let Some(catalog) = &catalog {
            check(catalog, &report, &settings)?;
        }
        let version = settings.version;
        let answer = client.done(&self.node, Order::Set { settings: Box::new(settings) })?;
        if answer.outcome != OrderOutcome::Done {
            if self.target.json {
                println!("{}", serde_json::json!({ "node": self.node, "answer": answer }));
            } else {
                println!("{}: {}; the settings before stay in force", self.node, words(&answer));
            }
            return Ok(Outcome::Wrong);
        }
        let report = client.wait(&self.node, "put the settings in force", |report| {
            let in_force = report.settings.as_ref()?.settings.version == version;
            in_force.then(|| report.clone())
        })?;
        if self.target.json {
            println!(
                "{}",
                serde_json::json!({ "node": self.node, "answer": answer, "settings": report.settings })
            );
        } else if let Some(settings) = &report.settings {
            println!("{}: in force now", self.node);
            print!("{}", settings_text(settings, &report.streams));
        }
        Ok(Outcome::Done)
    }
}

/// The node's sensors with all their axes: as hardware-configs say, else as the birth says while nothing has been set.
fn named(report: &NodeReport, catalog: Option<&Catalog>) -> Vec<Named> {
    let is_set = report.birth.as_ref().is_some_and(|birth| birth.settings_version > 0);
    let sensors = report.streams.iter().map(|stream| {
        let known = catalog.and_then(|catalog| catalog.sensors.get(&stream.model));
        let axes = match known {
            Some(sensor) => sensor.axes.clone(),
            None if is_set => String::new(),
            None => stream.axes.clone(),
        };
        Named { stream: stream.stream, sensor: stream.sensor.clone(), axes }
    });
    sensors.collect()
}

/// Checks settings by what hardware-configs know of the node; of one that they do not know, nothing.
fn check(catalog: &Catalog, report: &NodeReport, settings: &Settings) -> anyhow::Result<()> {
    let Some(node) = catalog.nodes.get(&report.node) else { return Ok(()) };
    let link = catalog.link_bits_per_s(node).unwrap_or(u64::MAX);
    let mut streams = Vec::new();
    for (place, number) in node.sensor.iter().zip(0..) {
        let Some(sensor) = catalog.sensors.get(&place.sensor) else { return Ok(()) };
        streams.push(StreamInfo {
            stream: StreamId(number),
            sensor: &place.name,
            model: &place.sensor,
            axes: &sensor.axes,
            rate_nominal_mhz: sensor.rate_mhz(),
            scale: 1.0,
            bits: sensor.bits,
            block_samples: place.block_samples,
            encoding: place.encoding.encoding(sensor.bits),
        });
    }
    let abilities = Abilities {
        streams: &streams,
        link_bits_per_s: u32::try_from(link).unwrap_or(u32::MAX),
        // The board knows its buffers better.
        block_samples_max: u16::try_from(BLOCK_SAMPLES_MAX).unwrap_or(u16::MAX),
        burst_samples_max: BURST_SAMPLES_MAX,
    };
    settings
        .check(&abilities)
        .with_context(|| format!("by hardware-configs {} cannot do this; nothing was sent", report.node))
}
