//! Recordings: a folder with a `manifest.csv` and raw sample files.
//!
//! `*.bin.zst` is zstd of little-endian samples, interleaved by channel, no header (`*.bin`: the same, not compressed). The
//! manifest has one row per file; of its columns `file`, `dataset`, `machine`, `process`, `label`, `fs_hz`, `axes`, `dtype`, `scale`,
//! `offset` and `unit` are read, in any order; `physical = raw * scale + offset` per channel, channels separated by `|`.

use crate::record::SensorKey;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Samples per channel in one piece, as long as a sensor's block.
pub const PIECE_LEN: usize = 512;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The operating system, or the decompressor, refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The manifest says something that cannot be.
    #[error("{}:{line}: {what}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

/// How a sample is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleType {
    /// Two bytes.
    Int16,
    /// Three bytes.
    Int24,
    /// Four bytes.
    Int32,
    /// IEEE 754 single precision.
    Float32,
}

impl SampleType {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "int16le" => Self::Int16,
            "int24le" => Self::Int24,
            "int32le" => Self::Int32,
            "float32le" => Self::Float32,
            _ => return None,
        })
    }

    const fn len(self) -> usize {
        match self {
            Self::Int16 => 2,
            Self::Int24 => 3,
            Self::Int32 | Self::Float32 => 4,
        }
    }

    fn read(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Self::Int16, &[a, b]) => f64::from(i16::from_le_bytes([a, b])),
            (Self::Int24, &[a, b, c]) => f64::from(i32::from_le_bytes([0, a, b, c]) >> 8),
            (Self::Int32, &[a, b, c, d]) => f64::from(i32::from_le_bytes([a, b, c, d])),
            (Self::Float32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
            _ => f64::NAN,
        }
    }
}

/// One row of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The sample file.
    pub path: PathBuf,
    /// Its name in the manifest.
    pub file: String,
    /// Data set; empty if not given.
    pub dataset: String,
    /// Machine; empty if not given.
    pub machine: String,
    /// Process; empty if not given.
    pub process: String,
    /// Label; empty if not given.
    pub label: String,
    /// Sample rate.
    pub rate_hz: f64,
    /// Names of the channels.
    pub axes: Vec<String>,
    /// How a sample is stored.
    pub dtype: SampleType,
    /// m/s² per count, per channel.
    pub scale_si: Vec<f64>,
    /// m/s² at count 0, per channel.
    pub offset_si: Vec<f64>,
}

/// The recordings of a folder, in the manifest's order, and the names of the rows that hold no samples (another `dtype`).
///
/// # Errors
/// [`RecordingError`], naming the manifest's line.
pub fn manifest(dir: &Path) -> Result<(Vec<Recording>, Vec<String>), RecordingError> {
    let path = dir.join("manifest.csv");
    let text =
        std::fs::read_to_string(&path).map_err(|source| RecordingError::Io { path: path.clone(), source })?;
    let mut lines = text.lines().enumerate();
    let wrong = |line, what| RecordingError::Manifest { path: path.clone(), line, what };
    let header = lines.next().map(|(_, line)| fields(line)).unwrap_or_default();
    let (mut recordings, mut others) = (Vec::new(), Vec::new());
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let row = Row { header: &header, fields: fields(line) };
        if SampleType::parse(row.get("dtype")).is_none() {
            others.push(row.get("file").to_owned());
            continue;
        }
        recordings.push(row.recording(dir).map_err(|what| wrong(index + 1, what))?);
    }
    Ok((recordings, others))
}

/// Fields of a CSV line; a quoted field may hold commas and doubled quotes, but no line break.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields.last_mut().into_iter().for_each(|field| field.push('"'));
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

struct Row<'a> {
    header: &'a [String],
    fields: Vec<String>,
}

impl Row<'_> {
    fn get(&self, name: &str) -> &str {
        let at = self.header.iter().position(|column| column.trim() == name);
        at.and_then(|at| self.fields.get(at)).map_or("", |field| field.trim())
    }

    fn numbers(&self, name: &str, default: f64, channels: usize) -> Result<Vec<f64>, String> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(vec![default; channels]);
        }
        let parse = |part: &str| part.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let numbers: Option<Vec<f64>> = text.split('|').map(parse).collect();
        match numbers {
            Some(numbers) if numbers.len() == channels => Ok(numbers),
            Some(numbers) if numbers.len() == 1 => Ok(vec![numbers[0]; channels]),
            _ => Err(format!("{name} is {text:?}, not {channels} numbers separated by |")),
        }
    }

    fn recording(&self, dir: &Path) -> Result<Recording, String> {
        let file = self.get("file");
        if file.is_empty() {
            return Err("file is empty".into());
        }
        let axes: Vec<String> = self.get("axes").split('|').map(|axis| axis.trim().to_owned()).collect();
        if axes.len() > spindle_common::wire::AXES_MAX || axes.iter().any(String::is_empty) {
            return Err(format!("axes is {:?}, not 1 to 8 names separated by |", self.get("axes")));
        }
        let rate: Option<f64> = self.get("fs_hz").parse().ok();
        let rate_hz = rate
            .filter(|hz| hz.is_finite() && *hz > 0.0)
            .ok_or_else(|| format!("fs_hz is {:?}, not a rate above 0", self.get("fs_hz")))?;
        let to_si = match self.get("unit") {
            "g" => 9.806_65,
            "mg" => 9.806_65e-3,
            "m/s2" | "m/s^2" | "m/s²" => 1.0,
            other => return Err(format!("unit is {other:?}, not g, mg or m/s2")),
        };
        let scale = self.numbers("scale", 1.0, axes.len())?;
        let offset = self.numbers("offset", 0.0, axes.len())?;
        Ok(Recording {
            path: dir.join(file),
            file: file.to_owned(),
            dataset: self.get("dataset").to_owned(),
            machine: self.get("machine").to_owned(),
            process: self.get("process").to_owned(),
            label: self.get("label").to_owned(),
            rate_hz,
            axes,
            dtype: SampleType::parse(self.get("dtype")).ok_or("dtype is unknown")?,
            scale_si: scale.into_iter().map(|s| s * to_si).collect(),
            offset_si: offset.into_iter().map(|o| o * to_si).collect(),
        })
    }
}

