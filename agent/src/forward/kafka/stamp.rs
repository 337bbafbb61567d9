//! Record times that a broker takes. A record's time is its event time, and a node with a wild clock may put that anywhere; a
//! broker refuses what is too far off (`message.timestamp.before.max.ms` and `.after.max.ms`, the latter one hour by default
//! since Kafka 4.0), and keeps a segment with a record of the future as long as that future lasts. So what is too far off
//! goes out with the time of sending, and its own stands in `ce_time`.

/// A record more than this ahead of the gateway is stamped with the time of sending from the start; a minute less than Kafka
/// takes by default.
const AHEAD_NS_MAX: i64 = 59 * 60 * 1_000_000_000;

/// How far off a topic takes records, as far as is known.
#[derive(Debug)]
pub(super) struct Stamps {
    ahead_ns_max: i64,
    behind_ns_max: i64,
}

impl Default for Stamps {
    fn default() -> Self {
        Self { ahead_ns_max: AHEAD_NS_MAX, behind_ns_max: i64::MAX }
    }
}

impl Stamps {
    /// The time to send a record of `time_ns` with.
    pub(super) fn of(&self, time_ns: i64, now_ns: i64) -> i64 {
        let ahead_ns = time_ns.saturating_sub(now_ns);
        if ahead_ns >= self.ahead_ns_max || ahead_ns.saturating_neg() >= self.behind_ns_max {
            now_ns
        } else {
            time_ns
        }
    }

    /// The broker has refused this time; says whether that is news. From now on what is about as far off is not tried.
    pub(super) fn refused(&mut self, time_ns: i64, now_ns: i64) -> bool {
        if self.of(time_ns, now_ns) != time_ns {
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
        let mut stamps = Stamps::default();
        let now = 1_000_000 * HOUR;
        assert_eq!(stamps.of(now - 100 * HOUR, now), now - 100 * HOUR);
        assert_eq!(stamps.of(now + HOUR / 2, now), now + HOUR / 2);
        assert_eq!(stamps.of(now + HOUR, now), now);
        assert!(stamps.refused(now - 32 * HOUR, now) && !stamps.refused(now - 33 * HOUR, now));
        assert_eq!(
            (stamps.of(now - 31 * HOUR, now), stamps.of(now - 29 * HOUR, now)),
            (now, now - 29 * HOUR)
        );
        assert_eq!(stamps.of(i64::MIN, now), now);
    }
}
