//! Bearings run to failure: is a warning given before the end, and none in early life?

use super::input::{Table, frames, recordings, rms};
use super::stats::{Share, spearman};
use anyhow::{Context, Result};
use spindle_agent::detect::health::{Health, Rise};
use spindle_agent::source::recording::Recording;
use std::path::Path;

/// Early life, as a share of it.
const EARLY: f64 = 0.1;

struct Life {
    name: String,
    /// From the start of the first window, per window.
    seconds: Vec<f64>,
    /// `None` while learning.
    rise: Vec<Option<Rise>>,
}

impl Life {
    fn end_s(&self) -> f64 {
        self.seconds.last().copied().unwrap_or(0.0)
    }

    fn first_above(&self, db: f64) -> Option<f64> {
        let above = |rise: &Option<Rise>| rise.is_some_and(|rise| rise.db > db);
        self.rise.iter().position(above).map(|index| self.seconds[index])
    }

    /// Rank correlation of the trend with time.
    fn order(&self) -> f64 {
        let answers = self.rise.iter().zip(&self.seconds).filter_map(|(rise, at)| Some(((*rise)?.db, *at)));
        let (db, at): (Vec<f64>, Vec<f64>) = answers.unzip();
        spearman(&db, &at)
    }
}

pub(super) fn evaluate(folder: &Path) -> Result<()> {
    let (mut lives, mut furthest) = (Vec::new(), 0.0_f64);
    for recording in recordings(folder)? {
        let (life, apart) = life(folder, &recording)?;
        lives.push(life);
        furthest = furthest.max(apart);
    }
    let [warn_db, alarm_db] = Rise::LEVELS_DB;
    println!(
        "FEMTO: {} bearings run to failure; RMS of every snapshot, which the samples at hand confirm to {:.2} %",
        lives.len(),
        100.0 * furthest
    );
    println!(
        "  bearing     life     order  warning from {warn_db} dB        alarm from {alarm_db} dB          largest rise in early life"
    );
    for life in &lives {
        let lead = |db: f64| match life.first_above(db) {
            None => "never".to_owned(),
            Some(at) => {
                let (left, share) = (life.end_s() - at, 100.0 * at / life.end_s());
                format!("{:5.1} min left ({share:3.0} %)", left / 60.0)
            }
        };
        let early = life.rise.iter().zip(&life.seconds).filter(|(_, at)| **at <= EARLY * life.end_s());
        let early_db = early.filter_map(|(rise, _)| Some((*rise)?.db)).fold(0.0, f64::max);
        println!(
            "  {:10} {:5.1} h  {:6.2}  {:24}  {:24} {early_db:4.1} dB",
            life.name,
            life.end_s() / 3600.0,
            life.order(),
            lead(warn_db),
            lead(alarm_db)
        );
    }
    for (name, db) in [("warned", warn_db), ("alarmed", alarm_db)] {
        let mut leads: Vec<f64> =
            lives.iter().filter_map(|life| Some((life.end_s() - life.first_above(db)?) / 60.0)).collect();
        leads.sort_by(f64::total_cmp);
        let within = |share: f64| {
            Share::count(
                lives.iter().map(|life| life.first_above(db).is_some_and(|at| at <= share * life.end_s())),
            )
        };
        println!("  {name} before the end        {}", Share { hits: leads.len(), all: lives.len() });
        if let [shortest, .., longest] = leads.as_slice() {
            println!(
                "    lead                     {shortest:.1} to {longest:.1} min, median {:.1} min",
                leads[leads.len() / 2]
            );
        }
        println!("    in the first tenth       {}", within(EARLY));
        println!("    in the first quarter     {}", within(0.25));
    }
    println!();
    Ok(())
}

/// A bearing's trend from the RMS of every snapshot, and by what share those of the samples at hand differ at most.
fn life(folder: &Path, recording: &Recording) -> Result<(Life, f64)> {
    let stem = recording.file.strip_suffix(".bin.zst").context("a recording's name")?;
    let trend = Table::read(&folder.join(format!("{stem}_trend.csv.zst")))?;
    let number = |row: &[String], column: usize| -> Result<f64> {
        row.get(column)
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("{stem}: no number in {row:?}"))
    };
    let columns = ["seconds_since_start", "rms_h_g", "rms_v_g"].map(|name| trend.column(name));
    let [Some(at), Some(horizontal), Some(vertical)] = columns else {
        anyhow::bail!("{stem}: the trend's columns are other ones");
    };
    let mut health = Health::default();
    let mut life = Life { name: stem.to_owned(), seconds: Vec::new(), rise: Vec::new() };
    let mut listed = Vec::new();
    for row in &trend.rows {
        let levels = [number(row, horizontal)?, number(row, vertical)?];
        life.seconds.push(number(row, at)?);
        life.rise.push(health.push(&levels));
        listed.push(levels);
    }
    let snapshots = Table::read(&folder.join(format!("{stem}_snapshots.csv")))?;
    let frames = frames(recording)?;
    let len = frames.len() / snapshots.rows.len().max(1);
    let mut furthest = 0.0_f64;
    let numbered = snapshots.column("snapshot_no").context("snapshot_no")?;
    for (row, samples) in snapshots.rows.iter().zip(frames.chunks_exact(len.max(1))) {
        let index = number(row, numbered)? as usize - 1;
        for (channel, listed) in listed.get(index).context("a snapshot beyond the trend")?.iter().enumerate()
        {
            furthest = furthest.max((rms(samples, channel) / 9.806_65 / listed - 1.0).abs());
        }
    }
    Ok((life, furthest))
}