impl Recording {
    /// Data set, machine and file as a sensor's key: letters that a name may not hold become `-`, and of a long name the end stays.
    #[must_use]
    pub fn key(&self) -> SensorKey {
        let stem = self.file.strip_suffix(".zst").unwrap_or(&self.file);
        let stem = stem.strip_suffix(".bin").unwrap_or(stem);
        SensorKey { site: name(&self.dataset), machine: name(&self.machine), sensor: name(stem) }
    }

    /// Opens the file.
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn open(&self) -> Result<Pieces<'_>, RecordingError> {
        let fail = |source| RecordingError::Io { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(fail)?;
        let reader: Box<dyn Read> = if self.file.ends_with(".zst") {
            Box::new(zstd::stream::read::Decoder::new(file).map_err(fail)?)
        } else {
            Box::new(BufReader::new(file))
        };
        Ok(Pieces { recording: self, reader, bytes: Vec::new() })
    }
}

/// A recording in pieces of [`PIECE_LEN`] samples per channel.
pub struct Pieces<'a> {
    recording: &'a Recording,
    reader: Box<dyn Read>,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("file", &self.recording.file).finish_non_exhaustive()
    }
}

impl Pieces<'_> {
    /// Puts the next piece, planar in m/s², into `planar`; returns its samples per channel, 0 at the end. Bytes at the end that
    /// make no whole sample are left out.
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn next(&mut self, planar: &mut Vec<f32>) -> Result<usize, RecordingError> {
        let Recording { axes, dtype, scale_si, offset_si, path, .. } = self.recording;
        let row_len = axes.len() * dtype.len();
        self.bytes.resize(PIECE_LEN * row_len, 0);
        let mut filled = 0;
        while filled < self.bytes.len() {
            match self.reader.read(&mut self.bytes[filled..]) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(RecordingError::Io { path: path.clone(), source }),
            }
        }
        let samples = filled / row_len;
        planar.clear();
        for channel in 0..axes.len() {
            let (scale, offset) = (scale_si[channel], offset_si[channel]);
            planar.extend(self.bytes[..samples * row_len].chunks_exact(row_len).map(|row| {
                let start = channel * dtype.len();
                (dtype.read(&row[start..start + dtype.len()]) * scale + offset) as f32
            }));
        }
        Ok(samples)
    }
}

fn name(text: &str) -> std::sync::Arc<str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let clean: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let start = clean.len().saturating_sub(spindle_common::id::NAME_LEN_MAX);
    let end = &clean[start..];
    if spindle_common::id::is_name(end) { end.into() } else { "unknown".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(manifest: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("manifest.csv"), manifest).expect("can write");
        dir
    }

    #[test]
    fn a_recording_is_read_in_its_own_units() {
        let rows = "file,machine,fs_hz,axes,dtype,scale,offset,unit,note\n\
                    a/one.bin,M 1,1000,x|y,int16le,0.5|1,0|2,m/s2,\"a, \"\"b\"\"\"\n\
                    log.csv,M1,,see file,csv,,,mg,\n";
        let dir = folder(rows);
        std::fs::create_dir(dir.path().join("a")).expect("can make a folder");
        let bytes: Vec<u8> = [2_i16, 3, -4, -5, 6].iter().flat_map(|s| s.to_le_bytes()).collect();
        std::fs::write(dir.path().join("a/one.bin"), bytes).expect("can write");
        let (recordings, others) = manifest(dir.path()).expect("a manifest");
        assert_eq!(others, ["log.csv"]);
        assert_eq!(recordings[0].key().to_string(), "unknown/M-1/a-one");
        let mut pieces = recordings[0].open().expect("opens");
        let mut planar = Vec::new();
        assert_eq!(pieces.next(&mut planar).expect("reads"), 2);
        assert_eq!(planar, [1.0, -2.0, 5.0, -3.0]);
        assert_eq!(pieces.next(&mut planar).expect("reads"), 0);
    }

    #[test]
    fn every_sample_type_is_read() {
        assert_eq!(SampleType::Int24.read(&[0xFE, 0xFF, 0xFF]), -2.0);
        assert_eq!(SampleType::Int24.read(&[0xFF, 0xFF, 0x7F]), 8_388_607.0);
        assert_eq!(SampleType::Int32.read(&(-7_i32).to_le_bytes()), -7.0);
        assert_eq!(SampleType::Float32.read(&1.5_f32.to_le_bytes()), 1.5);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (row, what) in [
            ("a.bin,1000,x,int16le,1,0,inch", "unit is \"inch\""),
            ("a.bin,zero,x,int16le,1,0,g", "fs_hz is \"zero\""),
            ("a.bin,1000,x|y,int16le,1|2|3,0,g", "scale is \"1|2|3\""),
            ("a.bin,1000,,int16le,1,0,g", "axes is \"\""),
            (",1000,x,int16le,1,0,g", "file is empty"),
        ] {
            let dir = folder(&format!("file,fs_hz,axes,dtype,scale,offset,unit\n{row}\n"));
            let error = manifest(dir.path()).expect_err(row).to_string();
            assert!(error.contains("manifest.csv:2: ") && error.contains(what), "{error}");
        }
    }
}
