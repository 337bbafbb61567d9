//! Cuts on production mills: is the strongest line one that the cutter must make, and is steady cutting left alone?

use super::input::{attribute, frames, largest_rise_db, levels, recordings};
use super::stats::Share;
use anyhow::Result;
use spindle_agent::detect::explain::{Origin, TOLERANCE, explain, strongest};
use spindle_agent::detect::health::Rise;
use spindle_common::dsp::{Analyser, Averaging, Bin, Grid, LANES, Scaling, Welch, Window};
use std::path::Path;

/// Below lies the motion of the axes.
const LOW_HZ: f64 = 20.0;

/// Windows of the health trend, seconds: so short because a cut takes some seconds.
const WINDOW_S: f64 = 0.25;

/// Steel was cut with four flutes, aluminium with three.
fn flutes(condition: &str) -> u32 {
    if attribute(condition, "material") == Some("aluminium") { 3 } else { 4 }
}

/// The windows of a cut, from the first that is at least half as loud as the upper quarter of all to the last: what comes before and
/// after is air, which live is for the machine's state to tell.
fn cutting(levels: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let total = |rms: &Vec<f64>| rms.iter().map(|rms| rms * rms).sum::<f64>().sqrt();
    let mut totals: Vec<f64> = levels.iter().map(total).collect();
    totals.sort_by(f64::total_cmp);
    let usual = totals.get(totals.len() * 3 / 4).copied().unwrap_or(0.0);
    let loud = |rms: &Vec<f64>| total(rms) >= usual / 2.0;
    match (levels.iter().position(loud), levels.iter().rposition(loud)) {
        (Some(first), Some(last)) => levels[first..=last].to_vec(),
        _ => Vec::new(),
    }
}

pub(super) fn evaluate(folder: &Path) -> Result<()> {
    let recordings = recordings(folder)?;
    println!("Hurco: {} cuts", recordings.len());
    println!("  speed   flutes  strongest line            is                      recording");
    let (mut found, mut chance, mut changing) = (Vec::new(), Vec::new(), 0);
    let (mut rises, mut short) = (Vec::new(), 0);
    for recording in &recordings {
        let frames = frames(recording)?;
        let channels = recording.axes.len();
        let rate_hz = recording.rate_hz;
        let Ok(rpm) = recording.rpm.parse::<f64>() else {
            println!("  {:7} speed changes in the recording: not judged   {}", recording.rpm, recording.file);
            changing += 1;
            continue;
        };
        let flutes = flutes(&recording.condition);
        let len = 4_096;
        let grid = Grid { len, rate_hz };
        let mut analyser = Analyser::new(len, Window::Hann)?;
        let mut welch = Welch::new(len, len / 2, Averaging::Linear);
        welch.push(&frames, &mut analyser);
        let mut density: Vec<Bin> = vec![[0.0; LANES]; grid.bins()];
        welch.average().write(&analyser.scale(Scaling::Density, rate_hz), &mut density);
        let Some((axis, line)) = strongest(&density, channels, grid, Window::Hann, LOW_HZ) else { continue };
        let origin = explain(line.hz, grid.step_hz(), rpm / 60.0, flutes);
        let text = match origin {
            Origin::ToothPass(harmonic) => format!("tooth pass x {harmonic}"),
            Origin::Spindle(harmonic) => format!("spindle x {harmonic}"),
            Origin::Other => "neither".to_owned(),
        };
        println!(
            "  {rpm:5.0}   {flutes:6}  {:7.2} Hz {:6.2} m/s2 {}  {text:22}  {}",
            line.hz, line.rms, recording.axes[axis], recording.file
        );
        found.push(origin);
        // How many of all frequencies would be explained, too.
        let hz = |index: usize| LOW_HZ + (rate_hz / 2.0 - LOW_HZ) * index as f64 / 9_999.0;
        let by = |is: fn(Origin) -> bool| {
            (0..10_000).filter(|index| is(explain(hz(*index), grid.step_hz(), rpm / 60.0, flutes))).count()
                as f64
                / 1e4
        };
        chance.push((
            by(|origin| matches!(origin, Origin::ToothPass(_))),
            by(|origin| origin != Origin::Other),
        ));
        match largest_rise_db(&cutting(levels(&frames, channels, rate_hz, WINDOW_S))) {
            Some(rise_db) => rises.push(rise_db),
            None => short += 1,
        }
    }
    let teeth = Share::count(found.iter().map(|origin| matches!(origin, Origin::ToothPass(_))));
    let any = Share::count(found.iter().map(|origin| *origin != Origin::Other));
    let mean =
        |of: fn(&(f64, f64)) -> f64| 100.0 * chance.iter().map(of).sum::<f64>() / chance.len().max(1) as f64;
    println!("  tooth pass or a harmonic      {teeth}; by chance {:.0} %", mean(|chance| chance.0));
    println!("  the spindle's harmonics too   {any}; by chance {:.0} %", mean(|chance| chance.1));
    println!("  within {:.1} %; {changing} not judged", 100.0 * TOLERANCE);
    let [warn_db, alarm_db] = Rise::LEVELS_DB;
    println!(
        "  health trend while cutting, no warning {}",
        Share::count(rises.iter().map(|db| *db <= warn_db))
    );
    println!("    and no alarm                {}", Share::count(rises.iter().map(|db| *db <= alarm_db)));
    println!(
        "    largest rise                {:.1} dB, warning from {warn_db} dB; {short} too short to judge",
        rises.iter().copied().fold(0.0, f64::max)
    );
    println!();
    Ok(())
}
