//! What types cannot say: names, ranges against each other, rules against what the pipeline measures, files of secrets.
//!
//! A limit that is stated here is the smallest or largest value with which the room concerned still keeps its promises.

use super::error::{nearest, suggest};
use super::{Config, FilesForward, JsonMapping, KafkaForward, LaneName, LimitRule, MqttSource, Sources};
use crate::forward::kafka::{check_property, check_secret_name};
use crate::pipeline::{BAND_PREFIX, BAND_UNIT, FEATURES};
use crate::source::tls;
use spindle_common::id::is_name;
use spindle_common::wire::AXES_MAX;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

mod measures;

/// Where, what is wrong, what would be right.
type Report<'a> = &'a mut dyn FnMut(String, String, String);

const NAME_FORM: &str = "write 1 to 32 of the characters A-Z a-z 0-9 . _ -";

/// Reports everything in `config` that cannot work.
pub(super) fn check(config: &Config, report: Report<'_>) {
    name("gateway.name", &config.gateway.name, report);
    if let Some(dir) = &config.gateway.hardware_configs
        && !dir.is_dir()
    {
        report("gateway.hardware_configs".into(), format!("{} is no folder", dir.display()), String::new());
    }
    sources(&config.source, report);
    rooms(config, report);
    measures::check(&config.pipeline, report);
    rules(config, report);
    if let Some(kafka) = &config.forward.kafka {
        forward_kafka(kafka, report);
    }
    forward_files(&config.forward.files, report);
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level) {
        let right = suggest(&config.log.level, &["error", "warn", "info", "debug", "trace"]);
        report("log.level".into(), format!("`{}`: {error}", config.log.level), right);
    }
}

fn name(at: &str, value: &str, report: Report<'_>) {
    if !is_name(value) {
        report(at.into(), format!("`{value}` cannot be a name"), NAME_FORM.into());
    }
}

/// Reports each name that an earlier entry of the list has.
fn unique<'a>(list: &str, key: &str, names: impl Iterator<Item = &'a str>, report: Report<'_>) {
    let mut seen = BTreeMap::new();
    for (index, name) in names.enumerate() {
        if let Some(first) = seen.get(name) {
            let what = format!("`{name}` is taken by {list}[{first}]");
            let dot = if key.is_empty() { "" } else { "." };
            report(format!("{list}[{index}]{dot}{key}"), what, "give each its own".into());
        } else {
            seen.insert(name, index);
        }
    }
}

/// Whether `text` is `HOST:PORT`.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_fine =
        !host.is_empty() && !host.contains(['/', ' ']) && (!host.contains(':') || host.starts_with('['));
    host_fine && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn secret_file(at: &str, path: &Path, report: Report<'_>) {
    if let Err(error) = std::fs::File::open(path) {
        report(
            at.into(),
            format!("{}: {error}", path.display()),
            "name a file that the gateway's user can read".into(),
        );
    }
}

fn sources(sources: &Sources, report: Report<'_>) {
    if sources.mqtt.is_empty() && sources.listener.is_none() && sources.serial.is_empty() {
        let right = "add [[source.mqtt]], [source.listener] or [[source.serial]]";
        report("source".into(), "there is no way in".into(), right.into());
    }
    unique("source.mqtt", "name", sources.mqtt.iter().map(|mqtt| mqtt.name.as_str()), report);
    for (index, mqtt) in sources.mqtt.iter().enumerate() {
        mqtt_source(&format!("source.mqtt[{index}]"), mqtt, report);
    }
    if sources.listener.as_ref().is_some_and(|listener| listener.clients_max == 0) {
        report("source.listener.clients_max".into(), "is 0".into(), "write 1 or more".into());
    }
    let devices: Vec<String> =
        sources.serial.iter().map(|serial| serial.device.display().to_string()).collect();
    unique("source.serial", "device", devices.iter().map(String::as_str), report);
    for (index, serial) in sources.serial.iter().enumerate() {
        if serial.baud == 0 {
            report(
                format!("source.serial[{index}].baud"),
                "is 0".into(),
                "write 921600 or what the board has".into(),
            );
        }
    }
    unique("source.json", "name", sources.json.iter().map(|json| json.name.as_str()), report);
    if !sources.json.is_empty() && sources.mqtt.is_empty() && sources.listener.is_none() {
        let right = "add [[source.mqtt]] or [source.listener]";
        report("source.json".into(), "comes over MQTT, and there is no MQTT way in".into(), right.into());
    }
    for (index, json) in sources.json.iter().enumerate() {
        json_mapping(&format!("source.json[{index}]"), json, report);
    }
}

