//! Lines of bearings, gears and tools.

use super::*;
use spindle_common::hardware::Machine;
use std::f64::consts::{PI, SQRT_2};
use std::time::Duration;

/// The rig of CWRU's bearing data, with a gear and a tool that it does not have.
const MACHINE: &str = "name = \"m\"\ntitle = \"t\"\n\
    [spindle]\nrpm_max = 1_797\nSPEED\nsource = \"test\"\n\
    [[bearing]]\nplace = \"drive end\"\ndesignation = \"6205\"\nballs = 9\nball_diameter_mm = 7.940_04\n\
    pitch_diameter_mm = 39.039_8\nsource = \"test\"\n\
    [[gear]]\nplace = \"pinion\"\nteeth = 17\nratio = 0.5\nsource = \"test\"\n\
    [[tool]]\nname = \"T1\"\nflutes = 4\nsource = \"test\"\n";

const SHAFT_HZ: f64 = 29.3;

fn machine(speed: &str) -> Machine {
    toml::from_str(&MACHINE.replace("SPEED", speed)).expect("a machine")
}

/// Spectra over ten seconds of a machine with this line for its speed.
fn config_of(speed: &str) -> Config {
    let mut config = config();
    config.pipeline.spectrum.every = Duration::from_secs(10);
    config.pipeline.spectrum.average = Duration::from_secs(10);
    config.pipeline.spectrum.resolution_hz = 2.0;
    config.machines.insert("m".into(), machine(speed));
    config
}

