//! The supervisor: each task checks in; the watchdog is fed only when all of them have.

use core::sync::atomic::{AtomicU32, Ordering};

/// Most tasks that one supervisor can watch.
pub const TASKS_MAX: usize = 32;

/// Check-ins of a board's tasks since the watchdog was last fed. Lives in a `static`.
#[derive(Debug)]
pub struct Supervisor {
    seen: AtomicU32,
    expected: u32,
}

/// One task's place in the roll call.
#[derive(Debug, Clone, Copy)]
pub struct TaskId(u8);

impl TaskId {
    /// The task with this number, 0 to 31; higher numbers count as 31.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(if number < 32 { number } else { 31 })
    }
}

impl Supervisor {
    /// Watches the tasks numbered below `tasks` (at most [`TASKS_MAX`]).
    #[must_use]
    pub const fn new(tasks: u8) -> Self {
        let expected = if tasks >= 32 { u32::MAX } else { (1u32 << tasks) - 1 };
        Self { seen: AtomicU32::new(0), expected }
    }

    /// A task says that it is alive. Call it from the task's own loop, never from a timer.
    pub fn check_in(&self, task: TaskId) {
        self.seen.fetch_or(1 << task.0, Ordering::AcqRel);
    }

    /// Whether every task has checked in since this last returned true. The caller feeds the watchdog exactly then.
    pub fn may_feed(&self) -> bool {
        if self.seen.load(Ordering::Acquire) & self.expected != self.expected {
            return false;
        }
        self.seen.store(0, Ordering::Release);
        true
    }

    /// Bits of the tasks that have not checked in: what to write into the last words before a reset.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.expected & !self.seen.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_only_when_every_task_has_checked_in() {
        let supervisor = Supervisor::new(3);
        supervisor.check_in(TaskId::new(0));
        supervisor.check_in(TaskId::new(2));
        assert!(!supervisor.may_feed());
        assert_eq!(supervisor.missing(), 0b010);
        supervisor.check_in(TaskId::new(1));
        assert!(supervisor.may_feed());
        assert!(!supervisor.may_feed(), "each feeding needs a new roll call");
    }
}
