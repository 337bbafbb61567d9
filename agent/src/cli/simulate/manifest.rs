//! Recordings by manifest: a CSV file with one row a recording, beside zstd files of raw interleaved little-endian samples.

use anyhow::{Context as _, bail, ensure};
use spindle_firmware::host::Playback;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest recording that is read, unpacked: all of it is held in memory while it plays.
const RECORDING_BYTES_MAX: u64 = 1 << 30;

/// Standard gravity, m/s².
const G: f64 = 9.806_65;

/// One row of a manifest.
#[derive(Debug, Clone)]
pub(super) struct Recording {
    /// The file.
    pub(super) path: PathBuf,
    /// Its name in the manifest, without folder and endings.
    pub(super) name: String,
    /// The machine, as the manifest has it.
    pub(super) machine: String,
    dtype: Dtype,
    rate_hz: f64,
    channels: Vec<Channel>,
}

#[derive(Debug, Clone)]
struct Channel {
    axis: String,
    /// m/s² a count.
    scale: f64,
}

/// How the samples are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dtype {
    Int16,
    Int24,
    Int32,
}

impl Dtype {
    const fn bytes(self) -> usize {
        match self {
            Self::Int16 => 2,
            Self::Int24 => 3,
            Self::Int32 => 4,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Int16 => 16,
            // 32-bit files are taken when their values fit the wire's 24 bits.
            Self::Int24 | Self::Int32 => 24,
        }
    }
}

/// Channels of a recording that share one scale: what one stream can carry.
pub(super) struct Part {
    /// Name of the sensor: the recording's own for the first part.
    pub(super) suffix: String,
    /// The samples.
    pub(super) playback: Playback,
}

/// Reads a manifest.
///
/// # Errors
/// Names the file, the line and what would be right. A row whose samples cannot be carried is an error, not a gap.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Recording>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read manifest {}", path.display()))?;
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((_, header)) = lines.next() else { bail!("manifest {} is empty", path.display()) };
    let columns: HashMap<String, usize> = fields(header).into_iter().zip(0..).collect();
    let folder = path.parent().unwrap_or(Path::new("."));
    lines
        .map(|(number, line)| {
            row(&columns, &fields(line), folder).with_context(|| format!("{}:{}", path.display(), number + 1))
        })
        .collect()
}

fn row(columns: &HashMap<String, usize>, fields: &[String], folder: &Path) -> anyhow::Result<Recording> {
    let field = |name: &str| {
        let at = columns.get(name).with_context(|| format!("column `{name}` is missing"))?;
        fields.get(*at).map(String::as_str).with_context(|| format!("the row ends before column `{name}`"))
    };
    let dtype = match field("dtype")? {
        "int16le" => Dtype::Int16,
        "int24le" => Dtype::Int24,
        "int32le" => Dtype::Int32,
        other => bail!("dtype `{other}` cannot be sent as samples; int16le, int24le and int32le can"),
    };
    let rate_text = field("fs_hz")?;
    let rate_hz: f64 = rate_text.parse().with_context(|| format!("fs_hz `{rate_text}` is not a number"))?;
    let unit = match field("unit")? {
        "g" => G,
        "mg" => G / 1000.0,
        "m/s^2" | "m/s2" => 1.0,
        other => bail!("unit `{other}` is no acceleration; g, mg and m/s^2 are"),
    };
    let axes: Vec<&str> = field("axes")?.split('|').collect();
    let scales: Vec<&str> = field("scale")?.split('|').collect();
    ensure!(axes.len() == scales.len(), "{} axes but {} scales", axes.len(), scales.len());
    let channels = axes.iter().zip(scales).map(|(axis, scale)| {
        let scale: f64 = scale.parse().with_context(|| format!("scale `{scale}` is not a number"))?;
        Ok(Channel { axis: (*axis).to_owned(), scale: scale * unit })
    });
    let file = field("file")?;
    let name = Path::new(file).file_name().and_then(|name| name.to_str()).unwrap_or(file);
    Ok(Recording {
        path: folder.join(file),
        name: name.trim_end_matches(".zst").trim_end_matches(".bin").to_owned(),
        machine: field("machine")?.to_owned(),
        dtype,
        rate_hz,
        channels: channels.collect::<anyhow::Result<_>>()?,
    })
}

