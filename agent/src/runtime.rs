//! The one place that spawns threads and tasks, and that ends them in order: sources stop taking, ingest commits what was
//! taken and acknowledges it, the journal closes, the pipeline reads it to its end, destinations deliver what is under way.

use crate::api::control::{self, Control};
use crate::api::http::Http;
use crate::api::metrics::Metrics;
use crate::api::watch::{Parts, Watch};
use crate::clock::Clock;
use crate::config::Config;
use crate::forward::files::FilesDestination;
use crate::forward::kafka::KafkaDestination;
use crate::forward::{Destination, ForwardError, Stats as ForwardStats, log};
use crate::hardware::{self, HardwareErrors};
use crate::journal::{Journal, JournalError, JournalReader, State};
use crate::outputs::{OutputLog, OutputReader, OutputsError};
use crate::pipeline::{Runner, RunnerError, RunnerMonitor};
use crate::session::Session;
use crate::session::ingest::Ingest;
use crate::session::json::Mapping;
use crate::source::listener::{Listener, ListenerError};
use crate::source::mqtt::{Mqtt, MqttError};
use crate::source::serial::Serial;
use crate::source::time::TimeTeller;
use crate::source::{self, SourceId, topic};
use crate::sqlite;
use parking_lot::{Condvar, Mutex};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the pipeline may go on reading once the journal is closed; what is left it reads after the next start.
const PIPELINE_END_MAX: Duration = Duration::from_secs(3);

/// How often a data folder that takes nothing is tried again.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);

/// How often the end of the pipeline is looked for.
const END_POLL: Duration = Duration::from_millis(5);

/// How often a delivery's progress is looked at.
const DELIVERY_POLL: Duration = Duration::from_millis(100);
/// How long sources may take to end once the ingest has.
const SOURCES_END_MAX: Duration = Duration::from_secs(2);

/// Asks everything to end. Clones are the same request.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: Arc<AtomicBool>,
    lock: Mutex<()>,
    changed: Condvar,
    notify: tokio::sync::Notify,
}

impl Stop {
    /// A request that has not been made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes it.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        drop(self.0.lock.lock());
        self.0.changed.notify_all();
        self.0.notify.notify_waiters();
    }

    /// Whether it was made.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Relaxed)
    }

    /// The same as a flag.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.set.clone()
    }

    /// Waits until it is made.
    pub async fn wait(&self) {
        let notified = self.0.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_set() {
            notified.await;
        }
    }

    /// Sleeps, but not beyond the request.
    pub fn sleep(&self, time: Duration) {
        let mut guard = self.0.lock.lock();
        if !self.is_set() {
            self.0.changed.wait_while_for(&mut guard, |()| !self.is_set(), time);
        }
    }
}

/// Why the gateway does not start, or ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A folder cannot be made.
    #[error("{path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// See [`HardwareErrors`].
    #[error(transparent)]
    Hardware(#[from] HardwareErrors),
    /// A thread or the I/O runtime cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// See [`JournalError`].
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// See [`OutputsError`].
    #[error(transparent)]
    Outputs(#[from] OutputsError),
    /// See [`RunnerError`].
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// See [`ForwardError`].
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// See [`MqttError`].
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    /// See [`ListenerError`].
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// A thread ended by a panic.
    #[error("thread {0} ended by a panic; see the log")]
    Panicked(String),
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Counters of sources, session and journal.
    pub metrics: Arc<Metrics>,
    /// Counters of the pipeline.
    pub pipeline: RunnerMonitor,
    /// Counters of each destination, by its name.
    pub forward: Vec<(String, Arc<ForwardStats>)>,
    /// Where the built-in listener listens, if there is one.
    pub listener: Option<SocketAddr>,
    /// Where metrics, health and readiness are served, if they are.
    pub api: Option<SocketAddr>,
    /// Reads the journal.
    pub journal: JournalReader,
    stop: Stop,
    ingest: JoinHandle<()>,
    pipeline_thread: JoinHandle<Result<(), RunnerError>>,
    pipeline_stop: Stop,
    destinations: Vec<JoinHandle<Result<(), ForwardError>>>,
    destinations_stop: Stop,
    sources: Vec<tokio::task::JoinHandle<()>>,
    io: tokio::runtime::Runtime,
}

/// What lies in the data folder, open, and who works on it.
struct Stores {
    journal: Journal,
    state: State,
    runner: Runner,
    destinations: Vec<Box<dyn Destination>>,
}

impl Stores {
    fn open(config: &Config, clock: &Clock) -> Result<Self, RunError> {
        let data_dir = &config.gateway.data_dir;
        make_folder(data_dir)?;
        let (journal, state) = Journal::open(&data_dir.join("journal"), &config.journal)?;
        let reader = journal.reader();
        let output_log = OutputLog::open(data_dir, &config.outputs)?;
        let destinations = destinations(config, clock, &reader, || output_log.reader())?;
        let runner = Runner::new(config, reader, output_log)?;
        Ok(Self { journal, state, runner, destinations })
    }

    /// Waits for a disk that is full, read-only or does not answer, and for a file that is locked.
    fn open_patiently(config: &Config, clock: &Clock, stop: &Stop) -> Result<Self, RunError> {
        let mut said = false;
        loop {
            match Self::open(config, clock) {
                Err(error) if sqlite::may_pass(&error) && !stop.is_set() => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::error!(%error, "the data folder takes nothing; starting when it does");
                    }
                    stop.sleep(OPEN_INTERVAL);
                }
                done => return done,
            }
        }
    }
}

