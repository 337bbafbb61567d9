//! `spindle simulate`: virtual boards, or recordings, through the firmware core into any broker or serial line.

mod node;
mod parts;
mod report;

use super::Outcome;
use crate::clock::Clock;
use crate::source::recording::{self, Recording};
use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use parts::OffsetDropped;
use report::{NodeReport, Progress, Report};
use spindle_common::hardware::{Catalog, Node};
use spindle_common::id::{NAME_LEN_MAX, is_name};
use spindle_common::wire::Encoding;
use spindle_firmware::host::{Board, Speed, VirtualBoard, VirtualSensor};
use spindle_firmware::sensor::iis3dwb::FullScale;
use spindle_firmware::sensor::signal::{Signal, Spindle};
use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Play virtual sensor boards, or recordings, into a broker or a serial line
///
/// Each board is the real firmware core: driver and chip model (or a recording in the chip's place), ring, uplink. It ends when the
/// gateway has acknowledged every block, so a gateway must be listening behind the broker.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 1 when not everything was acknowledged in time, or a full ring dropped blocks.\n\nExamples:\n  \
                  spindle simulate --broker localhost:1883 --for 30s              one board, real time\n  \
                  spindle simulate --broker localhost:1883 --boards 20 --speed full --samples 1000000\n  \
                  spindle simulate --broker localhost:1883 --manifest recordings/manifest.csv --speed full --json\n  \
                  spindle simulate --broker localhost:1883 --node mill-3-spindle --for 1min\n  \
                  spindle simulate --serial /dev/ttyUSB0 --baud 3000000 --for 1min"
)]
pub struct Args {
    /// MQTT broker
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "serial", conflicts_with = "serial")]
    broker: Option<String>,
    /// User name at the broker
    #[arg(long, requires = "broker", requires = "password_file")]
    user: Option<String>,
    /// File that holds the password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Serial device or pseudo terminal, once per board
    #[arg(long, value_name = "DEVICE")]
    serial: Vec<PathBuf>,
    /// Bits per second of the serial devices; 921600, or what the node's file says, unless told
    #[arg(long)]
    baud: Option<u32>,
    /// Number of virtual boards
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    boards: u32,
    /// So many of them have a bearing whose outer race begins to fail
    #[arg(long, value_name = "N", default_value_t = 0)]
    failing: u32,
    /// Play this node of --hardware-configs: its site, machine, sensors, block lengths and encodings; once per node
    #[arg(long, value_name = "NAME", conflicts_with_all = ["boards", "manifest", "site", "block_samples", "encoding"])]
    node: Vec<String>,
    /// Folder with boards, sensors, machines and nodes
    #[arg(long, value_name = "DIR", default_value = "hardware-configs", requires = "node")]
    hardware_configs: PathBuf,
    /// Play the recordings of this manifest instead. Blocks carry counts and a scale: an `offset` in the manifest is not
    /// sent, which is said on standard error and, by file and channel, in `offset_dropped` of --json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["boards", "failing", "samples"])]
    manifest: Option<PathBuf>,
    /// Only recordings whose file name contains this text
    #[arg(long, value_name = "TEXT", requires = "manifest")]
    only: Option<String>,
    /// Boards that play recordings at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: u32,
    /// Site, first part of every key
    #[arg(long, default_value = "sim")]
    site: String,
    /// How fast time runs: `real`, `full` (as fast as the gateway takes it) or a factor such as 10
    #[arg(long, value_name = "SPEED", default_value = "real", value_parser = parse_speed)]
    speed: Speed,
    /// Stop the sensors after this time by the clock on the wall
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Stop each sensor after so many samples per channel
    #[arg(long, value_name = "N")]
    samples: Option<u64>,
    /// Samples per channel and block
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=8192))]
    block_samples: u16,
    /// How blocks are encoded; the width follows the recording where 16 bits do not do
    #[arg(long, value_enum, default_value_t = Form::Raw16)]
    encoding: Form,
    /// Blocks sent ahead of the gateway's acknowledgement
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// How long to wait, after the sensors have stopped, for the last acknowledgement
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    drain: Duration,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// Encoding of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Little-endian integers
    Raw16,
    /// Lossless Rice codes
    Rice16,
}

