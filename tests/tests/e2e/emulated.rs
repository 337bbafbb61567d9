//! The emulated board: the image that is flashed, in QEMU, over its Ethernet or its UART through the gateway into Kafka.

use spindle_common::time::{ClockFit, Pair};
use spindle_common::wire::messages::{Lifetime, ResetCause, TimeSource};
use spindle_common::wire::{self, Message};
use spindle_firmware::sensor::signal::{Signal as _, Spindle, SpindleSignal};
use spindle_firmware::sensor::{adxl345, iis3dwb};
use spindle_tests::agent::{Agent, spindle, text};
use spindle_tests::kafka::{Kafka, KafkaRecord};
use spindle_tests::line::Line;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::qemu::{Emulated, Image, Wiring};
use spindle_tests::wait::{self, PATIENCE};
use spindle_tests::{raw, tools};
use std::collections::BTreeMap;
use std::time::Duration;

/// The node of the image with Ethernet: one IIS3DWB, 26.667 kHz, three axes.
const FAST: &str = "qemu-demo";
const FAST_KEY: &str = "demo/cwru-rig/drive-end";
/// The node of the image with a serial line: one ADXL345, 3.2 kHz.
const SLOW: &str = "bench-serial";
const SLOW_KEY: &str = "lab/cwru-rig/housing";

/// Frames that an IIS3DWB takes in a minute and a bit: not a whole number of blocks.
const FAST_MINUTE: u64 = 1_610_007;
const SLOW_MINUTE: u64 = 193_003;

/// The signal that a board's models play for a seed: a spindle, at the sensor's nominal rate and with a resonance in its band.
fn signal(seed: u32, rate_mhz: u32) -> SpindleSignal {
    let rate_hz = rate_mhz as f32 / 1000.0;
    let spindle = Spindle::default();
    Spindle { rate_hz, resonance_hz: spindle.resonance_hz.min(0.3 * rate_hz), seed, ..spindle }.start()
}

/// What a modelled IIS3DWB gives of it, frame by frame.
fn iis3dwb_signal(seed: u32, frames: u64) -> Vec<i32> {
    let scale = iis3dwb::FullScale::G4.scale();
    let mut signal = signal(seed, iis3dwb::RATE_NOMINAL_MHZ);
    let mut next = || -> [i16; 3] { signal.next(scale).unwrap() };
    (0..frames).flat_map(|_| next().map(i32::from)).collect()
}

/// The same for an ADXL345 at its highest rate, where the lowest bit is always 0.
fn adxl345_signal(seed: u32, frames: u64) -> Vec<i32> {
    let [least, most] = adxl345::FullScale::G16.ends();
    let mut signal = signal(seed, adxl345::RATE_NOMINAL_MHZ);
    let mut next = || -> [i16; 3] { signal.next(adxl345::SCALE).unwrap() };
    (0..frames).flat_map(|_| next().map(|count| (i32::from(count) & !1).clamp(least, most))).collect()
}

fn records(kafka: &Kafka, topic: &str, frames: u64, block: u64) -> Vec<KafkaRecord> {
    let blocks = usize::try_from(frames.div_ceil(block)).unwrap();
    kafka.read_until(topic, PATIENCE, |records| raw::count_different(records) >= blocks).unwrap()
}

fn number(values: &BTreeMap<String, String>, name: &str) -> u64 {
    values.get(name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {values:?}"))
}

/// Each sample is in the topic once, in order, none missing.
fn assert_whole(records: &[KafkaRecord], node: &str, boot: u64, key: &str, expected: &[i32]) {
    let streams = raw::streams(records).unwrap();
    let stream = &streams[&(node.to_owned(), boot, 0)];
    assert_eq!((stream.key.as_str(), stream.first_sample, stream.gaps.as_slice()), (key, 0, [].as_slice()));
    assert_eq!(raw::first_difference(&stream.interleaved(), expected), None);
}

#[test]
fn a_minute_of_an_emulated_board_over_ethernet_is_in_kafka_bit_for_bit_none_missing_none_twice() {
    let image = Image::of(FAST).unwrap();
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "minute", "")).unwrap();
    let wiring = Wiring { broker_port: Some(broker.port()), ..Wiring::default() };
    let samples = format!("samples={FAST_MINUTE}");
    let board = Emulated::start(&image, &wiring, &["seed=11", &samples]).unwrap();
    let boot = board.boot(0).unwrap();
    let counters = board.finish(Duration::from_secs(180)).unwrap();
    println!("emulated board: {counters:?}");
    assert_eq!(number(&counters, "taken"), FAST_MINUTE);
    let records = records(kafka, "minute.raw.v1", FAST_MINUTE, 512);
    assert_whole(&records, FAST, boot, FAST_KEY, &iis3dwb_signal(11, FAST_MINUTE));
    crate::books::assert_balanced(&agent, FAST_KEY, u32::try_from(FAST_MINUTE).unwrap());
    agent.stop().unwrap();
}

