//! Damage, repeated names, purges: what the journal does when its files are not as it left them.

use super::tests::{Books, append, key, read_all, record, small};
use super::*;
use crate::journal::inspect::{self, Kept};
use crate::record::SensorKey;
use std::time::Duration;
use tempfile::TempDir;

/// Breaks `pages` pages from page `at` on, which is after those of the schema and the head.
fn break_pages(path: &Path, at: usize, pages: usize) {
    const PAGE: usize = 32 * 1024;
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at * PAGE..(at + pages) * PAGE].fill(0xEE);
    std::fs::write(path, bytes).unwrap();
}

fn filled(dir: &Path, records: u64, len: usize) -> Books {
    let (mut journal, _) = Journal::open(dir, &small()).unwrap();
    let mut books = Books::default();
    for n in 0..records {
        append(&mut journal, &mut books, vec![record(n, len)]);
    }
    journal.close();
    books
}

#[test]
fn after_broken_pages_in_the_midst_of_a_segment_readers_go_on_in_the_same_segment() {
    let dir = TempDir::new().unwrap();
    filled(dir.path(), 300, 10_000);
    let segments = files::list(dir.path()).unwrap();
    let end = segments[1].0;
    break_pages(&segments[0].1, 12, 2);
    let offsets: Vec<u64> =
        read_all(&JournalReader::open_read_only(dir.path()).unwrap(), 1).iter().map(|r| r.offset).collect();
    let lost = (1..end).filter(|offset| !offsets.contains(offset)).count();
    assert!((1..30).contains(&lost), "{lost} of {end} are lost");
    assert!(offsets.contains(&(end - 1)) && offsets.contains(&300), "what follows the damage is read");
    let found = inspect::segments(dir.path()).unwrap();
    let verified = inspect::verify(&found[0], found.get(1), |_| ()).unwrap();
    assert_eq!(verified.records + lost as u64, end - 1);
    assert!(!verified.damages.is_empty());
    assert_eq!(inspect::verify(&found[1], found.get(2), |_| ()).unwrap().damages, []);
}

#[test]
fn a_newest_segment_with_broken_pages_serves_what_is_left_and_the_state_is_that_of_its_sound_changes() {
    let dir = TempDir::new().unwrap();
    filled(dir.path(), 60, 10_000);
    let (_, path) = files::list(dir.path()).unwrap().pop().unwrap();
    break_pages(&path, 12, 1);
    let (mut journal, state) = Journal::open(dir.path(), &small()).unwrap();
    assert_eq!(journal.totals().segments_damaged, 1);
    let next = journal.next_offset();
    assert!(next > 60);
    let mut books = Books::restore(state);
    assert!(books.total().accepted > 0);
    append(&mut journal, &mut books, vec![record(7, 10)]);
    let offsets: Vec<u64> = read_all(&journal.reader(), 1).iter().map(|record| record.offset).collect();
    assert!(offsets.len() > 20 && offsets.last() == Some(&next), "{offsets:?}");
    assert!(path.exists(), "it stays for its readers");
    drop(journal);
    let (journal, _) = Journal::open(dir.path(), &small()).unwrap();
    assert_eq!((journal.next_offset(), journal.totals().segments_damaged), (next + 1, 0));
}

#[test]
fn a_flipped_bit_in_the_newest_state_is_found_when_opening_and_json_numbers_never_come_twice() {
    struct Json(u64);
    impl Stateful for Json {
        fn changes(&self) -> State {
            let json = JsonState { key: Key(key(1)), next_sample: self.0, recent: Vec::new() };
            State { json: vec![json], ..State::default() }
        }
        fn committed(&mut self) {}
        fn snapshot(&self) -> State {
            self.changes()
        }
        fn evicted(&mut self, _: &Arc<SensorKey>, _: u64) {}
    }
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let mut json = Json(0);
    for n in 0..10 {
        json.0 += 100;
        journal.append(vec![record(n, 50)], &mut json).unwrap();
    }
    journal.close();
    let (_, path) = files::list(dir.path()).unwrap().pop().unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("UPDATE chunk SET state = X'00010400' WHERE first = 10", []).unwrap();
    drop(db);
    let (journal, state) = Journal::open(dir.path(), &small()).unwrap();
    assert_eq!(journal.totals().segments_damaged, 1);
    assert!(state.json[0].next_sample >= 1000, "{:?}", state.json);
}

#[test]
fn files_set_aside_keep_a_bounded_space_and_the_journal_its_size() {
    let dir = TempDir::new().unwrap();
    for round in 0..6u64 {
        let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
        let mut books = Books::default();
        for n in 0..120 {
            append(&mut journal, &mut books, vec![record(n, 10_000)]);
        }
        assert!(journal.disk_len() <= small().size_max.as_u64(), "round {round}: {}", journal.disk_len());
        journal.close();
        let (_, path) = files::list(dir.path()).unwrap().pop().unwrap();
        std::fs::write(path, vec![0xA5; 300_000]).unwrap();
    }
    assert_eq!(inspect::set_aside(dir.path()).len(), sqlite::SET_ASIDE_MAX);
}

