//! What a modelled chip feels: a spindle with harmonics, a bearing with impacts of growing severity, noise and gravity.
//! Deterministic for its seed, `no_std`, cheap enough to run beside the firmware on an emulated microcontroller.

use super::Sample;
use libm::{cosf, expf, sinf};

const TAU: f32 = core::f32::consts::TAU;
const G: f32 = 9.806_65;

/// Something that a modelled three-axis chip measures. `C` holds its counts: `i16`, or `i32` for chips of up to 24 bits.
pub trait Signal<C = i16> {
    /// The next sample, in counts at `scale` m/s² per count, saturated to what `C` holds; a chip of fewer bits narrows it.
    /// `None`: a recording has ended.
    fn next(&mut self, scale: f32) -> Option<[C; 3]>;

    /// The frame entered the chip's FIFO. For whoever keeps a copy of what the chip produced.
    fn batched(&mut self, _frame: [C; 3]) {}
}

/// A spindle and its bearing. Frequencies in Hz, accelerations in m/s².
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spindle {
    /// Sample rate, Hz.
    pub rate_hz: f32,
    /// Shaft speed, Hz.
    pub shaft_hz: f32,
    /// Peak of the shaft's line (unbalance); harmonics 2 to 4 follow at a half, a quarter, an eighth.
    pub unbalance: f32,
    /// Rate of impacts (such as BPFO), Hz; 0 for a sound bearing.
    pub impact_hz: f32,
    /// Peak of an impact once it has fully grown.
    pub impact: f32,
    /// Resonance that an impact excites, Hz.
    pub resonance_hz: f32,
    /// When the fault starts to grow, s.
    pub fault_after_s: f32,
    /// How long it grows until it is full, s.
    pub fault_grows_s: f32,
    /// RMS of white noise.
    pub noise: f32,
    /// Gravity along x, y, z in g.
    pub gravity_g: [f32; 3],
    /// Seed of noise and phases.
    pub seed: u32,
}

impl Default for Spindle {
    /// A sound spindle at 6,000 rpm: 0.6 mm/s of unbalance and the chip's own noise (75 µg/√Hz over 6 kHz).
    fn default() -> Self {
        Self {
            rate_hz: 26_667.0,
            shaft_hz: 100.0,
            unbalance: 0.5,
            impact_hz: 0.0,
            impact: 0.0,
            resonance_hz: 4_200.0,
            fault_after_s: 0.0,
            fault_grows_s: 1.0,
            noise: 0.06,
            gravity_g: [0.0, 0.0, 1.0],
            seed: 1,
        }
    }
}

impl Spindle {
    /// The same spindle with an outer-race fault of a 6205 bearing (9 balls, d/D = 0.3126/1.537: BPFO 3.5848 times the
    /// shaft; geometry as published by CWRU), growing to impacts of `impact` m/s².
    #[must_use]
    pub const fn with_outer_race_fault(mut self, impact: f32, after_s: f32, grows_s: f32) -> Self {
        self.impact_hz = self.shaft_hz * 3.5848;
        self.impact = impact;
        self.fault_after_s = after_s;
        self.fault_grows_s = grows_s;
        self
    }

    /// The running signal.
    #[must_use]
    pub fn start(self) -> SpindleSignal {
        let turn = |hz: f32| {
            let angle = TAU * hz / self.rate_hz;
            [cosf(angle), sinf(angle)]
        };
        let phase = (self.seed % 628) as f32 / 100.0;
        SpindleSignal {
            shaft: [cosf(phase), sinf(phase)],
            shaft_turn: turn(self.shaft_hz),
            ring: [0.0, 0.0],
            ring_turn: turn(self.resonance_hz).map(|part| part * expf(-900.0 / self.rate_hz)),
            to_impact: 0.0,
            taken: 0,
            random: self.seed.wrapping_mul(2_654_435_761).max(1),
            spindle: self,
        }
    }
}

/// A [`Spindle`] that runs. Oscillators are rotated, not recomputed: a sample costs some thirty multiplications.
#[derive(Debug, Clone)]
pub struct SpindleSignal {
    spindle: Spindle,
    shaft: [f32; 2],
    shaft_turn: [f32; 2],
    /// Decaying resonance, excited by impacts.
    ring: [f32; 2],
    ring_turn: [f32; 2],
    /// Samples until the next impact.
    to_impact: f32,
    taken: u64,
    random: u32,
}

