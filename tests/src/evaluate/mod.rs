//! `tests/evaluate`: what the detection methods make of recordings, in tables.

mod bosch;
mod cwru;
mod femto;
mod hurco;
mod input;
mod stats;
mod uci;
mod xep;

use anyhow::{Result, bail};
use std::path::Path;

/// Runs the named evaluations, or all, over the recordings in a folder.
///
/// # Errors
/// When a name is none of them, or a recording cannot be read.
pub fn run(data: &Path, names: &[String]) -> Result<()> {
    type Evaluation = (&'static str, &'static str, fn(&Path) -> Result<()>);
    const ALL: [Evaluation; 6] = [
        ("cwru", "cwru_bearing", cwru::evaluate),
        ("bosch", "bosch_cnc", bosch::evaluate),
        ("femto", "femto_pronostia", femto::evaluate),
        ("hurco", "hurco_milling", hurco::evaluate),
        ("uci", "uci_fan_mems", uci::evaluate),
        ("xep", "xep_telemetry", xep::evaluate),
    ];
    for name in names {
        if !ALL.iter().any(|(known, ..)| known == name) {
            bail!("unknown set {name:?}; there are {}", ALL.map(|(known, ..)| known).join(", "));
        }
    }
    for (name, folder, evaluate) in ALL {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let folder = data.join(folder);
        if folder.is_dir() {
            evaluate(&folder)?;
        } else {
            println!("{name}: skipped, there is no {}\n", folder.display());
        }
    }
    Ok(())
}
