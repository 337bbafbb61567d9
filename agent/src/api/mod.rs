//! What the gateway tells about itself.

pub mod control;
pub mod http;
pub mod metrics;
mod prometheus;
pub mod watch;
