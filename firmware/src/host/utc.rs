//! Where a virtual board has its UTC from.

use super::VirtualBoard;
use super::timebase::HostTime;
use crate::clock::{Exchange, TICK_HZ, UtcPair, UtcSource};
use spindle_common::id::BootId;
use spindle_common::wire::messages::TimeSource;
use std::time::{SystemTime, UNIX_EPOCH};

/// A virtual board shares the host's clock; this covers the time between two reads of it.
const UTC_ERROR_NS: u32 = 50_000;

/// Where a virtual board's UTC comes from.
pub(super) enum HostUtc<'t> {
    /// The host's clock: tick `zero` of the board was at `utc_start_ns`.
    Host { time: &'t HostTime, zero: u64, utc_start_ns: i64, error_ns: u32 },
    /// The gateway, as for a board without a time server.
    Gateway(Exchange),
}

impl<'t> HostUtc<'t> {
    /// As the board's description says.
    pub(super) fn new(spec: &VirtualBoard, boot: BootId, time: &'t HostTime) -> Self {
        if spec.asks_time {
            return Self::Gateway(Exchange::new(boot));
        }
        let utc_start_ns = spec.utc_start_ns.unwrap_or_else(utc_now_ns);
        Self::Host { time, zero: time.zero(), utc_start_ns, error_ns: UTC_ERROR_NS }
    }
}

impl UtcSource for HostUtc<'_> {
    fn pair(&mut self) -> Option<UtcPair> {
        let (time, zero, utc_start_ns, error_ns) = match self {
            Self::Host { time, zero, utc_start_ns, error_ns } => (time, *zero, *utc_start_ns, *error_ns),
            Self::Gateway(exchange) => return exchange.pair(),
        };
        let tick = time.newest().max(zero);
        let since = i64::try_from(u128::from(tick - zero) * 1_000_000_000 / u128::from(TICK_HZ)).ok()?;
        let utc_ns = utc_start_ns.checked_add(since)?;
        Some(UtcPair { tick, utc_ns, error_ns, source: TimeSource::Host })
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        match self {
            Self::Host { .. } => None,
            Self::Gateway(exchange) => Some(exchange),
        }
    }
}

fn utc_now_ns() -> i64 {
    #[allow(clippy::disallowed_methods, reason = "a virtual board's UTC is the host's")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
