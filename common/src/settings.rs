//! Settings that a node takes while it runs: the gateway sends them, the node checks them against what its sensors and its link
//! can do, applies them at a block's edge and keeps them in its flash. What is fixed when its firmware is built (identity,
//! network, wiring) is in `hardware-configs/nodes`.

use crate::dsp::decimate::{FACTOR_MAX, is_factor};
use crate::id::StreamId;
use crate::link::{self, Load};
use crate::wire::check::{are_streams, first_broken};
use crate::wire::{BLOCK_SAMPLES_MAX, Encoding, MESSAGE_LEN_MAX, STREAMS_MAX, StreamInfo, block_len_max};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Most samples per channel of a burst: what a board keeps behind for the time before a trigger.
pub const BURST_SAMPLES_MAX: u16 = 2048;

/// Decimation where none is given.
pub const DECIMATION_DEFAULT: u16 = 8;

/// How a stream reports: each step sends less than the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Every sample.
    #[default]
    Raw,
    /// Samples low-passed and thinned out by the stream's decimation.
    Decimated,
    /// Features of each second, and bursts of raw samples around triggers.
    Features,
}

impl Step {
    /// The step that sends less, if there is one.
    #[must_use]
    pub const fn down(self) -> Option<Self> {
        match self {
            Self::Raw => Some(Self::Decimated),
            Self::Decimated => Some(Self::Features),
            Self::Features => None,
        }
    }
}

/// How blocks are encoded; the width follows the sensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Little-endian integers.
    #[default]
    Raw,
    /// Lossless Rice codes.
    Rice,
}

impl Codec {
    /// The wire's encoding for samples of this many bits.
    #[must_use]
    pub const fn encoding(self, bits: u8) -> Encoding {
        match (self, bits > 16) {
            (Self::Raw, false) => Encoding::Raw16,
            (Self::Raw, true) => Encoding::Raw24,
            (Self::Rice, false) => Encoding::Rice16,
            (Self::Rice, true) => Encoding::Rice24,
        }
    }
}

/// What releases a burst of raw samples in step `Features`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TriggerSettings {
    /// Deviation from the mean of the second before on any channel, m/s²; 0: never.
    pub level: f32,
    /// Every so many seconds; 0: never.
    pub every_s: u32,
    /// Samples per channel before the trigger.
    pub before: u16,
    /// Samples per channel from the trigger on.
    pub after: u16,
    /// Seconds after a burst before a level may release another.
    pub rest_s: u16,
}

/// Settings of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// Which sensor.
    pub stream: StreamId,
    /// How it reports. With `may_degrade` the node may go further down by itself.
    pub step: Step,
    /// Whether the node may go down a step, and up again, as its link falls behind or recovers.
    pub may_degrade: bool,
    /// Channels sent, one bit each, lowest first.
    pub axes: u8,
    /// Samples of the sensor per sample sent in step `Decimated`; 2 to 256, with small prime factors.
    pub decimation: u16,
    /// How blocks are encoded.
    pub codec: Codec,
    /// Samples per channel and block.
    pub block_samples: u16,
    /// Bursts.
    pub trigger: TriggerSettings,
}

/// All run-time settings of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Chosen by the gateway, told by the node's births; 0: those built in.
    pub version: u32,
    /// How often a status is sent, s.
    pub status_every_s: u16,
    /// How often a (tick, UTC) pair is sent, s.
    pub time_every_s: u16,
    /// One entry a sensor.
    pub streams: Vec<StreamSettings, STREAMS_MAX>,
}

/// Why settings are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A value that no node can have.
    #[error("{field} is out of range")]
    Range {
        /// Which.
        field: &'static str,
    },
    /// Not exactly one entry for each of the node's sensors.
    #[error("settings name other streams than the node's {streams}")]
    Streams {
        /// Sensors of the node.
        streams: u8,
    },
    /// Channels that the sensor has not, or none.
    #[error("stream {stream}: axes {axes:#b} are not among its {has}")]
    Axes {
        /// Which stream.
        stream: u8,
        /// Those asked for.
        axes: u8,
        /// Those that it has.
        has: u8,
    },
    /// A decimation that no filter chain makes.
    #[error("stream {stream}: decimation {decimation} is not 2 to 256 with prime factors up to 13")]
    Decimation {
        /// Which stream.
        stream: u8,
        /// The one asked for.
        decimation: u16,
    },
    /// Blocks larger than the board's buffers.
    #[error("stream {stream}: blocks of {block_samples} samples; this board holds {most}")]
    Block {
        /// Which stream.
        stream: u8,
        /// Asked for.
        block_samples: u16,
        /// What fits.
        most: u16,
    },
    /// Longer than a burst may be.
    #[error("stream {stream}: a burst of {samples} samples; at most {most}")]
    Burst {
        /// Which stream.
        stream: u8,
        /// Asked for.
        samples: u32,
        /// What fits.
        most: u16,
    },
    /// More than the link carries.
    #[error("needs {needed_kbit_s} kbit/s of a link of {capacity_kbit_s}: more than 80 %")]
    Link {
        /// What the streams need.
        needed_kbit_s: u32,
        /// What the link carries.
        capacity_kbit_s: u32,
    },
}

