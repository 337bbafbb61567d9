//! The sensors on this board: register-level models of the chips, fed by a signal that the computer can compute again.

use spindle_firmware::config::SensorConfig;
use spindle_firmware::sensor::Sample;
use spindle_firmware::sensor::signal::{Signal, Spindle, SpindleSignal};

/// A spindle's signal that may end. It stands still until the chip puts its frames into the FIFO, so that sample number n of
/// the stream is frame number n of the signal.
pub struct Feed<C> {
    signal: SpindleSignal,
    left: Option<u64>,
    /// Given to the chip, but not in its FIFO yet.
    pending: Option<[C; 3]>,
}

impl<C> Feed<C> {
    /// `Spindle::default()` with this seed, at the sensor's nominal rate and with a resonance within its band; ends after
    /// `frames`, if given.
    pub fn new(sensor: &SensorConfig, seed: u32, frames: Option<u64>) -> Self {
        let spindle = Spindle::default();
        let rate_hz = sensor.rate_nominal_mhz as f32 / 1000.0;
        let resonance_hz = spindle.resonance_hz.min(0.3 * rate_hz);
        let signal = Spindle { rate_hz, resonance_hz, seed, ..spindle }.start();
        Self { signal, left: frames, pending: None }
    }
}

impl<C: Sample> Signal<C> for Feed<C> {
    fn next(&mut self, scale: f32) -> Option<[C; 3]> {
        if self.left == Some(0) {
            return None;
        }
        if self.pending.is_none() {
            self.pending = self.signal.next(scale);
        }
        self.pending
    }

    fn batched(&mut self, _frame: [C; 3]) {
        self.pending = None;
        self.left = self.left.map(|left| left.saturating_sub(1));
    }
}
