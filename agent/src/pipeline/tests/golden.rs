//! The bytes of a sensor's saved state, pinned. A test that fails here means that states in the field cannot be read any
//! more: such a change needs a new version byte. All input is whole numbers and all functions are `libm`'s, so that the bytes are
//! the same on every machine.

use super::*;
use crate::config::{LimitRule, Severity};
use crate::outputs::SensorSave;
use spindle_common::wire::crc32c;
use std::time::Duration;

/// Windows of 100 ms with a baseline, filters, and a rule whose condition stands.
fn config() -> Config {
    let mut config = super::config();
    config.pipeline.window = Duration::from_millis(100);
    config.pipeline.rollup = Duration::from_millis(250);
    config.pipeline.velocity_band_hz = [40.0, 400.0];
    config.pipeline.spectrum.every = Duration::from_secs(1);
    config.pipeline.spectrum.average = Duration::from_secs(1);
    config.pipeline.spectrum.resolution_hz = 20.0;
    config.anomaly.history_windows = 10;
    config.anomaly.learning_windows = 4;
    config.rules = vec![LimitRule {
        name: "any".into(),
        sensor: "*/*/*".into(),
        axis: "*".into(),
        feature: "acceleration_rms".into(),
        unit: "m/s2".into(),
        above: 0.1,
        deadband: 0.0,
        on_delay: Duration::ZERO,
        severity: Severity::Alarm,
    }];
    config
}

/// The state of a sensor of two axes after blocks 0 to 16, of 64 samples each at 2 kHz, in a triangle of whole counts.
fn saved() -> SensorSave {
    let board = Board {
        rate_nominal_hz: 2000.0,
        rate_hz: 2000.0,
        scale: 0.001,
        bits: 24,
        block_len: 64,
        ..Board::new()
    };
    let triangle = |sample: i32, period: i32| ((sample % period) - period / 2).abs() * 100;
    let blocks = (0..16).map(|block| {
        let samples = block * 64..(block + 1) * 64;
        let counts: Vec<i32> = samples
            .clone()
            .map(|sample| triangle(sample, 20))
            .chain(samples.map(|sample| triangle(sample, 50)))
            .collect();
        board.block(block as u64 * 64, &counts, 2)
    });
    let mut pipeline = Pipeline::new(&config());
    let mut commit = Commit::default();
    for record in &number(blocks.collect()) {
        pipeline.push(record, &mut commit.outputs);
    }
    pipeline.save(&mut commit, true);
    commit.sensors.pop().expect("one sensor")
}

#[test]
fn a_sensors_state_keeps_its_bytes() {
    let save = saved();
    assert_eq!(save.applied, 16);
    assert_eq!(save.state.first(), Some(&2), "the version");
    assert_eq!((save.state.len(), crc32c(&save.state)), (6850, 2_796_089_130));
}

#[test]
fn a_state_of_version_1_keeps_its_alerts_and_starts_its_filters_anew() {
    // As version 1 wrote it of the same blocks, by its pinned checksum.
    let state = include_bytes!("state-v1.bin").to_vec();
    assert_eq!((state.len(), crc32c(&state)), (4295, 3_326_172_888));
    let save = SensorSave { state, ..saved() };
    let (sensor, error) = state::restore(&save, &Settings::new(&config()));
    assert_eq!(error, None);
    assert_eq!((sensor.applied, sensor.judge.axes.len()), (16, 2));
    assert!(sensor.stream.is_none());
    let standing = sensor.judge.conditions.iter().filter(|c| c.phase != crate::alert::Phase::Normal);
    assert_eq!(standing.count(), 2);
}

#[test]
fn a_baselines_rows_keep_their_bytes() {
    let save = saved();
    let rows: Vec<_> = save.baseline.iter().map(|row| (row.slot, row.row.len(), crc32c(&row.row))).collect();
    assert_eq!(
        rows,
        [(0, 32, 819_078_464), (1, 32, 1_887_387_868), (2, 32, 1_887_387_868), (3, 32, 1_887_387_868)]
    );
}

#[test]
fn a_state_of_a_newer_version_is_refused_in_words() {
    let mut save = saved();
    save.state[0] = 3;
    let (_, error) = state::restore(&save, &Settings::new(&config()));
    let error = error.expect("an error").to_string();
    assert_eq!(
        error,
        "saved state of sensor s/m/a is dropped: its version is 3, but this build reads versions 1 to 2"
    );
}
