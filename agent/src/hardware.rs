//! The folder `hardware-configs` at run time: read with the schema that firmware is built with, and compared with what nodes
//! say of themselves. A node that is not as its file says is told and counted, never refused: its data is worth keeping.

use crate::api::metrics;
use spindle_common::hardware::{Catalog, HardwareError, Node, NodeSensor};
use spindle_common::wire::{self, Birth, StreamInfo};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most files that are read.
const FILES_MAX: usize = 100_000;
/// Rate and scale are equal when they differ by less than this share: births hold mHz and floats of 32 bits.
const EQUAL: f64 = 1e-4;

/// Everything that is wrong with a folder. Displays as one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct HardwareErrors(
    /// Never empty.
    pub Vec<HardwareError>,
);

impl fmt::Display for HardwareErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Reads every `.toml` file in the folders of `dir`.
///
/// # Errors
/// Everything that is wrong, each with file and line.
pub fn load(dir: &Path) -> Result<Catalog, HardwareErrors> {
    let mut errors = Vec::new();
    let mut files = Vec::new();
    for path in toml_files(dir, &mut errors) {
        match read(&path) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(error) => errors.push(unreadable(&path, &error)),
        }
    }
    match Catalog::parse(files) {
        Ok(catalog) if errors.is_empty() => Ok(catalog),
        Ok(_) => Err(HardwareErrors(errors)),
        Err(more) => {
            errors.extend(more);
            Err(HardwareErrors(errors))
        }
    }
}

fn toml_files(dir: &Path, errors: &mut Vec<HardwareError>) -> Vec<PathBuf> {
    let mut list = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| errors.push(unreadable(folder, &error))).unwrap_or_default();
        let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let folders = list(dir).into_iter().filter(|path| path.is_dir());
    let files = folders.collect::<Vec<_>>().into_iter().flat_map(|folder| list(&folder));
    let files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .take(FILES_MAX + 1)
        .collect();
    let path = || dir.display().to_string();
    if files.is_empty() && errors.is_empty() {
        let reason = "holds no .toml file in boards, sensors, machines or nodes".into();
        errors.push(HardwareError { path: path(), line: 1, reason });
    } else if files.len() > FILES_MAX {
        let reason = format!("holds more than {FILES_MAX} files");
        errors.push(HardwareError { path: path(), line: 1, reason });
    }
    files
}

fn read(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path)
}

fn unreadable(path: &Path, error: &io::Error) -> HardwareError {
    HardwareError { path: path.display().to_string(), line: 1, reason: error.to_string() }
}

/// Says in the log and counts when a birth contradicts the node's file. `said` is the digest of what was said last of this
/// node, so that it is said once; gives the new one.
pub fn compare(catalog: &Catalog, birth: &Birth<'_>, said: u32, metrics: &metrics::Session) -> u32 {
    let found = contradictions(catalog, birth);
    if !found.is_empty() {
        metrics.births_contradicting.increment();
    }
    let text = found.join("; ");
    let digest = wire::crc32c(text.as_bytes());
    if digest != said && found.is_empty() {
        tracing::info!(node = birth.node, "node is now as its file in hardware-configs says");
    } else if digest != said {
        tracing::warn!(node = birth.node, "node is not as hardware-configs says, its data is kept: {text}");
    }
    digest
}

/// In what a birth contradicts the node's file, in words. Block length, encoding and board are not compared: commands change
/// the first two, and a virtual board may stand for any.
#[must_use]
pub fn contradictions(catalog: &Catalog, birth: &Birth<'_>) -> Vec<String> {
    let Some(node) = catalog.nodes.get(birth.node) else {
        return vec![format!("there is no file nodes/{}.toml", birth.node)];
    };
    let mut found = Vec::new();
    for (what, says, expected) in
        [("site", birth.site, &node.site), ("machine", birth.machine, &node.machine)]
    {
        if says != expected {
            found.push(format!("its {what} is {says}, the file says {expected}"));
        }
    }
    for place in &node.sensor {
        match birth.streams.iter().find(|info| info.sensor == place.name) {
            Some(info) => of_sensor(catalog, place, info, &mut found),
            None => found.push(format!("it has no sensor {}, the file has", place.name)),
        }
    }
    for info in birth.streams.iter().filter(|info| !has(node, info.sensor)) {
        found.push(format!("it has a sensor {}, the file has not", info.sensor));
    }
    found
}

fn has(node: &Node, sensor: &str) -> bool {
    node.sensor.iter().any(|place| place.name == sensor)
}

fn of_sensor(catalog: &Catalog, place: &NodeSensor, info: &StreamInfo<'_>, found: &mut Vec<String>) {
    let mut differs = |what: &str, says: String, expected: String| {
        found.push(format!("sensor {}: its {what} is {says}, the file says {expected}", place.name));
    };
    if info.model != place.sensor {
        differs("type", info.model.into(), place.sensor.clone());
    }
    let Some(sensor) = catalog.sensors.get(&place.sensor) else { return };
    if info.axes != sensor.axes {
        differs("axes", info.axes.into(), sensor.axes.clone());
    }
    let rate_hz = f64::from(info.rate_nominal_mhz) / 1000.0;
    if !equal(rate_hz, sensor.rate_hz) {
        differs("rate", format!("{rate_hz} Hz"), format!("{} Hz", sensor.rate_hz));
    }
    let scale = sensor.range_of(place.full_scale_g).map(spindle_common::hardware::Range::scale);
    if let Some(scale) = scale
        && !equal(info.scale.into(), scale)
    {
        differs("scale", format!("{:.4e} m/s² a count", info.scale), format!("{scale:.4e}"));
    }
}

