//! What a topic takes. A broker refuses a whole batch for one record that is too large or whose time is too far off, while the
//! batch behind it may arrive: what was refused then comes after it, out of order. So a record that a topic would refuse is
//! known before it is sent: one that may be too large goes alone, and one whose time is too far off (a record's time is its
//! event time, and a node with a wild clock may put that anywhere) goes out with the time of sending, with its own in
//! `ce_time`. A record of the future would also keep its segment for as long as that future lasts.

use rdkafka::admin::ConfigResource;

/// Kafka's own limits, for a topic that does not tell: one hour ahead since Kafka 4.0.
const AHEAD_NS_MAX: i64 = 3_600_000_000_000;
/// The clocks of gateway and broker, and the way between them, may differ by this.
const MARGIN_NS: i64 = 60_000_000_000;
/// Most bytes that key, headers and framing add to a payload.
const OVERHEAD_BYTES: usize = 2048;

/// How far off and how large a topic takes records, as far as is known.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    ahead_ns_max: i64,
    behind_ns_max: i64,
    batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ahead_ns_max: AHEAD_NS_MAX - MARGIN_NS, behind_ns_max: i64::MAX, batch_bytes_max: usize::MAX }
    }
}

impl Limits {
    /// What a topic tells of itself: `message.timestamp.before.max.ms`, `.after.max.ms` (Kafka 3.6 and later) and
    /// `max.message.bytes`.
    pub(super) fn told(topic: &ConfigResource) -> Self {
        let value = |name: &str| topic.get(name).and_then(|entry| entry.value.as_ref())?.parse::<i64>().ok();
        Self::of(
            value("message.timestamp.after.max.ms"),
            value("message.timestamp.before.max.ms"),
            value("max.message.bytes"),
        )
    }

    fn of(ahead_ms: Option<i64>, behind_ms: Option<i64>, bytes: Option<i64>) -> Self {
        let time = |ms: i64| {
            let ns = ms.saturating_mul(1_000_000);
            ns.saturating_sub(MARGIN_NS.min(ns / 2))
        };
        let default = Self::default();
        Self {
            // Never more than the default: see the head of this file.
            ahead_ns_max: ahead_ms.map_or(default.ahead_ns_max, |ms| time(ms).min(default.ahead_ns_max)),
            behind_ns_max: behind_ms.map_or(default.behind_ns_max, time),
            batch_bytes_max: bytes
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(default.batch_bytes_max),
        }
    }

    /// Whether a record with a payload of so many bytes surely is not too large.
    pub(super) fn takes(&self, payload_bytes: usize) -> bool {
        payload_bytes.saturating_add(OVERHEAD_BYTES) <= self.batch_bytes_max
    }

    /// The time to send a record of `time_ns` with.
    pub(super) fn stamp(&self, time_ns: i64, now_ns: i64) -> i64 {
        let ahead_ns = time_ns.saturating_sub(now_ns);
        if ahead_ns >= self.ahead_ns_max || ahead_ns.saturating_neg() >= self.behind_ns_max {
            now_ns
        } else {
            time_ns
        }
    }

    /// The broker has refused this time; says whether that is news. From now on what is about as far off is not tried.
    pub(super) fn refused(&mut self, time_ns: i64, now_ns: i64) -> bool {
        if self.stamp(time_ns, now_ns) != time_ns {
            return false;
        }
        let ahead_ns = time_ns.saturating_sub(now_ns);
        // A sixteenth less: its neighbours, sampled a little earlier or later, are as far off.
        let off_ns = ahead_ns.saturating_abs() / 16 * 15;
        if ahead_ns > 0 {
            self.ahead_ns_max = off_ns;
        } else {
            self.behind_ns_max = off_ns;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    #[test]
    fn what_is_far_ahead_or_as_far_off_as_was_refused_is_stamped_with_the_time_of_sending() {
        let mut limits = Limits::default();
        let now = 1_000_000 * HOUR;
        assert_eq!(limits.stamp(now - 100 * HOUR, now), now - 100 * HOUR);
        assert_eq!(limits.stamp(now + HOUR / 2, now), now + HOUR / 2);
        assert_eq!(limits.stamp(now + HOUR, now), now);
        assert!(limits.refused(now - 32 * HOUR, now) && !limits.refused(now - 33 * HOUR, now));
        assert_eq!(
            (limits.stamp(now - 31 * HOUR, now), limits.stamp(now - 29 * HOUR, now)),
            (now, now - 29 * HOUR)
        );
        assert_eq!(limits.stamp(i64::MIN, now), now);
    }

    #[test]
    fn a_topic_that_tells_its_limits_is_never_sent_what_it_refuses() {
        let limits = Limits::of(Some(7_200_000), Some(86_400_000), Some(100_000));
        let now = 1_000_000 * HOUR;
        assert_eq!(limits.stamp(now + HOUR, now), now, "an hour ahead is enough");
        assert_eq!(limits.stamp(now - 24 * HOUR, now), now);
        assert_eq!(limits.stamp(now - 23 * HOUR, now), now - 23 * HOUR);
        assert!(limits.takes(90_000) && !limits.takes(99_000));
        let limits = Limits::of(Some(0), Some(i64::MAX), None);
        assert_eq!((limits.stamp(now + 1, now), limits.stamp(0, now)), (now, 0));
        assert!(limits.takes(1 << 40));
    }
}
