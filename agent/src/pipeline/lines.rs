//! Lines of a machine's bearings, gears and tools: what is known of the machine, the envelope in which bearings show, and what a
//! spectrum's record says of them.

use super::json;
use super::spectral::Plans;
use serde::{Deserialize, Serialize};
use spindle_common::dsp::{
    Average, Averaging, BearingOrders, Bin, Frame, Grid, LANES, Line, Lines, Scale, Scaling, SpeedSearch,
    Window, gear_mesh_hz,
};
use spindle_common::hardware::Machine;
use std::fmt::Write;

/// One part in so many of a sweep's segments is spent on finding the envelope's band.
const SEARCH_SHARE: u64 = 5;

/// An envelope's band is at least so many times as wide as the highest line that it is to show.
const WIDTH_FACTOR: f64 = 3.0;

/// Harmonics that are looked at, the first one included.
const HARMONICS: u32 = 4;

/// Harmonics by which a speed is found.
const SPEED_HARMONICS: u32 = 10;

/// Side-bands to each side.
const SIDE_BANDS: u32 = 2;

/// Bearings slip and loads raise contact angles: a line may lie so far off, as a share.
const SLIP_MAX: f64 = 0.02;

/// A line at a multiple of the speed, with a speed that is only nominally so.
const SPEED_OFF_MAX: f64 = 0.01;

/// A machine's speed, Hz.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Speed {
    Fixed(f64),
    Between(f64, f64),
}

/// What lines a machine has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MachineLines {
    speed: Speed,
    /// Place, designation.
    bearings: Vec<(String, String, BearingOrders)>,
    /// Place, teeth, turns for one of the spindle's.
    gears: Vec<(String, u32, f64)>,
    /// Name, flutes.
    tools: Vec<(String, u32)>,
}

impl MachineLines {
    /// Nothing when the machine has no lines, or nothing is known of its speed.
    pub(crate) fn new(machine: &Machine) -> Option<Self> {
        let spindle = machine.spindle.as_ref()?;
        let speed = match (spindle.rpm, spindle.rpm_min) {
            (Some(rpm), _) => Speed::Fixed(rpm / 60.0),
            (None, Some(rpm_min)) => Speed::Between(rpm_min / 60.0, spindle.rpm_max / 60.0),
            (None, None) => return None,
        };
        let bearings = machine.bearing.iter().filter_map(|bearing| {
            let orders = bearing.geometry().orders().ok()?;
            Some((bearing.place.clone(), bearing.designation.clone(), orders))
        });
        let lines = Self {
            speed,
            bearings: bearings.collect(),
            gears: machine.gear.iter().map(|gear| (gear.place.clone(), gear.teeth, gear.ratio)).collect(),
            tools: machine.tool.iter().map(|tool| (tool.name.clone(), tool.flutes)).collect(),
        };
        (!(lines.bearings.is_empty() && lines.gears.is_empty() && lines.tools.is_empty())).then_some(lines)
    }

    /// Whether an envelope is needed.
    pub(crate) fn has_bearings(&self) -> bool {
        !self.bearings.is_empty()
    }

    /// The highest line that an envelope is to show, Hz.
    fn highest_hz(&self) -> f64 {
        let (Speed::Fixed(hz) | Speed::Between(_, hz)) = self.speed;
        self.bearings.iter().map(|(_, _, orders)| orders.inner * hz).fold(0.0, f64::max)
    }
}

/// The envelope spectrum in the making.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Envelopes {
    /// The band, at the nominal rate, Hz; none while it is looked for.
    band_hz: Option<[f64; 2]>,
    /// Segments in which it is looked for.
    search_len: u64,
    /// Segments in which it has been, of the last group of channels.
    searched: u64,
    /// Sums of the kurtosis of each band that may be taken: those of the first group, then of the next.
    kurtosis: Vec<Bin>,
    /// Of the band that was found.
    found: Option<f64>,
    /// One a group of channels, once there is a band.
    averages: Vec<Average>,
    segments: u64,
}

