//! Waiting for conditions, never for a length of time.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it; far above what is usual, since machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value.
///
/// # Errors
/// When it gave none within `patience`, naming `what`; or the condition's own error, at once.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("gave up after {patience:?} waiting for {what}");
        }
        std::thread::sleep(POLL);
    }
}
