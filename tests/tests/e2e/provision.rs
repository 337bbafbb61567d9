//! `spindle provision`, and a real Mosquitto that runs on what it made.

use crate::books::assert_balanced;
use spindle_tests::agent::{Agent, spindle, text as path_text};
use spindle_tests::mosquitto::{Mosquitto, publish_as, subscribe_as};
use spindle_tests::wait::{self, PATIENCE};
use spindle_tests::{process, tools};
use std::net::TcpStream;
use std::path::PathBuf;
use tempfile::TempDir;

const MILL: &str = "spindle/v1/plant-1/demo-mill/mill-3-spindle";
const DEMO: &str = "spindle/v1/demo/demo-mill/host-demo";

/// Credentials of the project's own nodes, and a broker with them.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) broker: Mosquitto,
    /// TLS, login by password.
    pub(crate) tls: u16,
    /// TLS, login by certificate.
    pub(crate) certificates: u16,
}

impl Site {
    pub(crate) fn start() -> Self {
        let folder = process::folder("provision").unwrap();
        let credentials = path_text(&folder.path().join("credentials"));
        provision(&credentials, &[]);
        let path = folder.path().join("credentials/broker/mosquitto.conf");
        let mut settings = std::fs::read_to_string(path).unwrap();
        let [tls, certificates] = ["8883", "8884"].map(|listed| {
            let port = tools::free_port().unwrap();
            let line = format!("listener {listed}\n");
            assert!(settings.contains(&line), "{settings}");
            settings = settings.replace(&line, &format!("listener {port} 127.0.0.1\n"));
            port
        });
        // Its first listener, without TLS, is under the same rules.
        let site = Self { broker: Mosquitto::start(&settings).unwrap(), folder, tls, certificates };
        site.wait_until_up();
        site
    }

