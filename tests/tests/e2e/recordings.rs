//! Production recordings through the whole chain: bit for bit in the raw topic, and features as numpy and scipy see them.

use serde_json::Value;
use spindle_tests::agent::{Agent, Verb, text};
use spindle_tests::kafka::{Kafka, KafkaRecord};
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::wait::PATIENCE;
use spindle_tests::{process, raw, tools};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Recordings that are played at once.
const RECORDINGS: usize = 16;
/// Samples of a window: a second at the recordings' 2 kHz.
const WINDOW: usize = 2000;
/// m/s² a count: a thousandth of standard gravity.
const SCALE: &str = "0.00980665";

/// How far a feature may lie from the oracle's, relative to it. The gateway computes in f32 with f64 sums, the oracle in f64.
const TOLERANCES: [(&str, &str, f64); 11] = [
    ("mean", "mean", 1e-4),
    ("acceleration_rms", "rms", 1e-5),
    ("peak", "peak", 1e-5),
    ("peak_to_peak", "peak_to_peak", 1e-5),
    ("crest", "crest", 1e-5),
    ("kurtosis", "kurtosis", 1e-4),
    ("velocity_rms", "velocity_rms", 1e-5),
    ("skewness", "skewness", 1e-4),
    // Gravity leaves steps of 1e-6 in samples in single precision, which two integrations weigh most at 10 Hz.
    ("displacement_peak_to_peak", "displacement", 1e-3),
    ("high_frequency_rms", "high_frequency", 1e-5),
    // Spectra are single precision: 1e-6 of the largest line, which may be outside of the band.
    ("bands/gearbox", "in_band", 1e-4),
];

/// Bands and corners that fit 2 kHz; at 4 Hz of resolution a segment has 512 samples.
const MEASURES: &str = "[pipeline]\nhigh_frequency_hz = 600.0\n\
    [[pipeline.band]]\nname = \"gearbox\"\nlow_hz = 101.0\nhigh_hz = 333.0\n\
    [pipeline.spectrum]\nevery = \"5s\"\naverage = \"5s\"\n";

#[test]
fn bosch_recordings_arrive_bit_for_bit_and_their_features_are_those_of_scipy() {
    let Some(data) = tools::recordings() else {
        println!("skipped: recordings are neither in $SPINDLE_DATA nor in ../shared/data");
        return;
    };
    let folder = process::folder("recordings").unwrap();
    let manifest = folder.path().join("manifest.csv");
    let files = write_manifest(&data.join("bosch_cnc"), &manifest);
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "bosch", MEASURES)).unwrap();
    let simulate = Verb::start(&[
        "simulate",
        "--broker",
        &broker.address(),
        "--manifest",
        &text(&manifest),
        "--speed",
        "full",
    ])
    .unwrap();
    simulate.finish(PATIENCE).unwrap();

    let originals: BTreeMap<String, Vec<i16>> =
        files.iter().map(|path| (name(path), samples(path))).collect();
    let blocks: usize = originals.values().map(|samples| (samples.len() / 3).div_ceil(512)).sum();
    let records = kafka.read_until("bosch.raw.v1", PATIENCE, |records| records.len() >= blocks).unwrap();
    let streams = raw::streams(&records).unwrap();
    assert_eq!(streams.len(), originals.len());
    let mut keys = BTreeMap::new();
    for stream in streams.values() {
        let sensor = stream.key.rsplit('/').next().unwrap();
        let (name, original) = originals.iter().find(|(name, _)| sensor.contains(name.as_str())).unwrap();
        let original: Vec<i32> = original.iter().map(|&sample| i32::from(sample)).collect();
        assert_eq!(raw::first_difference(&stream.interleaved(), &original), None, "{name}");
        keys.insert(stream.key.clone(), name.clone());
    }

    let windows: usize = originals.values().map(|samples| samples.len() / 3 / WINDOW).sum();
    let whole = |records: &[KafkaRecord]| whole_windows(records).len() >= windows;
    let features = kafka.read_until("bosch.features.v1", PATIENCE, whole).unwrap();
    crate::schema::assert_all_valid(&features);
    compare(&whole_windows(&features), &keys, &originals);
    agent.stop().unwrap();
}

