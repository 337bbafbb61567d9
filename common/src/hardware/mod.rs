//! Facts about boards, sensors, machines and nodes: the schema of the TOML files in `hardware-configs`. Firmware reads it
//! when it is built, the gateway when it runs. Unknown keys are refused; each table of figures names its source.

mod catalog;

pub use catalog::{Catalog, HardwareError};

use crate::link::Load;
use crate::settings::{Codec, DECIMATION_DEFAULT, Step, TriggerSettings};
use serde::Deserialize;
use std::string::String;
use std::vec::Vec;

/// `boards/NAME.toml`: a microcontroller board, or the host for virtual ones.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Name; also the file's.
    pub name: String,
    /// For people.
    pub title: String,
    /// What is known to work with our firmware, in words: emulation, silicon, nothing yet.
    pub state: String,
    /// The processor.
    pub processor: Processor,
    /// Ways to the gateway.
    pub link: Vec<BoardLink>,
    /// Sensor connectors: which pins go where.
    #[serde(default)]
    pub port: Vec<Port>,
    /// Converters for analog sensors.
    #[serde(default)]
    pub converter: Vec<Converter>,
    /// What its firmware may use; absent on the host.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// How its firmware gets onto it; absent on the host.
    #[serde(default)]
    pub flash: Option<Flash>,
}

/// How a board's firmware gets onto it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, tag = "method", rename_all = "kebab-case")]
pub enum Flash {
    /// By a debug probe, with probe-rs.
    ProbeRs {
        /// The chip, as probe-rs calls it.
        chip: String,
        /// Where this is from.
        source: String,
    },
    /// As a UF2 file, copied to the drive that the board's boot loader shows.
    Uf2 {
        /// UF2 family id, which the boot loader wants to see.
        family_id: u32,
        /// Where flash lies in the processor's address space.
        flash_start: u32,
        /// The chip, as probe-rs calls it: with a probe it can be flashed as well.
        #[serde(default)]
        chip: Option<String>,
        /// Where this is from.
        source: String,
    },
    /// Not at all: QEMU starts with the image.
    Qemu {
        /// QEMU's machine.
        machine: String,
        /// Where this is from.
        source: String,
    },
}

/// What a board's firmware may use. Our own limits, enforced when it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Flash: code, constants and the initial values of variables, bytes.
    pub flash_bytes: u64,
    /// RAM: static variables, the ring and all buffers included, the stack not; bytes.
    pub ram_bytes: u64,
    /// RAM that must be left for the stack, bytes.
    pub stack_bytes: u64,
}

/// A board's processor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processor {
    /// Part, such as `STM32H563ZI`.
    pub part: String,
    /// Rust target triple of the firmware; absent on the host.
    #[serde(default)]
    pub target: Option<String>,
    /// Flash, bytes.
    #[serde(default)]
    pub flash_bytes: Option<u64>,
    /// RAM, bytes.
    #[serde(default)]
    pub ram_bytes: Option<u64>,
    /// Where these figures are from.
    pub source: String,
}

/// A way to the gateway that a board has.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardLink {
    /// Ethernet or serial.
    pub kind: LinkKind,
    /// Payload that it carries at most, bits per second.
    pub bits_per_s_max: u64,
    /// Where this is from.
    pub source: String,
}

/// Kinds of link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// TCP/IP; MQTT.
    Ethernet,
    /// A UART; COBS frames.
    Serial,
}

/// A sensor connector.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Name that nodes refer to.
    pub name: String,
    /// The board's SPI clock pin, and so on.
    pub sck: String,
    /// Master out.
    pub mosi: String,
    /// Master in.
    pub miso: String,
    /// Chip select.
    pub cs: String,
    /// Interrupt.
    pub int1: String,
    /// Where this wiring is from.
    pub source: String,
}

/// A connector for an analog sensor: inputs of one converter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Converter {
    /// Name that nodes refer to, as to a port.
    pub name: String,
    /// Pins of the inputs, one per channel, in the order of the channels.
    pub inputs: Vec<String>,
    /// Pin that drives the sensor's self-test input.
    pub self_test: String,
    /// Bits of a conversion.
    pub bits: u8,
    /// Most conversions per second, all channels together.
    pub rate_hz_max: f64,
    /// Where this wiring is from.
    pub source: String,
}

