//! What is measured besides the fixed features: bands and spectra.

use super::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A band whose acceleration RMS is a value of its own, named `band:NAME` in rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// Name.
    pub name: String,
    /// Lower edge, Hz.
    pub low_hz: f64,
    /// Upper edge, Hz; cut at half the sample rate.
    pub high_hz: f64,
}

/// Averaged spectra, a record each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spectrum {
    /// Whether there are any. Bands do without.
    pub enabled: bool,
    /// Time from one to the next; a whole number of windows is made of it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub every: Duration,
    /// Time over which each is averaged, up to its end; a whole number of windows, at most `every`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "schema::DurationText")]
    pub average: Duration,
    /// Distance of lines wanted, Hz; also of the spectra that bands are taken from. Finer than one over the window there is none.
    pub resolution_hz: f64,
    /// What the lines are.
    pub quantity: Quantity,
    /// Whether the largest of each line goes with the average.
    pub peak_hold: bool,
    /// Band whose envelope is looked at for bearings' lines, Hz. Without it, the band in which an axis is most impulsive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_band_hz: Option<[f64; 2]>,
}

/// What a spectrum's lines are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Power spectral density, (m/s²)²/Hz.
    #[default]
    Psd,
    /// Peak amplitude, m/s².
    Amplitude,
}

impl Default for Spectrum {
    fn default() -> Self {
        Self {
            enabled: true,
            every: Duration::from_secs(60),
            average: Duration::from_secs(10),
            resolution_hz: 4.0,
            quantity: Quantity::Psd,
            peak_hold: true,
            envelope_band_hz: None,
        }
    }
}
