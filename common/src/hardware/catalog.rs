//! Parses the whole of `hardware-configs` and checks that its files agree with each other. Who calls it reads the files.

use super::{Board, LinkKind, Machine, Node, NodeLink, Sensor};
use crate::dsp::decimate::is_factor;
use crate::id::is_name;
use crate::link;
use crate::wire::{BLOCK_SAMPLES_MAX, STREAMS_MAX};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;
use toml::de::DeTable;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}: {reason}")]
pub struct HardwareError {
    /// The file, as the caller named it.
    pub path: String,
    /// Line in it, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// What is wrong in a node's file: the key of the node, or of its sensor of this number, at which it stands.
type Fault = (Option<usize>, &'static str, String);

/// Everything in `hardware-configs`, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// Board types.
    pub boards: BTreeMap<String, Board>,
    /// Sensor types.
    pub sensors: BTreeMap<String, Sensor>,
    /// Machines.
    pub machines: BTreeMap<String, Machine>,
    /// Nodes.
    pub nodes: BTreeMap<String, Node>,
}

impl Catalog {
    /// Parses files, given as (path, text); a path ends in `boards/NAME.toml`, `sensors/NAME.toml`, and so on. Others are
    /// refused. Gives everything that is wrong at once.
    ///
    /// # Errors
    /// One entry per thing that is wrong.
    pub fn parse(files: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<HardwareError>> {
        let mut catalog = Self::default();
        let mut errors = Vec::new();
        let mut nodes = BTreeMap::new();
        let mut broken = BTreeSet::new();
        for (path, text) in files {
            let mut parts = path.rsplit('/');
            let stem = parts.next().and_then(|file| file.strip_suffix(".toml")).unwrap_or_default();
            let folder = parts.next();
            let added =
                match folder {
                    Some("boards") => {
                        add(&mut catalog.boards, stem, &text, |board| &board.name).and_then(|()| {
                            match budget_fault(&catalog.boards, stem) {
                                Some(reason) => Err((line_of(&text, None, "budget"), reason)),
                                None => Ok(()),
                            }
                        })
                    }
                    Some("sensors") => add(&mut catalog.sensors, stem, &text, |sensor| &sensor.name)
                        .and_then(|()| match catalog.sensors.get(stem).and_then(Sensor::fault) {
                            Some((key, reason)) => Err((line_of(&text, None, key), reason)),
                            None => Ok(()),
                        }),
                    Some("machines") => add(&mut catalog.machines, stem, &text, |machine| &machine.name)
                        .and_then(|()| match catalog.machines.get(stem).and_then(Machine::fault) {
                            Some((key, reason)) => Err((line_of(&text, None, key), reason)),
                            None => Ok(()),
                        }),
                    Some("nodes") => {
                        nodes.insert(stem.to_string(), (path.clone(), text.clone()));
                        add(&mut catalog.nodes, stem, &text, |node| &node.name)
                    }
                    _ => Err((1, "is in none of boards, sensors, machines, nodes".to_string())),
                };
            if let Err((line, reason)) = added {
                broken.insert((folder.unwrap_or_default().to_string(), stem.to_string()));
                errors.push(HardwareError { path, line, reason });
            }
        }
        for node in catalog.nodes.values() {
            let (path, text) = nodes.get(&node.name).cloned().unwrap_or_default();
            errors.extend(catalog.faults(node, &broken).into_iter().map(|(sensor, key, reason)| {
                HardwareError { path: path.clone(), line: line_of(&text, sensor, key), reason }
            }));
        }
        if errors.is_empty() { Ok(catalog) } else { Err(errors) }
    }

    /// What a node's link carries, bits per second; `None` when its board has no such link.
    #[must_use]
    pub fn link_bits_per_s(&self, node: &Node) -> Option<u64> {
        match node.link {
            NodeLink::Serial { baud } => Some(baud.into()),
            NodeLink::Ethernet { .. } => {
                let links = &self.boards.get(&node.board)?.link;
                links.iter().find(|link| link.kind == LinkKind::Ethernet).map(|link| link.bits_per_s_max)
            }
        }
    }

    /// What in this node does not agree with the rest. What refers to a file that is `broken` is not blamed for it.
    fn faults(&self, node: &Node, broken: &BTreeSet<(String, String)>) -> Vec<Fault> {
        let is_broken = |folder: &str, name: &String| broken.contains(&(folder.to_string(), name.clone()));
        let mut faults = Vec::new();
        if !is_name(&node.site) {
            let reason = format!("site `{}` is no name: 1 to 32 of A-Z a-z 0-9 . _ -", node.site);
            faults.push((None, "site", reason));
        }
        if !self.machines.contains_key(&node.machine) && !is_broken("machines", &node.machine) {
            let reason =
                format!("machine `{}` has no file in machines; {}", node.machine, known(&self.machines));
            faults.push((None, "machine", reason));
        }
        let board = self.boards.get(&node.board);
        if board.is_none() && !is_broken("boards", &node.board) {
            let reason = format!("board `{}` has no file in boards; {}", node.board, known(&self.boards));
            faults.push((None, "board", reason));
        }
        if node.sensor.is_empty() || node.sensor.len() > STREAMS_MAX {
            let reason = format!("{} sensors; a node has 1 to {STREAMS_MAX}", node.sensor.len());
            faults.push((None, "sensor", reason));
        }
        let mut bits_per_s = 0.0;
        for (index, place) in node.sensor.iter().enumerate() {
            let name = &place.name;
            let mut fault = |key, reason| faults.push((Some(index), key, format!("sensor {name}: {reason}")));
            if !is_name(name) {
                fault("name", "is no name: 1 to 32 of A-Z a-z 0-9 . _ -".to_string());
            } else if node.sensor.iter().take(index).any(|other| other.name == *name) {
                fault("name", "the name is used twice".to_string());
            }
            let block_fits = (1..=BLOCK_SAMPLES_MAX).contains(&usize::from(place.block_samples));
            if !block_fits {
                let reason = format!("block_samples is {}; 1 to {BLOCK_SAMPLES_MAX}", place.block_samples);
                fault("block_samples", reason);
            }
            if let (Some(board), Some(port)) = (board, &place.port)
                && let Some(reason) = port_fault(board, port, self.sensors.get(&place.sensor))
            {
                fault("port", reason);
            }
            let Some(sensor) = self.sensors.get(&place.sensor) else {
                if !is_broken("sensors", &place.sensor) {
                    let there = known(&self.sensors);
                    fault("sensor", format!("type `{}` has no file in sensors; {there}", place.sensor));
                }
                continue;
            };
            if sensor.range_of(place.full_scale_g).is_none() {
                let ranges: Vec<_> =
                    sensor.range.iter().map(|range| range.full_scale_g.to_string()).collect();
                let reason = format!(
                    "full_scale_g is {}; {} has {}",
                    place.full_scale_g,
                    sensor.name,
                    ranges.join(", ")
                );
                fault("full_scale_g", reason);
            }
            if place.decimation != 0 && !is_factor(place.decimation.into()) {
                let reason =
                    format!("decimation is {}; 2 to 256 with prime factors up to 13", place.decimation);
                fault("decimation", reason);
            }
            if block_fits {
                bits_per_s += place.load(sensor).bits_per_s();
            }
        }
        if let Some(board) = board {
            faults.extend(link_fault(node, board, bits_per_s).map(|reason| (None, "link", reason)));
        }
        faults
    }
}

/// Why this sensor cannot be at this port of the board, if it cannot. A sensor whose file is missing is not judged.
fn port_fault(board: &Board, port: &str, sensor: Option<&Sensor>) -> Option<String> {
    let converter = board.converter.iter().find(|its| its.name == port);
    let is_spi = board.port.iter().any(|its| its.name == port);
    match (sensor, converter) {
        (_, None) if !is_spi => Some(format!("board {} has no port `{port}`", board.name)),
        (Some(sensor), None) if sensor.adc.is_some() => {
            Some(format!("{} is analog, and port `{port}` is an SPI", sensor.name))
        }
        (Some(sensor), Some(_)) if sensor.adc.is_none() => {
            Some(format!("{} wants an SPI, and port `{port}` is a converter", sensor.name))
        }
        (Some(sensor), Some(converter)) => converter.fault(sensor),
        _ => None,
    }
}

/// The line at which a key of a node's file stands, or of its sensor of this number; where it is left out, the nearest above.
fn line_of(text: &str, sensor: Option<usize>, key: &str) -> usize {
    let (document, _) = DeTable::parse_recoverable(text);
    let at_key = |table: &DeTable<'_>, key: &str| {
        table.iter().find(|(name, _)| name.get_ref() == key).map(|(name, _)| name.span().start)
    };
    let byte = match sensor {
        None => at_key(document.get_ref(), key),
        Some(index) => {
            let sensors = document.get_ref().iter().find(|(name, _)| name.get_ref() == "sensor");
            let item = sensors.and_then(|(_, sensors)| sensors.get_ref().as_array()?.get(index));
            item.map(|item| {
                let found = item.get_ref().as_table().and_then(|table| at_key(table, key));
                found.unwrap_or(item.span().start)
            })
        }
    };
    line_at(text, byte.unwrap_or(0))
}

fn line_at(text: &str, byte: usize) -> usize {
    text.get(..byte).unwrap_or(text).matches('\n').count() + 1
}

/// A link that the board has not, or that raw data would use too much of. A byte counts as ten bits (8N1).
fn link_fault(node: &Node, board: &Board, bits_per_s: f64) -> Option<String> {
    let (kind, wanted) = match &node.link {
        NodeLink::Ethernet { .. } => (LinkKind::Ethernet, None),
        NodeLink::Serial { baud } => (LinkKind::Serial, Some(u64::from(*baud))),
    };
    let Some(link) = board.link.iter().find(|link| link.kind == kind) else {
        return Some(format!("board {} has no {kind:?} link", board.name));
    };
    if wanted.is_some_and(|baud| baud > link.bits_per_s_max) {
        return Some(format!("board {} does at most {} baud", board.name, link.bits_per_s_max));
    }
    let capacity = wanted.unwrap_or(link.bits_per_s_max) as f64;
    (!link::fits(bits_per_s, capacity)).then(|| {
        format!(
            "raw data needs {:.0} kbit/s of a link of {:.0}: more than 80 %; fewer sensors, a faster link, or step = \"decimated\" \
             or \"features\" for a sensor",
            bits_per_s / 1e3,
            capacity / 1e3
        )
    })
}

/// A budget that the part cannot give.
fn budget_fault(boards: &BTreeMap<String, Board>, name: &str) -> Option<String> {
    let board = boards.get(name)?;
    let (budget, processor) = (board.budget?, &board.processor);
    let ram_bytes = budget.ram_bytes.saturating_add(budget.stack_bytes);
    let of = |what: &str, wanted: u64, there: Option<u64>| {
        let there = there?;
        (wanted > there)
            .then(|| format!("budget of {wanted} bytes of {what}; {} has {there}", processor.part))
    };
    of("flash", budget.flash_bytes, processor.flash_bytes)
        .or_else(|| of("RAM and stack", ram_bytes, processor.ram_bytes))
}

fn known<T>(entries: &BTreeMap<String, T>) -> String {
    format!("there are: {}", entries.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
}

fn add<T: DeserializeOwned>(
    entries: &mut BTreeMap<String, T>,
    stem: &str,
    text: &str,
    name_of: impl Fn(&T) -> &String,
) -> Result<(), (usize, String)> {
    let entry = toml::from_str::<T>(text).map_err(|error| {
        let line = line_at(text, error.span().map_or(0, |span| span.start));
        (line, error.message().to_string())
    })?;
    let name = name_of(&entry);
    if name != stem || !is_name(stem) {
        let reason = format!("name is `{name}`; it must be a name, and the file's: `{stem}`");
        return Err((line_of(text, None, "name"), reason));
    }
    entries.insert(stem.to_string(), entry);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn ours() -> Vec<(String, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-configs");
        let mut files = Vec::new();
        for kind in ["boards", "sensors", "machines", "nodes"] {
            for entry in std::fs::read_dir(folder.join(kind)).unwrap().flatten() {
                let path = entry.path();
                files.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
        files
    }

    #[test]
    fn every_file_of_hardware_configs_is_read_and_agrees_with_the_others() {
        let catalog = Catalog::parse(ours()).unwrap();
        for board in ["host", "qemu-mps2", "nucleo-h563zi", "w5500-evb-pico2"] {
            assert!(catalog.boards.contains_key(board), "{board}");
        }
        for sensor in ["iis3dwb", "adxl355", "adxl345", "adxl1002"] {
            assert!(catalog.sensors.contains_key(sensor), "{sensor}");
        }
        assert!(catalog.nodes.len() >= 3);
        let sources = catalog.sensors.values().map(|sensor| &sensor.source);
        let sources = sources.chain(catalog.boards.values().map(|board| &board.processor.source));
        assert!(sources.into_iter().all(|source| source.len() > 10), "a source says where to look");
    }

    #[test]
    fn the_bearing_of_the_rig_has_the_published_fault_orders() {
        let catalog = Catalog::parse(ours()).unwrap();
        let bearing = catalog
            .machines
            .values()
            .flat_map(|machine| &machine.bearing)
            .find(|b| b.designation.contains("6205"));
        let orders = bearing.unwrap().orders();
        // CWRU's published multiples: 3.5848, 5.4152, 0.39828, 4.7135 / 2.
        for (found, published) in
            [(orders.bpfo, 3.5848), (orders.bpfi, 5.4152), (orders.ftf, 0.3983), (orders.bsf, 2.3567)]
        {
            assert!((found - published).abs() < 1e-4, "{found} against {published}");
        }
    }

    #[test]
    fn a_machine_that_contradicts_itself_is_refused() {
        let bearing = "[[bearing]]\nplace = \"front\"\ndesignation = \"d\"\nballs = 9\nball_diameter_mm = 50\n\
                       pitch_diameter_mm = 39\nsource = \"s\"\n";
        let gear = "[[gear]]\nplace = \"pinion\"\nteeth = 0\nsource = \"s\"\n";
        let slow = "[spindle]\nrpm_max = 100\nrpm_min = 200\nsource = \"s\"\n";
        let fast = "[spindle]\nrpm_max = 100\nrpm = 200\nsource = \"s\"\n";
        let many = "[[tool]]\nname = \"t\"\nflutes = 2\nsource = \"s\"\n".repeat(17);
        for (part, wanted) in [
            (bearing, "front: a bearing's element diameter"),
            (gear, "pinion: teeth and ratio"),
            (slow, "rpm and rpm_min must be"),
            (fast, "rpm and rpm_min must be"),
            (&*many, "17 of them; there may be 16"),
        ] {
            let text = std::format!("name = \"m\"\ntitle = \"t\"\n{part}");
            let errors = Catalog::parse([("x/machines/m.toml".to_string(), text)]).unwrap_err();
            assert!(errors[0].to_string().contains(wanted), "{}", errors[0]);
            assert!(errors[0].to_string().starts_with("x/machines/m.toml:3: "), "{}", errors[0]);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_what_would_be_right() {
        let mut files = ours();
        let node = "name = \"bad\"\nsite = \"a b\"\nmachine = \"none\"\nboard = \"nucleo-h563zi\"\n\
                    link = { kind = \"serial\", baud = 921600 }\n[[sensor]]\nname = \"s\"\nsensor = \"iis3dwb\"\nfull_scale_g = 3\n";
        files.push(("x/nodes/bad.toml".into(), node.into()));
        files.push(("x/nodes/odd.toml".into(), "name = \"odd\"\nspeed = 3\n".into()));
        files.push(("x/notes/a.toml".into(), String::new()));
        let errors = Catalog::parse(files).unwrap_err();
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for wanted in
            ["site `a b`", "machine `none`", "full_scale_g is 3; iis3dwb has 2, 4, 8, 16", "80 %", "speed"]
        {
            assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
        }
        for place in
            ["x/nodes/bad.toml:2: site", "x/nodes/bad.toml:5: raw data", "x/nodes/bad.toml:9: sensor s: full"]
        {
            assert!(text.contains(place), "{place} is not in:\n{text}");
        }
        assert!(
            text.contains("x/nodes/odd.toml:2: unknown field")
                && text.contains("x/notes/a.toml:1: is in none"),
            "{text}"
        );
    }

    #[test]
    fn a_budget_that_the_part_cannot_give_is_refused() {
        for (key, wanted) in [("flash_bytes", "bytes of flash"), ("stack_bytes", "bytes of RAM and stack")] {
            let mut files = ours();
            let (_, text) =
                files.iter_mut().find(|(path, _)| path.ends_with("boards/qemu-mps2.toml")).unwrap();
            let (head, budget) = text.split_once("[budget]").unwrap();
            let line = budget.lines().find(|line| line.starts_with(key)).unwrap();
            let head = head.to_string();
            *text = format!("{head}[budget]{}", budget.replace(line, &format!("{key} = 5_000_000")));
            let errors = Catalog::parse(files).unwrap_err();
            assert!(errors[0].reason.contains(wanted) && errors[0].line > 5, "{errors:?}");
        }
    }

    #[test]
    fn an_analog_sensor_whose_figures_contradict_each_other_is_refused() {
        let with = |from: &str, to: &str| {
            let mut files = ours();
            for (path, text) in &mut files {
                if path.ends_with("sensors/adxl1002.toml") {
                    assert!(text.contains(from));
                    *text = text.replace(from, to);
                }
            }
            Catalog::parse(files).unwrap_err()[0].to_string()
        };
        let error = with("sensitivity_mv_per_g = 40.0", "sensitivity_mv_per_g = 20.0");
        assert!(error.contains("a count is 61.0352 mg"), "{error}");
        let error = with("fifo_frames", "spi_mode = 3\nfifo_frames");
        assert!(error.contains("is analog"), "{error}");
    }

    #[test]
    fn a_sensor_is_refused_at_a_port_that_cannot_take_it() {
        let with = |node: &str, from: &str, to: &str| {
            let mut files = ours();
            let (_, text) = files.iter_mut().find(|(path, _)| path.ends_with(node)).unwrap();
            assert!(text.contains(from));
            *text = text.replace(from, to);
            Catalog::parse(files).unwrap_err()[0].to_string()
        };
        let analog = "nodes/fan-2-analog.toml";
        let error = with(analog, "port = \"adc\"", "port = \"spi1\"");
        assert!(error.contains("adxl1002 is analog, and port `spi1` is an SPI"), "{error}");
        let error = with("nodes/press-2-frame.toml", "port = \"spi1\"", "port = \"adc\"");
        assert!(error.contains("iis3dwb wants an SPI, and port `adc` is a converter"), "{error}");
        let board = "boards/w5500-evb-pico2.toml";
        let error = with(board, "bits = 12", "bits = 14");
        assert!(error.contains("adxl1002 has 12 bits, the converter 14"), "{error}");
        let error = with(board, "rate_hz_max = 500_000.0", "rate_hz_max = 40_000.0");
        assert!(error.contains("50000 conversions a second, the converter does 40000"), "{error}");
    }

    #[test]
    fn a_node_is_not_blamed_for_the_broken_file_that_it_names() {
        let mut files = ours();
        for (path, text) in &mut files {
            if path.ends_with("sensors/iis3dwb.toml") {
                text.push_str("colour = 3\n");
            }
        }
        let errors = Catalog::parse(files).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].path.ends_with("sensors/iis3dwb.toml") && errors[0].reason.contains("colour"),
            "{errors:?}"
        );
    }
}
