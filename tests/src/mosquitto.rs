//! A real Mosquitto with its own port and folder.

use crate::process::{self, Process};
use crate::{tools, wait};
use anyhow::{Context, Result};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// The broker; its folder survives [`Mosquitto::kill`] and goes with the value.
#[derive(Debug)]
pub struct Mosquitto {
    process: Process,
    port: u16,
    folder: TempDir,
}

impl Mosquitto {
    /// Starts a broker that keeps its sessions on disk; `settings` are further lines of `mosquitto.conf`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(settings: &str) -> Result<Self> {
        let folder = process::folder("mosquitto")?;
        let port = tools::free_port()?;
        write_config(&folder, port, settings)?;
        let process = Self::launch(&folder)?;
        let mut broker = Self { process, port, folder };
        broker.wait_until_up()?;
        Ok(broker)
    }

    fn launch(folder: &TempDir) -> Result<Process> {
        let mut command = tools::command("mosquitto");
        command.arg("-c").arg(folder.path().join("mosquitto.conf"));
        Process::spawn("mosquitto", &mut command, &folder.path().join("log"))
    }

    fn wait_until_up(&mut self) -> Result<()> {
        wait::until("mosquitto's port", Duration::from_secs(20), || {
            self.process.ensure_running()?;
            Ok(TcpStream::connect(("127.0.0.1", self.port)).ok().map(drop))
        })
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it with -9 and starts it on the same port and folder.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = Self::launch(&self.folder)?;
        self.wait_until_up()
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in order (SIGTERM).
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(wait::PATIENCE).map(drop)
    }

    /// Starts it with other settings on the same port and folder, after [`Mosquitto::kill`] or
    /// [`Mosquitto::stop`].
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn start_again(&mut self, settings: &str) -> Result<()> {
        write_config(&self.folder, self.port, settings)?;
        self.process = Self::launch(&self.folder)?;
        self.wait_until_up()
    }

    /// Removes what it keeps on disk.
    ///
    /// # Errors
    /// When that cannot be removed.
    pub fn forget(&self) -> Result<()> {
        match std::fs::remove_file(self.folder.path().join("mosquitto.db")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Its folder: configuration, sessions and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn write_config(folder: &TempDir, port: u16, settings: &str) -> Result<()> {
    let path = folder.path().display();
    let persistence = if settings.contains("persistence ") { "" } else { "persistence true\n" };
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n{persistence}persistence_location {path}/\n\
         set_tcp_nodelay true\nlog_dest stderr\n{settings}\n"
    );
    Ok(std::fs::write(folder.path().join("mosquitto.conf"), config)?)
}

/// Publishes as a shell user would, with `mosquitto_pub` at QoS 1, and returns when the PUBACK is there.
///
/// # Errors
/// When it fails or gets no PUBACK in 20 s.
pub fn publish(port: u16, topic: &str, message: &str) -> Result<()> {
    publish_as(port, &[], topic, message).map(drop)
}

/// [`publish`] with further options, such as `-u` and `--cafile`; gives what it printed on standard output.
///
/// # Errors
/// When it fails or gets no PUBACK in 20 s. A broker that only drops the message gives none.
pub fn publish_as(port: u16, options: &[&str], topic: &str, message: &str) -> Result<String> {
    let mut command = tools::command("timeout");
    command.args(["20", "mosquitto_pub", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1"]);
    command.args(options).args(["-t", topic, "-m", message]);
    tools::output_of(&mut command).context("mosquitto_pub")
}

/// A `mosquitto_sub` at QoS 1, which prints topic and message a line.
///
/// # Errors
/// When it is not subscribed in 20 s.
pub fn subscribe_as(port: u16, options: &[&str], filter: &str, log: &Path) -> Result<Process> {
    // Into a file it would hold its lines back.
    let mut command = tools::command("stdbuf");
    command.args(["-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-d", "-v"]);
    command.args(options).args(["-t", filter]);
    let mut process = Process::spawn("mosquitto_sub", &mut command, log)?;
    process.wait_for_log("Subscribed (mid:", Duration::from_secs(20))?;
    Ok(process)
}
