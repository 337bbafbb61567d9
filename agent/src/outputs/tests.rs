use super::*;
use crate::config;
use crate::record::{Output, OutputKind, SensorKey};
use bytesize::ByteSize;
use std::sync::Arc;
use std::time::Duration;

fn key() -> Arc<SensorKey> {
    Arc::new(SensorKey { site: "s".into(), machine: "m".into(), sensor: "a".into() })
}

fn output(number: u64, kind: OutputKind) -> Output {
    let json = format!("{{\"number\":{number},\"filler\":\"{}\"}}", "x".repeat(100));
    Output {
        id: 0,
        kind,
        key: key(),
        time_ns: number as i64,
        ce_id: number.to_string().into(),
        json: json.into(),
    }
}

fn commit_of(numbers: std::ops::Range<u64>, kind: OutputKind) -> Commit {
    Commit { outputs: numbers.map(|number| output(number, kind)).collect(), ..Commit::default() }
}

fn settings(size_max: u64, tail_size: u64) -> config::Outputs {
    config::Outputs { size_max: ByteSize::b(size_max), tail_size: ByteSize::b(tail_size) }
}

fn ids(read: Read) -> Vec<u64> {
    match read {
        Read::Batch(outputs) => outputs.iter().map(|o| o.id).collect(),
        other => panic!("{other:?}"),
    }
}

const MEBI: u64 = 1 << 20;

#[test]
fn what_was_committed_comes_back_from_memory_and_from_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    for tail_size in [MEBI, 0, 700] {
        let path = dir.path().join(tail_size.to_string());
        std::fs::create_dir(&path).expect("a folder");
        let mut log = OutputLog::open(&path, &settings(MEBI, tail_size)).expect("opens");
        let mut reader = log.reader();
        assert!(matches!(reader.read(1, 1000, Duration::ZERO), Ok(Read::Idle)));
        log.commit(&mut commit_of(0..10, OutputKind::Features)).expect("commits");
        log.commit(&mut commit_of(10..12, OutputKind::Alert)).expect("commits");
        let Read::Batch(outputs) = reader.read(1, usize::MAX, Duration::ZERO).expect("reads") else {
            panic!()
        };
        assert!(!outputs.is_empty());
        let mut all = outputs;
        while all.len() < 12 {
            let next = all.len() as u64 + 1;
            let Read::Batch(more) = reader.read(next, usize::MAX, Duration::ZERO).expect("reads") else {
                panic!()
            };
            all.extend(more);
        }
        for (number, found) in all.iter().enumerate() {
            let kind = if number < 10 { OutputKind::Features } else { OutputKind::Alert };
            let expected = output(number as u64, kind);
            assert_eq!(found.id, number as u64 + 1);
            assert_eq!(
                (&found.ce_id, &found.json, found.kind, &found.key),
                (&expected.ce_id, &expected.json, kind, &key())
            );
        }
        assert!(matches!(reader.read(13, 1000, Duration::ZERO), Ok(Read::Idle)));
        drop(log);
        assert!(matches!(reader.read(13, 1000, Duration::ZERO), Ok(Read::Closed)));
        assert_eq!(
            ids(OutputReader::open_read_only(&path).read(12, 1000, Duration::ZERO).expect("reads")),
            [12]
        );
    }
}

#[test]
fn a_batch_is_as_long_as_asked_and_never_empty() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = OutputLog::open(dir.path(), &settings(MEBI, MEBI)).expect("opens");
    log.commit(&mut commit_of(0..10, OutputKind::Features)).expect("commits");
    let mut live = log.reader();
    let mut file = OutputReader::open_read_only(dir.path());
    for reader in [&mut live, &mut file] {
        assert_eq!(ids(reader.read(3, 1, Duration::ZERO).expect("reads")), [3]);
        assert_eq!(ids(reader.read(3, 300, Duration::ZERO).expect("reads")), [3, 4]);
    }
}

#[test]
fn ids_counters_and_states_go_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let row = |slot: u32, byte| BaselineRow { slot, row: vec![byte; 4] };
    let save = |applied, baseline, baseline_len| SensorSave {
        key: key(),
        applied,
        state: vec![9; 3],
        baseline,
        baseline_len,
    };
    {
        let mut log = OutputLog::open(dir.path(), &settings(MEBI, MEBI)).expect("opens");
        assert_eq!(log.load().expect("loads").checkpoint, 0);
        let mut commit = commit_of(0..3, OutputKind::Rollup);
        commit.sensors = vec![save(41, vec![row(0, 1), row(1, 2), row(2, 3)], 3)];
        commit.checkpoint = 40;
        log.commit(&mut commit).expect("commits");
        let sensors = vec![save(52, vec![row(1, 7)], 2)];
        log.commit(&mut Commit { sensors, checkpoint: 53, ..Commit::default() }).expect("commits");
    }
    let mut log = OutputLog::open(dir.path(), &settings(MEBI, MEBI)).expect("opens again");
    let loaded = log.load().expect("loads");
    assert_eq!(loaded.checkpoint, 53);
    assert_eq!(loaded.sensors, [save(52, vec![row(0, 1), row(1, 7)], 2)]);
    assert_eq!(log.stats().next_id, 4);
    log.commit(&mut commit_of(3..4, OutputKind::Features)).expect("commits");
    let mut reader = log.reader();
    assert_eq!(
        ids(reader.read(1, usize::MAX, Duration::ZERO).expect("old ones from the file")),
        [1, 2, 3, 4]
    );
}

