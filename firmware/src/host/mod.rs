//! Virtual boards: the real core, driver and chip model, with tokio's sockets and serial ports, many in one process.
//!
//! Boards run on a few threads of this module's own, each a single-threaded tokio runtime, so a board needs no locks
//! inside, exactly as on a microcontroller. [`VirtualBoard`] is what to build, [`Board`] is one that runs.

mod board;
mod chip;
mod flash;
mod io;
mod playback;
mod sampling;
mod tap;
mod time_driver;
mod timebase;
mod utc;
mod workers;

pub use board::{Board, Counters, Drained};
pub use chip::Chip;
pub use playback::Playback;
pub use tap::Tap;
pub use timebase::Speed;

use crate::sensor::iis3dwb::FullScale;
use crate::sensor::signal::Spindle;
use spindle_common::id::is_name;
use spindle_common::settings::Settings;
use spindle_common::wire::Encoding;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;

/// Why a virtual board was not started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A name that cannot be part of a topic.
    #[error("{what} {name:?} is no name: 1 to 32 of A-Z a-z 0-9 . _ -")]
    Name {
        /// Which name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// No sensors, or too many.
    #[error("a node has 1 to 8 sensors, not {count}")]
    Sensors {
        /// How many.
        count: usize,
    },
    /// A sensor's settings cannot be.
    #[error("sensor {sensor}: {reason}")]
    Sensor {
        /// Its name.
        sensor: String,
        /// What is wrong.
        reason: String,
    },
    /// Neither MQTT nor serial was chosen.
    #[error("node {node} has no transport")]
    NoTransport {
        /// The node.
        node: String,
    },
    /// The operating system refused a thread.
    #[error("cannot start a thread for virtual boards: {0}")]
    Thread(#[from] std::io::Error),
}

/// Where a virtual sensor's samples come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A chip's model and driver, on this signal.
    Spindle(Spindle),
    /// A chip's model and driver, on these recorded frames.
    Frames { frames: std::sync::Arc<[[i16; 3]]>, repeat: bool },
    /// A recording of any rate and shape, behind the sensor trait.
    Playback(Playback),
}

/// A sensor of a virtual board.
#[derive(Debug, Clone)]
pub struct VirtualSensor {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) chip: Chip,
    pub(crate) block_samples: u16,
    pub(crate) encoding: Encoding,
    pub(crate) rate_error: f64,
    pub(crate) stop_after: Option<u64>,
    pub(crate) overruns: bool,
}

impl VirtualSensor {
    fn new(name: impl Into<String>, source: Source, encoding: Encoding) -> Self {
        Self {
            name: name.into(),
            source,
            chip: Chip::Iis3dwb(FullScale::G4),
            block_samples: 512,
            encoding,
            rate_error: 0.0,
            stop_after: None,
            overruns: false,
        }
    }

    /// The IIS3DWB model with its driver, on a synthesised spindle.
    pub fn spindle(name: impl Into<String>, spindle: Spindle) -> Self {
        Self::new(name, Source::Spindle(spindle), Encoding::Raw16)
    }

    /// The model of this chip with its driver, on a synthesised spindle.
    pub fn of(chip: Chip, name: impl Into<String>, spindle: Spindle) -> Self {
        let encoding = if chip.bits() > 16 { Encoding::Raw24 } else { Encoding::Raw16 };
        Self { chip, ..Self::new(name, Source::Spindle(spindle), encoding) }
    }

    /// The IIS3DWB model with its driver, on recorded frames (counts at its full scale), once or over and over.
    pub fn frames(name: impl Into<String>, frames: std::sync::Arc<[[i16; 3]]>, repeat: bool) -> Self {
        Self::new(name, Source::Frames { frames, repeat }, Encoding::Raw16)
    }

    /// A recording of any rate, width and number of channels; no chip model in between.
    pub fn playback(name: impl Into<String>, playback: Playback) -> Self {
        let encoding = if playback.bits() > 16 { Encoding::Raw24 } else { Encoding::Raw16 };
        Self::new(name, Source::Playback(playback), encoding)
    }

    /// The rate at which the part really samples, Hz.
    #[allow(clippy::cast_possible_truncation, reason = "a signal's rate needs no more digits")]
    pub(crate) fn true_rate_hz(&self) -> f32 {
        (f64::from(self.chip.rate_nominal_mhz()) / 1000.0 * (1.0 + self.rate_error)) as f32
    }

    /// An IIS3DWB of this range; ±4 g unless told. A playback brings its own scale.
    #[must_use]
    pub const fn full_scale(mut self, full_scale: FullScale) -> Self {
        self.chip = Chip::Iis3dwb(full_scale);
        self
    }

    /// Samples per channel and block; 512 unless told.
    #[must_use]
    pub const fn block_samples(mut self, samples: u16) -> Self {
        self.block_samples = samples;
        self
    }

    /// How blocks are encoded; raw unless told.
    #[must_use]
    pub const fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// How far the true rate lies off the nominal one: 0.012 is 1.2 % fast.
    #[must_use]
    pub const fn rate_error(mut self, fraction: f64) -> Self {
        self.rate_error = fraction;
        self
    }

