//! Time on the node: ticks, and (tick, UTC) pairs. Samples are stamped in ticks; the gateway fits ticks to UTC.

use embassy_time::{Instant, Timer};
use spindle_common::wire::messages::TimeSource;

/// Ticks per second, nominal.
#[allow(clippy::cast_possible_truncation, reason = "no board's time driver ticks at 4 GHz")]
pub const TICK_HZ: u32 = embassy_time::TICK_HZ as u32;

/// The tick counter that stamps samples. One on a board ([`BoardTime`]); a virtual board may run faster than time.
#[allow(async_fn_in_trait, reason = "tasks of one board run on one executor and need no Send")]
pub trait Timebase {
    /// Ticks since boot; never goes back.
    fn now(&self) -> u64;
    /// Waits until the counter reaches `tick`.
    async fn until(&self, tick: u64);
}

impl<T: Timebase> Timebase for &T {
    fn now(&self) -> u64 {
        (**self).now()
    }

    async fn until(&self, tick: u64) {
        (**self).until(tick).await;
    }
}

/// The board's own counter: embassy-time's.
#[derive(Debug, Clone, Copy, Default)]
pub struct BoardTime;

impl Timebase for BoardTime {
    fn now(&self) -> u64 {
        Instant::now().as_ticks()
    }

    async fn until(&self, tick: u64) {
        Timer::at(Instant::from_ticks(tick)).await;
    }
}

/// UTC and the tick counter at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtcPair {
    /// Tick counter.
    pub tick: u64,
    /// UTC, ns since 1970.
    pub utc_ns: i64,
    /// Bound of the error, ns.
    pub error_ns: u32,
    /// Where it came from.
    pub source: TimeSource,
}

/// Where a node learns UTC: SNTP, PTP, the gateway, or the host's clock.
pub trait UtcSource {
    /// The newest pair, if any is known yet.
    fn pair(&mut self) -> Option<UtcPair>;
}

/// A node that knows no UTC; its samples are anchored by the gateway.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoUtc;

impl UtcSource for NoUtc {
    fn pair(&mut self) -> Option<UtcPair> {
        None
    }
}
