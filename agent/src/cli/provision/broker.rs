//! Mosquitto's files: who may log in, who may publish and read what, and the listeners (mosquitto.conf(5)).

use super::password;
use crate::source::topic::FROM_NODES;
use spindle_common::hardware::Node;
use std::collections::{BTreeMap, BTreeSet};

/// The gateway's user name.
pub(in crate::cli) const GATEWAY: &str = "gateway";
/// Topics of a sensor; the others of [`FROM_NODES`] are its node's (WIRE.md, section 5).
const OF_SENSORS: [&str; 3] = ["raw", "features", "burst"];
/// What nodes publish besides [`FROM_NODES`]: the settings in force, and what time it is.
const MORE_FROM_NODES: [&str; 2] = ["settings", "timeask"];
/// What the gateway publishes and a node reads.
const TO_NODES: [&str; 2] = ["ack", "cmd"];
/// In the access list, what follows this line is the site's and is kept.
pub(super) const OWN_RULES: &str = "# --- The site's own rules; what stands below this line is kept. ---";

/// The access list: what is not written here is refused. `before` is the list as it is, of which the site's own rules stay.
pub(super) fn access_list<'a>(nodes: impl Iterator<Item = &'a Node>, before: &str) -> String {
    let mut text = String::from("# Made by `spindle provision`: who may publish and read what.\n\n");
    text.push_str("# Rules without a user count for nobody who has a name, and everybody has one here.\n\n");
    rule(&mut text, GATEWAY, "read", "spindle/v1/#");
    for topic in TO_NODES {
        rule(&mut text, "", "write", &format!("spindle/v1/+/+/+/{topic}"));
    }
    for node in nodes {
        let place = format!("spindle/v1/{}/{}", node.site, node.machine);
        let mut user = node.name.as_str();
        let of_node = FROM_NODES.iter().filter(|topic| !OF_SENSORS.contains(topic)).chain(&MORE_FROM_NODES);
        for topic in of_node.collect::<BTreeSet<_>>() {
            rule(&mut text, std::mem::take(&mut user), "write", &format!("{place}/{}/{topic}", node.name));
        }
        for sensor in &node.sensor {
            for topic in OF_SENSORS {
                rule(&mut text, "", "write", &format!("{place}/{}/{topic}", sensor.name));
            }
        }
        for topic in TO_NODES {
            rule(&mut text, "", "read", &format!("{place}/{}/{topic}", node.name));
        }
    }
    let own = before.split_once(OWN_RULES).map_or("\n", |(_, own)| own);
    format!("{text}\n{OWN_RULES}{own}")
}

/// A rule; with a `user`, the first of that user's.
fn rule(text: &mut String, user: &str, access: &str, topic: &str) {
    if !user.is_empty() {
        text.push_str(&format!("\nuser {user}\n"));
    }
    text.push_str(&format!("topic {access} {topic}\n"));
}

