//! Calls that fail: each one of a run, once or until the disk is well again, as a full disk, a broken or a read-only one.

use crate::hooks::{Fault, Recording};
use crate::world::{Oracle, World, config};
use bytes::Bytes;
use spindle_agent::forward::cursor::CursorStore;
use spindle_agent::outputs::{Commit, OutputLog, Read};
use spindle_agent::record::{Output, OutputKind, SensorKey};
use spindle_tests::disk::{self, Dice, Disk};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Commits of a run: enough to fill the journal and evict.
const STEPS: u32 = 11;
/// Blocks of a commit, about 480 KiB.
const BLOCKS: u32 = 160;
/// A lasting fault ends when a commit has been tried so often.
const TRIES: u32 = 3;

fn fault(n: u64, at: u64) -> Fault {
    let errno = [libc::ENOSPC, libc::EIO, libc::EROFS][n as usize % 3];
    Fault { at, lasting: (n / 3).is_multiple_of(2), errno }
}

/// What a cut leaves now.
fn cut(recording: &Recording, seed: u64) -> TempDir {
    let mut disk = Disk::default();
    recording.ops().iter().for_each(|op| disk.apply(op));
    let folder = TempDir::new().unwrap();
    disk::lay(&disk.cut(&mut Dice::new(seed)), folder.path()).unwrap();
    folder
}

/// Fills a journal; a commit that fails is tried again, and the disk is well after some tries.
fn fill(recording: &Recording, fault: impl FnOnce(u64) -> Option<Fault>) -> World {
    let mut world = World::open(recording.path(), 5);
    if let Some(fault) = fault(recording.calls()) {
        recording.set_fault(fault);
    }
    for _ in 0..STEPS {
        let work = world.take(BLOCKS);
        world.commit(work, |tries| {
            if tries == TRIES {
                recording.heal();
            }
        });
    }
    recording.heal();
    world
}

#[test]
fn any_call_of_the_journal_may_fail_and_it_recovers_and_loses_nothing() {
    let sound = Recording::start();
    let mut first = 0;
    let world = fill(&sound, |calls| {
        first = calls;
        None
    });
    assert!(world.journal.totals().segments_evicted > 0, "the run evicts");
    let World { config, reference, .. } = world;
    let (oracle, calls) = (Oracle::new(&config, reference), sound.calls() - first);
    // Every fifth call meets each kind of fault; all of them take minutes.
    let stride = std::env::var("SPINDLE_FAULT_STRIDE").map_or(5, |text| text.parse().unwrap());
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let n = next.fetch_add(stride, Ordering::Relaxed);
            if n >= calls {
                break;
            }
            let recording = Recording::start();
            let world = fill(&recording, |calls| Some(fault(n, calls + n)));
            failed.fetch_add(recording.failed().min(1), Ordering::Relaxed);
            assert_eq!(recording.violations(), Vec::<String>::new(), "call {n} of {calls}");
            let end = world.journal.next_offset();
            // What readers in the process see, then what a cut leaves.
            let folder = cut(&recording, n);
            println!("call {n}");
            drop(oracle.check_journal(folder.path(), end, end));
            drop(world);
            drop(oracle.check_journal(recording.path(), end, end));
        }
    };
    std::thread::scope(|scope| {
        let beside = scope.spawn(work);
        work();
        beside.join().unwrap();
    });
    println!("{} of {calls} calls failed in a run of their own", failed.load(Ordering::Relaxed));
    assert!(failed.load(Ordering::Relaxed) * stride >= calls, "every call was made to fail");
}

fn outputs_of(step: u64) -> Commit {
    let key = Arc::new(SensorKey { site: "s".into(), machine: "m".into(), sensor: "a".into() });
    let outputs = (step * 5..step * 5 + 5).map(|number| Output {
        id: 0,
        kind: OutputKind::Features,
        key: key.clone(),
        time_ns: number.cast_signed(),
        ce_id: number.to_string().into(),
        json: Bytes::from(vec![b'x'; 6000]),
    });
    Commit { outputs: outputs.collect(), checkpoint: step + 1, ..Commit::default() }
}

fn assert_outputs(log: &OutputLog, count: u64) {
    assert_eq!(log.stats().next_id, count + 1);
    let mut reader = log.reader();
    let mut at = 0;
    while at < count {
        let Ok(Read::Batch(batch)) = reader.read(at + 1, usize::MAX, Duration::ZERO) else {
            panic!("output {at} is missing")
        };
        for output in batch {
            assert_eq!(&*output.ce_id, at.to_string());
            at += 1;
        }
    }
}

#[test]
fn any_call_of_outputs_and_cursors_may_fail_and_each_output_is_there_once() {
    const COMMITS: u64 = 12;
    let run = |fault: Option<(u64, Fault)>| {
        let recording = Recording::start();
        let settings = config(recording.path()).outputs;
        let mut log = OutputLog::open(recording.path(), &settings).unwrap();
        let mut cursors = CursorStore::open(recording.path(), "kafka").unwrap();
        let base = recording.calls();
        if let Some((n, fault)) = fault {
            recording.set_fault(Fault { at: base + n, ..fault });
        }
        for step in 0..COMMITS {
            let mut commit = outputs_of(step);
            let mut tries = 0;
            while log.commit(&mut commit).is_err() {
                tries += 1;
                if tries == TRIES {
                    recording.heal();
                }
            }
            cursors.save(&[("features", step * 5 + 6)]).unwrap();
        }
        let calls = recording.calls() - base;
        recording.heal();
        assert_eq!(recording.violations(), Vec::<String>::new());
        let folder = cut(&recording, fault.map_or(0, |(n, _)| n));
        let found = OutputLog::open(folder.path(), &settings).unwrap();
        assert_outputs(&found, COMMITS * 5);
        let cursor = CursorStore::open(folder.path(), "kafka").unwrap().load("features").unwrap();
        assert!(cursor <= COMMITS * 5 + 1 && cursor % 5 == 1, "{cursor}");
        drop(log);
        let found = OutputLog::open(recording.path(), &settings).unwrap();
        assert_outputs(&found, COMMITS * 5);
        assert_eq!(found.load().unwrap().checkpoint, COMMITS);
        // A last save when all is well says where it stands.
        cursors.save(&[("features", 61)]).unwrap();
        drop(cursors);
        assert_eq!(CursorStore::open(recording.path(), "kafka").unwrap().load("features").unwrap(), 61);
        calls
    };
    let calls = run(None);
    for n in 0..calls {
        println!("call {n} of {calls}");
        run(Some((n, fault(n, 0))));
    }
}
