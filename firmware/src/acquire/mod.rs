//! From FIFO batches to planar blocks in the ring.
//!
//! Samples are counted by the sensor's own clock. What an overrun lost is skipped in the count and flagged, so it shows
//! downstream as a gap; the samples after it keep their place in time.

mod block;
mod rate;

pub use block::BlockBuilder;
pub use rate::SampleClock;

use crate::clock::{TICK_HZ, Timebase};
use crate::log::log;
use crate::node::{Node, PendingAnswer, Sealed, WhenFull, axes};
use crate::sensor::{Sample, Sensor};
use crate::supervise::{Supervisor, TaskId};
use core::fmt::Write as _;
use embassy_futures::select::{Either3, select3};
use embassy_sync::blocking_mutex::raw::RawMutex;
use heapless::String;
use spindle_common::id::StreamId;
use spindle_common::wire::block::flags;
use spindle_common::wire::messages::Outcome;

/// What a sampling task is given besides its sensor.
#[derive(Debug, Clone, Copy)]
pub struct Options<'s> {
    /// Which stream of the node it is.
    pub stream: StreamId,
    /// What to do when the ring is full.
    pub when_full: WhenFull,
    /// Flags that every block carries, such as SYNTHETIC.
    pub flags: u16,
    /// Roll call, and this task's place in it.
    pub supervisor: Option<(&'s Supervisor, TaskId)>,
}

/// How long a broken sensor rests before it is tried again.
const RETRY_S: u64 = 1;

/// How often the temperature is read.
const TEMPERATURE_EVERY_S: u64 = 10;

/// The task of one sensor: samples until the node halts the stream. `planar` is the block's buffer.
///
/// A bus error is counted, the partial block sealed, the sensor started again; the time that this took is counted as lost
/// samples and the next block flagged RESTART.
pub async fn run<M, B, const BLOCKS: usize, S, T>(
    node: &Node<'_, M, B, BLOCKS>,
    sensor: &mut S,
    time: &T,
    planar: &mut [S::Sample],
    options: Options<'_>,
) where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
    S: Sensor,
    T: Timebase,
{
    let Some(info) = node.stream(options.stream) else { return };
    let builder = BlockBuilder::new(planar, axes(info), info.block_samples, sensor.info().ends);
    let clock = SampleClock::new(info.rate_nominal_mhz);
    let mut task = Task { node, sensor, time, builder, options, clock };
    loop {
        let stop = task.sample().await;
        if matches!(stop, Stop::Halt) {
            // The last frames are worth a try; a sensor that fails now has nothing to say any more.
            let _ = task.fetch_all().await;
        }
        task.seal();
        match stop {
            Stop::Bus => {
                log!(warn, "stream {}: sensor fails, starts again", options.stream.0);
                node.count(options.stream, |counters| {
                    counters.bus_errors = counters.bus_errors.saturating_add(1)
                });
                task.rest(RETRY_S).await;
            }
            Stop::SelfTest(id) => task.self_test(id).await,
            Stop::Halt => return,
        }
    }
}

/// Why sampling stopped.
enum Stop {
    Bus,
    SelfTest(u32),
    Halt,
}

struct Task<'t, 'a, 'b, M: RawMutex, B, const BLOCKS: usize, S: Sensor, T> {
    node: &'t Node<'a, M, B, BLOCKS>,
    sensor: &'t mut S,
    time: &'t T,
    builder: BlockBuilder<'b, S::Sample>,
    options: Options<'t>,
    clock: SampleClock,
}