/// Starts a gateway. It runs until [`Gateway::finish`]. With a data folder that takes nothing for the moment it waits.
///
/// # Errors
/// What cannot be opened or started; what had been started is ended.
pub fn start(config: &Config, clock: &Clock, stop: &Stop) -> Result<Gateway, RunError> {
    let data_dir = &config.gateway.data_dir;
    let hardware = config.gateway.hardware_configs.as_deref().map(hardware::load).transpose()?;
    let metrics = Arc::new(Metrics::default());
    let Stores { journal, state, runner, destinations } = Stores::open_patiently(config, clock, stop)?;
    metrics.journal.segments_damaged.set(journal.totals().segments_damaged);
    let reader = journal.reader();

    let io = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("spindle-io")
        .enable_all()
        .build()
        .map_err(RunError::Thread)?;
    let (inbox, inbox_end) = mpsc::channel(source::BATCHES_MAX);
    let time = TimeTeller::new(clock.clone(), config.session.clock_error, metrics.clone());
    let mut sources = start_sources(config, &io, inbox, &metrics, &time, stop)?;
    let (asks, control) = mpsc::channel(control::CONNECTIONS_MAX);
    sources.tasks.extend(start_control(data_dir, &io, asks.clone(), stop));
    let names = sources.names;
    let states =
        names.iter().cloned().zip(sources.handles.iter().map(|handle| handle.state.clone())).collect();
    let session = Session::new(&config.session, &config.source.json, names, state, metrics.clone())
        .with_hardware(hardware);
    let ingest = Ingest {
        session,
        journal,
        config: config.journal.clone(),
        inbox: inbox_end,
        control,
        sources: sources.handles,
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let (handle, ingest_stop) = (io.handle().clone(), stop.clone());
    let ingest = thread("spindle-ingest", stop, move || ingest.run(&handle, &ingest_stop))?;
    let monitor = runner.monitor();
    // It ends when the journal is closed and read to its end, or, with a long backlog, when it is told to.
    let pipeline_stop = Stop::new();
    let stop_asked = pipeline_stop.clone();
    let (turns, turn_clock) = (metrics.clone(), clock.clone());
    let may_go_on = move || {
        turns.turns.pipeline.set(turn_clock.now().mono_ns);
        stop_asked.is_set()
    };
    let pipeline_thread = thread("spindle-pipeline", stop, move || runner.run(may_go_on).map(drop))?;
    let destinations_stop = Stop::new();
    let mut threads = Vec::new();
    let mut forward = Vec::new();
    for mut destination in destinations {
        forward.push((destination.name().to_owned(), destination.stats()));
        let flag = destinations_stop.flag();
        let name = format!("spindle-{}", destination.name());
        threads.push(thread(&name, stop, move || destination.run(&flag))?);
    }
    let parts = Parts {
        metrics: metrics.clone(),
        pipeline: monitor.clone(),
        forward: forward.clone(),
        sources: states,
        journal: reader.clone(),
        session: asks,
    };
    let api = start_api(config, &io, Watch::new(config, clock, parts), stop);
    Ok(Gateway {
        metrics,
        pipeline: monitor,
        forward,
        listener: sources.listener,
        api,
        journal: reader,
        stop: stop.clone(),
        ingest,
        pipeline_thread,
        pipeline_stop,
        destinations: threads,
        destinations_stop,
        sources: sources.tasks,
        io,
    })
}

impl Gateway {
    /// Ends it in order, in less than 10 s: what was taken is committed, acknowledged, and as far as may be delivered.
    ///
    /// # Errors
    /// A part of it failed for good.
    pub fn finish(self) -> Result<(), RunError> {
        self.stop.set();
        let mut failure = None;
        if self.ingest.join().is_err() {
            failure = Some(RunError::Panicked("ingest".into()));
        }
        let sources = self.sources;
        self.io.block_on(async {
            let end = async {
                for task in sources {
                    let _ = task.await;
                }
            };
            if tokio::time::timeout(SOURCES_END_MAX, end).await.is_err() {
                tracing::warn!("a source did not end in time");
            }
        });
        let mut waited = Duration::ZERO;
        while !self.pipeline_thread.is_finished() && waited < PIPELINE_END_MAX {
            std::thread::sleep(END_POLL);
            waited += END_POLL;
        }
        self.pipeline_stop.set();
        match self.pipeline_thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failure = Some(error.into()),
            Err(_) => failure = Some(RunError::Panicked("pipeline".into())),
        }
        self.destinations_stop.set();
        for destination in self.destinations {
            match destination.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failure = Some(error.into()),
                Err(_) => failure = Some(RunError::Panicked("forward".into())),
            }
        }
        self.io.shutdown_timeout(Duration::from_millis(200));
        failure.map_or(Ok(()), Err)
    }
}