impl Envelopes {
    /// Of a sweep of about so many segments.
    pub(crate) fn new(band_hz: Option<[f64; 2]>, segments: u64) -> Self {
        Self {
            band_hz,
            search_len: (segments / SEARCH_SHARE).max(1),
            searched: 0,
            kurtosis: Vec::new(),
            found: None,
            averages: Vec::new(),
            segments: 0,
        }
    }

    pub(crate) fn is_sound(&self, groups: usize) -> bool {
        (self.averages.is_empty() || self.averages.len() == groups)
            && self.averages.iter().all(|average| average.bins() > 1)
    }

    /// Takes a segment of a group out of `groups`, at this nominal rate.
    pub(crate) fn add(
        &mut self,
        segment: &[Frame],
        [group, groups]: [usize; 2],
        rate_hz: f64,
        machine: &MachineLines,
        plans: &mut Plans,
    ) {
        let Some([low_hz, high_hz]) = self.band_hz else {
            return self.search(segment, [group, groups], rate_hz, machine, plans);
        };
        let high_hz = high_hz.min(rate_hz / 2.0);
        let Some(envelope) = plans.envelope(segment.len(), [low_hz, high_hz], rate_hz) else { return };
        let squares = envelope.squares(segment);
        if self.averages.is_empty() {
            self.averages = vec![Average::new(Averaging::Linear, squares.len()); groups];
        }
        self.segments += u64::from(group == 0);
        if let Some(average) = self.averages.get_mut(group) {
            average.add(squares);
        }
    }

    fn search(
        &mut self,
        segment: &[Frame],
        [group, groups]: [usize; 2],
        rate_hz: f64,
        machine: &MachineLines,
        plans: &mut Plans,
    ) {
        let Some(kurtogram) = plans.kurtogram(segment.len()) else { return };
        let bands = kurtogram.run(segment, rate_hz);
        self.kurtosis.resize(bands.len() * groups, [0.0; LANES]);
        for (sum, band) in self.kurtosis.iter_mut().skip(group * bands.len()).zip(bands) {
            for (sum, kurtosis) in sum.iter_mut().zip(band.kurtosis) {
                *sum += kurtosis;
            }
        }
        if group + 1 < groups {
            return;
        }
        self.searched += 1;
        if self.searched < self.search_len {
            return;
        }
        let highest_hz = machine.highest_hz();
        let value = |index: usize| {
            let of_groups = self.kurtosis.iter().skip(index).step_by(bands.len());
            let largest = of_groups.flatten().copied().fold(f64::NEG_INFINITY, f64::max);
            largest / self.searched as f64
        };
        let fits = |index: &usize| {
            let band = &bands[*index];
            band.high_hz - band.low_hz >= WIDTH_FACTOR * highest_hz && band.low_hz >= highest_hz
        };
        // The whole of it where no band fits; the wider one of two that are equal.
        let mut best = (0..bands.len()).find(fits).unwrap_or(0);
        for index in (0..bands.len()).filter(fits) {
            if value(index) > value(best) {
                best = index;
            }
        }
        self.found = Some(value(best));
        self.band_hz = bands.get(best).map(|band| [band.low_hz, band.high_hz]);
        self.kurtosis = Vec::new();
    }

    /// Where the envelope spectrum's lines lie, for segments of `len` samples at a rate.
    fn grid(&self, len: usize, rate_hz: f64) -> Option<Grid> {
        let own = 2 * (self.averages.first()?.bins() - 1);
        Some(Grid { len: own, rate_hz: rate_hz * own as f64 / len as f64 })
    }
}

/// What a record's lines are made of.
pub(crate) struct Spectra<'a> {
    pub(crate) machine: &'a MachineLines,
    pub(crate) averages: &'a [Average],
    pub(crate) envelopes: Option<&'a Envelopes>,
    pub(crate) grid: Grid,
    pub(crate) rate_nominal_hz: f64,
    pub(crate) axes: &'a [String],
    pub(crate) channels: usize,
}

