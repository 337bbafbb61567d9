//! Seeded bearing faults: does the comb of envelope lines name the right part?

use super::input::{attribute, frames, recordings, shaft_hz};
use super::stats::Share;
use anyhow::Result;
use spindle_agent::detect::comb::{Comb, CombAverage, Fault, Verdict};
use spindle_common::dsp::fft::next_len;
use spindle_common::dsp::{
    Analyser, Average, Averaging, Bearing, BearingOrders, Bin, Frame, Grid, LANES, Scaling, SpeedSearch,
    Window,
};
use std::path::Path;

struct Judged {
    rate_hz: f64,
    label: Fault,
    /// At the fault's end; of the healthy recording, at each end.
    faulty: Vec<Verdict>,
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

pub(super) fn evaluate(folder: &Path) -> Result<()> {
    let mut judged = Vec::new();
    for recording in recordings(folder)? {
        let frames = frames(&recording)?;
        let channels = recording.axes.len();
        let rate_hz = recording.rate_hz;
        let shaft_hz = speed(&frames, channels, rate_hz, shaft_hz(&recording)?)?;
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
        let (mut faulty, mut healthy) = (Vec::new(), Vec::new());
        for (channel, axis) in recording.axes.iter().enumerate() {
            let verdict = bearing(axis).and_then(|orders| average.verdict(channel, &orders));
            let side = if end == Some(axis.as_str()) { &mut faulty } else { &mut healthy };
            side.extend(verdict);
        }
        judged.push(Judged { rate_hz, label, faulty, healthy });
    }
    println!("CWRU: {} recordings", judged.len());
    for (title, rate) in [("12 kHz", Some(12_000.0)), ("48 kHz", Some(48_000.0)), ("all", None)] {
        let of = |j: &&Judged| rate.is_none_or(|rate| j.rate_hz == rate);
        let faulty: Vec<(Fault, &Verdict)> = judged
            .iter()
            .filter(of)
            .filter(|j| j.label != Fault::None)
            .flat_map(|j| j.faulty.iter().map(|v| (j.label, v)))
            .collect();
        let named = || faulty.iter().filter(|(_, v)| v.fault() != Fault::None);
        println!("{title}");
        println!(
            "  forced choice right   {}",
            Share::count(faulty.iter().map(|(label, v)| v.best().fault == *label))
        );
        for fault in [Fault::Outer, Fault::Inner, Fault::Ball] {
            println!(
                "    {fault:6}              {}",
                Share::count(
                    faulty.iter().filter(|(l, _)| *l == fault).map(|(label, v)| v.best().fault == *label)
                )
            );
        }
        println!(
            "  named                 {}",
            Share::count(faulty.iter().map(|(_, v)| v.fault() != Fault::None))
        );
        println!("  right of named        {}", Share::count(named().map(|(label, v)| v.fault() == *label)));
        println!(
            "  healthy bearings named {}",
            Share::count(judged.iter().filter(of).flat_map(|j| &j.healthy).map(|v| v.fault() != Fault::None))
        );
    }
    println!();
    Ok(())
}
