//! `KEY=VALUE` on a node's settings.

use anyhow::{Context as _, bail};
use spindle_common::settings::{Codec, Settings, Step, StreamSettings};
use std::time::Duration;

/// A sensor as changes name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) stream: u8,
    pub(super) sensor: String,
    /// One letter a channel, all that the sensor has; empty when not known.
    pub(super) axes: String,
}

/// One change as it is written.
pub(super) fn split(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The changes that a TOML file holds: its keys with dots, as on the command line.
pub(super) fn of_toml(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    fn flatten(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) -> anyhow::Result<()> {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            let text = match value {
                toml::Value::Table(table) => {
                    flatten(&key, table, out)?;
                    continue;
                }
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(yes) => yes.to_string(),
                toml::Value::Datetime(_) | toml::Value::Array(_) => bail!("{key} is a list or a date"),
            };
            out.push((key, text));
        }
        Ok(())
    }
    let table: toml::Table = text.parse().context("it is not TOML")?;
    let mut changes = Vec::new();
    flatten("", &table, &mut changes)?;
    Ok(changes)
}

/// Makes one change.
pub(super) fn apply(
    settings: &mut Settings,
    sensors: &[Named],
    key: &str,
    value: &str,
) -> anyhow::Result<()> {
    match key {
        "status_every" => settings.status_every_s = seconds(value).with_context(|| key.to_owned())?,
        "time_every" => settings.time_every_s = seconds(value).with_context(|| key.to_owned())?,
        _ => {
            let place =
                |named: &&Named| key.strip_prefix(&*named.sensor).is_some_and(|rest| rest.starts_with('.'));
            // Names may have dots in them: the longest that fits is meant.
            let named = sensors.iter().filter(place).max_by_key(|named| named.sensor.len());
            let Some(named) = named else {
                let names: Vec<_> = sensors.iter().map(|named| named.sensor.as_str()).collect();
                bail!(
                    "`{key}` is no setting: there are status_every, time_every, and SENSOR.KEY of the sensors {}",
                    names.join(", ")
                );
            };
            let stream = settings.streams.iter_mut().find(|stream| stream.stream.0 == named.stream);
            let stream = stream.with_context(|| format!("the node has no settings of {}", named.sensor))?;
            let field = key.get(named.sensor.len() + 1..).unwrap_or_default();
            of_stream(stream, named, field, value).with_context(|| format!("`{key}={value}`"))?;
        }
    }
    Ok(())
}

fn of_stream(stream: &mut StreamSettings, named: &Named, field: &str, value: &str) -> anyhow::Result<()> {
    let trigger = &mut stream.trigger;
    match field {
        "step" => {
            stream.step = match value {
                "raw" => Step::Raw,
                "decimated" => Step::Decimated,
                "features" => Step::Features,
                _ => bail!("a step is raw, decimated or features"),
            }
        }
        "codec" => {
            stream.codec = match value {
                "raw" => Codec::Raw,
                "rice" => Codec::Rice,
                _ => bail!("a codec is raw or rice"),
            }
        }
        "may_degrade" => stream.may_degrade = value.parse().context("write true or false")?,
        "axes" => stream.axes = axes(named, value)?,
        "decimation" => stream.decimation = number(value)?,
        "block_samples" => stream.block_samples = number(value)?,
        "trigger.level" => {
            trigger.level = value.parse().context("write a number of m/s²")?;
        }
        "trigger.every" => trigger.every_s = u32::from(seconds(value)?),
        "trigger.before" => trigger.before = number(value)?,
        "trigger.after" => trigger.after = number(value)?,
        "trigger.rest" => trigger.rest_s = seconds(value)?,
        _ => bail!(
            "a sensor has step, may_degrade, axes, decimation, codec, block_samples, trigger.level, trigger.every, \
             trigger.before, trigger.after, trigger.rest"
        ),
    }
    Ok(())
}

fn number(value: &str) -> anyhow::Result<u16> {
    value.parse().context("write a whole number up to 65535")
}

/// Whole seconds, with or without a unit.
fn seconds(value: &str) -> anyhow::Result<u16> {
    let time = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(value).context("write a time such as 10s")?,
    };
    if time.subsec_nanos() != 0 {
        bail!("nodes know whole seconds only");
    }
    u16::try_from(time.as_secs()).context("at most 65535 seconds")
}

