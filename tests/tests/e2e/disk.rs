//! The disk of a running gateway fills, is locked, is damaged, and is looked at.

use serde_json::Value;
use spindle_tests::agent::{Agent, spindle, text};
use spindle_tests::disk::Dice;
use spindle_tests::kafka::Kafka;
use spindle_tests::mosquitto::Mosquitto;
use spindle_tests::node::{Node, Script};
use spindle_tests::wait::{self, PATIENCE};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A file system of its own, in memory.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of `mib` on `path`; none without the rights to.
    fn mount(path: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={mib}m,mode=700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        let output = mount.unwrap();
        if !output.status.success() {
            let id = Command::new("id").arg("-u").output().unwrap().stdout;
            assert_ne!(id, b"0\n", "root may not mount a tmpfs: {output:?}");
            println!("skipped: only root can mount a small tmpfs, which this test fills");
            return None;
        }
        Some(Self(path.to_owned()))
    }

    /// Takes all room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        for len in [1 << 20, 1 << 12] {
            while file.write_all(&vec![1; len]).is_ok() {}
        }
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Without Kafka.
fn config(broker: &Mosquitto, more: &str) -> String {
    format!("[[source.mqtt]]\nname = \"site\"\naddress = \"{}\"\n\n{more}", broker.address())
}

const SMALL: &str = "[journal]\nsize_max = \"24 MiB\"\nsegment_size = \"4 MiB\"\n";

fn paced(blocks: u32) -> Script {
    Script { pace_hz: Some(200), ..Script::new("n1", blocks) }
}

#[test]
fn a_full_disk_stops_acknowledgements_is_said_once_and_costs_nothing_when_it_is_freed() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::new(&crate::config(&broker.address(), kafka, "full", SMALL)).unwrap();
    let Some(disk) = Tmpfs::mount(&agent.data(), 64) else { return };
    agent.start().unwrap();
    let node = Node::start(broker.port(), paced(2000)).unwrap();
    node.wait_acknowledged(300, PATIENCE).unwrap();
    let ballast = disk.fill();
    agent.process().unwrap().wait_for_log("commit failed; nothing is acknowledged", PATIENCE).unwrap();
    let stuck = node.acknowledged();
    std::thread::sleep(Duration::from_secs(3));
    assert!(node.acknowledged() <= stuck + 64, "what is not on disk is not acknowledged");
    agent.process().unwrap().ensure_running().unwrap();
    std::fs::remove_file(ballast).unwrap();
    agent.process().unwrap().wait_for_log("the journal takes records again", PATIENCE).unwrap();
    let script = node.finish(PATIENCE).unwrap();
    crate::outages::assert_all_in_kafka(kafka, "full", &script);
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    let log = agent.process().unwrap().log();
    assert!(log.matches("commit failed; nothing is acknowledged").count() <= 2, "{log}");
    agent.stop().unwrap();
    drop(disk);
}

#[test]
fn on_a_full_disk_the_gateway_waits_and_starts_when_there_is_room() {
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::new(&config(&broker, SMALL)).unwrap();
    let Some(disk) = Tmpfs::mount(&agent.data(), 32) else { return };
    let ballast = disk.fill();
    for _ in 0..2 {
        agent.launch().unwrap();
        let says = "the data folder takes nothing; starting when it does";
        agent.process().unwrap().wait_for_log(says, PATIENCE).unwrap();
        agent.process().unwrap().ensure_running().unwrap();
        agent.kill();
    }
    agent.launch().unwrap();
    std::fs::remove_file(ballast).unwrap();
    agent.wait_until_up().unwrap();
    let node = Node::start(broker.port(), paced(100)).unwrap();
    let script = node.finish(PATIENCE).unwrap();
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    agent.stop().unwrap();
    drop(disk);
}

