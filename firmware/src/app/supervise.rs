//! The supervisor's task: feeds the watchdog, and keeps what the next start should know.

use super::Shell;
use crate::log::log;
use crate::retain::Totals;
use crate::supervise::Supervisor;
use embassy_time::{Duration, Instant, Timer};
use spindle_common::id::StreamId;

/// What a board's watchdog is set to, ms. Tasks check in each second at the latest, but for a sensor's self-test and its
/// reset; this leaves room for them, and an RP2350's watchdog counts that far.
pub const WATCHDOG_TIMEOUT_MS: u32 = 8_000;

/// How often the roll is called.
const ROLL_CALL_MS: u64 = 250;

/// A task that was not heard for so long is noted, so that the next start can name it.
const LATE_MS: u64 = 2_000;

/// A board's watchdog: resets the board when it was not fed for [`WATCHDOG_TIMEOUT_MS`].
pub trait Watchdog {
    /// Starts the time again.
    fn feed(&mut self);
}

impl<const BLOCKS: usize> Shell<BLOCKS> {
    /// The supervisor's task; never ends.
    pub async fn supervise(&self, watchdog: &mut impl Watchdog) {
        watchdog.feed();
        let mut roll_call = RollCall::new(now_ms());
        loop {
            Timer::after(Duration::from_millis(ROLL_CALL_MS)).await;
            match roll_call.verdict(&self.supervisor, now_ms()) {
                Verdict::Well { after_late } => {
                    watchdog.feed();
                    if after_late {
                        self.retained.note_well();
                    }
                    self.note_totals();
                }
                Verdict::Waiting => {}
                Verdict::Late(tasks) => {
                    log!(error, "tasks {=u32:#b} are late", tasks);
                    self.retained.note_hung(tasks);
                }
            }
        }
    }

    /// Keeps this run's totals over a reset.
    pub(super) fn note_totals(&self) {
        let (uplink, _) = self.node.uplink_counters();
        let held = self.node.held();
        let mut totals = Totals {
            uptime_s: u32::try_from(Instant::now().as_secs()).unwrap_or(u32::MAX),
            dropped: self.node.dropped(),
            resent: uplink.resent,
            connects: uplink.connects,
            unacknowledged: held.next.since(held.oldest),
            ..Totals::default()
        };
        for index in 0..self.node.facts.streams.len() {
            let stream = StreamId(u8::try_from(index).unwrap_or(u8::MAX));
            let Some(counters) = self.node.counters(stream) else { continue };
            totals.taken += counters.taken;
            totals.lost_overrun += counters.lost_overrun;
            totals.lost_ring += counters.lost_ring;
        }
        self.retained.note_totals(&totals);
    }
}

fn now_ms() -> u64 {
    Instant::now().as_millis()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Every task has checked in: feed.
    Well { after_late: bool },
    /// Some have not, but not for long.
    Waiting,
    /// These have not for too long.
    Late(u32),
}

#[derive(Debug)]
struct RollCall {
    well_at_ms: u64,
    late: bool,
}

impl RollCall {
    const fn new(now_ms: u64) -> Self {
        Self { well_at_ms: now_ms, late: false }
    }

    fn verdict(&mut self, supervisor: &Supervisor, now_ms: u64) -> Verdict {
        if supervisor.may_feed() {
            self.well_at_ms = now_ms;
            return Verdict::Well { after_late: core::mem::take(&mut self.late) };
        }
        if now_ms.saturating_sub(self.well_at_ms) < LATE_MS {
            return Verdict::Waiting;
        }
        self.late = true;
        Verdict::Late(supervisor.missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::TaskId;

    #[test]
    fn a_task_that_is_late_is_named_and_forgiven_once_it_is_back() {
        let supervisor = Supervisor::new(2);
        let mut roll_call = RollCall::new(0);
        supervisor.check_in(TaskId::new(0));
        assert_eq!(roll_call.verdict(&supervisor, LATE_MS - 1), Verdict::Waiting);
        assert_eq!(roll_call.verdict(&supervisor, LATE_MS), Verdict::Late(0b10));
        supervisor.check_in(TaskId::new(1));
        assert_eq!(roll_call.verdict(&supervisor, LATE_MS + 1), Verdict::Well { after_late: true });
        supervisor.check_in(TaskId::new(0));
        supervisor.check_in(TaskId::new(1));
        assert_eq!(roll_call.verdict(&supervisor, LATE_MS + 2), Verdict::Well { after_late: false });
        assert_eq!(roll_call.verdict(&supervisor, LATE_MS + 3), Verdict::Waiting);
    }
}
