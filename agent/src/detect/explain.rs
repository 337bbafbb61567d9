//! Where a cut's strongest line comes from: the cutter's teeth, the spindle, or neither.

use serde::{Deserialize, Serialize};
use spindle_common::dsp::{Bin, Grid, LANES, Line, Lines, Window, tooth_pass_hz};

/// How far a line may lie from where it should be, as a share: speeds are commanded, not measured, and sample rates are not exact.
pub const TOLERANCE: f64 = 0.005;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// This harmonic of the teeth passing, from 1.
    ToothPass(u32),
    /// This harmonic of the spindle, from 1, and none of the teeth passing: run-out, unbalance, or a tooth that cuts more.
    Spindle(u32),
    /// Neither: chatter, or another machine part.
    Other,
}

/// Explains a line by a spindle that turns at `spindle_hz` with a cutter of so many flutes. Half a bin's width `resolution_hz` is
/// always allowed for. Harmonics of the spindle are told apart only while they lie further apart than twice what is allowed.
#[must_use]
pub fn explain(line_hz: f64, resolution_hz: f64, spindle_hz: f64, flutes: u32) -> Origin {
    let off = (line_hz * TOLERANCE).max(resolution_hz / 2.0);
    let harmonic = |base_hz: f64| {
        let harmonic = libm::round(line_hz / base_hz);
        let is_one = harmonic >= 1.0 && 4.0 * off < base_hz && (line_hz - harmonic * base_hz).abs() <= off;
        is_one.then_some(harmonic as u32)
    };
    if !(spindle_hz > 0.0 && line_hz.is_finite()) {
        return Origin::Other;
    }
    let teeth = (flutes > 0).then(|| harmonic(tooth_pass_hz(flutes, 60.0 * spindle_hz))).flatten();
    match (teeth, harmonic(spindle_hz)) {
        (Some(harmonic), _) => Origin::ToothPass(harmonic),
        (None, Some(harmonic)) => Origin::Spindle(harmonic),
        (None, None) => Origin::Other,
    }
}

/// The strongest line of the first `channels` channels of a density at `low_hz` and above (what lies below is the axes' motion), with
/// its channel.
#[must_use]
pub fn strongest(
    density: &[Bin],
    channels: usize,
    grid: Grid,
    window: Window,
    low_hz: f64,
) -> Option<(usize, Line)> {
    let first = libm::ceil(low_hz / grid.step_hz()).max(1.0) as usize;
    let mut best = None;
    for lane in 0..channels.min(LANES) {
        for (bin, values) in density.iter().enumerate().skip(first) {
            if best.is_none_or(|(_, _, most)| values[lane] > most) {
                best = Some((lane, bin, values[lane]));
            }
        }
    }
    let (lane, bin, _) = best.filter(|(_, _, most)| *most > 0.0)?;
    let line = Lines::new(density, lane, grid, window)?.line(grid.hz(bin), 0.0)?;
    Some((lane, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spindle_common::dsp::{Analyser, Average, Averaging, Scaling};

    #[test]
    fn teeth_come_before_the_spindle_and_both_before_nothing() {
        // 6,000 rpm and three flutes: 100 and 300 Hz.
        for (hz, origin) in [
            (300.0, Origin::ToothPass(1)),
            (601.0, Origin::ToothPass(2)),
            (99.8, Origin::Spindle(1)),
            (400.5, Origin::Spindle(4)),
            (150.0, Origin::Other),
            (306.0, Origin::Other),
            (40.0, Origin::Other),
        ] {
            assert_eq!(explain(hz, 0.5, 100.0, 3), origin, "{hz} Hz");
        }
        assert_eq!(explain(300.0, 0.5, 0.0, 3), Origin::Other);
        assert_eq!(explain(300.0, 0.5, 100.0, 0), Origin::Spindle(3));
    }

    #[test]
    fn harmonics_too_close_to_be_told_apart_explain_nothing() {
        // At 5 kHz, 0.5 % is 25 Hz to either side: harmonics 100 Hz apart would explain every second line.
        assert_eq!(explain(5_000.0, 0.5, 100.0, 0), Origin::Other);
        assert_eq!(explain(4_000.0, 0.5, 100.0, 0), Origin::Spindle(40));
    }

    #[test]
    fn the_strongest_line_is_found_on_its_axis_above_the_axes_motion() {
        let (rate_hz, len) = (2_000.0, 2_048);
        let sine = |hz: f64, amplitude: f64, index: usize| {
            (amplitude * (core::f64::consts::TAU * hz * index as f64 / rate_hz).sin()) as f32
        };
        let frames: Vec<_> =
            (0..len).map(|i| [sine(5.0, 30.0, i), sine(266.7, 2.0, i), sine(700.0, 1.0, i), 0.0]).collect();
        let mut analyser = Analyser::new(len, Window::Hann).expect("a length");
        let grid = Grid { len, rate_hz };
        let mut average = Average::new(Averaging::Linear, grid.bins());
        average.add(analyser.squares(&frames));
        let mut density = vec![[0.0; LANES]; grid.bins()];
        average.write(&analyser.scale(Scaling::Density, rate_hz), &mut density);
        let (axis, line) = strongest(&density, 3, grid, Window::Hann, 20.0).expect("a line");
        assert!(axis == 1 && (line.hz - 266.7).abs() < 0.3, "{line:?}");
        assert_eq!(explain(line.hz, grid.step_hz(), 4_000.0 / 60.0, 4), Origin::ToothPass(1));
        assert_eq!(strongest(&[[0.0; LANES]; 1_025], 3, grid, Window::Hann, 20.0), None);
    }
}
