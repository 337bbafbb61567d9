//! Recordings: a folder with a `manifest.csv` and raw sample files.
//!
//! `*.bin.zst` is zstd of little-endian samples, interleaved by channel, no header (`*.bin`: the same, not compressed). The
//! manifest has one row per file; of its columns `file`, `dataset`, `machine`, `process`, `condition`, `label`, `rpm`, `fs_hz`, `axes`,
//! `dtype`, `scale`, `offset` and `unit` are read, in any order; `physical = raw * scale + offset` per channel, channels separated by `|`, or one
//! number for all. `replay` and `simulate` read them here.

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

    /// Bytes of a sample.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Int16 => 2,
            Self::Int24 => 3,
            Self::Int32 | Self::Float32 => 4,
        }
    }

    /// Bits of a count; `None` where samples are no counts.
    #[must_use]
    pub const fn bits(self) -> Option<u8> {
        match self {
            Self::Int16 => Some(16),
            Self::Int24 => Some(24),
            Self::Int32 => Some(32),
            Self::Float32 => None,
        }
    }

    /// The count in these little-endian bytes; `None` when they hold none.
    #[must_use]
    pub fn count(self, bytes: &[u8]) -> Option<i32> {
        match (self, bytes) {
            (Self::Int16, &[a, b]) => Some(i16::from_le_bytes([a, b]).into()),
            (Self::Int24, &[a, b, c]) => Some(i32::from_le_bytes([0, a, b, c]) >> 8),
            (Self::Int32, &[a, b, c, d]) => Some(i32::from_le_bytes([a, b, c, d])),
            _ => None,
        }
    }

    fn read(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Self::Float32, &[a, b, c, d]) => f64::from(f32::from_le_bytes([a, b, c, d])),
            _ => self.count(bytes).map_or(f64::NAN, f64::from),
        }
    }
}

impl std::fmt::Display for SampleType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Int16 => "int16le",
            Self::Int24 => "int24le",
            Self::Int32 => "int32le",
            Self::Float32 => "float32le",
        })
    }
}

/// What a manifest lists, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file.
    pub path: PathBuf,
    /// Rows that hold samples.
    pub recordings: Vec<Recording>,
    /// Rows that do not.
    pub others: Vec<Other>,
}

/// A row whose `dtype` is none of [`SampleType`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its line, from 1.
    pub line: usize,
    /// The file, as the manifest has it.
    pub file: String,
    /// The type.
    pub dtype: String,
}

/// One row of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Its line, from 1.
    pub line: usize,
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
    /// Under what conditions; empty if not given.
    pub condition: String,
    /// Label; empty if not given.
    pub label: String,
    /// Speed of the shaft, as text, since some change it as they go; empty if not given.
    pub rpm: String,
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

/// Reads a manifest: the file at `path`, or `manifest.csv` in the folder there. Sample files lie beside it.
///
/// # Errors
/// [`RecordingError`], naming the manifest's line.
pub fn manifest(path: &Path) -> Result<Manifest, RecordingError> {
    let path = if path.is_dir() { path.join("manifest.csv") } else { path.to_owned() };
    let dir = path.parent().unwrap_or(Path::new("")).to_owned();
    let text =
        std::fs::read_to_string(&path).map_err(|source| RecordingError::Io { path: path.clone(), source })?;
    let mut lines = (1..).zip(text.lines());
    let header = lines.next().map(|(_, line)| fields(line)).unwrap_or_default();
    let (mut recordings, mut others) = (Vec::new(), Vec::new());
    for (line, text) in lines.filter(|(_, text)| !text.trim().is_empty()) {
        let row = Row { line, header: &header, fields: fields(text) };
        match SampleType::parse(row.get("dtype")) {
            Some(dtype) => {
                let recording = row.recording(&dir, dtype);
                recordings.push(recording.map_err(|what| RecordingError::Manifest {
                    path: path.clone(),
                    line,
                    what,
                })?);
            }
            None => others.push(Other {
                line,
                file: row.get("file").to_owned(),
                dtype: row.get("dtype").to_owned(),
            }),
        }
    }
    Ok(Manifest { path, recordings, others })
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
    line: usize,
    header: &'a [String],
    fields: Vec<String>,
}

impl Row<'_> {
    fn get(&self, name: &str) -> &str {
        let at = self.header.iter().position(|column| column.trim() == name);
        at.and_then(|at| self.fields.get(at)).map_or("", |field| field.trim())
    }

    fn numbers(&self, name: &str, channels: usize) -> Result<Vec<f64>, String> {
        let text = self.get(name);
        let parse = |part: &str| part.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let numbers: Option<Vec<f64>> = text.split('|').map(parse).collect();
        match numbers {
            Some(numbers) if numbers.len() == channels => Ok(numbers),
            Some(numbers) if numbers.len() == 1 => Ok(vec![numbers[0]; channels]),
            _ => Err(format!("{name} is {text:?}, not {channels} numbers separated by |")),
        }
    }

    fn recording(&self, dir: &Path, dtype: SampleType) -> Result<Recording, String> {
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
        // A scale that is left out would have to be guessed; an offset that is left out is 0.
        let scale = self.numbers("scale", axes.len())?;
        let offset = match self.get("offset") {
            "" => vec![0.0; axes.len()],
            _ => self.numbers("offset", axes.len())?,
        };
        Ok(Recording {
            line: self.line,
            path: dir.join(file),
            file: file.to_owned(),
            dataset: self.get("dataset").to_owned(),
            machine: self.get("machine").to_owned(),
            process: self.get("process").to_owned(),
            condition: self.get("condition").to_owned(),
            label: self.get("label").to_owned(),
            rpm: self.get("rpm").to_owned(),
            rate_hz,
            axes,
            dtype,
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

    /// Opens the file to read its samples in m/s².
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn open(&self) -> Result<Pieces<'_>, RecordingError> {
        Ok(Pieces { recording: self, reader: self.reader()?, bytes: Vec::new() })
    }

    /// Opens the file to read its bytes, decompressed.
    ///
    /// # Errors
    /// [`RecordingError::Io`].
    pub fn reader(&self) -> Result<Box<dyn Read>, RecordingError> {
        let fail = |source| RecordingError::Io { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(fail)?;
        Ok(if self.file.ends_with(".zst") {
            Box::new(zstd::stream::read::Decoder::new(file).map_err(fail)?)
        } else {
            Box::new(BufReader::new(file))
        })
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
        let row_len = axes.len() * dtype.bytes();
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
                let start = channel * dtype.bytes();
                (dtype.read(&row[start..start + dtype.bytes()]) * scale + offset) as f32
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
        let Manifest { recordings, others, .. } = manifest(dir.path()).expect("a manifest");
        assert_eq!(others, [Other { line: 3, file: "log.csv".into(), dtype: "csv".into() }]);
        assert_eq!(manifest(&dir.path().join("manifest.csv")).expect("the same").recordings, recordings);
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
            ("a.bin,1000,x,int16le,,0,g", "scale is \"\", not 1 numbers"),
        ] {
            let dir = folder(&format!("file,fs_hz,axes,dtype,scale,offset,unit\n{row}\n"));
            let error = manifest(dir.path()).expect_err(row).to_string();
            assert!(error.contains("manifest.csv:2: ") && error.contains(what), "{error}");
        }
    }
}