/// Features records of windows without a hole, with their keys.
fn whole_windows(records: &[KafkaRecord]) -> Vec<(String, Value)> {
    let features = records.iter().filter(|record| record.header("ce_type") == "io.spindle.features.v1");
    let parsed = features.map(|record| (record.key.clone(), record.json().unwrap()));
    parsed.filter(|(_, json)| json["quality"]["samples"] == WINDOW).collect()
}

fn compare(
    features: &[(String, Value)],
    names: &BTreeMap<String, String>,
    originals: &BTreeMap<String, Vec<i16>>,
) {
    let oracle: BTreeMap<&str, Value> =
        originals.iter().map(|(name, samples)| (name.as_str(), oracle(samples))).collect();
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    let mut velocities = 0;
    for (key, record) in features {
        let name = &names[key];
        let first = record["window"]["first_sample"].as_u64().unwrap();
        let index = usize::try_from(first).unwrap() / WINDOW;
        let theirs = &oracle[name.as_str()][index];
        assert_eq!(theirs["first_sample"], first, "{name}");
        // Velocity counts where the filters had settled for the whole window.
        let settled = record["quality"]["settled"] == WINDOW;
        velocities += usize::from(settled);
        for (axis, (ours, theirs)) in
            record["axes"].as_array().unwrap().iter().zip(theirs["axes"].as_array().unwrap()).enumerate()
        {
            for (feature, oracle, tolerance) in TOLERANCES {
                let is_filtered =
                    ["velocity_rms", "displacement_peak_to_peak", "high_frequency_rms"].contains(&feature);
                // Displacement's filters take longest, but not all of the first window.
                if is_filtered && (!settled || first == 0) {
                    continue;
                }
                let expected = theirs[oracle].as_f64().unwrap();
                let found = ours.pointer(&format!("/{feature}")).and_then(Value::as_f64).unwrap_or(f64::NAN);
                // A mean near zero is compared with the signal's own size.
                let size = match feature {
                    "mean" => theirs["rms"].as_f64().unwrap(),
                    // A pure number, of either sign, and near zero as a rule.
                    "skewness" => expected.abs().max(1.0),
                    _ => expected.abs(),
                };
                let error = (found - expected).abs() / size;
                assert!(
                    error <= tolerance,
                    "{feature} of {name}, window {index}, axis {axis}: {found} here, {expected} by scipy"
                );
                let worst = worst.entry(feature).or_default();
                *worst = worst.max(error);
            }
        }
    }
    println!("{} windows as scipy has them, largest relative errors: {worst:?}", features.len());
    assert!(
        velocities * 10 >= features.len() * 8,
        "only {velocities} of {} windows have velocity",
        features.len()
    );
}

/// The oracle's features of a recording.
fn oracle(samples: &[i16]) -> Value {
    let mut command = Command::new(tools::python().unwrap());
    command.arg(tools::root().join("tests/oracles/features.py"));
    command.args(["--rate", "2000", "--channels", "3", "--scale", SCALE, "--window", &WINDOW.to_string()]);
    command.args(["--corner", "600", "--segment", "512", "--user-band", "101", "333"]);
    let mut python = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    // It reads all of its input before it writes.
    python.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A manifest of some recordings of each machine and both labels; names that exist twice are left out.
fn write_manifest(data: &Path, manifest: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_to_string(data.join("manifest.csv")).unwrap();
    let (header, rows) = all.split_once('\n').unwrap();
    let rows: Vec<(&str, &str)> = rows.lines().filter_map(|row| row.split_once(',')).collect();
    let named =
        |file: &str| rows.iter().filter(|(other, _)| name(Path::new(other)) == name(Path::new(file))).count();
    let unique: Vec<_> = rows.iter().filter(|(file, _)| named(file) == 1).collect();
    let step = unique.len().div_ceil(RECORDINGS);
    let mut text = format!("{header}\n");
    let mut files = Vec::new();
    for (file, row) in unique.into_iter().step_by(step) {
        let path = data.join(file);
        text.push_str(&format!("{},{row}\n", path.display()));
        files.push(path);
    }
    std::fs::write(manifest, text).unwrap();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().trim_end_matches(".bin.zst").to_owned()
}

fn samples(path: &Path) -> Vec<i16> {
    let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}