impl SpindleSignal {
    fn noise(&mut self) -> f32 {
        // xorshift32; the sum of the word's four bytes is near enough to Gaussian, with variance 4 * (256² - 1) / 12.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let sum: u32 = self.random.to_le_bytes().iter().map(|&byte| u32::from(byte)).sum();
        (sum as f32 - 510.0) * (1.0 / 147.8)
    }

    /// The next sample, m/s².
    pub fn step(&mut self) -> [f32; 3] {
        let spindle = self.spindle;
        let [c, s] = turned(self.shaft, self.shaft_turn);
        // First-order correction keeps the length of the vector at one.
        let keep = 1.5 - 0.5 * (c * c + s * s);
        self.shaft = [c * keep, s * keep];
        let (s2, c2) = (2.0 * s * c, c * c - s * s);
        let s4 = 2.0 * s2 * c2;
        let lines = spindle.unbalance * (s + 0.5 * s2 + 0.25 * (s2 * c + c2 * s) + 0.125 * s4);

        if spindle.impact_hz > 0.0 {
            self.to_impact -= 1.0;
            if self.to_impact <= 0.0 {
                // Balls slip: the spacing jitters by a percent.
                self.to_impact += spindle.rate_hz / spindle.impact_hz * (1.0 + 0.01 * self.noise());
                let elapsed = self.taken as f32 / spindle.rate_hz - spindle.fault_after_s;
                let severity = (elapsed / spindle.fault_grows_s).clamp(0.0, 1.0);
                self.ring[1] += spindle.impact * severity;
            }
        }
        self.ring = turned(self.ring, self.ring_turn);
        self.taken += 1;
        let impact = self.ring[1];
        let [gx, gy, gz] = spindle.gravity_g;
        let x = lines + impact + spindle.noise * self.noise() + gx * G;
        let y = spindle.unbalance * c + 0.6 * impact + spindle.noise * self.noise() + gy * G;
        let z = 0.3 * lines + 0.3 * impact + spindle.noise * self.noise() + gz * G;
        [x, y, z]
    }
}

impl<C: Sample> Signal<C> for SpindleSignal {
    fn next(&mut self, scale: f32) -> Option<[C; 3]> {
        Some(self.step().map(|value| C::nearest(value / scale)))
    }
}

fn turned([c, s]: [f32; 2], [tc, ts]: [f32; 2]) -> [f32; 2] {
    [c * tc - s * ts, s * tc + c * ts]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn rms(samples: &[f32]) -> f32 {
        let mean = samples.iter().sum::<f32>() / samples.len() as f32;
        (samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn the_spindle_has_the_level_that_its_parameters_promise_and_keeps_it() {
        let mut signal = Spindle { noise: 0.0, ..Spindle::default() }.start();
        let y: Vec<f32> = (0..400_000).map(|_| signal.step()[1]).collect();
        for part in [&y[..26_667], &y[y.len() - 26_667..]] {
            assert!((rms(part) - 0.5 / 2f32.sqrt()).abs() < 0.005, "{}", rms(part));
        }
    }

    #[test]
    fn a_bearing_fault_grows_from_nothing() {
        let spindle = Spindle::default().with_outer_race_fault(20.0, 1.0, 2.0);
        let mut signal = spindle.start();
        let x: Vec<f32> = (0..4 * 26_667).map(|_| signal.step()[0]).collect();
        let levels: Vec<f32> = x.chunks_exact(26_667).map(rms).collect();
        assert!(levels[0] < 0.6 && levels[1] > levels[0] * 1.5 && levels[3] > levels[1] * 1.5, "{levels:?}");
    }

    #[test]
    fn noise_has_the_rms_asked_for() {
        let mut signal = Spindle { unbalance: 0.0, noise: 2.0, ..Spindle::default() }.start();
        let x: Vec<f32> = (0..50_000).map(|_| signal.step()[0]).collect();
        assert!((rms(&x) - 2.0).abs() < 0.05, "{}", rms(&x));
    }
}