fn destinations(
    config: &Config,
    clock: &Clock,
    journal: &JournalReader,
    outputs: impl Fn() -> OutputReader,
) -> Result<Vec<Box<dyn Destination>>, RunError> {
    let mut destinations: Vec<Box<dyn Destination>> = Vec::new();
    let (gateway, dir) = (&config.gateway.name, &config.gateway.data_dir);
    if let Some(kafka) = &config.forward.kafka {
        let lanes = log::lanes(&kafka.lanes, journal, &outputs);
        destinations.push(Box::new(KafkaDestination::new(kafka, gateway, dir, lanes, clock.clone())?));
    }
    for files in &config.forward.files {
        let lanes = log::lanes(&files.lanes, journal, &outputs);
        destinations.push(Box::new(FilesDestination::new(files, gateway, dir, lanes, clock.clone())?));
    }
    Ok(destinations)
}

/// Starts the way of commands to nodes. Without it the gateway does everything else.
fn start_control(
    data_dir: &Path,
    io: &tokio::runtime::Runtime,
    asks: mpsc::Sender<control::Ask>,
    stop: &Stop,
) -> Option<tokio::task::JoinHandle<()>> {
    let spawn = io.handle().clone();
    // Tokio's sockets are made within its runtime.
    let bound = io.block_on(async { Control::bind(data_dir, asks) });
    match bound {
        Ok(control) => {
            let spawn = move |connection| drop(spawn.spawn(connection));
            Some(io.spawn(control.run(stop.clone(), spawn)))
        }
        Err(error) => {
            let path = control::path(data_dir);
            tracing::error!(path = %path.display(), %error, "no control socket: `spindle node` cannot reach nodes");
            None
        }
    }
}

/// Starts `/metrics`, `/health` and `/ready`, and says where. Without them the gateway does everything else.
fn start_api(config: &Config, io: &tokio::runtime::Runtime, watch: Watch, stop: &Stop) -> Option<SocketAddr> {
    if !config.api.enabled {
        return None;
    }
    let http = io.block_on(Http::bind(&config.api));
    let address = http.address();
    let spawn = io.handle().clone();
    let spawn = move |connection| drop(spawn.spawn(connection));
    // Not waited for at the end: nothing depends on it.
    drop(io.spawn(http.run(Arc::new(watch), stop.clone(), io.handle().clone(), spawn)));
    address
}

