//! Turns `hardware-configs` into constants, so that a board's identity, wiring and ranges come from the same files that the
//! gateway reads, checked by the same schema. SPINDLE_HARDWARE names another folder of the same layout. A folder that does not parse fails the build, with every fault named.

use spindle_common::hardware::{Catalog, Node, NodeLink};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[path = "src/transport/tls/der.rs"]
#[allow(dead_code, reason = "only reads what firmware will use")]
mod der;

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
    login(&mut out);
    tls(&mut out, &catalog);
    let path = Path::new(&std::env::var("OUT_DIR").unwrap_or_default()).join("nodes.rs");
    if let Err(error) = std::fs::write(&path, out) {
        println!("cargo::error=cannot write {}: {error}", path.display());
    }
}

/// User and password of the node that is built, from the folder that `spindle provision` made: they are in the image, and nowhere
/// else.
fn login(out: &mut String) {
    for name in ["SPINDLE_CREDENTIALS", "SPINDLE_NODE"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let (folder, node) = (std::env::var("SPINDLE_CREDENTIALS"), std::env::var("SPINDLE_NODE"));
    let login = match (folder, node) {
        (Ok(folder), Ok(node)) if !folder.is_empty() => {
            let path = Path::new(&folder).join("nodes").join(node).join("login.toml");
            println!("cargo:rerun-if-changed={}", path.display());
            match read_login(&path) {
                Ok(login) => Some(login),
                Err(reason) => {
                    println!("cargo::error={}: {reason}", path.display());
                    None
                }
            }
        }
        _ => None,
    };
    let login = login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
    let _ = writeln!(
        out,
        "/// User and password at the broker; `None` when the image was built without credentials.\n\
         pub const LOGIN: Option<(&str, &str)> = {login:?};"
    );
}

/// Authority, certificate and key of the node that is built, when its file says `tls = true`. It must not end in firmware
/// without TLS, and a damaged file not on a board.
fn tls(out: &mut String, catalog: &Catalog) {
    let has = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let node = value("SPINDLE_NODE").filter(|name| {
        let link = catalog.nodes.get(name).map(|node| &node.link);
        matches!(link, Some(NodeLink::Ethernet { tls: true, .. }))
    });
    let mut files = String::from("None");
    // Virtual boards on a host choose their links themselves.
    if let Some(node) = node.filter(|_| !has("HOST")) {
        match (has("TLS"), value("SPINDLE_CREDENTIALS")) {
            (false, _) => println!(
                "cargo::error=node {node} has `tls = true`: build its firmware with `--features tls`"
            ),
            (true, None) => println!(
                "cargo::error=node {node} has `tls = true`: name the folder that `spindle provision` made in SPINDLE_CREDENTIALS"
            ),
            (true, Some(folder)) => {
                files = tls_files(&Path::new(&folder).join("nodes").join(node)).unwrap_or_else(|reason| {
                    println!("cargo::error={reason}");
                    files
                });
            }
        }
    }
    if has("TLS") {
        let _ = writeln!(
            out,
            "/// For TLS; `None` when the node's file does not ask for it.\npub const TLS: Option<TlsFiles> = {files};"
        );
    }
}

fn tls_files(folder: &Path) -> Result<String, String> {
    let mut files = String::from("Some(TlsFiles { ");
    for name in ["ca", "cert", "key"] {
        let path = folder.join(name).with_extension("der");
        println!("cargo:rerun-if-changed={}", path.display());
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let is_good = match name {
            "key" => der::private_key(&bytes).is_some(),
            _ => der::Certificate::parse(&bytes).is_some(),
        };
        if !is_good {
            return Err(format!(
                "{}: is not an ECDSA P-256 {}",
                path.display(),
                if name == "key" { "key in PKCS#8" } else { "certificate" }
            ));
        }
        let _ = write!(files, "{name}_der: include_bytes!({:?}), ", path.display().to_string());
    }
    Ok(files + "})")
}

fn read_login(path: &Path) -> Result<(String, String), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    // What stands in the file is a secret: an error must not repeat it.
    let table: toml::Table = text.parse().map_err(|_| "is not TOML".to_string())?;
    let value = |key: &str| table.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    value("user").zip(value("password")).ok_or_else(|| "has no user and password".to_string())
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
        "NodeConfig {{ name: {:?}, site: {:?}, machine: {:?}, board: {:?}, link: {link}, link_bits_per_s: {}, sensors: &[",
        node.name,
        node.site,
        node.machine,
        node.board,
        catalog.link_bits_per_s(node).unwrap_or(0)
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
