//! What is measured of a window: names, units, and the bands that values cover.

use super::json;
use super::sensor::Design;
use super::settings::Settings;
use spindle_common::dsp::Displacement;
use std::fmt::Write;

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

/// Every value of a features record that a rule can name, in the records' order, besides the configured bands. `RECORDS.md`
/// defines each.
pub const FEATURES: [Feature; 11] = [
    Feature { name: "acceleration_rms", unit: "m/s2", detector: "rms" },
    Feature { name: "peak", unit: "m/s2", detector: "peak" },
    Feature { name: "peak_to_peak", unit: "m/s2", detector: "peak_to_peak" },
    Feature { name: "crest", unit: "1", detector: "peak/rms" },
    Feature { name: "kurtosis", unit: "1", detector: "pearson_kurtosis" },
    Feature { name: "velocity_rms", unit: "mm/s", detector: "rms" },
    Feature { name: "mean", unit: "m/s2", detector: "mean" },
    Feature { name: "anomaly_score", unit: "1", detector: "robust_z" },
    Feature { name: "skewness", unit: "1", detector: "skewness" },
    Feature { name: "displacement_peak_to_peak", unit: "um", detector: "peak_to_peak" },
    Feature { name: "high_frequency_rms", unit: "m/s2", detector: "rms" },
];

/// Index of the anomaly score in [`FEATURES`].
pub(crate) const SCORE: usize = 7;

/// Most bands that can be configured.
pub const BANDS_MAX: usize = 16;

/// What a rule puts before a band's name.
pub const BAND_PREFIX: &str = "band:";

/// Unit of a band's value.
pub const BAND_UNIT: &str = "m/s2";

/// How a band's value is computed.
pub const BAND_DETECTOR: &str = "rms";

/// One axis's values: [`FEATURES`], then the bands in the order of the configuration.
pub(crate) type AxisValues = [Option<f32>; FEATURES.len() + BANDS_MAX];

/// No value of any.
pub(crate) const NO_VALUES: AxisValues = [None; FEATURES.len() + BANDS_MAX];

/// What a window's values were made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Making {
    pub(crate) design: Design,
    /// The node computed them: it knows none of what is configured here.
    pub(crate) by_node: bool,
    /// Samples of a spectrum's segment; 0 where there is none.
    pub(crate) segment_len: usize,
}

/// The static part of features records: what each value is.
pub(crate) fn describe_measures(settings: &Settings, window_s: f64, making: Making) -> String {
    let mut out = String::from("{");
    for (i, feature) in FEATURES.iter().enumerate() {
        let separator = if i == 0 { "" } else { "," };
        let _ = write!(out, "{separator}\"{}\":{{\"unit\":\"{}\",\"band_hz\":", feature.name, feature.unit);
        out.push_str(&band_text(band_of(settings, i, making)));
        let _ = write!(out, ",\"detector\":\"{}\",\"window_s\":", feature.detector);
        json::number_or_null(&mut out, Some(window_s as f32));
        out.push_str(",\"averaging\":\"none\"}");
    }
    out.push_str(",\"bands\":{");
    let (_, rate_hz) = making.design;
    for (i, band) in settings.pipeline.bands.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { "," });
        json::text(&mut out, &band.name);
        let _ = write!(out, ":{{\"unit\":\"{BAND_UNIT}\",\"band_hz\":");
        out.push_str(&band_text(band_of(settings, FEATURES.len() + i, making)));
        let _ = write!(out, ",\"detector\":\"{BAND_DETECTOR}\",\"window_s\":");
        json::number_or_null(&mut out, Some(window_s as f32));
        let resolution_hz = (making.segment_len > 0).then(|| (rate_hz / making.segment_len as f64) as f32);
        out.push_str(",\"averaging\":\"welch\",\"window\":\"hann\",\"overlap\":0.5,\"resolution_hz\":");
        json::number_or_null(&mut out, resolution_hz);
        out.push('}');
    }
    out.push_str("}}");
    out
}

/// The band that a value covers, by its index in [`AxisValues`]; nothing where it has none.
pub(crate) fn band_of(settings: &Settings, index: usize, making: Making) -> Option<(f64, f64)> {
    let (velocity_band_hz, rate_hz) = making.design;
    let own = !making.by_node;
    let Some(feature) = FEATURES.get(index) else {
        let band = settings.pipeline.bands.get(index - FEATURES.len())?;
        return (own && making.segment_len > 0 && band.low_hz < rate_hz / 2.0)
            .then(|| (band.low_hz, band.high_hz.min(rate_hz / 2.0)));
    };
    match feature.name {
        "velocity_rms" => velocity_band_hz,
        "displacement_peak_to_peak" => {
            let [low_hz, high_hz] = settings.pipeline.displacement_band_hz;
            Displacement::new(low_hz, high_hz, rate_hz).ok().filter(|_| own).map(|d| d.band_hz())
        }
        "high_frequency_rms" => {
            let corner_hz = settings.pipeline.high_frequency_hz;
            (own && settings.has_high_frequency(rate_hz)).then_some((corner_hz, rate_hz / 2.0))
        }
        "skewness" if making.by_node => None,
        "mean" | "anomaly_score" => None,
        _ => Some((0.0, rate_hz / 2.0)),
    }
}

/// A band as a JSON array, or `null`.
pub(crate) fn band_text(band: Option<(f64, f64)>) -> String {
    match band {
        Some((low, high)) => format!("[{low},{high}]"),
        None => "null".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_the_score_is_the_scores() {
        assert_eq!(FEATURES[SCORE].name, "anomaly_score");
    }
}
