//! What the gateway tells about itself over HTTP.

use super::schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// Metrics, health and readiness over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Whether they are served.
    pub enabled: bool,
    /// Address and port; port 0 lets the kernel choose, the log says which. There are no passwords: whoever reaches it may read it.
    #[schemars(with = "schema::AddressText")]
    pub bind: SocketAddr,
    /// Most sensors, nodes and standing alerts with series of their own in `/metrics`; the others are told in sum.
    pub series_max: usize,
}

impl Default for Api {
    fn default() -> Self {
        Self { enabled: true, bind: (Ipv4Addr::LOCALHOST, 9600).into(), series_max: 1000 }
    }
}