/// Appends the object `lines` of a spectrum's record.
pub(crate) fn write(out: &mut String, spectra: &Spectra<'_>) {
    let machine = spectra.machine;
    let densities: Vec<Vec<Bin>> = spectra.averages.iter().map(|a| density(a, spectra.grid)).collect();
    let (speed_hz, estimate) = match machine.speed {
        Speed::Fixed(hz) => (Some(hz), None),
        Speed::Between(low_hz, high_hz) => {
            let mut search = SpeedSearch::new(spectra.grid.bins(), SPEED_HARMONICS);
            let of_first = densities.first().map_or(&[][..], Vec::as_slice);
            let found = search.estimate(of_first, spectra.channels, spectra.grid, low_hz, high_hz);
            (found.map(|found| found.hz), found)
        }
    };
    let source = match (machine.speed, speed_hz) {
        (Speed::Fixed(_), _) => "fixed",
        (_, Some(_)) => "estimated",
        (_, None) => "not_found",
    };
    let _ = write!(out, "{{\"speed\":{{\"source\":\"{source}\"");
    field(out, "hz", speed_hz);
    field(out, "rpm", speed_hz.map(|hz| hz * 60.0));
    field(out, "score", estimate.map(|estimate| estimate.score));
    field(out, "confidence", estimate.map(|estimate| estimate.confidence));
    out.push_str("},\"envelope\":");
    let envelope = spectra.envelopes.and_then(|e| Some((e, e.grid(spectra.grid.len, spectra.grid.rate_hz)?)));
    match envelope {
        Some((envelopes, grid)) => write_envelope(out, envelopes, grid, spectra),
        None => out.push_str("null"),
    }
    let squared: Vec<Vec<Bin>> = envelope.map_or_else(Vec::new, |(envelopes, grid)| {
        envelopes.averages.iter().map(|average| density(average, grid)).collect()
    });
    out.push_str(",\"axes\":[");
    let channels = if speed_hz.is_some() { spectra.channels } else { 0 };
    for axis in 0..channels {
        let (group, lane) = (axis / LANES, axis % LANES);
        let plain = densities.get(group).and_then(|d| Lines::new(d, lane, spectra.grid, Window::Hann));
        let enveloped = envelope.and_then(|(_, grid)| {
            squared.get(group).and_then(|density| Lines::new(density, lane, grid, Window::Hann))
        });
        out.push_str(if axis == 0 { "{\"axis\":" } else { ",{\"axis\":" });
        json::text(out, spectra.axes.get(axis).map_or("", String::as_str));
        write_axis(out, machine, speed_hz.unwrap_or(0.0), plain.as_ref(), enveloped.as_ref());
        out.push('}');
    }
    out.push_str("]}");
}

fn density(average: &Average, grid: Grid) -> Vec<Bin> {
    let mut density = vec![[0.0; LANES]; average.bins()];
    average.write(&Scale::new(Scaling::Density, Window::Hann, grid), &mut density);
    density
}

fn write_envelope(out: &mut String, envelopes: &Envelopes, grid: Grid, spectra: &Spectra<'_>) {
    let factor = spectra.grid.rate_hz / spectra.rate_nominal_hz;
    let [low_hz, high_hz] = envelopes.band_hz.unwrap_or_default();
    let high_hz = high_hz.min(spectra.rate_nominal_hz / 2.0);
    let chosen_by = if envelopes.found.is_some() { "kurtogram" } else { "configuration" };
    let _ =
        write!(out, "{{\"chosen_by\":\"{chosen_by}\",\"band_hz\":[{},{}]", low_hz * factor, high_hz * factor);
    field(out, "kurtosis", envelopes.found);
    let _ = write!(out, ",\"unit\":\"(m/s2)2\",\"segments\":{}", envelopes.segments);
    let _ = write!(out, ",\"resolution_hz\":{}}}", grid.step_hz());
}

