//! In a real folder: what is in it, what a torn end comes to, what happens when it is full or away.

use super::*;
use crate::config::LaneName;
use crate::forward::log::{Content, Item, Log, Progress};
use crate::record::SensorKey;
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::PathBuf;

/// A log in memory.
#[derive(Clone)]
struct MemoryLog(Vec<Item>);

impl MemoryLog {
    fn of(bodies: impl Iterator<Item = Vec<u8>>) -> Self {
        let key = Arc::new(SensorKey { site: "a".into(), machine: "b".into(), sensor: "c".into() });
        let item = |(offset, body): (u64, Vec<u8>)| {
            let content = Content::Json { body: Bytes::from(body), first_sample: offset };
            Item { offset, key: key.clone(), time_ns: 1_700_000_000_000_000_000, content }
        };
        Self((1..).zip(bodies).map(item).collect())
    }
}

impl Log for MemoryLog {
    fn read(&mut self, from: u64, _: usize, items: &mut VecDeque<Item>) -> Result<Progress, String> {
        let rest = self.0.iter().filter(|item| item.offset >= from).take(10).cloned();
        items.extend(rest);
        Ok(items.back().map_or(Progress::Idle, |item| Progress::To(item.offset + 1)))
    }
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Clock,
    log: MemoryLog,
    more: &'static str,
}

impl Bench {
    fn new(records: usize, len: usize, more: &'static str) -> Self {
        let log = MemoryLog::of((0..records).map(|number| format!("{number:0len$}").into_bytes()));
        let clock = Clock::manual(1_700_000_000_000_000_000);
        Self { dir: tempfile::tempdir().unwrap(), clock, log, more }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn destination(&self) -> FilesDestination {
        let text = format!("name = \"lake\"\ndir = {:?}\n{}", self.out(), self.more);
        let config: FilesForward = toml::from_str(&text).unwrap();
        let lanes: Lanes = vec![(LaneName::Raw, Box::new(self.log.clone()))];
        FilesDestination::new(&config, "gw", self.dir.path(), lanes, self.clock.clone()).unwrap()
    }

    /// Works for `rounds` rounds of a second each, and stops in order.
    fn work(&self, destination: &mut FilesDestination, rounds: usize) {
        for _ in 0..rounds {
            let now = self.clock.now();
            destination.turn(0, now);
            destination.settle(0, now, false);
            self.clock.advance(Duration::from_secs(1));
        }
        destination.run(&AtomicBool::new(true)).unwrap();
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.out()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The ids of all lines, in order.
    fn ids(&self) -> Vec<String> {
        let texts = self.files().into_iter().map(|path| std::fs::read_to_string(path).unwrap());
        let lines: Vec<String> =
            texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let id = |line: &String| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
        };
        lines.iter().map(id).collect()
    }
}

fn ids(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| format!("a/b/c/{number}")).collect()
}

#[test]
fn a_restart_goes_on_with_the_same_file_and_repeats_nothing_after_an_orderly_stop() {
    let bench = Bench::new(40, 4, "");
    bench.work(&mut bench.destination(), 1);
    bench.work(&mut bench.destination(), 3);
    assert_eq!(bench.ids(), ids(1..=40));
    assert_eq!(bench.files().len(), 1);
    let name = bench.files()[0].file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(name, "raw-00000000000000000001-20231114T221320Z.ndjson.part");
}

#[test]
fn a_torn_end_is_cut_and_what_the_cursor_does_not_cover_is_written_again() {
    let bench = Bench::new(30, 4, "");
    let mut killed = bench.destination();
    let now = bench.clock.now();
    killed.turn(0, now);
    // Durable in the file, but the cursor was not saved when it was killed.
    killed.writers[0].sync().unwrap();
    drop(killed);
    let path = bench.files()[0].clone();
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":\"a/b");
    std::fs::write(&path, &torn).unwrap();
    bench.work(&mut bench.destination(), 2);
    assert_eq!(bench.ids(), [ids(1..=30), ids(1..=30)].concat(), "whole lines only, duplicates by their ids");
}

#[test]
fn a_file_is_finished_by_size_and_by_age_and_names_where_it_begins() {
    let bench = Bench::new(400, 1000, "rotate_size = \"64 KiB\"\nrotate_age = \"10s\"");
    bench.work(&mut bench.destination(), 30);
    let files = bench.files();
    assert!(files.len() > 5 && files.iter().all(|path| path.extension().unwrap() == "ndjson"), "{files:?}");
    assert_eq!(bench.ids(), ids(1..=400));
}

#[test]
fn a_full_folder_says_so_deletes_nothing_and_goes_on_when_files_are_taken_away() {
    let bench = Bench::new(6000, 1000, "rotate_size = \"512 KiB\"\nsize_max = \"4 MiB\"");
    let mut destination = bench.destination();
    bench.work(&mut destination, 60);
    let problem = destination.stats.problem.lock().clone().unwrap();
    assert!(problem.contains("take finished files away"), "{problem}");
    let full = bench.files();
    let len: u64 = full.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!((3 << 20..=4 << 20).contains(&len), "{len}");
    assert!(full.iter().all(|path| path.extension().unwrap() == "ndjson"), "all can be taken: {full:?}");
    let mut found = Vec::new();
    while found.len() < 6000 {
        found.extend(bench.ids());
        bench.files().iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let before = found.len();
        bench.work(&mut destination, 60);
        assert!(before == 6000 || !bench.files().is_empty(), "it does not go on after {before}");
    }
    assert_eq!(found, ids(1..=6000));
    assert_eq!(*destination.stats.problem.lock(), None);
}

#[test]
fn a_folder_that_is_away_is_waited_for() {
    let bench = Bench::new(20, 4, "");
    std::fs::write(bench.out(), "a file in its place").unwrap();
    let mut destination = bench.destination();
    bench.work(&mut destination, 5);
    assert!(destination.stats.problem.lock().is_some());
    assert_eq!(destination.stats.raw.cursor.load(Ordering::Relaxed), 1);
    std::fs::remove_file(bench.out()).unwrap();
    bench.clock.advance(Duration::from_secs(60));
    bench.work(&mut destination, 5);
    assert_eq!(bench.ids(), ids(1..=20));
    assert_eq!(*destination.stats.problem.lock(), None);
}
