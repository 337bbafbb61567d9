//! `/metrics`, `/health` and `/ready` of a real gateway.

use spindle_tests::agent::Agent;
use spindle_tests::kafka::Kafka;
use spindle_tests::metrics::{Metrics, ask, get};
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::node::{Node, Script};
use spindle_tests::process::Process;
use spindle_tests::wait::{self, PATIENCE};
use spindle_tests::{process, tools};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The books as `spindle balance --json` prints them, by the metrics' names.
const BOOKS: [(&str, &str); 7] = [
    ("taken", "spindle_sensor_samples_taken_total"),
    ("stored", "spindle_sensor_samples_stored_total"),
    ("withheld", "spindle_sensor_samples_withheld_total"),
    ("duplicate", "spindle_sensor_samples_duplicate_total"),
    ("rejected", "spindle_sensor_samples_rejected_total"),
    ("lost", "spindle_sensor_samples_lost_total"),
    ("evicted", "spindle_sensor_samples_evicted_total"),
];

#[test]
fn metrics_scraped_under_load_are_well_formed_and_tell_the_same_books_as_the_balance() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "scraped", "")).unwrap();
    let api = agent.api().unwrap();
    let node = Node::start(broker.port(), Script { pace_hz: Some(200), ..Script::new("n1", 600) }).unwrap();
    let mut last = 0.0;
    let stored = "spindle_sensor_samples_stored_total{sensor=\"site/machine/n1-acc\"}";
    for acknowledged in [100, 300, 500] {
        node.wait_acknowledged(acknowledged, PATIENCE).unwrap();
        let now = Metrics::of(api).unwrap().value(stored).unwrap();
        assert!(
            now >= f64::from(acknowledged * 512) && now > last,
            "{now} samples after {acknowledged} blocks"
        );
        last = now;
    }
    let script = node.finish(PATIENCE).unwrap();
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    let row = crate::books::of(&agent, &script.key());
    let metrics = Metrics::of(api).unwrap();
    for (book, metric) in BOOKS {
        let value = metrics.value(&format!("{metric}{{sensor=\"{}\"}}", script.key())).unwrap();
        assert_eq!(row[book].as_u64().unwrap(), value as u64, "{metric} and {book} of {row}");
    }
    assert_eq!(metrics.value("spindle_samples_lost_total{stage=\"before_gateway\"}").unwrap(), 0.0);
    assert!(metrics.value("spindle_source_up{source=\"site\"}").unwrap() > 0.0);
    let commits = metrics.value("spindle_journal_commits_total").unwrap();
    assert_eq!(metrics.value("spindle_journal_commit_seconds_count").unwrap(), commits);
    assert!(metrics.value("spindle_journal_bytes").unwrap() > 600.0 * 3.0 * 512.0 * 2.0 / 2.0);
    let offset = metrics.value("spindle_node_clock_offset_seconds{node=\"site/machine/n1\"}").unwrap();
    assert!(offset.abs() < 5.0, "the node's clock is this machine's own: {offset}");
    // All of it comes to rest in Kafka, and the lag is none then.
    wait::until("an idle lane", PATIENCE, || {
        let metrics = Metrics::of(api)?;
        let lane = "{destination=\"kafka\",lane=\"raw\"}";
        let delivered = metrics.value(&format!("spindle_forward_delivered_records_total{lane}"))?;
        let lag = metrics.value(&format!("spindle_forward_lag_records{lane}"))?;
        Ok((delivered >= 600.0 && lag == 0.0).then_some(()))
    })
    .unwrap();
    promtool_agrees(&get(api, "/metrics").unwrap().body);
    agent.stop().unwrap();
}

/// Prometheus's own reader and linter takes the text without a word.
fn promtool_agrees(text: &str) {
    let folder = process::folder("promtool").unwrap();
    let path = folder.path().join("metrics");
    std::fs::write(&path, text).unwrap();
    let mut command = tools::command("sh");
    command.args(["-c", "promtool check metrics < \"$1\" 2>&1", "sh"]).arg(&path);
    let said = tools::output_of(&mut command).unwrap();
    assert_eq!(said.trim(), "", "promtool finds fault");
}

