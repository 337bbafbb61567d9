//! From samples to features, scores and alerts: a pure library without I/O, the same live and in replay.
//!
//! A block is calibrated to m/s², judged (gap, saturation, stuck, rate, clock), cut into windows by sample number, and measured;
//! `RECORDS.md` beside this crate defines every value. What comes out depends on the records and the configuration alone, never on
//! arrival, on the wall clock, or on how records were batched. A sensor's whole state can be saved after any record and goes on
//! bit for bit.
//!
//! | limit | value | when reached |
//! |---|---|---|
//! | sensors | [`SENSORS_MAX`] | records of further ones are counted and left out |
//! | downsampled samples in a rollup | 4096 per axis | the rollup goes without them |
//! | lines of a spectrum | 20,480 over all axes | its resolution is coarser than asked for |
//! | bands | [`BANDS_MAX`] | the configuration is refused |
//! | records since a sensor's last save | [`SAVE_LAG_RECORDS`] | it is saved even without an output |

mod emit;
mod feature;
pub(crate) mod json;
mod lines;
mod meters;
mod quality;
mod rate;
mod rollup;
mod runner;
mod sensor;
mod settings;
mod spectral;
mod spectrum;
mod state;
mod window;

pub use emit::AnomalyState;
pub use feature::{BAND_DETECTOR, BAND_PREFIX, BAND_UNIT, BANDS_MAX, FEATURES, Feature};
pub use quality::FLAG_NAMES;
pub use runner::{Runner, RunnerError, RunnerMonitor, RunnerStats};
pub use state::StateError;

use crate::config::Config;
use crate::outputs::{AlertRow, Commit, Loaded};
use crate::record::{Gap, Output, Record, RecordKind, SensorKey};
use crate::session::json::{self as json_sensor, Mapping};
use emit::{Emit, Judge};
use sensor::{Form, Input, Scratch, ShapeRef, SourceRef, Stream};
use settings::{Cut, Settings};
use spindle_common::wire::{self, Message};
use std::collections::HashMap;
use std::sync::Arc;

/// Most sensors at a time.
pub const SENSORS_MAX: usize = 65_536;

/// A sensor that has put nothing out for so many journal records is saved all the same, so that a restart need not read far back.
pub const SAVE_LAG_RECORDS: u64 = 65_536;

/// A block's axes are named so until the node's birth names them.
const AXIS_NAMES: [&str; 8] = ["x", "y", "z", "a", "b", "c", "d", "e"];

/// Samples that come from no journal: a recording's.
#[derive(Debug)]
pub struct RawSamples<'a> {
    /// Index of the first sample since the recording's start.
    pub first_sample: u64,
    /// UTC of it.
    pub time_ns: i64,
    /// Names of the axes.
    pub axes: &'a [String],
    /// Sample rate.
    pub rate_hz: f64,
    /// Lowest and highest value that the sensor can give, m/s².
    pub range: Option<[f32; 2]>,
    /// m/s², planar; not finite where there is none.
    pub planar: &'a mut [f32],
}

/// Counters since the pipeline was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PipelineStats {
    /// Journal records taken.
    pub records: u64,
    /// Samples taken, over all channels.
    pub samples: u64,
    /// Features records made.
    pub windows: u64,
    /// Rollups made.
    pub rollups: u64,
    /// Spectra made.
    pub spectra: u64,
    /// Alerts raised, cleared or withdrawn.
    pub alert_changes: u64,
    /// Samples that came after their place had passed.
    pub late_samples: u64,
    /// Records whose body could not be read.
    pub undecodable: u64,
    /// Records of sensors beyond [`SENSORS_MAX`].
    pub sensors_refused: u64,
    /// Saved states that could not be used.
    pub states_refused: u64,
}

/// Everything that is known about one sensor.
#[derive(Debug)]
struct Sensor {
    key: Arc<SensorKey>,
    /// Offset of the last record that the state includes.
    applied: u64,
    /// Offset of the first record since the last save.
    dirty_since: Option<u64>,
    /// Has put something out since the last save.
    has_output: bool,
    stream: Option<Stream>,
    judge: Judge,
}

