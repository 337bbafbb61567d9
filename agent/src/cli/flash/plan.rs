//! What is going to be done, before anything is: the steps with their commands.

use super::Args;
use super::build::grouped;
use super::place::Place;
use super::tools::Tool;
use anyhow::{Context as _, bail, ensure};
use spindle_common::hardware::{Board, Catalog, Flash, Node, NodeLink};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How QEMU's user network shows the host's loopback.
const HOST_IN_QEMU: &str = "10.0.2.2";
/// What stands for the image's file until it is built.
pub(super) const ELF: &str = "ELF";

/// All steps.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) board: Board,
    pub(super) node: Node,
    hardware: PathBuf,
    /// What its link would carry, and can carry, bits per second.
    load: (u64, u64),
    pub(super) build: Tool,
    pub(super) way: Way,
    pub(super) place: Place,
    /// Whether a login is in the image.
    pub(super) is_secret: bool,
    timeout: Duration,
}

/// How the image gets onto the board.
#[derive(Debug)]
pub(super) enum Way {
    /// By a probe.
    Probe {
        /// probe-rs's name of the chip.
        chip: String,
    },
    /// As a file.
    Uf2 { family_id: u32, flash: Range<u64>, file: Option<PathBuf>, drive: Option<PathBuf> },
    /// Into QEMU.
    Emulate {
        machine: String,
        /// In place of the node's broker, as the board sees it.
        broker: Option<String>,
        is_serial: bool,
    },
}

impl Plan {
    pub(super) fn new(
        args: &Args,
        catalog: &Catalog,
        hardware: &Path,
        source: &Path,
    ) -> anyhow::Result<Self> {
        let known =
            |names: Vec<&String>| names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let board = catalog.boards.get(&args.board).with_context(|| {
            format!("there is no board {}; there are: {}", args.board, known(catalog.boards.keys().collect()))
        })?;
        let node = catalog.nodes.get(&args.node).with_context(|| {
            let of_board = catalog.nodes.values().filter(|node| node.board == board.name);
            let names = known(of_board.map(|node| &node.name).collect());
            format!(
                "there is no {}/nodes/{}.toml; nodes with this board: {names}",
                hardware.display(),
                args.node
            )
        })?;
        ensure!(
            node.board == board.name,
            "node {} is on board {}, not on {}: correct --board, or `board` in {}/nodes/{0}.toml",
            node.name,
            node.board,
            board.name,
            hardware.display()
        );
        let way = way(args, catalog, board, node)?;
        let ours = source.join("hardware-configs");
        let is_ours = ours.canonicalize().ok().is_some_and(|ours| hardware.canonicalize().ok() == Some(ours));
        let features = match node.link {
            NodeLink::Ethernet { tls: true, .. } => &["--features", "tls"][..],
            _ => &[],
        };
        let build = Tool::new("tests/firmware", "it is part of the source tree")
            .folder(source)
            .variable("SPINDLE_HARDWARE", (!is_ours).then(|| hardware.into()))
            .variable("SPINDLE_CREDENTIALS", credentials(args, node)?.map(PathBuf::into_os_string))
            .arguments(["--json", "--node", &node.name])
            .arguments(features)
            .arguments([&board.name]);
        let loads = node.sensor.iter().filter_map(|place| {
            catalog.sensors.get(&place.sensor).map(|sensor| place.load(sensor).bits_per_s())
        });
        let load = (loads.sum::<f64>() as u64, catalog.link_bits_per_s(node).unwrap_or(0));
        let place = Place::of(args, node)?;
        Ok(Self {
            board: board.clone(),
            node: node.clone(),
            hardware: hardware.to_owned(),
            load,
            build,
            way,
            place,
            is_secret: args.credentials.is_some(),
            timeout: args.timeout,
        })
    }

    /// `site/machine/node`.
    pub(super) fn key(&self) -> String {
        format!("{}/{}/{}", self.node.site, self.node.machine, self.node.name)
    }

    /// What the first step has found.
    pub(super) fn checked(&self) -> String {
        let (load, capacity) = self.load;
        format!(
            "{}: board {} ({}), node {}; its raw data takes {} of the link's {} kbit/s",
            self.hardware.display(),
            self.board.name,
            self.board.title,
            self.key(),
            grouped(load / 1000),
            grouped(capacity / 1000)
        )
    }
}

/// The folder of credentials, if one is named and holds this node's.
fn credentials(args: &Args, node: &Node) -> anyhow::Result<Option<PathBuf>> {
    let Some(folder) = &args.credentials else { return Ok(None) };
    let folder = std::path::absolute(folder).with_context(|| folder.display().to_string())?;
    let login = folder.join("nodes").join(&node.name).join("login.toml");
    ensure!(
        login.is_file(),
        "there is no {}; make it: spindle provision --out {} --node {}",
        login.display(),
        folder.display(),
        node.name
    );
    Ok(Some(folder))
}

