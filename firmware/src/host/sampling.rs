//! The sampling task of a virtual board's sensor: a chip's model and its driver, or a recording.

use super::board::{HostNode, STOP, Shared};
use super::playback::{End, Player};
use super::tap::{Feed, From, Tap};
use super::timebase::HostTime;
use super::{Chip, Source, VirtualSensor};
use crate::acquire;
use crate::node::WhenFull;
use crate::reduce::{CHUNK_FRAMES, Memory};
use crate::sensor::signal::Spindle;
use crate::sensor::{Sample, adxl345, adxl355, iis3dwb};
use embassy_futures::select::select;
use spindle_common::dsp::{Decimator, LANES};
use spindle_common::id::StreamId;
use spindle_common::settings::BURST_SAMPLES_MAX;
use spindle_common::wire::block::flags;
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

/// A reducer's memory, as large as any settings may need.
struct StreamMemory<S> {
    block: Vec<S>,
    chunk: Vec<S>,
    history: Vec<S>,
    decimators: Box<[Option<Decimator>]>,
}

impl<S: Sample> StreamMemory<S> {
    fn new(axes: usize, block_samples_max: u16) -> Self {
        Self {
            block: std::vec![S::default(); axes * usize::from(block_samples_max)],
            chunk: std::vec![S::default(); axes * CHUNK_FRAMES],
            history: std::vec![S::default(); axes * usize::from(BURST_SAMPLES_MAX)],
            decimators: std::vec![None; axes.div_ceil(LANES)].into_boxed_slice(),
        }
    }

    fn lend(&mut self) -> Memory<'_, S> {
        let Self { block, chunk, history, decimators } = self;
        Memory { block, chunk, history, decimators }
    }
}

/// One sensor: samples until it ends by itself or is told to.
pub(super) async fn sample(
    sensor: &VirtualSensor,
    stream: StreamId,
    node: &HostNode<'_>,
    time: HostTime,
    tap: Arc<Tap>,
    shared: &Shared,
) {
    let options = acquire::Options {
        stream,
        when_full: if matches!(time, HostTime::OnDemand { .. }) {
            WhenFull::Wait
        } else {
            WhenFull::DropOldest
        },
        flags: flags::SYNTHETIC,
        supervisor: None,
    };
    let from = match &sensor.source {
        Source::Spindle(spindle) => {
            let rate_hz = sensor.true_rate_hz();
            // What lies above the sensor's band it does not show.
            let resonance_hz = spindle.resonance_hz.min(0.3 * rate_hz);
            From::Spindle(Spindle { rate_hz, resonance_hz, ..*spindle }.start())
        }
        Source::Frames { frames, repeat } => From::Frames { frames: frames.clone(), at: 0, repeat: *repeat },
        Source::Playback(playback) => {
            let end = End::default();
            let mut player = Player::new(playback.clone(), &time, tap, sensor.rate_error, &end)
                .stop_after(sensor.stop_after);
            let mut memory =
                StreamMemory::<i32>::new(playback.axes().len(), node.facts.limits.block_samples_max);
            let sampling = acquire::run(node, &mut player, &time, memory.lend(), options);
            let ending = halt_when(node, stream, shared, || end.ask(), end.drained());
            select(sampling, ending).await;
            return;
        }
    };
    let feed = Feed { from, left: sensor.stop_after, tap };
    macro_rules! run {
        ($chip:ident :: $driver:ident, $full_scale:expr, $sample:ty) => {{
            let mut model = $chip::model::Model::new(feed, &time, sensor.rate_error);
            if !sensor.overruns {
                model = model.patient();
            }
            let config = $chip::Config { full_scale: $full_scale, ..$chip::Config::default() };
            let mut driver = $chip::$driver::new(model.spi(), model.int1(), &time, config);
            let mut memory = StreamMemory::<$sample>::new(3, node.facts.limits.block_samples_max);
            let sampling = acquire::run(node, &mut driver, &time, memory.lend(), options);
            let ending = halt_when(node, stream, shared, || model.end(), model.drained());
            select(sampling, ending).await;
        }};
    }
    match sensor.chip {
        Chip::Iis3dwb(full_scale) => run!(iis3dwb::Iis3dwb, full_scale, i16),
        Chip::Adxl355(full_scale) => run!(adxl355::Adxl355, full_scale, i32),
        Chip::Adxl345(full_scale) => run!(adxl345::Adxl345, full_scale, i16),
    }
}

/// Told to stop, the source ends; when it has ended and everything was read from it, the sampling task seals and ends.
async fn halt_when(
    node: &HostNode<'_>,
    stream: StreamId,
    shared: &Shared,
    end: impl FnOnce(),
    drained: impl Future<Output = ()>,
) {
    let stopping = async {
        shared.until(STOP).await;
        end();
        core::future::pending::<()>().await;
    };
    select(stopping, drained).await;
    node.halt(stream);
    core::future::pending::<()>().await;
}
