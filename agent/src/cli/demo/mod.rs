//! `spindle demo`: a small factory on this machine, with no set-up.
//!
//! Nothing is acted: virtual boards run the firmware's core and driver against a model of the sensor chip, over TCP to the
//! gateway's own listener, through its journal and pipeline to Kafka (librdkafka's mock cluster), and what is shown is read
//! back from there.

mod factory;
mod screen;
mod sink;
mod view;

use super::balance::{self, Row};
use super::run::stop_on_signal;
use super::{Context, Outcome};
use crate::clock::Clock;
use crate::journal;
use crate::runtime::{self, Stop};
use anyhow::Context as _;
use factory::Factory;
use parking_lot::Mutex;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use screen::Clockwork;
use sink::Sink;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use view::{View, grouped};

/// Shortest time in which the story has happened.
const FOR_MIN: Duration = Duration::from_secs(15);
/// How often the screen is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
/// How long the boards may take to hand over what they hold.
const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// How long the last records of the gateway may take to be read back.
const LAST_READ: Duration = Duration::from_millis(500);
/// How long Kafka may take to hold everything.
const ARRIVE_WAIT: Duration = Duration::from_secs(10);

/// A small factory on this machine, no set-up: three machines, one gateway, Kafka
///
/// Virtual boards run the real firmware core and sensor driver against a model of the chip, over TCP to the gateway's own MQTT
/// listener. Kafka is librdkafka's mock cluster in this process. One bearing starts to fail after some seconds and its alert
/// comes; the link of another machine drops for a while and nothing is lost. At the end every sample in Kafka has been compared
/// with what the models produced, and the books are balanced.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 1 when the books do not balance, the alert did not come, or Kafka holds anything else than the models \
                        produced.\n\nExamples:\n  spindle demo\n  spindle demo --for 30s --plain\n  \
                        spindle demo --dir /tmp/factory      keeps the data: look at it with `spindle tap`, `balance`, `replay`"
)]
pub struct Args {
    /// End by itself after this time, at least 15s (default: when you press q)
    #[arg(long = "for", value_name = "TIME", value_parser = parse_for)]
    length: Option<Duration>,
    /// Plain lines instead of the screen (always so when standard output is no terminal)
    #[arg(long)]
    plain: bool,
    /// Keep journal and results in this folder, which must not hold any yet (default: a temporary one)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn parse_for(text: &str) -> Result<Duration, String> {
    let length =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 30s"))?;
    if length < FOR_MIN {
        return Err(format!("the story takes at least {} s", FOR_MIN.as_secs()));
    }
    Ok(length)
}

impl Args {
    /// Runs the factory.
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let plain = self.plain || !std::io::stdout().is_terminal();
        say(&[
            "spindle demo: virtual boards > gateway > Kafka. Kafka is librdkafka's mock",
            "cluster in this process; everything else is what a factory would run.",
        ])?;
        let folder = Folder::new(self.dir.as_deref())?;
        if plain {
            context.start_log("error", false)?;
        } else {
            context.start_log_to("info", folder.path.join("spindle.log"))?;
        }
        let stop = stop_on_signal()?;
        let clock = Clock::system();
        let cluster = sink::cluster()?;
        let config = factory::config(&folder.path, &cluster.bootstrap_servers())?;
        let view = Arc::new(Mutex::new(View { machines: factory::machines(), ..View::default() }));
        let started = clock.now();
        let elapsed = {
            let clock = clock.clone();
            move || clock.now().since(started)
        };
        let since = elapsed.clone();
        let mut sink = Sink::new(&cluster.bootstrap_servers(), view.clone(), move || since().as_secs())?;
        let gateway_stop = Stop::new();
        let gateway = runtime::start(&config, &clock, &gateway_stop).context("the gateway does not start")?;
        let address = gateway.listener.context("the gateway does not listen")?.to_string();
        let factory = Factory::start(&address, &mut sink)?;
        let sink_stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop_sink = StopSink(&sink_stop);
            scope.spawn(|| sink.run(&sink_stop));
            let mut show = Show::new(plain, self.length, &folder.path);
            let story = Story { view: &view, elapsed: &elapsed, length: self.length, stop: &stop };
            let played = story.play(&factory, &mut show);
            let drawn = show.ending(&view, elapsed());
            let ran_for = elapsed();
            let drained = factory.drain(DRAIN_WAIT, &view);
            let arrived = wait_for(&elapsed, ARRIVE_WAIT, || view.lock().waiting() == 0);
            let ended = gateway.finish();
            std::thread::sleep(LAST_READ);
            sink_stop.store(true, Ordering::Relaxed);
            show.close(&view)?;
            ended.context("the gateway did not end as asked")?;
            played.and(drawn)?;
            let view = view.lock().clone();
            verdict(&Ending { view: &view, drained, arrived, alert_due: ran_for >= FOR_MIN }, &folder)
        })
    }
}