#[test]
fn a_minute_of_an_emulated_board_over_its_uart_is_in_kafka_bit_for_bit_none_missing_none_twice() {
    let image = Image::of(SLOW).unwrap();
    let kafka = Kafka::shared().unwrap();
    let line = Line::start().unwrap();
    let mut agent = Agent::started(&serial_config(&line, kafka, "uart")).unwrap();
    let wiring = Wiring { serial: Some(line.board()), ..Wiring::default() };
    let samples = format!("samples={SLOW_MINUTE}");
    let board = Emulated::start(&image, &wiring, &["seed=12", &samples]).unwrap();
    let boot = board.boot(0).unwrap();
    let counters = board.finish(Duration::from_secs(180)).unwrap();
    println!("emulated board on a serial line: {counters:?}");
    let records = records(kafka, "uart.raw.v1", SLOW_MINUTE, 512);
    assert_whole(&records, SLOW, boot, SLOW_KEY, &adxl345_signal(12, SLOW_MINUTE));
    crate::books::assert_balanced(&agent, SLOW_KEY, u32::try_from(SLOW_MINUTE).unwrap());
    agent.stop().unwrap();
}

fn serial_config(line: &Line, kafka: &Kafka, prefix: &str) -> String {
    format!(
        "[[source.serial]]\ndevice = {:?}\n\n[forward.kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{prefix}\"\n",
        line.gateway(),
        kafka.address()
    )
}

#[test]
fn a_serial_line_that_garbles_bytes_costs_repetitions_and_no_sample() {
    const SAMPLES: u64 = 60_001;
    let image = Image::of(SLOW).unwrap();
    let kafka = Kafka::shared().unwrap();
    let line = Line::start().unwrap();
    let mut agent = Agent::started(&serial_config(&line, kafka, "garbled")).unwrap();
    let wiring = Wiring { serial: Some(line.board()), ..Wiring::default() };
    let board = Emulated::start(&image, &wiring, &["seed=13", &format!("samples={SAMPLES}")]).unwrap();
    // A block has some 3 kB: one in three or four comes garbled, and acks are hit as well.
    line.garble(10_007);
    let boot = board.boot(0).unwrap();
    let counters = board.finish(Duration::from_secs(180)).unwrap();
    println!("{} bytes garbled: {counters:?}", line.garbled());
    assert!(line.garbled() > 10 && number(&counters, "resent") > 0);
    let records = records(kafka, "garbled.raw.v1", SAMPLES, 512);
    assert_whole(&records, SLOW, boot, SLOW_KEY, &adxl345_signal(13, SAMPLES));
    crate::books::assert_balanced(&agent, SLOW_KEY, u32::try_from(SAMPLES).unwrap());
    agent.stop().unwrap();
}

#[test]
fn a_gateway_killed_and_a_broker_that_forgets_cost_an_emulated_board_no_sample() {
    const SAMPLES: u64 = 640_003;
    let image = Image::of(FAST).unwrap();
    let kafka = Kafka::shared().unwrap();
    let mut broker = Mosquitto::start("persistence false").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "hit", "")).unwrap();
    let wiring = Wiring { broker_port: Some(broker.port()), ..Wiring::default() };
    let samples = format!("samples={SAMPLES}");
    let board = Emulated::start(&image, &wiring, &["seed=14", &samples]).unwrap();
    let boot = board.boot(0).unwrap();
    wait_for_samples(&agent, FAST_KEY, 100_000);
    agent.kill();
    agent.start().unwrap();
    wait_for_samples(&agent, FAST_KEY, 250_000);
    broker.restart().unwrap();
    let counters = board.finish(Duration::from_secs(180)).unwrap();
    println!("after a killed gateway and a broker without memory: {counters:?}");
    assert_eq!(number(&counters, "lost_ring"), 0, "the ring holds 13 s and the outages were shorter");
    let (unique, _) = raw::without_duplicates(records(kafka, "hit.raw.v1", SAMPLES, 512)).unwrap();
    assert_whole(&unique, FAST, boot, FAST_KEY, &iis3dwb_signal(14, SAMPLES));
    crate::books::assert_balanced(&agent, FAST_KEY, u32::try_from(SAMPLES).unwrap());
    agent.stop().unwrap();
}

