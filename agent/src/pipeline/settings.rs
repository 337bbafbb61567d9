//! The configuration as the pipeline uses it, with the versions that results carry.

use super::lines::MachineLines;
use crate::alert::Rule;
use crate::config::Config;
use crate::record::SensorKey;
use spindle_common::dsp::fft::{is_len, next_len};
use std::collections::BTreeMap;
use std::time::Duration;

/// Fewest samples of a window.
const WINDOW_LEN_MIN: u64 = 16;

/// Prime factors of the downsampling factor: what the decimator's stages can do.
const FACTOR_PRIMES: [u64; 4] = [2, 3, 5, 7];

/// A corner above this share of the rate leaves too little above it for a value.
const HIGH_FREQUENCY_MAX: f64 = 0.4;

/// Most lines of a spectrum, over all axes: with the largest of each they make a record of about half a megabyte.
const LINES_MAX: usize = 20_480;

/// Largest downsampling factor.
const FACTOR_MAX: u64 = 256;

/// Derived once from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) pipeline: crate::config::Pipeline,
    pub(crate) anomaly: crate::config::Anomaly,
    pub(crate) rules: Vec<Rule>,
    /// By name.
    machines: BTreeMap<String, MachineLines>,
    /// Version of everything that results depend on: in records and ids.
    pub(crate) version: String,
    /// Version of what the filters', windows' and rollups' state depends on.
    pub(crate) signal_version: u64,
    /// Version of what the baseline depends on.
    pub(crate) baseline_version: u64,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        let pipeline = serde_json::to_string(&config.pipeline).unwrap_or_default();
        let anomaly = serde_json::to_string(&config.anomaly).unwrap_or_default();
        let rules = serde_json::to_string(&config.rules).unwrap_or_default();
        let mappings = serde_json::to_string(&config.source.json).unwrap_or_default();
        let machines: BTreeMap<String, MachineLines> = config
            .machines
            .iter()
            .filter(|_| config.pipeline.spectrum.enabled)
            .filter_map(|(name, machine)| Some((name.clone(), MachineLines::new(machine)?)))
            .collect();
        // What of the machines' files goes into results; nothing where there are none.
        let facts = if machines.is_empty() { String::new() } else { format!("{machines:?}") };
        let signal_version = fnv1a(&[&pipeline, &facts]);
        // What the baseline does not look at may change without its forgetting what it knows.
        let defaults = crate::config::Pipeline::default();
        let baseline = crate::config::Pipeline {
            displacement_band_hz: defaults.displacement_band_hz,
            high_frequency_hz: defaults.high_frequency_hz,
            bands: defaults.bands,
            spectrum: defaults.spectrum,
            ..config.pipeline.clone()
        };
        let baseline = serde_json::to_string(&baseline).unwrap_or_default();
        Self {
            pipeline: config.pipeline.clone(),
            anomaly: config.anomaly.clone(),
            rules: config.rules.iter().filter_map(|rule| Rule::new(rule, &config.pipeline.bands)).collect(),
            version: format!("{:016x}", fnv1a(&[&pipeline, &anomaly, &rules, &mappings, &facts])),
            machines,
            signal_version,
            baseline_version: fnv1a(&[&baseline, &anomaly]),
        }
    }

    /// Whether high-frequency acceleration can be measured at a rate.
    pub(crate) fn has_high_frequency(&self, rate_hz: f64) -> bool {
        self.pipeline.high_frequency_hz <= HIGH_FREQUENCY_MAX * rate_hz
    }

    /// The lines of a sensor's machine, where there are any and something is known of its speed.
    pub(crate) fn machine(&self, key: &SensorKey) -> Option<&MachineLines> {
        self.machines.get(&*key.machine)
    }

    /// Samples of a segment of a spectrum, for a window of so many samples.
    pub(crate) fn segment_len(&self, window_len: u64, rate_nominal_hz: f64, axes: usize) -> usize {
        let of_record = 2 * (LINES_MAX / axes.max(1) - 1);
        let most = usize::try_from(window_len).unwrap_or(usize::MAX).min(of_record);
        let wanted = libm::ceil(rate_nominal_hz / self.pipeline.spectrum.resolution_hz) as usize;
        let power = 1 << most.max(1).ilog2();
        let longest = if is_len(power / 2 * 3) && power / 2 * 3 <= most { power / 2 * 3 } else { power };
        next_len(wanted.min(most)).map_or(longest, |len| len.min(longest))
    }

    /// How a stream of this shape is cut.
    pub(crate) fn cut(&self, rate_nominal_hz: f64) -> Cut {
        let samples = |length: Duration| {
            let samples = libm::round(length.as_secs_f64() * rate_nominal_hz) as u64;
            samples.max(WINDOW_LEN_MIN)
        };
        Cut {
            window_len: samples(self.pipeline.window),
            rollup_len: samples(self.pipeline.rollup),
            factor: downsampling_factor(rate_nominal_hz, self.pipeline.downsample_hz),
        }
    }
}

