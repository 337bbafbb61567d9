//! The producer: its settings, what it reports, and creating the topics.

use super::fault;
use super::limits::Limits;
use crate::config::{Compression, KafkaForward};
use parking_lot::Mutex;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::Arc;
use std::time::Duration;

/// The producer as this room uses it.
pub(super) type Producer = BaseProducer<Reports>;

/// How long creating the topics may take; the forward's thread waits for it.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Properties that the configuration may not set, each with what to do instead or why.
const REFUSED: [(&str, &str); 24] = [
    ("acks", "acks=all is what a delivery rests on"),
    ("request.required.acks", "acks=all is what a delivery rests on"),
    ("enable.idempotence", "order and no duplicates on retry rest on it"),
    ("enable.gapless.guarantee", "order is kept by the gateway itself"),
    ("max.in.flight", "order rests on it"),
    ("max.in.flight.requests.per.connection", "order rests on it"),
    ("message.timeout.ms", "nothing is ever given up"),
    ("delivery.timeout.ms", "nothing is ever given up"),
    ("message.send.max.retries", "nothing is ever given up"),
    ("retries", "nothing is ever given up"),
    ("delivery.report.only.error", "the cursor moves on delivery reports"),
    ("transactional.id", "the gateway sends outside transactions"),
    ("partitioner", "a sensor's records must stay in one partition, as other clients would choose it"),
    ("queue.buffering.max.messages", "use `queue_size`"),
    ("queue.buffering.max.kbytes", "use `queue_size`"),
    ("queuing.strategy", "order rests on it"),
    ("bootstrap.servers", "use `brokers`"),
    ("metadata.broker.list", "use `brokers`"),
    ("compression.codec", "use `compression`"),
    ("compression.type", "use `compression`"),
    ("client.id", "it is made of the gateway's name"),
    ("plugin.library.paths", "no code is loaded at run time"),
    ("test.mock.num.brokers", "use `spindle demo`"),
    ("debug", "use --log with `librdkafka=debug`"),
];

/// Properties that hold a secret and therefore may only come from a file.
const SECRET: [&str; 5] = [
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
];

/// Whether `name` with `value` may stand among the `properties` of the configuration.
///
/// # Errors
/// What is wrong and what to do instead.
pub fn check_property(name: &str, value: &str) -> Result<(), String> {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(format!("`{name}` cannot be set here: {why}"));
    }
    if SECRET.contains(&name) {
        return Err(format!(
            "`{name}` is a secret: put it into a file and name that under [forward.kafka.secret_files]"
        ));
    }
    native(name, value)
}

/// Whether `name` may stand among the `secret_files`.
///
/// # Errors
/// What is wrong.
pub fn check_secret_name(name: &str) -> Result<(), String> {
    if SECRET.contains(&name) {
        return Ok(());
    }
    Err(format!("`{name}` is none of the secrets {}", SECRET.join(", ")))
}

fn native(name: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, reason, ..)) => {
            Err(format!("librdkafka refuses `{name} = {value}`: {reason}"))
        }
        Err(error) => Err(format!("librdkafka refuses `{name} = {value}`: {error}")),
    }
}

/// What every client of this destination starts from: the broker and how to be let in.
pub(super) fn access(config: &KafkaForward, gateway: &str) -> Result<ClientConfig, String> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers).set("client.id", format!("spindle-{gateway}"));
    client.set("socket.keepalive.enable", "true").set("reconnect.backoff.max.ms", "5000");
    for (name, value) in &config.properties {
        check_property(name, value)?;
        client.set(name, value);
    }
    for (name, path) in &config.secret_files {
        let secret = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        client.set(name, secret.trim_end_matches(['\r', '\n']));
    }
    client.set_log_level(RDKafkaLogLevel::Debug);
    Ok(client)
}

/// The producer of `config`, which reports to `reports`.
pub(super) fn producer(
    access: &ClientConfig,
    config: &KafkaForward,
    reports: Reports,
) -> Result<Producer, String> {
    let compression = match config.compression {
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
        Compression::None => "none",
    };
    // The lanes count what they have under way and stop at `queue_size` each; the client's own limit lies above all four.
    let queue_kbytes = (config.queue_size.as_u64() / 256).clamp(4_096, 2_097_151);
    let mut client = access.clone();
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        .set("compression.codec", compression)
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.kbytes", queue_kbytes.to_string())
        .set("queue.buffering.max.messages", (8 * crate::forward::lane::IN_FLIGHT_MAX).to_string());
    client.create_with_context(reports).map_err(|error| match error {
        KafkaError::ClientConfig(_, reason, name, value) => format!("`{name} = {value}`: {reason}"),
        KafkaError::ClientCreation(reason) => reason,
        other => other.to_string(),
    })
}

