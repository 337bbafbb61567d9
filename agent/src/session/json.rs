//! JSON of other makers' sensors: from a topic pattern to a key, from a message to samples.

use crate::config::{JsonMapping, TimeFormat};
use crate::record::SensorKey;
use crate::source::topic;
use serde_json::Value;
use std::sync::Arc;

/// Most samples per channel in one message.
pub const SAMPLES_MAX: usize = 65_536;
/// 1 January 2000 and 2200, UTC ns: a time stamp outside is a mistake of format or unit.
const TIME_RANGE_NS: std::ops::Range<i128> = 946_684_800_000_000_000..7_258_118_400_000_000_000;

/// The samples of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonSamples {
    /// m/s², planar: all of channel 0, then all of channel 1, ...
    pub values: Vec<f32>,
    /// Number of channels.
    pub axes: usize,
    /// Samples per channel, at least 1.
    pub samples: usize,
    /// Whether a value lies at or beyond the mapping's full scale.
    pub saturated: bool,
    /// The first sample's time, UTC ns, if the mapping says where it is.
    pub time_ns: Option<i64>,
}

#[derive(Debug, Clone)]
enum Level {
    Literal(String),
    Site,
    Machine,
    Sensor,
}

/// A mapping, ready for use.
#[derive(Debug, Clone)]
pub struct Mapping {
    config: JsonMapping,
    levels: Vec<Level>,
}

impl Mapping {
    /// Prepares a mapping of the configuration, which has been validated.
    #[must_use]
    pub fn new(config: &JsonMapping) -> Self {
        let level = |level: &str| match level {
            "{site}" => Level::Site,
            "{machine}" => Level::Machine,
            "{sensor}" => Level::Sensor,
            other => Level::Literal(other.to_owned()),
        };
        Self { levels: config.topic.split('/').map(level).collect(), config: config.clone() }
    }

    /// The mapping's configuration.
    #[must_use]
    pub const fn config(&self) -> &JsonMapping {
        &self.config
    }

    /// The MQTT topic filter that covers the pattern.
    #[must_use]
    pub fn filter(&self) -> String {
        let level = |level: &Level| match level {
            Level::Literal(text) => text.clone(),
            _ => "+".to_owned(),
        };
        self.levels.iter().map(level).collect::<Vec<_>>().join("/")
    }

    /// The key that a topic gives; `None` when the pattern does not match.
    ///
    /// # Errors
    /// The pattern matches, but a level of it is no name.
    pub fn key(&self, text: &str) -> Option<Result<Arc<SensorKey>, String>> {
        let mut site = self.config.site.as_deref();
        let mut machine = self.config.machine.as_deref();
        let mut sensor = self.config.sensor.as_deref();
        let mut levels = text.split('/');
        for want in &self.levels {
            let level = levels.next()?;
            match want {
                Level::Literal(literal) if literal == level => {}
                Level::Literal(_) => return None,
                Level::Site => site = Some(level),
                Level::Machine => machine = Some(level),
                Level::Sensor => sensor = Some(level),
            }
        }
        if levels.next().is_some() {
            return None;
        }
        let key =
            topic::key(site.unwrap_or_default(), machine.unwrap_or_default(), sensor.unwrap_or_default());
        Some(key.map(Arc::new))
    }

