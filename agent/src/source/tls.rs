//! TLS to a broker. rumqttc 0.25.1 cannot be given a connection, and its own TLS feature brings rustls-webpki 0.102 (open
//! advisories) and rustls-pemfile (given up) with it. So rumqttc connects to a Unix socket in the gateway's data folder, and
//! what goes through it is carried to the broker by rustls as it is now. The socket's folder is open to the gateway's user
//! alone; there is one connection at a time, and a new one ends that before it.

use crate::config::MqttTls;
use parking_lot::Mutex;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore, crypto, sign::CertifiedKey};

/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with the settings of a TLS connection. Displays as one line that never holds what is in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tls.{key} of an MQTT source: {what}")]
pub struct TlsProblem {
    /// The setting: `ca_file`.
    pub key: &'static str,
    /// What is wrong with it; names the file.
    pub what: String,
    /// What would be right; may be empty.
    pub right: &'static str,
}

/// The cryptography that all TLS here uses.
#[must_use]
pub fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// Everything that is wrong with `tls` to the broker at `address` (`HOST:PORT`).
#[must_use]
pub fn problems(tls: &MqttTls, address: &str) -> Vec<TlsProblem> {
    let mut found = Vec::new();
    found.extend(roots(&tls.ca_file).err());
    found.extend(identity(tls).err());
    found.extend(server_name(tls, address).err());
    found
}

/// rustls's configuration.
fn client_config(tls: &MqttTls) -> Result<ClientConfig, TlsProblem> {
    let wrong = |error: Error| problem("ca_file", &tls.ca_file, error, "");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots(&tls.ca_file)?);
    match identity(tls)? {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let path = tls.cert_file.as_deref().unwrap_or(&tls.ca_file);
            builder.with_client_auth_cert(chain, key).map_err(|error| problem("cert_file", path, error, ""))
        }
    }
}

fn problem(key: &'static str, path: &Path, error: impl std::fmt::Display, right: &'static str) -> TlsProblem {
    TlsProblem { key, what: format!("{}: {error}", path.display()), right }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsProblem> {
    let read = || {
        if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("is larger than {FILE_BYTES_MAX} bytes")));
        }
        std::fs::read(path)
    };
    read().map_err(|error| problem(key, path, error, "name a file that the gateway's user can read"))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let text = read(key, path)?;
    let right = "name a file in PEM, with BEGIN CERTIFICATE";
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, pem::Error>>();
    let found = found.map_err(|error| problem(key, path, error, right))?;
    if found.is_empty() {
        return Err(problem(key, path, "holds no certificate", right));
    }
    Ok(found)
}

fn roots(path: &Path) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", path)? {
        roots.add(certificate).map_err(|error| problem("ca_file", path, error, ""))?;
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(tls: &MqttTls) -> Result<Option<Identity>, TlsProblem> {
    let (cert_file, key_file) = match (&tls.cert_file, &tls.key_file) {
        (None, None) => return Ok(None),
        (Some(cert_file), Some(key_file)) => (cert_file, key_file),
        (Some(_), None) => {
            let what = "comes without `key_file`".into();
            return Err(TlsProblem { key: "cert_file", what, right: "name its private key" });
        }
        (None, Some(_)) => {
            let what = "comes without `cert_file`".into();
            return Err(TlsProblem { key: "key_file", what, right: "name its certificate" });
        }
    };
    let chain = certificates("cert_file", cert_file)?;
    let right = "name a file in PEM, with BEGIN PRIVATE KEY";
    let key = PrivateKeyDer::from_pem_slice(&read("key_file", key_file)?);
    let key = key.map_err(|error| problem("key_file", key_file, error, right))?;
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(|error| {
        let what = match error {
            Error::InconsistentKeys(_) => format!("is not the key of {}", cert_file.display()),
            other => other.to_string(),
        };
        problem("key_file", key_file, what, "name the key and the certificate that belong together")
    })?;
    Ok(Some((chain, key)))
}