/// Creates the topics that are missing, and asks what each takes, if it may be told. What the broker answers in words; `Ok`
/// when all exist now.
pub(super) fn prepare_topics(
    access: &ClientConfig,
    config: &KafkaForward,
    names: &[&str],
) -> Result<Vec<(String, Limits)>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let admin: AdminClient<DefaultClientContext> = access.create().map_err(|error| error.to_string())?;
    let metadata = admin.inner().fetch_metadata(None, ADMIN_TIMEOUT).map_err(|error| error.to_string())?;
    let exists = |name: &str| metadata.topics().iter().any(|topic| topic.name() == name);
    let missing = names.iter().filter(|name| !exists(name));
    let topics: Vec<NewTopic<'_>> = missing
        .map(|name| NewTopic::new(name, config.partitions, TopicReplication::Fixed(config.replication)))
        .collect();
    let options =
        AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT));
    let results = match &topics[..] {
        [] => Vec::new(),
        some => runtime.block_on(admin.create_topics(some, &options)).map_err(|error| error.to_string())?,
    };
    let refused: Vec<String> = results
        .into_iter()
        .filter_map(|result| match result {
            Ok(name) => {
                tracing::info!(topic = name, "topic created");
                None
            }
            Err((_, Code::TopicAlreadyExists)) => None,
            Err((name, code)) => Some(format!("{name}: {code}")),
        })
        .collect();
    if !refused.is_empty() {
        return Err(refused.join("; "));
    }
    let topics: Vec<ResourceSpecifier<'_>> =
        names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let told = match runtime.block_on(admin.describe_configs(&topics, &options)) {
        Ok(told) => told,
        Err(error) => {
            tracing::debug!(%error, "kafka does not tell what its topics take");
            Vec::new()
        }
    };
    let limits = told.iter().flatten().filter_map(|topic| match &topic.specifier {
        OwnedResourceSpecifier::Topic(name) => Some((name.clone(), Limits::told(topic))),
        _ => None,
    });
    Ok(limits.collect())
}

/// What the producer reports, collected while it is polled.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    decided: Mutex<Vec<(usize, Option<Code>)>>,
    problem: Mutex<Option<(Code, String)>>,
}

impl Reports {
    /// Moves the delivery reports since the last call into `into`.
    pub(super) fn take(&self, into: &mut Vec<(usize, Option<Code>)>) {
        into.clear();
        std::mem::swap(&mut *self.0.decided.lock(), into);
    }

    /// The newest problem of the client as a whole since the last call.
    pub(super) fn take_problem(&self) -> Option<(Code, String)> {
        self.0.problem.lock().take()
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // librdkafka repeats itself at every attempt to reconnect; what matters comes through `error`.
        tracing::debug!(target: "librdkafka", ?level, facility, "{text}");
        // Of this one it says nothing there. Once may be a broker that is just ending, twice is none.
        if fault::is_hung_up(text) && text.contains("identical error") {
            *self.0.problem.lock() = Some((Code::BrokerTransportFailure, text.to_owned()));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut problem = self.0.problem.lock();
        // That all brokers are down comes right after why, and says less.
        if code != Code::AllBrokersDown || problem.is_none() {
            *problem = Some((code, reason.to_owned()));
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let code = match result {
            Ok(_) => None,
            Err((error, _)) => Some(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        };
        self.0.decided.lock().push((opaque, code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guarantees_rest_on_cannot_be_set() {
        for (name, _) in REFUSED {
            assert!(check_property(name, "1").is_err(), "{name}");
        }
        assert!(check_property("acks", "1").unwrap_err().contains("acks=all"));
    }

    #[test]
    fn a_secret_in_the_clear_is_refused_and_told_where_it_belongs() {
        assert!(check_property("sasl.password", "x").unwrap_err().contains("secret_files"));
        assert!(check_secret_name("sasl.password").is_ok());
        assert!(check_secret_name("acks").is_err());
    }

    #[test]
    fn unknown_properties_and_bad_values_are_refused_in_librdkafkas_words() {
        assert!(check_property("linger.ms", "20").is_ok());
        assert!(check_property("linger.mss", "20").unwrap_err().contains("linger.mss"));
        assert!(check_property("linger.ms", "soon").is_err());
    }
}
