//! A child process with its log, ended for certain.

use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    log_start: u64,
}

impl Process {
    /// Starts `command`, its output appended to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let log_start = file.metadata()?.len();
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {name}: {:?}", command.get_program()))?;
        Reaper::tell('+', child.id());
        Ok(Self { child, name: name.into(), log: log.into(), log_start })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far, standard output and error together.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    /// Fails when it has ended, with the end of its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}; its log ends:\n{}", self.name, tail(&self.log()));
        }
        Ok(())
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// When it ends first or `patience` does.
    pub fn wait_for_log(&mut self, text: &str, patience: Duration) -> Result<()> {
        let what = format!("{:?} in the log of {}", text, self.name);
        let seen = wait::until(&what, patience, || {
            if self.log().contains(text) {
                return Ok(Some(()));
            }
            self.ensure_running()?;
            Ok(None)
        });
        seen.with_context(|| format!("the log of {} ends:\n{}", self.name, tail(&self.log())))
    }

    /// Ends it as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        Reaper::tell('-', self.child.id());
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it is still there after `patience`.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(patience)
    }

    /// Halts it as it is (SIGSTOP): its connections stay open, and it does nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let signal = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status()?;
        ensure!(signal.success(), "{} was not there for SIG{name}", self.name);
        Ok(())
    }

    /// Waits for its own end.
    ///
    /// # Errors
    /// When it is still there after `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let status = wait::until(&what, patience, || Ok(self.child.try_wait()?))
            .with_context(|| format!("the log of {} ends:\n{}", self.name, tail(&self.log())))?;
        Reaper::tell('-', self.child.id());
        Ok(status)
    }

    /// CPU time used so far, user and system, in seconds.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_s(&self) -> Result<f64> {
        cpu_s(self.pid())
    }

    /// Most memory that was ever resident, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory_peak_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in status")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {} ends:\n{}", self.name, tail(&self.log()));
        }
    }
}

/// A folder of its own, removed when dropped or when the test process is gone.
///
/// # Errors
/// When it cannot be made.
pub fn folder(name: &str) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix(&format!("spindle-{name}-")).tempdir()?;
    Reaper::tell('x', folder.path().display());
    Ok(folder)
}

/// CPU time of process `pid`, user and system, in seconds. Linux counts it in hundredths.
///
/// # Errors
/// When there is no such process.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("malformed stat")?;
    let ticks =
        |index: usize| fields.split_whitespace().nth(index).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("malformed stat")?;
    Ok((user + system) / 100.0)
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A shell that outlives this process by a moment and then kills and removes what it left behind, for a test run that is itself
/// killed never comes to its drops.
struct Reaper;

static REAPER: OnceLock<Option<File>> = OnceLock::new();

const REAPER_SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=' '
while read -r op pid; do
  case $op in
    +) pids="$pids$pid " ;;
    -) case $pids in *" $pid "*) pids="${pids%% "$pid" *} ${pids#* "$pid" }" ;; esac ;;
    x) set -- "$@" "$pid" ;;
  esac
done
for pid in $pids; do kill -9 "$pid"; done
sleep 0.2
[ $# = 0 ] || rm -rf -- "$@"
"#;

impl Reaper {
    fn tell(op: char, what: impl std::fmt::Display) {
        let pipe = REAPER.get_or_init(|| {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", REAPER_SCRIPT])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let stdin: ChildStdin = shell.spawn().ok()?.stdin?;
            Some(File::from(std::os::fd::OwnedFd::from(stdin)))
        });
        if let Some(mut pipe) = pipe.as_ref() {
            let _ = writeln!(pipe, "{op} {what}");
        }
    }
}