#[test]
fn a_cable_pulled_for_longer_than_the_ring_holds_leaves_a_counted_gap_and_the_books_agree() {
    const SAMPLES: u64 = 900_001;
    let image = Image::of(FAST).unwrap();
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "pulled", "")).unwrap();
    let wiring = Wiring { broker_port: Some(broker.port()), ..Wiring::default() };
    let samples = format!("samples={SAMPLES}");
    let board = Emulated::start(&image, &wiring, &["seed=15", &samples]).unwrap();
    let boot = board.boot(0).unwrap();
    wait_for_samples(&agent, FAST_KEY, 50_000);
    board.link(false).unwrap();
    // The ring holds 13 s.
    std::thread::sleep(Duration::from_secs(20));
    board.link(true).unwrap();
    let counters = board.finish(Duration::from_secs(180)).unwrap();
    println!("after a pulled cable: {counters:?}");
    let dropped = number(&counters, "lost_ring");
    assert!(dropped > 26_667, "the cable was out for longer than the ring holds");
    // The gateway's books come to rest; what they call lost is what is missing in Kafka.
    let book = wait::until("the books to balance", PATIENCE, || {
        let book = crate::books::of(&agent, FAST_KEY);
        Ok((book["taken"].as_u64() == Some(SAMPLES) && book["balanced"] == true).then_some(book))
    })
    .unwrap();
    let lost = book["lost"].as_u64().unwrap();
    let enough = |records: &[KafkaRecord]| {
        let last = raw::without_duplicates(records.to_vec()).and_then(|(unique, _)| raw::streams(&unique));
        last.is_ok_and(|streams| streams.values().any(|s| s.len() as u64 + lost >= SAMPLES))
    };
    let records = kafka.read_until("pulled.raw.v1", PATIENCE, enough).unwrap();
    let (unique, _) = raw::without_duplicates(records).unwrap();
    let streams = raw::streams(&unique).unwrap();
    let stream = &streams[&(FAST.to_owned(), boot, 0)];
    let gaps: u64 = stream.gaps.iter().map(|(_, count)| count).sum();
    assert_eq!(gaps, lost, "what is missing in Kafka is what the books call lost");
    // The board has dropped what was not acknowledged; some of that had arrived, and its acknowledgement was lost with the cable.
    assert!((lost..lost + 64 * 512).contains(&dropped), "{dropped} dropped, {lost} lost");
    let mut expected = iis3dwb_signal(15, SAMPLES);
    for (first, count) in stream.gaps.iter().rev() {
        let at = |frame: u64| usize::try_from(frame * 3).unwrap();
        expected.drain(at(*first)..at(first + count));
    }
    assert_eq!(raw::first_difference(&stream.interleaved(), &expected), None);
    agent.stop().unwrap();
}

