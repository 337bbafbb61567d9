//! A sensor port's task: what the node's file says is wired there.

use super::{Shell, sensor_task};
use crate::acquire::Options;
use crate::clock::Timebase;
use crate::log::log;
use crate::node::WhenFull;
use crate::sensor::port;
use embassy_time::{Duration, Timer};
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::SpiDevice;
use spindle_common::id::StreamId;

impl<const BLOCKS: usize> Shell<BLOCKS> {
    /// The task of the sensor on this bus and interrupt pin; never ends. `PLANAR` is
    /// [`NodeConfig::planar_len_max`](crate::config::NodeConfig::planar_len_max).
    ///
    /// A sensor that the firmware cannot drive, or whose stream was halted, stays silent, and its counters tell so; the
    /// other sensors go on.
    pub async fn sample_port<const PLANAR: usize>(
        &self,
        stream: StreamId,
        port: (impl SpiDevice, impl Wait),
        time: &impl Timebase,
        flags: u16,
    ) -> ! {
        let task = sensor_task(stream);
        if let Some(config) = self.config.sensors.get(usize::from(stream.0)) {
            let supervisor = Some((&self.supervisor, task));
            let options = Options { stream, when_full: WhenFull::DropOldest, flags, supervisor };
            if port::run::<PLANAR, _, _, BLOCKS, _, _, _>(&self.node, port, time, config, options)
                .await
                .is_err()
            {
                log!(error, "sensor {}: no driver of {} with this range", config.name, config.model);
            }
        }
        loop {
            self.check_in(task);
            Timer::after(Duration::from_secs(1)).await;
        }
    }
}
