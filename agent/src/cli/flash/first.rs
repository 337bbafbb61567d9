//! What a board says first: its birth, and the first second of each of its sensors. Takes messages as they come, from a broker
//! or from a gateway's journal.

use crate::session::report::reset_words;
use serde::Serialize;
use spindle_common::wire::block::flags;
use spindle_common::wire::{self, Birth, Block, Features, Message, Status};
use std::fmt::Write as _;

/// Everything that was seen.
#[derive(Debug, Clone, Serialize)]
pub(super) struct First {
    #[serde(skip)]
    node: String,
    /// The run before, which does not count.
    #[serde(skip)]
    before: Option<u64>,
    /// The birth.
    pub(super) birth: Option<Born>,
    /// One entry a sensor, as the birth names them.
    sensors: Vec<Sensor>,
}

/// What a birth says.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Born {
    #[serde(skip)]
    boot_id: u64,
    boot: String,
    board: String,
    firmware: String,
    reset_cause: &'static str,
    last_panic: String,
    settings_version: u32,
    ring_blocks: u16,
}

/// The first second of a sensor.
#[derive(Debug, Clone, Serialize)]
struct Sensor {
    #[serde(skip)]
    stream: u8,
    sensor: String,
    model: String,
    rate_nominal_hz: f64,
    bits: u8,
    block_samples: u16,
    /// Samples per axis.
    samples: u64,
    /// Samples per axis that should have been among them.
    missing: u64,
    /// As sent, by the board's clock; none while it cannot be told.
    rate_hz: Option<f64>,
    /// Computed on the board, over one window, in place of samples.
    features: bool,
    /// From a model or a recording.
    synthetic: bool,
    saturated: bool,
    temperature_c: Option<f64>,
    unit: &'static str,
    axes: Vec<Axis>,
    /// Sample and tick at which it began.
    #[serde(skip)]
    start: Option<(u64, u64)>,
    /// The sensor's sample that comes next.
    #[serde(skip)]
    next: u64,
    #[serde(skip)]
    complete: bool,
}

/// An axis.
#[derive(Debug, Clone, Serialize)]
struct Axis {
    axis: String,
    /// Mean removed, m/s².
    rms: f64,
    /// Largest magnitude, mean removed, m/s².
    peak: f64,
    #[serde(skip)]
    sums: Sums,
}

#[derive(Debug, Clone, Copy)]
struct Sums {
    sum: f64,
    square: f64,
    least: f64,
    most: f64,
}

impl First {
    /// Of this node, of another run than `before`.
    pub(super) fn new(node: &str, before: Option<u64>) -> Self {
        Self { node: node.to_owned(), before, birth: None, sensors: Vec::new() }
    }

    /// Whether nothing is waited for any more.
    pub(super) fn is_complete(&self) -> bool {
        self.birth.is_some() && self.sensors.iter().all(|sensor| sensor.complete)
    }

    /// Takes a message; what cannot be read, or is another node's or run's, is passed over.
    pub(super) fn take(&mut self, payload: &[u8]) {
        let Ok(message) = wire::decode(payload) else { return };
        match &message {
            Message::Birth(birth) if birth.node == self.node && Some(birth.boot.0) != self.before => {
                self.birth(birth);
            }
            Message::Block(block) if self.is_ours(block.header.node, block.header.boot.0) => {
                self.block(block)
            }
            Message::Features(features) if self.is_ours(features.node, features.boot.0) => {
                self.features(features);
            }
            Message::Status(status) if self.is_ours(status.node, status.boot.0) => self.status(status),
            _ => {}
        }
    }

    fn is_ours(&self, node: &str, boot: u64) -> bool {
        node == self.node && self.birth.as_ref().is_some_and(|birth| birth.boot_id == boot)
    }

    fn birth(&mut self, birth: &Birth<'_>) {
        // It comes again at each connect.
        if self.is_ours(birth.node, birth.boot.0) {
            return;
        }
        self.birth = Some(Born {
            boot_id: birth.boot.0,
            boot: format!("{:016x}", birth.boot.0),
            board: birth.board.into(),
            firmware: birth.firmware.into(),
            reset_cause: reset_words(birth.reset_cause),
            last_panic: birth.last_panic.into(),
            settings_version: birth.settings_version,
            ring_blocks: birth.ring_capacity,
        });
        let sensor = |info: &wire::StreamInfo<'_>| Sensor {
            stream: info.stream.0,
            sensor: info.sensor.into(),
            model: info.model.into(),
            rate_nominal_hz: f64::from(info.rate_nominal_mhz) / 1000.0,
            bits: info.bits,
            block_samples: info.block_samples,
            samples: 0,
            missing: 0,
            rate_hz: None,
            features: false,
            synthetic: false,
            saturated: false,
            temperature_c: None,
            unit: "m/s2",
            axes: info.axes.chars().map(Axis::new).collect(),
            start: None,
            next: 0,
            complete: false,
        };
        self.sensors = birth.streams.iter().map(sensor).collect();
    }

    fn sensor(&mut self, stream: u8) -> Option<&mut Sensor> {
        self.sensors.iter_mut().find(|sensor| sensor.stream == stream)
    }

    fn block(&mut self, block: &Block<'_>) {
        let header = &block.header;
        let Some(sensor) = self.sensor(header.stream.0).filter(|sensor| !sensor.complete) else { return };
        let mut planar = vec![0.0_f32; header.len()];
        if block.decode_f32(header.scale, &mut planar).is_err() {
            return;
        }
        sensor.take(header, &planar);
    }

    fn features(&mut self, features: &Features<'_>) {
        let Some(sensor) = self.sensor(features.stream.0).filter(|sensor| !sensor.complete) else { return };
        sensor.features = true;
        sensor.samples = features.samples.into();
        sensor.flags(features.flags);
        for (axis, told) in sensor.axes.iter_mut().zip(&features.axes) {
            (axis.rms, axis.peak) = (told.rms.into(), told.peak.into());
        }
        sensor.complete = true;
    }

    fn status(&mut self, status: &Status<'_>) {
        for told in &status.streams {
            if let Some(sensor) = self.sensor(told.stream.0) {
                let has_one = told.temperature_centi_c != i16::MIN;
                sensor.temperature_c = has_one.then(|| f64::from(told.temperature_centi_c) / 100.0);
            }
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let Some(birth) = &self.birth else { return text };
        let settings = match birth.settings_version {
            0 => "built-in settings".to_owned(),
            version => format!("settings version {version}"),
        };
        let _ = writeln!(
            text,
            "birth: {} with firmware {}, boot {}, reset cause: {}, {settings}, room for {} blocks",
            birth.board, birth.firmware, birth.boot, birth.reset_cause, birth.ring_blocks
        );
        if !birth.last_panic.is_empty() {
            let _ = writeln!(text, "  last panic: {}", birth.last_panic);
        }
        for sensor in &self.sensors {
            text.push_str(&sensor.text());
        }
        text
    }
}

