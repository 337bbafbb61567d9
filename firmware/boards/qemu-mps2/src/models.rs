//! The sensors on this board: register-level models of the chips, fed by a signal that the computer can compute again.

use spindle_firmware::config::SensorConfig;
use spindle_firmware::sensor::iis3dwb::{Config, FullScale};
use spindle_firmware::sensor::signal::{Signal, Spindle, SpindleSignal};

/// A spindle's signal that may end. It stands still until the chip puts its frames into the FIFO, so that sample number n of
/// the stream is frame number n of the signal.
pub struct Feed {
    signal: SpindleSignal,
    left: Option<u64>,
    /// Given to the chip, but not in its FIFO yet.
    pending: Option<[i16; 3]>,
}

impl Feed {
    /// `Spindle::default()` with this seed; ends after `frames`, if given.
    pub fn new(seed: u32, frames: Option<u64>) -> Self {
        Self { signal: Spindle { seed, ..Spindle::default() }.start(), left: frames, pending: None }
    }
}

impl Signal for Feed {
    fn next(&mut self, scale: f32) -> Option<[i16; 3]> {
        if self.left == Some(0) {
            return None;
        }
        if self.pending.is_none() {
            self.pending = self.signal.next(scale);
        }
        self.pending
    }

    fn batched(&mut self, _frame: [i16; 3]) {
        self.pending = None;
        self.left = self.left.map(|left| left.saturating_sub(1));
    }
}

/// The driver's configuration, if the sensor is one that this board has a model of.
pub fn iis3dwb(sensor: &SensorConfig) -> Option<Config> {
    if sensor.model != "iis3dwb" {
        return None;
    }
    let full_scale = FullScale::from_g(sensor.full_scale_g.into())?;
    Some(Config { full_scale, ..Config::default() })
}
