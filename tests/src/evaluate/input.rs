//! Reads recordings whole.

use anyhow::{Context, Result};
use spindle_agent::source::recording::{Manifest, Recording, manifest};
use spindle_common::dsp::{Frame, to_frames};
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