fn mqtt_source(at: &str, mqtt: &MqttSource, report: Report<'_>) {
    name(&format!("{at}.name"), &mqtt.name, report);
    if !is_address(&mqtt.address) {
        let what = format!("`{}` is no address", mqtt.address);
        report(format!("{at}.address"), what, "write HOST:PORT, such as \"broker.plant:1883\"".into());
    }
    if let Some(tls) = &mqtt.tls {
        for problem in tls::problems(tls, &mqtt.address) {
            report(format!("{at}.tls.{}", problem.key), problem.what, problem.right.into());
        }
    }
    if mqtt.receive_maximum == 0 {
        report(format!("{at}.receive_maximum"), "is 0".into(), "write 1 or more".into());
    }
    // The client refuses less, MQTT's 16 bits cannot say more.
    if !(Duration::from_secs(5)..=Duration::from_secs(65_535)).contains(&mqtt.keep_alive) {
        let what = "is not 5 s to 65,535 s";
        report(format!("{at}.keep_alive"), what.into(), "write \"10s\", or what the network needs".into());
    }
    if mqtt.session_expiry < Duration::from_secs(60) {
        let what = "is so short that a restart of the gateway ends the session";
        report(format!("{at}.session_expiry"), what.into(), "write \"1min\" or more".into());
    }
    match (&mqtt.username, &mqtt.password_file) {
        (None, Some(_)) => {
            report(
                format!("{at}.password_file"),
                "comes without a user name".into(),
                "add `username`".into(),
            );
        }
        (_, Some(path)) => secret_file(&format!("{at}.password_file"), path, report),
        _ => {}
    }
}

fn json_mapping(at: &str, json: &JsonMapping, report: Report<'_>) {
    name(&format!("{at}.name"), &json.name, report);
    json_topic(at, json, report);
    if json.channels.is_empty() || json.channels.len() > AXES_MAX {
        let what = format!("has {} entries", json.channels.len());
        report(format!("{at}.channels"), what, format!("write 1 to {AXES_MAX}"));
    }
    for (index, channel) in json.channels.iter().enumerate() {
        if channel.axis.len() != 1 || !channel.axis.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let what = format!("`{}` is no axis", channel.axis);
            report(
                format!("{at}.channels[{index}].axis"),
                what,
                "write one letter or digit, such as \"x\"".into(),
            );
        }
        if channel.field.is_empty() {
            report(
                format!("{at}.channels[{index}].field"),
                "is empty".into(),
                "name a member or a JSON pointer".into(),
            );
        }
    }
    unique(
        &format!("{at}.channels"),
        "axis",
        json.channels.iter().map(|channel| channel.axis.as_str()),
        report,
    );
    if !(json.rate_hz.is_finite() && json.rate_hz > 0.0 && json.rate_hz <= 1e6) {
        report(
            format!("{at}.rate_hz"),
            format!("{} is no sample rate", json.rate_hz),
            "write Hz, 0 to 1000000".into(),
        );
    }
    if json.full_scale.is_some_and(|scale| !(scale.is_finite() && scale > 0.0)) {
        report(
            format!("{at}.full_scale"),
            "is not above 0".into(),
            "write the largest value in `unit`".into(),
        );
    }
}

fn json_topic(at: &str, json: &JsonMapping, report: Report<'_>) {
    let mut found = Vec::new();
    for level in json.topic.split('/') {
        let inner = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match inner {
            Some(placeholder @ ("site" | "machine" | "sensor")) if !found.contains(&placeholder) => {
                found.push(placeholder)
            }
            Some(placeholder) if found.contains(&placeholder) => {
                report(format!("{at}.topic"), format!("has {{{placeholder}}} twice"), String::new());
            }
            Some(placeholder) => {
                let right = suggest(placeholder, &["site", "machine", "sensor"]);
                report(format!("{at}.topic"), format!("placeholder {{{placeholder}}} is unknown"), right);
            }
            None if level.contains(['{', '}', '+', '#']) || level.is_empty() => {
                let right = "each level is a word or one placeholder, such as `plant/{machine}/{sensor}/acc`";
                report(format!("{at}.topic"), format!("level `{level}` is not possible"), right.into());
            }
            None => {}
        }
    }
    if json.topic.starts_with("spindle/") {
        let right = "choose another first level";
        report(format!("{at}.topic"), "lies among the boards' own topics".into(), right.into());
    }
    for (part, fixed) in [("site", &json.site), ("machine", &json.machine), ("sensor", &json.sensor)] {
        match fixed {
            Some(fixed) => name(&format!("{at}.{part}"), fixed, report),
            None if !found.contains(&part) => {
                let right = format!("put {{{part}}} into the topic or add `{part} = \"...\"`");
                report(format!("{at}.{part}"), "is not known".into(), right);
            }
            None => {}
        }
    }
}

