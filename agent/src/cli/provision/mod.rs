//! `spindle provision`: who each board is to the broker, and what the broker must know to believe it.
//!
//! The folder, 0700 and its files 0600. What is there is kept, what is missing is added:
//!
//! | file | for | what |
//! |---|---|---|
//! | `ca.key` | nobody else | the authority's key: who has it can be any board. Keep a copy in a safe |
//! | `ca.pem`, `issued.txt` | nobody else | its certificate; serial numbers of all that it has signed |
//! | `broker/` | the broker's machine | `mosquitto.conf`, `passwd`, `acl`, `ca.pem`, `crl.pem`, `server.pem`, `server.key` |
//! | `broker-names.txt` | nobody else | names and addresses in `server.pem`, one a line |
//! | `gateway/` | the gateway's machine | `password`, `cert.pem`, `key.pem`, `ca.pem` for `[[source.mqtt]]` |
//! | `nodes/NAME/` | the board NAME | see below |
//!
//! `nodes/NAME/` holds everything twice, for programs on a computer and for the firmware's build, which includes it:
//! - `login.toml`: `user = "..."` and `password = "..."`; `password`: the password alone, without a line's end.
//! - `cert.pem`, `key.pem`, `ca.pem`: certificate, key and the authority's certificate in PEM.
//! - `cert.der`, `key.der`, `ca.der`: the same in DER; the key (ECDSA P-256) is PKCS#8.
//!
//! The user name, and the certificate's common name, is the node's name. `login.toml`, `cert.pem` and `key.pem` are the
//! originals; the others are written after them again at each run.

mod authority;
mod broker;
mod folder;
mod password;
mod report;
#[cfg(test)]
mod tests;

use super::Outcome;
use crate::clock::Clock;
use crate::hardware;
use anyhow::{Context as _, bail, ensure};
use authority::{Authority, Pair, Purpose};
pub(super) use broker::GATEWAY;
use folder::{Folder, Repository};
use report::{Change, Report};
use spindle_common::hardware::{Catalog, Node, NodeLink};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio_rustls::rustls::pki_types::ServerName;

/// Make each board's password and certificate, and the broker's matching files
///
/// In a folder of its own: per node of the hardware configurations a user name with a random password and a client certificate of
/// the site's own authority; for Mosquitto a password file, an access list by which a node can publish under its own names
/// only, a server certificate and a configuration to include; for the gateway a login that reads all nodes. Run it again
/// after adding a node: what exists is kept. No secret is ever printed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  spindle provision --out ~/spindle-credentials --broker-name broker.plant --broker-name 192.168.1.10\n  \
                        spindle provision --out ~/spindle-credentials --hardware hardware-configs --node mill-3-spindle\n  \
                        spindle provision --out ~/spindle-credentials --rotate mill-3-spindle     its key or password is lost"
)]
pub struct Args {
    /// Folder of the credentials; made if missing, readable by its user only
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder with boards, sensors, machines and nodes; default `gateway.hardware_configs` of the configuration
    #[arg(long, value_name = "DIR")]
    hardware: Option<PathBuf>,
    /// The gateway's configuration, for the folder above
    #[arg(long, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
    /// Only this node; once per node. Default: all that reach the broker over a network
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
    /// New password and certificate for this node, or for `gateway`; the old ones end when the broker has the new files
    #[arg(long, value_name = "NAME")]
    rotate: Vec<String>,
    /// A host name or IP address under which clients reach the broker, for its certificate; once per name. Those in the
    /// nodes' files are added
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    broker_name: Vec<String>,
    /// Where the broker's files will lie on its machine
    #[arg(long, value_name = "DIR", default_value = "/etc/mosquitto/spindle")]
    broker_dir: String,
    /// Allow a folder inside a version-controlled one
    #[arg(long)]
    allow_repository: bool,
    /// Print one JSON object: {"folder", "authority", "logins": [{"name", "change", "why"}], "serial", "withdrawn", "broker_names", "broker_certificate"}
    #[arg(long)]
    json: bool,
}

fn parse_name(text: &str) -> Result<String, String> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("is no host name or IP address; no port, no brackets".into()),
    }
}

