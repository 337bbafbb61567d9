//! Limit alerts: a pure state machine on event time, in the words of OPC UA Part 9 and ISA-18.2.
//!
//! A condition becomes *active* when the value has stayed above the limit for the on-delay, and returns to normal when the value
//! falls to the limit less the deadband. This is monitoring, not machine protection.
//!
//! - Evidence is windows, not clock time: the on-delay is reached when windows above the limit add up to it without one at or below
//!   the limit between them. A window without a value (a gap, a filter that has not settled) is no evidence either way; after a
//!   hole longer than the on-delay the count starts again.
//! - An alert's id is made of sensor, axis, rule and the start of the first window above the limit, so that live processing, a
//!   restart and replay give the same id.

mod record;

pub use record::{AlertContext, write_alert};

use crate::config::{Band, LimitRule, Severity};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The span of event time that a value stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its start, UTC ns.
    pub start_ns: i64,
    /// Its end, UTC ns.
    pub end_ns: i64,
}

/// Where the condition of one rule on one axis is. Saved with the sensor's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// At or below the limit.
    #[default]
    Normal,
    /// Above the limit, but not yet for the on-delay.
    Pending {
        /// Start of the first window above the limit.
        since_ns: i64,
        /// Sum of the windows above it.
        above_ns: i64,
        /// End of the last of them.
        last_ns: i64,
    },
    /// Active: an alert stands.
    Active {
        /// Start of the first window above the limit: when it truly began.
        since_ns: i64,
        /// When the on-delay was over.
        raised_ns: i64,
        /// Highest value since it was raised.
        highest: f32,
    },
}

/// A change that goes out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// What happened.
    pub event: Event,
    /// Start of the first window above the limit.
    pub since_ns: i64,
    /// When the alert was raised.
    pub raised_ns: i64,
    /// When this change happened.
    pub at_ns: i64,
    /// Value that made the change; `None` when the rule was withdrawn.
    pub value: Option<f32>,
    /// Highest value since the alert was raised.
    pub highest: f32,
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The condition became active.
    Raised,
    /// It returned to normal.
    Cleared,
    /// Its rule no longer covers this axis; it is cleared without a value.
    Withdrawn,
}

impl Event {
    /// The word in records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Cleared => "cleared",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// A limit rule as it is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name.
    pub name: Arc<str>,
    /// Index into [`crate::pipeline::FEATURES`], beyond them into the configured bands; of a band that is no more, none of either.
    pub feature: usize,
    /// As configured.
    pub config: LimitRule,
    on_delay_ns: i64,
}

impl Rule {
    /// Prepares a rule; `None` if its feature or unit is unknown (`validate` says why). A rule on a band that is not among `bands`
    /// never has a value, but an alert that stands can be withdrawn under it.
    #[must_use]
    pub fn new(config: &LimitRule, bands: &[Band]) -> Option<Self> {
        let features = &crate::pipeline::FEATURES;
        let feature = match config.feature.strip_prefix(crate::pipeline::BAND_PREFIX) {
            Some(name) if config.unit == crate::pipeline::BAND_UNIT => {
                let place = bands.iter().position(|band| band.name == name);
                place.map_or(usize::MAX, |place| features.len() + place)
            }
            Some(_) => return None,
            None => features.iter().position(|f| f.name == config.feature && f.unit == config.unit)?,
        };
        let on_delay_ns = i64::try_from(config.on_delay.as_nanos()).unwrap_or(i64::MAX);
        Some(Self { name: config.name.as_str().into(), feature, config: config.clone(), on_delay_ns })
    }

    /// Whether the rule covers the sensor `site/machine/sensor`.
    #[must_use]
    pub fn covers_sensor(&self, key: &crate::record::SensorKey) -> bool {
        let mut patterns = self.config.sensor.split('/');
        let parts = [&key.site, &key.machine, &key.sensor];
        parts.iter().all(|part| patterns.next().is_some_and(|pattern| pattern == "*" || pattern == &***part))
            && patterns.next().is_none()
    }

    /// Whether the rule covers the axis.
    #[must_use]
    pub fn covers_axis(&self, axis: &str) -> bool {
        self.config.axis == "*" || self.config.axis == axis
    }
}

/// OPC UA severity, 1 to 1000, of a priority (the ranges of Part 9's table are its own; these are their middles).
#[must_use]
pub const fn opcua_severity(severity: Severity) -> u16 {
    match severity {
        Severity::Advisory => 200,
        Severity::Warning => 500,
        Severity::Alarm => 800,
    }
}

impl Phase {
    /// Takes the next window's value; returns the change that it makes, if any.
    pub fn step(&mut self, rule: &Rule, span: Span, value: Option<f32>) -> Option<Change> {
        let value = value?;
        let limit = rule.config.above;
        let length_ns = span.end_ns.saturating_sub(span.start_ns).max(0);
        let above = f64::from(value) > limit;
        match *self {
            Self::Normal if above => {
                self.pend(rule, span, value, Pending { since_ns: span.start_ns, above_ns: length_ns })
            }
            Self::Normal => None,
            Self::Pending { .. } if !above => {
                *self = Self::Normal;
                None
            }
            Self::Pending { since_ns, above_ns, last_ns } => {
                let hole_ns = span.start_ns.saturating_sub(last_ns);
                let pending = if hole_ns > rule.on_delay_ns {
                    Pending { since_ns: span.start_ns, above_ns: length_ns }
                } else {
                    Pending { since_ns, above_ns: above_ns.saturating_add(length_ns) }
                };
                self.pend(rule, span, value, pending)
            }
            Self::Active { since_ns, raised_ns, highest } => {
                let highest = highest.max(value);
                if f64::from(value) > limit - rule.config.deadband {
                    *self = Self::Active { since_ns, raised_ns, highest };
                    return None;
                }
                *self = Self::Normal;
                let value = Some(value);
                Some(Change {
                    event: Event::Cleared,
                    since_ns,
                    raised_ns,
                    at_ns: span.end_ns,
                    value,
                    highest,
                })
            }
        }
    }

    /// Ends an alert whose rule no longer covers the axis.
    pub fn withdraw(&mut self, at_ns: i64) -> Option<Change> {
        let was = std::mem::take(self);
        let Self::Active { since_ns, raised_ns, highest } = was else { return None };
        Some(Change { event: Event::Withdrawn, since_ns, raised_ns, at_ns, value: None, highest })
    }

    fn pend(&mut self, rule: &Rule, span: Span, value: f32, pending: Pending) -> Option<Change> {
        let Pending { since_ns, above_ns } = pending;
        if above_ns < rule.on_delay_ns {
            *self = Self::Pending { since_ns, above_ns, last_ns: span.end_ns };
            return None;
        }
        let raised_ns = span.end_ns;
        *self = Self::Active { since_ns, raised_ns, highest: value };
        let value_now = Some(value);
        Some(Change {
            event: Event::Raised,
            since_ns,
            raised_ns,
            at_ns: raised_ns,
            value: value_now,
            highest: value,
        })
    }
}

struct Pending {
    since_ns: i64,
    above_ns: i64,
}

#[cfg(test)]
mod tests;