impl Converter {
    /// Why it cannot take this sensor, if it cannot.
    pub(crate) fn fault(&self, sensor: &Sensor) -> Option<String> {
        let (channels, inputs) = (sensor.axes.len(), self.inputs.len());
        let rate_hz = sensor.rate_hz * channels as f64;
        if sensor.bits != self.bits {
            return Some(std::format!(
                "{} has {} bits, the converter {}",
                sensor.name,
                sensor.bits,
                self.bits
            ));
        }
        if channels > inputs {
            return Some(std::format!(
                "{} has {channels} channels, the converter {inputs} inputs",
                sensor.name
            ));
        }
        (rate_hz > self.rate_hz_max).then(|| {
            std::format!("{rate_hz:.0} conversions a second, the converter does {:.0}", self.rate_hz_max)
        })
    }
}

/// `sensors/NAME.toml`: a type of accelerometer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensor {
    /// Name; also the file's.
    pub name: String,
    /// For people.
    pub title: String,
    /// One letter a channel.
    pub axes: String,
    /// Bits of the converter.
    pub bits: u8,
    /// Nominal sample rate that the driver sets, Hz.
    pub rate_hz: f64,
    /// How far a part's rate may lie off the nominal, percent; absent when the maker gives none.
    #[serde(default)]
    pub rate_tolerance_percent: Option<f64>,
    /// -3 dB bandwidth, Hz.
    pub bandwidth_hz: f64,
    /// Noise density, µg/√Hz.
    pub noise_ug_per_rt_hz: f64,
    /// FIFO depth in frames (one sample per channel); of an analog sensor, frames in half of the DMA's buffer.
    pub fifo_frames: u32,
    /// SPI mode; absent of an analog sensor.
    #[serde(default)]
    pub spi_mode: Option<u8>,
    /// Highest SPI clock that the driver allows, Hz; absent of an analog sensor.
    #[serde(default)]
    pub spi_hz_max: Option<u32>,
    /// How an analog sensor's voltage is converted.
    #[serde(default)]
    pub adc: Option<Adc>,
    /// Ranges.
    pub range: Vec<Range>,
    /// Where these figures are from.
    pub source: String,
}

/// An analog output on a converter whose span is the sensor's own supply (ratiometric), at rest at half of it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adc {
    /// Supply, V.
    pub supply_v: f64,
    /// Sensitivity at this supply, mV per g.
    pub sensitivity_mv_per_g: f64,
    /// Least and most output change in self-test, g; absent when the maker gives none.
    #[serde(default)]
    pub self_test_g: Option<[f64; 2]>,
}

impl Sensor {
    /// What contradicts itself: the key, and what is wrong.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        let spi = self.spi_mode.is_some() && self.spi_hz_max.is_some();
        match &self.adc {
            None if !spi => Some(("name", "wants spi_mode and spi_hz_max, or the table adc".into())),
            Some(_) if self.spi_mode.is_some() || self.spi_hz_max.is_some() => {
                Some(("adc", "is analog and has no spi_mode or spi_hz_max".into()))
            }
            Some(adc) => {
                let counts = f64::from(1u32 << self.bits.min(16));
                let mg_per_count = adc.supply_v * 1e6 / counts / adc.sensitivity_mv_per_g;
                let wrong =
                    self.range.iter().any(|range| (range.mg_per_count / mg_per_count - 1.0).abs() > 1e-3);
                wrong.then(|| {
                    ("adc", std::format!("a count is {mg_per_count:.4} mg by supply, bits and sensitivity"))
                })
            }
            None => None,
        }
    }

    /// The range of this full scale in g, when the sensor has it.
    #[must_use]
    pub fn range_of(&self, full_scale_g: f64) -> Option<&Range> {
        self.range.iter().find(|range| range.full_scale_g == full_scale_g)
    }

    /// Nominal sample rate in mHz, as births tell it.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub fn rate_mhz(&self) -> u32 {
        (self.rate_hz * 1000.0).round() as u32
    }
}