    /// Whether records under `key` can come from this mapping.
    #[must_use]
    pub fn covers(&self, key: &SensorKey) -> bool {
        let fixed = |name: &Option<String>, part: &str| name.as_deref().is_none_or(|name| name == part);
        let fills = |want: fn(&Level) -> bool| self.levels.iter().any(want);
        (fills(|level| matches!(level, Level::Site)) || fixed(&self.config.site, &key.site))
            && (fills(|level| matches!(level, Level::Machine)) || fixed(&self.config.machine, &key.machine))
            && (fills(|level| matches!(level, Level::Sensor)) || fixed(&self.config.sensor, &key.sensor))
    }

    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it, naming the field.
    pub fn decode(&self, body: &[u8]) -> Result<JsonSamples, String> {
        let message: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
        let to_si = self.config.unit.to_si();
        let full_scale = self.config.full_scale.unwrap_or(f64::INFINITY);
        let mut values = Vec::new();
        let mut samples = 0;
        let mut saturated = false;
        for (index, channel) in self.config.channels.iter().enumerate() {
            let field = &channel.field;
            let value = find(&message, field).ok_or_else(|| format!("field {field:?} is missing"))?;
            let single = std::slice::from_ref(value);
            let list = value.as_array().map_or(single, Vec::as_slice);
            if list.is_empty() || list.len() > SAMPLES_MAX {
                return Err(format!("field {field:?} has {} samples, not 1 to {SAMPLES_MAX}", list.len()));
            }
            if index == 0 {
                samples = list.len();
            } else if list.len() != samples {
                return Err(format!(
                    "field {field:?} has {} samples, but the first has {samples}",
                    list.len()
                ));
            }
            for (place, value) in list.iter().enumerate() {
                let value = value.as_f64().ok_or_else(|| {
                    format!("field {field:?} holds {} at {place}, not a number", brief(value))
                })?;
                saturated |= value.abs() >= full_scale;
                let si = value * to_si;
                if !si.is_finite() || si.abs() > f64::from(f32::MAX) {
                    return Err(format!(
                        "field {field:?} holds {value:e} at {place}, which is beyond any sensor"
                    ));
                }
                values.push(si as f32);
            }
        }
        let time_ns = self.time(&message)?;
        Ok(JsonSamples { values, axes: self.config.channels.len(), samples, saturated, time_ns })
    }

    fn time(&self, message: &Value) -> Result<Option<i64>, String> {
        let Some(time) = &self.config.time else { return Ok(None) };
        let field = &time.field;
        let value = find(message, field).ok_or_else(|| format!("field {field:?} is missing"))?;
        let scale = match time.format {
            TimeFormat::Rfc3339 => {
                let text = value.as_str().ok_or_else(|| format!("field {field:?} is no RFC 3339 text"))?;
                let stamp: jiff::Timestamp = text
                    .parse()
                    .map_err(|_| format!("field {field:?} holds {}, not an RFC 3339 time", brief(value)))?;
                return in_range(stamp.as_nanosecond(), field).map(Some);
            }
            TimeFormat::UnixS => 1_000_000_000,
            TimeFormat::UnixMs => 1_000_000,
            TimeFormat::UnixUs => 1_000,
            TimeFormat::UnixNs => 1,
        };
        let ns = match (value.as_i64(), value.as_f64()) {
            (Some(whole), _) => i128::from(whole) * scale,
            // The fraction apart: the product would have only 53 bits for both.
            (None, Some(number)) => {
                number.trunc() as i128 * scale + (number.fract() * scale as f64).round() as i128
            }
            (None, None) => return Err(format!("field {field:?} holds {}, not a number", brief(value))),
        };
        in_range(ns, field).map(Some)
    }
}

/// Decodes a JSON record of the journal: by the first mapping that covers its key and understands it.
///
/// # Errors
/// No mapping covers the key, or none understands the message: the first one's reason.
pub fn decode(mappings: &[Mapping], key: &SensorKey, body: &[u8]) -> Result<(usize, JsonSamples), String> {
    let mut reason = None;
    for (index, mapping) in mappings.iter().enumerate().filter(|(_, mapping)| mapping.covers(key)) {
        match mapping.decode(body) {
            Ok(samples) => return Ok((index, samples)),
            Err(error) => reason = reason.or(Some(error)),
        }
    }
    Err(reason.unwrap_or_else(|| format!("no JSON mapping covers {key}")))
}

fn find<'a>(message: &'a Value, field: &str) -> Option<&'a Value> {
    if field.starts_with('/') { message.pointer(field) } else { message.get(field) }
}

fn in_range(ns: i128, field: &str) -> Result<i64, String> {
    match i64::try_from(ns) {
        Ok(time_ns) if TIME_RANGE_NS.contains(&ns) => Ok(time_ns),
        _ => Err(format!("field {field:?} is a time outside the years 2000 to 2200: is the format right?")),
    }
}

