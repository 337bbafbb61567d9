//! Spindle's gateway as a library. A block walks it from top to bottom: `source` → `session` → `journal` → `pipeline` →
//! `detect` → `alert` → `outputs` → `forward`; `runtime` is the one place that spawns.
#![forbid(unsafe_code)]

pub mod alert;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod detect;
pub mod forward;
#[doc(hidden)]
pub mod fuzz;
pub mod hardware;
pub mod journal;
pub mod outputs;
pub mod pipeline;
pub mod record;
pub mod runtime;
pub mod session;
pub mod source;
mod sqlite;