/// A mask from letters, or from a number such as 0b101.
fn axes(named: &Named, value: &str) -> anyhow::Result<u8> {
    if let Some(bits) = value.strip_prefix("0b") {
        return u8::from_str_radix(bits, 2).context("write letters such as xy, or a mask such as 0b011");
    }
    let mut mask = 0;
    for letter in value.chars() {
        match named.axes.chars().position(|axis| axis == letter) {
            Some(at) if at < 8 => mask |= 1 << at,
            _ if named.axes.is_empty() => {
                bail!(
                    "letters of its axes are not known without hardware_configs: write a mask such as 0b011"
                )
            }
            _ => bail!("it has the axes {}, not {letter}", named.axes),
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_common::id::StreamId;
    use spindle_common::settings::TriggerSettings;

    fn settings() -> (Settings, Vec<Named>) {
        let stream = |stream| StreamSettings {
            stream: StreamId(stream),
            step: Step::Raw,
            may_degrade: false,
            axes: 0b111,
            decimation: 8,
            codec: Codec::Raw,
            block_samples: 512,
            trigger: TriggerSettings::default(),
        };
        let settings = Settings {
            version: 4,
            status_every_s: 10,
            time_every_s: 30,
            streams: [stream(0), stream(1)].into_iter().collect(),
        };
        let named = |stream, sensor: &str| Named { stream, sensor: sensor.into(), axes: "xyz".into() };
        (settings, vec![named(0, "spindle"), named(1, "spindle.rear")])
    }

    fn changed(changes: &[&str]) -> anyhow::Result<Settings> {
        let (mut settings, named) = settings();
        for change in changes {
            let (key, value) = split(change).map_err(anyhow::Error::msg)?;
            apply(&mut settings, &named, &key, &value)?;
        }
        Ok(settings)
    }

    #[test]
    fn each_key_changes_its_own_field_of_its_own_sensor() {
        let made = changed(&[
            "spindle.step=decimated",
            "spindle.rear.step=features",
            "spindle.axes=zx",
            "spindle.rear.axes=0b10",
            "spindle.decimation=12",
            "spindle.codec=rice",
            "spindle.block_samples=256",
            "spindle.may_degrade=true",
            "spindle.trigger.level=20.5",
            "spindle.trigger.every=1min",
            "spindle.trigger.before=100",
            "spindle.trigger.after=200",
            "spindle.trigger.rest=5",
            "status_every=1min",
            "time_every=7",
        ])
        .unwrap();
        let trigger = TriggerSettings { level: 20.5, every_s: 60, before: 100, after: 200, rest_s: 5 };
        let (mut wanted, _) = settings();
        (wanted.status_every_s, wanted.time_every_s) = (60, 7);
        let stream = &mut wanted.streams[0];
        (stream.step, stream.axes, stream.decimation) = (Step::Decimated, 0b101, 12);
        (stream.codec, stream.block_samples, stream.may_degrade) = (Codec::Rice, 256, true);
        stream.trigger = trigger;
        (wanted.streams[1].step, wanted.streams[1].axes) = (Step::Features, 0b10);
        assert_eq!(made, wanted);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (change, says) in [
            ("spindle.step=fast", "a step is raw, decimated or features"),
            ("spindle.axes=xq", "it has the axes xyz, not q"),
            ("spindle.speed=3", "a sensor has step"),
            ("column.step=raw", "of the sensors spindle, spindle.rear"),
            ("status_every=1500ms", "whole seconds"),
            ("spindle.decimation=70000", "whole number"),
            ("step", "write KEY=VALUE"),
        ] {
            let error = format!("{:#}", changed(&[change]).unwrap_err());
            assert!(error.contains(says), "{change}: {error}");
        }
    }

    #[test]
    fn a_file_says_the_same_as_the_command_line() {
        let text =
            "status_every = \"10s\"\n[spindle]\nstep = \"features\"\ntrigger = { level = 20, after = 512 }\n";
        let changes = of_toml(text).unwrap();
        let written: Vec<_> = changes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            written,
            [
                "spindle.step=features",
                "spindle.trigger.after=512",
                "spindle.trigger.level=20",
                "status_every=10s"
            ]
        );
        assert!(of_toml("a = [1]").is_err() && of_toml("a").is_err());
    }
}