    /// The harness has seen the first listener; Mosquitto opens one after the other.
    fn wait_until_up(&self) {
        for port in [self.tls, self.certificates] {
            wait::until("a listener", PATIENCE, || {
                Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
            })
            .unwrap();
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("credentials").join(file)
    }

    /// Options of Mosquitto's clients: TLS and the login of `user` by password.
    pub(crate) fn by_password(&self, user: &str) -> Vec<String> {
        let place = if user == "gateway" { user.to_owned() } else { format!("nodes/{user}") };
        let password = std::fs::read_to_string(self.path(&place).join("password")).unwrap();
        let authority = path_text(&self.path(&place).join("ca.pem"));
        [["-u", user], ["-P", &password], ["--cafile", &authority]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    /// The same by certificate.
    fn by_certificate(&self, user: &str) -> Vec<String> {
        let file = |name: &str| path_text(&self.path(&format!("nodes/{user}/{name}")));
        let (authority, certificate, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        let options = [["--cafile", &authority], ["--cert", &certificate], ["--key", &key]].concat();
        options.into_iter().map(str::to_owned).collect()
    }
}

pub(crate) fn strs(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

fn provision(credentials: &str, more: &[&str]) -> String {
    let hardware = path_text(&tools::root().join("hardware-configs"));
    let broker_dir = format!("{credentials}/broker");
    let args = ["provision", "--out", credentials, "--hardware", &hardware, "--broker-dir", &broker_dir];
    let output = spindle(&[&args[..], more].concat()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_node_publishes_under_its_own_name_and_not_under_another_s_by_password_and_by_certificate() {
    let site = Site::start();
    let log = site.folder.path().join("gateway-sub");
    let gateway = site.by_password("gateway");
    let mut heard = subscribe_as(site.tls, &strs(&gateway), "spindle/v1/#", &log).unwrap();
    for (round, port, options) in [
        ("password", site.tls, site.by_password("mill-3-spindle")),
        ("certificate", site.certificates, site.by_certificate("mill-3-spindle")),
    ] {
        let options = strs(&options);
        for stranger in [
            format!("{DEMO}/birth"),
            format!("{DEMO}/offline"),
            "spindle/v1/demo/demo-mill/spindle/raw".into(),
            "spindle/v1/plant-1/demo-mill/another/raw".into(),
            format!("{MILL}/ack"),
            format!("{MILL}/cmd"),
            "plant/of/others".into(),
        ] {
            // Over MQTT 3.1.1 the broker says nothing and drops it.
            publish_as(port, &options, &stranger, &format!("forged by {round}")).unwrap();
        }
        for own in [
            format!("{MILL}/birth"),
            format!("{MILL}/offline"),
            "spindle/v1/plant-1/demo-mill/column/raw".into(),
        ] {
            let message = format!("true by {round}");
            publish_as(port, &options, &own, &message).unwrap();
            heard.wait_for_log(&format!("{own} {message}\n"), PATIENCE).unwrap();
        }
    }
    // What was forged went before what is true.
    assert!(!heard.log().contains("forged"), "{}", heard.log());
}

#[test]
fn a_node_reads_what_is_for_it_and_not_what_is_for_another() {
    let site = Site::start();
    let log = site.folder.path().join("node-sub");
    let node = site.by_certificate("host-demo");
    let mut heard = subscribe_as(site.certificates, &strs(&node), "#", &log).unwrap();
    let gateway = site.by_password("gateway");
    for topic in [format!("{MILL}/cmd"), format!("{MILL}/ack"), format!("{DEMO}/cmd"), format!("{DEMO}/ack")]
    {
        publish_as(site.tls, &strs(&gateway), &topic, "go").unwrap();
    }
    heard.wait_for_log(&format!("{DEMO}/ack go\n"), PATIENCE).unwrap();
    assert!(
        heard.log().contains(&format!("{DEMO}/cmd go\n")) && !heard.log().contains(MILL),
        "{}",
        heard.log()
    );
}

#[test]
fn wrong_passwords_and_clients_without_a_certificate_are_refused_and_rotation_ends_the_old_key() {
    let mut site = Site::start();
    let topic = format!("{MILL}/birth");
    let old = site.by_certificate("mill-3-spindle");
    let password = site.by_password("mill-3-spindle");
    let mut wrong = password.clone();
    wrong[3].push('x');
    for (port, options) in [(site.tls, &wrong), (site.broker.port(), &wrong), (site.certificates, &password)]
    {
        publish_as(port, &strs(options), &topic, "hello").unwrap_err();
    }
    publish_as(site.tls, &strs(&old), &topic, "hello").unwrap_err();
    publish_as(site.certificates, &strs(&old), &topic, "hello").unwrap();
    publish_as(site.tls, &strs(&password), &topic, "hello").unwrap();

    let stolen = site.folder.path().join("stolen");
    std::fs::create_dir(&stolen).unwrap();
    for file in ["cert.pem", "key.pem", "ca.pem"] {
        std::fs::copy(site.path(&format!("nodes/mill-3-spindle/{file}")), stolen.join(file)).unwrap();
    }
    let stolen: Vec<String> = old
        .iter()
        .map(|part| part.replace(&path_text(&site.path("nodes/mill-3-spindle")), &path_text(&stolen)))
        .collect();
    publish_as(site.certificates, &strs(&stolen), &topic, "hello").unwrap();
    provision(&path_text(&site.path("")), &["--rotate", "mill-3-spindle"]);
    site.broker.restart().unwrap();
    site.wait_until_up();
    publish_as(site.certificates, &strs(&stolen), &topic, "hello").unwrap_err();
    publish_as(site.tls, &strs(&password), &topic, "hello").unwrap_err();
    publish_as(site.certificates, &strs(&site.by_certificate("mill-3-spindle")), &topic, "hello").unwrap();
    publish_as(site.tls, &strs(&site.by_password("mill-3-spindle")), &topic, "hello").unwrap();
    publish_as(site.tls, &strs(&site.by_password("host-demo")), &format!("{DEMO}/birth"), "hello").unwrap();
}

#[test]
fn the_gateway_takes_a_board_s_blocks_over_tls_by_password_and_by_certificate() {
    let site = Site::start();
    let (ca, key) = (site.path("gateway/ca.pem"), site.path("gateway/key.pem"));
    let (certificate, password) = (site.path("gateway/cert.pem"), site.path("gateway/password"));
    let by_password = format!(
        "address = \"127.0.0.1:{}\"\nusername = \"gateway\"\npassword_file = {password:?}\ntls = {{ ca_file = {ca:?} }}\n",
        site.tls
    );
    let by_certificate = format!(
        "address = \"localhost:{}\"\ntls = {{ ca_file = {ca:?}, cert_file = {certificate:?}, key_file = {key:?}, \
         server_name = \"127.0.0.1\" }}\n",
        site.certificates
    );
    let hardware = path_text(&tools::root().join("hardware-configs"));
    let (broker, secret) = (site.broker.address(), path_text(&site.path("nodes/host-demo/password")));
    for settings in [by_password, by_certificate] {
        let mut agent = Agent::started(&format!("[[source.mqtt]]\nname = \"site\"\n{settings}")).unwrap();
        agent.process().unwrap().wait_for_log("subscribed", PATIENCE).unwrap();
        let board = ["simulate", "--broker", &broker, "--user", "host-demo", "--password-file", &secret];
        let node = ["--node", "host-demo", "--hardware-configs", &hardware, "--speed", "full"];
        let output = spindle(&[&board[..], &node, &["--samples", "64000", "--json"]].concat()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_balanced(&agent, "demo/demo-mill/spindle", 64_000);
        agent.stop().unwrap();
    }
}

#[test]
fn the_gateway_comes_back_over_tls_after_the_broker_was_killed() {
    let mut site = Site::start();
    let (ca, password) = (site.path("gateway/ca.pem"), site.path("gateway/password"));
    let mut agent = Agent::started(&format!(
        "[[source.mqtt]]\nname = \"site\"\naddress = \"127.0.0.1:{}\"\nusername = \"gateway\"\n\
         password_file = {password:?}\ntls = {{ ca_file = {ca:?} }}\n",
        site.tls
    ))
    .unwrap();
    agent.process().unwrap().wait_for_log("subscribed", PATIENCE).unwrap();
    site.broker.restart().unwrap();
    let log = agent.process().unwrap();
    log.wait_for_log("broker is not reached", PATIENCE).unwrap();
    wait::until("the second subscription", PATIENCE, || {
        Ok((log.log().matches("subscribed").count() == 2).then_some(()))
    })
    .unwrap();
    agent.stop().unwrap();
}

#[test]
fn the_gateway_says_in_words_why_a_broker_is_not_reached_over_tls() {
    let site = Site::start();
    let other = process::folder("other-authority").unwrap();
    let other_credentials = other.path().join("credentials");
    provision(&path_text(&other_credentials), &[]);
    let (ca, password) = (site.path("gateway/ca.pem"), site.path("gateway/password"));
    let strange = other_credentials.join("gateway/ca.pem");
    let wrong = other_credentials.join("gateway/password");
    let (tls, certificates) = (site.tls, site.certificates);
    for (port, password, more, said) in [
        (tls, &password, format!("ca_file = {strange:?}"), "UnknownIssuer"),
        (tls, &password, format!("ca_file = {ca:?}, server_name = \"elsewhere\""), "not valid for name"),
        (tls, &wrong, format!("ca_file = {ca:?}"), "NotAuthorized"),
        (certificates, &password, format!("ca_file = {ca:?}"), "CertificateRequired"),
    ] {
        let mut agent = Agent::started(&format!(
            "[[source.mqtt]]\nname = \"site\"\naddress = \"127.0.0.1:{port}\"\nusername = \"gateway\"\n\
             password_file = {password:?}\ntls = {{ {more} }}\n"
        ))
        .unwrap();
        let process = agent.process().unwrap();
        process.wait_for_log("broker is not reached", PATIENCE).unwrap();
        let log = process.log();
        assert!(log.contains(said), "{said} is not in:\n{log}");
        let secret = std::fs::read_to_string(password).unwrap();
        assert!(!log.contains(&secret), "{log}");
        agent.stop().unwrap();
    }
}
