//! Turns `hardware-configs` into constants, so that a board's identity, wiring and ranges come from the same files that the
//! gateway reads, checked by the same schema. SPINDLE_HARDWARE names another folder of the same layout. A folder that does not parse fails the build, with every fault named.

use spindle_common::hardware::{Catalog, Node, NodeLink};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=SPINDLE_HARDWARE");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-configs");
    let folder = std::env::var_os("SPINDLE_HARDWARE").map_or(ours, PathBuf::from);
    println!("cargo:rerun-if-changed={}", folder.display());
    let files = ["boards", "sensors", "machines", "nodes"].iter().flat_map(|kind| {
        let listing = std::fs::read_dir(folder.join(kind)).into_iter().flatten().flatten();
        listing
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
    });
    let files = files.map(|path| {
        println!("cargo:rerun-if-changed={}", path.display());
        (path.display().to_string(), std::fs::read_to_string(&path).unwrap_or_default())
    });
    let catalog = Catalog::parse(files).unwrap_or_else(|errors| {
        for error in errors {
            // Cargo shows these under the crate's name.
            println!("cargo::error={}", error.to_string().replace('\n', " "));
        }
        Catalog::default()
    });
    let mut out =
        String::from("/// Every node in `hardware-configs/nodes`.\npub const NODES: &[NodeConfig] = &[\n");
    for node in catalog.nodes.values() {
        emit(&mut out, &catalog, node);
    }
    out.push_str("];\n");
    let path = Path::new(&std::env::var("OUT_DIR").unwrap_or_default()).join("nodes.rs");
    if let Err(error) = std::fs::write(&path, out) {
        println!("cargo::error=cannot write {}: {error}", path.display());
    }
}

/// Writing to a string cannot fail, so results of `write!` are dropped.
fn emit(out: &mut String, catalog: &Catalog, node: &Node) {
    let link = match &node.link {
        NodeLink::Ethernet { broker, address, router, sntp, tls } => format!(
            "LinkConfig::Ethernet {{ broker: {broker:?}, address: {address:?}, router: {router:?}, sntp: {sntp:?}, tls: {tls} }}"
        ),
        NodeLink::Serial { baud } => format!("LinkConfig::Serial {{ baud: {baud} }}"),
    };
    let _ = writeln!(
        out,
        "NodeConfig {{ name: {:?}, site: {:?}, machine: {:?}, board: {:?}, link: {link}, sensors: &[",
        node.name, node.site, node.machine, node.board
    );
    for place in &node.sensor {
        let Some(sensor) = catalog.sensors.get(&place.sensor) else { continue };
        let Some(range) = sensor.range.iter().find(|range| range.full_scale_g == place.full_scale_g) else {
            continue;
        };
        let _ = writeln!(
            out,
            "SensorConfig {{ name: {:?}, model: {:?}, axes: {:?}, port: {:?}, full_scale_g: {:?}, scale: {:?}, bits: {}, \
             spi_mode: {}, spi_hz_max: {}, adc_self_test: {:?}, rate_nominal_mhz: {}, block_samples: {}, encoding: Encoding::{:?}, step: Step::{:?}, may_degrade: {}, \
             decimation: {}, trigger: TriggerSettings {{ level: {:?}, every_s: {}, before: {}, after: {}, rest_s: {} }} }},",
            place.name,
            sensor.name,
            sensor.axes,
            place.port,
            place.full_scale_g as f32,
            range.scale() as f32,
            sensor.bits,
            sensor.spi_mode.unwrap_or(0),
            sensor.spi_hz_max.unwrap_or(0),
            sensor.adc.and_then(|adc| adc.self_test_g).map(|limits| limits.map(|g| (g * 9.806_65) as f32)),
            (sensor.rate_hz * 1000.0).round() as u32,
            place.block_samples,
            place.encoding.encoding(sensor.bits),
            place.step,
            place.may_degrade,
            place.load(sensor).decimation,
            place.trigger.level,
            place.trigger.every_s,
            place.trigger.before,
            place.trigger.after,
            place.trigger.rest_s
        );
    }
    out.push_str("] },\n");
}