/// A full scale of a sensor.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// ± this many g.
    pub full_scale_g: f64,
    /// mg per count.
    pub mg_per_count: f64,
}

impl Range {
    /// m/s² per count.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.mg_per_count * 9.806_65e-3
    }
}

/// `machines/NAME.toml`: a machine, its spindle and its bearings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Name; also the file's.
    pub name: String,
    /// For people.
    pub title: String,
    /// The spindle, where one is known.
    #[serde(default)]
    pub spindle: Option<Spindle>,
    /// Bearings whose fault frequencies are of interest.
    #[serde(default)]
    pub bearing: Vec<Bearing>,
    /// Gears whose mesh is of interest.
    #[serde(default)]
    pub gear: Vec<Gear>,
    /// Tools, for tooth-pass lines.
    #[serde(default)]
    pub tool: Vec<Tool>,
}

/// Most bearings, gears and tools of a machine, each.
pub const MACHINE_PARTS_MAX: usize = 16;

impl Machine {
    /// What contradicts itself: the key, and what is wrong.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        let counts = [("bearing", self.bearing.len()), ("gear", self.gear.len()), ("tool", self.tool.len())];
        if let Some((key, count)) = counts.into_iter().find(|(_, count)| *count > MACHINE_PARTS_MAX) {
            return Some((key, std::format!("{count} of them; there may be {MACHINE_PARTS_MAX}")));
        }
        for bearing in &self.bearing {
            if let Err(error) = bearing.geometry().orders() {
                return Some(("bearing", std::format!("{}: {error}", bearing.place)));
            }
        }
        for gear in &self.gear {
            if gear.teeth == 0 || !(gear.ratio.is_finite() && gear.ratio > 0.0) {
                return Some(("gear", std::format!("{}: teeth and ratio must be above 0", gear.place)));
            }
        }
        let spindle = self.spindle.as_ref()?;
        let is_speed = |rpm: f64| rpm > 0.0 && rpm <= spindle.rpm_max;
        let fine = spindle.rpm_max.is_finite()
            && [spindle.rpm, spindle.rpm_min].into_iter().flatten().all(is_speed)
            && spindle.rpm_min != Some(spindle.rpm_max);
        (!fine).then(|| ("spindle", "rpm and rpm_min must be above 0 and up to rpm_max".into()))
    }
}

/// A gear on a shaft.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gear {
    /// Where it sits.
    pub place: String,
    /// Teeth.
    pub teeth: u32,
    /// Turns of its shaft for one of the spindle.
    #[serde(default = "one")]
    pub ratio: f64,
    /// Where this is from.
    pub source: String,
}

fn one() -> f64 {
    1.0
}

/// A spindle.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spindle {
    /// The speed where there is only one, revolutions per minute.
    #[serde(default)]
    pub rpm: Option<f64>,
    /// Lowest speed at which it works: without `rpm`, the speed is looked for in spectra from here to `rpm_max`, which should be
    /// less than twice as much.
    #[serde(default)]
    pub rpm_min: Option<f64>,
    /// Highest speed, revolutions per minute.
    pub rpm_max: f64,
    /// Where this is from.
    pub source: String,
}

/// Geometry of a rolling bearing.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bearing {
    /// Where it sits, such as `spindle front`.
    pub place: String,
    /// Designation.
    pub designation: String,
    /// Rolling elements.
    pub balls: u32,
    /// Diameter of a rolling element, mm.
    pub ball_diameter_mm: f64,
    /// Pitch diameter, mm.
    pub pitch_diameter_mm: f64,
    /// Contact angle, degrees.
    #[serde(default)]
    pub contact_angle_deg: f64,
    /// Where the geometry is from.
    pub source: String,
}

/// Fault frequencies in multiples of the shaft's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BearingOrders {
    /// Ball pass, outer race.
    pub bpfo: f64,
    /// Ball pass, inner race.
    pub bpfi: f64,
    /// Cage.
    pub ftf: f64,
    /// Ball spin; a ball's defect strikes at twice this.
    pub bsf: f64,
}

