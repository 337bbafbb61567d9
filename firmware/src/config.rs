//! Identity and wiring of a node, fixed when its firmware is built: `hardware-configs/nodes/NAME.toml` as a constant.

use heapless::Vec;
use spindle_common::id::StreamId;
use spindle_common::settings::{Settings, Step, TriggerSettings};
use spindle_common::wire::{Encoding, STREAMS_MAX, StreamInfo};

/// A node's file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeConfig {
    /// The node's name.
    pub name: &'static str,
    /// The site.
    pub site: &'static str,
    /// The machine.
    pub machine: &'static str,
    /// The board's type.
    pub board: &'static str,
    /// How it reaches the gateway.
    pub link: LinkConfig,
    /// What that link carries, bits per second: the line's rate, or what the board's file says.
    pub link_bits_per_s: u32,
    /// The sensors, in the order of their stream numbers.
    pub sensors: &'static [SensorConfig],
}

/// How a node reaches the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkConfig {
    /// MQTT over Ethernet.
    Ethernet {
        /// `ADDRESS:PORT`.
        broker: &'static str,
        /// Own address and prefix; `None`: DHCP.
        address: Option<&'static str>,
        /// Router, with a fixed address.
        router: Option<&'static str>,
        /// SNTP server's address; `None`: the gateway is asked for the time.
        sntp: Option<&'static str>,
        /// TLS to the broker.
        tls: bool,
    },
    /// A serial line.
    Serial {
        /// Bits per second.
        baud: u32,
    },
}

/// What a node needs for TLS, from the folder that `spindle provision` made; all in DER.
#[cfg(feature = "tls")]
#[derive(Clone, Copy)]
pub struct TlsFiles {
    /// Certificate of the site's authority.
    pub ca_der: &'static [u8],
    /// The node's certificate.
    pub cert_der: &'static [u8],
    /// Its key, PKCS#8.
    pub key_der: &'static [u8],
}

/// A sensor of a node, with its type's figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SensorConfig {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub model: &'static str,
    /// One letter a channel.
    pub axes: &'static str,
    /// The board's port that it is wired to.
    pub port: Option<&'static str>,
    /// Full scale, g.
    pub full_scale_g: f32,
    /// m/s² per count.
    pub scale: f32,
    /// Bits of the converter.
    pub bits: u8,
    /// SPI mode; 0 of an analog sensor.
    pub spi_mode: u8,
    /// Highest SPI clock, Hz; 0 of an analog sensor.
    pub spi_hz_max: u32,
    /// Least and most output change of an analog sensor in self-test, m/s², where it is known.
    pub adc_self_test: Option<[f32; 2]>,
    /// Nominal sample rate, mHz.
    pub rate_nominal_mhz: u32,
    /// Samples per channel and block.
    pub block_samples: u16,
    /// Encoding of blocks.
    pub encoding: Encoding,
    /// How it reports until the gateway says otherwise.
    pub step: Step,
    /// Whether it may go down a step by itself.
    pub may_degrade: bool,
    /// Samples of the sensor per sample sent in step `Decimated`.
    pub decimation: u16,
    /// Bursts in step `Features`.
    pub trigger: TriggerSettings,
}

// `NODES`, `LOGIN` and `TLS`, made by `build.rs`.
include!(concat!(env!("OUT_DIR"), "/nodes.rs"));

/// The node of this name. For constants: `const NODE: &NodeConfig = config::node(env!("SPINDLE_NODE"));`
///
/// # Panics
/// When there is no such file; in a constant this fails the build.
#[must_use]
pub const fn node(name: &str) -> &'static NodeConfig {
    let mut index = 0;
    while index < NODES.len() {
        if is_same(NODES[index].name.as_bytes(), name.as_bytes()) {
            return &NODES[index];
        }
        index += 1;
    }
    #[allow(clippy::panic, reason = "evaluated when firmware is built")]
    {
        panic!("hardware-configs/nodes has no file of this name")
    }
}