struct Sources {
    names: Vec<String>,
    handles: Vec<source::SourceHandle>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    listener: Option<SocketAddr>,
}

fn start_sources(
    config: &Config,
    io: &tokio::runtime::Runtime,
    inbox: source::Inbox,
    metrics: &Arc<Metrics>,
    time: &TimeTeller,
    stop: &Stop,
) -> Result<Sources, RunError> {
    let json = config.source.json.iter().map(|json| Mapping::new(json).filter());
    let filters: Vec<String> = topic::filters().chain(json).collect();
    let mut sources = Sources { names: Vec::new(), handles: Vec::new(), tasks: Vec::new(), listener: None };
    for mqtt in &config.source.mqtt {
        let (id, end) = sources.add(&mqtt.name);
        let source = Mqtt::new(id, mqtt, &config.gateway, filters.clone(), metrics.clone(), time.clone())?;
        sources.tasks.push(io.spawn(source.run(inbox.clone(), end, stop.clone())));
    }
    if let Some(listener) = &config.source.listener {
        let (id, end) = sources.add("listener");
        let source = io.block_on(Listener::bind(id, listener, filters, metrics.clone(), time.clone()))?;
        sources.listener = Some(source.address());
        let spawn = io.handle().clone();
        let spawn = move |client| drop(spawn.spawn(client));
        sources.tasks.push(io.spawn(source.run(inbox.clone(), end, stop.clone(), spawn)));
    }
    for serial in &config.source.serial {
        let (id, end) = sources.add(&serial.device.display().to_string());
        let source = Serial::new(id, serial.clone(), metrics.clone(), time.clone());
        sources.tasks.push(io.spawn(source.run(inbox.clone(), end, stop.clone())));
    }
    Ok(sources)
}

impl Sources {
    fn add(&mut self, name: &str) -> (SourceId, source::SourceEnd) {
        let id = SourceId(u16::try_from(self.names.len()).unwrap_or(u16::MAX));
        let (handle, end) = source::handle();
        self.names.push(name.to_owned());
        self.handles.push(handle);
        (id, end)
    }
}

/// A destination at work beside a command that fills its logs.
#[derive(Debug)]
pub struct Delivery {
    stats: Arc<ForwardStats>,
    stop: Stop,
    thread: JoinHandle<Result<(), ForwardError>>,
}

/// Lets a destination work without a gateway around it.
///
/// # Errors
/// No thread can be made.
pub fn deliver(mut destination: impl Destination + 'static) -> Result<Delivery, RunError> {
    let stop = Stop::new();
    let (stats, flag) = (destination.stats(), stop.flag());
    let thread = thread("spindle-delivery", &stop, move || destination.run(&flag))?;
    Ok(Delivery { stats, stop, thread })
}

impl Delivery {
    /// Waits until `records` are delivered in all. `waiting` is told, several times a second, how many are and what hinders.
    ///
    /// # Errors
    /// The destination failed for good.
    pub fn finish(self, records: u64, mut waiting: impl FnMut(u64, Option<String>)) -> Result<(), RunError> {
        while self.stats.delivered() < records && !self.stop.is_set() {
            waiting(self.stats.delivered(), self.stats.problem.lock().clone());
            self.stop.sleep(DELIVERY_POLL);
        }
        self.stop.set();
        match self.thread.join() {
            Ok(ended) => Ok(ended?),
            Err(_) => Err(RunError::Panicked("delivery".into())),
        }
    }
}

/// A thread without which the gateway is none: when it ends, for whatever reason, all ends.
fn thread<T: Send + 'static>(
    name: &str,
    stop: &Stop,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    let ends = EndsAll(stop.clone());
    let work = move || {
        let _ends = ends;
        work()
    };
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(RunError::Thread)
}

/// Asks everything to end when it is dropped, also by a panic.
struct EndsAll(Stop);

impl Drop for EndsAll {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Makes the data folder if need be, for its user only.
fn make_folder(path: &Path) -> Result<(), RunError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| RunError::Folder { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_ends_the_gateway() {
        let stop = Stop::new();
        let thread = thread("doomed", &stop, || panic!("on purpose")).unwrap();
        assert!(thread.join().is_err());
        assert!(stop.is_set());
    }
}