/// Waits until the gateway has made so many samples durable.
fn wait_for_samples(agent: &Agent, key: &str, samples: u64) {
    wait::until(&format!("{samples} samples of {key}"), PATIENCE, || {
        Ok(crate::books::of(agent, key)["stored"].as_u64().filter(|stored| *stored >= samples))
    })
    .unwrap();
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// The retained birth of a node, once `accept` likes it.
fn wait_for_birth(
    broker: &Mosquitto,
    node: &str,
    accept: impl Fn(&wire::Birth<'_>) -> bool,
) -> (ResetCause, String, Lifetime) {
    let topic = format!("spindle/v1/demo/cwru-rig/{node}/birth");
    let port = broker.port().to_string();
    wait::until("the birth after the restart", PATIENCE, || {
        let mut command = tools::command("timeout");
        command.args([
            "10",
            "mosquitto_sub",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-t",
            &topic,
            "-C",
            "1",
            "-F",
            "%x",
        ]);
        let Ok(hex) = tools::output_of(&mut command) else { return Ok(None) };
        let bytes = bytes_of(&hex);
        let Message::Birth(birth) = wire::decode(&bytes)? else { return Ok(None) };
        Ok(accept(&birth)
            .then(|| (birth.reset_cause, birth.last_panic.to_owned(), birth.lifetime.unwrap_or_default())))
    })
    .unwrap()
}

#[test]
fn the_watchdog_bites_a_board_with_a_hung_task_and_its_next_birth_names_the_task() {
    for fault in ["hang=drive-end", "spin=drive-end"] {
        let image = Image::of(FAST).unwrap();
        let broker = Mosquitto::start("").unwrap();
        let wiring = Wiring { broker_port: Some(broker.port()), ..Wiring::default() };
        let mut board = Emulated::start(&image, &wiring, &[fault]).unwrap();
        let first = board.boot(0).unwrap();
        board.wait_for_start(1, PATIENCE).unwrap();
        assert_ne!(board.boot(1).unwrap(), first, "a new run has a new boot id");
        let (cause, _, lifetime) = wait_for_birth(&broker, FAST, |birth| birth.boot.0 != first);
        assert_eq!(
            (cause, lifetime.boots, lifetime.watchdog_resets),
            (ResetCause::Watchdog, 2, 1),
            "{fault}"
        );
        // The sensor's task is number 1. One that never lets go of the processor may have checked in just before.
        assert!(fault.starts_with("spin") || lifetime.hung_tasks == 0b10, "{fault}: {lifetime:?}");
    }
}

#[test]
fn the_text_of_a_panic_arrives_with_the_birth_after_it() {
    let image = Image::of(FAST).unwrap();
    let broker = Mosquitto::start("").unwrap();
    let wiring = Wiring { broker_port: Some(broker.port()), ..Wiring::default() };
    let mut board = Emulated::start(&image, &wiring, &["panic=2"]).unwrap();
    let first = board.boot(0).unwrap();
    board.wait_for_start(1, PATIENCE).unwrap();
    let (cause, text, lifetime) = wait_for_birth(&broker, FAST, |birth| birth.boot.0 != first);
    assert_eq!((cause, lifetime.panics), (ResetCause::Panic, 1));
    assert!(text.contains("asked for by panic=2") && text.contains(".rs:"), "{text:?}");
}

/// `spindle node ARGS` of the agent's gateway: whether it succeeded, and what it printed.
fn node(agent: &Agent, arguments: &[&str]) -> (bool, String) {
    let config = text(&agent.config());
    let output = spindle(&[&["node"], arguments, &["--config", &config]].concat()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// The settings of the node's stream, as it says that they are in force, with their version.
fn in_force(agent: &Agent, name: &str) -> Option<(u64, serde_json::Value)> {
    let (_, shown) = node(agent, &["show", name, "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).ok()?;
    let settings = &shown["node"]["settings"]["settings"];
    Some((settings["version"].as_u64()?, settings["streams"][0].clone()))
}

#[test]
fn an_emulated_board_takes_settings_keeps_them_over_a_restart_and_refuses_what_it_cannot_do() {
    let image = Image::of(FAST).unwrap();
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "asked", "")).unwrap();
    let wiring = Wiring { broker_port: Some(broker.port()), ..Wiring::default() };
    let mut board = Emulated::start(&image, &wiring, &["seed=16"]).unwrap();
    wait_for_samples(&agent, FAST_KEY, 10_000);
    wait::until("the settings built in", PATIENCE, || Ok(in_force(&agent, FAST).filter(|(v, _)| *v == 0)))
        .unwrap();

    let (done, said) = node(&agent, &["selftest", FAST, "drive-end"]);
    assert!(done && said.contains("moved"), "{said}");
    let (done, said) = node(&agent, &["set", FAST, "drive-end.step=decimated", "drive-end.decimation=8"]);
    assert!(done, "{said}");
    wait::until("samples withheld by decimation", PATIENCE, || {
        Ok(crate::books::of(&agent, FAST_KEY)["withheld"].as_u64().filter(|withheld| *withheld > 0))
    })
    .unwrap();
    let (done, said) = node(&agent, &["set", FAST, "drive-end.block_samples=8192"]);
    assert!(!done && said.contains("8192"), "{said}");

    let (done, said) = node(&agent, &["reboot", FAST, "--timeout", "30s"]);
    assert!(done && said.contains("software"), "{said}");
    board.wait_for_start(1, PATIENCE).unwrap();
    let (version, stream) = wait::until("the settings after the restart", PATIENCE, || {
        Ok(in_force(&agent, FAST).filter(|(version, _)| *version == 1))
    })
    .unwrap();
    assert_eq!((version, &stream["step"], &stream["decimation"]), (1, &"decimated".into(), &8.into()));

    let (done, said) = node(
        &agent,
        &[
            "set",
            FAST,
            "drive-end.step=features",
            "drive-end.trigger.every=2s",
            "drive-end.trigger.before=128",
            "drive-end.trigger.after=256",
        ],
    );
    assert!(done, "{said}");
    let by_node = |record: &KafkaRecord| record.json().is_ok_and(|json| json["computed_by"] == "node");
    kafka
        .read_until("asked.features.v1", PATIENCE, |records| {
            records.iter().filter(|r| by_node(r)).count() >= 3
        })
        .unwrap();
    let is_burst = |record: &KafkaRecord| matches!(wire::decode(&record.value), Ok(Message::Burst(_)));
    kafka.read_until("asked.raw.v1", PATIENCE, |records| records.iter().any(is_burst)).unwrap();
    wait::until("the books to balance", PATIENCE, || {
        Ok((crate::books::of(&agent, FAST_KEY)["balanced"] == true).then_some(()))
    })
    .unwrap();
    agent.stop().unwrap();
}

#[test]
fn an_emulated_board_without_a_clock_knows_utc_within_a_millisecond_from_its_gateway() {
    const STATUSES: usize = 40;
    let image = Image::of(FAST).unwrap();
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("set_tcp_nodelay true").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "clock", "")).unwrap();
    let wiring = Wiring { broker_port: Some(broker.port()), ..Wiring::default() };
    let _board = Emulated::start(&image, &wiring, &["seed=17"]).unwrap();
    wait_for_samples(&agent, FAST_KEY, 10_000);
    let (done, said) = node(&agent, &["set", FAST, "status_every=1s", "time_every=5s"]);
    assert!(done, "{said}");
    let topic = |kind: &str| format!("spindle/v1/demo/cwru-rig/{FAST}/{kind}");
    let mut command = tools::command("timeout");
    let (status, time, port) = (topic("status"), topic("time"), broker.port().to_string());
    let count = (STATUSES + 8).to_string();
    command.args(["120", "mosquitto_sub", "-h", "127.0.0.1", "-p", &port, "-t", &status, "-t", &time]);
    let lines = tools::output_of(command.args(["-C", &count, "-F", "%U %x"])).unwrap();
    let mut fit = ClockFit::new(1_000_000);
    let mut statuses = Vec::new();
    for line in lines.lines() {
        let (received, hex) = line.split_once(' ').unwrap();
        let (seconds, nanoseconds) = received.split_once('.').unwrap();
        let received_ns: i64 = format!("{seconds}{nanoseconds:0<9}").parse().unwrap();
        match wire::decode(&bytes_of(hex)).unwrap() {
            Message::TimePair(pair) => {
                assert_eq!(pair.source, TimeSource::Gateway);
                fit.add(Pair { tick: pair.tick, utc_ns: pair.utc_ns, error_ns: pair.error_ns });
            }
            Message::Status(status) => statuses.push((status.tick, received_ns)),
            _ => {}
        }
    }
    // A status is under way for as long as it is; the quickest shows how far the board's UTC is off, from above.
    let late = |(tick, received_ns): &(u64, i64)| received_ns - fit.utc_ns(*tick).unwrap();
    let quickest_ns = statuses.iter().map(late).min().unwrap();
    println!(
        "the quickest of {} statuses was {} us under way by the board's UTC",
        statuses.len(),
        quickest_ns / 1000
    );
    assert!((-1_000_000..1_000_000).contains(&quickest_ns), "{quickest_ns} ns");
    agent.stop().unwrap();
}
