//! Where the things are that `tests/run` prepares: Kafka's jars, the Python environment, recordings, the program itself.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The project's root.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

fn tools() -> PathBuf {
    std::env::var_os("SPINDLE_TOOLS").map_or_else(|| root().join(".tools"), PathBuf::from)
}

/// Folder of Kafka's jars.
///
/// # Errors
/// When they are missing.
pub fn kafka_jars() -> Result<PathBuf> {
    let jars = tools().join("kafka");
    ensure!(jars.is_dir(), "Kafka's jars are not in {}: run tests/run once", jars.display());
    Ok(jars)
}

/// A Python with numpy and scipy.
///
/// # Errors
/// When it is missing.
pub fn python() -> Result<PathBuf> {
    let python = tools().join("venv/bin/python");
    ensure!(python.is_file(), "no Python environment at {}: run tests/run once", python.display());
    Ok(python)
}

/// The `spindle` program: `$SPINDLE_BIN`, else the one of the same profile as this test.
///
/// # Errors
/// When it has not been built.
pub fn spindle() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SPINDLE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let this = std::env::current_exe().context("path of the test program")?;
    let folders = this.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("spindle")).find(|path| path.is_file());
    found.context("the spindle program is not beside this test: cargo build it in the same profile first")
}

/// Folder of recordings: `$SPINDLE_DATA`, else `../shared/data` beside the project; `None` where neither exists.
#[must_use]
pub fn recordings() -> Option<PathBuf> {
    let named = std::env::var_os("SPINDLE_DATA").map(PathBuf::from);
    let beside = root().parent().map(|parent| parent.join("shared/data"));
    [named, beside].into_iter().flatten().find(|folder| folder.is_dir())
}

/// A TCP port that was free a moment ago.
///
/// # Errors
/// When the kernel has none.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("bind to a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A command of the machine, found also where Debian keeps system programs.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    if let Some(found) = format!("{path}:/usr/sbin:/sbin")
        .split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|p| p.is_file())
    {
        command = Command::new(found);
    }
    command
}

/// Runs `command` to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error holds what it printed.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{:?} ended with {}: {text}{}",
        command.get_program(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}
