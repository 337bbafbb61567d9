//! From a closed window to records: features, scores, alerts.

use super::quality::{flag, write_flags};
use super::rate::Rate;
use super::sensor::{Design, Source, Stream};
use super::settings::{Cut, Settings, band_of, describe_measures};
use super::window::{Rollup, Window};
use super::{FEATURES, PipelineStats, json};
use crate::alert::{AlertContext, Change, Phase, Span, write_alert};
use crate::detect::{self, Baseline, Score};
use crate::outputs::AlertRow;
use crate::record::{Output, OutputKind, SensorKey};
use spindle_common::dsp::LANES;
use spindle_common::feature::{Energy, Values};
use spindle_common::wire;
use std::fmt::Write;
use std::sync::Arc;

/// One axis's features in the order of [`FEATURES`].
pub(crate) type AxisValues = [Option<f32>; FEATURES.len()];

/// Band of the velocity that nodes compute: the wire format's.
const NODE_VELOCITY_BAND_HZ: (f64, f64) = (10.0, 1000.0);

/// Index of the anomaly score in [`FEATURES`].
const SCORE: usize = FEATURES.len() - 1;

/// An alert condition of one rule on one axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    /// Index into the settings' rules.
    pub(crate) rule: usize,
    pub(crate) axis: usize,
    pub(crate) phase: Phase,
}

/// What judges a sensor's windows, besides its signal.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) axes: Vec<String>,
    pub(crate) baseline: Option<Baseline>,
    pub(crate) conditions: Vec<Condition>,
    /// Alerts whose rule is gone: withdrawn at the next window.
    pub(crate) orphans: Vec<Orphan>,
    /// [`describe_measures`] for a design, made once.
    pub(crate) measures: Option<(Design, String)>,
}

/// An alert that still stands although its rule no longer covers the axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Orphan {
    pub(crate) rule: crate::alert::Rule,
    pub(crate) axis: String,
    pub(crate) phase: Phase,
}

/// Where a sensor's records go.
pub(crate) struct Emit<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) key: &'a Arc<SensorKey>,
    pub(crate) judge: &'a mut Judge,
    pub(crate) out: &'a mut Vec<Output>,
    pub(crate) alerts: &'a mut Vec<AlertRow>,
    pub(crate) stats: &'a mut PipelineStats,
    /// Sample at which the run ends although its boot goes on.
    pub(crate) cut_at: Option<u64>,
}