impl Args {
    /// Makes what is missing and says what comes next.
    pub fn run(self) -> anyhow::Result<Outcome> {
        let now = jiff::Timestamp::from_nanosecond(i128::from(Clock::system().now().utc_ns))?;
        let report = self.make(now)?;
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print!("{report}");
        }
        Ok(Outcome::Done)
    }

    fn make(&self, now: jiff::Timestamp) -> anyhow::Result<Report> {
        ensure!(
            self.broker_dir.starts_with('/') && !self.broker_dir.contains(char::is_whitespace),
            "--broker-dir {:?}: write an absolute path without spaces, for Mosquitto's configuration takes no other",
            self.broker_dir
        );
        let hardware = self.hardware()?;
        let catalog = hardware::load(&hardware)?;
        let chosen = self.chosen(&catalog, &hardware)?;
        let repository = if self.allow_repository { Repository::Allowed } else { Repository::Refused };
        let folder = Folder::open(&self.out, repository)?;
        for path in ["broker", "gateway", "nodes"] {
            folder.make(path)?;
        }
        let mut maker = Maker { authority: Authority::open(&folder, now)?, folder, logins: BTreeMap::new() };
        let mut report = Report::new(maker.folder.path(), maker.authority.is_new, &self.broker_dir);
        report.serial = self.without_need(&catalog);
        report.withdrawn = maker.withdraw(&catalog)?;
        report.add(GATEWAY, maker.login("gateway", GATEWAY, self.rotates(GATEWAY))?);
        for node in &chosen {
            let place = format!("nodes/{}", node.name);
            maker.folder.make(&place)?;
            report.add(&node.name, maker.login(&place, &node.name, self.rotates(&node.name))?);
        }
        // Those of earlier runs, when only some were asked for now.
        let known = maker.folder.folders("nodes")?.into_iter().filter_map(|name| catalog.nodes.get(&name));
        let known: Vec<&Node> = known.collect();
        for node in &known {
            maker.remember(&node.name)?;
        }
        (report.broker_names, report.broker_certificate) =
            maker.broker_certificate(&self.broker_name, &known)?;
        maker.broker_files(&known, &report.withdrawn, &self.broker_dir)?;
        Ok(report)
    }

    fn rotates(&self, name: &str) -> bool {
        self.rotate.iter().any(|rotated| rotated == name)
    }

    /// The folder of hardware configurations. Of the gateway's configuration only this is looked at: the rest of it may name
    /// files that are about to be made.
    fn hardware(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.hardware {
            return Ok(folder.clone());
        }
        let file = self.config.display();
        let help = "name the folder with --hardware DIR, or the configuration with --config FILE";
        let text = std::fs::read_to_string(&self.config).with_context(|| format!("{file}; {help}"))?;
        let table: toml::Table = toml::from_str(&text).with_context(|| file.to_string())?;
        let folder = table.get("gateway").and_then(|gateway| gateway.get("hardware_configs")?.as_str());
        folder.map(PathBuf::from).with_context(|| format!("{file} has no gateway.hardware_configs; {help}"))
    }

    /// The nodes to provision.
    fn chosen<'a>(&self, catalog: &'a Catalog, hardware: &Path) -> anyhow::Result<Vec<&'a Node>> {
        if let Some(node) = catalog.nodes.get(GATEWAY) {
            bail!("node {:?} has the name of the gateway's user: give it another", node.name);
        }
        let named = self.node.iter().chain(self.rotate.iter().filter(|name| *name != GATEWAY));
        for name in named {
            ensure!(catalog.nodes.contains_key(name), "there is no {}/nodes/{name}.toml", hardware.display());
        }
        let is_chosen = |node: &&Node| match self.node.is_empty() {
            true => matches!(node.link, NodeLink::Ethernet { .. }) || self.rotates(&node.name),
            false => self.node.contains(&node.name) || self.rotates(&node.name),
        };
        Ok(catalog.nodes.values().filter(is_chosen).collect())
    }

    /// Nodes on serial lines, which need no login and were not asked for.
    fn without_need(&self, catalog: &Catalog) -> Vec<String> {
        let serial = |node: &&Node| matches!(node.link, NodeLink::Serial { .. }) && !self.rotates(&node.name);
        let nodes = catalog.nodes.values().filter(serial).map(|node| node.name.clone());
        if self.node.is_empty() { nodes.collect() } else { Vec::new() }
    }
}

/// `login.toml`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    user: String,
    password: String,
}

struct Maker {
    folder: Folder,
    authority: Authority,
    /// User: password.
    logins: BTreeMap<String, String>,
}

impl Maker {
    /// Password and certificate of `name` in the folder `place`, kept where they are good.
    fn login(&mut self, place: &str, name: &str, rotate: bool) -> anyhow::Result<Change> {
        let login = if rotate { None } else { self.read_login(place, name)? };
        let pair = self.read_pair(&format!("{place}/cert.pem"), &format!("{place}/key.pem"))?;
        let trouble = pair.as_ref().and_then(|pair| self.authority.trouble_with(pair, Purpose::Client));
        let change = match (&login, &pair) {
            _ if rotate => Change::Rotated,
            (None, None) => Change::Made,
            (Some(_), Some(_)) if trouble.is_none() => Change::Kept,
            _ => Change::Completed(trouble.clone().unwrap_or_else(|| "something was missing".into())),
        };
        if rotate {
            self.authority.revoke(&self.folder, name)?;
        }
        let pair = match pair.filter(|_| trouble.is_none() && !rotate) {
            Some(pair) => pair,
            None => self.authority.issue(&self.folder, name, Purpose::Client)?,
        };
        let login = match login {
            Some(login) => login,
            None => Login { user: name.to_owned(), password: password::new()? },
        };
        let write = |file: &str, content: &[u8]| self.folder.write(&format!("{place}/{file}"), content);
        write("login.toml", toml::to_string(&login)?.as_bytes())?;
        write("password", login.password.as_bytes())?;
        write("key.pem", pair.key.as_bytes())?;
        write("cert.pem", pair.certificate.as_bytes())?;
        write("ca.pem", self.authority.certificate().as_bytes())?;
        write("key.der", pair.key_der()?.secret_der())?;
        write("cert.der", &pair.certificate_der()?)?;
        write("ca.der", &self.authority.certificate_der()?)?;
        self.logins.insert(name.to_owned(), login.password);
        Ok(change)
    }