impl Recording {
    /// Reads the samples. Channels of different scale become parts of their own, since a stream has one scale.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(super) fn load(&self) -> anyhow::Result<Vec<Part>> {
        let bytes = self.bytes().with_context(|| format!("cannot read {}", self.path.display()))?;
        let frame = self.dtype.bytes() * self.channels.len();
        ensure!(
            bytes.len() % frame == 0,
            "{}: {} bytes are no whole number of frames of {frame} bytes",
            self.path.display(),
            bytes.len()
        );
        let values: Vec<i32> = bytes.chunks_exact(self.dtype.bytes()).map(value).collect();
        let mut parts = Vec::new();
        let mut left: Vec<usize> = (0..self.channels.len()).collect();
        while let Some(&first) = left.first() {
            let scale = self.channels[first].scale;
            let (same, others): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|&at| (self.channels[at].scale / scale - 1.0).abs() < 1e-9);
            left = others;
            parts.push(self.part(&same, &values)?);
        }
        if let [only] = parts.as_mut_slice() {
            only.suffix.clear();
        }
        Ok(parts)
    }

    fn part(&self, channels: &[usize], values: &[i32]) -> anyhow::Result<Part> {
        let letters: String = channels
            .iter()
            .map(|&at| self.channels[at].axis.chars().next().unwrap_or('x').to_ascii_lowercase())
            .collect();
        let all = self.channels.len();
        let samples: Arc<[i32]> = if channels.len() == all {
            values.into()
        } else {
            values.chunks_exact(all).flat_map(|frame| channels.iter().map(|&at| frame[at])).collect()
        };
        #[allow(clippy::cast_possible_truncation, reason = "the wire's scale is a float of 32 bits")]
        let scale = self.channels[channels[0]].scale as f32;
        let playback = Playback::new(samples, &letters, self.dtype.bits(), self.rate_hz, scale).with_context(|| {
            format!(
                "{}: cannot be sent: a stream has 1 to 8 channels, values of at most {} bits, a positive scale and a rate",
                self.path.display(),
                self.dtype.bits()
            )
        })?;
        let axes: Vec<&str> = channels.iter().map(|&at| self.channels[at].axis.as_str()).collect();
        Ok(Part { suffix: format!("-{}", axes.join("-")), playback })
    }

    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        use std::io::Read;
        let file = std::fs::File::open(&self.path)?;
        let mut bytes = Vec::new();
        let packed = self.path.extension().is_some_and(|ending| ending == "zst");
        let reader: Box<dyn Read> = if packed { Box::new(zstd::Decoder::new(file)?) } else { Box::new(file) };
        reader.take(RECORDING_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        ensure!(bytes.len() as u64 <= RECORDING_BYTES_MAX, "it holds more than {RECORDING_BYTES_MAX} bytes");
        Ok(bytes)
    }
}

/// A little-endian two's complement number of two to four bytes.
fn value(bytes: &[u8]) -> i32 {
    match *bytes {
        [a, b] => i32::from(i16::from_le_bytes([a, b])),
        [a, b, c] => i32::from_le_bytes([0, a, b, c]) >> 8,
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// Splits a line of CSV; a field in double quotes may hold commas, and quotes doubled.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields.last_mut().map(|field| field.push('"')).unwrap_or_default();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().map(|field| field.push(other)).unwrap_or_default(),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "file,machine,fs_hz,axes,dtype,scale,offset,unit,note\n";

    fn manifest(row: &str, samples: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.bin.zst"), zstd::encode_all(samples, 1).unwrap()).unwrap();
        let path = dir.path().join("manifest.csv");
        std::fs::write(&path, format!("{HEADER}{row}\n")).unwrap();
        (dir, path)
    }

    #[test]
    fn a_recording_becomes_one_stream_and_its_scale_is_in_si() {
        let (_dir, path) = manifest(
            "a.bin.zst,M01,2000,x|y,int16le,0.001|0.001,0|0,g,\"a, b\"",
            &[1, 0, 2, 0, 255, 255, 4, 0],
        );
        let recordings = read(&path).unwrap();
        assert_eq!((recordings[0].name.as_str(), recordings[0].machine.as_str()), ("a", "M01"));
        let parts = recordings[0].load().unwrap();
        assert_eq!((parts.len(), parts[0].suffix.as_str(), parts[0].playback.len()), (1, "", 2));
    }

    #[test]
    fn channels_of_different_scale_become_streams_of_their_own() {
        let (_dir, path) = manifest("a.bin.zst,M01,2000,DE|FE,int16le,0.001|0.002,0|0,g,", &[1, 0, 2, 0]);
        let parts = read(&path).unwrap()[0].load().unwrap();
        let suffixes: Vec<_> = parts.iter().map(|part| part.suffix.as_str()).collect();
        assert_eq!(suffixes, ["-DE", "-FE"]);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_name_with_file_and_line() {
        let cases = [
            ("a.bin.zst,M01,2000,x,float32le,1,0,g,", "manifest.csv:2: dtype `float32le` cannot be sent"),
            ("a.bin.zst,M01,fast,x,int16le,1,0,g,", "fs_hz `fast` is not a number"),
            ("a.bin.zst,M01,2000,x,int16le,1,0,mm/s,", "unit `mm/s` is no acceleration"),
            ("a.bin.zst,M01,2000,x|y,int16le,1,0,g,", "2 axes but 1 scales"),
        ];
        for (row, wanted) in cases {
            let (_dir, path) = manifest(row, &[]);
            let message = format!("{:#}", read(&path).unwrap_err());
            assert!(message.contains(wanted), "{message}");
        }
        let (_dir, path) = manifest("a.bin.zst,M01,2000,x,int32le,1,0,g,", &[0, 0, 0, 127]);
        let message = format!("{:#}", read(&path).unwrap()[0].load().err().unwrap());
        assert!(message.contains("at most 24 bits"), "{message}");
        let (_dir, path) = manifest("a.bin.zst,M01,2000,x,int16le,1,0,g,", &[1, 2, 3]);
        let message = format!("{:#}", read(&path).unwrap()[0].load().err().unwrap());
        assert!(message.contains("3 bytes are no whole number of frames"), "{message}");
    }
}
