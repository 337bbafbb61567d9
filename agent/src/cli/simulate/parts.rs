//! Recordings as what boards send: whole numbers, one scale a stream, no offset.

use crate::source::recording::{Manifest, Recording};
use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use spindle_firmware::host::Playback;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// Largest recording that is read, unpacked: all of it is held in memory while it plays.
const RECORDING_BYTES_MAX: u64 = 1 << 30;

/// Channels of a recording that share one scale: what one stream can carry.
pub(super) struct Part {
    /// Name of the sensor: the recording's own for the first part.
    pub(super) suffix: String,
    /// The samples.
    pub(super) playback: Playback,
}

/// Offsets of a recording that are not sent: the wire has none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct OffsetDropped {
    /// The recording's file, as the manifest has it.
    pub(super) file: String,
    /// By channel, m/s².
    pub(super) m_s2: BTreeMap<String, f64>,
}

impl std::fmt::Display for OffsetDropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let channels: Vec<_> = self.m_s2.iter().map(|(axis, offset)| format!("{axis} {offset:.3}")).collect();
        write!(f, "{}: {} m/s²", self.file, channels.join(", "))
    }
}

/// The recordings of a manifest whose file name contains `only`.
///
/// # Errors
/// Names file and line of a row that boards cannot send: it would be missing without a word.
pub(super) fn wanted(manifest: Manifest, only: Option<&str>) -> anyhow::Result<Vec<Recording>> {
    let path = manifest.path.display();
    let named = |file: &str| only.is_none_or(|text| file.contains(text));
    let cannot = "cannot be sent as samples; int16le, int24le and int32le can";
    if let Some(other) = manifest.others.iter().find(|other| named(&other.file)) {
        bail!("{path}:{}: dtype `{}` {cannot}", other.line, other.dtype);
    }
    let recordings: Vec<_> = manifest.recordings.into_iter().filter(|r| named(&r.file)).collect();
    if let Some(recording) = recordings.iter().find(|recording| recording.dtype.bits().is_none()) {
        bail!("{path}:{}: dtype `{}` {cannot}", recording.line, recording.dtype);
    }
    ensure!(
        !recordings.is_empty(),
        "no recording in {path} has `{}` in its file name",
        only.unwrap_or_default()
    );
    Ok(recordings)
}

/// What of the recordings' offsets will be missing in what is sent.
pub(super) fn offsets(recordings: &[Recording]) -> Vec<OffsetDropped> {
    let dropped = |recording: &Recording| {
        let channels = recording.axes.iter().cloned().zip(recording.offset_si.iter().copied());
        let m_s2: BTreeMap<_, _> = channels.filter(|(_, offset)| *offset != 0.0).collect();
        (!m_s2.is_empty()).then(|| OffsetDropped { file: recording.file.clone(), m_s2 })
    };
    recordings.iter().filter_map(dropped).collect()
}

/// The file's name without folder and endings.
pub(super) fn stem(file: &str) -> &str {
    let name = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or(file);
    name.trim_end_matches(".zst").trim_end_matches(".bin")
}

/// Reads the samples. Channels of different scale become parts of their own, since a stream has one scale.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(super) fn load(recording: &Recording) -> anyhow::Result<Vec<Part>> {
    let path = recording.path.display();
    let mut bytes = Vec::new();
    let read = recording.reader()?.take(RECORDING_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {path}"))?;
    ensure!(bytes.len() as u64 <= RECORDING_BYTES_MAX, "{path} holds more than {RECORDING_BYTES_MAX} bytes");
    let channels = recording.axes.len();
    let frame = recording.dtype.bytes() * channels;
    ensure!(
        bytes.len().is_multiple_of(frame),
        "{path}: {} bytes are no whole number of frames of {frame} bytes",
        bytes.len()
    );
    let samples = bytes.chunks_exact(recording.dtype.bytes()).map(|bytes| recording.dtype.count(bytes));
    let samples: Option<Vec<i32>> = samples.collect();
    let samples = samples.with_context(|| format!("{path}: {} are no counts", recording.dtype))?;
    let mut parts = Vec::new();
    let mut left: Vec<usize> = (0..channels).collect();
    while let Some(&first) = left.first() {
        let scale = recording.scale_si[first];
        let (same, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|&at| (recording.scale_si[at] / scale - 1.0).abs() < 1e-9);
        // A scale of 0 equals nothing, not even itself.
        ensure!(!same.is_empty(), "{path}: a scale of {scale} cannot be sent");
        left = others;
        parts.push(part(recording, &same, &samples)?);
    }
    if let [only] = parts.as_mut_slice() {
        only.suffix.clear();
    }
    Ok(parts)
}

