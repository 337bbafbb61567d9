//! The few threads that all virtual boards of a process share.

use super::HostError;
use std::boxed::Box;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A board to be: made into a future on the thread that will run it, so that the future need not be `Send`.
pub(crate) type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Most threads.
const THREADS_MAX: usize = 4;

struct Workers {
    // Holds one entry per board that is being started, so its bound is the number of boards that the caller starts.
    queues: Vec<UnboundedSender<Job>>,
    next: AtomicUsize,
}

/// Runs a board on one of the threads.
pub(crate) fn spawn(job: Job) -> Result<(), HostError> {
    static WORKERS: OnceLock<Workers> = OnceLock::new();
    let workers = match WORKERS.get() {
        Some(workers) => workers,
        None => {
            // Two callers at once may both start threads; the loser's end with their queues.
            let started = start()?;
            WORKERS.get_or_init(|| started)
        }
    };
    let index = workers.next.fetch_add(1, Ordering::Relaxed) % workers.queues.len();
    workers.queues[index].send(job).map_err(|_| HostError::Thread(std::io::ErrorKind::BrokenPipe.into()))
}

fn start() -> Result<Workers, HostError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let queues = (0..threads).map(worker).collect::<Result<_, _>>()?;
    Ok(Workers { queues, next: AtomicUsize::new(0) })
}

fn worker(index: usize) -> Result<UnboundedSender<Job>, HostError> {
    let (sender, mut jobs) = unbounded_channel::<Job>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    #[allow(
        clippy::disallowed_methods,
        reason = "virtual boards bring their own threads: tests use them without an agent"
    )]
    std::thread::Builder::new().name(std::format!("spindle-boards-{index}")).spawn(move || {
        let boards = tokio::task::LocalSet::new();
        runtime.block_on(boards.run_until(async move {
            while let Some(job) = jobs.recv().await {
                tokio::task::spawn_local(job());
            }
        }));
    })?;
    Ok(sender)
}
