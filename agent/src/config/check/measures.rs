//! Bands, spectra, corners.

use super::{Report, name, unique};
use crate::config::Pipeline;
use crate::pipeline::BANDS_MAX;
use std::time::Duration;

/// Whether `[low, high]` is a band.
fn is_band([low, high]: [f64; 2]) -> bool {
    low.is_finite() && high.is_finite() && low > 0.0 && high > low
}

pub(super) fn check(pipeline: &Pipeline, report: Report<'_>) {
    let band_form = "write [lower, upper] in Hz, such as [10.0, 1000.0]";
    if !is_band(pipeline.displacement_band_hz) {
        report("pipeline.displacement_band_hz".into(), "is no band".into(), band_form.into());
    }
    for (at, value, right) in [
        ("pipeline.high_frequency_hz", pipeline.high_frequency_hz, "write Hz, such as 5000.0"),
        ("pipeline.bias_shift_max", pipeline.bias_shift_max, "write m/s2, such as 0.5"),
        ("pipeline.spectrum.resolution_hz", pipeline.spectrum.resolution_hz, "write Hz, such as 4.0"),
    ] {
        if !(value.is_finite() && value > 0.0) {
            report(at.into(), "is not above 0".into(), right.into());
        }
    }
    let bands = &pipeline.bands;
    if bands.len() > BANDS_MAX {
        let what = format!("has {} entries", bands.len());
        report("pipeline.band".into(), what, format!("write at most {BANDS_MAX}"));
    }
    unique("pipeline.band", "name", bands.iter().map(|band| band.name.as_str()), report);
    for (index, band) in bands.iter().enumerate() {
        let at = format!("pipeline.band[{index}]");
        name(&format!("{at}.name"), &band.name, report);
        let starts = band.low_hz.is_finite() && band.low_hz >= 0.0;
        if !starts {
            report(format!("{at}.low_hz"), "is no frequency".into(), "write Hz, 0 or more".into());
        }
        if starts && !(band.high_hz.is_finite() && band.high_hz > band.low_hz) {
            report(format!("{at}.high_hz"), "is not above `low_hz`".into(), "write Hz".into());
        }
    }
    let spectrum = &pipeline.spectrum;
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&spectrum.every) {
        let right = "write \"1s\" to \"24h\"";
        report("pipeline.spectrum.every".into(), "is out of range".into(), right.into());
    }
    if spectrum.average.is_zero() || spectrum.average > spectrum.every {
        let right = "write \"10s\", or what `every` leaves room for";
        report("pipeline.spectrum.average".into(), "is not above 0 up to `every`".into(), right.into());
    }
    if spectrum.envelope_band_hz.is_some_and(|band| !is_band(band)) {
        report("pipeline.spectrum.envelope_band_hz".into(), "is no band".into(), band_form.into());
    }
}