/// Whether a name is among these.
const fn is_among(name: &str, names: &[&str]) -> bool {
    let mut index = 0;
    while index < names.len() {
        if is_same(name.as_bytes(), names[index].as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Samples per channel and block, or burst, that a board's buffers hold at least: what the gateway may ask for later.
pub const BLOCK_SAMPLES_SETTABLE: u16 = 1024;

impl SensorConfig {
    /// Samples per channel of the largest block or burst that its buffers hold.
    #[must_use]
    pub const fn block_samples_max(&self) -> u16 {
        if self.block_samples > BLOCK_SAMPLES_SETTABLE { self.block_samples } else { BLOCK_SAMPLES_SETTABLE }
    }
}

impl NodeConfig {
    /// Whether the node's file names this board.
    #[must_use]
    pub const fn is_for(&self, board: &str) -> bool {
        is_same(self.board.as_bytes(), board.as_bytes())
    }

    /// Whether each sensor has one of these ports to itself.
    #[must_use]
    pub const fn is_wired(&self, ports: &[&str]) -> bool {
        let mut index = 0;
        while index < self.sensors.len() {
            let Some(port) = self.sensors[index].port else { return false };
            if !is_among(port, ports) {
                return false;
            }
            let mut other = 0;
            while other < index {
                if let Some(taken) = self.sensors[other].port
                    && is_same(taken.as_bytes(), port.as_bytes())
                {
                    return false;
                }
                other += 1;
            }
            index += 1;
        }
        true
    }

    /// Its first analog sensor.
    #[must_use]
    pub const fn analog(&self) -> Option<&'static SensorConfig> {
        let mut index = 0;
        while index < self.sensors.len() {
            if self.sensors[index].spi_hz_max == 0 {
                return Some(&self.sensors[index]);
            }
            index += 1;
        }
        None
    }

    /// The sensor at this port, with the number of its stream.
    #[must_use]
    pub fn sensor_at(&self, port: &str) -> Option<(StreamId, &'static SensorConfig)> {
        let mut sensors = (0u8..).zip(self.sensors);
        sensors.find(|(_, sensor)| sensor.port == Some(port)).map(|(index, sensor)| (StreamId(index), sensor))
    }

    /// Samples of the largest block of any of its sensors, all channels together: what [`Buffers`](crate::reduce::Buffers) hold.
    #[must_use]
    pub const fn planar_len_max(&self) -> usize {
        let mut most = 0;
        let mut index = 0;
        while index < self.sensors.len() {
            let sensor = &self.sensors[index];
            let len = sensor.axes.len() * sensor.block_samples_max() as usize;
            if len > most {
                most = len;
            }
            index += 1;
        }
        most
    }

    /// Samples per channel that a block or burst of each of its sensors may have.
    #[must_use]
    pub const fn block_samples_max(&self) -> u16 {
        let mut least = u16::MAX;
        let mut index = 0;
        while index < self.sensors.len() {
            if self.sensors[index].block_samples_max() < least {
                least = self.sensors[index].block_samples_max();
            }
            index += 1;
        }
        least
    }

    /// The streams, as the birth message tells them.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamInfo<'static>, STREAMS_MAX> {
        (0u8..)
            .zip(self.sensors)
            .take(STREAMS_MAX)
            .map(|(index, sensor)| StreamInfo {
                stream: StreamId(index),
                sensor: sensor.name,
                model: sensor.model,
                axes: sensor.axes,
                rate_nominal_mhz: sensor.rate_nominal_mhz,
                scale: sensor.scale,
                bits: sensor.bits,
                block_samples: sensor.block_samples,
                encoding: sensor.encoding,
            })
            .collect()
    }

    /// The run-time settings in force until the gateway gives others.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::built_in(&self.streams());
        for (stream, sensor) in settings.streams.iter_mut().zip(self.sensors) {
            stream.step = sensor.step;
            stream.may_degrade = sensor.may_degrade;
            stream.decimation = sensor.decimation;
            stream.trigger = sensor.trigger;
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::iis3dwb::{FullScale, RATE_NOMINAL_MHZ};

    const DEMO: &NodeConfig = node("host-demo");

    #[test]
    fn a_board_learns_from_its_config_how_to_run_the_bus() {
        let sensors = node("mill-3-spindle").sensors;
        let buses: std::vec::Vec<_> =
            sensors.iter().map(|sensor| (sensor.spi_mode, sensor.spi_hz_max)).collect();
        assert_eq!(buses, [(3, 10_000_000), (0, 10_000_000)]);
        assert_eq!(node("mill-3-spindle").planar_len_max(), 3 * usize::from(BLOCK_SAMPLES_SETTABLE));
        assert_eq!(node("mill-3-spindle").link_bits_per_s, 100_000_000);
        assert_eq!(node("bench-serial").sensors[0].spi_hz_max, 1_600_000);
    }

    #[test]
    fn a_node_is_known_when_firmware_is_built_and_its_figures_are_the_drivers() {
        assert_eq!((DEMO.site, DEMO.machine, DEMO.board), ("demo", "demo-mill", "host"));
        let streams = DEMO.streams();
        assert_eq!((streams[0].sensor, streams[0].model, streams[0].axes), ("spindle", "iis3dwb", "xyz"));
        assert_eq!((streams[0].rate_nominal_mhz, streams[0].bits), (RATE_NOMINAL_MHZ, 16));
        assert!((streams[0].scale / FullScale::G4.scale() - 1.0).abs() < 1e-6);
        assert!(DEMO.is_for("host") && !DEMO.is_for("hos") && !DEMO.is_for("tsoh"));
        assert_eq!(node("bench-serial").link, LinkConfig::Serial { baud: 921_600 });
    }

    #[test]
    fn a_node_is_wired_when_each_sensor_has_a_port_of_its_own() {
        const MILL: &NodeConfig = node("mill-3-spindle");
        assert!(MILL.is_wired(&["spi1", "spi3"]));
        assert!(!MILL.is_wired(&["spi1"]) && !MILL.is_wired(&["spi3"]) && !MILL.is_wired(&[]));
        assert!(!DEMO.is_wired(&["spi1"]), "a sensor without a port is not wired");
        let twice = [MILL.sensors[0], SensorConfig { port: Some("spi1"), ..MILL.sensors[1] }];
        let twice: &'static [SensorConfig] = std::boxed::Box::leak(std::boxed::Box::new(twice));
        assert!(!NodeConfig { sensors: twice, ..*MILL }.is_wired(&["spi1", "spi3"]));
        let (stream, sensor) = MILL.sensor_at("spi3").unwrap();
        assert_eq!((stream, sensor.name), (StreamId(1), "column"));
        assert!(MILL.sensor_at("spi2").is_none());
    }
}