fn equal(left: f64, right: f64) -> bool {
    (left - right).abs() <= EQUAL * right.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::journal::State;
    use crate::session::{Session, Work};
    use crate::source::{Incoming, SourceId};
    use bytes::Bytes;
    use spindle_common::id::{BootId, StreamId};
    use spindle_common::wire::Encoding;
    use spindle_common::wire::messages::ResetCause;
    use std::sync::Arc;

    fn ours() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-configs")
    }

    fn birth() -> Birth<'static> {
        let stream = StreamInfo {
            stream: StreamId(0),
            sensor: "spindle",
            model: "iis3dwb",
            axes: "xyz",
            rate_nominal_mhz: 26_666_667,
            scale: 0.122e-3 * 9.806_65,
            bits: 16,
            block_samples: 512,
            encoding: Encoding::Raw16,
        };
        Birth {
            node: "host-demo",
            boot: BootId(1),
            site: "demo",
            machine: "demo-mill",
            board: "host",
            firmware: "1",
            tick_hz: 1_000_000,
            reset_cause: ResetCause::PowerOn,
            last_panic: "",
            settings_version: 0,
            ring_capacity: 8,
            streams: [stream].into_iter().collect(),
            lifetime: None,
        }
    }

    #[test]
    fn a_birth_as_its_file_says_is_not_contradicted() {
        let catalog = load(&ours()).unwrap();
        assert_eq!(contradictions(&catalog, &birth()), [""; 0]);
        let metrics = metrics::Session::default();
        assert_eq!(compare(&catalog, &birth(), 0, &metrics), 0);
        assert_eq!(metrics.births_contradicting.get(), 0);
    }

    #[test]
    fn each_contradiction_is_said_in_words_and_counted() {
        let catalog = load(&ours()).unwrap();
        let mut other = birth();
        (other.site, other.machine) = ("plant", "mill");
        let stream = &mut other.streams[0];
        (stream.model, stream.axes, stream.rate_nominal_mhz, stream.scale) =
            ("adxl345", "xy", 3_200_000, 0.038);
        let said = contradictions(&catalog, &other).join("\n");
        for wanted in [
            "its site is plant, the file says demo",
            "its machine is mill, the file says demo-mill",
            "sensor spindle: its type is adxl345, the file says iis3dwb",
            "its axes is xy, the file says xyz",
            "its rate is 3200 Hz, the file says 26666.667 Hz",
            "its scale is 3.8000e-2 m/s² a count, the file says 1.1964e-3",
        ] {
            assert!(said.contains(wanted), "{wanted} is not in:\n{said}");
        }
        other.streams[0].sensor = "column";
        let said = contradictions(&catalog, &other).join("\n");
        assert!(
            said.contains("it has no sensor spindle") && said.contains("it has a sensor column"),
            "{said}"
        );
        other.node = "stranger";
        assert_eq!(contradictions(&catalog, &other), ["there is no file nodes/stranger.toml"]);
        let metrics = metrics::Session::default();
        let digest = compare(&catalog, &other, 0, &metrics);
        assert_eq!(compare(&catalog, &other, digest, &metrics), digest);
        assert_eq!(metrics.births_contradicting.get(), 2);
        assert_ne!(digest, 0);
    }

    #[test]
    fn a_session_keeps_what_a_node_sends_that_is_not_as_its_file_says() {
        let metrics = Arc::<metrics::Metrics>::default();
        let catalog = load(&ours()).unwrap();
        let config = crate::config::Session::default();
        let sources = vec!["line".into()];
        let mut session = Session::new(&config, &[], sources, State::default(), metrics.clone())
            .with_hardware(Some(catalog));
        let mut work = Work::default();
        for (boot, machine) in [(1, "demo-mill"), (2, "mill"), (2, "mill"), (3, "mill")] {
            let mut buffer = [0; 512];
            let birth = Birth { boot: BootId(boot), machine, ..birth() };
            let len = birth.encode(&mut buffer).unwrap();
            let payload = Bytes::copy_from_slice(&buffer[..len]);
            let incoming =
                Incoming { source: SourceId(0), topic: None, payload, redelivered: false, token: None };
            session.take(incoming, Now { utc_ns: 0, mono_ns: 0 }, &mut work);
        }
        assert_eq!(work.records.len(), 3);
        assert_eq!(metrics.session.births_contradicting.get(), 2);
        assert_eq!(metrics.session.dead_letters.get(), 0);
    }

    #[test]
    fn every_file_that_is_wrong_is_named_and_a_folder_without_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("holds no .toml file"), "{error}");
        for (folder, text) in
            [("boards", "name = 3\n"), ("node", "name = \"a\"\n"), ("nodes", "\n\nname = \"b\n")]
        {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("a.toml"), text).unwrap();
        }
        let error = load(dir.path()).unwrap_err().to_string();
        for wanted in ["boards/a.toml:1: invalid type", "node/a.toml:1: is in none", "nodes/a.toml:3: "] {
            assert!(error.contains(wanted), "{wanted} is not in:\n{error}");
        }
        assert_eq!(error.lines().count(), 3, "{error}");
    }
}