impl Form {
    const fn for_bits(self, bits: u8) -> Encoding {
        match (self, bits > 16) {
            (Self::Raw16, false) => Encoding::Raw16,
            (Self::Raw16, true) => Encoding::Raw24,
            (Self::Rice16, false) => Encoding::Rice16,
            (Self::Rice16, true) => Encoding::Rice24,
        }
    }
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    match text {
        "real" => Ok(Speed::Real),
        "full" => Ok(Speed::Full),
        factor => match factor.parse::<f64>() {
            Ok(factor) if (0.001..=1e6).contains(&factor) => Ok(Speed::Factor(factor)),
            _ => Err("`real`, `full` or a factor from 0.001 to 1000000".into()),
        },
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; a time such as 30s or 5min"))
}

/// Bits per second where nothing else is told.
const BAUD: u32 = 921_600;

/// How long no board may be connected before the first was.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Frames of a rendered signal that boards at full speed play over and over: more speed, same load.
const LOOP_FRAMES: usize = 1 << 16;

/// A board to come.
enum Planned {
    Virtual(u32),
    /// A node's file, with what it refers to.
    Node(u32, Arc<Catalog>, Node),
    Recording(Recording),
}

impl Planned {
    /// Sensors, as far as they are known before it starts.
    fn sensors(&self) -> u64 {
        match self {
            Self::Virtual(_) | Self::Recording(_) => 1,
            Self::Node(_, _, node) => node.sensor.len() as u64,
        }
    }
}

/// A board that runs.
struct Running {
    board: Board,
    key: String,
}

impl Args {
    /// Plays until everything is acknowledged.
    pub fn run(self) -> anyhow::Result<Outcome> {
        ensure!(is_name(&self.site), "site `{}` is no name: 1 to 32 of A-Z a-z 0-9 . _ -", self.site);
        let (mut planned, offset_dropped) = self.plan()?;
        if let Some(first) = offset_dropped.first() {
            eprintln!(
                "left out the manifest's offset of {}: blocks carry none (such as {first})",
                super::count(offset_dropped.len(), "recording", "recordings")
            );
        }
        if !self.serial.is_empty() {
            let boards = planned.len();
            ensure!(
                boards == self.serial.len(),
                "{boards} boards need as many --serial devices, {} are given",
                self.serial.len()
            );
        }
        let password = match &self.password_file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the password in {}", path.display()))?,
            None => String::new(),
        };
        let clock = Clock::system();
        let start = clock.now();
        // Recordings are read only when their turn comes, so their length is not known yet.
        let total = self.samples.map(|samples| samples * planned.iter().map(Planned::sensors).sum::<u64>());
        let progress = Progress::start(self.json, planned.len(), total, self.duration);
        let endless = self.manifest.is_none() && self.samples.is_none() && self.duration.is_none();
        if endless && !self.json {
            eprintln!("plays until it is interrupted; --for or --samples set an end");
        }

        let at_once = if self.manifest.is_some() { self.at_once as usize } else { usize::MAX };
        let mut running: Vec<Running> = Vec::new();
        let mut done: Vec<NodeReport> = Vec::new();
        let mut names = HashSet::new();
        let mut serials = self.serial.iter();
        let mut connected = false;
        let mut deadline = None;
        while !(planned.is_empty() && running.is_empty()) {
            while running.len() < at_once
                && let Some(next) = planned.pop_front()
            {
                running.push(self.start(next, &password, serials.next(), &mut names, clock.now().utc_ns)?);
            }
            std::thread::sleep(Duration::from_millis(20));
            let elapsed = clock.now().since(start);
            if self.duration.is_some_and(|duration| elapsed >= duration) {
                planned.clear();
                running.iter().for_each(|running| running.board.stop());
            }
            let stopped =
                running.iter().all(|running| running.board.counters().sampled_out) && planned.is_empty();
            if stopped && deadline.is_none() {
                deadline = Some(elapsed + self.drain);
            }
            let late = deadline.is_some_and(|deadline| elapsed >= deadline);
            let (ended, going): (Vec<_>, Vec<_>) =
                running.into_iter().partition(|running| late || running.board.counters().is_complete());
            running = going;
            connected |= !ended.is_empty()
                || running.iter().any(|running| running.board.counters().uplink.connects > 0);
            if !connected && elapsed >= CONNECT_PATIENCE {
                bail!("no board could reach {} in {CONNECT_PATIENCE:?}", self.target());
            }
            done.extend(ended.into_iter().map(finish));
            progress.show(&done, running.iter().map(|running| &running.board), elapsed);
        }
        progress.clear();
        let report = Report::new(done, clock.now().since(start), offset_dropped);
        report.print(self.json)?;
        Ok(if report.complete { Outcome::Done } else { Outcome::Wrong })
    }

