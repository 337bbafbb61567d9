//! The counters as Prometheus's text format 0.0.4. A writer of its own: the counters live in their rooms as plain atomics, and a
//! registry would hold every one a second time; what is left is to write lines.
//!
//! Label cardinality is bounded by `api.series_max`: what is beyond it is summed under [`MORE`].

use super::metrics::{BOUNDS_US, Counter, Histogram};
use super::watch::{Disk, Watch, is_of_journal};
use crate::forward::{LaneStats, Stats};
use crate::journal::Book;
use crate::session::observe::{NodeView, Observation};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Stands for the sensors that have no series of their own. No sensor can have this name.
const MORE: &str = "(more)";

/// Writes families: each once, with all its samples together, as the format wants it.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    /// Starts a family.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escaped(text));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let (classes, sum_us) = histogram.read();
        let mut count = 0;
        let bounds = BOUNDS_US.iter().map(|bound| (*bound as f64 / 1e6).to_string());
        for (class, bound) in classes.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            count += class;
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), &[], count);
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All metrics.
pub(super) fn write(watch: &Watch, seen: &Observation, age: Duration, disk: &Disk) -> String {
    let mut text = Text::default();
    text.family("spindle_build_info", "gauge", "Version and gateway, as labels; always 1.");
    text.sample(
        "spindle_build_info",
        &[("gateway", &watch.gateway), ("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    sources(&mut text, watch);
    session(&mut text, watch, seen, age);
    sensors(&mut text, seen);
    nodes(&mut text, seen);
    journal(&mut text, watch, disk);
    pipeline(&mut text, watch);
    alerts(&mut text, disk);
    forward(&mut text, watch, disk);
    text.one(
        "spindle_http_requests_total",
        "counter",
        "HTTP requests answered.",
        watch.metrics.requests.get(),
    );
    text.0
}

fn counters(text: &mut Text, families: &[(&str, &str, &Counter)]) {
    for (name, help, counter) in families {
        text.one(name, "counter", help, counter.get());
    }
}

fn sources(text: &mut Text, watch: &Watch) {
    text.family(
        "spindle_source_up",
        "gauge",
        "Whether a source is connected and subscribed, listening or open.",
    );
    for (name, state) in &watch.sources {
        text.sample("spindle_source_up", &[("source", name)], u8::from(state.problem().is_none()));
    }
    let source = &watch.metrics.source;
    counters(
        text,
        &[
            ("spindle_source_connections_total", "Connections made, in and out.", &source.connections),
            ("spindle_source_disconnections_total", "Connections lost or refused.", &source.disconnections),
            (
                "spindle_source_clients_refused_total",
                "Clients that the listener turned away.",
                &source.clients_refused,
            ),
            ("spindle_source_messages_total", "Messages received.", &source.messages),
            ("spindle_source_bytes_total", "Bytes of messages received.", &source.bytes),
            (
                "spindle_source_acks_stale_total",
                "Acknowledgements whose connection had ended.",
                &source.acks_stale,
            ),
            (
                "spindle_source_outgoing_dropped_total",
                "Messages to nodes dropped: the way was full.",
                &source.outgoing_dropped,
            ),
            (
                "spindle_source_subscriber_dropped_total",
                "Messages dropped for a slow subscriber of the listener.",
                &source.subscriber_dropped,
            ),
            (
                "spindle_source_packets_refused_total",
                "Connections ended for a malformed or too large packet.",
                &source.packets_refused,
            ),
            (
                "spindle_source_subscriptions_refused_total",
                "Subscriptions refused: too many.",
                &source.subscriptions_refused,
            ),
            (
                "spindle_source_retained_dropped_total",
                "Messages not retained: too many.",
                &source.retained_dropped,
            ),
            ("spindle_source_frames_damaged_total", "Damaged serial frames.", &source.frames_damaged),
        ],
    );
}

fn session(text: &mut Text, watch: &Watch, seen: &Observation, age: Duration) {
    let session = &watch.metrics.session;
    counters(
        text,
        &[
            ("spindle_session_blocks_total", "Blocks accepted.", &session.blocks),
            ("spindle_session_duplicates_total", "Messages that came again.", &session.duplicates),
            (
                "spindle_session_late_total",
                "Messages that came after their place had been given up.",
                &session.late,
            ),
            (
                "spindle_session_held_dropped_total",
                "Messages let go from the reorder buffer, to be sent again.",
                &session.held_dropped,
            ),
            ("spindle_session_boots_total", "Boots of nodes seen for the first time.", &session.boots),
            (
                "spindle_session_twins_total",
                "Times that two boards were found to use one node id.",
                &session.twins,
            ),
            (
                "spindle_session_nodes_forgotten_total",
                "Nodes forgotten to make room.",
                &session.nodes_forgotten,
            ),
            (
                "spindle_session_newcomers_refused_total",
                "Messages of unknown nodes and sensors refused: no room.",
                &session.newcomers_refused,
            ),
            ("spindle_session_dead_letters_total", "Messages refused.", &session.dead_letters),
            (
                "spindle_session_dead_letters_dropped_total",
                "Refused messages not kept: their source's budget was spent.",
                &session.dead_letters_dropped,
            ),
            (
                "spindle_session_clock_doubtful_total",
                "Blocks whose time is doubtful.",
                &session.clock_doubtful,
            ),
            (
                "spindle_session_pairs_refused_total",
                "Clock readings of nodes refused.",
                &session.pairs_refused,
            ),
            (
                "spindle_session_times_told_total",
                "Questions of nodes for the time answered.",
                &session.times_told,
            ),
            (
                "spindle_session_before_birth_total",
                "Messages dropped because their node's birth had not come.",
                &session.before_birth,
            ),
            (
                "spindle_session_births_contradicting_total",
                "Births that contradict the node's file.",
                &session.births_contradicting,
            ),
        ],
    );
    text.one("spindle_session_held", "gauge", "Messages in the reorder buffer.", session.held.get());
    text.one("spindle_session_nodes", "gauge", "Nodes known.", session.nodes.get());
    let help =
        "Age of the books and clocks below: they are older than the scrape while the journal cannot commit.";
    text.one("spindle_session_age_seconds", "gauge", help, age.as_secs_f64());
    let sum = |pick: fn(&Book) -> u64| {
        seen.sensors.iter().map(|(_, book)| pick(book)).fold(pick(&seen.more), u64::saturating_add)
    };
    let lost = "spindle_samples_lost_total";
    text.family(lost, "counter", "Samples per channel that did not go through, by where they ended.");
    text.sample(lost, &[("stage", "before_gateway")], sum(|book| book.lost));
    text.sample(lost, &[("stage", "rejected")], sum(|book| book.rejected));
    text.sample(lost, &[("stage", "evicted")], sum(|book| book.evicted));
}

/// What a sensor's book says, as families: name, help, and where it stands.
type OfBook = (&'static str, &'static str, fn(&Book) -> u64);

const BOOK: [OfBook; 8] = [
    ("taken", "Samples per channel that the sensor took, by its node's account.", |book| book.taken),
    ("stored", "Samples committed to the journal.", |book| book.accepted),
    ("withheld", "Samples kept back by the node, as its settings say.", |book| book.withheld),
    ("duplicate", "Samples that came again and were dropped.", |book| book.duplicate),
    ("rejected", "Samples refused.", |book| book.rejected),
    ("lost", "Samples lost before the gateway.", |book| book.lost),
    ("evicted", "Stored samples evicted for want of space.", |book| book.evicted),
    ("rejected_messages", "Messages refused whose samples are not known.", |book| book.rejected_messages),
];

fn sensors(text: &mut Text, seen: &Observation) {
    for (what, help, pick) in BOOK {
        let unit = if what == "rejected_messages" { "" } else { "samples_" };
        let name = format!("spindle_sensor_{unit}{what}_total");
        text.family(&name, "counter", help);
        for (sensor, book) in &seen.sensors {
            text.sample(&name, &[("sensor", sensor)], pick(book));
        }
        if seen.sensors_more > 0 {
            text.sample(&name, &[("sensor", MORE)], pick(&seen.more));
        }
    }
    let held = "spindle_sensor_samples_held";
    text.family(held, "gauge", "Samples in the reorder buffer.");
    for (sensor, book) in &seen.sensors {
        text.sample(held, &[("sensor", sensor)], book.held);
    }
    text.one(
        "spindle_sensors",
        "gauge",
        "Sensors in the books.",
        seen.sensors.len() as u64 + seen.sensors_more,
    );
    let help = "Sensors that are told in sum, as sensor=\"(more)\".";
    text.one("spindle_sensors_untold", "gauge", help, seen.sensors_more);
}

fn nodes(text: &mut Text, seen: &Observation) {
    let mut family = |name: &str, help: &str, pick: fn(&NodeView) -> Option<f64>| {
        text.family(name, "gauge", help);
        for node in &seen.nodes {
            if let Some(value) = pick(node) {
                text.sample(name, &[("node", &node.node)], value);
            }
        }
    };
    family(
        "spindle_node_clock_offset_seconds",
        "By how much the node's UTC was ahead when it told it last.",
        |node| node.clock_ahead_ns.map(|ahead_ns| ahead_ns as f64 / 1e9),
    );
    family(
        "spindle_node_clock_drift_ratio",
        "By how much the node's tick is longer than it should be.",
        |node| node.clock_drift_ppm.map(|ppm| ppm / 1e6),
    );
    family("spindle_node_clock_doubtful", "Whether the node's clock is doubtful.", |node| {
        Some(f64::from(u8::from(node.clock_doubtful)))
    });
    family("spindle_node_offline", "Whether a broker said that the node's connection is lost.", |node| {
        Some(f64::from(u8::from(node.offline)))
    });
    family("spindle_node_heard_timestamp_seconds", "When the node was heard last, UTC.", |node| {
        node.heard_ns.map(|heard_ns| heard_ns as f64 / 1e9)
    });
    text.one("spindle_nodes_untold", "gauge", "Nodes that have no series of their own.", seen.nodes_more);
    text.one(
        "spindle_nodes_clock_doubtful",
        "gauge",
        "Nodes whose clock is doubtful, of all.",
        seen.clocks_doubtful,
    );
}

fn journal(text: &mut Text, watch: &Watch, disk: &Disk) {
    let journal = &watch.metrics.journal;
    let (journal_max, outputs_max) = watch.sizes_max();
    text.one("spindle_journal_bytes", "gauge", "Bytes of the journal on disk.", disk.journal_bytes);
    text.one(
        "spindle_journal_limit_bytes",
        "gauge",
        "Bytes at which the oldest segment is evicted.",
        journal_max,
    );
    text.one("spindle_journal_records", "gauge", "Records in the journal.", disk.journal_records);
    let age = disk.journal_age.unwrap_or_default().as_secs_f64();
    text.one("spindle_journal_oldest_age_seconds", "gauge", "Age of the oldest record in the journal.", age);
    let refuses = u8::from(journal.problem.lock().is_some());
    text.one(
        "spindle_journal_refuses",
        "gauge",
        "Whether nothing can be committed now: see /ready.",
        refuses,
    );
    text.one("spindle_journal_next_offset", "gauge", "Offset of the next record.", journal.next_offset.get());
    text.histogram("spindle_journal_commit_seconds", "How long commits took.", &journal.commit_time);
    counters(
        text,
        &[
            ("spindle_journal_commits_total", "Commits.", &journal.commits),
            (
                "spindle_journal_commit_failures_total",
                "Commits that failed and were tried again.",
                &journal.failures,
            ),
            ("spindle_journal_records_total", "Records committed.", &journal.records),
            ("spindle_journal_record_bytes_total", "Bytes of records committed.", &journal.bytes),
            ("spindle_journal_segments_evicted_total", "Segments evicted.", &journal.segments_evicted),
            (
                "spindle_journal_segments_damaged_total",
                "Segments set aside as damaged.",
                &journal.segments_damaged,
            ),
            ("spindle_journal_damages_total", "Damaged places that readers skipped.", &journal.damages),
            ("spindle_journal_records_damaged_total", "Records in damaged places.", &journal.records_damaged),
        ],
    );
    let outputs = watch.pipeline.stats().outputs;
    text.one("spindle_outputs_bytes", "gauge", "Bytes of features, rollups and alerts kept.", outputs.bytes);
    text.one(
        "spindle_outputs_limit_bytes",
        "gauge",
        "Bytes at which the oldest of them are evicted.",
        outputs_max,
    );
    let evicted = "spindle_outputs_evicted_total";
    text.family(evicted, "counter", "Records of the outputs log evicted, since the log was made.");
    text.sample(evicted, &[("kind", "features")], outputs.evicted_features);
    text.sample(evicted, &[("kind", "alerts")], outputs.evicted_alerts);
}

fn pipeline(text: &mut Text, watch: &Watch) {
    let stats = watch.pipeline.stats();
    let lag = watch.metrics.journal.next_offset.get().saturating_sub(stats.next_offset);
    text.one("spindle_pipeline_lag_records", "gauge", "Journal records that the pipeline has not read.", lag);
    for (name, help, value) in [
        ("records", "Journal records taken.", stats.pipeline.records),
        ("samples", "Samples taken, over all channels.", stats.pipeline.samples),
        ("windows", "Features records made.", stats.pipeline.windows),
        ("rollups", "Rollups made.", stats.pipeline.rollups),
        ("spectra", "Averaged spectra made.", stats.pipeline.spectra),
        ("alert_changes", "Alerts raised, cleared or withdrawn.", stats.pipeline.alert_changes),
        ("late_samples", "Samples that came after their place had passed.", stats.pipeline.late_samples),
        ("undecodable", "Records whose body could not be read.", stats.pipeline.undecodable),
        (
            "sensors_refused",
            "Records of sensors beyond the most that it keeps.",
            stats.pipeline.sensors_refused,
        ),
        ("states_refused", "Saved states that could not be used.", stats.pipeline.states_refused),
        ("commit_failures", "Commits of outputs that failed and were tried again.", stats.commit_failures),
        ("read_failures", "Reads of the journal that failed and were tried again.", stats.read_failures),
        ("records_evicted", "Journal records evicted before they were read.", stats.records_evicted),
    ] {
        text.one(&format!("spindle_pipeline_{name}_total"), "counter", help, value);
    }
}

fn alerts(text: &mut Text, disk: &Disk) {
    let Some((alerts, all)) = &disk.alerts else { return };
    text.one("spindle_alerts_active", "gauge", "Alerts that stand.", all);
    let active = "spindle_alert_active";
    text.family(active, "gauge", "An alert that stands: its severity, 1 to 1000 as in OPC UA Part 9.");
    for alert in alerts {
        let labels = [("sensor", &*alert.sensor), ("axis", &*alert.axis), ("rule", &*alert.rule)];
        text.sample(active, &labels, alert.severity);
    }
}

/// A lane's numbers, as families: name, type, help, and where it stands.
type OfLane = (&'static str, &'static str, &'static str, fn(&LaneStats) -> &AtomicU64);

const LANE: [OfLane; 8] = [
    ("sent_records_total", "counter", "Records handed to the client library, repeats included.", |lane| {
        &lane.sent
    }),
    ("delivered_records_total", "counter", "Records delivered.", |lane| &lane.delivered),
    ("delivered_bytes_total", "counter", "Bytes of payload delivered.", |lane| &lane.delivered_bytes),
    ("dead_records_total", "counter", "Records sent to the dead letters for a fault of their own.", |lane| {
        &lane.dead
    }),
    ("evicted_records_total", "counter", "Records evicted before they could be sent.", |lane| &lane.evicted),
    ("failed_records_total", "counter", "Deliveries that failed and are tried again.", |lane| &lane.failed),
    ("cursor", "gauge", "First position that is not known to be delivered.", |lane| &lane.cursor),
    ("in_flight_records", "gauge", "Records under way.", |lane| &lane.in_flight),
];

fn forward(text: &mut Text, watch: &Watch, disk: &Disk) {
    let is_used = |lane: &LaneStats| lane.cursor.load(Ordering::Relaxed) > 0;
    let each = |text: &mut Text, name: &str, pick: &dyn Fn(&str, &LaneStats) -> u64| {
        for (destination, stats) in &watch.forward {
            for (lane, stats) in Stats::lanes(stats).into_iter().filter(|(_, lane)| is_used(lane)) {
                text.sample(name, &[("destination", destination), ("lane", lane)], pick(lane, stats));
            }
        }
    };
    for (what, kind, help, pick) in LANE {
        let name = format!("spindle_forward_{what}");
        text.family(&name, kind, help);
        each(text, &name, &|_, stats| pick(stats).load(Ordering::Relaxed));
    }
    let lag = "spindle_forward_lag_records";
    text.family(lag, "gauge", "Positions between a lane's cursor and the end of its log.");
    let (journal_next, outputs_next) =
        (watch.metrics.journal.next_offset.get(), watch.pipeline.stats().outputs.next_id);
    each(text, lag, &|lane, stats| {
        let next = if is_of_journal(lane) { journal_next } else { outputs_next };
        next.saturating_sub(stats.cursor.load(Ordering::Relaxed))
    });
    let age = "spindle_forward_oldest_age_seconds";
    text.family(age, "gauge", "Age of the oldest journal record that is not delivered, by when it came.");
    for (destination, lane, oldest) in &disk.lane_ages {
        text.sample(age, &[("destination", destination), ("lane", lane)], oldest.as_secs_f64());
    }
    let hindered = "spindle_forward_hindered";
    text.family(hindered, "gauge", "Whether something hinders a destination: /ready says what.");
    for (destination, stats) in &watch.forward {
        text.sample(hindered, &[("destination", destination)], u8::from(stats.problem.lock().is_some()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_any_text_stays_within_its_quotes() {
        let mut text = Text::default();
        text.family("a", "gauge", "Help.");
        text.sample("a", &[("x", "q\"\\\n"), ("y", "")], 1.5);
        assert_eq!(text.0, "# HELP a Help.\n# TYPE a gauge\na{x=\"q\\\"\\\\\\n\",y=\"\"} 1.5\n");
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound_and_all_at_the_end() {
        let histogram = Histogram::default();
        for duration_us in [100, 101, 2_000, 9_000_000] {
            histogram.enter(duration_us);
        }
        let mut text = Text::default();
        text.histogram("t", "Help.", &histogram);
        for line in [
            "t_bucket{le=\"0.0001\"} 1",
            "t_bucket{le=\"0.0002\"} 2",
            "t_bucket{le=\"5\"} 3",
            "t_bucket{le=\"+Inf\"} 4",
        ] {
            assert!(text.0.contains(line), "{line} is missing in\n{}", text.0);
        }
        assert!(text.0.ends_with("t_sum 9.002201\nt_count 4\n"), "{}", text.0);
    }
}