/// Whatever happens, the reader is not left waiting.
struct StopSink<'a>(&'a AtomicBool);

impl Drop for StopSink<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What happens while it runs.
struct Story<'a> {
    view: &'a Mutex<View>,
    elapsed: &'a dyn Fn() -> Duration,
    length: Option<Duration>,
    stop: &'a Stop,
}

impl Story<'_> {
    fn play(&self, factory: &Factory, show: &mut Show) -> anyhow::Result<()> {
        loop {
            let elapsed = (self.elapsed)();
            {
                let mut view = self.view.lock();
                factory.act(elapsed, &mut view);
                view.produced = factory.produced();
            }
            show.update(self.view, elapsed)?;
            let ended = self.length.is_some_and(|length| elapsed >= length);
            if ended || self.stop.is_set() {
                return Ok(());
            }
            if show.wait(DRAW_INTERVAL)? == Wish::Quit {
                return Ok(());
            }
        }
    }
}

/// Waits until `done`, at most `wait`; whether it is.
fn wait_for(elapsed: &dyn Fn() -> Duration, wait: Duration, done: impl Fn() -> bool) -> bool {
    let until = elapsed() + wait;
    while !done() {
        if elapsed() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    Quit,
}

/// The terminal: a screen, or lines.
struct Show {
    screen: Option<ratatui::DefaultTerminal>,
    length: Option<Duration>,
    dir: String,
    /// Second of the last plain line, and the samples produced then.
    line_s: u64,
    /// (time, produced) some seconds back, for the rate.
    rates: std::collections::VecDeque<(Duration, u64)>,
    events_shown: u64,
}

impl Show {
    fn new(plain: bool, length: Option<Duration>, dir: &Path) -> Self {
        let screen = if plain { None } else { Some(ratatui::init()) };
        let dir = dir.display().to_string();
        Self { screen, length, dir, line_s: 0, rates: std::collections::VecDeque::new(), events_shown: 0 }
    }

    fn update(&mut self, view: &Mutex<View>, elapsed: Duration) -> anyhow::Result<()> {
        self.draw(view, elapsed, false)
    }

    fn draw(&mut self, view: &Mutex<View>, elapsed: Duration, ending: bool) -> anyhow::Result<()> {
        let view = view.lock().clone();
        let samples_per_s = self.rate(elapsed, view.produced);
        if let Some(screen) = &mut self.screen {
            let clockwork = Clockwork {
                elapsed_s: elapsed.as_secs(),
                ends_s: self.length.map(|length| length.as_secs()),
                samples_per_s,
                dir: self.dir.clone(),
                ending,
            };
            screen.draw(|frame| screen::draw(frame, &view, &clockwork)).context("cannot draw")?;
            return Ok(());
        }
        self.print_events(&view)?;
        if elapsed.as_secs() > self.line_s && !ending {
            self.line_s = elapsed.as_secs();
            say(&[&status_line(&view, self.line_s, samples_per_s)])?;
        }
        Ok(())
    }

    fn rate(&mut self, elapsed: Duration, produced: u64) -> u64 {
        self.rates.push_back((elapsed, produced));
        while self.rates.len() > 2
            && self.rates.front().is_some_and(|(at, _)| *at + Duration::from_secs(3) < elapsed)
        {
            self.rates.pop_front();
        }
        let Some((at, before)) = self.rates.front() else { return 0 };
        let seconds = elapsed.saturating_sub(*at).as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for the eye")]
        if seconds > 0.0 { ((produced - before) as f64 / seconds) as u64 } else { 0 }
    }

    fn print_events(&mut self, view: &View) -> anyhow::Result<()> {
        let new = usize::try_from(view.events_total - self.events_shown).unwrap_or(usize::MAX);
        self.events_shown = view.events_total;
        for event in view.events.iter().skip(view.events.len().saturating_sub(new)) {
            say(&[&format!("{:>4} s  {}", event.at_s, event.text)])?;
        }
        Ok(())
    }

    fn ending(&mut self, view: &Mutex<View>, elapsed: Duration) -> anyhow::Result<()> {
        if self.screen.is_none() {
            say(&["ending: boards hand over what they hold, the gateway forwards it, then the books"])?;
        }
        self.draw(view, elapsed, true)
    }

    /// Waits for the next drawing or a wish.
    fn wait(&self, interval: Duration) -> anyhow::Result<Wish> {
        if self.screen.is_none() {
            std::thread::sleep(interval);
            return Ok(Wish::Nothing);
        }
        if event::poll(interval).context("terminal")?
            && let Event::Key(key) = event::read().context("terminal")?
        {
            let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(Wish::Quit);
            }
        }
        Ok(Wish::Nothing)
    }

    /// Gives the terminal back.
    fn close(&mut self, view: &Mutex<View>) -> anyhow::Result<()> {
        if self.screen.take().is_some() {
            ratatui::restore();
        }
        let view = view.lock().clone();
        self.print_events(&view)
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if self.screen.is_some() {
            ratatui::restore();
        }
    }
}

