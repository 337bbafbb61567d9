//! Time on the node: ticks, and (tick, UTC) pairs. Samples are stamped in ticks; the gateway fits ticks to UTC.

pub mod exchange;
pub mod sntp;

pub use exchange::Exchange;
pub use sntp::NewestPair;

use embassy_sync::blocking_mutex::raw::RawMutex;
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

    /// The exchange with the gateway, where that is the source: the uplink runs it.
    fn exchange(&mut self) -> Option<&mut Exchange> {
        None
    }
}

/// One exchange of four time stamps with a clock that knows UTC, as NTP does it (RFC 5905, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    /// Tick at which the question went out.
    pub asked: u64,
    /// UTC at which it came in, ns since 1970.
    pub received_ns: i64,
    /// UTC at which the answer went out.
    pub sent_ns: i64,
    /// Tick at which it came in.
    pub answered: u64,
}

/// A round trip that took longer is worth nothing.
pub(crate) const ROUND_TRIP_MAX_NS: i64 = 2_000_000_000;

/// Why a round trip tells no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It took more than two seconds.
    #[error("the answer took more than 2 s")]
    Slow,
    /// The other side says that it held the question for longer than the whole took, or for less than nothing.
    #[error("the answer's times contradict the tick counter")]
    Inconsistent,
}

impl RoundTrip {
    /// The pair in its middle, and the time that question and answer were under way. `error_ns` is the other clock's.
    pub(crate) fn pair(&self, error_ns: u32, source: TimeSource) -> Result<(UtcPair, i64), Doubt> {
        let tick_ns = i64::from(1_000_000_000u32.div_ceil(TICK_HZ));
        let round = self.answered.checked_sub(self.asked).ok_or(Doubt::Inconsistent)?;
        let round_ns = i64::try_from(u128::from(round) * 1_000_000_000 / u128::from(TICK_HZ));
        let round_ns = round_ns.unwrap_or(i64::MAX);
        if round_ns > ROUND_TRIP_MAX_NS {
            return Err(Doubt::Slow);
        }
        let hold_ns = self.sent_ns.checked_sub(self.received_ns).ok_or(Doubt::Inconsistent)?;
        if hold_ns < 0 || hold_ns > round_ns + 2 * tick_ns {
            return Err(Doubt::Inconsistent);
        }
        let way_ns = (round_ns - hold_ns).max(0);
        // Both ticks are read to a tick, and their middle is rounded.
        let bound = way_ns / 2 + i64::from(error_ns) + 2 * tick_ns;
        let pair = UtcPair {
            tick: self.asked + round / 2,
            utc_ns: self.received_ns + hold_ns / 2,
            error_ns: u32::try_from(bound).unwrap_or(u32::MAX),
            source,
        };
        Ok((pair, way_ns))
    }
}

/// Where a board has its time from, by its node's file.
pub enum BoardUtc<'a, M: RawMutex> {
    /// From the gateway, in an exchange of messages.
    Gateway(Exchange),
    /// From a time server, by the task that asks it.
    Server(&'a NewestPair<M>),
}

impl<M: RawMutex> UtcSource for BoardUtc<'_, M> {
    fn pair(&mut self) -> Option<UtcPair> {
        match self {
            Self::Gateway(exchange) => exchange.pair(),
            Self::Server(newest) => newest.pair(),
        }
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        match self {
            Self::Gateway(exchange) => exchange.exchange(),
            Self::Server(_) => None,
        }
    }
}
