//! Whose fault a Kafka error is.

use crate::forward::lane::Fault;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Whose fault `code` is, as the delivery of one record ended with it.
#[must_use]
pub fn of_code(code: Code) -> Fault {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::BadMessage => Fault::Record,
        Code::InvalidTimestamp => Fault::Time,
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SSL
        | Code::PolicyViolation
        | Code::InvalidRequiredAcks
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::InvalidConfig
        | Code::InvalidArgument => Fault::Configuration,
        _ => Fault::Passing,
    }
}

/// Whose fault it is when the client as a whole reports `code`. A broker that speaks TLS to a client that does not, or the
/// reverse, looks like a broken connection: only librdkafka's words tell.
#[must_use]
pub fn of_client(code: Code, reason: &str) -> Fault {
    let is_tls = is_hung_up(reason) || reason.contains("security.protocol") || reason.contains("SSL");
    if is_tls { Fault::Configuration } else { of_code(code) }
}

/// Whether librdkafka's `text` says that the broker closed the connection before it said which versions it speaks.
#[must_use]
pub fn is_hung_up(text: &str) -> bool {
    text.contains("Disconnected") && text.contains("in state APIVERSION_QUERY")
}

/// Whether `code` says that a topic does not exist.
#[must_use]
pub fn is_missing_topic(code: Code) -> bool {
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
}

/// What to look at when it is the configuration's fault.
#[must_use]
pub fn advice(code: Code) -> &'static str {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            "the topic does not exist and could not be created; create it or allow the gateway to"
        }
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            "the broker does not let this user write; grant WRITE (and IDEMPOTENT_WRITE on older brokers)"
        }
        Code::SaslAuthenticationFailed | Code::Authentication | Code::UnsupportedSASLMechanism => {
            "the broker does not accept the user or the mechanism; see [forward.kafka.properties] sasl.*"
        }
        Code::SSL | Code::BrokerTransportFailure => {
            "the two ends do not agree on TLS, or that is no Kafka; see [forward.kafka.properties] security.protocol"
        }
        _ => "see [forward.kafka] and the broker's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        assert_eq!(of_code(Code::MessageSizeTooLarge), Fault::Record);
        assert_eq!(of_code(Code::TopicAuthorizationFailed), Fault::Configuration);
        assert_eq!(of_code(Code::UnknownTopicOrPartition), Fault::Configuration);
        assert_eq!(of_code(Code::BrokerTransportFailure), Fault::Passing);
        assert_eq!(of_code(Code::NotEnoughReplicas), Fault::Passing);
        assert_eq!(of_code(Code::PurgeQueue), Fault::Passing);
        assert_eq!(of_code(Code::InvalidTimestamp), Fault::Time);
        let words = "Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms in state APIVERSION_QUERY)";
        assert_eq!(of_client(Code::BrokerTransportFailure, words), Fault::Configuration);
        assert_eq!(of_client(Code::BrokerTransportFailure, "Connection refused"), Fault::Passing);
    }
}