fn write_axis(
    out: &mut String,
    machine: &MachineLines,
    speed_hz: f64,
    plain: Option<&Lines<'_>>,
    enveloped: Option<&Lines<'_>>,
) {
    out.push_str(",\"bearings\":[");
    for (index, (place, designation, orders)) in machine.bearings.iter().enumerate() {
        out.push_str(if index == 0 { "{\"place\":" } else { ",{\"place\":" });
        json::text(out, place);
        out.push_str(",\"designation\":");
        json::text(out, designation);
        let cage_hz = orders.cage * speed_hz;
        for (name, order, spacing_hz) in [
            ("bpfo", orders.outer, None),
            ("bpfi", orders.inner, Some(speed_hz)),
            ("bsf", orders.spin, Some(cage_hz)),
            ("ftf", orders.cage, None),
        ] {
            let _ = write!(out, ",\"{name}\":");
            write_line(out, enveloped, order * speed_hz, SLIP_MAX, spacing_hz);
        }
        out.push('}');
    }
    out.push_str("],\"gears\":[");
    for (index, (place, teeth, ratio)) in machine.gears.iter().enumerate() {
        out.push_str(if index == 0 { "{\"place\":" } else { ",{\"place\":" });
        json::text(out, place);
        out.push_str(",\"mesh\":");
        let shaft_hz = speed_hz * ratio;
        write_line(out, plain, gear_mesh_hz(*teeth, shaft_hz), SPEED_OFF_MAX, Some(shaft_hz));
        out.push('}');
    }
    out.push_str("],\"tools\":[");
    for (index, (name, flutes)) in machine.tools.iter().enumerate() {
        out.push_str(if index == 0 { "{\"tool\":" } else { ",{\"tool\":" });
        json::text(out, name);
        out.push_str(",\"tooth_pass\":");
        write_line(out, plain, f64::from(*flutes) * speed_hz, SPEED_OFF_MAX, Some(speed_hz));
        out.push('}');
    }
    out.push(']');
}

/// Appends a line with its harmonics and side-bands, or `null` where the spectrum does not reach so far.
fn write_line(out: &mut String, lines: Option<&Lines<'_>>, hz: f64, tolerance: f64, spacing_hz: Option<f64>) {
    let Some((lines, first)) = lines.and_then(|lines| Some((lines, lines.line(hz, tolerance)?))) else {
        out.push_str("null");
        return;
    };
    let Line { expected_hz, hz: found_hz, rms, prominence_db } = first;
    let _ = write!(out, "{{\"expected_hz\":");
    json::number_or_null(out, Some(expected_hz as f32));
    field(out, "hz", Some(found_hz));
    field(out, "rms", Some(rms));
    field(out, "prominence_db", Some(prominence_db));
    out.push_str(",\"harmonics_rms\":[");
    // Of the line that was found, which may have slipped.
    for (index, line) in lines.harmonics(found_hz, HARMONICS, 0.0).enumerate() {
        out.push_str(if index == 0 { "" } else { "," });
        json::number_or_null(out, Some(line.rms as f32));
    }
    out.push_str("],\"side_bands\":");
    match spacing_hz
        .and_then(|spacing_hz| Some((spacing_hz, lines.side_bands(&first, spacing_hz, SIDE_BANDS)?)))
    {
        Some((spacing_hz, side_bands)) => {
            let _ = write!(out, "{{\"count\":{}", side_bands.count);
            field(out, "spacing_hz", Some(spacing_hz));
            field(out, "rms", Some(side_bands.rms));
            field(out, "ratio", Some(side_bands.ratio));
            out.push('}');
        }
        None => out.push_str("null"),
    }
    out.push('}');
}

/// Appends `,"name":number`.
fn field(out: &mut String, name: &str, value: Option<f64>) {
    let _ = write!(out, ",\"{name}\":");
    json::number_or_null(out, value.map(|value| value as f32));
}