/// What a node can do, for [`Settings::check`].
#[derive(Debug, Clone, Copy)]
pub struct Abilities<'a> {
    /// Its sensors as they are wired, with all their channels.
    pub streams: &'a [StreamInfo<'a>],
    /// What its link carries, bits per second.
    pub link_bits_per_s: u32,
    /// Most samples per channel and block that its buffers hold.
    pub block_samples_max: u16,
    /// Most samples per channel of a burst; 0: this node releases none.
    pub burst_samples_max: u16,
}

impl Settings {
    /// Settings as they are built in: every sample of every channel, as the node's file says.
    #[must_use]
    pub fn built_in(streams: &[StreamInfo<'_>]) -> Self {
        let stream = |info: &StreamInfo<'_>| StreamSettings {
            stream: info.stream,
            step: Step::Raw,
            may_degrade: false,
            axes: all_axes(info),
            decimation: DECIMATION_DEFAULT,
            codec: if info.encoding == info.encoding.raw() { Codec::Raw } else { Codec::Rice },
            block_samples: info.block_samples,
            trigger: TriggerSettings::default(),
        };
        Self {
            version: 0,
            status_every_s: 10,
            time_every_s: 30,
            streams: streams.iter().map(stream).collect(),
        }
    }

    /// The first field outside the range that any node could have.
    pub(crate) fn field_out_of_range(&self) -> Option<&'static str> {
        let streams = || self.streams.iter();
        let finite = |level: f32| level.is_finite() && level >= 0.0;
        first_broken(&[
            ((1..=3600).contains(&self.status_every_s), "status_every_s"),
            ((1..=3600).contains(&self.time_every_s), "time_every_s"),
            (are_streams(streams().map(|stream| stream.stream)), "streams.stream"),
            (streams().all(|stream| stream.axes != 0), "streams.axes"),
            (
                streams().all(|stream| (2..=FACTOR_MAX).contains(&stream.decimation.into())),
                "streams.decimation",
            ),
            (
                streams().all(|stream| (1..=BLOCK_SAMPLES_MAX).contains(&usize::from(stream.block_samples))),
                "streams.block_samples",
            ),
            (streams().all(|stream| finite(stream.trigger.level)), "streams.trigger.level"),
        ])
    }

    /// Whether a node with these abilities can do this, and its link carries it.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(&self, node: &Abilities<'_>) -> Result<(), Refused> {
        if let Some(field) = self.field_out_of_range() {
            return Err(Refused::Range { field });
        }
        let mut bits_per_s = 0.0;
        for info in node.streams {
            let Some(stream) = self.streams.iter().find(|settings| settings.stream == info.stream) else {
                return Err(Refused::Streams { streams: to_u8(node.streams.len()) });
            };
            stream.check(info, node)?;
            bits_per_s += stream.load(info).bits_per_s();
        }
        if self.streams.len() != node.streams.len() {
            return Err(Refused::Streams { streams: to_u8(node.streams.len()) });
        }
        if !link::fits(bits_per_s, f64::from(node.link_bits_per_s)) {
            return Err(Refused::Link {
                needed_kbit_s: to_kbit(bits_per_s),
                capacity_kbit_s: node.link_bits_per_s / 1000,
            });
        }
        Ok(())
    }
}

impl StreamSettings {
    /// What it sends of this sensor.
    #[must_use]
    pub fn load(&self, info: &StreamInfo<'_>) -> Load {
        Load {
            step: self.step,
            axes: self.axes.count_ones() as usize,
            block_samples: self.block_samples,
            encoding: self.codec.encoding(info.bits),
            rate_hz: f64::from(info.rate_nominal_mhz) / 1000.0,
            decimation: self.decimation,
        }
    }

