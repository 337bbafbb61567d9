//! A sensor's state as bytes, bit for bit: a version byte, then postcard.
//!
//! Version 2 is version 1 with more behind it. A state of version 1 is read as one whose filters must start anew.

use super::Sensor;
use super::emit::{Condition, Judge, Orphan};
use super::meters::Meters;
use super::sensor::Stream;
use super::settings::Settings;
use super::spectral::Spectral;
use crate::alert::{Phase, Rule};
use crate::config::LimitRule;
use crate::detect::{Baseline, BaselineHead};
use crate::outputs::SensorSave;
use crate::record::SensorKey;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// First byte of a saved state.
const STATE_VERSION: u8 = 2;

/// The oldest version that can be read.
const STATE_VERSION_MIN: u8 = 1;

/// Why a saved state cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("saved state of sensor {key} is dropped: {reason}")]
pub struct StateError {
    /// The sensor.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    signal_version: u64,
    baseline_version: u64,
    axes: Vec<String>,
    stream: Option<Stream>,
    baseline: Option<BaselineHead>,
    /// Conditions that are pending or active.
    conditions: Vec<SavedCondition>,
}

#[derive(Serialize, Deserialize)]
struct SavedCondition {
    rule: LimitRule,
    axis: String,
    phase: Phase,
}

pub(super) fn save(sensor: &mut Sensor, settings: &Settings) -> SensorSave {
    let judge = &mut sensor.judge;
    let standing = judge.conditions.iter().filter(|c| c.phase != Phase::Normal).map(|c| SavedCondition {
        rule: settings.rules[c.rule].config.clone(),
        axis: judge.axes.get(c.axis).cloned().unwrap_or_default(),
        phase: c.phase,
    });
    let orphans = judge.orphans.iter().map(|orphan| SavedCondition {
        rule: orphan.rule.config.clone(),
        axis: orphan.axis.clone(),
        phase: orphan.phase,
    });
    let saved = Saved {
        signal_version: settings.signal_version,
        baseline_version: settings.baseline_version,
        axes: judge.axes.clone(),
        stream: sensor.stream.take(),
        baseline: judge.baseline.as_ref().map(Baseline::head),
        conditions: standing.chain(orphans).collect(),
    };
    // A Vec takes any length, and no type here refuses to be written.
    let state = postcard::to_extend(&saved, vec![STATE_VERSION]).unwrap_or_default();
    let more = saved.stream.as_ref().map(|stream| (&stream.meters, &stream.spectral));
    let state = postcard::to_extend(&more, state).unwrap_or_default();
    sensor.stream = saved.stream;
    let (baseline, baseline_len) = match &mut judge.baseline {
        Some(baseline) => (baseline.take_changed(), baseline.rows()),
        None => (Vec::new(), 0),
    };
    SensorSave { key: Arc::clone(&sensor.key), applied: sensor.applied, state, baseline, baseline_len }
}

/// The sensor as it was saved; what another configuration made is left out, and a state that cannot be read is reported.
pub(super) fn restore(save: &SensorSave, settings: &Settings) -> (Sensor, Option<StateError>) {
    let mut sensor = Sensor::new(Arc::clone(&save.key));
    sensor.applied = save.applied;
    let refuse = |reason: &str| Some(StateError { key: save.key.to_string(), reason: reason.into() });
    let Some((&version, body)) = save.state.split_first() else {
        return (sensor, refuse("it has no version"));
    };
    if !(STATE_VERSION_MIN..=STATE_VERSION).contains(&version) {
        let reason = format!(
            "its version is {version}, but this build reads versions {STATE_VERSION_MIN} to {STATE_VERSION}"
        );
        return (sensor, refuse(&reason));
    }
    let Ok(saved) = read(version, body) else { return (sensor, refuse("it is malformed")) };
    if saved.stream.as_ref().is_some_and(|stream| !stream.is_sound()) {
        return (sensor, refuse("its parts do not fit each other"));
    }
    let mut error = None;
    let axes = saved.axes.len();
    if axes > 0 {
        sensor.judge.prepare(settings, &save.key, axes, Some(&saved.axes));
    }
    if saved.signal_version == settings.signal_version {
        sensor.stream = saved.stream;
    }
    if saved.baseline_version == settings.baseline_version
        && let (Some(head), true) = (saved.baseline, settings.anomaly.enabled)
    {
        let restored = Baseline::restore(&settings.anomaly, axes, head, &save.baseline);
        if restored.is_none() {
            error = refuse("the rows of its baseline do not fit; it learns anew");
        } else {
            sensor.judge.baseline = restored;
        }
    }
    for condition in saved.conditions {
        sensor.judge.resume(settings, condition.rule, condition.axis, condition.phase);
    }
    (sensor, error)
}

fn read(version: u8, body: &[u8]) -> postcard::Result<Saved> {
    let (mut saved, rest) = postcard::take_from_bytes::<Saved>(body)?;
    if version == 1 {
        // Windows and filters as they were then lack what is measured now.
        saved.stream = None;
        return Ok(saved);
    }
    let more = postcard::from_bytes::<Option<(Meters, Spectral)>>(rest)?;
    if let (Some(stream), Some((meters, spectral))) = (&mut saved.stream, more) {
        (stream.meters, stream.spectral) = (meters, spectral);
    }
    Ok(saved)
}

impl Judge {
    /// Gets ready for `axes` channels: names, baseline, and the conditions of the rules that cover them. Standing alerts are kept;
    /// the baseline is kept if their number stays.
    pub(super) fn prepare(
        &mut self,
        settings: &Settings,
        key: &SensorKey,
        axes: usize,
        names: Option<&[String]>,
    ) {
        let kept = self.axes.len() == axes;
        let old_axes = std::mem::take(&mut self.axes);
        self.axes = match names {
            Some(names) => names.to_vec(),
            None if kept => old_axes.clone(),
            None => super::AXIS_NAMES.iter().take(axes).map(|name| (*name).to_owned()).collect(),
        };
        if settings.anomaly.enabled && !(kept && self.baseline.is_some()) {
            self.baseline = Some(Baseline::new(&settings.anomaly, axes));
        }
        let old = std::mem::take(&mut self.conditions);
        for (index, rule) in settings.rules.iter().enumerate().filter(|(_, rule)| rule.covers_sensor(key)) {
            for (axis, _) in self.axes.iter().enumerate().filter(|(_, name)| rule.covers_axis(name)) {
                self.conditions.push(Condition { rule: index, axis, phase: Phase::Normal });
            }
        }
        for condition in old.into_iter().filter(|c| c.phase != Phase::Normal) {
            let axis = old_axes.get(condition.axis).cloned().unwrap_or_default();
            self.resume(settings, settings.rules[condition.rule].config.clone(), axis, condition.phase);
        }
    }

    /// Puts a standing condition back under the rule of the same name and feature, or among those to be withdrawn.
    fn resume(&mut self, settings: &Settings, rule: LimitRule, axis: String, phase: Phase) {
        let axes = &self.axes;
        let heir = self.conditions.iter_mut().find(|c| {
            let now = &settings.rules[c.rule].config;
            now.name == rule.name && now.feature == rule.feature && axes.get(c.axis) == Some(&axis)
        });
        match heir {
            Some(condition) => condition.phase = phase,
            // The rule was valid when the alert was raised; one that is not any more has nothing left to be withdrawn under.
            None => self.orphans.extend(Rule::new(&rule, &settings.pipeline.bands).map(|rule| Orphan {
                rule,
                axis,
                phase,
            })),
        }
    }
}