impl Bearing {
    /// As the signal processing takes it.
    #[must_use]
    pub const fn geometry(&self) -> crate::dsp::Bearing {
        crate::dsp::Bearing {
            elements: self.balls,
            element_diameter: self.ball_diameter_mm,
            pitch_diameter: self.pitch_diameter_mm,
            contact_angle_deg: self.contact_angle_deg,
        }
    }

    /// Fault frequencies for a standing outer race: BPFO = n/2 (1-r), BPFI = n/2 (1+r), FTF = (1-r)/2, BSF = D/(2d) (1-r²)
    /// with r = d/D cos φ.
    #[must_use]
    pub fn orders(&self) -> BearingOrders {
        let r = self.ball_diameter_mm / self.pitch_diameter_mm * self.contact_angle_deg.to_radians().cos();
        let half = f64::from(self.balls) / 2.0;
        BearingOrders {
            bpfo: half * (1.0 - r),
            bpfi: half * (1.0 + r),
            ftf: (1.0 - r) / 2.0,
            bsf: self.pitch_diameter_mm / (2.0 * self.ball_diameter_mm) * (1.0 - r * r),
        }
    }
}

/// A tool.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Name, as the machine's program calls it.
    pub name: String,
    /// Cutting edges.
    pub flutes: u32,
    /// Where this is from.
    pub source: String,
}

/// `nodes/NAME.toml`: one board on one machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Name; also the file's.
    pub name: String,
    /// The site.
    pub site: String,
    /// A file in `machines`.
    pub machine: String,
    /// A file in `boards`.
    pub board: String,
    /// How it reaches the gateway.
    pub link: NodeLink,
    /// Its sensors, in the order of their stream numbers.
    pub sensor: Vec<NodeSensor>,
}

/// How a node reaches the gateway.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum NodeLink {
    /// MQTT over Ethernet.
    Ethernet {
        /// `ADDRESS:PORT` of the broker or the gateway's listener; the address in numbers.
        broker: String,
        /// The node's own address and prefix, such as `192.168.1.20/24`; absent: DHCP.
        #[serde(default)]
        address: Option<String>,
        /// Router for a broker or time server outside the own network; only with `address`.
        #[serde(default)]
        router: Option<String>,
        /// Address of an SNTP server, in numbers; absent: the node asks the gateway for the time.
        #[serde(default)]
        sntp: Option<String>,
        /// TLS to the broker; needs firmware with its feature `tls`.
        #[serde(default)]
        tls: bool,
    },
    /// A serial line.
    Serial {
        /// Bits per second.
        baud: u32,
    },
}

/// A sensor of a node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSensor {
    /// Its name: the third part of the key.
    pub name: String,
    /// A file in `sensors`.
    pub sensor: String,
    /// A port of the board; absent on the host.
    #[serde(default)]
    pub port: Option<String>,
    /// Full scale, g; one that the sensor has.
    pub full_scale_g: f64,
    /// Samples per channel and block.
    #[serde(default = "default_block_samples")]
    pub block_samples: u16,
    /// Encoding of blocks.
    #[serde(default)]
    pub encoding: Codec,
    /// How it reports until the gateway says otherwise.
    #[serde(default)]
    pub step: Step,
    /// Whether it may go down a step by itself when the link falls behind.
    #[serde(default)]
    pub may_degrade: bool,
    /// Samples of the sensor per sample sent in step `decimated`; 0: 8.
    #[serde(default)]
    pub decimation: u16,
    /// Bursts in step `features`.
    #[serde(default)]
    pub trigger: TriggerSettings,
    /// Where and how it is mounted, in words.
    #[serde(default)]
    pub mounting: String,
}

impl NodeSensor {
    /// What it sends, for the link's budget.
    #[must_use]
    pub fn load(&self, sensor: &Sensor) -> Load {
        Load {
            step: self.step,
            axes: sensor.axes.len(),
            block_samples: self.block_samples,
            encoding: self.encoding.encoding(sensor.bits),
            rate_hz: sensor.rate_hz,
            decimation: if self.decimation == 0 { DECIMATION_DEFAULT } else { self.decimation },
        }
    }
}

const fn default_block_samples() -> u16 {
    512
}
