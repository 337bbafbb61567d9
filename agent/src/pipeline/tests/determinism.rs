//! Same records, same bytes: pushed twice, or with a restart at any record.

use super::*;
use crate::config::{Band, LimitRule, Severity};
use crate::outputs::SensorSave;
use std::collections::BTreeMap;
use std::time::Duration;

fn config() -> Config {
    let mut config = super::config();
    config.pipeline.window = Duration::from_millis(100);
    config.pipeline.rollup = Duration::from_millis(250);
    config.pipeline.velocity_band_hz = [40.0, 400.0];
    config.pipeline.high_frequency_hz = 500.0;
    config.pipeline.bands = vec![Band { name: "tone".into(), low_hz: 100.0, high_hz: 160.0 }];
    config.pipeline.spectrum.every = Duration::from_secs(1);
    config.pipeline.spectrum.average = Duration::from_millis(400);
    config.pipeline.spectrum.resolution_hz = 20.0;
    config.anomaly.history_windows = 10;
    config.anomaly.learning_windows = 4;
    config.rules = ["acceleration_rms", "anomaly_score", "band:tone"]
        .map(|feature| LimitRule {
            name: format!("high {feature}"),
            sensor: "*/*/*".into(),
            axis: "*".into(),
            feature: feature.into(),
            unit: if feature == "anomaly_score" { "1".into() } else { "m/s2".into() },
            above: 5.0,
            deadband: 1.0,
            on_delay: Duration::from_millis(200),
            severity: Severity::Alarm,
        })
        .to_vec();
    config
}

/// Two sensors in turns: one with a fault that comes and goes, a gap and a reboot; one slow and late in the day.
fn scene() -> Vec<Record> {
    let one = Board {
        rate_nominal_hz: 2000.0,
        rate_hz: 2031.0,
        scale: 0.001,
        bits: 24,
        block_len: 64,
        ..Board::new()
    };
    let key = Arc::new(SensorKey { site: "s".into(), machine: "m".into(), sensor: "b".into() });
    let two = Board { key, rate_nominal_hz: 400.0, rate_hz: 399.0, block_len: 37, ..one.clone() };
    let wave = |t: f64| {
        let level = if t > 1.5 && t < 2.3 { 15.0 } else { 2.0 + (t * 7.0).sin() * 0.3 };
        level * (2.0 * std::f64::consts::PI * 130.0 * t).sin() + 9.8
    };
    let mut first = one.blocks(0..2000, &[&wave, &|t| wave(t) * 0.5]);
    first.push(one.gap(2000, 640));
    first.extend(one.blocks(2640..6000, &[&wave, &|t| wave(t) * 0.5]));
    let again = Board { boot: 9, ..one };
    first.extend(again.blocks(0..1000, &[&wave, &|t| wave(t) * 0.5]));
    let mut second = two.blocks(0..1200, &[&wave]).into_iter();
    let mut records = Vec::new();
    for (i, record) in first.into_iter().enumerate() {
        records.push(record);
        if i % 3 == 0 {
            records.extend(second.next());
        }
    }
    number(records)
}

fn text(outputs: &[Output]) -> Vec<(String, String)> {
    outputs.iter().map(|o| (o.ce_id.to_string(), String::from_utf8(o.json.to_vec()).expect("text"))).collect()
}

/// Keeps what the outputs log would keep.
#[derive(Default)]
struct Kept {
    outputs: Vec<Output>,
    sensors: BTreeMap<String, SensorSave>,
    checkpoint: u64,
}

impl Kept {
    fn take(&mut self, commit: &mut Commit) {
        self.outputs.append(&mut commit.outputs);
        self.checkpoint = commit.checkpoint;
        for mut save in commit.sensors.drain(..) {
            let old = self.sensors.remove(&save.key.to_string());
            let mut rows: BTreeMap<u32, _> =
                old.into_iter().flat_map(|o| o.baseline).map(|b| (b.slot, b)).collect();
            rows.retain(|slot, _| *slot < save.baseline_len);
            rows.extend(save.baseline.drain(..).map(|b| (b.slot, b)));
            save.baseline = rows.into_values().collect();
            self.sensors.insert(save.key.to_string(), save);
        }
    }

    fn load(&self) -> Loaded {
        Loaded { checkpoint: self.checkpoint, sensors: self.sensors.values().cloned().collect() }
    }
}