    fn target(&self) -> String {
        match &self.broker {
            Some(broker) => format!("the broker at {broker}"),
            None => {
                self.serial.iter().map(|device| device.display().to_string()).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn plan(&self) -> anyhow::Result<(VecDeque<Planned>, Vec<OffsetDropped>)> {
        if !self.node.is_empty() {
            ensure!(
                self.failing as usize <= self.node.len(),
                "{} cannot have {} failing",
                super::count(self.node.len(), "node", "nodes"),
                self.failing
            );
            let (catalog, nodes) = node::read(&self.hardware_configs, &self.node)?;
            let catalog = Arc::new(catalog);
            let planned = (0..).zip(nodes).map(|(number, node)| Planned::Node(number, catalog.clone(), node));
            return Ok((planned.collect(), Vec::new()));
        }
        let Some(path) = &self.manifest else {
            ensure!(
                self.failing <= self.boards,
                "{} boards cannot have {} failing",
                self.boards,
                self.failing
            );
            let boards = if self.serial.is_empty() { self.boards } else { u32::try_from(self.serial.len())? };
            return Ok(((0..boards).map(Planned::Virtual).collect(), Vec::new()));
        };
        let recordings = parts::wanted(recording::manifest(path)?, self.only.as_deref())?;
        let offsets = parts::offsets(&recordings);
        Ok((recordings.into_iter().map(Planned::Recording).collect(), offsets))
    }

    fn start(
        &self,
        planned: Planned,
        password: &str,
        serial: Option<&PathBuf>,
        names: &mut HashSet<String>,
        now_ns: i64,
    ) -> anyhow::Result<Running> {
        let baud = match &planned {
            Planned::Node(_, _, node) => self.baud.or(node::baud(node)),
            Planned::Virtual(_) | Planned::Recording(_) => self.baud,
        };
        let (board, key) = match planned {
            Planned::Node(number, catalog, node) => self.node_board(number, &catalog, &node)?,
            Planned::Virtual(number) => self.virtual_board(number),
            Planned::Recording(recording) => self.recording_board(&recording, names, now_ns)?,
        };
        let board = match (serial, &self.broker, &self.user) {
            (Some(device), _, _) => board.serial(device, baud.unwrap_or(BAUD)),
            (None, Some(broker), Some(user)) => board.mqtt_login(broker, user, password.trim_end()),
            (None, Some(broker), None) => board.mqtt(broker),
            (None, None, _) => bail!("neither --broker nor --serial is given"),
        };
        Ok(Running { board: board.speed(self.speed).window(self.window).start()?, key })
    }

    fn virtual_board(&self, number: u32) -> (VirtualBoard, String) {
        let machine = format!("mill-{}", number + 1);
        let spindle = self.spindle(number);
        let sensor = self.modelled("spindle", spindle, FullScale::G4);
        let sensor = self
            .ending(sensor, number)
            .block_samples(self.block_samples)
            .encoding(self.encoding.for_bits(16));
        let key = format!("{}/{machine}/spindle", self.site);
        (
            VirtualBoard::new(&self.site, machine, format!("{}-{}", self.site_prefix(), number + 1))
                .sensor(sensor),
            key,
        )
    }

    fn node_board(
        &self,
        number: u32,
        catalog: &Catalog,
        node: &Node,
    ) -> anyhow::Result<(VirtualBoard, String)> {
        let mut board = VirtualBoard::new(&node.site, &node.machine, &node.name);
        for (place, seed) in node.sensor.iter().zip(1..) {
            let spindle = self.spindle(number);
            let spindle = Spindle { seed: spindle.seed.wrapping_mul(8).wrapping_add(seed), ..spindle };
            let modelled = |name: &str, spindle, full_scale| self.modelled(name, spindle, full_scale);
            let sensor = node::sensor(catalog, place, spindle, modelled)
                .with_context(|| format!("node {}", node.name))?;
            board = board.sensor(self.ending(sensor, number));
        }
        let sensor = node.sensor.first().map_or("", |place| place.name.as_str());
        Ok((board, format!("{}/{}/{sensor}", node.site, node.machine)))
    }

    /// What board `number` measures: each machine has its own speed, as on a real floor.
    fn spindle(&self, number: u32) -> Spindle {
        let shaft_hz = 80.0 + 7.0 * (number % 13) as f32;
        let spindle = Spindle { shaft_hz, seed: number + 1, ..Spindle::default() };
        if number < self.failing { spindle.with_outer_race_fault(40.0, 20.0, 60.0) } else { spindle }
    }

    /// A sensor with a chip model.
    fn modelled(&self, name: &str, spindle: Spindle, full_scale: FullScale) -> VirtualSensor {
        let sensor = match self.speed {
            Speed::Full => VirtualSensor::frames(name, rendered(spindle, full_scale), true),
            Speed::Real | Speed::Factor(_) => VirtualSensor::spindle(name, spindle),
        };
        sensor.full_scale(full_scale)
    }

    /// With the rate that this part really has, and its end.
    fn ending(&self, sensor: VirtualSensor, number: u32) -> VirtualSensor {
        let sensor = sensor.rate_error(f64::from(number * 7 % 41) / 1000.0 - 0.02);
        match self.samples {
            Some(samples) => sensor.stop_after(samples),
            None => sensor,
        }
    }

    fn recording_board(
        &self,
        recording: &Recording,
        names: &mut HashSet<String>,
        now_ns: i64,
    ) -> anyhow::Result<(VirtualBoard, String)> {
        let name = unique(&name_of(parts::stem(&recording.file)), names);
        let machine = name_of(&recording.machine);
        let mut board = VirtualBoard::new(&self.site, &machine, &name);
        let mut seconds = 0f64;
        for part in parts::load(recording)? {
            seconds = seconds.max(part.playback.len() as f64 / part.playback.rate_hz());
            let encoding = self.encoding.for_bits(part.playback.bits());
            let sensor = name_of(&format!("{name}{}", part.suffix));
            let sensor = VirtualSensor::playback(sensor, part.playback).encoding(encoding);
            board = board.sensor(sensor.block_samples(self.block_samples));
        }
        if self.speed == Speed::Full {
            // So that its last sample is taken now, and none in the future.
            #[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
            let length_ns = (seconds * 1e9) as i64;
            board = board.utc_start_ns(now_ns.saturating_sub(length_ns));
        }
        Ok((board, format!("{}/{machine}/{name}", self.site)))
    }

    /// Node names must differ between sites that share a gateway.
    fn site_prefix(&self) -> &str {
        self.site.get(..self.site.len().min(NAME_LEN_MAX - 8)).unwrap_or("sim")
    }
}

/// Ends a board in order and says how it went.
fn finish(running: Running) -> NodeReport {
    let (node, produced) = (running.board.node().to_owned(), running.board.produced());
    let drained = running.board.drain_blocking(Duration::ZERO);
    NodeReport::new(node, running.key, produced, &drained)
}

fn rendered(spindle: Spindle, full_scale: FullScale) -> Arc<[[i16; 3]]> {
    let scale = full_scale.scale();
    let mut signal = spindle.start();
    (0..LOOP_FRAMES).map_while(|_| signal.next(scale)).collect()
}

/// The nearest thing to `text` that can be a name.
fn name_of(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '-' })
        .collect();
    if name.len() > NAME_LEN_MAX {
        // The end tells recordings of one series apart, so the middle goes.
        name = format!("{}~{}", &name[..8], &name[name.len() - (NAME_LEN_MAX - 9)..]).replace('~', "-");
    }
    if is_name(&name) { name } else { "recording".into() }
}

/// `name`, or with a number behind it if it was given away before.
fn unique(name: &str, names: &mut HashSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 2;
    while !names.insert(candidate.clone()) {
        let suffix = format!("-{number}");
        candidate = format!("{}{suffix}", &name[..name.len().min(NAME_LEN_MAX - suffix.len())]);
        number += 1;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_name_becomes_a_name_and_no_two_the_same() {
        let mut names = HashSet::new();
        let long = "EBI_F20IN_T100_D0p125IN_4000RPM_with_a_long_tail";
        for text in ["a b/c", long, long, "", "..", "ü", "M01_Aug_2019_OP01_000", "M01_Aug_2019_OP01_000"] {
            let name = unique(&name_of(text), &mut names);
            assert!(is_name(&name), "{text} gives {name}");
        }
        assert_eq!(names.len(), 8);
    }
}
