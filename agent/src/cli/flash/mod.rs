//! `spindle flash`: from the files of a board and a node to the first second of its data.

mod build;
mod first;
mod place;
mod plan;
#[cfg(test)]
mod tests;
mod tools;
mod uf2;
mod watch;

use super::Outcome;
use super::run::stop_on_signal;
use crate::clock::Clock;
use crate::hardware;
use crate::runtime::Stop;
use anyhow::{Context as _, bail, ensure};
use build::{Image, grouped};
use first::First;
use place::Place;
use plan::{COPY_WORDS, Plan, Way};
use serde_json::json;
use spindle_common::hardware::Catalog;
use std::ffi::OsStr;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tools::{POLL, Running};
use watch::{End, Watch};

/// How long QEMU may take to say which pseudo terminal it has made.
const PTY_MAX: Duration = Duration::from_secs(10);

/// Build a node's firmware, get it onto its board, and see its first second of data
///
/// Checks the hardware configurations, builds the image with the source tree's tests/firmware, compares it with the board's flash
/// and RAM, flashes it by a probe (probe-rs) or writes it as a UF2 file, or starts it in QEMU, then waits for the node's birth and
/// shows one second of each of its sensors. What is missing is named with the command that gets it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 done, the data was seen; 1 the hardware configurations are not right, or the image is over the \
                  board's budget; 2 wrong command line; 3 it could not be done.\n\nExamples:\n  \
                  spindle flash --board qemu-mps2 --node qemu-demo --emulate --broker 127.0.0.1:1883\n  \
                  spindle flash --board nucleo-h563zi --node mill-3-spindle --config gateway.toml --dry-run\n  \
                  spindle flash --board nucleo-h563zi --node mill-3-spindle --credentials ~/spindle-credentials\n  \
                  spindle flash --board w5500-evb-pico2 --node press-2-frame --drive /media/$USER/RP2350"
)]
pub struct Args {
    /// The board: a file of hardware-configs/boards
    #[arg(long, value_name = "NAME")]
    board: String,
    /// The node that it becomes: a file of hardware-configs/nodes
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Folder with boards, sensors, machines and nodes; default `gateway.hardware_configs` of --config, or the source tree's
    #[arg(long, value_name = "DIR", env = "SPINDLE_HARDWARE")]
    hardware: Option<PathBuf>,
    /// Spindle's source tree; default the current folder, or the nearest above it that is one
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Folder made by `spindle provision`: the node's login goes into the image, the gateway's is used to look at the data
    #[arg(long, value_name = "DIR", env = "SPINDLE_CREDENTIALS", hide_env_values = true)]
    credentials: Option<PathBuf>,
    /// The gateway's configuration: its way to the broker, or for a node on a serial line its journal, shows the data
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Broker at which this command looks, in place of the node's; with --emulate the board uses it, too
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    /// Start the image in QEMU and keep it running until Ctrl-C (board qemu-mps2)
    #[arg(long, conflicts_with_all = ["uf2", "drive", "probe"])]
    emulate: bool,
    /// With --emulate: end so long after the first second of data
    #[arg(long = "for", value_name = "TIME", requires = "emulate", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// With --emulate, for a node on a serial line: make a link to the line's device here, for the gateway's `device`
    #[arg(long, value_name = "PATH", requires = "emulate")]
    tty: Option<PathBuf>,
    /// Write the UF2 file here (boards that take one); default NODE.uf2
    #[arg(long, value_name = "FILE")]
    uf2: Option<PathBuf>,
    /// Copy the UF2 file to the board's drive, which is mounted here
    #[arg(long, value_name = "DIR")]
    drive: Option<PathBuf>,
    /// Flash by a probe although the board takes a UF2 file
    #[arg(long, conflicts_with_all = ["uf2", "drive"])]
    probe: bool,
    /// How long the birth may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Only show the steps with their commands
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object: {"node", "board", "way", "image", "uf2", "seen", "birth", "sensors"}; m/s²
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Does it, or shows what it would do.
    pub fn run(self) -> anyhow::Result<Outcome> {
        self.run_with(&std::env::var_os("PATH").unwrap_or_default())
    }

