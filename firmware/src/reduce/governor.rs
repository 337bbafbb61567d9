//! When the link falls behind: how many steps the streams that may do so go down. Pure; events and a time go in.

use spindle_common::settings::{Step, StreamSettings};

/// The ring is too full above this, percent.
const HIGH_PERCENT: u8 = 75;
/// For so long, ms, before a step down.
const HIGH_FOR_MS: u64 = 5_000;
/// The ring is near to empty below this, percent.
const LOW_PERCENT: u8 = 10;
/// For so long, ms, before a step up.
const LOW_FOR_MS: u64 = 30_000;
/// From raw to features.
const STEPS_MAX: u8 = 2;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Governor {
    down: u8,
    high_since_ms: Option<u64>,
    low_since_ms: Option<u64>,
}

impl Governor {
    /// With every stream in its settings' step.
    #[must_use]
    pub const fn new() -> Self {
        Self { down: 0, high_since_ms: None, low_since_ms: None }
    }

    /// Steps that streams which may do so are to go down now. While the link is down nothing changes: what fills the ring then
    /// is not that too much is sent.
    pub fn step(&mut self, now_ms: u64, up: bool, fill_percent: u8) -> u8 {
        let held = |since: &mut Option<u64>, holds: bool, for_ms: u64| {
            if !holds {
                *since = None;
                return false;
            }
            now_ms.saturating_sub(*since.get_or_insert(now_ms)) >= for_ms
        };
        if held(&mut self.high_since_ms, up && fill_percent > HIGH_PERCENT, HIGH_FOR_MS)
            && self.down < STEPS_MAX
        {
            self.down += 1;
            self.high_since_ms = None;
        }
        if held(&mut self.low_since_ms, up && fill_percent < LOW_PERCENT, LOW_FOR_MS) && self.down > 0 {
            self.down -= 1;
            self.low_since_ms = None;
        }
        self.down
    }
}

/// The stream's settings with its step as many down as the governor says, if it may.
#[must_use]
pub fn degraded(settings: &StreamSettings, down: u8) -> StreamSettings {
    let mut degraded = *settings;
    if settings.may_degrade {
        for _ in 0..down {
            degraded.step = degraded.step.down().unwrap_or(Step::Features);
        }
    }
    degraded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_down_after_five_seconds_of_a_full_ring_and_up_after_thirty_of_an_empty_one() {
        let mut governor = Governor::new();
        assert_eq!(governor.step(0, true, 80), 0);
        assert_eq!(governor.step(4_999, true, 76), 0);
        assert_eq!(governor.step(5_000, true, 76), 1);
        assert_eq!(governor.step(9_999, true, 76), 1, "each step gets its own five seconds");
        assert_eq!(governor.step(10_000, true, 99), 1);
        assert_eq!(governor.step(15_000, true, 99), 2);
        assert_eq!(governor.step(60_000, true, 99), 2, "below features there is nothing");
        assert_eq!(governor.step(60_001, true, 9), 2);
        assert_eq!(governor.step(70_000, true, 10), 2, "10 % is not under 10 %");
        assert_eq!(governor.step(70_001, true, 5), 2);
        assert_eq!(governor.step(100_001, true, 5), 1);
        assert_eq!(governor.step(130_000, true, 5), 1);
        assert_eq!(governor.step(160_000, true, 5), 0);
        assert_eq!(governor.step(999_999, true, 0), 0);
    }

    #[test]
    fn a_ring_that_fills_while_the_link_is_down_is_no_reason() {
        let mut governor = Governor::new();
        for second in 0..100 {
            assert_eq!(governor.step(second * 1000, false, 100), 0);
        }
        assert_eq!(governor.step(100_000, true, 100), 0);
        assert_eq!(governor.step(104_000, false, 100), 0);
        assert_eq!(governor.step(106_000, true, 100), 0, "an outage starts the count anew");
        assert_eq!(governor.step(111_000, true, 100), 1);
    }
}
