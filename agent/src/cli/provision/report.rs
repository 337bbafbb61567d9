//! What was made and what comes next, without a secret in it.

use std::fmt;
use std::path::{Path, PathBuf};

/// What happened to a login or certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// There was none.
    Made,
    /// As it was.
    Kept,
    /// New, because that was asked for.
    Rotated,
    /// In part new, and why.
    Completed(String),
}

impl Change {
    const fn word(&self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Kept => "kept",
            Self::Rotated => "rotated",
            Self::Completed(_) => "completed",
        }
    }
}

impl serde::Serialize for Change {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

#[derive(Debug, serde::Serialize)]
pub(super) struct Row {
    name: String,
    change: Change,
    /// Of what was completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Debug, serde::Serialize)]
pub(super) struct Report {
    folder: PathBuf,
    authority: &'static str,
    pub(super) logins: Vec<Row>,
    /// Nodes on serial lines, which need no login.
    pub(super) serial: Vec<String>,
    /// Nodes without a file: no longer in the broker's files.
    pub(super) withdrawn: Vec<String>,
    pub(super) broker_names: Vec<String>,
    pub(super) broker_certificate: Change,
    #[serde(skip)]
    broker_dir: String,
}

impl Report {
    pub(super) fn new(folder: &Path, authority_is_new: bool, broker_dir: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            authority: if authority_is_new { "made" } else { "kept" },
            logins: Vec::new(),
            serial: Vec::new(),
            withdrawn: Vec::new(),
            broker_names: Vec::new(),
            broker_certificate: Change::Kept,
            broker_dir: broker_dir.trim_end_matches('/').to_owned(),
        }
    }

    pub(super) fn add(&mut self, name: &str, change: Change) {
        let why = match &change {
            Change::Completed(why) => Some(why.clone()),
            _ => None,
        };
        self.logins.push(Row { name: name.to_owned(), change, why });
    }

    fn fmt_changes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: credentials, for the user of this account only", self.folder.display())?;
        writeln!(f, "  site authority         {}", self.authority)?;
        for row in &self.logins {
            write!(f, "  {:<22} {}", row.name, row.change.word())?;
            writeln!(f, "{}", row.why.as_ref().map_or(String::new(), |why| format!(": {why}")))?;
        }
        let names = self.broker_names.join(", ");
        writeln!(f, "  broker's certificate   {}, for {names}", self.broker_certificate.word())?;
        for name in &self.serial {
            writeln!(f, "  {name:<22} is on a serial line and needs none")?;
        }
        for name in &self.withdrawn {
            writeln!(f, "  {name:<22} has no file any more: withdrawn; its folder in nodes/ is left")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_changes(f)?;
        let (folder, dir) = (self.folder.display(), &self.broker_dir);
        let name = self.broker_names.first().map_or("BROKER", String::as_str);
        let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        write!(
            f,
            "\nNext:\n\
             1 Broker: copy {folder}/broker to {dir} on its machine, readable by Mosquitto's user alone; where that is this machine\n    \
                 install -D -o mosquitto -g mosquitto -m 0600 -t {dir} {folder}/broker/*\n  \
               Include {dir}/mosquitto.conf in its configuration (a link in /etc/mosquitto/conf.d) and restart it.\n\
             2 Gateway: copy {folder}/gateway to its machine, say /etc/spindle/broker, and write in gateway.toml\n    \
                 [[source.mqtt]]\n    \
                 name = \"site\"\n    \
                 address = \"{host}:8883\"\n    \
                 username = \"{gateway}\"\n    \
                 password_file = \"/etc/spindle/broker/password\"\n    \
                 tls = {{ ca_file = \"/etc/spindle/broker/ca.pem\" }}\n  \
               or log in by certificate: port 8884, no username and password_file, and in tls\n    \
                 cert_file = \"/etc/spindle/broker/cert.pem\", key_file = \"/etc/spindle/broker/key.pem\"\n\
             3 Boards: spindle flash --board BOARD --node NAME --credentials {folder}\n\
             Keep {folder}/ca.key from everyone, and a copy of the folder in a safe: who has that key can be any board.\n",
            gateway = super::GATEWAY,
        )
    }
}