/// The password file: a line for each of `logins` (user: password), lines of users that we do not know as they are, and none of
/// those who are `withdrawn`. A line whose password has not changed stays as it is.
pub(super) fn password_file(
    logins: &BTreeMap<String, String>,
    withdrawn: &[String],
    before: &str,
) -> anyhow::Result<String> {
    let user_of = |line: &str| line.split_once(':').map(|(user, _)| user.to_owned());
    let mut text = String::new();
    for (user, password) in logins {
        let kept = before.lines().find(|line| password::is_line_of(line, user, password));
        text.push_str(&kept.map_or_else(|| password::line(user, password), |line| Ok(line.to_owned()))?);
        text.push('\n');
    }
    for line in before.lines() {
        if let Some(user) = user_of(line)
            && !logins.contains_key(&user)
            && !withdrawn.contains(&user)
        {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

/// What to include in `mosquitto.conf`; `dir` is where the files will lie on the broker.
pub(super) fn configuration(dir: &str) -> String {
    format!(
        "# Made by `spindle provision` for Mosquitto 2. Includes well from conf.d; needs `per_listener_settings false`, the default.\n\
         \n\
         allow_anonymous false\n\
         password_file {dir}/passwd\n\
         acl_file {dir}/acl\n\
         \n\
         # TLS; clients log in by user name and password.\n\
         listener 8883\n\
         cafile {dir}/ca.pem\n\
         certfile {dir}/server.pem\n\
         keyfile {dir}/server.key\n\
         \n\
         # TLS; clients log in by their certificate, whose name is their user name, so the same access list holds.\n\
         listener 8884\n\
         cafile {dir}/ca.pem\n\
         certfile {dir}/server.pem\n\
         keyfile {dir}/server.key\n\
         crlfile {dir}/crl.pem\n\
         require_certificate true\n\
         use_identity_as_username true\n\
         \n\
         # No TLS, for boards that have none. Everyone on this network can read and change what goes over it, passwords too:\n\
         # whoever listens can then publish as that board. Only on a network that is the machines' own, and never routed.\n\
         # listener 1883\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware;
    use std::path::Path;

    fn demo() -> Node {
        let catalog = hardware::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-configs"));
        catalog.unwrap().nodes["mill-3-spindle"].clone()
    }

    #[test]
    fn a_node_may_publish_and_read_under_its_own_names_alone() {
        let text = access_list([demo()].iter(), "");
        let (before, node) = text.split_once("user mill-3-spindle\n").unwrap();
        let (node, _) = node.split_once("\n\n").unwrap();
        let mut topics: Vec<_> = node.lines().collect();
        topics.sort_unstable();
        let place = "spindle/v1/plant-1/demo-mill";
        let mut expected: Vec<String> =
            ["birth", "status", "time", "answer", "offline", "settings", "timeask"]
                .map(|topic| format!("topic write {place}/mill-3-spindle/{topic}"))
                .into();
        for sensor in ["spindle-front", "column"] {
            let topics = ["raw", "features", "burst"];
            expected.extend(topics.map(|topic| format!("topic write {place}/{sensor}/{topic}")));
        }
        expected.extend(["ack", "cmd"].map(|topic| format!("topic read {place}/mill-3-spindle/{topic}")));
        expected.sort_unstable();
        assert_eq!(topics, expected);
        let gateway = "user gateway\ntopic read spindle/v1/#\ntopic write spindle/v1/+/+/+/ack\n\
                       topic write spindle/v1/+/+/+/cmd\n";
        assert!(before.contains(gateway), "{before}");
        // Rules before the first `user` would count for anonymous clients.
        let open = before.split_once("user ").unwrap().0;
        assert!(open.lines().all(|line| line.is_empty() || line.starts_with('#')), "{open}");
    }

    #[test]
    fn the_site_s_own_rules_and_users_are_kept() {
        let own = "\nuser plc\ntopic write plant/#\n";
        let list = access_list([demo()].iter(), "");
        let edited = format!("{}{own}", list.trim_end());
        let again = access_list(std::iter::empty(), &edited);
        assert!(
            again.ends_with(&format!("{OWN_RULES}{own}")) && !again.contains("mill-3-spindle"),
            "{again}"
        );
        assert_eq!(access_list([demo()].iter(), &again), edited);

        let logins = BTreeMap::from([("a".to_owned(), "one".to_owned()), ("b".to_owned(), "two".to_owned())]);
        let first = password_file(&logins, &[], "plc:$7$101$x$y\nb:$7$101$old$old\ngone:z\n").unwrap();
        let users: Vec<_> =
            first.lines().filter_map(|line| line.split_once(':')).map(|(user, _)| user).collect();
        assert_eq!(users, ["a", "b", "plc", "gone"]);
        assert_eq!(password_file(&logins, &[], &first).unwrap(), first);
        let second = password_file(&logins, &["gone".to_owned()], &first).unwrap();
        assert_eq!(second, first.replace("gone:z\n", ""));
        let changed =
            BTreeMap::from([("a".to_owned(), "new".to_owned()), ("b".to_owned(), "two".to_owned())]);
        let third = password_file(&changed, &[], &first).unwrap();
        assert_eq!(third.lines().skip(1).collect::<Vec<_>>(), first.lines().skip(1).collect::<Vec<_>>());
        assert_ne!(third, first);
    }
}
