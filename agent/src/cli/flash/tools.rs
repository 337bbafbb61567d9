//! Programs that `flash` starts: found on the PATH or named with the command that gets them, shown as a shell would take them,
//! ended with this one. What they print goes into files, which are looked at as they grow: no threads.

use crate::runtime::Stop;
use anyhow::{Context as _, bail};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;

/// How often a program is looked at.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// Of what a program prints, the end that is kept.
const TAIL_BYTES: u64 = 32 * 1024;

/// A program with its arguments.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    program: OsString,
    arguments: Vec<OsString>,
    folder: Option<PathBuf>,
    environment: Vec<(&'static str, Option<OsString>)>,
    get: &'static str,
}

impl Tool {
    /// `get` is the command that gets it.
    pub(super) fn new(program: impl Into<OsString>, get: &'static str) -> Self {
        Self { program: program.into(), arguments: Vec::new(), folder: None, environment: Vec::new(), get }
    }

    pub(super) fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(super) fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Sets a variable, or takes it away.
    pub(super) fn variable(mut self, name: &'static str, value: Option<OsString>) -> Self {
        self.environment.push((name, value));
        self
    }

    /// As one would type it.
    pub(super) fn words(&self) -> String {
        let folder = self.folder.iter().map(|folder| format!("cd {} &&", quoted(folder.as_os_str())));
        let set = |(name, value): &(&str, Option<OsString>)| {
            value.as_ref().map(|value| format!("{name}={}", quoted(value)))
        };
        let words = std::iter::once(&self.program).chain(&self.arguments).map(|word| quoted(word));
        let all: Vec<_> = folder.chain(self.environment.iter().filter_map(set)).chain(words).collect();
        all.join(" ")
    }

    /// Where it is. A program that is named with its folder is taken as it is.
    ///
    /// # Errors
    /// It is not on `path`; the words name the command that gets it.
    pub(super) fn find(&self, path: &OsStr) -> anyhow::Result<PathBuf> {
        let program = Path::new(&self.program);
        if program.components().count() > 1 {
            return Ok(self.folder.as_ref().map_or(program.to_owned(), |folder| folder.join(program)));
        }
        let places = std::env::split_paths(path).map(|folder| folder.join(program));
        places
            .into_iter()
            .find(|place| is_program(place))
            .with_context(|| format!("{} is missing; get it: {}", program.display(), self.get))
    }

    /// Starts it.
    pub(super) fn start(&self, path: &OsStr) -> anyhow::Result<Running> {
        let name = self.program.to_string_lossy().into_owned();
        let out = NamedTempFile::new().context("cannot make a file for what a program prints")?;
        let error = NamedTempFile::new().context("cannot make a file for what a program prints")?;
        let mut command = Command::new(self.find(path)?);
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(out.reopen()?).stderr(error.reopen()?);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        // What a cargo above us tells its program is not meant for the cargo below.
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            let is_kept = text == "CARGO_HOME" || text == "CARGO_TARGET_DIR" || text.starts_with("CARGO_NET");
            if (text.starts_with("CARGO") && !is_kept)
                || text == "RUSTUP_TOOLCHAIN"
                || text == "LD_LIBRARY_PATH"
            {
                command.env_remove(&variable);
            }
        }
        for (variable, value) in &self.environment {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        Ok(Running { name, child, out, error })
    }
}

/// A word as a shell takes it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    child: Child,
    out: NamedTempFile,
    error: NamedTempFile,
}

impl Running {
    /// Waits for its end. `seen` is shown the last line that it printed on standard error.
    ///
    /// # Errors
    /// `stop` was asked for.
    pub(super) fn wait(&mut self, stop: &Stop, mut seen: impl FnMut(&str)) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if stop.is_set() {
                bail!("ended as asked while {} ran", self.name);
            }
            seen(self.said().lines().next_back().unwrap_or_default());
            stop.sleep(POLL);
        }
    }

    /// How it has ended, if it has.
    pub(super) fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot look at {}", self.name))
    }

    /// The end of what it has printed on standard output.
    pub(super) fn printed(&self) -> String {
        tail(&self.out)
    }

    /// The end of what it has printed on standard error.
    pub(super) fn said(&self) -> String {
        tail(&self.error)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(file: &NamedTempFile) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = file.reopen()?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