/// A value in an error message: not more than fits.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AccelerationUnit, JsonChannel, JsonTime};

    fn mapping(topic: &str) -> JsonMapping {
        let channel = |axis: &str, field: &str| JsonChannel { axis: axis.into(), field: field.into() };
        JsonMapping {
            name: "wireless-xyz".into(),
            topic: topic.into(),
            site: Some("hall".into()),
            machine: None,
            sensor: None,
            channels: vec![channel("x", "ax"), channel("y", "/data/ay")],
            unit: AccelerationUnit::G,
            rate_hz: 100.0,
            time: None,
            full_scale: Some(2.0),
        }
    }

    fn timed(format: TimeFormat) -> Mapping {
        let time = Some(JsonTime { field: "t".into(), format });
        Mapping::new(&JsonMapping { time, ..mapping("p/{machine}/{sensor}/acc") })
    }

    #[test]
    fn a_topic_pattern_gives_the_key_and_the_filter() {
        let mapping = Mapping::new(&mapping("p/{machine}/{sensor}/acc"));
        assert_eq!(mapping.filter(), "p/+/+/acc");
        let key = mapping.key("p/mill/s1/acc").unwrap().unwrap();
        assert_eq!(key.to_string(), "hall/mill/s1");
        assert!(mapping.covers(&key));
        assert!(mapping.key("p/mill/s1").is_none() && mapping.key("p/mill/s1/acc/x").is_none());
        assert!(mapping.key("p/mill/s 1/acc").unwrap().unwrap_err().contains("\"s 1\" is not a name"));
        assert!(!mapping.covers(&SensorKey { site: "other".into(), ..(*key).clone() }));
    }

    #[test]
    fn numbers_and_arrays_become_planar_si_values() {
        let mapping = Mapping::new(&mapping("p/{machine}/{sensor}/acc"));
        let one = mapping.decode(br#"{"ax": 1, "data": {"ay": -0.5}}"#).unwrap();
        assert_eq!((one.samples, one.axes, one.saturated), (1, 2, false));
        assert_eq!(one.values, [9.80665, -4.903325]);
        let many = mapping.decode(br#"{"ax": [1, 2.5], "data": {"ay": [0, 0]}}"#).unwrap();
        assert_eq!((many.samples, many.saturated), (2, true));
        assert_eq!(many.values[2..], [0.0, 0.0]);
    }

    #[test]
    fn a_bad_message_is_refused_with_the_fields_name() {
        let mapping = timed(TimeFormat::UnixMs);
        for (body, says) in [
            (r#"{"ax": 1"#, "not JSON"),
            (r#"{"data": {"ay": 1}}"#, "field \"ax\" is missing"),
            (r#"{"ax": 1, "ay": 1}"#, "field \"/data/ay\" is missing"),
            (r#"{"ax": "x", "data": {"ay": 1}}"#, "field \"ax\" holds \"x\" at 0, not a number"),
            (r#"{"ax": [1, null], "data": {"ay": [1, 2]}}"#, "field \"ax\" holds null at 1"),
            (
                r#"{"ax": [1, 2], "data": {"ay": [1]}}"#,
                "field \"/data/ay\" has 1 samples, but the first has 2",
            ),
            (r#"{"ax": [], "data": {"ay": []}}"#, "field \"ax\" has 0 samples"),
            (r#"{"ax": 1e300, "data": {"ay": 1}}"#, "beyond any sensor"),
            (r#"{"ax": 1, "data": {"ay": 1}}"#, "field \"t\" is missing"),
            (r#"{"ax": 1, "data": {"ay": 1}, "t": 5}"#, "field \"t\" is a time outside"),
        ] {
            let error = mapping.decode(body.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{body}: {error}");
        }
    }

    #[test]
    fn every_time_format_gives_the_same_moment() {
        for (format, text) in [
            (TimeFormat::Rfc3339, "\"2026-01-02T03:04:05.25+00:00\""),
            (TimeFormat::UnixS, "1767323045.25"),
            (TimeFormat::UnixMs, "1767323045250"),
            (TimeFormat::UnixUs, "1767323045250000"),
            (TimeFormat::UnixNs, "1767323045250000000"),
        ] {
            let body = format!(r#"{{"ax": 1, "data": {{"ay": 1}}, "t": {text}}}"#);
            assert_eq!(
                timed(format).decode(body.as_bytes()).unwrap().time_ns,
                Some(1_767_323_045_250_000_000)
            );
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let bomb = "[".repeat(100_000);
        assert!(Mapping::new(&mapping("a/{machine}/{sensor}")).decode(bomb.as_bytes()).is_err());
    }
}
