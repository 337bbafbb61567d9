use super::*;
use clap::Parser;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// The project's hardware-configs with these three nodes alone, so that others may come and go.
fn hardware(folder: &TempDir) -> PathBuf {
    const NODES: [&str; 3] = ["bench-serial.toml", "host-demo.toml", "mill-3-spindle.toml"];
    let (ours, copy) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-configs"), folder.path().join("hardware"));
    for kind in ["boards", "sensors", "machines", "nodes"] {
        std::fs::create_dir_all(copy.join(kind)).unwrap();
        for entry in std::fs::read_dir(ours.join(kind)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if kind != "nodes" || NODES.contains(&name.as_str()) {
                std::fs::copy(ours.join(kind).join(&name), copy.join(kind).join(&name)).unwrap();
            }
        }
    }
    copy
}

/// A folder that the tests may fill, and the arguments after `provision --out FOLDER/out`.
fn args(folder: &TempDir, more: &[&str]) -> Args {
    let out = folder.path().join("out").display().to_string();
    let hardware = hardware(folder).display().to_string();
    let line = ["provision", "--out", &out, "--hardware", &hardware];
    Line::try_parse_from(line.iter().chain(more)).unwrap().args
}

fn now() -> jiff::Timestamp {
    "2026-02-03T04:05:06Z".parse().unwrap()
}

fn make(folder: &TempDir, more: &[&str]) -> Report {
    args(folder, more).make(now()).unwrap()
}

/// Every file below `folder/out`, by its path in it.
fn files(folder: &TempDir) -> BTreeMap<String, Vec<u8>> {
    fn add(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    let root = folder.path().join("out");
    add(&root, &root, &mut found);
    found
}

fn changes(report: &Report) -> Vec<(String, String)> {
    let rows = serde_json::to_value(report).unwrap()["logins"].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(&row["name"]), text(&row["change"]))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, change)| ((*name).to_owned(), (*change).to_owned())).collect()
}

#[test]
fn all_files_are_made_and_only_their_user_can_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let report = make(&folder, &["--broker-name", "broker.plant"]);
    let made = [("gateway", "made"), ("host-demo", "made"), ("mill-3-spindle", "made")];
    assert_eq!(changes(&report), pairs(&made));
    assert_eq!(report.serial, ["bench-serial"]);
    assert_eq!(report.broker_names, ["127.0.0.1", "192.168.1.10", "broker.plant"]);
    let found = files(&folder);
    for wanted in [
        "ca.key",
        "ca.pem",
        "issued.txt",
        "broker-names.txt",
        "broker/mosquitto.conf",
        "broker/passwd",
        "broker/acl",
        "broker/ca.pem",
        "broker/crl.pem",
        "broker/server.pem",
        "broker/server.key",
        "gateway/password",
        "gateway/cert.pem",
        "gateway/key.pem",
        "gateway/ca.pem",
        "nodes/host-demo/login.toml",
        "nodes/host-demo/cert.der",
        "nodes/host-demo/key.der",
        "nodes/host-demo/ca.der",
        "nodes/mill-3-spindle/cert.pem",
    ] {
        assert!(found.contains_key(wanted), "{wanted} is not in {:?}", found.keys());
    }
    for path in found.keys().map(|name| folder.path().join("out").join(name)) {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700), "{path:?}");
    }
    let login: Login =
        toml::from_str(std::str::from_utf8(&found["nodes/host-demo/login.toml"]).unwrap()).unwrap();
    assert_eq!(login.user, "host-demo");
    assert_eq!(login.password.as_bytes(), found["nodes/host-demo/password"]);
    assert_ne!(found["nodes/host-demo/password"], found["nodes/mill-3-spindle/password"]);
    let lines = String::from_utf8(found["broker/passwd"].clone()).unwrap();
    assert!(lines.lines().any(|line| password::is_line_of(line, "host-demo", &login.password)), "{lines}");
}

