//! The program behind `tests/evaluate`; see there.

use anyhow::Result;
use spindle_tests::{evaluate, tools};

fn main() -> Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let Some(data) = tools::recordings() else {
        println!("skipped: recordings are neither in $SPINDLE_DATA nor in ../shared/data");
        return Ok(());
    };
    evaluate::run(&data, &names)
}