#[test]
fn features_are_evicted_before_alerts_and_both_are_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = OutputLog::open(dir.path(), &settings(20_000, 0)).expect("opens");
    log.commit(&mut commit_of(0..10, OutputKind::Alert)).expect("commits");
    for batch in 1..40 {
        log.commit(&mut commit_of(batch * 10..batch * 10 + 10, OutputKind::Features)).expect("commits");
        assert!(log.stats().bytes <= 20_000, "after batch {batch}: {:?}", log.stats());
    }
    let stats = log.stats();
    assert!(stats.evicted_features > 300 && stats.evicted_alerts == 0, "{stats:?}");
    let mut reader = log.reader();
    assert_eq!(ids(reader.read(1, usize::MAX, Duration::ZERO).expect("reads")), (1..=10).collect::<Vec<_>>());
    let Ok(Read::Evicted { next }) = reader.read(11, usize::MAX, Duration::ZERO) else {
        panic!("a hole is said")
    };
    assert_eq!(next, 11 + stats.evicted_features);
    assert_eq!(ids(reader.read(next, usize::MAX, Duration::ZERO).expect("reads")).last(), Some(&400));
    for batch in 40..80 {
        log.commit(&mut commit_of(batch * 10..batch * 10 + 10, OutputKind::Alert)).expect("commits");
    }
    assert!(log.stats().evicted_alerts > 0 && log.stats().bytes <= 20_000);
}

#[test]
fn an_alert_is_one_row_from_raised_to_cleared() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = OutputLog::open(dir.path(), &settings(MEBI, MEBI)).expect("opens");
    let row = |active, cleared_ns| AlertRow {
        id: "s/m/a/x/high/1".into(),
        key: key(),
        axis: "x".into(),
        rule: "high".into(),
        severity: 500,
        active,
        raised_ns: 5,
        cleared_ns,
        json: "{}".into(),
    };
    log.commit(&mut Commit { alerts: vec![row(true, None)], ..Commit::default() }).expect("commits");
    log.commit(&mut Commit { alerts: vec![row(false, Some(9))], ..Commit::default() }).expect("commits");
    let db = rusqlite::Connection::open(dir.path().join(FILE_NAME)).expect("opens");
    let found: (i64, bool, i64) = db
        .query_row("SELECT count(*), max(active), max(cleared_ns) FROM alerts", [], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?))
        })
        .expect("reads");
    assert_eq!(found, (1, false, 9));
}

#[test]
fn a_waiting_reader_wakes_at_the_commit() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = OutputLog::open(dir.path(), &settings(MEBI, MEBI)).expect("opens");
    let mut reader = log.reader();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || reader.read(1, 1000, Duration::from_secs(60)));
        log.commit(&mut commit_of(0..1, OutputKind::Features)).expect("commits");
        assert_eq!(ids(waiting.join().expect("no panic").expect("reads")), [1]);
    });
}

#[test]
fn another_schema_version_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(OutputLog::open(dir.path(), &settings(MEBI, MEBI)).expect("opens"));
    let db = rusqlite::Connection::open(dir.path().join(FILE_NAME)).expect("opens");
    db.pragma_update(None, "user_version", 99).expect("writes");
    let error = OutputLog::open(dir.path(), &settings(MEBI, MEBI)).expect_err("refused").to_string();
    assert!(error.contains("schema version 99"), "{error}");
}

#[test]
fn a_row_of_each_kind_keeps_its_columns() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = OutputLog::open(dir.path(), &settings(MEBI, MEBI)).expect("opens");
    let kinds = [OutputKind::Features, OutputKind::Rollup, OutputKind::Alert];
    let outputs = kinds.into_iter().zip(7..).map(|(kind, number)| output(number, kind)).collect();
    log.commit(&mut Commit { outputs, checkpoint: 5, ..Commit::default() }).expect("commits");
    let db = rusqlite::Connection::open(dir.path().join(FILE_NAME)).expect("opens");
    let sql = "SELECT concat_ws('|', id, kind, site, machine, sensor, time_ns, ce_id, typeof(json)) FROM outputs ORDER BY id";
    let mut statement = db.prepare(sql).expect("the columns are there");
    let rows = statement.query_map([], |row| row.get(0)).expect("reads");
    let rows: Vec<String> = rows.collect::<Result<_, _>>().expect("reads");
    assert_eq!(rows, ["1|1|s|m|a|7|7|blob", "2|2|s|m|a|8|8|blob", "3|3|s|m|a|9|9|blob"]);
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).expect("reads");
    assert_eq!(version, 2);
}