fn rooms(config: &Config, report: Report<'_>) {
    let mut must = |fine: bool, at: &str, what: &str, right: &str| {
        if !fine {
            report(at.into(), what.into(), right.into());
        }
    };
    let (session, journal, pipeline) = (&config.session, &config.journal, &config.pipeline);
    must(session.reorder_blocks_max > 0, "session.reorder_blocks_max", "is 0", "write 1 or more");
    must(session.nodes_max > 0, "session.nodes_max", "is 0", "write 1 or more");
    must(
        session.dead_letters_burst.as_u64() >= 128 << 10,
        "session.dead_letters_burst",
        "is less than one refused message may take",
        "write \"128 KiB\" or more",
    );
    let (size, segment) = (journal.size_max.as_u64(), journal.segment_size.as_u64());
    must(segment >= 1 << 20, "journal.segment_size", "is too small for a segment", "write \"1 MiB\" or more");
    must(
        size / 2 >= segment,
        "journal.size_max",
        "holds less than two segments, so eviction would empty the journal",
        "write at least twice `segment_size`",
    );
    let commit = journal.commit_bytes_max.as_u64();
    must(
        (128 << 10..=segment).contains(&commit),
        "journal.commit_bytes_max",
        "is out of range",
        "write \"128 KiB\" (two of the largest messages) up to `segment_size`",
    );
    let window = pipeline.window;
    let window_fine = (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&window);
    must(window_fine, "pipeline.window", "is out of range", "write \"10ms\" to \"1h\"");
    let [low, high] = pipeline.velocity_band_hz;
    let band_fine = low.is_finite() && high.is_finite() && low > 0.0 && high > low;
    must(
        band_fine,
        "pipeline.velocity_band_hz",
        "is no band",
        "write [lower, upper] in Hz, such as [10.0, 1000.0]",
    );
    let downsample_fine = pipeline.downsample_hz.is_finite() && pipeline.downsample_hz > 0.0;
    must(downsample_fine, "pipeline.downsample_hz", "is not above 0", "write Hz, such as 100.0");
    let rollup_fine = pipeline.rollup >= Duration::from_millis(100);
    must(rollup_fine, "pipeline.rollup", "is too short", "write \"100ms\" or more");
    let coverage_fine = (0.0..=1.0).contains(&pipeline.coverage_min);
    must(coverage_fine, "pipeline.coverage_min", "is no share", "write 0.0 to 1.0");
    let anomaly = &config.anomaly;
    must(
        (2..=anomaly.history_windows).contains(&anomaly.learning_windows),
        "anomaly.learning_windows",
        "is out of range",
        "write 2 up to `history_windows`",
    );
}

fn rules(config: &Config, report: Report<'_>) {
    let rules = &config.rules;
    unique("rule", "name", rules.iter().map(|rule| rule.name.as_str()), report);
    let of_bands =
        config.pipeline.bands.iter().map(|band| (format!("{BAND_PREFIX}{}", band.name), BAND_UNIT));
    let measured: Vec<(String, &str)> =
        FEATURES.iter().map(|feature| (feature.name.to_owned(), feature.unit)).chain(of_bands).collect();
    for (index, rule) in rules.iter().enumerate() {
        limit_rule(&format!("rule[{index}]"), rule, &measured, report);
    }
}