impl<M, B, const BLOCKS: usize, S, T> Task<'_, '_, '_, M, B, BLOCKS, S, T>
where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
    S: Sensor,
    T: Timebase,
{
    /// Starts the sensor and samples until something stops it.
    async fn sample(&mut self) -> Stop {
        if self.sensor.configure().await.is_err() {
            return Stop::Bus;
        }
        let info = self.sensor.info();
        self.resume(if info.rate_trimmed_mhz > 0 { info.rate_trimmed_mhz } else { info.rate_nominal_mhz });
        let mut temperature_due = 0;
        loop {
            self.check_in();
            let requests = self.node.requests(self.options.stream);
            // Requests first: a source that has ended must not be taken for one that has fallen silent.
            match select3(requests.halt.wait(), requests.self_test.wait(), self.sensor.wait()).await {
                Either3::First(()) => return Stop::Halt,
                Either3::Second(id) => return Stop::SelfTest(id),
                Either3::Third(Ok(())) => {}
                Either3::Third(Err(_)) => return Stop::Bus,
            }
            if self.fetch_all().await.is_err() {
                return Stop::Bus;
            }
            if self.time.now() >= temperature_due {
                temperature_due = self.time.now() + TEMPERATURE_EVERY_S * u64::from(TICK_HZ);
                if let Ok(Some(centi)) = self.sensor.temperature().await {
                    self.node.count(self.options.stream, |counters| counters.temperature_centi_c = centi);
                }
            }
        }
    }

    async fn fetch_all(&mut self) -> Result<(), S::Error> {
        loop {
            let batch = self.sensor.fetch().await?;
            if batch.overrun || batch.lost > 0 {
                self.seal();
                let lost = self.clock.lost(&batch, self.builder.next_sample());
                self.lose(lost, flags::OVERRUN);
            }
            if let (Some(tick), true) = (batch.newest_tick, batch.frames > 0) {
                let newest = self.builder.next_sample() + batch.frames as u64 - 1;
                self.clock.observe(newest, tick);
            }
            if self.options.when_full == WhenFull::Wait {
                self.node.room(self.options.stream, batch.frames).await;
            }
            let Self { sensor, builder, clock, node, options, .. } = self;
            loop {
                let mut planar = builder.planar();
                let frames = sensor.drain_into(&mut planar);
                let bits = planar.bits();
                if frames == 0 {
                    break;
                }
                if builder.add(frames, bits) {
                    store(node, builder, clock, *options);
                }
            }
            if !batch.more {
                return Ok(());
            }
        }
    }

    /// Puts a partial block into the ring.
    fn seal(&mut self) {
        store(self.node, &mut self.builder, &self.clock, self.options);
    }

    fn lose(&mut self, lost: u64, flag: u16) {
        self.builder.skip(lost, flag);
        let next = self.builder.next_sample();
        self.node.count(self.options.stream, |counters| {
            counters.lost_overrun += lost;
            counters.taken = next;
        });
    }

    /// After a start: what would have been sampled since the last sample is lost, by the clock's measure.
    fn resume(&mut self, rate_mhz: u32) {
        let next = self.builder.next_sample();
        if next > 0 {
            let idle = self.time.now().saturating_sub(self.clock.tick_of(next));
            let rate_mhz = if self.clock.rate_mhz() > 0 { self.clock.rate_mhz() } else { rate_mhz };
            let lost = u128::from(idle) * u128::from(rate_mhz) / (1000 * u128::from(TICK_HZ));
            self.lose(u64::try_from(lost).unwrap_or(u64::MAX >> 2), flags::RESTART);
        }
        self.clock = SampleClock::new(rate_mhz);
    }

    async fn self_test(&mut self, id: u32) {
        let mut text = String::new();
        let outcome = match self.sensor.self_test().await {
            Ok(test) => {
                let [x, y, z] = test.moved;
                // A text that does not fit is cut short; the outcome says it all.
                let _ = write!(text, "moved {x:.1} {y:.1} {z:.1} m/s2, allowed");
                let same = test.limits.iter().all(|limits| *limits == test.limits[0]);
                for [least, most] in test.limits.iter().take(if same { 1 } else { 3 }) {
                    let _ = write!(text, " {least:.1} to {most:.1}");
                }
                if test.passed { Outcome::Done } else { Outcome::Failed }
            }
            Err(error) => {
                let _ = write!(text, "{error:?}");
                Outcome::Failed
            }
        };
        self.node.answer_later(PendingAnswer { id, outcome, text });
    }

    async fn rest(&self, seconds: u64) {
        self.check_in();
        self.time.until(self.time.now() + seconds * u64::from(TICK_HZ)).await;
    }

    fn check_in(&self) {
        if let Some((supervisor, task)) = self.options.supervisor {
            supervisor.check_in(task);
        }
    }
}

fn store<M, B, const BLOCKS: usize, S>(
    node: &Node<'_, M, B, BLOCKS>,
    builder: &mut BlockBuilder<'_, S>,
    clock: &SampleClock,
    options: Options<'_>,
) where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
    S: Sample,
{
    let stored = builder.seal(|first_sample, frames, block_flags, samples| {
        let sealed = Sealed {
            stream: options.stream,
            first_sample,
            tick: clock.tick_of(first_sample),
            rate_measured_mhz: clock.rate_mhz(),
            flags: block_flags | options.flags,
            frames,
            samples: S::planar(samples),
        };
        (node.store(&sealed), u64::from(frames))
    });
    let next = builder.next_sample();
    node.count(options.stream, |counters| {
        counters.taken = next;
        if let Some((Err(_), frames)) = stored {
            // Cannot happen with facts that were checked; if it does, it is counted, not hidden.
            counters.lost_ring += frames;
        }
    });
}