/// Host and port of `HOST:PORT`, an IPv6 address without its brackets.
fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

fn server_name(tls: &MqttTls, address: &str) -> Result<ServerName<'static>, TlsProblem> {
    let host = host_and_port(address).map_or("", |(host, _)| host);
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| TlsProblem {
        key: "server_name",
        what: format!("`{name}` is no host name or IP address"),
        right: "write the name in the broker's certificate",
    })
}

/// Why a tunnel cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] TlsProblem),
    /// `address` is not `HOST:PORT`.
    #[error("address {0:?} of an MQTT source is not HOST:PORT")]
    Address(String),
    /// The socket cannot be made.
    #[error("socket {path} of an MQTT source with TLS: {source}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A Unix socket whose connections are carried to a broker by TLS.
pub(crate) struct Tunnel {
    listener: StdListener,
    path: PathBuf,
    connector: TlsConnector,
    server_name: ServerName<'static>,
    host: String,
    port: u16,
    trouble: Trouble,
}

/// Why the tunnel's last connection ended, in words; empty while there is none or all is well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<String>>);

impl Trouble {
    /// The words, when there are any.
    pub(crate) fn words(&self) -> Option<String> {
        Some(self.0.lock().clone()).filter(|words| !words.is_empty())
    }

    fn set(&self, words: String) {
        *self.0.lock() = words;
    }
}

impl Tunnel {
    /// Makes the socket `name.sock` in the folder `tls` of `data_dir`, towards the broker at `address`.
    pub(crate) fn open(
        tls: &MqttTls,
        address: &str,
        data_dir: &Path,
        name: &str,
    ) -> Result<Self, TunnelError> {
        let (host, port) = host_and_port(address).ok_or_else(|| TunnelError::Address(address.to_owned()))?;
        let connector = TlsConnector::from(Arc::new(client_config(tls)?));
        let server_name = server_name(tls, address)?;
        let folder = data_dir.join("tls");
        let path = folder.join(format!("{name}.sock"));
        let listener =
            listen(&folder, &path).map_err(|source| TunnelError::Socket { path: path.clone(), source })?;
        let trouble = Trouble::default();
        Ok(Self { listener, path, connector, server_name, host: host.to_owned(), port, trouble })
    }