/// `measured`: names and units.
fn limit_rule(at: &str, rule: &LimitRule, measured: &[(String, &str)], report: Report<'_>) {
    name(&format!("{at}.name"), &rule.name, report);
    let parts: Vec<&str> = rule.sensor.split('/').collect();
    if parts.len() != 3 || !parts.iter().all(|part| *part == "*" || is_name(part)) {
        let what = format!("`{}` selects no sensor", rule.sensor);
        report(format!("{at}.sensor"), what, "write site/machine/sensor, with * for any".into());
    }
    if rule.axis != "*"
        && (rule.axis.len() != 1 || !rule.axis.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    {
        report(format!("{at}.axis"), format!("`{}` is no axis", rule.axis), "write one letter, or *".into());
    }
    match measured.iter().find(|(name, _)| *name == rule.feature) {
        None => {
            let names: Vec<&str> = measured.iter().map(|(name, _)| name.as_str()).collect();
            report(
                format!("{at}.feature"),
                format!("`{}` is not measured", rule.feature),
                suggest(&rule.feature, &names),
            );
        }
        Some((name, unit)) if *unit != rule.unit => {
            let units = measured.iter().map(|(_, unit)| *unit);
            let hint = match nearest(&rule.unit, units) {
                Some(near) if near == *unit => format!("write \"{near}\""),
                _ => format!("{name} is in \"{unit}\": convert the limit to it"),
            };
            report(format!("{at}.unit"), format!("`{}` is not the unit of {name}", rule.unit), hint);
        }
        Some(_) => {}
    }
    if !(rule.above.is_finite() && rule.above > 0.0) {
        report(format!("{at}.above"), format!("{} is no limit", rule.above), "write a number above 0".into());
    } else if !(0.0..rule.above).contains(&rule.deadband) {
        let what = format!("{} would never let the alert clear", rule.deadband);
        report(format!("{at}.deadband"), what, format!("write 0 up to less than `above`, {}", rule.above));
    }
}

fn lanes(at: &str, lanes: &[LaneName], report: Report<'_>) {
    if lanes.is_empty() {
        let right = "write some of \"alerts\", \"features\", \"dlq\", \"raw\"";
        report(at.into(), "is empty: nothing would go there".into(), right.into());
    }
    unique(at, "", lanes.iter().map(|lane| lane.as_str()), report);
}

fn forward_files(files: &[FilesForward], report: Report<'_>) {
    unique("forward.files", "name", files.iter().map(|files| files.name.as_str()), report);
    let dirs: Vec<String> = files.iter().map(|files| files.dir.display().to_string()).collect();
    unique("forward.files", "dir", dirs.iter().map(String::as_str), report);
    for (index, files) in files.iter().enumerate() {
        let at = format!("forward.files[{index}]");
        name(&format!("{at}.name"), &files.name, report);
        if files.name == "kafka" {
            report(format!("{at}.name"), "`kafka` is taken".into(), "choose another".into());
        }
        lanes(&format!("{at}.lanes"), &files.lanes, report);
        if files.rotate_size.as_u64() < 64 << 10 {
            report(format!("{at}.rotate_size"), "is too small".into(), "write \"64 KiB\" or more".into());
        }
        if files.rotate_age < Duration::from_secs(1) {
            report(format!("{at}.rotate_age"), "is too short".into(), "write \"1s\" or more".into());
        }
        // A finished file of each lane and the one being written, or it could never go on.
        if files.size_max.as_u64() < 8 * files.rotate_size.as_u64().max(512 << 10) {
            let right = "write at least \"4 MiB\" and 8 times `rotate_size`";
            report(format!("{at}.size_max"), "holds too few files".into(), right.into());
        }
    }
}

fn forward_kafka(kafka: &KafkaForward, report: Report<'_>) {
    if kafka.brokers == "mock" {
        let right = "write HOST:PORT, comma-separated; `spindle demo` brings a mock of its own";
        report("forward.kafka.brokers".into(), "a mock keeps nothing".into(), right.into());
    } else if !kafka.brokers.split(',').all(|broker| is_address(broker.trim())) {
        let what = format!("`{}` is no list of addresses", kafka.brokers);
        report("forward.kafka.brokers".into(), what, "write HOST:PORT, comma-separated".into());
    }
    lanes("forward.kafka.lanes", &kafka.lanes, report);
    let prefix_fine = kafka.topic_prefix.split('.').all(is_name);
    if !prefix_fine {
        let what = format!("`{}` cannot begin a topic's name", kafka.topic_prefix);
        report(
            "forward.kafka.topic_prefix".into(),
            what,
            "write names joined by dots, such as \"plant.spindle\"".into(),
        );
    }
    if kafka.queue_size.as_u64() < 1 << 20 {
        report(
            "forward.kafka.queue_size".into(),
            "is too small to batch".into(),
            "write \"1 MiB\" or more".into(),
        );
    }
    if kafka.partitions < 1 {
        report("forward.kafka.partitions".into(), "is less than 1".into(), "write 1 or more".into());
    }
    if kafka.replication != -1 && !(1..=100).contains(&kafka.replication) {
        let right = "write 1 or more, or -1 for the broker's default";
        report("forward.kafka.replication".into(), "is out of range".into(), right.into());
    }
    for (property, value) in &kafka.properties {
        if let Err(reason) = check_property(property, value) {
            report(format!("forward.kafka.properties.\"{property}\""), reason, String::new());
        }
    }
    for (property, path) in &kafka.secret_files {
        let at = format!("forward.kafka.secret_files.\"{property}\"");
        match check_secret_name(property) {
            Ok(()) => secret_file(&at, path, report),
            Err(reason) => report(at, reason, String::new()),
        }
    }
}
