//! The `spindle` command; everything is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    spindle_agent::cli::main()
}