/// Lengths in samples, from the nominal rate, so that they never change within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) window_len: u64,
    pub(crate) rollup_len: u64,
    pub(crate) factor: u32,
}

/// Largest product of 2, 3, 5 and 7, at most 256, that leaves at least the target rate; a lone 7 is left out, since the last stage
/// has a factor of 2, 3 or 5.
fn downsampling_factor(rate_hz: f64, target_hz: f64) -> u32 {
    let most = ((rate_hz / target_hz) as u64).clamp(1, FACTOR_MAX);
    let smooth = |factor: &u64| {
        let mut rest = *factor;
        for prime in FACTOR_PRIMES {
            while rest.is_multiple_of(prime) {
                rest /= prime;
            }
        }
        rest == 1 && (*factor == 1 || [2, 3, 5].iter().any(|prime| factor.is_multiple_of(*prime)))
    };
    (1..=most).rev().find(smooth).unwrap_or(1) as u32
}

/// FNV-1a, 64 bits, with a separator after each part. Names versions; guards nothing.
pub(crate) fn fnv1a(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_downsampling_factor_keeps_at_least_the_target_rate() {
        assert_eq!(downsampling_factor(26_667.0, 100.0), 256);
        assert_eq!(downsampling_factor(2000.0, 100.0), 20);
        assert_eq!(downsampling_factor(50.0, 100.0), 1);
        assert_eq!(downsampling_factor(700.0, 100.0), 6);
        for target in 1..400 {
            let factor = downsampling_factor(26_667.0, f64::from(target));
            assert!(26_667.0 / f64::from(factor) >= f64::from(target));
            assert!(spindle_common::dsp::Decimator::new(factor).is_ok(), "factor {factor}");
        }
    }

    #[test]
    fn windows_are_whole_numbers_of_samples_at_the_nominal_rate() {
        let settings = Settings::new(&crate::pipeline::tests::config());
        assert_eq!(settings.cut(26_667.0), Cut { window_len: 26_667, rollup_len: 26_667, factor: 256 });
        assert_eq!(settings.cut(0.5).window_len, WINDOW_LEN_MIN);
    }

    #[test]
    fn a_segment_has_the_resolution_that_window_and_record_leave_room_for() {
        let mut config = crate::pipeline::tests::config();
        let len = |config: &Config, window_len, rate_hz, axes| {
            Settings::new(config).segment_len(window_len, rate_hz, axes)
        };
        assert_eq!(len(&config, 26_667, 26_667.0, 3), 8192);
        assert_eq!(len(&config, 2667, 26_667.0, 3), 2048);
        assert_eq!(len(&config, 16, 2.0, 1), 16);
        config.pipeline.spectrum.resolution_hz = 0.1;
        assert_eq!(len(&config, 26_667, 26_667.0, 1), 24_576);
        assert_eq!(len(&config, 26_667, 26_667.0, 3), 12_288);
        for axes in 1..=8 {
            for window_len in 16..3000 {
                let len = len(&config, window_len, 26_667.0, axes);
                assert!(is_len(len) && len as u64 <= window_len, "{len} of {window_len}");
            }
            assert!((len(&config, u64::MAX, 1e6, axes) / 2 + 1) * axes <= LINES_MAX);
        }
    }

    #[test]
    fn every_part_of_the_configuration_that_matters_changes_the_version() {
        let config = crate::pipeline::tests::config();
        let version = |config: &Config| Settings::new(config).version;
        let mut other = config.clone();
        other.pipeline.downsample_hz = 50.0;
        assert_ne!(version(&config), version(&other));
        let mut other = config.clone();
        other.anomaly.history_windows = 3;
        assert_ne!(version(&config), version(&other));
        let mut other = config.clone();
        other.log.level = "debug".into();
        assert_eq!(version(&config), version(&other));
    }
}