#[test]
fn ready_tells_why_not_while_the_broker_is_away_and_health_stays_good() {
    let port = tools::free_port().unwrap();
    let config = format!("[[source.mqtt]]\nname = \"site\"\naddress = \"127.0.0.1:{port}\"\n");
    let mut agent = Agent::started(&config).unwrap();
    let api = agent.api().unwrap();
    let answer = get(api, "/ready").unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    let reasons: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert!(reasons["reasons"][0].as_str().unwrap().starts_with("source site: "), "{reasons}");
    let health = get(api, "/health").unwrap();
    assert_eq!(health.status, 200, "{}", health.body);
    assert_eq!(Metrics::of(api).unwrap().value("spindle_source_up{source=\"site\"}").unwrap(), 0.0);

    let mut command = tools::command("mosquitto");
    let folder = process::folder("late").unwrap();
    let _broker =
        Process::spawn("mosquitto", command.args(["-p", &port.to_string()]), &folder.path().join("log"))
            .unwrap();
    wait::until("the gateway to be ready", PATIENCE, || {
        let answer = get(api, "/ready")?;
        Ok((answer.status == 200).then_some(()))
    })
    .unwrap();
    agent.stop().unwrap();
}

#[test]
fn a_gateway_whose_port_is_taken_says_so_runs_on_and_takes_the_port_when_it_is_free() {
    let port = tools::free_port().unwrap();
    let listener = || tools::free_port().unwrap();
    let config = |mqtt: u16| {
        format!("[source.listener]\nbind = \"127.0.0.1:{mqtt}\"\n\n[api]\nbind = \"127.0.0.1:{port}\"\n")
    };
    let mut first = Agent::started(&config(listener())).unwrap();
    let mqtt = listener();
    let mut second = Agent::started(&config(mqtt)).unwrap();
    let log = second.process().unwrap().log();
    assert!(
        log.contains(&format!("address=127.0.0.1:{port}")) && log.contains("the gateway runs on without"),
        "{log}"
    );
    // It takes data all the same.
    let node = Node::start(mqtt, Script::new("n1", 50)).unwrap();
    node.finish(PATIENCE).unwrap();
    assert_eq!(first.api().unwrap().port(), port);
    first.stop().unwrap();
    second.process().unwrap().wait_for_log("serving /metrics", PATIENCE).unwrap();
    assert!(
        Metrics::of(second.api().unwrap()).unwrap().value("spindle_journal_records_total").unwrap() >= 50.0
    );
    second.stop().unwrap();
}

#[test]
fn the_http_port_bears_slow_rude_and_many_clients_and_gives_no_file() {
    let config = format!("[source.listener]\nbind = \"127.0.0.1:{}\"\n", tools::free_port().unwrap());
    let mut agent = Agent::started(&config).unwrap();
    let api = agent.api().unwrap();
    for path in ["/../../etc/passwd", "/metrics/../../gateway.toml", "/%2e%2e/etc/passwd", "//", "/metricsx"]
    {
        assert_eq!(get(api, path).unwrap().status, 404, "{path}");
    }
    let posted = ask(api, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(posted.status, 405);
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    assert!(ask(api, &long).map_or(true, |answer| answer.status == 431));
    assert!(ask(api, "nonsense\r\n\r\n").map_or(true, |answer| answer.status == 400));

    // As many as there are places hold them and say nothing: the next one waits for at most their time.
    let mut slow: Vec<TcpStream> = (0..16).map(|_| TcpStream::connect(api).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    }
    let start = Instant::now();
    assert_eq!(get(api, "/health").unwrap().status, 200);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    for mut stream in slow {
        // Closed, not left open for ever.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_ok() || rest.is_empty());
    }
    agent.stop().unwrap();
}

#[test]
fn metrics_of_more_sensors_than_have_series_add_up_to_the_same_sum() {
    let port = tools::free_port().unwrap();
    let config = format!(
        "[source.listener]\nbind = \"127.0.0.1:{port}\"\n\n[api]\nbind = \"127.0.0.1:0\"\nseries_max = 3\n"
    );
    let mut agent = Agent::started(&config).unwrap();
    let api = agent.api().unwrap();
    for index in 0..5 {
        let node = Node::start(port, Script::new(&format!("n{index}"), 10)).unwrap();
        node.finish(PATIENCE).unwrap();
    }
    let metrics = Metrics::of(api).unwrap();
    let stored = "spindle_sensor_samples_stored_total";
    assert_eq!(metrics.count(stored), 4);
    assert_eq!(metrics.value(&format!("{stored}{{sensor=\"(more)\"}}")).unwrap(), 2.0 * 10.0 * 512.0);
    assert_eq!(metrics.value("spindle_sensors").unwrap(), 5.0);
    assert_eq!(metrics.count("spindle_node_clock_doubtful"), 3);
    agent.stop().unwrap();
}
