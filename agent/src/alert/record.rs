//! The alert record as JSON, and the alert's row.

use super::{Change, Event, Rule, opcua_severity};
use crate::config::Severity;
use crate::outputs::AlertRow;
use crate::pipeline::{BAND_DETECTOR, FEATURES, json};
use crate::record::{Output, OutputKind, SensorKey};
use std::fmt::Write;
use std::sync::Arc;

/// What surrounds a change: the window that made it.
#[derive(Debug, Clone, Copy)]
pub struct AlertContext<'a> {
    /// The sensor.
    pub key: &'a Arc<SensorKey>,
    /// Axis.
    pub axis: &'a str,
    /// Configuration version.
    pub config: &'a str,
    /// `ce_id` of the features record with the value.
    pub features_id: &'a str,
    /// Quality flags of the window, as a JSON array.
    pub quality_flags: &'a str,
    /// Band of the feature, as a JSON array or `null`.
    pub band_hz: &'a str,
    /// For an anomaly score: the feature that stands out.
    pub because: Option<&'a str>,
}

/// Makes the record and the table's row of a change.
#[must_use]
pub fn write_alert(rule: &Rule, change: &Change, context: &AlertContext<'_>) -> (Output, AlertRow) {
    let AlertContext { key, axis, .. } = context;
    let id: Arc<str> = format!("{key}/{axis}/{}/{}", rule.name, change.since_ns).into();
    let ce_id: Arc<str> = format!("{id}/{}", change.event.word()).into();
    let body: bytes::Bytes = body(rule, change, context, &id, &ce_id).into_bytes().into();
    let active = change.event == Event::Raised;
    let output = Output {
        id: 0,
        kind: OutputKind::Alert,
        key: Arc::clone(key),
        time_ns: change.at_ns,
        ce_id,
        json: body.clone(),
    };
    let row = AlertRow {
        id,
        key: Arc::clone(key),
        axis: (*axis).to_owned(),
        rule: Arc::clone(&rule.name),
        severity: opcua_severity(rule.config.severity),
        active,
        raised_ns: change.raised_ns,
        cleared_ns: (!active).then_some(change.at_ns),
        json: body,
    };
    (output, row)
}

fn body(rule: &Rule, change: &Change, context: &AlertContext<'_>, id: &str, ce_id: &str) -> String {
    let mut out = String::with_capacity(900);
    out.push_str("{\"type\":\"spindle.alert.v1\",\"id\":");
    json::text(&mut out, ce_id);
    out.push_str(",\"alert\":");
    json::text(&mut out, id);
    let _ =
        write!(out, ",\"event\":\"{}\",\"active\":{}", change.event.word(), change.event == Event::Raised);
    json::key_fields(&mut out, context.key);
    out.push_str(",\"axis\":");
    json::text(&mut out, context.axis);
    json::time_field(&mut out, "time", change.at_ns);
    let _ = write!(out, ",\"time_ns\":{},\"since_ns\":{}", change.at_ns, change.since_ns);
    let _ = write!(out, ",\"raised_ns\":{},\"cleared_ns\":", change.raised_ns);
    match change.event {
        Event::Raised => out.push_str("null"),
        Event::Cleared | Event::Withdrawn => json::integer(&mut out, change.at_ns),
    }
    out.push_str(",\"rule\":");
    json::text(&mut out, &rule.name);
    let severity = match rule.config.severity {
        Severity::Advisory => "advisory",
        Severity::Warning => "warning",
        Severity::Alarm => "alarm",
    };
    let _ = write!(out, ",\"condition\":\"limit\",\"severity\":\"{severity}\"");
    let _ = write!(out, ",\"severity_opcua\":{}", opcua_severity(rule.config.severity));
    // A rule that was made has a feature of its name, or a band.
    let detector = FEATURES.get(rule.feature).map_or(BAND_DETECTOR, |feature| feature.detector);
    out.push_str(",\"feature\":");
    json::text(&mut out, &rule.config.feature);
    out.push_str(",\"unit\":");
    json::text(&mut out, &rule.config.unit);
    let _ = write!(out, ",\"detector\":\"{detector}\",\"band_hz\":{}", context.band_hz);
    out.push_str(",\"value\":");
    json::number_or_null(&mut out, change.value);
    out.push_str(",\"highest\":");
    json::number_or_null(&mut out, Some(change.highest));
    let _ = write!(out, ",\"limit\":{{\"above\":{},\"deadband\":{}", rule.config.above, rule.config.deadband);
    let _ = write!(out, ",\"on_delay_s\":{}}},\"because\":", rule.config.on_delay.as_secs_f64());
    match context.because {
        Some(because) => json::text(&mut out, because),
        None => out.push_str("null"),
    }
    out.push_str(",\"features\":");
    json::text(&mut out, context.features_id);
    let _ = write!(out, ",\"quality\":{},\"config\":\"{}\"}}", context.quality_flags, context.config);
    out
}