fn part(recording: &Recording, channels: &[usize], samples: &[i32]) -> anyhow::Result<Part> {
    let axes: Vec<&str> = channels.iter().map(|&at| recording.axes[at].as_str()).collect();
    let letters: String =
        axes.iter().map(|axis| axis.chars().next().unwrap_or('x').to_ascii_lowercase()).collect();
    let all = recording.axes.len();
    let samples: Arc<[i32]> = if channels.len() == all {
        samples.into()
    } else {
        samples.chunks_exact(all).flat_map(|frame| channels.iter().map(|&at| frame[at])).collect()
    };
    // Files of 32 bits are taken when their values fit the wire's 24.
    let bits = recording.dtype.bits().unwrap_or(24).min(24);
    #[allow(clippy::cast_possible_truncation, reason = "the wire's scale is a float of 32 bits")]
    let scale = recording.scale_si[channels[0]] as f32;
    let playback = Playback::new(samples, &letters, bits, recording.rate_hz, scale).with_context(|| {
        format!(
            "{}: cannot be sent: a stream has 1 to 8 channels, values of at most {bits} bits, a positive scale and a rate",
            recording.path.display()
        )
    })?;
    Ok(Part { suffix: format!("-{}", axes.join("-")), playback })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::recording::manifest;

    const HEADER: &str = "file,machine,fs_hz,axes,dtype,scale,offset,unit,note\n";

    fn read(row: &str, samples: &[u8]) -> (tempfile::TempDir, anyhow::Result<Vec<Recording>>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.bin.zst"), zstd::encode_all(samples, 1).unwrap()).unwrap();
        let path = dir.path().join("manifest.csv");
        std::fs::write(&path, format!("{HEADER}{row}\n")).unwrap();
        let recordings = wanted(manifest(&path).unwrap(), None);
        (dir, recordings)
    }

    #[test]
    fn a_recording_becomes_one_stream() {
        let bytes = [1, 0, 2, 0, 255, 255, 4, 0];
        let (_dir, recordings) = read("a.bin.zst,M01,2000,x|y,int16le,0.001|0.001,0|0,g,\"a, b\"", &bytes);
        let recordings = recordings.unwrap();
        assert_eq!((stem(&recordings[0].file), offsets(&recordings)), ("a", Vec::new()));
        let parts = load(&recordings[0]).unwrap();
        assert_eq!((parts.len(), parts[0].suffix.as_str(), parts[0].playback.len()), (1, "", 2));
    }

    #[test]
    fn channels_of_different_scale_become_streams_of_their_own() {
        let (_dir, recordings) = read("a.bin.zst,M01,2000,DE|FE,int16le,0.001|0.002,0|0,g,", &[1, 0, 2, 0]);
        let parts = load(&recordings.unwrap()[0]).unwrap();
        let suffixes: Vec<_> = parts.iter().map(|part| part.suffix.as_str()).collect();
        assert_eq!(suffixes, ["-DE", "-FE"]);
    }

    #[test]
    fn an_offset_that_is_not_sent_is_told_by_channel() {
        let (_dir, recordings) = read("a.bin.zst,M01,2000,x|y,int16le,0.5,0|-0.25,m/s^2,", &[1, 0, 2, 0]);
        let told = serde_json::to_value(offsets(&recordings.unwrap())).unwrap();
        assert_eq!(told, serde_json::json!([{ "file": "a.bin.zst", "m_s2": { "y": -0.25 } }]));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_name() {
        for dtype in ["float32le", "csv"] {
            let (_dir, recordings) = read(&format!("a.bin.zst,M01,2000,x,{dtype},1,0,g,"), &[]);
            let message = recordings.unwrap_err().to_string();
            assert!(
                message.contains(&format!("manifest.csv:2: dtype `{dtype}` cannot be sent")),
                "{message}"
            );
        }
        for (row, bytes, wanted) in [
            ("a.bin.zst,M01,2000,x,int32le,1,0,g,", [0, 0, 0, 127].as_slice(), "at most 24 bits"),
            ("a.bin.zst,M01,2000,x,int16le,1,0,g,", &[1, 2, 3], "3 bytes are no whole number of frames"),
            ("a.bin.zst,M01,2000,x,int16le,0,0,g,", &[1, 2], "a scale of 0 cannot be sent"),
        ] {
            let (_dir, recordings) = read(row, bytes);
            let message = format!("{:#}", load(&recordings.unwrap()[0]).err().unwrap());
            assert!(message.contains(wanted), "{message}");
        }
    }
}
