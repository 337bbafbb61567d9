//! What a board was promised, in a file that survives the board: each line is written before the board learns of it.

use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The gateway has acknowledged this block.
    Acknowledged(Promise),
    /// The gateway may know by now that the sensor took so many samples.
    Told {
        /// Which sensor.
        stream: u8,
        /// Samples per channel.
        taken: u64,
    },
    /// The board sent two different blocks of one number.
    Forked {
        /// Its number.
        seq: u32,
    },
    /// The board ended in order; its own counts.
    Ended(Counts),
}

/// A block that the gateway has promised to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// Which sensor.
    pub stream: u8,
    /// Its number.
    pub seq: u32,
    /// Samples per channel since boot up to its end.
    pub end: u64,
    /// Hash of the message, see [`super::hash`].
    pub hash: u64,
}

/// A board's own counts at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Whether every block was acknowledged, or dropped and counted.
    pub is_complete: bool,
    /// By sensor: samples per channel that were taken, and that were lost on the board.
    pub streams: Vec<(u64, u64)>,
}

/// The writing end.
#[derive(Debug)]
pub struct Ledger(File);

impl Ledger {
    /// Opens a new ledger.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| format!("open the ledger {}", path.display()))?))
    }

    /// Writes the entries with one call. What the kernel has taken survives the end of this process.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn write(&mut self, entries: &[Entry]) -> Result<()> {
        let text: String = entries.iter().map(line).collect();
        Ok(self.0.write_all(text.as_bytes())?)
    }
}

fn line(entry: &Entry) -> String {
    match entry {
        Entry::Acknowledged(Promise { stream, seq, end, hash }) => {
            format!("acknowledged {stream} {seq} {end} {hash}\n")
        }
        Entry::Told { stream, taken } => format!("told {stream} {taken}\n"),
        Entry::Forked { seq } => format!("forked {seq}\n"),
        Entry::Ended(counts) => {
            let streams: String =
                counts.streams.iter().map(|(taken, lost)| format!(" {taken} {lost}")).collect();
            format!("ended {}{streams}\n", u8::from(counts.is_complete))
        }
    }
}

fn parse(line: &str) -> Result<Entry> {
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>()?;
    Ok(match (kind, numbers.as_slice()) {
        ("acknowledged", &[stream, seq, end, hash]) => {
            Entry::Acknowledged(Promise { stream: stream.try_into()?, seq: seq.try_into()?, end, hash })
        }
        ("told", &[stream, taken]) => Entry::Told { stream: stream.try_into()?, taken },
        ("forked", &[seq]) => Entry::Forked { seq: seq.try_into()? },
        ("ended", &[complete, ref streams @ ..]) => Entry::Ended(Counts {
            is_complete: complete == 1,
            streams: streams.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(),
        }),
        _ => bail!("a ledger holds the line {line:?}"),
    })
}

/// The reading end; each entry is given once.
#[derive(Debug)]
pub struct LedgerReader {
    path: PathBuf,
    at: u64,
}

impl LedgerReader {
    /// Of a ledger that may not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), at: 0 }
    }

    /// Entries since the last call. A line without its end was not written whole: it counts when it is.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn news(&mut self) -> Result<Vec<Entry>> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(Vec::new()) };
        let mut text = String::new();
        file.seek(SeekFrom::Start(self.at))?;
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.at += whole as u64;
        text[..whole].lines().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_once_each_and_a_torn_line_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut reader = LedgerReader::new(&path);
        assert_eq!(reader.news().unwrap(), []);
        let entries = [
            Entry::Acknowledged(Promise { stream: 1, seq: 2, end: 3, hash: u64::MAX }),
            Entry::Told { stream: 0, taken: 9 },
            Entry::Forked { seq: 4 },
            Entry::Ended(Counts { is_complete: true, streams: vec![(5, 6), (7, 8)] }),
        ];
        Ledger::create(&path).unwrap().write(&entries[..2]).unwrap();
        assert_eq!(reader.news().unwrap(), entries[..2]);
        Ledger::create(&path).unwrap().write(&entries[2..]).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"acknowledged 1 2").unwrap();
        assert_eq!(reader.news().unwrap(), entries[2..]);
        assert_eq!(reader.news().unwrap(), []);
    }
}
