//! The one place that reads the wall clock and the monotonic clock; everything else is handed a [`Clock`].
#![allow(clippy::disallowed_methods, reason = "this is the place that the ban points to")]

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment: UTC and monotonic time, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// UTC in ns since 1970. May jump.
    pub utc_ns: i64,
    /// ns since some start. Never goes back.
    pub mono_ns: u64,
}

impl Now {
    /// Monotonic time passed since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.mono_ns.saturating_sub(earlier.mono_ns))
    }
}

/// The injected clock: the system's, or one that a test moves.
#[derive(Debug, Clone)]
pub struct Clock(Inner);

#[derive(Debug, Clone)]
enum Inner {
    System(Instant),
    Manual(Arc<Mutex<Now>>),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Inner::System(Instant::now()))
    }

    /// A clock that only [`Clock::advance`] moves.
    #[must_use]
    pub fn manual(utc_ns: i64) -> Self {
        Self(Inner::Manual(Arc::new(Mutex::new(Now { utc_ns, mono_ns: 0 }))))
    }

    /// The moment.
    #[must_use]
    pub fn now(&self) -> Now {
        match &self.0 {
            Inner::System(start) => {
                let utc_ns = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
                let mono_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                Now { utc_ns, mono_ns }
            }
            Inner::Manual(now) => *now.lock(),
        }
    }

    /// Sets a manual clock's UTC, as an administrator or a time server does, or a leap second; does nothing to the system's.
    pub fn set_utc(&self, utc_ns: i64) {
        if let Inner::Manual(now) = &self.0 {
            now.lock().utc_ns = utc_ns;
        }
    }

    /// Moves a manual clock on; does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Inner::Manual(now) = &self.0 {
            let mut now = now.lock();
            let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            now.mono_ns = now.mono_ns.saturating_add(by_ns);
            now.utc_ns = now.utc_ns.saturating_add(i64::try_from(by_ns).unwrap_or(i64::MAX));
        }
    }
}
