//! Where a board's first words are looked for: its broker, or the journal of the gateway at its serial line.

use super::Args;
use crate::config::{self, MqttSource, MqttTls};
use crate::journal::JournalReader;
use anyhow::{Context as _, ensure};
use spindle_common::hardware::{Node, NodeLink};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where.
#[derive(Debug)]
pub(super) enum Place {
    /// At a broker, as a client.
    Broker(Box<MqttSource>),
    /// In a running gateway's journal.
    Journal(PathBuf),
    /// Nowhere: the node is on a serial line and no gateway is named.
    Nowhere,
}

impl Place {
    pub(super) fn of(args: &Args, node: &Node) -> anyhow::Result<Self> {
        match (&node.link, &args.config) {
            (NodeLink::Serial { .. }, None) => Ok(Self::Nowhere),
            (NodeLink::Serial { .. }, Some(file)) => {
                Ok(Self::Journal(config::load(file)?.gateway.data_dir.join("journal")))
            }
            (NodeLink::Ethernet { broker, tls, .. }, file) => {
                let mut source = match file {
                    Some(file) => from_gateway(file, broker)?,
                    None => direct(args, broker, *tls)?,
                };
                if let Some(address) = &args.broker {
                    source.address.clone_from(address);
                }
                source.client_id = Some(format!("spindle-flash-{}", std::process::id()));
                let port = source.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                ensure!(port.is_some(), "broker {}: write HOST:PORT", source.address);
                Ok(Self::Broker(Box::new(source)))
            }
        }
    }

    /// In words.
    pub(super) fn words(&self, node: &Node) -> String {
        match self {
            Self::Broker(source) => {
                let tls = if source.tls.is_some() { " by TLS" } else { "" };
                let user =
                    source.username.as_ref().map(|user| format!(" as user {user}")).unwrap_or_default();
                format!("at the broker {}{tls}{user}", source.address)
            }
            Self::Journal(folder) => format!("in the gateway's journal {}", folder.display()),
            Self::Nowhere => no_gateway(node),
        }
    }

    /// A reader of the journal, and where it ends now.
    pub(super) fn journal(folder: &Path) -> anyhow::Result<(JournalReader, u64)> {
        let hint = || {
            format!("{}: start the gateway at the board's serial line first: spindle run", folder.display())
        };
        let reader = JournalReader::open_read_only(folder).with_context(hint)?;
        let next = reader.next_offset().with_context(hint)?;
        Ok((reader, next))
    }
}

/// How to see a node on a serial line.
pub(super) fn no_gateway(node: &Node) -> String {
    let baud = match node.link {
        NodeLink::Serial { baud } => baud,
        NodeLink::Ethernet { .. } => 0,
    };
    format!(
        "the node is on a serial line, which a gateway reads: write `[[source.serial]]`, `device = ...` and `baud = {baud}` into its \
         configuration, start `spindle run`, and name the configuration here with --config; or look with `spindle node show {}`",
        node.name
    )
}

/// As the gateway reaches the broker of this address, or the only one that it has, or its own listener.
fn from_gateway(file: &Path, broker: &str) -> anyhow::Result<MqttSource> {
    let sources = config::load(file)?.source;
    let named = sources.mqtt.iter().find(|source| source.address == broker).or(sources.mqtt.first());
    if let Some(source) = named {
        return Ok(source.clone());
    }
    let listener = sources
        .listener
        .with_context(|| format!("{} has neither [[source.mqtt]] nor [source.listener]", file.display()))?;
    let mut bind = listener.bind;
    if bind.ip().is_unspecified() {
        bind.set_ip(if bind.is_ipv4() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        });
    }
    Ok(plain(bind.to_string()))
}

/// The node's broker, with the gateway's login of the folder of credentials.
fn direct(args: &Args, broker: &str, is_tls: bool) -> anyhow::Result<MqttSource> {
    // The emulated board's word for this computer.
    let address = match broker.strip_prefix("10.0.2.2:") {
        Some(port) if args.emulate => format!("127.0.0.1:{port}"),
        _ => broker.to_owned(),
    };
    let mut source = plain(address);
    if let Some(folder) = &args.credentials {
        let gateway = folder.join("gateway");
        source.username = Some(crate::cli::provision::GATEWAY.into());
        source.password_file = Some(gateway.join("password"));
        source.tls = is_tls.then(|| MqttTls {
            ca_file: gateway.join("ca.pem"),
            cert_file: Some(gateway.join("cert.pem")),
            key_file: Some(gateway.join("key.pem")),
            server_name: None,
        });
    }
    Ok(source)
}

fn plain(address: String) -> MqttSource {
    MqttSource {
        name: "flash".into(),
        address,
        client_id: None,
        username: None,
        password_file: None,
        tls: None,
        receive_maximum: 100,
        session_expiry: Duration::ZERO,
        keep_alive: Duration::from_secs(10),
    }
}
