//! From samples to features: a pure library without I/O.

pub(crate) mod json;

/// A measured value that records carry and rules can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Name in records and rules.
    pub name: &'static str,
    /// Unit, as written in records and rules.
    pub unit: &'static str,
    /// How it is computed.
    pub detector: &'static str,
}

/// Every value of a features record that a rule can name, in the records' order. `RECORDS.md` defines each.
pub const FEATURES: [Feature; 8] = [
    Feature { name: "acceleration_rms", unit: "m/s2", detector: "rms" },
    Feature { name: "peak", unit: "m/s2", detector: "peak" },
    Feature { name: "peak_to_peak", unit: "m/s2", detector: "peak_to_peak" },
    Feature { name: "crest", unit: "1", detector: "peak/rms" },
    Feature { name: "kurtosis", unit: "1", detector: "pearson_kurtosis" },
    Feature { name: "velocity_rms", unit: "mm/s", detector: "rms" },
    Feature { name: "mean", unit: "m/s2", detector: "mean" },
    Feature { name: "anomaly_score", unit: "1", detector: "robust_z" },
];
