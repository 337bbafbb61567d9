//! From a closed window to records: features, scores, alerts.

use super::feature::{AxisValues, Making, NO_VALUES, SCORE, band_of, band_text, describe_measures};
use super::quality::{flag, write_flags};
use super::rate::Rate;
use super::sensor::{Shape, Source, Stream};
use super::settings::{Cut, Settings};
use super::window::Window;
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

/// Band of the velocity that nodes compute: the wire format's.
const NODE_VELOCITY_BAND_HZ: (f64, f64) = (10.0, 1000.0);

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
    /// [`describe_measures`], made once.
    pub(crate) measures: Option<(Making, String)>,
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
    /// Puts out a window; gives its quality flags.
    pub(crate) fn window(
        &mut self,
        stream: &Stream,
        window: &Window,
        cut: Cut,
        rate: Rate,
        end_ns: i64,
    ) -> u16 {
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
        let Shape { axes, rate_nominal_hz, .. } = stream.shape;
        let segment_len = self.settings.segment_len(cut.window_len, rate_nominal_hz, axes);
        let making = Making { design: (band, filter_hz), by_node: false, segment_len };
        let values = self.features(stream, window, coverage, cut, making, rate);
        let span = Span { start_ns: window.start_ns, end_ns };
        let (index, len) = (window.index, cut.window_len);
        let head = Head { stream, index, first_sample: index * len, len, rate, filter_hz, span };
        let view = View { head, window, flags, coverage, gap_before, state: AnomalyState::Off, making };
        self.put_out(view, values);
        flags
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
            let known = [
                Some(axis.rms),
                Some(axis.peak),
                Some(axis.peak_to_peak),
                varies(axis.peak / axis.rms).filter(|crest| crest.is_finite()),
                varies(axis.kurtosis),
                Some(axis.velocity_rms),
                Some(axis.mean),
            ];
            let mut values = NO_VALUES;
            values[..known.len()].copy_from_slice(&known);
            values
        });
        let design = (Some(NODE_VELOCITY_BAND_HZ), rate.hz);
        let making = Making { design, by_node: true, segment_len: 0 };
        let view = View { head, window, flags, coverage: 1.0, gap_before, state: AnomalyState::Off, making };
        self.put_out(view, values.collect());
    }

    /// Judges a window and puts out its record and the alerts that it changes.
    fn put_out(&mut self, mut view: View<'_>, mut values: Vec<AxisValues>) {
        let flags = view.flags;
        let (scores, state) = self.judge_window(&mut values, flags);
        view.state = state;
        let Head { stream, index, first_sample, span, .. } = view.head;
        // Nothing says that a node's windows are all of one length: their place is where they begin.
        let by_node = matches!(stream.shape.source, Source::Features { .. });
        let place = if by_node { first_sample } else { index };
        let ce_id = self.id("features", &stream.shape.source, place);
        let text = self.features_record(&ce_id, &view, &values, &scores);
        let end_ns = span.end_ns;
        self.put(OutputKind::Features, end_ns, Arc::clone(&ce_id), text);
        self.stats.windows += 1;
        self.step_alerts(span, &values, &scores, flags, &ce_id, view.making);
    }

    /// Hands on the sensor's record `json`.
    pub(crate) fn put(&mut self, kind: OutputKind, time_ns: i64, ce_id: Arc<str>, json: String) {
        let key = Arc::clone(self.key);
        self.out.push(Output { id: 0, kind, key, time_ns, ce_id, json: json.into_bytes().into() });
    }

    /// A record's deterministic id.
    pub(crate) fn id(&self, kind: &str, source: &Source, place: u64) -> Arc<str> {
        let mut id = format!("{}/{kind}/{}/{place}", self.key, source_id(source));
        if let Some(sample) = self.cut_at {
            let _ = write!(id, "-to-{sample}");
        }
        let _ = write!(id, "/{}", self.settings.version);
        id.into()
    }

    fn features(
        &self,
        stream: &Stream,
        window: &Window,
        coverage: f64,
        cut: Cut,
        making: Making,
        rate: Rate,
    ) -> Vec<AxisValues> {
        let least = self.settings.pipeline.coverage_min;
        if coverage < least {
            return vec![NO_VALUES; window.moments.len()];
        }
        let (band, filter_hz) = making.design;
        let rate_factor = filter_hz / rate.hz;
        let enough = |settled: u64| settled > 0 && settled as f64 / cut.window_len as f64 >= least;
        let meters = &stream.meters;
        let bands = self.settings.pipeline.bands.len();
        let values = window.moments.iter().enumerate().map(|(axis, m)| {
            let energy = band.filter(|_| enough(window.settled)).map(|_| Energy {
                sum: window.velocity[axis / LANES][axis % LANES],
                settled: window.settled,
                rate_factor,
            });
            let values = Values::of(m, energy);
            let displacement = meters.displacement(axis).filter(|_| enough(meters.displacement_settled));
            let high = meters.high_frequency(axis, window.settled).filter(|_| enough(window.settled));
            let known = [
                Some(values.rms),
                Some(values.peak),
                Some(values.peak_to_peak),
                values.crest,
                values.kurtosis,
                values.velocity_rms,
                Some(values.mean),
                None,
                m.skewness(),
                // Integrated twice at the design's time step.
                displacement.map(|displacement| displacement * rate_factor * rate_factor),
                high,
            ];
            let mut all = NO_VALUES;
            for (slot, value) in all.iter_mut().zip(known) {
                *slot = value.map(|v| v as f32).filter(|v| v.is_finite());
            }
            for (band, slot) in all[FEATURES.len()..].iter_mut().enumerate().take(bands) {
                let covers = band_of(self.settings, FEATURES.len() + band, making).is_some();
                let value = stream.spectral.band_rms(band, axis).filter(|_| covers);
                *slot = value.map(|v| v as f32).filter(|v| v.is_finite());
            }
            all
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
        out.push_str(self.measures(view));
        out.push_str(",\"axes\":[");
        for (axis, (values, score)) in values.iter().zip(scores).enumerate() {
            out.push_str(if axis == 0 { "{\"axis\":" } else { ",{\"axis\":" });
            json::text(&mut out, self.judge.axes.get(axis).map_or("", String::as_str));
            for (feature, value) in FEATURES.iter().zip(values) {
                let _ = write!(out, ",\"{}\":", feature.name);
                json::number_or_null(&mut out, *value);
            }
            out.push_str(",\"bands\":{");
            for (i, (band, value)) in
                self.settings.pipeline.bands.iter().zip(&values[FEATURES.len()..]).enumerate()
            {
                out.push_str(if i == 0 { "" } else { "," });
                json::text(&mut out, &band.name);
                out.push(':');
                json::number_or_null(&mut out, *value);
            }
            out.push('}');
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
    pub(crate) fn head(&self, out: &mut String, kind: &str, id: &str, head: &Head<'_>) {
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

    fn measures(&mut self, view: &View<'_>) -> &str {
        let making = view.making;
        if self.judge.measures.as_ref().is_none_or(|(known, _)| *known != making) {
            let window_s = view.head.len as f64 / view.head.stream.shape.rate_nominal_hz;
            self.judge.measures = Some((making, describe_measures(self.settings, window_s, making)));
        }
        self.judge.measures.as_ref().map_or("{}", |(_, text)| text)
    }

    fn step_alerts(
        &mut self,
        span: Span,
        values: &[AxisValues],
        scores: &[Option<Score>],
        flags: u16,
        features_id: &str,
        making: Making,
    ) {
        for orphan in std::mem::take(&mut self.judge.orphans) {
            let mut phase = orphan.phase;
            if let Some(change) = phase.withdraw(span.end_ns) {
                self.alert(&orphan.rule, &orphan.axis, &change, None, flags, features_id, making);
            }
        }
        for i in 0..self.judge.conditions.len() {
            let condition = &mut self.judge.conditions[i];
            let (rule, axis) = (&self.settings.rules[condition.rule], condition.axis);
            let value = values.get(axis).and_then(|v| v.get(rule.feature).copied().flatten());
            let Some(change) = condition.phase.step(rule, span, value) else { continue };
            let because =
                if rule.feature == SCORE { scores[axis].map(|s| detect::COLUMNS[s.column]) } else { None };
            let name = self.judge.axes.get(axis).cloned().unwrap_or_default();
            self.alert(rule, &name, &change, because, flags, features_id, making);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "two callers; a struct for it would only name them twice")]
    fn alert(
        &mut self,
        rule: &crate::alert::Rule,
        axis: &str,
        change: &Change,
        because: Option<&str>,
        flags: u16,
        features_id: &str,
        making: Making,
    ) {
        let mut words = String::new();
        write_flags(&mut words, flags);
        let band_hz = band_text(band_of(self.settings, rule.feature, making));
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
}

/// What features and rollups have in common.
pub(crate) struct Head<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) index: u64,
    pub(crate) first_sample: u64,
    /// Samples per channel of a whole one.
    pub(crate) len: u64,
    pub(crate) rate: Rate,
    pub(crate) filter_hz: f64,
    pub(crate) span: Span,
}

/// A window and what is known about it, for its record.
struct View<'a> {
    head: Head<'a>,
    window: &'a Window,
    flags: u16,
    coverage: f64,
    gap_before: u64,
    state: AnomalyState,
    making: Making,
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