impl Emit<'_> {
    pub(crate) fn window(&mut self, stream: &Stream, window: &Window, cut: Cut, rate: Rate, end_ns: i64) {
        let samples = window.samples();
        let coverage = samples as f64 / cut.window_len as f64;
        let mut flags = window.flags;
        let gap_before = (window.index * cut.window_len).saturating_sub(stream.emitted_to);
        let (band, filter_hz) = stream.design().unwrap_or((None, rate.hz));
        let set = [
            (samples < cut.window_len || gap_before > 0, flag::GAP),
            (coverage < self.settings.pipeline.coverage_min, flag::LOW_COVERAGE),
            (rate.is_off, flag::RATE_OFF),
            (window.late > 0, flag::LATE),
            (window.settled < samples, flag::SETTLING),
        ];
        flags |= set.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, bit)| all | bit);
        let velocity_factor = band.map(|_| filter_hz / rate.hz);
        let values = self.features(window, coverage, cut, velocity_factor);
        let span = Span { start_ns: window.start_ns, end_ns };
        let (index, len) = (window.index, cut.window_len);
        let head = Head { stream, index, first_sample: index * len, len, rate, filter_hz, span };
        let view = View { head, window, flags, coverage, gap_before, state: AnomalyState::Off };
        self.put_out(view, values, band);
    }

    /// Puts out a window of features that its node computed, as one of the gateway's own.
    pub(crate) fn node_features(&mut self, stream: &Stream, features: &wire::Features<'_>, rate: Rate) {
        let window = stream.window();
        let samples = u64::from(features.samples);
        let gap_before = features.first_sample.saturating_sub(stream.emitted_to);
        let mut flags = window.flags;
        let set = [(gap_before > 0, flag::GAP), (rate.is_off, flag::RATE_OFF), (window.late > 0, flag::LATE)];
        flags |= set.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, bit)| all | bit);
        let length_ns = libm::round(samples as f64 * 1e9 / rate.hz) as i64;
        let span = Span { start_ns: window.start_ns, end_ns: window.start_ns.saturating_add(length_ns) };
        let (index, first_sample) = (window.index, features.first_sample);
        let head = Head { stream, index, first_sample, len: samples, rate, filter_hz: rate.hz, span };
        let values = features.axes.iter().map(|axis| {
            // What a constant signal does not have.
            let varies = |value: f32| (axis.rms > 0.0).then_some(value);
            [
                Some(axis.rms),
                Some(axis.peak),
                Some(axis.peak_to_peak),
                varies(axis.peak / axis.rms).filter(|crest| crest.is_finite()),
                varies(axis.kurtosis),
                Some(axis.velocity_rms),
                Some(axis.mean),
                None,
            ]
        });
        let view = View { head, window, flags, coverage: 1.0, gap_before, state: AnomalyState::Off };
        self.put_out(view, values.collect(), Some(NODE_VELOCITY_BAND_HZ));
    }

    /// Judges a window and puts out its record and the alerts that it changes.
    fn put_out(&mut self, mut view: View<'_>, mut values: Vec<AxisValues>, band: Option<(f64, f64)>) {
        let flags = view.flags;
        let (scores, state) = self.judge_window(&mut values, flags);
        view.state = state;
        let Head { stream, index, first_sample, span, filter_hz, .. } = view.head;
        // Nothing says that a node's windows are all of one length: their place is where they begin.
        let by_node = matches!(stream.shape.source, Source::Features { .. });
        let place = if by_node { first_sample } else { index };
        let ce_id = self.id("features", &stream.shape.source, place);
        let text = self.features_record(&ce_id, &view, &values, &scores, band);
        let end_ns = span.end_ns;
        self.out.push(Output {
            id: 0,
            kind: OutputKind::Features,
            key: Arc::clone(self.key),
            time_ns: end_ns,
            ce_id: Arc::clone(&ce_id),
            json: text.into_bytes().into(),
        });
        self.stats.windows += 1;
        self.step_alerts(span, &values, &scores, flags, &ce_id, band, filter_hz);
    }

    /// A record's deterministic id.
    fn id(&self, kind: &str, source: &Source, place: u64) -> Arc<str> {
        let mut id = format!("{}/{kind}/{}/{place}", self.key, source_id(source));
        if let Some(sample) = self.cut_at {
            let _ = write!(id, "-to-{sample}");
        }
        let _ = write!(id, "/{}", self.settings.version);
        id.into()
    }

    fn features(
        &self,
        window: &Window,
        coverage: f64,
        cut: Cut,
        velocity_factor: Option<f64>,
    ) -> Vec<AxisValues> {
        let enough = coverage >= self.settings.pipeline.coverage_min;
        let settled = window.settled as f64 / cut.window_len as f64;
        let velocity_known = settled >= self.settings.pipeline.coverage_min && window.settled > 0;
        let values = window.moments.iter().enumerate().map(|(axis, m)| {
            if !enough {
                return [None; FEATURES.len()];
            }
            let energy = velocity_factor.filter(|_| velocity_known).map(|rate_factor| Energy {
                sum: window.velocity[axis / LANES][axis % LANES],
                settled: window.settled,
                rate_factor,
            });
            let values = Values::of(m, energy);
            let all = [
                Some(values.rms),
                Some(values.peak),
                Some(values.peak_to_peak),
                values.crest,
                values.kurtosis,
                values.velocity_rms,
                Some(values.mean),
                None,
            ];
            all.map(|value| value.map(|v| v as f32).filter(|v| v.is_finite()))
        });
        values.collect()
    }

    /// Scores the window, fills the scores in, and learns it if it is good.
    fn judge_window(&mut self, values: &mut [AxisValues], flags: u16) -> (Vec<Option<Score>>, AnomalyState) {
        let none = vec![None; values.len()];
        let Some(baseline) = &mut self.judge.baseline else { return (none, AnomalyState::Off) };
        let columns: Vec<detect::Values> = values.iter().map(|v| [v[0], v[1], v[4], v[5]]).collect();
        let judged = flags & (flag::STUCK | flag::SELF_TEST | flag::LOW_COVERAGE) == 0;
        let scores: Vec<Option<Score>> = columns
            .iter()
            .enumerate()
            .map(|(axis, v)| if judged { baseline.score(axis, v) } else { None })
            .collect();
        for (value, score) in values.iter_mut().zip(&scores) {
            value[SCORE] = score.map(|s| s.score);
        }
        let worst = scores.iter().flatten().map(|s| s.score).reduce(f32::max);
        if flags & flag::BAD == 0 {
            baseline.learn(&columns, worst);
        }
        let needed = baseline.learning_windows();
        let head = baseline.head();
        let state = if baseline.is_learning() || (worst.is_none() && head.learned <= needed) {
            AnomalyState::Learning { learned: head.learned, needed }
        } else if head.frozen > 0 {
            AnomalyState::Frozen { learned: head.learned }
        } else {
            AnomalyState::Watching { learned: head.learned }
        };
        (scores, state)
    }

    fn features_record(
        &mut self,
        id: &str,
        view: &View<'_>,
        values: &[AxisValues],
        scores: &[Option<Score>],
        band: Option<(f64, f64)>,
    ) -> String {
        let mut out = String::with_capacity(2600);
        self.head(&mut out, "spindle.features.v1", id, &view.head);
        let by_node = matches!(view.head.stream.shape.source, Source::Features { .. });
        out.push_str(if by_node { ",\"computed_by\":\"node\"" } else { ",\"computed_by\":\"gateway\"" });
        let window = view.window;
        let samples = window.samples();
        let good = view.flags & flag::BAD == 0;
        let _ = write!(out, ",\"quality\":{{\"good\":{good},\"coverage\":");
        json::number_or_null(&mut out, Some(view.coverage as f32));
        let _ = write!(out, ",\"samples\":{samples},\"missing\":{}", view.head.len - samples);
        let _ = write!(out, ",\"gap_before\":{},\"late\":{}", view.gap_before, window.late);
        let _ =
            write!(out, ",\"settled\":{},\"non_finite\":{},\"flags\":", window.settled, window.non_finite);
        write_flags(&mut out, view.flags);
        out.push_str("},\"anomaly\":");
        view.state.write(&mut out);
        out.push_str(",\"measures\":");
        out.push_str(self.measures(view, band));
        out.push_str(",\"axes\":[");
        for (axis, (values, score)) in values.iter().zip(scores).enumerate() {
            out.push_str(if axis == 0 { "{\"axis\":" } else { ",{\"axis\":" });
            json::text(&mut out, self.judge.axes.get(axis).map_or("", String::as_str));
            for (feature, value) in FEATURES.iter().zip(values) {
                let _ = write!(out, ",\"{}\":", feature.name);
                json::number_or_null(&mut out, *value);
            }
            let share = window.saturated[axis] as f64 / samples.max(1) as f64;
            // A node says that samples were at an end of the range, not how many, nor on which axis.
            let known = !by_node || view.flags & flag::SATURATED == 0;
            out.push_str(",\"saturated\":");
            json::number_or_null(&mut out, known.then_some(share as f32));
            let _ = write!(out, ",\"stuck\":{},\"anomaly_because\":", window.stuck & (1 << axis) != 0);
            match score {
                Some(s) => {
                    let side = if s.above { "high" } else { "low" };
                    let _ =
                        write!(out, "{{\"feature\":\"{}\",\"side\":\"{side}\"}}", detect::COLUMNS[s.column]);
                }
                None => out.push_str("null"),
            }
            out.push('}');
        }
        let _ = write!(out, "],\"config\":\"{}\"}}", self.settings.version);
        out
    }

    /// What features and rollups begin with.
    fn head(&self, out: &mut String, kind: &str, id: &str, head: &Head<'_>) {
        let _ = write!(out, "{{\"type\":\"{kind}\",\"id\":");
        json::text(out, id);
        json::key_fields(out, self.key);
        json::time_field(out, "time", head.span.end_ns);
        let _ = write!(out, ",\"start_ns\":{},\"end_ns\":{}", head.span.start_ns, head.span.end_ns);
        out.push_str(",\"source\":");
        match head.stream.shape.source.board() {
            Some((node, boot, stream, _)) => {
                out.push_str("{\"node\":");
                json::text(out, node);
                let _ = write!(out, ",\"boot\":\"{boot:016x}\",\"stream\":{stream}}}");
            }
            None => out.push_str("{\"node\":null,\"boot\":null,\"stream\":null}"),
        }
        let _ = write!(out, ",\"rate\":{{\"nominal_hz\":{}", head.stream.shape.rate_nominal_hz);
        let _ = write!(out, ",\"measured_hz\":{},\"source\":\"{}\"", head.rate.hz, head.rate.source.word());
        let _ = write!(out, ",\"filter_hz\":{}}}", head.filter_hz);
        let _ = write!(out, ",\"window\":{{\"index\":{},\"first_sample\":", head.index);
        let _ = write!(out, "{},\"samples\":{}", head.first_sample, head.len);
        let _ = write!(out, ",\"duration_s\":{}}}", seconds(head.span));
    }

    fn measures(&mut self, view: &View<'_>, band: Option<(f64, f64)>) -> &str {
        let Head { stream, len, filter_hz, .. } = view.head;
        if self.judge.measures.as_ref().is_none_or(|(design, _)| *design != (band, filter_hz)) {
            let window_s = len as f64 / stream.shape.rate_nominal_hz;
            let text = describe_measures(window_s, band, filter_hz);
            self.judge.measures = Some(((band, filter_hz), text));
        }
        self.judge.measures.as_ref().map_or("{}", |(_, text)| text)
    }

    #[allow(clippy::too_many_arguments, reason = "one caller; a struct for it would only name them twice")]
    fn step_alerts(
        &mut self,
        span: Span,
        values: &[AxisValues],
        scores: &[Option<Score>],
        flags: u16,
        features_id: &str,
        band: Option<(f64, f64)>,
        filter_hz: f64,
    ) {
        for orphan in std::mem::take(&mut self.judge.orphans) {
            let mut phase = orphan.phase;
            if let Some(change) = phase.withdraw(span.end_ns) {
                self.alert(&orphan.rule, &orphan.axis, &change, None, flags, features_id, band, filter_hz);
            }
        }
        for i in 0..self.judge.conditions.len() {
            let condition = &mut self.judge.conditions[i];
            let (rule, axis) = (&self.settings.rules[condition.rule], condition.axis);
            let value = values.get(axis).and_then(|v| v[rule.feature]);
            let Some(change) = condition.phase.step(rule, span, value) else { continue };
            let because =
                if rule.feature == SCORE { scores[axis].map(|s| detect::COLUMNS[s.column]) } else { None };
            let name = self.judge.axes.get(axis).cloned().unwrap_or_default();
            self.alert(rule, &name, &change, because, flags, features_id, band, filter_hz);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "see step_alerts")]
    fn alert(
        &mut self,
        rule: &crate::alert::Rule,
        axis: &str,
        change: &Change,
        because: Option<&str>,
        flags: u16,
        features_id: &str,
        band: Option<(f64, f64)>,
        filter_hz: f64,
    ) {
        let mut words = String::new();
        write_flags(&mut words, flags);
        let band_hz = band_of(FEATURES[rule.feature].name, band, filter_hz);
        let context = AlertContext {
            key: self.key,
            axis,
            config: &self.settings.version,
            features_id,
            quality_flags: &words,
            band_hz: &band_hz,
            because,
        };
        let (output, row) = write_alert(rule, change, &context);
        self.out.push(output);
        self.alerts.push(row);
        self.stats.alert_changes += 1;
    }

    pub(crate) fn rollup(&mut self, stream: &Stream, rollup: &Rollup, cut: Cut, rate: Rate, end_ns: i64) {
        let filter_hz = stream.design().map_or(rate.hz, |(_, hz)| hz);
        let span = Span { start_ns: rollup.start_ns, end_ns };
        let samples = rollup.samples();
        let coverage = samples as f64 / cut.rollup_len as f64;
        let mut out = String::with_capacity(4096);
        let id = self.id("rollup", &stream.shape.source, rollup.index);
        let (index, len) = (rollup.index, cut.rollup_len);
        let head = Head { stream, index, first_sample: index * len, len, rate, filter_hz, span };
        self.head(&mut out, "spindle.rollup.v1", &id, &head);
        out.push_str(",\"coverage\":");
        json::number_or_null(&mut out, Some(coverage as f32));
        let flags = rollup.flags | if samples < cut.rollup_len { flag::GAP } else { 0 };
        let _ = write!(out, ",\"count\":{samples},\"flags\":");
        write_flags(&mut out, flags);
        out.push_str(",\"unit\":\"m/s2\",\"band_hz\":[0,");
        let _ = write!(out, "{}],\"axes\":[", filter_hz / 2.0);
        for (axis, m) in rollup.moments.iter().enumerate() {
            out.push_str(if axis == 0 { "{\"axis\":" } else { ",{\"axis\":" });
            json::text(&mut out, self.judge.axes.get(axis).map_or("", String::as_str));
            let known = samples > 0;
            let rows = [
                ("min", f64::from(m.min)),
                ("max", f64::from(m.max)),
                ("mean", m.mean),
                ("rms", m.rms()),
                ("peak", m.peak()),
            ];
            for (name, value) in rows {
                let _ = write!(out, ",\"{name}\":");
                json::number_or_null(&mut out, known.then_some(value as f32));
            }
            out.push('}');
        }
        out.push_str("],\"downsampled\":");
        self.downsampled(&mut out, rollup, cut, rate);
        let _ = write!(out, ",\"config\":\"{}\"}}", self.settings.version);
        self.out.push(Output {
            id: 0,
            kind: OutputKind::Rollup,
            key: Arc::clone(self.key),
            time_ns: end_ns,
            ce_id: id,
            json: out.into_bytes().into(),
        });
        self.stats.rollups += 1;
    }

    fn downsampled(&self, out: &mut String, rollup: &Rollup, cut: Cut, rate: Rate) {
        let downsampled = &rollup.downsampled;
        let axes = rollup.moments.len();
        if downsampled.values.is_empty() || downsampled.overflowed {
            out.push_str("null");
            return;
        }
        let factor = f64::from(cut.factor);
        let _ = write!(out, "{{\"factor\":{},\"rate_hz\":{}", cut.factor, rate.hz / factor);
        let _ =
            write!(out, ",\"pass_band_hz\":{}", rate.hz / factor * spindle_common::dsp::decimate::PASS_BAND);
        let _ = write!(out, ",\"start_ns\":{},\"first_sample\":{}", downsampled.first_ns, downsampled.first);
        out.push_str(",\"axes\":[");
        for axis in 0..axes {
            out.push_str(if axis == 0 { "[" } else { ",[" });
            for (i, row) in downsampled.values.chunks_exact(axes).enumerate() {
                if i > 0 {
                    out.push(',');
                }
                json::number_or_null(out, Some(row[axis]));
            }
            out.push(']');
        }
        out.push_str("]}");
    }
}

