//! What the gateway tells about itself.

pub mod control;
pub mod metrics;