#[test]
fn a_second_run_keeps_all_and_adds_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder, &["--node", "host-demo", "--broker-name", "broker.plant"]);
    let first = files(&folder);
    assert!(!first.contains_key("nodes/mill-3-spindle/login.toml"));

    let report = make(&folder, &["--node", "host-demo"]);
    assert_eq!(changes(&report), pairs(&[("gateway", "kept"), ("host-demo", "kept")]));
    let without_list = |mut files: BTreeMap<String, Vec<u8>>| {
        files.remove("broker/crl.pem");
        files
    };
    assert_eq!(without_list(files(&folder)), without_list(first.clone()));

    std::fs::remove_file(folder.path().join("out/nodes/host-demo/key.pem")).unwrap();
    std::fs::remove_file(folder.path().join("out/gateway/password")).unwrap();
    let report = make(&folder, &["--node", "mill-3-spindle"]);
    assert_eq!(changes(&report), pairs(&[("gateway", "kept"), ("mill-3-spindle", "made")]));
    let second = files(&folder);
    for kept in ["gateway/password", "gateway/cert.pem", "nodes/host-demo/login.toml", "ca.pem", "ca.key"] {
        assert_eq!(second[kept], first[kept], "{kept}");
    }
    let list = String::from_utf8(second["broker/acl"].clone()).unwrap();
    assert!(list.contains("user host-demo\n") && list.contains("user mill-3-spindle\n"), "{list}");
    // Its address is new to the broker's certificate; the names that it had are kept.
    assert_eq!(report.broker_names, ["127.0.0.1", "192.168.1.10", "broker.plant"]);
    assert_ne!(second["broker/server.pem"], first["broker/server.pem"]);

    let report = make(&folder, &[]);
    let completed = [("gateway", "kept"), ("host-demo", "completed"), ("mill-3-spindle", "kept")];
    assert_eq!(changes(&report), pairs(&completed));
    assert_eq!(files(&folder)["nodes/host-demo/login.toml"], first["nodes/host-demo/login.toml"]);
}

#[test]
fn rotation_makes_one_login_new_and_revokes_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder, &[]);
    let first = files(&folder);
    let report = make(&folder, &["--node", "host-demo", "--rotate", "mill-3-spindle"]);
    let rotated = [("gateway", "kept"), ("host-demo", "kept"), ("mill-3-spindle", "rotated")];
    assert_eq!(changes(&report), pairs(&rotated));
    let second = files(&folder);
    for (name, is_new) in [("mill-3-spindle", true), ("host-demo", false)] {
        for file in ["login.toml", "password", "cert.pem", "key.pem", "cert.der", "key.der"] {
            let path = format!("nodes/{name}/{file}");
            assert_eq!(first[&path] != second[&path], is_new, "{path}");
        }
    }
    let issued = String::from_utf8(second["issued.txt"].clone()).unwrap();
    assert_eq!(issued.matches("mill-3-spindle revoked").count(), 1, "{issued}");
    assert_eq!(issued.matches("mill-3-spindle good").count(), 1, "{issued}");
    let old = std::str::from_utf8(&first["broker/passwd"]).unwrap().lines();
    let kept =
        old.filter(|line| second["broker/passwd"].windows(line.len()).any(|part| part == line.as_bytes()));
    assert_eq!(kept.count(), 2);
}

#[test]
fn a_rotation_that_was_cut_off_is_finished_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder, &[]);
    let first = files(&folder);
    // Revoked, and nothing else done.
    let issued = folder.path().join("out/issued.txt");
    let text = std::fs::read_to_string(&issued).unwrap();
    std::fs::write(&issued, text.replace("host-demo good", "host-demo revoked")).unwrap();
    let report = make(&folder, &[]);
    let changed = [("gateway", "kept"), ("host-demo", "completed"), ("mill-3-spindle", "kept")];
    assert_eq!(changes(&report), pairs(&changed));
    assert_ne!(files(&folder)["nodes/host-demo/cert.pem"], first["nodes/host-demo/cert.pem"]);
}

#[test]
fn certificates_that_end_soon_are_made_anew_and_passwords_stay() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder, &[]);
    let first = files(&folder);
    let later = now() + jiff::SignedDuration::from_hours(24 * (3652 - 50));
    let report = args(&folder, &[]).make(later).unwrap();
    assert!(changes(&report).iter().all(|(_, change)| change == "completed"), "{report}");
    assert!(report.to_string().contains("expired"), "{report}");
    let second = files(&folder);
    assert_eq!(second["nodes/host-demo/login.toml"], first["nodes/host-demo/login.toml"]);
    assert_ne!(second["nodes/host-demo/cert.pem"], first["nodes/host-demo/cert.pem"]);
}

