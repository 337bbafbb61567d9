//! `spindle flash --emulate`: from the files of a board and a node to the first second of its data, with a real broker.

use serde_json::Value;
use spindle_tests::agent::spindle;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::tools;

#[test]
fn flash_builds_the_emulated_board_starts_it_and_shows_its_birth_and_first_second() {
    let broker = Mosquitto::start("").unwrap();
    let source = tools::root();
    let address = broker.address();
    let line = ["flash", "--board", "qemu-mps2", "--node", "qemu-demo", "--emulate", "--for", "5s", "--json"];
    let place = ["--source", source.to_str().unwrap(), "--broker", &address];
    let output = spindle(&[&line[..], &place[..]].concat()).unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{error}");
    let seen: Value = serde_json::from_str(&out).unwrap();
    println!("{seen:#}");
    assert_eq!((&seen["node"], &seen["seen"]), (&"demo/cwru-rig/qemu-demo".into(), &true.into()));
    assert_eq!(seen["birth"]["board"], "qemu-mps2");
    assert!(seen["image"]["flash_bytes"].as_u64() > Some(50_000), "{seen}");
    let sensor = &seen["sensors"][0];
    assert_eq!((&sensor["sensor"], &sensor["samples"]), (&"drive-end".into(), &26_667.into()));
    assert_eq!(sensor["missing"], 0);
    let rate_hz = sensor["rate_hz"].as_f64().unwrap();
    assert!((rate_hz / 26_667.0 - 1.0).abs() < 0.1, "{rate_hz} Hz");
    let axes = sensor["axes"].as_array().unwrap();
    assert_eq!(axes.iter().map(|axis| axis["axis"].as_str().unwrap()).collect::<String>(), "xyz");
    // The model is a machine that runs: neither still nor at the end of its range of 4 g.
    for axis in axes {
        let [rms, peak] = ["rms", "peak"].map(|level| axis[level].as_f64().unwrap());
        assert!(rms > 0.01 && peak > rms && peak < 40.0, "{axis}");
    }
}
