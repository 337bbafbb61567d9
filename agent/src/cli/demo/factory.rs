//! The demo's machines, their boards, and what happens to them.

use super::sink::Sink;
use super::view::{MachineView, View};
use crate::config::{self, Config};
use anyhow::Context as _;
use parking_lot::Mutex;
use spindle_firmware::host::{Board, VirtualBoard, VirtualSensor};
use spindle_firmware::sensor::signal::Spindle;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SITE: &str = "demo";
const SENSOR: &str = "spindle";

/// Machine and shaft speed in Hz. The second one's bearing fails, the third one's link drops.
const MACHINES: [(&str, f32); 3] = [("mill-1", 100.0), ("mill-2", 133.0), ("lathe-1", 60.0)];
/// Index of the machine whose bearing fails.
const FAILING: usize = 1;
/// Index of the machine whose link drops.
const DROPPING: usize = 2;

/// When the bearing starts to fail, s.
const FAULT_AFTER_S: f32 = 4.0;
/// How long the fault grows, s.
const FAULT_GROWS_S: f32 = 4.0;
/// Peak of the impacts when fully grown, m/s²; below the chip's ±4 g.
const IMPACT: f32 = 28.0;
/// When the link drops, and when it is back.
const LINK_DOWN: Duration = Duration::from_secs(7);
const LINK_UP: Duration = Duration::from_secs(11);
/// Enough for more than the link's absence: 1,024 blocks are 19 s.
const RING_BYTES: usize = 4 << 20;

/// The gateway's configuration: what `spindle init` writes, cut down to this factory.
pub(super) fn config(dir: &Path, brokers: &str) -> anyhow::Result<Config> {
    let dir = toml::Value::String(dir.display().to_string());
    let text = format!(
        r#"
[gateway]
name = "demo"
data_dir = {dir}

[api]
enabled = false

[source.listener]
bind = "127.0.0.1:0"

[[rule]]
name = "bearing"
sensor = "*/*/{SENSOR}"
feature = "acceleration_rms"
unit = "m/s2"
above = 2.5
deadband = 0.5
on_delay = "1s"
severity = "alarm"

[forward.kafka]
brokers = "{brokers}"
partitions = 3
"#
    );
    Ok(config::parse(&text, "demo configuration")?)
}

/// The machines as they are shown before anything has come.
pub(super) fn machines() -> Vec<MachineView> {
    let machine = |(name, _): (&str, f32)| MachineView {
        name: name.into(),
        key: key(name),
        link_down: false,
        ..MachineView::default()
    };
    MACHINES.map(machine).into()
}

fn key(machine: &str) -> String {
    format!("{SITE}/{machine}/{SENSOR}")
}

/// The running boards.
pub(super) struct Factory {
    boards: Vec<Board>,
    fault_told: AtomicBool,
    link_down: AtomicBool,
}

impl Factory {
    /// Starts all boards; tells `sink` what will come.
    pub(super) fn start(address: &str, sink: &mut Sink) -> anyhow::Result<Self> {
        let mut boards = Vec::new();
        for (index, (machine, shaft_hz)) in MACHINES.into_iter().enumerate() {
            let seed = u32::try_from(index).unwrap_or(0) + 1;
            let mut spindle = Spindle { shaft_hz, seed, ..Spindle::default() };
            if index == FAILING {
                spindle = spindle.with_outer_race_fault(IMPACT, FAULT_AFTER_S, FAULT_GROWS_S);
            }
            let sensor = VirtualSensor::spindle(SENSOR, spindle).rate_error(0.004 * f64::from(seed));
            let board = VirtualBoard::new(SITE, machine, format!("{machine}-node"))
                .sensor(sensor)
                .mqtt(address)
                .ring_bytes(RING_BYTES)
                .tapped()
                .start()
                .with_context(|| format!("virtual board of {machine}"))?;
            let tap = board.tap(0).context("the board has no sensor")?.clone();
            sink.expect(&key(machine), 3, Box::new(move || tap.take()));
            boards.push(board);
        }
        Ok(Self { boards, fault_told: AtomicBool::new(false), link_down: AtomicBool::new(false) })
    }

    /// Samples per channel that the models have produced.
    pub(super) fn produced(&self) -> u64 {
        self.boards.iter().map(Board::produced).sum()
    }

    /// Does what is due, and says so.
    pub(super) fn act(&self, elapsed: Duration, view: &mut View) {
        let at_s = elapsed.as_secs();
        if elapsed.as_secs_f32() >= FAULT_AFTER_S && !self.fault_told.swap(true, Ordering::Relaxed) {
            view.event(
                at_s,
                false,
                format!("the bearing of {} starts to fail (nobody tells the gateway)", MACHINES[FAILING].0),
            );
        }
        let cut = (LINK_DOWN..LINK_UP).contains(&elapsed);
        if cut != self.link_down.swap(cut, Ordering::Relaxed) {
            let name = MACHINES[DROPPING].0;
            if let Some(board) = self.boards.get(DROPPING) {
                board.cut_link(cut);
            }
            let text =
                if cut { "drops; its board keeps what it measures" } else { "is back; the board catches up" };
            view.event(at_s, false, format!("the link of {name} {text}"));
        }
        for (machine, board) in view.machines.iter_mut().zip(&self.boards) {
            machine.link_down = !board.counters().connected;
        }
    }

    /// Ends the sensors and waits until the gateway has acknowledged everything; whether it has.
    pub(super) fn drain(self, wait: Duration, view: &Mutex<View>) -> bool {
        for board in &self.boards {
            board.cut_link(false);
            board.stop();
        }
        let taps: Vec<_> = self.boards.iter().filter_map(|board| board.tap(0).cloned()).collect();
        let complete: Vec<bool> =
            self.boards.into_iter().map(|board| board.drain_blocking(wait).complete).collect();
        view.lock().produced = taps.iter().map(|tap| tap.produced()).sum();
        complete.iter().all(|complete| *complete)
    }
}