fn run_with_commits(records: &[Record], restart_after: Option<u64>, commit_every: u64) -> Kept {
    let config = config();
    let mut kept = Kept::default();
    let mut pipeline = Pipeline::new(&config);
    let mut commit = Commit::default();
    let mut at = 0;
    let mut restart_after = restart_after;
    while let Some(record) = records.get(at) {
        pipeline.push(record, &mut commit.outputs);
        at += 1;
        if record.offset % commit_every == 0 {
            pipeline.save(&mut commit, false);
            kept.take(&mut commit);
        }
        if restart_after == Some(record.offset) {
            // A crash: what was not committed is gone.
            restart_after = None;
            commit = Commit::default();
            let (restored, errors) = Pipeline::restore(&config, &kept.load());
            assert_eq!(errors, []);
            pipeline = restored;
            at = kept.checkpoint.saturating_sub(1) as usize;
        }
    }
    pipeline.save(&mut commit, true);
    kept.take(&mut commit);
    kept
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let records = scene();
    let (once, twice) = (run(&config(), records.clone()), run(&config(), records));
    assert!(once.len() > 40);
    assert_eq!(text(&once), text(&twice));
    let mut ids: Vec<_> = once.iter().map(|o| &o.ce_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), once.len(), "ids are unique");
    let alerts = of_kind(&once, OutputKind::Alert);
    assert!(of_kind(&once, OutputKind::Spectrum).len() >= 4);
    assert!(alerts.iter().any(|a| a["event"] == "raised" && a["feature"] == "band:tone"));
    assert!(alerts.iter().any(|a| a["event"] == "raised") && alerts.iter().any(|a| a["event"] == "cleared"));
}

#[test]
fn a_restart_after_any_record_changes_no_byte() {
    let records = scene();
    let whole = text(&run(&config(), records.clone()));
    for commit_every in [1, 7] {
        for restart_after in 1..=records.len() as u64 {
            let kept = run_with_commits(&records, Some(restart_after), commit_every);
            assert!(
                text(&kept.outputs) == whole,
                "restart after {restart_after}, commits every {commit_every}"
            );
        }
    }
}

#[test]
fn a_state_survives_being_saved_bit_for_bit() {
    let records = scene();
    let kept = run_with_commits(&records, None, 5);
    let settings = Settings::new(&config());
    for save in kept.sensors.values() {
        let (mut sensor, error) = state::restore(save, &settings);
        assert_eq!(error, None);
        assert_eq!(state::save(&mut sensor, &settings).state, save.state);
    }
}

#[test]
fn a_state_that_cannot_be_read_is_reported_and_the_sensor_starts_anew() {
    let records = scene();
    let kept = run_with_commits(&records[..60], None, 5);
    let mut loaded = kept.load();
    let whole = loaded.sensors[0].state.clone();
    for (bytes, reason) in
        [(vec![], "version"), (vec![99], "version"), (whole[..whole.len() / 2].to_vec(), "malformed")]
    {
        loaded.sensors[0].state = bytes;
        let (mut pipeline, errors) = Pipeline::restore(&config(), &loaded);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains(reason), "{}", errors[0]);
        let mut out = Vec::new();
        records[60..].iter().for_each(|record| pipeline.push(record, &mut out));
        assert!(!out.is_empty());
    }
}

#[test]
fn no_prefix_or_flipped_byte_of_a_state_panics() {
    let records = scene();
    let kept = run_with_commits(&records[..60], None, 5);
    let settings = Settings::new(&config());
    for save in kept.sensors.values() {
        for at in 0..save.state.len() {
            let mut damaged = save.clone();
            damaged.state[at] ^= 0x41;
            let _ = state::restore(&damaged, &settings);
            damaged.state.truncate(at);
            let _ = state::restore(&damaged, &settings);
        }
    }
}

#[test]
fn an_alert_whose_rule_is_withdrawn_is_cleared_after_the_restart() {
    let records = scene();
    let mut before = config();
    let active = |kept: &Kept| {
        let alerts = of_kind(&kept.outputs, OutputKind::Alert);
        alerts.iter().filter(|a| a["event"] == "raised").count()
            - alerts.iter().filter(|a| a["event"] != "raised").count()
    };
    let at = (1..records.len())
        .find(|at| active(&run_with_commits(&records[..*at], None, 1)) > 0)
        .expect("an alert");
    let kept = run_with_commits(&records[..at], None, 1);
    before.rules.clear();
    let (mut pipeline, errors) = Pipeline::restore(&before, &kept.load());
    assert_eq!(errors, []);
    let mut out = Vec::new();
    records[at..].iter().for_each(|record| pipeline.push(record, &mut out));
    let alerts = of_kind(&out, OutputKind::Alert);
    assert_eq!(alerts.len(), active(&kept));
    assert!(alerts.iter().all(|a| a["event"] == "withdrawn" && a["active"] == false));
}