#[test]
fn files_that_another_process_locks_for_a_while_delay_and_lose_nothing() {
    let kafka = Kafka::shared().unwrap();
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&crate::config(&broker.address(), kafka, "locked", SMALL)).unwrap();
    let node = Node::start(broker.port(), paced(4000)).unwrap();
    node.wait_acknowledged(300, PATIENCE).unwrap();
    let journal = agent.data().join("journal");
    let newest = std::fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.filter(|path| path.extension().is_some_and(|extension| extension == "sqlite")).max();
    let files = [newest.unwrap(), agent.data().join("outputs.sqlite"), agent.data().join("forward.sqlite")];
    let locks = files.map(|path| {
        let lock = rusqlite::Connection::open(path).unwrap();
        lock.busy_timeout(Duration::from_secs(10)).unwrap();
        lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
        lock
    });
    for says in
        ["commit failed; nothing is acknowledged", "cursors cannot be saved", "committing outputs failed"]
    {
        agent.process().unwrap().wait_for_log(says, PATIENCE).unwrap();
    }
    // The journal has gone on in another file meanwhile.
    node.wait_acknowledged(1000, PATIENCE).unwrap();
    drop(locks);
    for says in ["cursors are saved again", "outputs are committed again"] {
        agent.process().unwrap().wait_for_log(says, PATIENCE).unwrap();
    }
    let script = node.finish(PATIENCE).unwrap();
    crate::outages::assert_all_in_kafka(kafka, "locked", &script);
    crate::books::assert_balanced(&agent, &script.key(), script.blocks * 512);
    agent.stop().unwrap();
}

fn buffer(agent: &Agent, verb: &[&str]) -> (i32, Value) {
    let config = text(&agent.config());
    let args = [&["buffer"], verb, &["--json", "--config", &config]].concat();
    let output = spindle(&args).unwrap();
    let json = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), json.unwrap_or_else(|_| String::from_utf8_lossy(&output.stderr).into()))
}

#[test]
fn the_buffer_is_looked_at_checked_and_exported_beside_the_gateway_and_purged_without_it() {
    let broker = Mosquitto::start("").unwrap();
    let mut agent = Agent::started(&config(&broker, SMALL)).unwrap();
    let script = Node::start(broker.port(), Script::new("n1", 3000)).unwrap().finish(PATIENCE).unwrap();
    let (code, stat) = buffer(&agent, &["stat"]);
    assert_eq!(code, 0, "{stat}");
    let next = stat["journal"]["next"].as_u64().unwrap();
    assert!(next > 3000 && stat["journal"]["segments"].as_array().unwrap().len() > 1, "{stat}");
    let (code, verified) = buffer(&agent, &["verify"]);
    assert_eq!((code, verified["sound"].as_bool()), (0, Some(true)), "{verified}");
    assert!(verified["records"].as_u64().unwrap() >= 3000);

    let out = agent.config().with_file_name("dump");
    let (code, export) = buffer(&agent, &["export", "--sensor", &script.key(), "--out", &text(&out)]);
    assert_eq!((code, export["records"].as_u64()), (0, Some(3000)), "{export}");
    let bodies = std::fs::read(out.join("records.bin")).unwrap();
    let index = std::fs::read_to_string(out.join("index.ndjson")).unwrap();
    for (seq, line) in (0..).zip(index.lines()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let (at, len) = (line["at"].as_u64().unwrap() as usize, line["len"].as_u64().unwrap() as usize);
        assert_eq!(bodies[at..at + len], script.block(seq).unwrap(), "block {seq}");
        assert_eq!(bodies[at - 4..at], (len as u32).to_le_bytes());
    }

    let (code, refused) = buffer(&agent, &["purge", "--all", "--yes"]);
    assert_eq!(code, 3, "{refused}");
    assert!(refused.as_str().unwrap().contains("is open in another process"), "{refused}");
    agent.stop().unwrap();
    let (code, asked) = buffer(&agent, &["purge", "--all"]);
    assert_eq!((code, asked["purged"].as_bool()), (0, Some(false)), "{asked}");
    let (code, purged) = buffer(&agent, &["purge", "--all", "--yes"]);
    assert_eq!((code, purged["purged"].as_bool()), (0, Some(true)), "{purged}");
    let row = crate::books::of(&agent, &script.key());
    assert_eq!((row["evicted"].as_u64(), row["balanced"].as_bool()), (Some(3000 * 512), Some(true)), "{row}");
    // Where the board stands is kept: what it sends again is a duplicate.
    agent.start().unwrap();
    let again = Node::start(broker.port(), Script::new("n1", 3100)).unwrap().finish(PATIENCE).unwrap();
    let settled = wait::until("the books", PATIENCE, || {
        let row = crate::books::of(&agent, &again.key());
        Ok((row["stored"] == 3100 * 512 && row["balanced"] == true).then_some(row))
    });
    assert!(settled.is_ok(), "{}", crate::books::of(&agent, &again.key()));
    agent.stop().unwrap();
}