fn status_line(view: &View, at_s: u64, samples_per_s: u64) -> String {
    let mut line =
        format!("{at_s:>4} s  {}/s  {} under way ", grouped(samples_per_s), grouped(view.waiting()));
    for machine in &view.machines {
        let rms = machine.levels.as_ref().map_or_else(|| "-".into(), |levels| format!("{:.2}", levels.rms));
        let mark = if machine.alert { "!" } else { "" };
        line.push_str(&format!(" {} {rms}{mark}", machine.name));
    }
    line.push_str(" m/s2");
    line
}

/// What there is to judge.
struct Ending<'a> {
    view: &'a View,
    drained: bool,
    arrived: bool,
    alert_due: bool,
}

fn verdict(ending: &Ending<'_>, folder: &Folder) -> anyhow::Result<Outcome> {
    let view = ending.view;
    let state = journal::state(&folder.path.join("journal")).context("cannot read the books")?;
    let rows: Vec<Row> = state.books.iter().map(|(key, book)| Row::new(key.0.to_string(), book)).collect();
    let taken: u64 = rows.iter().filter_map(|row| row.taken).sum();
    say(&["", balance::table(&rows).trim_end()])?;
    say(&[&format!(
        "Kafka (mock): {} raw blocks, {} features and rollups, {} alert changes",
        grouped(view.raw),
        grouped(view.features),
        view.alerts
    )])?;
    let mut wrong = Vec::new();
    let mut must = |fine: bool, text: String| {
        if !fine {
            wrong.push(text);
        }
    };
    must(
        rows.len() == view.machines.len(),
        format!("{} sensors have books, not {}", rows.len(), view.machines.len()),
    );
    must(rows.iter().all(|row| row.balanced), "the books do not balance".into());
    must(
        taken == view.produced,
        format!("the books know {taken} samples, the models made {}", view.produced),
    );
    must(ending.drained, "a board could not hand over all it held".into());
    must(ending.arrived, format!("{} samples did not arrive in Kafka", grouped(view.waiting())));
    must(
        view.different == 0,
        format!("{} samples in Kafka differ from the models'", grouped(view.different)),
    );
    must(view.missing == 0, format!("{} samples are missing in Kafka", grouped(view.missing)));
    must(view.dead == 0, format!("{} dead letters", view.dead));
    must(view.alerts_raised > 0 || !ending.alert_due, "the alert on the failing bearing did not come".into());
    if wrong.is_empty() {
        let samples = grouped(view.compared);
        say(&[&format!("compared with the models: {samples} samples x 3 axes, none differs")])?;
        if view.alerts_raised > 0 {
            say(&["the failing bearing was noticed: its alert came"])?;
        }
    }
    for text in &wrong {
        say(&[&format!("WRONG: {text}")])?;
    }
    if folder.kept {
        let dir = folder.path.display();
        say(&[
            &format!("kept in {dir}"),
            &format!("look at it:  spindle tap --from oldest --data-dir {dir}"),
        ])?;
    }
    Ok(if wrong.is_empty() { Outcome::Done } else { Outcome::Wrong })
}

/// Prints lines at once.
fn say(lines: &[&str]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}").context("cannot write to standard output")?;
    }
    out.flush().context("cannot write to standard output")
}

/// Where the demo keeps its data; a temporary one goes when the demo ends.
struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    fn new(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let (path, kept) = match wanted {
            Some(dir) => (dir.to_owned(), true),
            None => (std::env::temp_dir().join(format!("spindle-demo-{}", std::process::id())), false),
        };
        let name = path.display();
        let used = path.join("journal").exists();
        anyhow::ensure!(
            !used,
            "{name} holds a journal already; name a new folder, so that the books are this run's alone"
        );
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {name}"))?;
        Ok(Self { path, kept })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