    fn check(&self, info: &StreamInfo<'_>, node: &Abilities<'_>) -> Result<(), Refused> {
        let (stream, has) = (self.stream.0, all_axes(info));
        if self.axes & !has != 0 {
            return Err(Refused::Axes { stream, axes: self.axes, has });
        }
        if !is_factor(self.decimation.into()) {
            return Err(Refused::Decimation { stream, decimation: self.decimation });
        }
        let axes = self.axes.count_ones() as usize;
        let len = block_len_max(axes, self.block_samples.into(), self.codec.encoding(info.bits));
        if self.block_samples > node.block_samples_max || len > MESSAGE_LEN_MAX {
            let most = node.block_samples_max;
            return Err(Refused::Block { stream, block_samples: self.block_samples, most });
        }
        let samples = u32::from(self.trigger.before) + u32::from(self.trigger.after);
        let wanted = self.trigger.level > 0.0 || self.trigger.every_s > 0;
        if samples > node.burst_samples_max.into() || (wanted && self.trigger.after == 0) {
            return Err(Refused::Burst { stream, samples, most: node.burst_samples_max });
        }
        Ok(())
    }
}

/// The mask of all channels of a sensor.
#[must_use]
pub fn all_axes(info: &StreamInfo<'_>) -> u8 {
    let axes = u32::try_from(info.axes.len()).unwrap_or(8).min(8);
    u8::try_from((1_u16 << axes) - 1).unwrap_or(u8::MAX)
}

fn to_u8(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn to_kbit(bits_per_s: f64) -> u32 {
    libm::round(bits_per_s / 1e3) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> [StreamInfo<'static>; 2] {
        let spindle = StreamInfo {
            stream: StreamId(0),
            sensor: "spindle",
            model: "iis3dwb",
            axes: "xyz",
            rate_nominal_mhz: 26_666_667,
            scale: 1.2e-3,
            bits: 16,
            block_samples: 512,
            encoding: Encoding::Raw16,
        };
        let column = StreamInfo {
            stream: StreamId(1),
            sensor: "column",
            model: "adxl355",
            rate_nominal_mhz: 4_000_000,
            bits: 20,
            encoding: Encoding::Rice24,
            ..spindle
        };
        [spindle, column]
    }

    fn abilities<'a>(streams: &'a [StreamInfo<'a>], link_bits_per_s: u32) -> Abilities<'a> {
        Abilities { streams, link_bits_per_s, block_samples_max: 1024, burst_samples_max: BURST_SAMPLES_MAX }
    }

    fn refused(change: impl FnOnce(&mut Settings)) -> Refused {
        let streams = streams();
        let mut settings = Settings::built_in(&streams);
        change(&mut settings);
        settings.check(&abilities(&streams, 100_000_000)).unwrap_err()
    }

    #[test]
    fn built_in_settings_are_what_the_node_can_do() {
        let streams = streams();
        let settings = Settings::built_in(&streams);
        assert_eq!(settings.check(&abilities(&streams, 100_000_000)), Ok(()));
        assert_eq!((settings.streams[0].axes, settings.streams[1].codec), (0b111, Codec::Rice));
    }

    #[test]
    fn what_a_node_cannot_do_is_refused_by_name() {
        assert_eq!(refused(|s| s.streams[1].axes = 8), Refused::Axes { stream: 1, axes: 8, has: 7 });
        assert_eq!(
            refused(|s| s.streams[0].decimation = 34),
            Refused::Decimation { stream: 0, decimation: 34 }
        );
        let block = Refused::Block { stream: 0, block_samples: 1025, most: 1024 };
        assert_eq!(refused(|s| s.streams[0].block_samples = 1025), block);
        let burst = Refused::Burst { stream: 0, samples: 2049, most: 2048 };
        assert_eq!(
            refused(|s| (s.streams[0].trigger.before, s.streams[0].trigger.after) = (49, 2000)),
            burst
        );
        assert_eq!(refused(|s| s.streams[0].stream = StreamId(5)), Refused::Streams { streams: 2 });
        assert_eq!(refused(|s| assert!(s.streams.pop().is_some())), Refused::Streams { streams: 2 });
        assert_eq!(refused(|s| s.status_every_s = 0), Refused::Range { field: "status_every_s" });
        assert_eq!(
            refused(|s| s.streams[0].trigger.level = f32::NAN),
            Refused::Range { field: "streams.trigger.level" }
        );
    }

    #[test]
    fn raw_data_that_the_link_cannot_carry_is_refused_and_fits_once_thinned_out() {
        let streams = streams();
        let slow = abilities(&streams, 921_600);
        let mut settings = Settings::built_in(&streams);
        assert!(matches!(settings.check(&slow), Err(Refused::Link { capacity_kbit_s: 921, .. })));
        settings.streams[0].step = Step::Decimated;
        settings.streams[1].step = Step::Features;
        assert_eq!(settings.check(&slow), Ok(()));
    }
}