    /// The socket, for rumqttc.
    pub(crate) fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Where it says why its last connection ended.
    pub(crate) fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// Carries for ever.
    pub(crate) async fn run(self) {
        let listener = self.listener.try_clone().and_then(UnixListener::from_std);
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(socket = %self.path.display(), %error, "socket of the TLS connection");
                return std::future::pending().await;
            }
        };
        let mut next = None;
        loop {
            let local = match next.take() {
                Some(local) => local,
                None => accept(&listener).await,
            };
            self.trouble.set(String::new());
            tokio::select! {
                // A connection that rumqttc has given up may still wait for a broker that is gone.
                newer = accept(&listener) => next = Some(newer),
                () = self.carry(local) => {}
            }
        }
    }

    /// Carries one connection to its end. The words are there before rumqttc sees it end.
    async fn carry(&self, mut local: UnixStream) {
        if let Err(words) = self.try_carry(&mut local).await {
            self.trouble.set(words);
        }
    }

    async fn try_carry(&self, local: &mut UnixStream) -> Result<(), String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let secured = self.connector.connect(self.server_name.clone(), stream).await;
        let mut secured = secured.map_err(|error| format!("TLS: {error}"))?;
        match copy_bidirectional(local, &mut secured).await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("TLS: {error}")),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Too many open files, most likely: rumqttc connects again.
            Err(error) => {
                tracing::warn!(%error, "socket of the TLS connection");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

fn listen(folder: &Path, path: &Path) -> io::Result<StdListener> {
    if path.to_str().is_none() {
        return Err(io::Error::other("the path of `data_dir` is not UTF-8"));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // One that a killed gateway has left.
        _ => {}
    }
    let listener = StdListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(folder: &Path, ca_file: &str, cert_file: Option<&str>, key_file: Option<&str>) -> MqttTls {
        let path = |name: &str| folder.join(name);
        MqttTls {
            ca_file: path(ca_file),
            cert_file: cert_file.map(path),
            key_file: key_file.map(path),
            server_name: None,
        }
    }

    #[test]
    fn every_file_that_is_wrong_is_named_with_what_is_wrong_and_nothing_of_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["one", "other"] {
            let made = rcgen::generate_simple_self_signed(["broker".to_owned()]).unwrap();
            std::fs::write(folder.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem())
                .unwrap();
        }
        std::fs::write(folder.path().join("secret"), "open sesame").unwrap();
        let good = tls(folder.path(), "one.pem", Some("one.pem"), Some("one.key"));
        assert_eq!(problems(&good, "broker:8883"), []);
        client_config(&good).unwrap();
        for (ca_file, cert_file, key_file, address, said) in [
            ("none", None, None, "b:1", "tls.ca_file of an MQTT source: FOLDER/none: No such file"),
            (
                "secret",
                None,
                None,
                "b:1",
                "tls.ca_file of an MQTT source: FOLDER/secret: holds no certificate",
            ),
            (
                "one.pem",
                Some("one.pem"),
                None,
                "b:1",
                "tls.cert_file of an MQTT source: comes without `key_file`",
            ),
            (
                "one.pem",
                None,
                Some("one.key"),
                "b:1",
                "tls.key_file of an MQTT source: comes without `cert_file`",
            ),
            (
                "one.pem",
                Some("one.key"),
                Some("one.key"),
                "b:1",
                "tls.cert_file of an MQTT source: FOLDER/one.key",
            ),
            (
                "one.pem",
                Some("one.pem"),
                Some("secret"),
                "b:1",
                "tls.key_file of an MQTT source: FOLDER/secret: ",
            ),
            ("one.pem", Some("one.pem"), Some("other.key"), "b:1", "is not the key of FOLDER/one.pem"),
            ("one.pem", None, None, "a b:1", "tls.server_name of an MQTT source: `a b` is no host name"),
        ] {
            let tls = tls(folder.path(), ca_file, cert_file, key_file);
            let found = problems(&tls, address);
            assert_eq!(found.len(), 1, "{found:?}");
            let words = found[0].to_string().replace(&folder.path().display().to_string(), "FOLDER");
            assert!(words.contains(said) && !words.contains("sesame"), "{words}");
        }
        let two = tls(folder.path(), "none", Some("none"), Some("one.key"));
        assert_eq!(problems(&two, "b:1").len(), 2);
    }

    #[test]
    fn an_address_may_be_a_name_or_an_ip_address_of_either_kind() {
        assert_eq!(host_and_port("broker.plant:8883"), Some(("broker.plant", 8883)));
        assert_eq!(host_and_port("[::1]:8883"), Some(("::1", 8883)));
        assert_eq!(host_and_port("broker.plant"), None);
        let tls = MqttTls { ca_file: "x".into(), cert_file: None, key_file: None, server_name: None };
        for address in ["broker.plant:1", "10.0.0.7:1", "[::1]:1"] {
            server_name(&tls, address).unwrap();
        }
    }

    #[test]
    fn the_socket_is_closed_to_others_and_goes_with_the_tunnel() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["broker".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        let tls = tls(folder.path(), "ca.pem", None, None);
        let open = || Tunnel::open(&tls, "broker:1", folder.path(), "site").unwrap();
        let path = folder.path().join("tls/site.sock");
        let tunnel = open();
        assert_eq!(tunnel.path(), path.display().to_string());
        let mode = std::fs::metadata(folder.path().join("tls")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        // As after a gateway that was killed.
        std::mem::forget(tunnel);
        drop(open());
        assert!(!path.exists());
    }
}
