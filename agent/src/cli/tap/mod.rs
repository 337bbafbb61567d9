//! `spindle tap`: what flows, decoded, in the terminal.

pub(super) mod describe;

use super::Outcome;
use super::place::Place;
use crate::journal::{JournalReader, Read};
use crate::record::{Record, RecordKind};
use anyhow::Context as _;
use describe::{Line, describe_record, describe_wire};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, Incoming, MqttOptions};
use std::io::{ErrorKind, Write};
use std::time::Duration;

/// Bytes that one read of the journal takes.
const READ_BYTES: usize = 1 << 20;
/// How long one read of the journal waits for more.
const READ_WAIT: Duration = Duration::from_millis(200);

/// Show what flows, decoded, as it comes
///
/// Reads a gateway's journal beside the running gateway without touching it, or with --broker listens on an MQTT broker.
/// End it with Ctrl-C, or with --count.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  spindle tap --config gateway.toml\n  spindle tap --machine mill-1 --kind block --count 10\n  \
                        spindle tap --broker broker.plant:1883 --sensor spindle\n  \
                        spindle tap --from oldest --kind dead --json | jq .\n\nKinds: block, json, dead, gap, context, birth, status, \
                        time, features, burst, answer, offline, ack, cmd, set, settings, timeask, timetell"
)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Listen on this MQTT broker instead of reading a journal
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["config", "data_dir", "from"])]
    broker: Option<String>,
    /// Where to begin in the journal: newest, oldest, or an offset
    #[arg(long, value_name = "WHERE", default_value = "newest", value_parser = parse_from)]
    from: From,
    /// Only this site
    #[arg(long)]
    site: Option<String>,
    /// Only this machine
    #[arg(long)]
    machine: Option<String>,
    /// Only this sensor (or node, for what nodes say of themselves)
    #[arg(long)]
    sensor: Option<String>,
    /// Only these kinds (comma-separated or repeated)
    #[arg(long, value_delimiter = ',', value_parser = describe::KINDS)]
    kind: Vec<String>,
    /// End after this many lines
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum From {
    Newest,
    Oldest,
    Offset(u64),
}

fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "newest" => Ok(From::Newest),
        "oldest" => Ok(From::Oldest),
        _ => text.parse().map(From::Offset).map_err(|_| "write newest, oldest or an offset".into()),
    }
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    End,
}

impl Args {
    /// Prints until the end.
    pub fn run(self) -> anyhow::Result<Outcome> {
        match &self.broker {
            Some(address) => self.tap_broker(&address.clone()),
            None => self.tap_journal(),
        }?;
        Ok(Outcome::Done)
    }

    fn tap_journal(&self) -> anyhow::Result<()> {
        let dir = self.place.data_dir()?.join("journal");
        let reader = JournalReader::open_read_only(&dir)?;
        let mut next = match self.from {
            From::Newest => reader.next_offset()?,
            From::Oldest => reader.oldest_offset()?,
            From::Offset(offset) => offset,
        };
        let mut shown = 0;
        loop {
            match reader.read(next, READ_BYTES, READ_WAIT)? {
                Read::Batch(view) => {
                    for record in &view {
                        if self.wants_record(record) {
                            let line = describe_record(record);
                            if self.show(&line, &mut shown)? == Flow::End {
                                return Ok(());
                            }
                        }
                    }
                    next = view.next();
                }
                Read::Evicted { next: oldest } => {
                    eprintln!("spindle: records {next} to {} were evicted", oldest.saturating_sub(1));
                    next = oldest;
                }
                Read::Idle => {}
                Read::Closed => return Ok(()),
            }
        }
    }

    fn tap_broker(&self, address: &str) -> anyhow::Result<()> {
        let (host, port) = address.rsplit_once(':').context("--broker: write HOST:PORT")?;
        let port: u16 = port.parse().with_context(|| format!("--broker: `{port}` is no port"))?;
        let id = format!("spindle-tap-{}", std::process::id());
        let mut options = MqttOptions::new(id, host, port);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 16);
        client.subscribe("spindle/v1/#", QoS::AtMostOnce).context("cannot subscribe")?;
        let mut shown = 0;
        for event in connection.iter() {
            match event.map_err(|error| anyhow::anyhow!("broker {address}: {error}"))? {
                Event::Incoming(Packet::Publish(publish)) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    let line = describe_wire(&topic, &publish.payload);
                    if self.wants(&line) && self.show(&line, &mut shown)? == Flow::End {
                        return Ok(());
                    }
                }
                Event::Incoming(Incoming::ConnAck(_)) => eprintln!("spindle: connected to {address}"),
                _ => {}
            }
        }
        Ok(())
    }

    /// The cheap part of the filter, before anything is decoded.
    fn wants_record(&self, record: &Record) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let kind_fits = match record.kind {
            RecordKind::Node => true,
            other => self.kind.is_empty() || self.kind.iter().any(|kind| kind == describe::kind_name(other)),
        };
        fits(&self.site, &record.key.site)
            && fits(&self.machine, &record.key.machine)
            && fits(&self.sensor, &record.key.sensor)
            && kind_fits
    }

    fn wants(&self, line: &Line) -> bool {
        let mut parts = line.key.splitn(3, '/');
        let fits = |wanted: &Option<String>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
        let key_fits = fits(&self.site, parts.next())
            && fits(&self.machine, parts.next())
            && fits(&self.sensor, parts.next());
        key_fits && (self.kind.is_empty() || self.kind.contains(&line.kind))
    }

    fn show(&self, line: &Line, shown: &mut u64) -> anyhow::Result<Flow> {
        if !self.kind.is_empty() && !self.kind.contains(&line.kind) {
            return Ok(Flow::On);
        }
        let mut out = std::io::stdout().lock();
        let written = if self.json { writeln!(out, "{}", line.json()) } else { writeln!(out, "{line}") };
        match written {
            Ok(()) => {}
            // `spindle tap | head` is a fine way to end it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Flow::End),
            Err(error) => return Err(error).context("cannot write to standard output"),
        }
        *shown += 1;
        Ok(if self.count.is_some_and(|count| *shown >= count) { Flow::End } else { Flow::On })
    }
}