/// What features and rollups have in common.
struct Head<'a> {
    stream: &'a Stream,
    index: u64,
    first_sample: u64,
    /// Samples per channel of a whole one.
    len: u64,
    rate: Rate,
    filter_hz: f64,
    span: Span,
}

/// A window and what is known about it, for its record.
struct View<'a> {
    head: Head<'a>,
    window: &'a Window,
    flags: u16,
    coverage: f64,
    gap_before: u64,
    state: AnomalyState,
}

/// What the baseline is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnomalyState {
    /// Not configured.
    Off,
    /// Too few windows for a score.
    Learning {
        /// Windows learned.
        learned: u64,
        /// Windows that a score needs.
        needed: u64,
    },
    /// Scoring and learning.
    Watching {
        /// Windows learned.
        learned: u64,
    },
    /// Scoring; the last windows scored too high to be learned.
    Frozen {
        /// Windows learned.
        learned: u64,
    },
}

impl AnomalyState {
    /// The word in records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Learning { .. } => "learning",
            Self::Watching { .. } => "watching",
            Self::Frozen { .. } => "frozen",
        }
    }

    fn write(self, out: &mut String) {
        let (learned, needed) = match self {
            Self::Off => (0, 0),
            Self::Learning { learned, needed } => (learned, needed),
            Self::Watching { learned } | Self::Frozen { learned } => (learned, 0),
        };
        let missing = needed.saturating_sub(learned);
        let _ = write!(
            out,
            "{{\"state\":\"{}\",\"windows\":{learned},\"windows_missing\":{missing}}}",
            self.word()
        );
    }
}

fn seconds(span: Span) -> f64 {
    span.end_ns.saturating_sub(span.start_ns) as f64 / 1e9
}

fn source_id(source: &Source) -> String {
    match source {
        Source::Board { node, boot, stream } => format!("{node}/{boot:016x}/{stream}"),
        Source::Json => "json".into(),
        Source::Decimated { node, boot, stream, decimation } => {
            format!("{node}/{boot:016x}/{stream}/{decimation}")
        }
        Source::Features { node, boot, stream } => format!("{node}/{boot:016x}/{stream}/node"),
    }
}