#[test]
fn with_its_write_ahead_logs_the_journal_stays_below_its_size() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let mut books = Books::default();
    let mut largest = 0;
    for n in 0..6000 {
        append(&mut journal, &mut books, vec![record(n, 3000)]);
        largest = largest.max(journal.disk_len());
    }
    assert!(journal.totals().segments_evicted > 0);
    assert!(largest <= small().size_max.as_u64(), "{largest}");
}

#[test]
fn a_purge_counts_what_it_drops_and_keeps_the_state() {
    let dir = TempDir::new().unwrap();
    let books = filled(dir.path(), 300, 10_000);
    let before = files::list(dir.path()).unwrap()[1].0;
    let (mut journal, state) = Journal::open(dir.path(), &small()).unwrap();
    let mut kept = Kept::new(state);
    assert_eq!(journal.purge(before, &mut kept).unwrap(), 1);
    let evicted: u64 = kept.books().iter().map(|(_, book)| book.evicted).sum();
    assert_eq!(evicted, before - 1);
    assert!(journal.purge(u64::MAX, &mut kept).unwrap() > 0);
    journal.close();
    let (mut journal, state) = Journal::open(dir.path(), &small()).unwrap();
    let mut after = Books::restore(state);
    assert_eq!((after.total().accepted, after.total().evicted), (books.total().accepted, 300));
    assert!(matches!(journal.reader().read(1, 1, Duration::ZERO), Ok(Read::Evicted { .. } | Read::Idle)));
    append(&mut journal, &mut after, vec![record(1, 10)]);
    assert_eq!(journal.next_offset(), 302);
}

#[test]
fn a_failed_commit_behind_a_segment_without_records_never_removes_the_only_state() {
    let dir = TempDir::new().unwrap();
    filled(dir.path(), 30, 1000);
    let (mut journal, state) = Journal::open(dir.path(), &small()).unwrap();
    let mut kept = Kept::new(state);
    journal.purge(u64::MAX, &mut kept).unwrap();
    let (_, path) = files::list(dir.path()).unwrap().pop().unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let failed = journal.append(vec![record(1, 10)], &mut kept).unwrap_err();
    drop(other);
    // The next one has another name, and the state is there whenever the power goes.
    journal.append(failed.records, &mut kept).unwrap();
    assert_eq!(files::list(dir.path()).unwrap().iter().filter(|(first, _)| *first == 31).count(), 2);
    drop(journal);
    let (journal, state) = Journal::open(dir.path(), &small()).unwrap();
    assert_eq!(Books::restore(state).total().accepted, 30);
    assert_eq!(read_all(&journal.reader(), 31).len(), 1);
}

#[test]
fn a_segment_that_version_1_wrote_is_read_and_written_on() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(files::file_name(1, 0));
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(include_str!("golden-v1.sql")).unwrap();
    drop(db);
    let (mut journal, state) = Journal::open(dir.path(), &small()).unwrap();
    let mut books = Books::restore(state);
    assert_eq!((journal.next_offset(), books.total().accepted), (4, 3));
    append(&mut journal, &mut books, vec![record(3, 5)]);
    let found = read_all(&journal.reader(), 1);
    for (n, found) in (0..).zip(&found) {
        assert_eq!(format!("{:?}", Record { offset: n + 1, ..record(n, 5) }), format!("{found:?}"));
    }
    assert_eq!(found.len(), 4);
}

#[test]
fn this_build_writes_the_rows_of_version_1() {
    let dir = TempDir::new().unwrap();
    filled(dir.path(), 3, 5);
    let (_, path) = files::list(dir.path()).unwrap().pop().unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    let mut lines = vec![segment::SCHEMA.trim().to_owned(), "PRAGMA user_version = 1;".to_owned()];
    for (table, columns) in [
        ("sensor", "id || ', ' || quote(site) || ', ' || quote(machine) || ', ' || quote(sensor)"),
        ("chunk", "first || ', ' || count || ', ' || crc || ', ' || quote(state) || ', ' || quote(body)"),
        ("state", "id || ', ' || next || ', ' || crc || ', ' || quote(body)"),
        ("head", "first || ', ' || oldest || ', ' || crc || ', ' || quote(accepted)"),
    ] {
        let sql = format!("SELECT {columns} FROM {table} ORDER BY 1");
        let mut statement = db.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        lines.extend(rows.map(|row| format!("INSERT INTO {table} VALUES ({});", row.unwrap())));
    }
    assert_eq!(lines.join("\n").trim(), include_str!("golden-v1.sql").trim());
}
