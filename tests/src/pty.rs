//! A pair of pseudo terminals joined by socat: a serial cable without hardware.

use crate::process::{self, Process};
use crate::{tools, wait};
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// The cable; unplugged when dropped.
#[derive(Debug)]
pub struct PtyPair {
    process: Process,
    folder: TempDir,
}

impl PtyPair {
    /// Plugs a cable in.
    ///
    /// # Errors
    /// When socat does not start.
    pub fn start() -> Result<Self> {
        let folder = process::folder("pty")?;
        let process = Self::launch(&folder)?;
        let mut pair = Self { process, folder };
        pair.wait_until_up()?;
        Ok(pair)
    }

    fn launch(folder: &TempDir) -> Result<Process> {
        let end = |name: &str| format!("pty,raw,echo=0,link={}", folder.path().join(name).display());
        let mut command = tools::command("socat");
        command.args([end("board"), end("gateway")]);
        Process::spawn("socat", &mut command, &folder.path().join("log"))
    }

    fn wait_until_up(&mut self) -> Result<()> {
        wait::until("socat's pseudo terminals", Duration::from_secs(20), || {
            self.process.ensure_running()?;
            Ok((self.board().exists() && self.gateway().exists()).then_some(()))
        })
    }

    /// The board's end.
    #[must_use]
    pub fn board(&self) -> PathBuf {
        self.folder.path().join("board")
    }

    /// The gateway's end.
    #[must_use]
    pub fn gateway(&self) -> PathBuf {
        self.folder.path().join("gateway")
    }

    /// Unplugs the cable: both device files are gone.
    pub fn unplug(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_file(self.board());
        let _ = std::fs::remove_file(self.gateway());
    }

    /// Plugs it in again under the same names.
    ///
    /// # Errors
    /// When socat does not start.
    pub fn plug_in(&mut self) -> Result<()> {
        self.process = Self::launch(&self.folder)?;
        self.wait_until_up()
    }
}