    fn read_login(&self, place: &str, name: &str) -> anyhow::Result<Option<Login>> {
        let path = format!("{place}/login.toml");
        let Some(text) = self.folder.read(&path)? else { return Ok(None) };
        // The parser's own words would show the line, and with it the password.
        let login = toml::from_str::<Login>(&text).ok().filter(|login| login.user == name);
        let login = login.filter(|login| !login.password.is_empty());
        let whole = format!("{} is not a login of {name:?}", self.folder.path().join(&path).display());
        Ok(Some(login.with_context(|| format!("{whole}: mend it, or remove it to get a new password"))?))
    }

    fn read_pair(&self, certificate: &str, key: &str) -> anyhow::Result<Option<Pair>> {
        let pair = self.folder.read(certificate)?.zip(self.folder.read(key)?);
        Ok(pair.map(|(certificate, key)| Pair { certificate, key }))
    }

    /// Takes up the password of a node of an earlier run.
    fn remember(&mut self, name: &str) -> anyhow::Result<()> {
        if !self.logins.contains_key(name)
            && let Some(login) = self.read_login(&format!("nodes/{name}"), name)?
        {
            self.logins.insert(login.user, login.password);
        }
        Ok(())
    }

    /// Revokes the certificates of nodes that have no file any more, and says which nodes those are.
    fn withdraw(&mut self, catalog: &Catalog) -> anyhow::Result<Vec<String>> {
        let mut gone = self.folder.folders("nodes")?;
        gone.retain(|name| !catalog.nodes.contains_key(name));
        for name in &gone {
            self.authority.revoke(&self.folder, name)?;
        }
        Ok(gone)
    }

    /// The broker's certificate, for all names that it has had, those of the command line and those in the nodes' files.
    fn broker_certificate(
        &mut self,
        more: &[String],
        nodes: &[&Node],
    ) -> anyhow::Result<(Vec<String>, Change)> {
        let before = self.folder.read("broker-names.txt")?.unwrap_or_default();
        let hosts = nodes.iter().filter_map(|node| match &node.link {
            NodeLink::Ethernet { broker, .. } => broker.rsplit_once(':').map(|(host, _)| host),
            NodeLink::Serial { .. } => None,
        });
        let hosts = hosts.map(|host| host.trim_matches(['[', ']'])).filter(|host| parse_name(host).is_ok());
        let names = before.lines().chain(hosts).chain(more.iter().map(String::as_str));
        let names: Vec<String> = names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect();
        ensure!(!names.is_empty(), "no node's file names the broker: name it with --broker-name HOST");
        for name in &names {
            parse_name(name).map_err(|reason| anyhow::anyhow!("broker-names.txt: {name:?} {reason}"))?;
        }
        let purpose = Purpose::Server(&names);
        let pair = self.read_pair("broker/server.pem", "broker/server.key")?;
        let trouble = pair.as_ref().map(|pair| self.authority.trouble_with(pair, purpose));
        let change = match trouble {
            Some(None) => Change::Kept,
            Some(Some(trouble)) => Change::Completed(trouble),
            None => Change::Made,
        };
        if change != Change::Kept {
            let pair = self.authority.issue(&self.folder, &names[0], purpose)?;
            self.folder.write("broker/server.key", &pair.key)?;
            self.folder.write("broker/server.pem", &pair.certificate)?;
        }
        self.folder.write("broker-names.txt", names.join("\n") + "\n")?;
        Ok((names, change))
    }

    fn broker_files(&self, nodes: &[&Node], withdrawn: &[String], dir: &str) -> anyhow::Result<()> {
        let folder = &self.folder;
        let before = folder.read("broker/passwd")?.unwrap_or_default();
        folder.write("broker/passwd", broker::password_file(&self.logins, withdrawn, &before)?)?;
        let before = folder.read("broker/acl")?.unwrap_or_default();
        folder.write("broker/acl", broker::access_list(nodes.iter().copied(), &before))?;
        folder.write("broker/ca.pem", self.authority.certificate())?;
        folder.write("broker/crl.pem", self.authority.revocations()?)?;
        folder.write("broker/mosquitto.conf", broker::configuration(dir.trim_end_matches('/')))
    }
}
