//! Boards as a file in `hardware-configs/nodes` describes them.

use crate::hardware;
use anyhow::{Context as _, bail};
use spindle_common::hardware::{Catalog, Node, NodeLink, NodeSensor, Sensor};
use spindle_firmware::host::{Playback, VirtualSensor};
use spindle_firmware::sensor::iis3dwb::FullScale;
use spindle_firmware::sensor::signal::Spindle;
use std::path::Path;
use std::sync::Arc;

/// The type that has a driver and a chip model; others are played at their own rate, width and scale.
const MODELLED: &str = "iis3dwb";

/// Samples per channel of a signal that is played over and over.
const LOOP_SAMPLES: f64 = 65_536.0;

/// Reads the folder and the nodes of these names.
///
/// # Errors
/// Everything that is wrong with the folder; a name that has no file, with those that have.
pub(super) fn read(dir: &Path, names: &[String]) -> anyhow::Result<(Catalog, Vec<Node>)> {
    let catalog = hardware::load(dir).with_context(|| format!("{} is not right", dir.display()))?;
    let mut nodes = Vec::new();
    for name in names {
        let Some(node) = catalog.nodes.get(name) else {
            let known: Vec<_> = catalog.nodes.keys().map(String::as_str).collect();
            bail!("{} has no nodes/{name}.toml; there are: {}", dir.display(), known.join(", "));
        };
        nodes.push(node.clone());
    }
    Ok((catalog, nodes))
}

/// Bits per second of the node's serial line, if it has one.
pub(super) const fn baud(node: &Node) -> Option<u32> {
    match node.link {
        NodeLink::Serial { baud } => Some(baud),
        NodeLink::Ethernet { .. } => None,
    }
}

/// The sensor at `place`, measuring `spindle`; `modelled` makes one of the type that has a chip model.
///
/// # Errors
/// Names what cannot be played. [`Catalog::parse`] has checked what the files can get wrong.
pub(super) fn sensor(
    catalog: &Catalog,
    place: &NodeSensor,
    spindle: Spindle,
    modelled: impl FnOnce(&str, Spindle, FullScale) -> VirtualSensor,
) -> anyhow::Result<VirtualSensor> {
    let kind = catalog.sensors.get(&place.sensor);
    let kind = kind.with_context(|| format!("sensor {}: no type {}", place.name, place.sensor))?;
    let sensor = match FullScale::from_g(place.full_scale_g) {
        Some(full_scale) if kind.name == MODELLED => modelled(&place.name, spindle, full_scale),
        _ => {
            let playback = playback(kind, place, spindle)
                .with_context(|| format!("sensor {}: {} cannot be played", place.name, kind.name))?;
            VirtualSensor::playback(&place.name, playback.with_model(&kind.name).repeated())
        }
    };
    Ok(sensor.block_samples(place.block_samples).encoding(place.encoding.encoding(kind.bits)))
}

/// Whole turns of the shaft, so that the end runs into the start.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, as a converter does"
)]
fn playback(kind: &Sensor, place: &NodeSensor, spindle: Spindle) -> Option<Playback> {
    let scale = kind.range_of(place.full_scale_g)?.scale();
    let half = f64::from(1_i32.checked_shl(u32::from(kind.bits).checked_sub(1)?)?);
    let per_turn = kind.rate_hz / f64::from(spindle.shaft_hz);
    let frames = ((LOOP_SAMPLES / per_turn).floor().max(1.0) * per_turn).round() as usize;
    // What lies above the sensor's band it does not show.
    let resonance_hz = spindle.resonance_hz.min(0.3 * kind.rate_hz as f32);
    let mut signal = Spindle { rate_hz: kind.rate_hz as f32, resonance_hz, ..spindle }.start();
    let axes: Vec<usize> =
        kind.axes.chars().map(|axis| "xyz".find(axis.to_ascii_lowercase()).unwrap_or(0)).collect();
    let mut samples = Vec::with_capacity(frames * axes.len());
    for _ in 0..frames {
        let values = signal.step();
        let counts =
            axes.iter().map(|&axis| (f64::from(values[axis]) / scale).round().clamp(-half, half - 1.0));
        samples.extend(counts.map(|count| count as i32));
    }
    Playback::new(Arc::from(samples), &kind.axes, kind.bits, kind.rate_hz, scale as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_of_hardware_configs_can_be_played_as_its_file_says() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-configs");
        let all: Vec<_> = hardware::load(&dir).unwrap().nodes.into_keys().collect();
        let (catalog, nodes) = read(&dir, &all).unwrap();
        assert!(nodes.len() >= 3 && nodes.iter().any(|node| baud(node).is_some()));
        for place in nodes.iter().flat_map(|node| &node.sensor) {
            let made = sensor(&catalog, place, Spindle::default(), |name, spindle, full_scale| {
                VirtualSensor::spindle(name, spindle).full_scale(full_scale)
            });
            made.unwrap();
        }
        let error = read(&dir, &["nobody".into()]).unwrap_err().to_string();
        assert!(error.contains("nodes/nobody.toml") && error.contains("host-demo"), "{error}");
    }
}
