//! Every message besides the block. All strings are at most 32 bytes unless a field says otherwise.

use super::{AXES_MAX, BlockHeader, Encoding, STREAMS_MAX};
use crate::id::{BootId, Seq, StreamId};
use crate::settings::{Settings, Step};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Longest text in an answer or a panic message, in bytes.
pub const TEXT_LEN_MAX: usize = 160;

/// Why the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetCause {
    /// Not known.
    Unknown,
    /// Power came on.
    PowerOn,
    /// The reset pin.
    Pin,
    /// The firmware asked for it (command or update).
    Software,
    /// The watchdog bit.
    Watchdog,
    /// Supply voltage fell too low.
    BrownOut,
    /// A panic or fault.
    Panic,
}

/// One sensor of a node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StreamInfo<'a> {
    /// Index on the node.
    pub stream: StreamId,
    /// The sensor's name: the third part of its key `site/machine/sensor`.
    pub sensor: &'a str,
    /// The sensor's type, such as `iis3dwb`: a file in `hardware-configs/sensors`.
    pub model: &'a str,
    /// One letter a channel, such as `xyz`.
    pub axes: &'a str,
    /// Nominal sample rate in mHz.
    pub rate_nominal_mhz: u32,
    /// m/s² per count.
    pub scale: f32,
    /// Bits of the converter.
    pub bits: u8,
    /// Samples per channel and block.
    pub block_samples: u16,
    /// How blocks are encoded.
    pub encoding: Encoding,
}

/// Who the node is. Retained under `birth`; sent at every boot and connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Birth<'a> {
    /// The node's name.
    pub node: &'a str,
    /// This run.
    pub boot: BootId,
    /// The site, first part of the key.
    pub site: &'a str,
    /// The machine, second part of the key.
    pub machine: &'a str,
    /// The board's type: a file in `hardware-configs/boards`.
    pub board: &'a str,
    /// The firmware's version.
    pub firmware: &'a str,
    /// Ticks per second of the node's clock, nominal.
    pub tick_hz: u32,
    /// Why it started.
    pub reset_cause: ResetCause,
    /// Text of the last panic, at most 160 bytes; empty if none.
    pub last_panic: &'a str,
    /// Version of the run-time settings in force; 0 for those built in.
    pub settings_version: u32,
    /// Blocks that the ring can hold.
    pub ring_capacity: u16,
    /// The sensors.
    pub streams: Vec<StreamInfo<'a>, STREAMS_MAX>,
    /// What the node has counted over its resets; absent in version 1.
    #[serde(skip)]
    pub lifetime: Option<Lifetime>,
}

/// Counters that a node keeps over resets, in memory that a reset does not clear. A loss of power clears them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Starts since power came on, this one included.
    pub boots: u32,
    /// Resets by the watchdog.
    pub watchdog_resets: u32,
    /// Resets after a panic or fault.
    pub panics: u32,
    /// Resets because the supply fell too low.
    pub brown_outs: u32,
    /// Resets that the firmware asked for.
    pub software_resets: u32,
    /// Tasks that had not checked in when the watchdog last bit, one bit each; 0 if it never did.
    pub hung_tasks: u32,
    /// Blocks that the run before dropped from its full ring.
    pub dropped_before: u32,
    /// Blocks that the run before had sealed and the gateway had not acknowledged: lost with its memory.
    pub unacknowledged_before: u32,
}

/// One channel's features over one window, computed on the node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AxisFeatures {
    /// Acceleration RMS, mean removed, m/s².
    pub rms: f32,
    /// Largest magnitude, mean removed, m/s².
    pub peak: f32,
    /// Peak to peak, m/s².
    pub peak_to_peak: f32,
    /// Pearson kurtosis (Gaussian: 3).
    pub kurtosis: f32,
    /// Velocity RMS 10-1000 Hz, mm/s.
    pub velocity_rms: f32,
    /// Mean that was removed, m/s².
    pub mean: f32,
}

/// Features of one window in place of its raw samples. Takes a place in the node's sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Features<'a> {
    /// The node's name.
    pub node: &'a str,
    /// This run.
    pub boot: BootId,
    /// Which sensor.
    pub stream: StreamId,
    /// Place in the node's sequence.
    pub seq: Seq,
    /// Index of the window's first sample since boot.
    pub first_sample: u64,
    /// Samples per channel in the window.
    pub samples: u32,
    /// Tick of the first sample.
    pub tick: u64,
    /// Ticks per second, nominal.
    pub tick_hz: u32,
    /// Sample rate as measured, mHz; 0 when unknown.
    pub rate_measured_mhz: u32,
    /// Block flags of all samples, or-ed.
    pub flags: u16,
    /// One entry a channel.
    pub axes: Vec<AxisFeatures, AXES_MAX>,
}

/// What released a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerKind {
    /// A level was exceeded.
    Level,
    /// The gateway asked.
    Command,
    /// It was time.
    Periodic,
}

/// Raw samples around a trigger: a block and what released it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst<'a> {
    /// What released it.
    pub trigger: Trigger,
    /// The samples; same header as a block's.
    pub block: super::Block<'a>,
}

/// Why and when a burst was released.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// What released it.
    pub kind: TriggerKind,
    /// Index of the sample at which it was released, since boot.
    pub sample: u64,
    /// Level that was exceeded, m/s²; 0 when the trigger is no level.
    pub level: f32,
}

/// Header of a burst on the wire: the trigger, then a block's header.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BurstHeader<'a> {
    /// What released it.
    pub trigger: Trigger,
    /// As in a block.
    #[serde(borrow)]
    pub block: BlockHeader<'a>,
}

