//! One lane's files.

use super::folder::Folder;
use crate::clock::Now;
use crate::config::FilesForward;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// End of a finished file's name.
pub(super) const FINISHED: &str = ".ndjson";
/// End of the name of a file that is written.
pub(super) const PART: &str = ".ndjson.part";
/// Bytes that gather before they are written.
const BUFFER_LEN: usize = 256 << 10;

/// Why a line is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder holds what it may.
    #[error("{path} holds {used} of at most {size_max} bytes")]
    Full {
        /// The folder.
        path: PathBuf,
        /// Bytes of its files.
        used: u64,
        /// Most that they may take.
        size_max: u64,
    },
}

impl WriteError {
    /// In a few words.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Io { .. } => "cannot write",
            Self::Full { .. } => "the folder is full: take finished files away, or raise size_max",
        }
    }
}

/// Writes the files of one lane.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    lane: &'static str,
    open: Option<Open>,
    /// The file to go on with after a failure, and how much of it was fsynced.
    sound: Option<(PathBuf, u64)>,
    /// A file that an earlier run left is looked for once.
    looked: bool,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// Bytes of it, those in `buffer` included.
    len: u64,
    synced: u64,
    begun_ns: u64,
    /// When the first line that is not fsynced was written.
    waits_since_ns: Option<u64>,
}

impl Writer {
    pub(super) fn new(dir: &Path, lane: &'static str) -> Self {
        Self { dir: dir.to_owned(), lane, open: None, sound: None, looked: false }
    }

    /// Adds a line, which is not durable before [`Self::sync`].
    pub(super) fn write(
        &mut self,
        folder: &mut Folder,
        position: u64,
        line: &[u8],
        now: Now,
    ) -> Result<(), WriteError> {
        if self.open.is_none() {
            folder.forget();
            std::fs::create_dir_all(&self.dir).map_err(io(&self.dir))?;
        }
        if folder.will_look(line.len() as u64) {
            self.flush()?;
        }
        let taken = folder.take(line.len() as u64).map_err(io(&self.dir))?;
        if let Err(used) = taken {
            if self.open.is_some() {
                // So that all of it can be taken away.
                self.finish()?;
            }
            return Err(WriteError::Full { path: self.dir.clone(), used, size_max: folder.size_max() });
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                none.insert(begin(&self.dir, self.lane, &mut self.sound, &mut self.looked, position, now)?)
            }
        };
        open.buffer.extend_from_slice(line);
        open.len += line.len() as u64;
        open.waits_since_ns.get_or_insert(now.mono_ns);
        if open.buffer.len() >= BUFFER_LEN { open.flush() } else { Ok(()) }
    }

    /// Hands all lines to the system.
    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        self.open.as_mut().map_or(Ok(()), Open::flush)
    }

    /// Makes all lines durable.
    pub(super) fn sync(&mut self) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.synced == open.len {
            return Ok(());
        }
        open.flush()?;
        open.file.sync_data().map_err(io(&open.path))?;
        open.synced = open.len;
        open.waits_since_ns = None;
        Ok(())
    }

    /// How long something has been waiting for its fsync, ns.
    pub(super) fn waits_since(&self, now: Now) -> u64 {
        let since = self.open.as_ref().and_then(|open| open.waits_since_ns);
        since.map_or(0, |since_ns| now.mono_ns.saturating_sub(since_ns))
    }

    /// Whether the file is as large or as old as it may be.
    pub(super) fn is_due(&self, config: &FilesForward, now: Now) -> bool {
        let age_ns_max = u64::try_from(config.rotate_age.as_nanos()).unwrap_or(u64::MAX);
        self.open.as_ref().is_some_and(|open| {
            open.len >= config.rotate_size.as_u64()
                || open.len > 0 && now.mono_ns.saturating_sub(open.begun_ns) >= age_ns_max
        })
    }

    /// Finishes the file: durable first, then under its final name.
    pub(super) fn finish(&mut self) -> Result<(), WriteError> {
        self.sync()?;
        let Some(open) = &self.open else { return Ok(()) };
        let finished = open.path.with_extension("");
        std::fs::rename(&open.path, &finished).map_err(io(&open.path))?;
        self.open = None;
        self.sound = None;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io(&self.dir))
    }

    /// Leaves the file after a failure; what was not fsynced does not count, and is never fsynced on the same handle again.
    pub(super) fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.sound = Some((open.path, open.synced));
        }
    }
}

impl Open {
    fn flush(&mut self) -> Result<(), WriteError> {
        let result = self.file.write_all(&self.buffer).map_err(io(&self.path));
        self.buffer.clear();
        result
    }
}

/// The file to write to: the one of before the failure, the one that an earlier run left, or a new one.
fn begin(
    dir: &Path,
    lane: &str,
    sound: &mut Option<(PathBuf, u64)>,
    looked: &mut bool,
    position: u64,
    now: Now,
) -> Result<Open, WriteError> {
    if let Some((path, len)) = sound
        && path.exists()
    {
        return go_on(path.clone(), *len, now);
    }
    if !*looked {
        let left = leftovers(dir, lane)?;
        *looked = true;
        if let Some((path, earlier)) = left.split_last() {
            for path in earlier {
                let cut = || {
                    OpenOptions::new().write(true).open(path)?.set_len(sound_len(path)?)?;
                    std::fs::rename(path, path.with_extension(""))
                };
                cut().map_err(io(path))?;
            }
            let len = sound_len(path).map_err(io(path))?;
            tracing::info!(path = %path.display(), len, "goes on with the file of before");
            return go_on(path.clone(), len, now);
        }
    }
    let seconds = jiff::Timestamp::from_nanosecond(i128::from(now.utc_ns)).unwrap_or_default();
    let time = seconds.strftime("%Y%m%dT%H%M%S");
    let mut number = 0u32;
    let path = loop {
        let again = if number == 0 { String::new() } else { format!("-{number}") };
        let name = format!("{lane}-{position:020}-{time}Z{again}");
        if !dir.join(format!("{name}{FINISHED}")).exists() {
            break dir.join(format!("{name}{PART}"));
        }
        number += 1;
    };
    let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(io(&path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))?;
    Ok(Open::new(path, file, 0, now))
}

impl Open {
    fn new(path: PathBuf, file: File, len: u64, now: Now) -> Self {
        Self { path, file, buffer: Vec::new(), len, synced: len, begun_ns: now.mono_ns, waits_since_ns: None }
    }
}

fn go_on(path: PathBuf, len: u64, now: Now) -> Result<Open, WriteError> {
    let open = || {
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(len)?;
        file.seek(SeekFrom::Start(len))?;
        Ok(file)
    };
    let file = open().map_err(io(&path))?;
    Ok(Open::new(path, file, len, now))
}

/// The lane's files that were not finished, in the order of their positions.
fn leftovers(dir: &Path, lane: &str) -> Result<Vec<PathBuf>, WriteError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        let path = entry.map_err(io(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(PART) && name.strip_prefix(lane).is_some_and(|rest| rest.starts_with('-')) {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// How many bytes of a file are whole lines of JSON from its start.
fn sound_len(path: &Path) -> std::io::Result<u64> {
    let mut reader = BufReader::with_capacity(BUFFER_LEN, File::open(path)?);
    let mut line = Vec::new();
    let mut len = 0;
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        let whole =
            line.last() == Some(&b'\n') && serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok();
        if !whole {
            return Ok(len);
        }
        len += read as u64;
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> WriteError {
    let path = path.to_owned();
    |source| WriteError::Io { path, source }
}
