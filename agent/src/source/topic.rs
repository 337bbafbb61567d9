//! Topics: `spindle/v1/{site}/{machine}/{sensor or node}/{what}`.

use crate::record::SensorKey;
use spindle_common::id::is_name;
use std::sync::Arc;

/// What boards publish, and with that the topic's last level.
pub const FROM_NODES: [&str; 10] =
    ["raw", "features", "burst", "birth", "status", "time", "answer", "offline", "settings", "timeask"];

/// What a board's topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Site, machine, and sensor (for raw, features, burst) or node.
    pub key: Arc<SensorKey>,
    /// What is published there.
    pub channel: Channel,
}

/// The last level of a board's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Blocks.
    Raw,
    /// Features computed on the node.
    Features,
    /// Triggered bursts.
    Burst,
    /// Birth, status, time, answer, offline, settings, timeask: the message itself says which.
    Node,
}

/// Topic filters for everything that boards publish.
pub fn filters() -> impl Iterator<Item = String> {
    FROM_NODES.iter().map(|channel| format!("spindle/v1/+/+/+/{channel}"))
}

/// Whether a topic is in Spindle's own tree.
#[must_use]
pub fn is_ours(topic: &str) -> bool {
    topic.starts_with("spindle/v1/")
}

/// Reads a board's topic.
///
/// # Errors
/// What is wrong with it.
pub fn parse(topic: &str) -> Result<Topic, String> {
    let rest = topic.strip_prefix("spindle/v1/").ok_or("topic does not begin with spindle/v1/")?;
    let levels: Vec<&str> = rest.split('/').collect();
    let [site, machine, sensor, channel] = levels[..] else {
        return Err(format!("topic has {} levels after spindle/v1, not 4", levels.len()));
    };
    let channel = match channel {
        "raw" => Channel::Raw,
        "features" => Channel::Features,
        "burst" => Channel::Burst,
        other if FROM_NODES.contains(&other) => Channel::Node,
        other => return Err(format!("topic ends in {other:?}, which nodes do not publish")),
    };
    Ok(Topic { key: Arc::new(key(site, machine, sensor)?), channel })
}

/// A key from its three names.
///
/// # Errors
/// Which of them is no name.
pub fn key(site: &str, machine: &str, sensor: &str) -> Result<SensorKey, String> {
    for (what, name) in [("site", site), ("machine", machine), ("sensor or node", sensor)] {
        if !is_name(name) {
            return Err(format!("{what} {name:?} is not a name: 1 to 32 of A-Z a-z 0-9 . _ -"));
        }
    }
    Ok(SensorKey { site: site.into(), machine: machine.into(), sensor: sensor.into() })
}

/// Where a node listens; `what` is `ack` or `cmd`.
#[must_use]
pub fn to_node(node: &SensorKey, what: &str) -> String {
    format!("spindle/v1/{node}/{what}")
}

/// Whether `topic` matches an MQTT topic filter with its wildcards `+` and `#`.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let hidden = topic.starts_with('$');
    let mut levels = topic.split('/');
    let mut first = true;
    for want in filter.split('/') {
        // Wildcards do not match the levels that begin with $ (MQTT 3.1.1, 4.7.2).
        if first && hidden && (want == "+" || want == "#") {
            return false;
        }
        first = false;
        if want == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if want == "+" || want == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether `filter` is a valid topic filter: not empty, `#` only at the end, wildcards alone in their level.
#[must_use]
pub fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    !filter.is_empty()
        && filter.len() <= 512
        && levels.iter().enumerate().all(|(index, level)| match *level {
            "#" => index + 1 == levels.len(),
            "+" => true,
            other => !other.contains(['#', '+', '\0']),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boards_topic_gives_its_key() {
        let topic = parse("spindle/v1/hall/mill-3/spindle.x/raw").unwrap();
        assert_eq!(topic.key.to_string(), "hall/mill-3/spindle.x");
        assert_eq!(topic.channel, Channel::Raw);
        assert_eq!(parse("spindle/v1/a/b/c/time").unwrap().channel, Channel::Node);
    }

    #[test]
    fn a_wrong_topic_is_named() {
        for (topic, says) in [
            ("spindle/v1/a/b/c", "has 3 levels"),
            ("spindle/v1/a/b/c/ack", "ends in \"ack\""),
            ("spindle/v1/a//c/raw", "machine \"\" is not a name"),
            ("other", "does not begin"),
        ] {
            assert!(parse(topic).unwrap_err().contains(says), "{topic}");
        }
    }

    #[test]
    fn filters_match_as_mqtt_says() {
        for (filter, topic, expected) in [
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b/d", false),
            ("a/#", "a/b/d", true),
            ("a/#", "a", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("+/+", "/x", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
        assert!(is_filter("a/+/#") && !is_filter("a/#/b") && !is_filter("a/b+") && !is_filter(""));
    }
}
