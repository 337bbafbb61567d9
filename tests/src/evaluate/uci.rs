//! A fan with a cheap, slow sensor: is it left alone while nothing changes, and is a moved weight noticed?

use super::input::{attribute, frames, largest_rise_db, levels, recordings};
use super::stats::Share;
use anyhow::Result;
use spindle_agent::detect::health::Rise;
use std::path::Path;

/// Windows of the health trend, seconds: so short because there are 36 s of each speed.
const WINDOW_S: f64 = 0.5;

struct Run {
    config: String,
    speed: String,
    levels: Vec<Vec<f64>>,
}

pub(super) fn evaluate(folder: &Path) -> Result<()> {
    let mut runs = Vec::new();
    for recording in recordings(folder)? {
        let frames = frames(&recording)?;
        runs.push(Run {
            config: attribute(&recording.condition, "config").unwrap_or(&recording.condition).to_owned(),
            levels: levels(&frames, recording.axes.len(), recording.rate_hz, WINDOW_S),
            speed: recording.process,
        });
    }
    println!("UCI: {} runs of a fan, 17 speeds, 3 places of its weights; health trend", runs.len());
    let rises: Vec<f64> = runs.iter().filter_map(|run| largest_rise_db(&run.levels)).collect();
    let [warn_db, alarm_db] = Rise::LEVELS_DB;
    let largest = rises.iter().copied().fold(0.0, f64::max);
    println!("  nothing changes, no warning   {}", Share::count(rises.iter().map(|db| *db <= warn_db)));
    println!("    and no alarm                {}", Share::count(rises.iter().map(|db| *db <= alarm_db)));
    println!("    largest rise                {largest:.1} dB, warning from {warn_db} dB");
    let mut moved = Vec::new();
    for first in &runs {
        for then in runs.iter().filter(|then| then.speed == first.speed && then.config != first.config) {
            moved.extend(largest_rise_db(first.levels.iter().chain(&then.levels)));
        }
    }
    println!(
        "  weights moved, warning        {}: also where they then shake less, which is no rise",
        Share::count(moved.iter().map(|db| *db > warn_db))
    );
    println!();
    Ok(())
}
