//! The emulated board over TLS, to a real Mosquitto with what `spindle provision` made.

use crate::provision::{Site, strs};
use spindle_tests::mosquitto::subscribe_as;
use spindle_tests::qemu::{Emulated, Image, Recipe, Wiring};
use spindle_tests::wait::PATIENCE;
use spindle_tests::{process, tools};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const NODE: &str = "qemu-demo";
const PLACE: &str = "spindle/v1/demo/cwru-rig";

/// The project's hardware configurations, in which the node says `tls = true`.
fn hardware_with_tls() -> TempDir {
    let folder = process::folder("hardware-tls").unwrap();
    let ours = tools::root().join("hardware-configs");
    for kind in std::fs::read_dir(&ours).unwrap().map(|entry| entry.unwrap().path()) {
        let place = folder.path().join(kind.file_name().unwrap());
        if !kind.is_dir() {
            continue;
        }
        std::fs::create_dir(&place).unwrap();
        for file in std::fs::read_dir(&kind).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&file, place.join(file.file_name().unwrap())).unwrap();
        }
    }
    let path = folder.path().join("nodes").join(format!("{NODE}.toml"));
    let text = std::fs::read_to_string(&path).unwrap();
    let safe = text.replace("10.0.2.2:1883\" }", "10.0.2.2:8883\", tls = true }");
    assert_ne!(text, safe);
    std::fs::write(&path, safe).unwrap();
    folder
}

fn build(features: Option<&str>, hardware: &Path, credentials: Option<&Path>) -> anyhow::Result<Image> {
    Image::by(&Recipe { node: NODE, features, hardware: Some(hardware), credentials })
}

fn on_port(port: u16) -> Wiring {
    Wiring { broker_port: Some(port), ..Wiring::default() }
}

#[test]
fn an_emulated_board_speaks_tls_with_its_own_site_s_broker_and_with_no_other() {
    let (site, stranger) = (Site::start(), Site::start());
    let hardware = hardware_with_tls();
    let image = build(Some("tls"), hardware.path(), Some(&site.path(""))).unwrap();
    let log = process::folder("tls-sub").unwrap();
    let gateway = site.by_password("gateway");
    let (birth, raw) = (format!("{PLACE}/{NODE}/birth "), format!("{PLACE}/drive-end/raw "));
    for (index, port) in [site.tls, site.certificates].into_iter().enumerate() {
        let log = log.path().join(index.to_string());
        let mut heard = subscribe_as(site.tls, &strs(&gateway), "spindle/v1/#", &log).unwrap();
        // A birth that the board before this one has left there, retained, is none of this board's blocks.
        let _board = Emulated::start(&image, &on_port(port), &[]).unwrap();
        heard.wait_for_log(&birth, PATIENCE).unwrap();
        heard.wait_for_log(&raw, PATIENCE).unwrap();
    }
    let mut board = Emulated::start(&image, &on_port(stranger.tls), &[]).unwrap();
    let said = "no link: broker is not believed: its certificate is not signed by this site's authority";
    board.wait_for_log(said, Duration::from_secs(60)).unwrap();
    let log = stranger.broker.process().log();
    assert!(!log.contains(&format!("spindle-node-{NODE}")), "{log}");
}

#[test]
fn firmware_of_a_node_with_tls_is_not_built_without_it() {
    let hardware = hardware_with_tls();
    for (features, said) in [(None, "with `--features tls`"), (Some("tls"), "in SPINDLE_CREDENTIALS")] {
        let error = build(features, hardware.path(), None).unwrap_err().to_string();
        assert!(error.contains(&format!("node {NODE} has `tls = true`")) && error.contains(said), "{error}");
    }
}
