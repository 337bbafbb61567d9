//! What the demo shows: all of it read back from Kafka, so that nothing is shown that did not go all the way.

use std::collections::VecDeque;

/// Levels kept for the trend.
pub(super) const TREND_LEN: usize = 28;
/// Events kept for the screen.
const EVENTS_MAX: usize = 100;

/// One machine on the screen.
#[derive(Debug, Clone, Default)]
pub(super) struct MachineView {
    pub(super) name: String,
    /// `site/machine/sensor`.
    pub(super) key: String,
    pub(super) link_down: bool,
    /// Newest levels, the worst axis of each; none before the first window.
    pub(super) levels: Option<Levels>,
    /// Newest acceleration RMS values, oldest first, m/s².
    pub(super) trend: VecDeque<f64>,
    pub(super) alert: bool,
}

/// The worst axis of each measure.
#[derive(Debug, Clone, Default)]
pub(super) struct Levels {
    /// m/s².
    pub(super) rms: f64,
    /// m/s².
    pub(super) peak: f64,
    /// mm/s, 10-1000 Hz.
    pub(super) velocity: f64,
    pub(super) kurtosis: f64,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// Seconds since the demo's start.
    pub(super) at_s: u64,
    pub(super) text: String,
    pub(super) important: bool,
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) machines: Vec<MachineView>,
    /// In order of time.
    pub(super) events: VecDeque<Event>,
    /// Events since the start, to tell which are new.
    pub(super) events_total: u64,
    pub(super) raw: u64,
    pub(super) features: u64,
    pub(super) alerts: u64,
    pub(super) dead: u64,
    pub(super) alerts_raised: u64,
    /// Samples per channel compared with what the models produced.
    pub(super) compared: u64,
    pub(super) different: u64,
    pub(super) missing: u64,
    pub(super) repeated: u64,
    /// Samples per channel that the models have produced.
    pub(super) produced: u64,
}

impl View {
    pub(super) fn event(&mut self, at_s: u64, important: bool, text: String) {
        self.events.push_back(Event { at_s, text, important });
        self.events_total += 1;
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    pub(super) fn machine(&mut self, key: &str) -> Option<&mut MachineView> {
        self.machines.iter_mut().find(|machine| machine.key == key)
    }

    /// Samples per channel under way: produced by the models and not yet seen in Kafka.
    pub(super) fn waiting(&self) -> u64 {
        self.produced.saturating_sub(self.compared + self.missing)
    }

    /// Books the newest features record of a sensor.
    pub(super) fn features_record(&mut self, key: &str, record: &serde_json::Value) {
        let axes = record["axes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let worst = |name: &str| axes.iter().filter_map(|axis| axis[name].as_f64()).reduce(f64::max);
        let Some(rms) = worst("acceleration_rms") else { return };
        let levels = Levels {
            rms,
            peak: worst("peak").unwrap_or_default(),
            velocity: worst("velocity_rms").unwrap_or_default(),
            kurtosis: worst("kurtosis").unwrap_or_default(),
        };
        if let Some(machine) = self.machine(key) {
            machine.levels = Some(levels);
            machine.trend.push_back(rms);
            while machine.trend.len() > TREND_LEN {
                machine.trend.pop_front();
            }
        }
    }

    /// Books a change of an alert.
    pub(super) fn alert_record(&mut self, at_s: u64, key: &str, record: &serde_json::Value) {
        let text = |name: &str| record[name].as_str().unwrap_or("?").to_owned();
        let active = record["active"].as_bool().unwrap_or(false);
        if let Some(machine) = self.machine(key) {
            machine.alert = active;
        }
        self.alerts_raised += u64::from(active);
        let value = record["value"].as_f64().unwrap_or_default();
        let limit = record["limit"]["above"].as_f64().unwrap_or_default();
        let event = if active { "ALERT raised" } else { "alert over" };
        let sign = if active { ">" } else { "limit" };
        let line = format!(
            "{event}: {key} {} {} {value:.1} {sign} {limit:.1} {}",
            text("axis"),
            text("feature"),
            text("unit")
        );
        self.event(at_s, active, line);
    }
}

/// 26667 → "26,667".
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            [0, 12, 999, 1_000, 26_667, 1_234_567].map(grouped),
            ["0", "12", "999", "1,000", "26,667", "1,234,567"]
        );
    }
}