/// White noise that is the same at the same time.
fn noise(t: f64) -> f64 {
    let mut state = ((t * 26_667.0).round() as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state ^= state >> 31;
    state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state ^= state >> 29;
    (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// Impacts at `hz` that ring at 4 kHz for half a millisecond, under noise.
fn impacts(hz: f64) -> impl Fn(f64) -> f64 {
    move |t: f64| {
        let since = t - (t * hz).floor() / hz;
        8.0 * (-since / 5e-4).exp() * (2.0 * PI * 4000.0 * since).sin() + noise(t)
    }
}

/// The last spectrum of 21 s of a signal.
fn spectrum(config: &Config, axes: &[&dyn Fn(f64) -> f64]) -> Value {
    let board = Board { bits: 24, scale: 1e-4, ..Board::new() };
    let found = of_kind(&run(config, board.blocks(0..21 * 26_667, axes)), OutputKind::Spectrum);
    found.into_iter().next_back().expect("a spectrum")
}

#[test]
fn impacts_on_the_outer_ring_show_at_its_rate_and_its_harmonics_and_nowhere_else() {
    let fixed = format!("rpm = {}", SHAFT_HZ * 60.0);
    let outer_hz = 3.5848 * SHAFT_HZ;
    let record = spectrum(&config_of(&fixed), &[&noise, &impacts(outer_hz)]);
    let lines = &record["lines"];
    assert_eq!(lines["speed"]["source"], "fixed");
    assert_near(number_at(lines, "/speed/hz"), SHAFT_HZ, 1e-6);
    assert_eq!(lines["envelope"]["chosen_by"], "kurtogram");
    let band = &lines["envelope"]["band_hz"];
    assert!(number_at(band, "/0") < 4000.0 && number_at(band, "/1") > 4000.0, "{band}");
    assert_eq!(lines["axes"][1]["axis"], "y");
    let bearing = &lines["axes"][1]["bearings"][0];
    assert_eq!(
        (bearing["place"].as_str(), bearing["designation"].as_str()),
        (Some("drive end"), Some("6205"))
    );
    assert_near(number_at(bearing, "/bpfo/expected_hz"), outer_hz, 1e-4);
    assert_near(number_at(bearing, "/bpfo/hz"), outer_hz, 0.002);
    assert!(number_at(bearing, "/bpfo/prominence_db") > 20.0, "{bearing}");
    let harmonics = bearing["bpfo"]["harmonics_rms"].as_array().expect("harmonics");
    assert_eq!(harmonics.len(), 4);
    assert_near(number_at(bearing, "/bpfo/harmonics_rms/0"), number_at(bearing, "/bpfo/rms"), 1e-6);
    assert!(number_at(bearing, "/bpfo/harmonics_rms/3") > 3.0 * number_at(bearing, "/bpfi/rms"), "{bearing}");
    assert!(number_at(bearing, "/bpfi/prominence_db") < 12.0, "{bearing}");
    let quiet = &lines["axes"][0]["bearings"][0];
    assert!(number_at(quiet, "/bpfo/prominence_db") < 12.0, "{quiet}");
}

#[test]
fn the_band_of_the_envelope_can_be_configured() {
    let mut config = config_of(&format!("rpm = {}", SHAFT_HZ * 60.0));
    config.pipeline.spectrum.envelope_band_hz = Some([3000.0, 5000.0]);
    let record = spectrum(&config, &[&impacts(3.5848 * SHAFT_HZ)]);
    let lines = &record["lines"];
    assert_eq!(lines["envelope"]["chosen_by"], "configuration");
    assert_eq!(lines["envelope"]["kurtosis"], Value::Null);
    assert_near(number_at(lines, "/envelope/band_hz/1"), 5000.0, 1e-3);
    assert!(number_at(lines, "/axes/0/bearings/0/bpfo/prominence_db") > 20.0, "{lines}");
}

#[test]
fn a_speed_found_in_the_spectrum_is_called_estimated() {
    let comb = |t: f64| {
        let harmonics =
            (1..=8).map(|order| (2.0 * PI * SHAFT_HZ * f64::from(order) * t + f64::from(order)).sin());
        harmonics.sum::<f64>() * 0.3 + 0.2 * noise(t)
    };
    let lines = &spectrum(&config_of("rpm_min = 1_720"), &[&comb])["lines"];
    assert_eq!(lines["speed"]["source"], "estimated");
    assert_near(number_at(lines, "/speed/hz"), SHAFT_HZ, 0.005);
    assert!(number_at(lines, "/speed/confidence").is_finite());
    assert_near(
        number_at(lines, "/axes/0/bearings/0/ftf/expected_hz"),
        0.3983 * number_at(lines, "/speed/hz"),
        1e-3,
    );
}

#[test]
fn where_no_speed_stands_out_none_is_guessed() {
    let lines = &spectrum(&config_of("rpm_min = 1_720"), &[&noise])["lines"];
    assert_eq!(lines["speed"]["source"], "not_found");
    assert_eq!((&lines["speed"]["hz"], &lines["axes"]), (&Value::Null, &serde_json::json!([])));
    let unknown = &spectrum(&config_of(""), &[&noise])["lines"];
    assert_eq!(*unknown, Value::Null, "nothing is known of the speed");
}

#[test]
fn tooth_pass_and_gear_mesh_are_read_with_their_side_bands() {
    let fixed = format!("rpm = {}", SHAFT_HZ * 60.0);
    let (pass_hz, mesh_hz) = (4.0 * SHAFT_HZ, 17.0 * 0.5 * SHAFT_HZ);
    let signal = move |t: f64| {
        let tone = |hz: f64, amplitude: f64| amplitude * (2.0 * PI * hz * t).sin();
        tone(pass_hz, 2.0) + tone(pass_hz + SHAFT_HZ, 0.5) + tone(mesh_hz, 1.0) + 0.01 * noise(t)
    };
    let lines = &spectrum(&config_of(&fixed), &[&signal])["lines"];
    let pass = &lines["axes"][0]["tools"][0];
    assert_eq!(pass["tool"], "T1");
    assert_near(number_at(pass, "/tooth_pass/rms"), 2.0 / SQRT_2, 0.01);
    assert_near(number_at(pass, "/tooth_pass/side_bands/rms"), 0.5 / SQRT_2, 0.05);
    assert_near(number_at(pass, "/tooth_pass/side_bands/spacing_hz"), SHAFT_HZ, 1e-6);
    let mesh = &lines["axes"][0]["gears"][0];
    assert_eq!(mesh["place"], "pinion");
    assert_near(number_at(mesh, "/mesh/rms"), 1.0 / SQRT_2, 0.01);
}

#[test]
fn a_machine_whose_file_changes_changes_the_version_of_results() {
    let version = |config: &Config| Settings::new(config).version;
    let plain = config();
    let mut with = plain.clone();
    with.machines.insert("m".into(), machine("rpm = 1_700"));
    let mut other = plain.clone();
    other.machines.insert("m".into(), machine("rpm = 1_750"));
    assert_ne!(version(&plain), version(&with));
    assert_ne!(version(&with), version(&other));
}

#[test]
fn lines_are_valid_by_the_schema() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/spectrum.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).expect("a schema")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a valid schema");
    for speed in ["rpm = 1_758", "rpm_min = 1_720"] {
        let record = spectrum(&config_of(speed), &[&impacts(105.0), &noise]);
        let errors: Vec<_> = validator.iter_errors(&record).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{}", record["lines"]);
    }
}
