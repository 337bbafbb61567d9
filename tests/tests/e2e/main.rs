//! End to end: the real `spindle` program between real Mosquitto and real Kafka. `tests/run` prepares what this needs.
//! One test program, so that all its tests share one Kafka.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(clippy::disallowed_methods, reason = "outages last real time")]

mod alerts;
mod boards;
mod books;
mod broker_faults;
mod cli;
mod clocks;
mod crash;
mod demo;
mod emulated;
mod flash;
mod hardware;
mod harness;
mod json;
mod listener;
mod listener_clients;
mod nodes;
mod outages;
mod provision;
mod recordings;
mod schema;
mod tls;

use spindle_tests::kafka::Kafka;

/// A gateway's configuration: from the broker at `mqtt` to topics of `prefix` in `kafka`; `more` is appended.
fn config(mqtt: &str, kafka: &Kafka, prefix: &str, more: &str) -> String {
    format!(
        "[[source.mqtt]]\nname = \"site\"\naddress = \"{mqtt}\"\n\n\
         [forward.kafka]\nbrokers = \"{}\"\ntopic_prefix = \"{prefix}\"\n{more}",
        kafka.address()
    )
}