    fn run_with(&self, path: &OsStr) -> anyhow::Result<Outcome> {
        let source = self.source()?;
        let hardware = self.hardware(&source)?;
        let Some(catalog) = self.catalog(&hardware) else { return Ok(Outcome::Wrong) };
        let plan = Plan::new(self, &catalog, &hardware, &source)?;
        if self.dry_run {
            print!("{plan}");
            return Ok(Outcome::Done);
        }
        let (stop, clock) = (stop_on_signal()?, Clock::system());
        Flashing { args: self, plan: &plan, path, stop: &stop, clock: &clock }.run()
    }

    /// The source tree.
    fn source(&self) -> anyhow::Result<PathBuf> {
        let is_source = |folder: &Path| {
            folder.join("firmware/boards").is_dir() && folder.join("tests/firmware").is_file()
        };
        let here = std::env::current_dir().context("the current folder")?;
        let found = match &self.source {
            Some(folder) => Some(std::path::absolute(folder)?).filter(|folder| is_source(folder)),
            None => here.ancestors().find(|folder| is_source(folder)).map(Path::to_owned),
        };
        found.with_context(|| {
            let place = match &self.source {
                Some(folder) => format!("{} is none", folder.display()),
                None => format!("there is none at or above {}", here.display()),
            };
            format!(
                "the firmware is built from Spindle's source tree (it holds firmware/boards and tests/firmware), and {place}: \
                 run this inside of it, or name it with --source DIR"
            )
        })
    }

    fn hardware(&self, source: &Path) -> anyhow::Result<PathBuf> {
        let named = match (&self.hardware, &self.config) {
            (Some(folder), _) => Some(folder.clone()),
            (None, Some(file)) => crate::config::load(file)?.gateway.hardware_configs,
            (None, None) => None,
        };
        let folder = named.unwrap_or_else(|| source.join("hardware-configs"));
        std::path::absolute(&folder).with_context(|| folder.display().to_string())
    }

    /// The configurations; none when they are not right, which has been said.
    fn catalog(&self, folder: &Path) -> Option<Catalog> {
        let errors = match hardware::load(folder) {
            Ok(catalog) => return Some(catalog),
            Err(errors) => errors,
        };
        if self.json {
            let problem = |error: &spindle_common::hardware::HardwareError| json!({ "file": error.path, "line": error.line, "what": error.reason });
            println!("{}", json!({ "problems": errors.0.iter().map(problem).collect::<Vec<_>>() }));
        } else {
            println!("{errors}\n{} not right", super::count(errors.0.len(), "place is", "places are"));
        }
        None
    }
}

/// The work.
struct Flashing<'a> {
    args: &'a Args,
    plan: &'a Plan,
    path: &'a OsStr,
    stop: &'a Stop,
    clock: &'a Clock,
}