#[test]
fn a_second_gateway_on_the_same_data_is_refused_and_nobody_else_may_read_it() {
    let broker = Mosquitto::start("").unwrap();
    let more = "[forward.kafka]\nbrokers = \"127.0.0.1:9\"\n";
    let mut agent = Agent::started(&config(&broker, more)).unwrap();
    let node = Node::start(broker.port(), Script::new("n1", 200)).unwrap();
    node.finish(PATIENCE).unwrap();
    let second = spindle(&["run", "--config", &text(&agent.config())]).unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is open in another process"), "{second:?}");
    let mut seen = Vec::new();
    let mut folders = vec![agent.data()];
    while let Some(folder) = folders.pop() {
        for path in
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).chain([folder.clone()])
        {
            let mode = path.symlink_metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
            if path.is_dir() && path != folder {
                folders.push(path.clone());
            }
            seen.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    for name in ["outputs.sqlite", "outputs.sqlite-wal", "forward.sqlite", "forward.sqlite-wal", "lock"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} of {seen:?}");
    }
    assert!(seen.iter().any(|name| name.ends_with(".sqlite-wal") && name.starts_with("0000")), "{seen:?}");
    agent.stop().unwrap();
}

#[test]
fn with_flipped_bits_in_every_file_the_gateway_starts_says_so_and_goes_on() {
    let broker = Mosquitto::start("").unwrap();
    let more = format!("{SMALL}\n[forward.kafka]\nbrokers = \"127.0.0.1:9\"\n");
    let mut agent = Agent::started(&config(&broker, &more)).unwrap();
    Node::start(broker.port(), Script::new("n1", 2000)).unwrap().finish(PATIENCE).unwrap();
    let mut dice = Dice::new(11);
    let mut next = 2000;
    for round in 0..4 {
        agent.stop().unwrap();
        let journal =
            std::fs::read_dir(agent.data().join("journal")).unwrap().map(|entry| entry.unwrap().path());
        let others = ["outputs.sqlite", "forward.sqlite"].map(|name| agent.data().join(name));
        for path in journal.chain(others).filter(|path| path.extension().is_some_and(|e| e == "sqlite")) {
            let mut bytes = std::fs::read(&path).unwrap();
            for _ in 0..20 {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice.below(8);
            }
            std::fs::write(&path, bytes).unwrap();
        }
        let (code, verified) = buffer(&agent, &["verify"]);
        assert_eq!((code, verified["sound"].as_bool()), (1, Some(false)), "round {round}: {verified}");
        agent.start().unwrap();
        next += 200;
        let node = Node::start(broker.port(), Script { boot: 8 + round, ..Script::new("n1", 200) }).unwrap();
        node.finish(PATIENCE).unwrap();
        assert_eq!(buffer(&agent, &["stat"]).0, 0);
    }
    println!("{next} blocks");
    agent.stop().unwrap();
}
