//! Seeded bearing faults: does the comb of envelope lines name the right part?

use super::input::{attribute, frames, recordings, shaft_hz};
use super::stats::{Share, grouped_percent};
use anyhow::{Context, Result};
use spindle_agent::detect::comb::{Comb, CombAverage, Fault, Verdict};
use spindle_agent::source::recording::Recording;
use spindle_common::dsp::fft::next_len;
use spindle_common::dsp::{
    Analyser, Average, Averaging, Bearing, BearingOrders, Bin, Envelope, Frame, Grid, LANES, Lines, Scaling,
    SpeedSearch, Window,
};
use std::collections::BTreeSet;
use std::path::Path;

struct Judged {
    /// The bearing with the fault: several recordings are of one.
    specimen: String,
    rate_hz: f64,
    label: Fault,
    /// At the fault's end, by its own sensor.
    faulty: Option<Verdict>,
    /// What the plain envelope of that sensor says.
    plain: Fault,
    /// Of the bearings without a fault, each by its own sensor.
    healthy: Vec<Verdict>,
}

fn bearing(axis: &str) -> Option<BearingOrders> {
    // CWRU Bearing Data Center: 6205-2RS and 6203-2RS, inches.
    let [elements, element_diameter, pitch_diameter] = match axis {
        "DE" => [9.0, 0.3126, 1.537],
        "FE" => [8.0, 0.2656, 1.122],
        _ => return None,
    };
    let bearing =
        Bearing { elements: elements as u32, element_diameter, pitch_diameter, contact_angle_deg: 0.0 };
    bearing.orders().ok()
}

/// The untuned way that the comb is to beat: the squared envelope of the whole band as it is, two seconds at a time, and of the three
/// faults the one whose first three lines stand out most on average.
fn plain_envelope(
    frames: &[Frame],
    channel: usize,
    rate_hz: f64,
    shaft_hz: f64,
    bearing: &BearingOrders,
) -> Result<Fault> {
    let len = next_len((2.0 * rate_hz) as usize)?;
    let mut envelope = Envelope::new(len, 2.0 * rate_hz / len as f64, rate_hz / 2.0, rate_hz)?;
    let grid = envelope.grid();
    let mut average = Average::new(Averaging::Linear, grid.bins());
    for window in frames.windows(len).step_by(len / 2) {
        average.add(envelope.squares(window));
    }
    let mut density: Vec<Bin> = vec![[0.0; LANES]; grid.bins()];
    average.write(&envelope.scale(Scaling::Density), &mut density);
    let lines = Lines::new(&density, channel, grid, Window::Hann).context("an envelope spectrum")?;
    let mut best = (Fault::None, f64::NEG_INFINITY);
    for (fault, order) in
        [(Fault::Outer, bearing.outer), (Fault::Inner, bearing.inner), (Fault::Ball, bearing.element)]
    {
        let harmonics = (1..=3).filter_map(|line| lines.line(f64::from(line) * order * shaft_hz, 0.01));
        let prominence_db: f64 = harmonics.map(|line| line.prominence_db).sum();
        if prominence_db > best.1 {
            best = (fault, prominence_db);
        }
    }
    Ok(best.0)
}

/// The speed near the nominal one whose harmonics stand out, else the nominal one.
fn speed(frames: &[Frame], channels: usize, rate_hz: f64, nominal_hz: f64) -> Result<f64> {
    let longest = frames.len().min((10.0 * rate_hz) as usize);
    let mut len = next_len(longest)?;
    while len > longest {
        len = if len.is_power_of_two() { len / 4 * 3 } else { len / 3 * 2 };
    }
    let mut analyser = Analyser::new(len, Window::Hann)?;
    let grid = Grid { len, rate_hz };
    let mut average = Average::new(Averaging::Linear, grid.bins());
    average.add(analyser.squares(&frames[frames.len() - len..]));
    let mut density: Vec<Bin> = vec![[0.0; LANES]; grid.bins()];
    average.write(&analyser.scale(Scaling::Density, rate_hz), &mut density);
    let found = SpeedSearch::new(grid.bins(), 10).estimate(
        &density,
        channels,
        grid,
        0.99 * nominal_hz,
        1.01 * nominal_hz,
    );
    Ok(found.map_or(nominal_hz, |found| found.hz))
}