impl Sensor {
    /// Takes a block into the first second. One that came before, or again, is passed over.
    fn take(&mut self, header: &wire::BlockHeader<'_>, planar: &[f32]) {
        let (start, start_tick) = *self.start.get_or_insert((header.first_sample, header.tick));
        if self.samples > 0 && header.first_sample < self.next {
            return;
        }
        let decimation = u64::from(header.decimation.max(1));
        if self.samples > 0 {
            self.missing += (header.first_sample - self.next) / decimation;
        }
        let second = (f64::from(header.rate_nominal_mhz) / 1000.0 / decimation as f64).round() as u64;
        let len = usize::from(header.samples);
        let taken = len.min(usize::try_from(second.saturating_sub(self.samples)).unwrap_or(len));
        // With settings that leave axes out, those that are sent come first.
        for (axis, channel) in self.axes.iter_mut().zip(planar.chunks_exact(len)) {
            axis.take(&channel[..taken]);
        }
        self.samples += taken as u64;
        self.next = header.first_sample + u64::from(header.samples) * decimation;
        let ticks = header.tick.saturating_sub(start_tick);
        if ticks > 0 {
            let seconds = ticks as f64 / f64::from(header.tick_hz.max(1));
            self.rate_hz = Some((header.first_sample - start) as f64 / decimation as f64 / seconds);
        }
        self.flags(header.flags);
        self.axes.iter_mut().for_each(|axis| axis.settle(self.samples));
        self.complete = self.samples >= second;
    }

    fn flags(&mut self, flags: u16) {
        self.synthetic |= flags & flags::SYNTHETIC != 0;
        self.saturated |= flags & flags::SATURATED != 0;
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}: {}, {:.0} Hz nominal, {} bits, blocks of {}",
            self.sensor, self.model, self.rate_nominal_hz, self.bits, self.block_samples
        );
        if let Some(celsius) = self.temperature_c {
            let _ = write!(text, ", {celsius:.1} °C");
        }
        if self.synthetic {
            text.push_str("; from a model, not from a sensor");
        }
        if self.saturated {
            text.push_str("; SATURATED: a sample sits at the end of the range");
        }
        let rate = self.rate_hz.map_or_else(String::new, |hz| format!(" at {hz:.1} Hz by the board's clock"));
        let _ = match (self.samples, self.features) {
            (0, _) => write!(text, "\n  no data"),
            (samples, true) => {
                write!(text, "\n  features that the board computed over {samples} samples an axis")
            }
            (samples, false) => {
                let what = if self.complete { "first second" } else { "less than a second" };
                let missing = match self.missing {
                    0 => "none missing".to_owned(),
                    missing => format!("{missing} MISSING"),
                };
                write!(text, "\n  {what}: {samples} samples an axis{rate}, {missing}")
            }
        };
        text.push('\n');
        if self.samples > 0 {
            for axis in &self.axes {
                let _ = writeln!(
                    text,
                    "  {}  RMS {:9.4} m/s²   peak {:9.4} m/s²",
                    axis.axis, axis.rms, axis.peak
                );
            }
        }
        text
    }
}

impl Axis {
    fn new(axis: char) -> Self {
        let sums = Sums { sum: 0.0, square: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY };
        Self { axis: axis.into(), rms: 0.0, peak: 0.0, sums }
    }

    fn take(&mut self, samples: &[f32]) {
        for &sample in samples {
            let sample = f64::from(sample);
            self.sums.sum += sample;
            self.sums.square += sample * sample;
            self.sums.least = self.sums.least.min(sample);
            self.sums.most = self.sums.most.max(sample);
        }
    }

    fn settle(&mut self, samples: u64) {
        let count = samples.max(1) as f64;
        let mean = self.sums.sum / count;
        self.rms = (self.sums.square / count - mean * mean).max(0.0).sqrt();
        self.peak = (self.sums.most - mean).max(mean - self.sums.least).max(0.0);
    }
}