#[test]
fn nodes_without_a_file_are_withdrawn_from_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder, &[]);
    let nodes = folder.path().join("out/nodes");
    std::fs::rename(nodes.join("host-demo"), nodes.join("scrapped")).unwrap();
    let passwd = folder.path().join("out/broker/passwd");
    let text = std::fs::read_to_string(&passwd).unwrap().replace("host-demo:", "scrapped:");
    std::fs::write(&passwd, text).unwrap();
    let report = make(&folder, &["--node", "mill-3-spindle"]);
    assert_eq!(report.withdrawn, ["scrapped"]);
    let found = files(&folder);
    for file in ["broker/passwd", "broker/acl"] {
        let text = String::from_utf8(found[file].clone()).unwrap();
        assert!(!text.contains("scrapped") && !text.contains("host-demo"), "{text}");
    }
}

#[test]
fn nothing_printed_holds_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let report = make(&folder, &[]);
    let printed = format!("{report}{report:?}{}", serde_json::to_string(&report).unwrap());
    let found = files(&folder);
    for (name, content) in &found {
        let secrets: Vec<String> = match name.rsplit('/').next() {
            Some("password") => vec![String::from_utf8(content.clone()).unwrap()],
            Some("key.pem" | "ca.key" | "server.key" | "passwd") => {
                let text = String::from_utf8(content.clone()).unwrap();
                text.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned).collect()
            }
            _ => continue,
        };
        assert!(!secrets.is_empty() && secrets.iter().all(|secret| secret.len() > 20), "{name}");
        assert!(secrets.iter().all(|secret| !printed.contains(secret.as_str())), "{name} is in {printed}");
    }
    let login = folder.path().join("out/nodes/host-demo/login.toml");
    std::fs::write(&login, "user = \"host-demo\"\npassword = \"open sesame\"\nadmin = true\n").unwrap();
    let error = format!("{:#}", args(&folder, &[]).make(now()).unwrap_err());
    assert!(error.contains("nodes/host-demo/login.toml") && !error.contains("sesame"), "{error}");
}

#[test]
fn folders_in_a_repository_or_open_to_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    let error = args(&folder, &[]).make(now()).unwrap_err().to_string();
    assert!(error.contains("lies in the repository") && error.contains("--allow-repository"), "{error}");
    assert!(!folder.path().join("out").exists());
    make(&folder, &["--allow-repository"]);
    let out = folder.path().join("out");
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o750)).unwrap();
    let error = args(&folder, &["--allow-repository"]).make(now()).unwrap_err().to_string();
    assert!(error.contains("mode 750") && error.contains("chmod 700"), "{error}");
}

#[test]
fn what_cannot_be_made_is_said_with_the_thing_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (more, said) in [
        (vec!["--node", "nobody"], "nodes/nobody.toml"),
        (vec!["--rotate", "nobody"], "nodes/nobody.toml"),
        (vec!["--broker-dir", "here"], "absolute path"),
        (vec!["--node", "bench-serial"], "--broker-name HOST"),
    ] {
        let error = format!("{:#}", args(&folder, &more).make(now()).unwrap_err());
        assert!(error.contains(said), "{said} is not in {error}");
    }
    let out = folder.path().join("out");
    std::fs::remove_file(out.join("ca.key")).unwrap();
    let error = format!("{:#}", args(&folder, &[]).make(now()).unwrap_err());
    assert!(error.contains("has lost ca.key"), "{error}");
    assert!(Line::try_parse_from(["provision", "--out", "x", "--broker-name", "a b"]).is_err());
    let mut without = args(&folder, &[]);
    (without.hardware, without.config) = (None, folder.path().join("gateway.toml"));
    let error = format!("{:#}", without.make(now()).unwrap_err());
    assert!(error.contains("gateway.toml") && error.contains("--hardware DIR"), "{error}");
    std::fs::write(&without.config, "[gateway]\nhardware_configs = \"/no/such/folder\"\n").unwrap();
    let error = format!("{:#}", without.make(now()).unwrap_err());
    assert!(error.contains("/no/such/folder"), "{error}");
}