fn judge(recording: &Recording) -> Result<Judged> {
    let frames = frames(recording)?;
    let channels = recording.axes.len();
    let rate_hz = recording.rate_hz;
    let shaft_hz = speed(&frames, channels, rate_hz, shaft_hz(recording)?)?;
    let mut comb = Comb::new(rate_hz, shaft_hz)?;
    let mut average = CombAverage::default();
    for window in frames.windows(comb.len()).step_by(comb.hop()) {
        comb.add(window, channels, shaft_hz, &mut average);
    }
    let label = match recording.label.as_str() {
        "outer_race" => Fault::Outer,
        "inner_race" => Fault::Inner,
        "ball" => Fault::Ball,
        _ => Fault::None,
    };
    let end = attribute(&recording.condition, "fault_end");
    let instance = attribute(&recording.condition, "instance").unwrap_or_default();
    let specimen = format!("{} {instance}", end.unwrap_or_default());
    let mut judged =
        Judged { specimen, rate_hz, label, faulty: None, plain: Fault::None, healthy: Vec::new() };
    for (channel, axis) in recording.axes.iter().enumerate() {
        let orders = bearing(axis).with_context(|| format!("{}: no bearing at {axis}", recording.file))?;
        let verdict = average.verdict(channel, &orders);
        if end == Some(axis.as_str()) {
            judged.faulty = verdict;
            judged.plain = plain_envelope(&frames, channel, rate_hz, shaft_hz, &orders)?;
        } else {
            judged.healthy.extend(verdict);
        }
    }
    Ok(judged)
}

pub(super) fn evaluate(folder: &Path) -> Result<()> {
    let judged = recordings(folder)?.iter().map(judge).collect::<Result<Vec<Judged>>>()?;
    println!(
        "CWRU: {} recordings; each bearing by the sensor at its end, the speed sought within 1 % of the stated one",
        judged.len()
    );
    for (title, rate_hz) in [("12 kHz", Some(12_000.0)), ("48 kHz", Some(48_000.0)), ("all", None)] {
        let of: Vec<&Judged> =
            judged.iter().filter(|judged| rate_hz.is_none_or(|rate_hz| judged.rate_hz == rate_hz)).collect();
        table(title, &of);
    }
    let by_specimen = |is: fn(&Judged, &Verdict) -> bool| {
        let cases = judged.iter().filter_map(|of| Some((of.specimen.as_str(), is(of, of.faulty.as_ref()?))));
        grouped_percent(cases)
    };
    let specimens: BTreeSet<&str> =
        judged.iter().filter(|of| of.faulty.is_some()).map(|of| of.specimen.as_str()).collect();
    let [low, high] = by_specimen(|of, verdict| verdict.best().fault == of.label);
    println!("  the recordings are of {} bearings; over these the intervals are wider:", specimens.len());
    println!("    comb, forced choice       {low:.0} to {high:.0} %");
    let [low, high] = by_specimen(|_, verdict| verdict.fault() != Fault::None);
    println!("    comb, faults named        {low:.0} to {high:.0} %");
    println!();
    Ok(())
}

fn table(title: &str, judged: &[&Judged]) {
    let faulty: Vec<(&Judged, &Verdict)> =
        judged.iter().filter_map(|judged| Some((*judged, judged.faulty.as_ref()?))).collect();
    let kinds = [Fault::Outer, Fault::Inner, Fault::Ball];
    println!("  {title}");
    println!(
        "    plain envelope, forced    {}",
        Share::count(faulty.iter().map(|(of, _)| of.plain == of.label))
    );
    println!(
        "    comb, forced choice       {}",
        Share::count(faulty.iter().map(|(of, verdict)| verdict.best().fault == of.label))
    );
    for kind in kinds {
        let of_kind = faulty.iter().filter(|(of, _)| of.label == kind);
        println!(
            "      {kind:6}                  {}",
            Share::count(of_kind.map(|(_, verdict)| verdict.best().fault == kind))
        );
    }
    println!(
        "    comb, faults named        {}",
        Share::count(faulty.iter().map(|(_, verdict)| verdict.fault() != Fault::None))
    );
    for kind in kinds {
        let of_kind = faulty.iter().filter(|(of, _)| of.label == kind);
        println!(
            "      {kind:6}                  {}",
            Share::count(of_kind.map(|(_, verdict)| verdict.fault() != Fault::None))
        );
    }
    let named = faulty.iter().filter(|(_, verdict)| verdict.fault() != Fault::None);
    println!(
        "      and rightly so          {}",
        Share::count(named.map(|(of, verdict)| verdict.fault() == of.label))
    );
    let healthy = judged.iter().flat_map(|judged| &judged.healthy);
    println!(
        "    comb, sound bearings named {}",
        Share::count(healthy.map(|verdict| verdict.fault() != Fault::None))
    );
}
