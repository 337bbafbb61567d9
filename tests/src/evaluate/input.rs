//! Reads recordings whole.

use anyhow::{Context, Result};
use spindle_agent::detect::health::Health;
use spindle_agent::source::recording::{Manifest, Recording, manifest};
use spindle_common::dsp::{Frame, to_frames};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The rows of a folder's manifest.
pub(super) fn recordings(folder: &Path) -> Result<Vec<Recording>> {
    let Manifest { recordings, .. } = manifest(folder)?;
    Ok(recordings)
}

/// All samples of a recording, m/s², its first four channels.
pub(super) fn frames(recording: &Recording) -> Result<Vec<Frame>> {
    let mut pieces = recording.open()?;
    let (mut planar, mut frames) = (Vec::new(), Vec::new());
    loop {
        let count = pieces.next(&mut planar)?;
        if count == 0 {
            return Ok(frames);
        }
        let start = frames.len();
        frames.resize(start + count, Frame::default());
        to_frames(&planar, count, 0, &mut frames[start..]);
    }
}

/// What `key=value;...` says of a key.
pub(super) fn attribute<'a>(condition: &'a str, key: &str) -> Option<&'a str> {
    condition.split(';').find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

/// The only speed that the recording names, Hz.
pub(super) fn shaft_hz(recording: &Recording) -> Result<f64> {
    let rpm: f64 =
        recording.rpm.parse().with_context(|| format!("{}: rpm is {:?}", recording.file, recording.rpm))?;
    Ok(rpm / 60.0)
}

/// RMS of each channel, window by window.
pub(super) fn levels(frames: &[Frame], channels: usize, rate_hz: f64, window_s: f64) -> Vec<Vec<f64>> {
    let len = ((window_s * rate_hz).round() as usize).max(2);
    let level = |window: &[Frame]| (0..channels).map(|channel| rms(window, channel)).collect();
    frames.chunks_exact(len).map(level).collect()
}

/// Largest rise of the health trend over these windows, dB; nothing if it is still learning at their end.
pub(super) fn largest_rise_db<'a>(levels: impl IntoIterator<Item = &'a Vec<f64>>) -> Option<f64> {
    let mut health = Health::default();
    levels.into_iter().filter_map(|rms| health.push(rms)).map(|rise| rise.db).reduce(f64::max)
}

/// Of a channel without its mean.
pub(super) fn rms(window: &[Frame], channel: usize) -> f64 {
    let values = || window.iter().map(|frame| f64::from(frame[channel]));
    let mean = values().sum::<f64>() / window.len() as f64;
    (values().map(|value| (value - mean) * (value - mean)).sum::<f64>() / window.len() as f64).sqrt()
}

/// A table with a header, of fields without commas or quotes.
pub(super) struct Table {
    header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// Reads a CSV file, compressed where its name ends in `.zst`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut text = String::new();
        if path.extension().is_some_and(|extension| extension == "zst") {
            zstd::stream::read::Decoder::new(file)?.read_to_string(&mut text)
        } else {
            std::io::BufReader::new(file).read_to_string(&mut text)
        }
        .with_context(|| path.display().to_string())?;
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect());
        Ok(Self { header: lines.next().unwrap_or_default(), rows: lines.collect() })
    }

    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }
}
