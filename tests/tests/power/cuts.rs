//! Power cuts.

use crate::hooks::Recording;
use crate::world::{Oracle, World};
use spindle_agent::config::Synchronous;
use spindle_tests::disk::{self, Dice, Disk, Op};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// Seeds that are tried unless the environment says otherwise.
const CUTS: u64 = 300;

/// What was certain at a moment: after so many operations.
#[derive(Debug, Clone, Copy)]
struct Mark {
    op: usize,
    acknowledged: u64,
    begun: u64,
    published: u64,
    saved: usize,
}

/// A day of a gateway's storage: lone commits until SQLite copies its log into the file by itself, then commits of all
/// sizes with segments closed and evicted, the pipeline behind, cursors saved, and restarts.
fn history(recording: &Recording) -> (World, Vec<Mark>) {
    let mut marks = Vec::new();
    let mark = |world: &World, begun: u64, published: u64, marks: &mut Vec<Mark>| {
        let acknowledged = world.journal.next_offset();
        let saved = world.saved.len();
        marks.push(Mark { op: recording.len(), acknowledged, begun, published, saved });
    };
    let mut world = World::open(recording.path(), 1);
    let mut published = 1;
    mark(&world, 1, published, &mut marks);
    for step in 0..460 {
        let blocks = if step < 200 { 1 } else { world.some(20) };
        let work = world.take(blocks);
        let begun = world.journal.next_offset() + work.records.len() as u64;
        mark(&world, begun, published, &mut marks);
        world.commit(work, |_| panic!("a commit failed on a sound disk"));
        mark(&world, begun, published, &mut marks);
        if step % 12 == 11 {
            published = world.run_pipeline().stats().next_id;
            mark(&world, begun, published, &mut marks);
            let saved = world.saved.len();
            world.save_cursors(published);
            assert_eq!(world.saved.len(), saved + 1);
            mark(&world, begun, published, &mut marks);
        }
        if step % 90 == 89 {
            world = world.reopen();
            mark(&world, begun, published, &mut marks);
        }
    }
    (world, marks)
}

/// What the gateway does while an operation runs, by the file it touches.
fn moment(ops: &[Op], names: &BTreeMap<u64, String>, at: usize) -> &'static str {
    let name = |file: &u64| names.get(file).map_or("", String::as_str);
    let segment = |path: &str| path.starts_with("journal/");
    match &ops[at] {
        Op::Unlink { path } if segment(&path.display().to_string()) => "eviction",
        Op::Create { path, .. } if segment(&path.display().to_string()) => "rotation",
        Op::SyncDir { path } if path == Path::new("journal") => "first commit of a segment",
        Op::Write { file, .. } | Op::Sync { file } | Op::Truncate { file, .. } => match name(file) {
            name if segment(name) && name.ends_with("-wal") => "commit",
            name if segment(name) => "checkpoint",
            name if name.starts_with("outputs") => "outputs",
            _ => "cursors",
        },
        _ => "other",
    }
}

/// Where to cut: anywhere, or, every second seed, at or just after something rarer than a write.
fn cut_at(ops: &[Op], rare: &[usize], dice: &mut Dice) -> usize {
    if dice.coin() {
        return dice.below(ops.len() as u64 + 1) as usize;
    }
    let at = rare[dice.below(rare.len() as u64) as usize];
    (at + dice.below(3) as usize).min(ops.len())
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("SPINDLE_CUT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SPINDLE_CUTS").unwrap_or(CUTS)).collect(),
    }
}

#[test]
fn whenever_the_power_goes_what_was_acknowledged_is_there_once_and_the_books_balance() {
    let recording = Recording::start();
    let (world, marks) = history(&recording);
    let ops = recording.ops();
    let World { config, journal, reference, saved, .. } = world;
    assert!(journal.reader().oldest_offset().unwrap() > 1, "the history evicts");
    let oracle = Oracle::new(&config, reference);
    let names: BTreeMap<u64, String> = ops
        .iter()
        .filter_map(|op| match op {
            Op::Create { path, file } => Some((*file, path.display().to_string())),
            _ => None,
        })
        .collect();
    let rare: Vec<usize> =
        (0..ops.len()).filter(|at| !matches!(moment(&ops, &names, *at), "commit" | "outputs")).collect();
    let mut cuts: Vec<(usize, u64)> =
        seeds().into_iter().map(|seed| (cut_at(&ops, &rare, &mut Dice::new(seed)), seed)).collect();
    cuts.sort_unstable();
    let mut disk = Disk::default();
    let mut done = 0;
    let mut moments: BTreeMap<&str, u32> = BTreeMap::new();
    for (at, seed) in &cuts {
        ops[done..*at].iter().for_each(|op| disk.apply(op));
        done = *at;
        let known = marks[marks.partition_point(|mark| mark.op <= *at).saturating_sub(1)];
        let image = disk.cut(&mut Dice::new(seed ^ 0xD15C));
        let folder = TempDir::new().unwrap();
        disk::lay(&image, folder.path()).unwrap();
        let when = if *at == 0 { "opening" } else { moment(&ops, &names, at - 1) };
        *moments.entry(when).or_default() += 1;
        let saved = &saved[..(known.saved + 1).min(saved.len())];
        let check = std::panic::AssertUnwindSafe(|| {
            oracle.check(folder.path(), known.acknowledged, known.begun, known.published, saved);
        });
        if let Err(panic) = std::panic::catch_unwind(check) {
            println!("failed at SPINDLE_CUT_SEED={seed}, operation {at} of {}, during {when}", ops.len());
            std::panic::resume_unwind(panic);
        }
    }
    println!("{} cuts among {} operations: {moments:?}", oracle.checked(), ops.len());
    if cuts.len() >= CUTS as usize {
        for when in [
            "eviction",
            "rotation",
            "first commit of a segment",
            "commit",
            "checkpoint",
            "outputs",
            "cursors",
        ] {
            assert!(moments.contains_key(when), "no cut during {when}");
        }
    }
}

/// That the test above can fail: a journal that does not sync is caught by the same cuts.
#[test]
fn a_journal_that_does_not_sync_loses_what_it_acknowledged() {
    let recording = Recording::start();
    let mut world = World::open_with(recording.path(), 1, Synchronous::Off);
    for _ in 0..40 {
        let work = world.take(10);
        world.commit(work, |_| panic!("a commit failed on a sound disk"));
    }
    let World { config, journal, reference, .. } = world;
    let next = journal.next_offset();
    let oracle = Oracle::new(&config, reference);
    let mut disk = Disk::default();
    recording.ops().iter().for_each(|op| disk.apply(op));
    let caught = (0..20).filter(|seed| {
        let folder = TempDir::new().unwrap();
        disk::lay(&disk.cut(&mut Dice::new(*seed)), folder.path()).unwrap();
        let check = std::panic::AssertUnwindSafe(|| drop(oracle.check_journal(folder.path(), next, next)));
        std::panic::catch_unwind(check).is_err()
    });
    assert!(caught.count() > 10);
}