/// Counters of one stream since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Which sensor.
    pub stream: StreamId,
    /// Samples per channel that the sensor took since boot, lost ones included.
    pub taken: u64,
    /// Samples per channel lost in FIFO overruns.
    pub lost_overrun: u64,
    /// Samples per channel dropped from the full ring.
    pub lost_ring: u64,
    /// Errors on the sensor's bus.
    pub bus_errors: u32,
    /// Temperature in 0.01 °C; `i16::MIN` when the sensor has none.
    pub temperature_centi_c: i16,
}

/// Counters of the node. Sent periodically, after every connect, and whenever the ring has dropped what was not
/// acknowledged: `oldest` tells the gateway that nothing before it will ever come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status<'a> {
    /// The node's name.
    pub node: &'a str,
    /// This run.
    pub boot: BootId,
    /// The node's tick counter now.
    pub tick: u64,
    /// Oldest sequence number still held (equal to `next` when nothing is held).
    pub oldest: Seq,
    /// Sequence number of the next block.
    pub next: Seq,
    /// Blocks in the ring now.
    pub ring_used: u16,
    /// Blocks that the full ring dropped.
    pub dropped: u32,
    /// Messages sent again.
    pub resent: u32,
    /// Connections made.
    pub connects: u32,
    /// One entry a sensor.
    pub streams: Vec<StreamStatus, STREAMS_MAX>,
    /// More counters; absent in version 1.
    #[serde(skip)]
    pub more: Option<MoreStatus>,
}

/// What version 2 adds to a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoreStatus {
    /// Answers dropped because the queue of answers was full.
    pub answers_dropped: u32,
    /// Messages of the gateway dropped because they were too long or not readable.
    pub inbox_dropped: u32,
    /// Received bytes lost on the serial line (overruns and framing errors); 0 where there is none.
    pub line_errors: u32,
    /// One entry a sensor, in the order of `streams`.
    pub steps: Vec<StepStatus, STREAMS_MAX>,
}

/// How a stream reports, and what it withheld for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStatus {
    /// The step that it is in now.
    pub step: Step,
    /// Samples per channel since boot that it took and did not send as such: thinned out by decimation or stood for by features.
    pub withheld: u64,
    /// Bursts released since boot.
    pub bursts: u32,
    /// Bursts that a trigger asked for while another was under way or its rest had not passed.
    pub bursts_missed: u32,
}

/// Where a node's UTC came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeSource {
    /// The host's clock (virtual boards).
    Host,
    /// SNTP.
    Sntp,
    /// An exchange with the gateway.
    Gateway,
    /// PTP or another disciplined clock.
    Ptp,
}

/// The node's tick counter and UTC at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimePair<'a> {
    /// The node's name.
    pub node: &'a str,
    /// This run.
    pub boot: BootId,
    /// Tick counter.
    pub tick: u64,
    /// Ticks per second, nominal.
    pub tick_hz: u32,
    /// UTC in ns since 1970.
    pub utc_ns: i64,
    /// Bound of the error, ns.
    pub error_ns: u32,
    /// Where UTC came from.
    pub source: TimeSource,
}

/// The gateway has committed everything before `next` and will never ask for it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Which run.
    pub boot: BootId,
    /// First sequence number that is not durable yet.
    pub next: Seq,
}

/// What the gateway asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Publish birth and status again.
    Report,
    /// Blink or otherwise show itself.
    Identify,
    /// Run the sensor's self-test.
    SelfTest {
        /// Which sensor.
        stream: StreamId,
    },
    /// Restart the board.
    Reboot,
}

/// The gateway asks something of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Chosen by the gateway; the answer repeats it.
    pub id: u32,
    /// What is asked.
    pub request: Request,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done.
    Done,
    /// Tried and failed.
    Failed,
    /// Not understood or not supported here.
    Refused,
}

/// The node's answer to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<'a> {
    /// The node's name.
    pub node: &'a str,
    /// This run.
    pub boot: BootId,
    /// Repeats the command's.
    pub id: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Details for people, at most 160 bytes.
    pub text: &'a str,
}

/// Last will: the broker publishes it when the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offline<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Which run.
    pub boot: BootId,
}

/// The gateway gives a node its run-time settings, all of them. The node's [`Answer`] says whether they are in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Set<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Chosen by the gateway; the answer repeats it.
    pub id: u32,
    /// The settings.
    pub settings: Settings,
}

/// The run-time settings in force; sent after each birth and each change. Also what a node keeps in its flash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InForce<'a> {
    /// The node's name.
    pub node: &'a str,
    /// This run.
    pub boot: BootId,
    /// The settings.
    pub settings: Settings,
}

/// A node without a clock of its own asks for the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeAsk<'a> {
    /// The node's name.
    pub node: &'a str,
    /// This run.
    pub boot: BootId,
    /// Chosen by the node; the answer repeats it.
    pub id: u32,
    /// The node's tick counter when it asked.
    pub tick: u64,
}

/// The gateway's answer to [`TimeAsk`]: with the tick at which it comes in, the four time stamps of an NTP exchange (RFC 5905).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeTell<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Repeats the question's.
    pub boot: BootId,
    /// Repeats the question's.
    pub id: u32,
    /// Repeats the question's.
    pub tick: u64,
    /// When the question came in, UTC in ns since 1970.
    pub received_ns: i64,
    /// When this answer went out, UTC in ns since 1970.
    pub sent_ns: i64,
    /// Bound of the error of the gateway's own clock, ns.
    pub error_ns: u32,
}
