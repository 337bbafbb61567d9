//! The real `spindle` program under control.

use crate::process::{self, Process};
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;
use tempfile::TempDir;

/// What the gateway logs when all its rooms are up.
const READY: &str = "gateway is up";

/// Longest orderly shutdown that the gateway promises.
pub const SHUTDOWN: Duration = Duration::from_secs(10);

/// A gateway: its folder with configuration and data, and its process when it runs.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    folder: TempDir,
    environment: Vec<(String, String)>,
}

/// The gateway's books for one sensor and in sum, as `spindle balance --json` prints them.
pub type Books = serde_json::Value;

impl Agent {
    /// Writes the configuration `toml` (without its `[gateway]` table, which this adds) into a new folder. Without an `[api]` table
    /// of its own it gets a port from the kernel: many gateways run at a time here.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(toml: &str) -> Result<Self> {
        let folder = process::folder("agent")?;
        let data = folder.path().join("data");
        let api = if toml.contains("[api]") { "" } else { "\n[api]\nbind = \"127.0.0.1:0\"\n" };
        let text = format!("[gateway]\nname = \"gw-test\"\ndata_dir = {data:?}\n\n{toml}\n{api}");
        std::fs::write(folder.path().join("gateway.toml"), text)?;
        Ok(Self { process: None, folder, environment: Vec::new() })
    }

    /// Lets it start with this in its environment.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    /// [`Agent::new`] and [`Agent::start`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn started(toml: &str) -> Result<Self> {
        let mut agent = Self::new(toml)?;
        agent.start()?;
        Ok(agent)
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// The gateway's data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts `spindle run` and waits until it says that it is up.
    ///
    /// # Errors
    /// When it ends or says nothing.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_until_up()
    }

    /// Starts `spindle run` without waiting for it.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let mut command = Command::new(tools::spindle()?);
        command.arg("run").arg("--config").arg(self.config()).env("NO_COLOR", "1").env_remove("RUST_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn("spindle run", &mut command, &self.folder.path().join("log"))?);
        Ok(())
    }

    /// Waits until it says that it is up.
    ///
    /// # Errors
    /// When it ends or says nothing.
    pub fn wait_until_up(&mut self) -> Result<()> {
        self.process()?.wait_for_log(READY, Duration::from_secs(30))
    }

    /// Its folder: configuration, data and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The running process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the agent does not run")
    }

    /// Ends it as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Ends it in order (SIGTERM), within [`SHUTDOWN`] and a little for slow machines.
    ///
    /// # Errors
    /// When it takes longer or ends badly.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        let status = process.terminate(SHUTDOWN + Duration::from_secs(5))?;
        ensure!(status.success(), "the agent ended with {status}; its log:\n{}", process.log());
        Ok(())
    }

    /// Where it serves metrics, health and readiness, as its log says.
    ///
    /// # Errors
    /// When it does not run, or does not serve them.
    pub fn api(&mut self) -> Result<SocketAddr> {
        let log = self.process()?.log();
        let (_, after) = log
            .rsplit_once("serving /metrics, /health and /ready address=")
            .context("no address in the log")?;
        Ok(after.split_whitespace().next().unwrap_or_default().parse()?)
    }

    /// `spindle balance --json` on this gateway's folder, running or not, balanced or not.
    ///
    /// # Errors
    /// When the command prints no JSON.
    pub fn books(&self) -> Result<Books> {
        let mut command = Command::new(tools::spindle()?);
        command.args(["balance", "--json", "--config"]).arg(self.config());
        let output = command.output().context("start spindle balance")?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("balance gave {output:?}"))
    }
}

/// Runs a verb of `spindle` to its end.
///
/// # Errors
/// When the program cannot be started.
pub fn spindle(args: &[&str]) -> Result<Output> {
    let mut command = Command::new(tools::spindle()?);
    command.args(args).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command.output().context("start spindle")
}

/// A verb that runs beside the test, such as `simulate` or `tap`, with its output in a file.
#[derive(Debug)]
pub struct Verb {
    process: Process,
    _folder: TempDir,
}

impl Verb {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(args: &[&str]) -> Result<Self> {
        let folder = process::folder("verb")?;
        let mut command = Command::new(tools::spindle()?);
        command.args(args).env("NO_COLOR", "1").env_remove("RUST_LOG");
        let name = format!("spindle {}", args.first().unwrap_or(&""));
        let process = Process::spawn(&name, &mut command, &folder.path().join("log"))?;
        Ok(Self { process, _folder: folder })
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits for its end and gives what it printed.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub fn finish(mut self, patience: Duration) -> Result<String> {
        let status: ExitStatus = self.process.wait(patience)?;
        let log = self.process.log();
        ensure!(status.success(), "{status}: {log}");
        Ok(log)
    }
}

/// A path as text, for arguments.
#[must_use]
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
