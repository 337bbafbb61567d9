//! The emulated board: QEMU running the firmware of `firmware/boards/qemu-mps2`, its network cable and its serial line.

use crate::process::{self, Process};
use crate::{tools, wait};
use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The machine that the firmware is built for.
const MACHINE: &str = "mps2-an386";

/// Images by node. Locked while one is built: each build puts its image at the same place.
static BUILT: Mutex<BTreeMap<String, Image>> = Mutex::new(BTreeMap::new());

/// A firmware image of the emulated board, built for one node of `hardware-configs`.
#[derive(Debug, Clone)]
pub struct Image {
    path: PathBuf,
    /// The program beside it that counts what parts of the firmware cost.
    pub(crate) cost: PathBuf,
    _folder: Arc<TempDir>,
}

/// What an image is built of, besides the project's own files.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// The node.
    pub node: &'a str,
    /// Features of the board's crate, with commas.
    pub features: Option<&'a str>,
    /// A folder in place of `hardware-configs`.
    pub hardware: Option<&'a Path>,
    /// What `spindle provision` made.
    pub credentials: Option<&'a Path>,
}

impl Image {
    /// The image for this node, built by `tests/firmware` when a test asks for it first.
    ///
    /// # Errors
    /// When it cannot be built, with the end of what the build said.
    pub fn of(node: &str) -> Result<Self> {
        let mut built = BUILT.lock();
        if let Some(image) = built.get(node) {
            return Ok(image.clone());
        }
        let image = Self::make(&Recipe { node, features: None, hardware: None, credentials: None })?;
        built.insert(node.to_owned(), image.clone());
        Ok(image)
    }

    /// An image by this recipe, built now.
    ///
    /// # Errors
    /// As [`Image::of`].
    pub fn by(recipe: &Recipe<'_>) -> Result<Self> {
        let _one_at_a_time = BUILT.lock();
        Self::make(recipe)
    }

    fn make(recipe: &Recipe<'_>) -> Result<Self> {
        let mut command = Command::new(tools::root().join("tests/firmware"));
        command.args(["--json", "--node", recipe.node]);
        if let Some(features) = recipe.features {
            command.args(["--features", features]);
        }
        command.arg("qemu-mps2");
        for (name, folder) in
            [("SPINDLE_HARDWARE", recipe.hardware), ("SPINDLE_CREDENTIALS", recipe.credentials)]
        {
            match folder {
                Some(folder) => command.env(name, folder),
                None => command.env_remove(name),
            };
        }
        // What cargo tells the tests' own program is not meant for another cargo.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let ours = name.starts_with("CARGO") && name != "CARGO_HOME" && name != "CARGO_TARGET_DIR";
            if ours || name == "LD_LIBRARY_PATH" || name == "RUSTUP_TOOLCHAIN" {
                command.env_remove(name.as_ref());
            }
        }
        let output = command.output().context("start tests/firmware")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tests/firmware ended with {}:\n{said}", output.status);
        let line: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("tests/firmware printed no JSON:\n{said}"))?;
        let elf = line["elf"].as_str().context("tests/firmware names no image")?;
        let folder = process::folder("image")?;
        let path = folder.path().join(recipe.node);
        std::fs::copy(elf, &path).with_context(|| format!("copy {elf}"))?;
        let cost = folder.path().join("cost");
        std::fs::copy(format!("{elf}-cost"), &cost).with_context(|| format!("copy {elf}-cost"))?;
        Ok(Self { path, cost, _folder: Arc::new(folder) })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// How the board is joined to the rest.
#[derive(Debug, Clone, Default)]
pub struct Wiring {
    /// Port of a broker on this host's loopback.
    pub broker_port: Option<u16>,
    /// Device file of the serial line.
    pub serial: Option<PathBuf>,
    /// An instruction takes 2 to this power nanoseconds of the board's time; without it, whatever it takes.
    pub icount_shift: Option<u32>,
}

/// A running board; its power is cut when dropped.
#[derive(Debug)]
pub struct Emulated {
    process: Process,
    folder: TempDir,
}