/// The pipeline of all sensors.
pub struct Pipeline {
    settings: Settings,
    mappings: Vec<Mapping>,
    sensors: Vec<Sensor>,
    by_key: HashMap<Arc<SensorKey>, usize>,
    /// Sensors changed since their last save.
    dirty: Vec<usize>,
    alerts: Vec<AlertRow>,
    last_offset: u64,
    scratch: Scratch,
    stats: PipelineStats,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("sensors", &self.sensors.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// A pipeline that has seen nothing.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            settings: Settings::new(config),
            mappings: config.source.json.iter().map(Mapping::new).collect(),
            sensors: Vec::new(),
            by_key: HashMap::new(),
            dirty: Vec::new(),
            alerts: Vec::new(),
            last_offset: 0,
            scratch: Scratch::default(),
            stats: PipelineStats::default(),
        }
    }

    /// A pipeline that goes on from a saved state. States that cannot be read are dropped and counted; their sensors start anew.
    #[must_use]
    pub fn restore(config: &Config, loaded: &Loaded) -> (Self, Vec<StateError>) {
        let mut pipeline = Self::new(config);
        let mut errors = Vec::new();
        pipeline.last_offset = loaded.checkpoint.saturating_sub(1);
        for save in &loaded.sensors {
            let (sensor, error) = state::restore(save, &pipeline.settings);
            pipeline.stats.states_refused += u64::from(error.is_some());
            errors.extend(error);
            pipeline.by_key.insert(Arc::clone(&sensor.key), pipeline.sensors.len());
            pipeline.sensors.push(sensor);
        }
        (pipeline, errors)
    }

    /// Version of the configuration that results carry.
    #[must_use]
    pub fn config_version(&self) -> &str {
        &self.settings.version
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> PipelineStats {
        self.stats
    }

    /// Takes one journal record; what it completes is added to `out`. Records must come in order of offset; those that a sensor's
    /// restored state already includes are skipped.
    pub fn push(&mut self, record: &Record, out: &mut Vec<Output>) {
        self.stats.records += 1;
        self.last_offset = self.last_offset.max(record.offset);
        match record.kind {
            RecordKind::Block => self.push_block(record, out),
            RecordKind::Json => self.push_json(record, out),
            RecordKind::Gap => self.push_gap(record, out),
            RecordKind::Node => self.push_node(record, out),
            // Dead letters go out as they are; machine context has no reader yet.
            RecordKind::DeadLetter | RecordKind::Context => {}
        }
    }

    /// Takes samples that are in no journal, as `replay` of a recording does.
    pub fn push_samples(&mut self, key: &Arc<SensorKey>, samples: RawSamples<'_>, out: &mut Vec<Output>) {
        let axes = samples.axes.len();
        if axes == 0 || axes > wire::AXES_MAX || !samples.planar.len().is_multiple_of(axes) {
            self.stats.undecodable += 1;
            return;
        }
        self.last_offset += 1;
        let Some(index) = self.sensor(key, self.last_offset) else { return };
        let shape = ShapeRef { source: SourceRef::Json, axes, rate_nominal_hz: samples.rate_hz };
        let mut input = Input {
            time_ns: samples.time_ns,
            record_flags: 0,
            block_flags: wire::block::flags::SYNTHETIC,
            first_sample: samples.first_sample,
            per_channel: samples.planar.len() / axes,
            rate_node_hz: 0.0,
            range: samples.range,
            planar: samples.planar,
        };
        self.take(index, shape, Some(samples.axes), &mut input, out);
    }

    /// Puts out the windows and rollups that are still open, at the end of a replay. A live pipeline never does.
    pub fn finish(&mut self, out: &mut Vec<Output>) {
        for index in 0..self.sensors.len() {
            self.with_stream(index, out, |stream, emit| stream.finish(emit));
            self.sensors[index].stream = None;
        }
    }

    /// Adds to a commit what must be saved with its outputs, and the checkpoint. With `everything`, every changed sensor is saved: at
    /// shutdown.
    pub fn save(&mut self, commit: &mut Commit, everything: bool) {
        commit.alerts.append(&mut self.alerts);
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut checkpoint = self.last_offset + 1;
        dirty.retain(|index| {
            let sensor = &mut self.sensors[*index];
            let since = sensor.dirty_since.unwrap_or(self.last_offset);
            let is_old = self.last_offset - since >= SAVE_LAG_RECORDS;
            if !(everything || sensor.has_output || is_old) {
                checkpoint = checkpoint.min(since);
                return true;
            }
            commit.sensors.push(state::save(sensor, &self.settings));
            sensor.dirty_since = None;
            sensor.has_output = false;
            false
        });
        self.dirty = dirty;
        commit.checkpoint = checkpoint;
    }

    /// The sensor's index, if the record at `offset` is not yet in its state. Marks it as changed.
    fn sensor(&mut self, key: &Arc<SensorKey>, offset: u64) -> Option<usize> {
        let index = match self.by_key.get(key) {
            Some(index) => *index,
            None if self.sensors.len() >= SENSORS_MAX => {
                self.stats.sensors_refused += 1;
                return None;
            }
            None => {
                self.by_key.insert(Arc::clone(key), self.sensors.len());
                self.sensors.push(Sensor::new(Arc::clone(key)));
                self.sensors.len() - 1
            }
        };
        let sensor = &mut self.sensors[index];
        if offset <= sensor.applied {
            return None;
        }
        sensor.applied = offset;
        if sensor.dirty_since.is_none() {
            sensor.dirty_since = Some(offset);
            self.dirty.push(index);
        }
        Some(index)
    }

    fn push_block(&mut self, record: &Record, out: &mut Vec<Output>) {
        let Some(index) = self.sensor(&record.key, record.offset) else { return };
        let Ok(Message::Block(block)) = wire::decode(&record.body) else {
            self.stats.undecodable += 1;
            return;
        };
        let header = &block.header;
        let mut planar = std::mem::take(&mut self.scratch.planar);
        planar.resize(header.len(), 0.0);
        if block.decode_f32(header.scale, &mut planar).is_ok() {
            let shape = ShapeRef {
                source: SourceRef::Board {
                    node: header.node,
                    boot: header.boot.0,
                    stream: header.stream.0,
                    form: Form::Samples(header.decimation),
                },
                axes: usize::from(header.axes),
                rate_nominal_hz: f64::from(header.rate_nominal_mhz) / 1000.0 / f64::from(header.decimation),
            };
            let half = 1_i32 << (header.bits - 1);
            let mut input = Input {
                time_ns: record.time_ns,
                record_flags: record.flags,
                block_flags: header.flags,
                // Samples of the thinned out stream have numbers of their own, one for so many of the sensor's.
                first_sample: header.first_sample / u64::from(header.decimation),
                per_channel: usize::from(header.samples),
                rate_node_hz: f64::from(header.rate_measured_mhz) / 1000.0 / f64::from(header.decimation),
                range: Some([-half as f32 * header.scale, (half - 1) as f32 * header.scale]),
                planar: &mut planar,
            };
            self.take(index, shape, None, &mut input, out);
        } else {
            self.stats.undecodable += 1;
        }
        self.scratch.planar = planar;
    }

    fn push_json(&mut self, record: &Record, out: &mut Vec<Output>) {
        let Some(index) = self.sensor(&record.key, record.offset) else { return };
        // The session accepted it by the same mappings; a changed configuration may no longer understand it.
        let Ok((mapping, mut samples)) = json_sensor::decode(&self.mappings, &record.key, &record.body)
        else {
            self.stats.undecodable += 1;
            return;
        };
        let config = self.mappings[mapping].config();
        let full_scale = config.full_scale.map(|full| (full * config.unit.to_si()) as f32);
        let names: Vec<String> = config.channels.iter().map(|channel| channel.axis.clone()).collect();
        let shape = ShapeRef { source: SourceRef::Json, axes: samples.axes, rate_nominal_hz: config.rate_hz };
        let mut input = Input {
            time_ns: record.time_ns,
            record_flags: record.flags,
            block_flags: 0,
            first_sample: record.first_sample,
            per_channel: samples.samples,
            rate_node_hz: 0.0,
            range: full_scale.map(|full| [-full, full]),
            planar: &mut samples.values,
        };
        self.take(index, shape, Some(&names), &mut input, out);
    }

    fn take(
        &mut self,
        index: usize,
        shape: ShapeRef<'_>,
        names: Option<&[String]>,
        input: &mut Input<'_>,
        out: &mut Vec<Output>,
    ) {
        self.stats.samples += input.planar.len() as u64;
        let changed = self.sensors[index].stream.as_ref().is_none_or(|stream| !stream.is_of(&shape));
        if changed {
            // Late blocks of an earlier run must not end the present one.
            if input.record_flags & crate::record::record_flags::LATE != 0 {
                self.stats.late_samples += input.planar.len() as u64;
                return;
            }
            self.end_run(index, &shape, out);
            let sensor = &mut self.sensors[index];
            let earlier = sensor.stream.as_ref().filter(|s| s.shape.rate_nominal_hz == shape.rate_nominal_hz);
            let earlier = earlier.map(|stream| stream.rate.best());
            let cut = self.settings.cut(shape.rate_nominal_hz);
            sensor.judge.prepare(&self.settings, &sensor.key, shape.axes, names);
            sensor.stream = Some(Stream::new(&shape, input.first_sample, cut, earlier));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        self.with_stream(index, out, |stream, emit| stream.take(input, &mut scratch, emit));
        self.scratch = scratch;
    }

    fn push_gap(&mut self, record: &Record, out: &mut Vec<Output>) {
        let Some(index) = self.sensor(&record.key, record.offset) else { return };
        let Ok(gap) = postcard::from_bytes::<Gap>(&record.body) else {
            self.stats.undecodable += 1;
            return;
        };
        let end = gap.first_sample.saturating_add(gap.samples);
        let board = self.sensors[index].stream.as_ref().and_then(|stream| stream.shape.source.board());
        if let Some((node, boot, stream, Form::Samples(decimation))) = board
            && (node, boot, stream) == (&*gap.node, gap.boot, gap.stream)
        {
            let end = end.div_ceil(decimation.into());
            self.with_stream(index, out, |stream, emit| {
                let cut = emit.settings.cut(stream.shape.rate_nominal_hz);
                stream.skip_to(end, cut, emit);
            });
        }
    }

    /// What nodes say of themselves; and features that they computed.
    fn push_node(&mut self, record: &Record, out: &mut Vec<Output>) {
        match wire::decode(&record.body) {
            Ok(Message::Birth(birth)) => self.push_birth(&birth, record),
            Ok(Message::Features(features)) => self.push_features(&features, record, out),
            _ => {}
        }
    }

    /// Features that a node computed: a window of their own.
    fn push_features(&mut self, features: &wire::Features<'_>, record: &Record, out: &mut Vec<Output>) {
        let Some(index) = self.sensor(&record.key, record.offset) else { return };
        let late = record.flags & crate::record::record_flags::LATE != 0;
        let shape = ShapeRef {
            source: SourceRef::Board {
                node: features.node,
                boot: features.boot.0,
                stream: features.stream.0,
                form: Form::Features,
            },
            axes: features.axes.len(),
            // Nodes send one window a nominal second.
            rate_nominal_hz: f64::from(features.samples),
        };
        let known = self.sensors[index].stream.as_ref().filter(|stream| stream.is_of(&shape));
        if late || known.is_some_and(|stream| features.first_sample < stream.next_sample) {
            self.stats.late_samples += u64::from(features.samples) * features.axes.len() as u64;
            return;
        }
        if known.is_none() {
            self.end_run(index, &shape, out);
            let sensor = &mut self.sensors[index];
            let cut = Cut { window_len: u64::from(features.samples), rollup_len: 1, factor: 1 };
            sensor.judge.prepare(&self.settings, &sensor.key, shape.axes, None);
            let mut stream = Stream::new(&shape, features.first_sample, cut, None);
            stream.emitted_to = features.first_sample;
            sensor.stream = Some(stream);
        }
        self.with_stream(index, out, |stream, emit| {
            let rate = stream.take_features(features, record.time_ns, record.flags);
            emit.node_features(stream, features, rate);
            stream.emitted_to = stream.next_sample;
        });
    }

    /// Puts out what is open of a run that is over, because samples of `shape` come now. Where the same stream of the same boot
    /// goes on in another form, the last window says in its id where it was cut short: the same window may come again.
    fn end_run(&mut self, index: usize, shape: &ShapeRef<'_>, out: &mut Vec<Output>) {
        let next = shape.to_shape();
        self.with_stream(index, out, |stream, emit| {
            emit.cut_at = stream.shape.source.is_same_stream(&next.source).then_some(stream.next_sample);
            stream.finish(emit);
        });
    }

    /// A birth names its sensors' axes.
    fn push_birth(&mut self, birth: &wire::Birth<'_>, record: &Record) {
        for stream in &birth.streams {
            let key = SensorKey {
                site: birth.site.into(),
                machine: birth.machine.into(),
                sensor: stream.sensor.into(),
            };
            let Some(index) = self.sensor(&Arc::new(key), record.offset) else { continue };
            let sensor = &mut self.sensors[index];
            let names: Vec<String> = stream.axes.chars().map(String::from).collect();
            if !names.is_empty() && names != sensor.judge.axes {
                sensor.judge.prepare(&self.settings, &sensor.key, names.len(), Some(&names));
            }
        }
    }

    /// Runs `act` on the sensor's stream, if it has one, with a place for its records.
    fn with_stream(
        &mut self,
        index: usize,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Stream, &mut Emit<'_>),
    ) {
        let Sensor { key, judge, stream, has_output, .. } = &mut self.sensors[index];
        let Some(stream) = stream else { return };
        let before = out.len();
        let mut emit = Emit {
            settings: &self.settings,
            key,
            judge,
            out,
            alerts: &mut self.alerts,
            stats: &mut self.stats,
            cut_at: None,
        };
        act(stream, &mut emit);
        *has_output |= out.len() > before;
    }
}

impl Sensor {
    fn new(key: Arc<SensorKey>) -> Self {
        Self { key, applied: 0, dirty_since: None, has_output: false, stream: None, judge: Judge::default() }
    }
}

#[cfg(test)]
mod tests;
