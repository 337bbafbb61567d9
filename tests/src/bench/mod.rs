//! `tests/bench`: what the whole chain does in a second and what it costs.

pub mod bare;