impl Emulated {
    /// Switches a board on. `words` are what the board's program takes from its command line, such as `seed=3`.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn start(image: &Image, wiring: &Wiring, words: &[&str]) -> Result<Self> {
        let folder = process::folder("board")?;
        let mut command = tools::command("qemu-system-arm");
        command.args(["-M", MACHINE, "-display", "none", "-nic", "user,id=net"]);
        let monitor = folder.path().join("monitor");
        command.args(["-monitor", &format!("unix:{},server=on,wait=off", monitor.display())]);
        match &wiring.serial {
            Some(device) => {
                command.args(["-chardev", &format!("serial,id=line,path={}", device.display())]);
                command.args(["-serial", "chardev:line"]);
            }
            None => drop(command.args(["-serial", "null"])),
        }
        if let Some(shift) = wiring.icount_shift {
            command.args(["-icount", &format!("shift={shift}")]);
        }
        let mut arguments = String::from("enable=on,target=native,arg=board");
        if let Some(port) = wiring.broker_port {
            // QEMU's user network shows the host's loopback as 10.0.2.2.
            arguments.push_str(&format!(",arg=broker=10.0.2.2:{port}"));
        }
        for word in words {
            arguments.push_str(&format!(",arg={word}"));
        }
        command.args(["-semihosting-config", &arguments]).arg("-kernel").arg(image.path());
        let process = Process::spawn("qemu-system-arm", &mut command, &folder.path().join("log"))?;
        let mut board = Self { process, folder };
        board.wait_for_start(0, Duration::from_secs(30))?;
        Ok(board)
    }

    /// Gives QEMU's monitor a command and waits until it has done it.
    ///
    /// # Errors
    /// When the monitor does not answer.
    pub fn monitor(&self, order: &str) -> Result<()> {
        let mut socket = UnixStream::connect(self.folder.path().join("monitor")).context("QEMU's monitor")?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        writeln!(socket, "{order}\ninfo version")?;
        // The version comes after what the order did.
        for line in BufReader::new(socket).lines() {
            if line.context("QEMU's monitor")?.starts_with(|first: char| first.is_ascii_digit()) {
                return Ok(());
            }
        }
        bail!("QEMU's monitor closed on {order:?}")
    }

    /// Pulls the network cable (false) or plugs it in (true).
    ///
    /// # Errors
    /// When the monitor does not answer.
    pub fn link(&self, up: bool) -> Result<()> {
        self.monitor(&format!("set_link net {}", if up { "on" } else { "off" }))
    }

    /// What the board has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Values of the `nth` line of the log that starts with `word`: `NAME=VALUE` each, quotes taken off.
    #[must_use]
    pub fn line(&self, word: &str, nth: usize) -> Option<BTreeMap<String, String>> {
        let log = self.log();
        // A line may be half written.
        let whole = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let line = whole.filter(|line| line.starts_with(word)).nth(nth)?;
        let mut values = BTreeMap::new();
        let mut rest = line.strip_prefix(word)?.trim_start();
        while let Some((name, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once("\" ").unwrap_or((quoted.trim_end_matches('"'), "")),
                None => after.split_once(' ').unwrap_or((after, "")),
            };
            values.insert(name.to_owned(), value.to_owned());
            rest = next;
        }
        Some(values)
    }

    /// The boot id of the `nth` start, from 0.
    ///
    /// # Errors
    /// When there was no such start.
    pub fn boot(&self, nth: usize) -> Result<u64> {
        let line = self.line("start", nth).with_context(|| format!("no start {nth} in:\n{}", self.log()))?;
        let boot = line.get("boot").context("the start line names no boot")?;
        Ok(u64::from_str_radix(boot, 16)?)
    }

    /// Waits for a text on the board's console.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_for_log(&mut self, text: &str, patience: Duration) -> Result<()> {
        self.process.wait_for_log(text, patience)
    }

    /// Waits for the `nth` start, from 0: a board that was reset starts again.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_for_start(&mut self, nth: usize, patience: Duration) -> Result<()> {
        wait::until(&format!("start {nth} of the board"), patience, || {
            if self.line("start", nth).is_some() {
                return Ok(Some(()));
            }
            self.process.ensure_running()?;
            Ok(None)
        })
    }

    /// Waits until the board has sent everything, was acknowledged and has ended by itself; gives its last counters.
    ///
    /// # Errors
    /// When it ends badly or not at all.
    pub fn finish(mut self, patience: Duration) -> Result<BTreeMap<String, String>> {
        let status = self.process.wait(patience)?;
        ensure!(status.success(), "the board ended with {status}; its log:\n{}", self.log());
        self.line("end", 0).with_context(|| format!("no last counters in:\n{}", self.log()))
    }
}
