//! What is wrong with a window: flags, and the search for a stuck sensor.

use serde::{Deserialize, Serialize};

/// Bits of a window's quality, in the order of [`FLAG_NAMES`].
pub(crate) mod flag {
    pub(crate) const GAP: u16 = 1 << 0;
    pub(crate) const LOW_COVERAGE: u16 = 1 << 1;
    pub(crate) const SATURATED: u16 = 1 << 2;
    pub(crate) const STUCK: u16 = 1 << 3;
    pub(crate) const NON_FINITE: u16 = 1 << 4;
    pub(crate) const RATE_OFF: u16 = 1 << 5;
    pub(crate) const CLOCK_ARRIVAL: u16 = 1 << 6;
    pub(crate) const CLOCK_DOUBTFUL: u16 = 1 << 7;
    pub(crate) const LATE: u16 = 1 << 8;
    pub(crate) const SETTLING: u16 = 1 << 9;
    pub(crate) const OVERRUN: u16 = 1 << 10;
    pub(crate) const SELF_TEST: u16 = 1 << 11;
    pub(crate) const RESTART: u16 = 1 << 12;
    pub(crate) const SYNTHETIC: u16 = 1 << 13;
    pub(crate) const BIAS_SHIFT: u16 = 1 << 14;

    /// Windows with any of these are neither learned by the baseline nor called good.
    pub(crate) const BAD: u16 =
        GAP | LOW_COVERAGE | SATURATED | STUCK | NON_FINITE | RATE_OFF | SELF_TEST | RESTART | BIAS_SHIFT;
}

/// Words in records, bit 0 first.
pub const FLAG_NAMES: [&str; 15] = [
    "gap",
    "low_coverage",
    "saturated",
    "stuck",
    "non_finite",
    "rate_off",
    "clock_arrival",
    "clock_doubtful",
    "late",
    "settling",
    "overrun",
    "self_test",
    "restart",
    "synthetic",
    "bias_shift",
];

/// Appends the flags' words as a JSON array.
pub(crate) fn write_flags(out: &mut String, flags: u16) {
    out.push('[');
    let mut separator = "";
    for (bit, name) in FLAG_NAMES.iter().enumerate() {
        if flags & (1 << bit) != 0 {
            out.push_str(separator);
            out.push('"');
            out.push_str(name);
            out.push('"');
            separator = ",";
        }
    }
    out.push(']');
}

/// Finds runs of equal samples of one channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Repeats {
    last: f32,
    /// Length of the run that `last` ends.
    run: u64,
}

impl Repeats {
    /// Whether a run of `least` equal samples or more ends or passes in `samples`. Each run that long covers one of the
    /// positions `least - 1`, `2 least - 1`, ..., so only their surroundings are looked at.
    pub(crate) fn has_run_of(&mut self, samples: &[f32], least: u64) -> bool {
        let Some(newest) = samples.last() else { return false };
        let lead = samples.iter().take_while(|s| **s == self.last).count() as u64;
        let before = if self.run > 0 { self.run + lead } else { 0 };
        if lead == samples.len() as u64 && self.run > 0 {
            self.run = before;
            return before >= least;
        }
        let trail = samples.iter().rev().take_while(|s| *s == newest).count() as u64;
        *self = Self { last: *newest, run: trail };
        if before >= least || trail >= least {
            return true;
        }
        let step = usize::try_from(least).unwrap_or(usize::MAX).max(1);
        let mut at = step - 1;
        while let Some(probe) = samples.get(at) {
            let back = samples[..at].iter().rev().take_while(|s| *s == probe).count();
            let on = samples[at..].iter().take_while(|s| *s == probe).count();
            if back + on >= step {
                return true;
            }
            at += step;
        }
        false
    }

    /// Forgets the run, after a gap.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However a signal is cut into slices, a run is found exactly when there is one.
        #[test]
        fn a_run_is_found_exactly_when_there_is_one(
            signal in prop::collection::vec(0_u8..3, 1..300), cuts in prop::collection::vec(1_usize..40, 1..40), least in 2_u64..12,
        ) {
            let signal: Vec<f32> = signal.into_iter().map(f32::from).collect();
            let longest = signal.chunk_by(|a, b| a == b).map(<[f32]>::len).max().unwrap_or(0) as u64;
            let mut repeats = Repeats::default();
            let mut rest = &signal[..];
            let mut found = false;
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (slice, after) = rest.split_at((*cuts.next().expect("endless")).min(rest.len()));
                found |= repeats.has_run_of(slice, least);
                rest = after;
            }
            prop_assert_eq!(found, longest >= least);
        }
    }

    #[test]
    fn flags_are_written_as_words() {
        let mut out = String::new();
        write_flags(&mut out, flag::GAP | flag::SETTLING | flag::SYNTHETIC);
        assert_eq!(out, r#"["gap","settling","synthetic"]"#);
    }
}