fn way(args: &Args, catalog: &Catalog, board: &Board, node: &Node) -> anyhow::Result<Way> {
    let name = &board.name;
    let wants_file = args.uf2.is_some() || args.drive.is_some();
    let Some(flash) = &board.flash else {
        bail!("board {name} has no table [flash] in its file: {}", board.title);
    };
    if args.emulate && !matches!(flash, Flash::Qemu { .. }) {
        let is_emulated = |node: &&Node| {
            let board = catalog.boards.get(&node.board);
            board.is_some_and(|board| matches!(board.flash, Some(Flash::Qemu { .. })))
        };
        let others = catalog.nodes.values().filter(is_emulated);
        let others = others
            .map(|node| format!("\n  spindle flash --board {} --node {} --emulate", node.board, node.name));
        bail!("board {name} is not emulated; what is:{}", others.collect::<String>());
    }
    match flash {
        Flash::Qemu { .. } if !args.emulate => {
            bail!("board {name} exists in emulation only: add --emulate")
        }
        Flash::Qemu { machine, .. } => {
            let broker = args.broker.as_deref().map(as_in_qemu).transpose()?;
            let is_serial = matches!(node.link, NodeLink::Serial { .. });
            Ok(Way::Emulate { machine: machine.clone(), broker, is_serial })
        }
        Flash::ProbeRs { .. } if wants_file => {
            bail!("board {name} is flashed by its probe and takes no UF2 file")
        }
        Flash::ProbeRs { chip, .. } => Ok(Way::Probe { chip: chip.clone() }),
        Flash::Uf2 { chip, .. } if args.probe => {
            let chip = chip.clone().with_context(|| format!("board {name} names no chip for probe-rs"))?;
            Ok(Way::Probe { chip })
        }
        Flash::Uf2 { family_id, flash_start, .. } => {
            let start = u64::from(*flash_start);
            let len =
                board.processor.flash_bytes.with_context(|| format!("board {name} names no flash_bytes"))?;
            let file = match (&args.uf2, &args.drive) {
                (None, None) => Some(PathBuf::from(format!("{}.uf2", node.name))),
                (file, _) => file.clone(),
            };
            Ok(Way::Uf2 { family_id: *family_id, flash: start..start + len, file, drive: args.drive.clone() })
        }
    }
}

/// The broker's address as the emulated board sees it.
fn as_in_qemu(address: &str) -> anyhow::Result<String> {
    let (host, port) = address.rsplit_once(':').context("--broker: write HOST:PORT")?;
    let port: u16 = port.parse().with_context(|| format!("--broker: `{port}` is no port"))?;
    let ip: Option<std::net::Ipv4Addr> = host.parse().ok();
    match ip {
        _ if host == "localhost" => Ok(format!("{HOST_IN_QEMU}:{port}")),
        Some(ip) if ip.is_loopback() => Ok(format!("{HOST_IN_QEMU}:{port}")),
        Some(ip) => Ok(format!("{ip}:{port}")),
        None => bail!("--broker {address}: a board knows no names, write the address in numbers"),
    }
}

impl Way {
    /// The programs that do it with this image, one after the other.
    pub(super) fn tools(&self, image: &OsStr) -> Vec<Tool> {
        match self {
            Self::Probe { chip } => {
                let probe = || Tool::new("probe-rs", "cargo install probe-rs-tools --locked");
                let image = [image.to_owned()];
                vec![
                    probe().arguments(["download", "--verify", "--chip", chip]).arguments(image),
                    probe().arguments(["reset", "--chip", chip]),
                ]
            }
            Self::Uf2 { .. } => Vec::new(),
            Self::Emulate { machine, broker, is_serial } => {
                let mut host = OsString::from("enable=on,target=native,arg=board");
                if let Some(broker) = broker {
                    host.push(format!(",arg=broker={broker}"));
                }
                let serial = if *is_serial { "pty" } else { "null" };
                let tool = Tool::new("qemu-system-arm", "apt-get install qemu-system-arm")
                    .arguments(["-M", machine, "-display", "none", "-monitor", "none"])
                    .arguments(["-serial", serial, "-nic", "user,id=net", "-semihosting-config"])
                    .arguments([host, "-kernel".into(), image.to_owned()]);
                vec![tool]
            }
        }
    }

    /// What it is called.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Probe { .. } => "probe",
            Self::Uf2 { .. } => "uf2",
            Self::Emulate { .. } => "emulate",
        }
    }

    /// Whether the board runs the image after this.
    pub(super) const fn starts_board(&self) -> bool {
        !matches!(self, Self::Uf2 { drive: None, .. })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "1. check {}", self.checked())?;
        writeln!(f, "2. build the image ELF:\n   {}", self.build.words())?;
        let limit = |limit: Option<u64>| limit.map_or_else(|| "unknown".into(), grouped);
        writeln!(
            f,
            "3. compare it with the board: {} bytes of flash, {} of RAM, and its budget: {} and {}",
            limit(self.board.processor.flash_bytes),
            limit(self.board.processor.ram_bytes),
            limit(self.board.budget.map(|budget| budget.flash_bytes)),
            limit(self.board.budget.map(|budget| budget.ram_bytes)),
        )?;
        let tools = self.way.tools(OsStr::new(ELF));
        match &self.way {
            Way::Probe { .. } => writeln!(f, "4. flash it by the probe:")?,
            Way::Emulate { .. } => writeln!(f, "4. start it in QEMU:")?,
            Way::Uf2 { family_id, file, drive, .. } => {
                let file = file.iter().map(|file| format!("to {}", file.display()));
                let drive = drive.iter().map(|drive| format!("to the board's drive {}", drive.display()));
                let places: Vec<_> = file.chain(drive).collect();
                writeln!(f, "4. write it as UF2, family {family_id:#010x}, {}", places.join(" and "))?;
            }
        }
        for tool in tools {
            writeln!(f, "   {}", tool.words())?;
        }
        if self.way.starts_board() {
            let place = self.place.words(&self.node);
            let timeout = humantime::format_duration(self.timeout);
            writeln!(
                f,
                "5. wait up to {timeout} for the birth of {}, and show its first second: {place}",
                self.key()
            )
        } else {
            writeln!(f, "5. {}", COPY_WORDS)
        }
    }
}

/// What remains to be done with a UF2 file.
pub(super) const COPY_WORDS: &str = "copy it to the drive that the board shows when it is plugged in with BOOTSEL held, or name that \
                                     drive with --drive";