    /// Lets the chip's FIFO overrun when the host gives the board no time for 8 to 19 ms. Unless told, the model waits instead:
    /// a busy host is no fault of the node's.
    #[must_use]
    pub const fn overruns(mut self) -> Self {
        self.overruns = true;
        self
    }

    /// The sensor falls silent after so many samples per channel.
    #[must_use]
    pub const fn stop_after(mut self, samples: u64) -> Self {
        self.stop_after = Some(samples);
        self
    }
}

/// How a virtual board reaches the gateway.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    Mqtt { address: String, login: Option<(String, String)> },
    Serial { device: PathBuf, baud: u32 },
}

/// A virtual board to be started.
#[derive(Debug, Clone)]
pub struct VirtualBoard {
    pub(crate) site: String,
    pub(crate) machine: String,
    pub(crate) node: String,
    pub(crate) board: String,
    pub(crate) sensors: Vec<VirtualSensor>,
    pub(crate) way: Option<Way>,
    pub(crate) speed: Speed,
    pub(crate) ring_bytes: usize,
    pub(crate) window: u32,
    pub(crate) boot: Option<u64>,
    pub(crate) utc_start_ns: Option<i64>,
    pub(crate) tap: bool,
    pub(crate) settings: Option<Settings>,
    pub(crate) flash: Option<PathBuf>,
    pub(crate) asks_time: bool,
}

impl VirtualBoard {
    /// A board of this name on this machine; give it sensors and a transport.
    pub fn new(site: impl Into<String>, machine: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            site: site.into(),
            machine: machine.into(),
            node: node.into(),
            board: "host".into(),
            sensors: Vec::new(),
            way: None,
            speed: Speed::Real,
            ring_bytes: 1 << 20,
            window: 64,
            boot: None,
            utc_start_ns: None,
            tap: false,
            settings: None,
            flash: None,
            asks_time: false,
        }
    }

    /// Run-time settings that are built in: every sample of every sensor unless told.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Keeps settings of the gateway in this file, as a board keeps them in its flash. Without one they last over restarts that
    /// the gateway asks for, but not beyond this process.
    #[must_use]
    pub fn flash(mut self, file: impl Into<PathBuf>) -> Self {
        self.flash = Some(file.into());
        self
    }

    /// Asks the gateway for the time, as a board without a time server does, in place of telling the host's.
    #[must_use]
    pub const fn asks_time(mut self) -> Self {
        self.asks_time = true;
        self
    }

    /// Adds a sensor.
    #[must_use]
    pub fn sensor(mut self, sensor: VirtualSensor) -> Self {
        self.sensors.push(sensor);
        self
    }

    /// Connects by MQTT to `HOST:PORT`.
    #[must_use]
    pub fn mqtt(mut self, address: impl Into<String>) -> Self {
        self.way = Some(Way::Mqtt { address: address.into(), login: None });
        self
    }

    /// Connects by MQTT to `HOST:PORT` with user name and password.
    #[must_use]
    pub fn mqtt_login(
        mut self,
        address: impl Into<String>,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.way = Some(Way::Mqtt { address: address.into(), login: Some((user.into(), password.into())) });
        self
    }

    /// Connects by a serial device or pseudo terminal.
    #[must_use]
    pub fn serial(mut self, device: impl Into<PathBuf>, baud: u32) -> Self {
        self.way = Some(Way::Serial { device: device.into(), baud });
        self
    }

    /// How fast the board's time runs; real unless told.
    #[must_use]
    pub const fn speed(mut self, speed: Speed) -> Self {
        self.speed = speed;
        self
    }

    /// Bytes of the ring; 1 MiB unless told.
    #[must_use]
    pub const fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// Blocks sent ahead of the gateway's acknowledgement; 64 unless told.
    #[must_use]
    pub const fn window(mut self, blocks: u32) -> Self {
        self.window = blocks;
        self
    }

    /// The boot id; drawn from the clock and the process unless told.
    #[must_use]
    pub const fn boot(mut self, boot: u64) -> Self {
        self.boot = Some(boot);
        self
    }

    /// UTC at tick 0, ns since 1970; now unless told.
    #[must_use]
    pub const fn utc_start_ns(mut self, utc_ns: i64) -> Self {
        self.utc_start_ns = Some(utc_ns);
        self
    }

    /// Keeps a copy of every sample that the sensors produce, see [`Board::tap`].
    #[must_use]
    pub const fn tapped(mut self) -> Self {
        self.tap = true;
        self
    }

    pub(crate) fn check(&self) -> Result<(), HostError> {
        let names =
            [("site", &self.site), ("machine", &self.machine), ("node", &self.node), ("board", &self.board)];
        let sensors = self.sensors.iter().map(|sensor| ("sensor", &sensor.name));
        for (what, name) in names.into_iter().chain(sensors) {
            if !is_name(name) {
                return Err(HostError::Name { what, name: name.clone() });
            }
        }
        if self.sensors.is_empty() || self.sensors.len() > spindle_common::wire::STREAMS_MAX {
            return Err(HostError::Sensors { count: self.sensors.len() });
        }
        if self.way.is_none() {
            return Err(HostError::NoTransport { node: self.node.clone() });
        }
        Ok(())
    }
}
