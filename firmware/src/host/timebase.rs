//! A virtual board's tick counter: real, scaled, or as fast as its samples are wanted.

use crate::clock::{BoardTime, Timebase};
use core::cell::Cell;
use embassy_time::{Duration, Instant, Timer};
use std::rc::Rc;

/// How fast a virtual board's time runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As on a board.
    Real,
    /// So many times faster.
    Factor(f64),
    /// As fast as the uplink takes the samples: a full ring makes sampling wait instead of dropping.
    Full,
}

/// See [`Speed`]. Each sensor of a board at full speed has one of its own, so that none waits for another.
#[derive(Debug)]
pub(crate) enum HostTime {
    Real(BoardTime),
    Scaled {
        start: Instant,
        factor: f64,
    },
    /// `newest` is the latest of all sensors of the board.
    OnDemand {
        now: Cell<u64>,
        newest: Rc<Cell<u64>>,
    },
}

impl HostTime {
    pub(crate) fn new(speed: Speed, newest: Rc<Cell<u64>>) -> Self {
        match speed {
            Speed::Real => Self::Real(BoardTime),
            Speed::Factor(factor) => Self::Scaled { start: Instant::now(), factor: factor.clamp(1e-3, 1e6) },
            Speed::Full => Self::OnDemand { now: Cell::new(0), newest },
        }
    }

    /// The newest tick that any sensor of the board has seen.
    pub(crate) fn newest(&self) -> u64 {
        match self {
            Self::OnDemand { newest, .. } => newest.get(),
            Self::Real(_) | Self::Scaled { .. } => self.now(),
        }
    }

    /// Tick at which this board's time begins.
    pub(crate) fn zero(&self) -> u64 {
        match self {
            Self::Real(time) => time.now(),
            Self::Scaled { .. } | Self::OnDemand { .. } => 0,
        }
    }
}

impl Timebase for HostTime {
    fn now(&self) -> u64 {
        match self {
            Self::Real(time) => time.now(),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
            Self::Scaled { start, factor } => (start.elapsed().as_ticks() as f64 * factor) as u64,
            Self::OnDemand { now, .. } => now.get(),
        }
    }

    async fn until(&self, tick: u64) {
        match self {
            Self::Real(time) => time.until(tick).await,
            Self::Scaled { factor, .. } => {
                let left = tick.saturating_sub(self.now()) as f64 / factor;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
                Timer::after(Duration::from_ticks(left.ceil() as u64)).await;
            }
            Self::OnDemand { now, newest } => {
                now.set(now.get().max(tick));
                newest.set(newest.get().max(tick));
            }
        }
    }
}