impl Flashing<'_> {
    fn run(&self) -> anyhow::Result<Outcome> {
        let Self { args, plan, .. } = self;
        self.say(&format!("1. {}", plan.checked()));
        // Before the build, which takes minutes.
        self.find_tools()?;
        self.say(&format!("2. {}", plan.build.words()));
        let image = build::image(&plan.build, self.path, self.stop, args.json)?;
        self.say(&format!("3. {}", image.elf.display()));
        self.say(image.sizes(&plan.board).trim_end());
        if !image.within_budget {
            self.say("   over the board's budget: see [budget] in its file");
            self.show(&image, None, None);
            return Ok(Outcome::Wrong);
        }
        let before = self.run_before()?;
        let journal = match &plan.place {
            Place::Journal(folder) => Some(Place::journal(folder)?),
            _ => None,
        };
        let uf2 = match &plan.way {
            Way::Uf2 { family_id, flash, file, drive } => {
                self.write_uf2(&image, *family_id, flash, file.as_deref(), drive.as_deref())?
            }
            _ => None,
        };
        let mut board = self.start(&image)?;
        let _link = self.serial_line(board.as_mut())?;
        if !plan.way.starts_board() {
            self.say(&format!("5. {COPY_WORDS}"));
            self.show(&image, uf2.as_deref(), None);
            return Ok(Outcome::Done);
        }
        if matches!(plan.place, Place::Nowhere) {
            self.say(&format!("5. {}", place::no_gateway(&plan.node)));
            self.show(&image, uf2.as_deref(), None);
        } else {
            let first = self.see(First::new(&plan.node.name, before), journal, board.as_mut())?;
            self.say(first.text().trim_end());
            self.show(&image, uf2.as_deref(), Some(&first));
        }
        if let Some(mut board) = board {
            self.keep_running(&mut board)?;
        }
        Ok(Outcome::Done)
    }

    /// Says how it goes, for people.
    fn say(&self, text: &str) {
        if !self.args.json {
            println!("{text}");
            // A reader at the other end of a pipe is to see it now; one that is gone is no reason to stop half-way.
            let _ = std::io::stdout().flush();
        }
    }

    fn find_tools(&self) -> anyhow::Result<()> {
        for tool in self.plan.way.tools(OsStr::new(plan::ELF)) {
            tool.find(self.path)?;
        }
        if let Place::Journal(folder) = &self.plan.place {
            Place::journal(folder)?;
        }
        if let (Place::Broker(source), Way::Emulate { .. }) = (&self.plan.place, &self.plan.way) {
            let port = source.address.rsplit_once(':').map_or("1883", |(_, port)| port);
            watch::run_before(source, &self.plan.node, self.clock, self.stop).with_context(|| {
                format!("start a broker (mosquitto -p {port}, or `spindle run` with [source.listener]) or name one with --broker HOST:PORT")
            })?;
        }
        Ok(())
    }

    /// The run before this one, whose birth the broker still has.
    fn run_before(&self) -> anyhow::Result<Option<u64>> {
        let (Place::Broker(source), true) = (&self.plan.place, self.plan.way.starts_board()) else {
            return Ok(None);
        };
        match watch::run_before(source, &self.plan.node, self.clock, self.stop) {
            Ok(before) => Ok(before),
            Err(error) if matches!(self.plan.way, Way::Emulate { .. }) => Err(error),
            Err(error) => {
                eprintln!("spindle: {error:#}; the board is flashed all the same");
                Ok(None)
            }
        }
    }

    fn write_uf2(
        &self,
        image: &Image,
        family_id: u32,
        flash: &Range<u64>,
        file: Option<&Path>,
        drive: Option<&Path>,
    ) -> anyhow::Result<Option<PathBuf>> {
        let elf = image.read()?;
        let content = uf2::segments(&elf)
            .and_then(|segments| uf2::file(&segments, family_id, flash))
            .with_context(|| image.elf.display().to_string())?;
        let mut paths: Vec<PathBuf> = file.map(Path::to_owned).into_iter().collect();
        if let Some(drive) = drive {
            ensure!(
                drive.join("INFO_UF2.TXT").is_file(),
                "{} is not the drive of a boot loader (no INFO_UF2.TXT): plug the board in with BOOTSEL held, and mount it",
                drive.display()
            );
            paths.push(drive.join(format!("{}.uf2", self.plan.node.name)));
        }
        for path in &paths {
            write_closed(path, &content).with_context(|| path.display().to_string())?;
            let secret =
                if self.plan.is_secret { "; it holds the node's password: keep it to yourself" } else { "" };
            let len = grouped(content.len() as u64);
            self.say(&format!("4. {}: {len} bytes{secret}", path.display()));
        }
        Ok(paths.into_iter().next())
    }

    /// Flashes by the probe, or starts QEMU.
    fn start(&self, image: &Image) -> anyhow::Result<Option<Running>> {
        let mut board = None;
        for tool in self.plan.way.tools(image.elf.as_os_str()) {
            self.say(&format!("4. {}", tool.words()));
            let mut running = tool.start(self.path)?;
            if matches!(self.plan.way, Way::Emulate { .. }) {
                board = Some(running);
                continue;
            }
            let status = running.wait(self.stop, |_| {})?;
            if !status.success() {
                bail!("{} ended with {status}:\n{}", tool.words(), running.said().trim_end());
            }
        }
        Ok(board)
    }

    /// The emulated serial line's device, and a link to it if one is wanted.
    fn serial_line(&self, board: Option<&mut Running>) -> anyhow::Result<Option<Link>> {
        let (Some(board), Way::Emulate { is_serial: true, .. }) = (board, &self.plan.way) else {
            return Ok(None);
        };
        let started = self.clock.now();
        let device = loop {
            let said = board.printed() + &board.said();
            let device = said.split_once("redirected to ").and_then(|(_, rest)| rest.split_once(' '));
            if let Some((device, _)) = device {
                break PathBuf::from(device);
            }
            ensure_running(board)?;
            ensure!(
                self.clock.now().since(started) < PTY_MAX,
                "QEMU names no pseudo terminal; it said: {said}"
            );
            self.stop.sleep(POLL);
        };
        let link = self.args.tty.as_deref().map(|path| Link::make(path, &device)).transpose()?;
        let shown = self.args.tty.as_deref().unwrap_or(&device);
        self.say(&format!(
            "   the board's serial line is {}: `device` of [[source.serial]]",
            shown.display()
        ));
        Ok(link)
    }

    fn see(
        &self,
        first: First,
        journal: Option<(crate::journal::JournalReader, u64)>,
        mut board: Option<&mut Running>,
    ) -> anyhow::Result<First> {
        let Self { args, plan, .. } = self;
        let place = plan.place.words(&plan.node);
        let limit = humantime::format_duration(args.timeout);
        self.say(&format!("5. waiting up to {limit} for the birth of {}, {place}", plan.key()));
        let is_emulated = board.is_some();
        let mut alive = || board.as_mut().map_or(Ok(()), |board| ensure_running(board));
        let watch = Watch::new(first, args.timeout, self.stop, self.clock, &mut alive);
        let (first, end) = match (&plan.place, journal) {
            (Place::Broker(source), _) => watch.at_broker(source, &plan.node)?,
            (_, Some((reader, next))) => watch.in_journal(&reader, next)?,
            (_, None) => bail!("there is no place to look at"),
        };
        let End::TimedOut(trouble) = end else { return Ok(first) };
        if first.birth.is_none() {
            let why = watch::why_no_birth(&plan.place, &plan.node, is_emulated, trouble.as_deref());
            bail!("no birth of {} came within {limit}; {why}", plan.key());
        }
        self.say(first.text().trim_end());
        bail!(
            "the node was born, but its first second of data is not whole (above is what came). A board keeps what no gateway has \
             acknowledged and sends at most 64 blocks ahead: start `spindle run`; or a sensor does not answer: `spindle node \
             selftest {} SENSOR`",
            plan.node.name
        )
    }

    /// Prints the result as JSON, if that is wanted.
    fn show(&self, image: &Image, uf2: Option<&Path>, first: Option<&First>) {
        if !self.args.json {
            return;
        }
        let mut result = json!({
            "node": self.plan.key(),
            "board": self.plan.board.name,
            "way": self.plan.way.name(),
            "image": image,
            "uf2": uf2,
            "seen": first.is_some(),
        });
        if let (Some(result), Some(serde_json::Value::Object(first))) =
            (result.as_object_mut(), first.and_then(|first| serde_json::to_value(first).ok()))
        {
            result.extend(first);
        }
        println!("{result}");
        let _ = std::io::stdout().flush();
    }

    /// Until Ctrl-C, or for the time that was asked for.
    fn keep_running(&self, board: &mut Running) -> anyhow::Result<()> {
        let started = self.clock.now();
        let is_over = || {
            let is_late = |limit| self.clock.now().since(started) >= limit;
            self.stop.is_set() || self.args.duration.is_some_and(is_late)
        };
        match self.args.duration {
            Some(time) => self.say(&format!("the board runs for {} more", humantime::format_duration(time))),
            None => self.say("the board runs; Ctrl-C ends it"),
        }
        while !is_over() {
            ensure_running(board)?;
            self.stop.sleep(POLL);
        }
        Ok(())
    }
}

fn ensure_running(board: &mut Running) -> anyhow::Result<()> {
    match board.status()? {
        None => Ok(()),
        Some(status) => bail!("QEMU has ended with {status}; it said:\n{}{}", board.printed(), board.said()),
    }
}

/// Writes an image that may hold a password: for its user only, where the file system knows users.
fn write_closed(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    // A boot loader resets with the last block and takes its drive away: then this fails although all is well.
    let _ = file.sync_all();
    Ok(())
}

/// A symbolic link that is removed when dropped.
#[derive(Debug)]
struct Link(PathBuf);

impl Link {
    #[cfg(unix)]
    fn make(path: &Path, device: &Path) -> anyhow::Result<Self> {
        let place = || path.display().to_string();
        // One that a killed command has left.
        if std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_symlink()) {
            std::fs::remove_file(path).with_context(place)?;
        }
        std::os::unix::fs::symlink(device, path).with_context(place)?;
        Ok(Self(path.to_owned()))
    }

    #[cfg(not(unix))]
    fn make(_: &Path, _: &Path) -> anyhow::Result<Self> {
        bail!("--tty needs a system with symbolic links to devices")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
