use super::*;
use crate::record::{RecordKind, SensorKey};
use bytes::Bytes;
use bytesize::ByteSize;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;

const NOW: Duration = Duration::ZERO;

/// Counts one sample a record.
#[derive(Default)]
pub(super) struct Books {
    books: BTreeMap<Key, Book>,
    changed: Vec<Key>,
}

impl Books {
    pub(super) fn restore(state: State) -> Self {
        Self { books: state.books.into_iter().collect(), changed: Vec::new() }
    }

    fn accept(&mut self, records: &[Record]) {
        for record in records {
            let key = Key(record.key.clone());
            self.books.entry(key.clone()).or_default().accepted += 1;
            self.changed.push(key);
        }
    }

    pub(super) fn total(&self) -> Book {
        self.books.values().fold(Book::default(), |sum, book| Book {
            accepted: sum.accepted + book.accepted,
            evicted: sum.evicted + book.evicted,
            ..sum
        })
    }
}

impl Stateful for Books {
    fn changes(&self) -> State {
        let books = self.changed.iter().map(|key| (key.clone(), self.books[key])).collect();
        State { books, ..State::default() }
    }
    fn committed(&mut self) {
        self.changed.clear();
    }
    fn snapshot(&self) -> State {
        State { books: self.books.clone().into_iter().collect(), ..State::default() }
    }
    fn evicted(&mut self, key: &Arc<SensorKey>, samples: u64) {
        self.books.entry(Key(key.clone())).or_default().evicted += samples;
        self.changed.push(Key(key.clone()));
    }
}

pub(super) fn key(n: u64) -> Arc<SensorKey> {
    Arc::new(SensorKey { site: "hall".into(), machine: "mill".into(), sensor: format!("s{n}").into() })
}

pub(super) fn record(n: u64, len: usize) -> Record {
    Record {
        offset: 0,
        kind: RecordKind::Block,
        key: key(n % 3),
        time_ns: -5 + n.cast_signed(),
        flags: 2,
        first_sample: n,
        arrival_ns: 77,
        body: Bytes::from(vec![n as u8; len]),
    }
}

pub(super) fn append(journal: &mut Journal, books: &mut Books, records: Vec<Record>) {
    books.accept(&records);
    journal.append(records, books).unwrap();
}

pub(super) fn small() -> config::Journal {
    config::Journal {
        size_max: ByteSize::mib(8),
        segment_size: ByteSize::mib(1),
        tail_size: ByteSize::kib(64),
        ..config::Journal::default()
    }
}

/// All records from `from` on; evicted ones are left out.
pub(super) fn read_all(reader: &JournalReader, from: u64) -> Vec<Record> {
    let mut at = from;
    let mut records = Vec::new();
    loop {
        match reader.read(at, 100_000, NOW).unwrap() {
            Read::Batch(view) => {
                assert_eq!(view.records()[0].offset, at);
                records.extend(view.iter().cloned());
                at = view.next();
            }
            Read::Evicted { next } => {
                assert!(next > at);
                at = next;
            }
            Read::Idle | Read::Closed => return records,
        }
    }
}

#[test]
fn what_was_appended_is_read_in_order_from_memory_disk_and_another_process() {
    let dir = TempDir::new().unwrap();
    let (mut journal, state) = Journal::open(dir.path(), &small()).unwrap();
    assert!(state.is_empty());
    let mut books = Books::default();
    for n in 0..200 {
        append(&mut journal, &mut books, (0..n % 5 + 1).map(|k| record(n * 10 + k, 3000)).collect());
    }
    for reader in [journal.reader(), JournalReader::open_read_only(dir.path()).unwrap()] {
        let records = read_all(&reader, 1);
        assert_eq!(records.len(), 600);
        assert_eq!(reader.next_offset().unwrap(), 601);
        for (offset, record) in (1..).zip(&records) {
            assert_eq!(record.offset, offset);
            assert_eq!(record.body, vec![record.first_sample as u8; 3000]);
            assert_eq!(record.key, key(record.first_sample % 3));
            assert_eq!(
                (record.time_ns, record.flags, record.arrival_ns),
                (-5 + record.first_sample.cast_signed(), 2, 77)
            );
        }
        assert!(matches!(reader.read(601, 1, NOW).unwrap(), Read::Idle));
    }
    let reader = journal.reader();
    journal.close();
    assert!(matches!(reader.read(601, 1, NOW).unwrap(), Read::Closed));
    assert_eq!(read_all(&reader, 590).len(), 11);
}

#[test]
fn a_journal_dropped_without_closing_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    let mut books = Books::default();
    for round in 0..20u64 {
        let (mut journal, state) = Journal::open(dir.path(), &small()).unwrap();
        assert_eq!(Books::restore(state).books, books.books);
        assert_eq!(journal.next_offset(), round * 4 + 1);
        for n in 0..4 {
            append(&mut journal, &mut books, vec![record(n, 20_000)]);
        }
    }
    let reader = JournalReader::open_read_only(dir.path()).unwrap();
    assert_eq!(read_all(&reader, 1).len(), 80);
    assert_eq!(Books::restore(super::state(dir.path()).unwrap()).books, books.books);
}

#[test]
fn a_full_journal_evicts_whole_segments_and_counts_every_sample() {
    let dir = TempDir::new().unwrap();
    let config = small();
    let (mut journal, _) = Journal::open(dir.path(), &config).unwrap();
    let mut books = Books::default();
    for n in 0..2000 {
        append(&mut journal, &mut books, vec![record(n, 10_000)]);
    }
    assert!(journal.totals().segments_evicted > 5);
    assert!(journal.disk_len() <= config.size_max.as_u64(), "{}", journal.disk_len());
    let records = read_all(&journal.reader(), 1);
    assert_eq!(books.total().accepted, 2000);
    assert_eq!(books.total().evicted + records.len() as u64, 2000);
    assert!(
        matches!(journal.reader().read(1, 1, NOW).unwrap(), Read::Evicted { next } if next == records[0].offset)
    );
    drop(journal);
    let (_journal, state) = Journal::open(dir.path(), &config).unwrap();
    assert_eq!(Books::restore(state).books, books.books);
}

#[test]
fn a_second_opener_is_refused_in_words() {
    let dir = TempDir::new().unwrap();
    let _journal = Journal::open(dir.path(), &small()).unwrap();
    let error = Journal::open(dir.path(), &small()).unwrap_err();
    assert!(error.to_string().ends_with("is open in another process"), "{error}");
}

#[test]
fn files_are_for_their_user_only() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("journal");
    let (mut journal, _) = Journal::open(&folder, &small()).unwrap();
    append(&mut journal, &mut Books::default(), vec![record(1, 10)]);
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[test]
fn a_newer_schema_is_refused_in_words() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    append(&mut journal, &mut Books::default(), vec![record(1, 10)]);
    journal.close();
    let (_, path) = files::list(dir.path()).unwrap().remove(0);
    rusqlite::Connection::open(path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let error = Journal::open(dir.path(), &small()).unwrap_err();
    assert!(
        error.to_string().contains("has schema version 2, but this build reads up to version 1"),
        "{error}"
    );
}

#[test]
fn a_destroyed_newest_segment_is_set_aside_and_offsets_never_come_twice() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let mut books = Books::default();
    for n in 0..300 {
        append(&mut journal, &mut books, vec![record(n, 10_000)]);
    }
    journal.close();
    let segments = files::list(dir.path()).unwrap();
    assert!(segments.len() >= 2);
    let (first, path) = segments.last().unwrap();
    std::fs::write(path, vec![0xA5; 300_000]).unwrap();
    let (mut journal, state) = Journal::open(dir.path(), &small()).unwrap();
    assert_eq!(journal.totals().segments_damaged, 1);
    assert_eq!(Books::restore(state).total().accepted, first - 1);
    assert!(journal.next_offset() > 301);
    let next = journal.next_offset();
    append(&mut journal, &mut books, vec![record(7, 10)]);
    let offsets: Vec<u64> = read_all(&journal.reader(), 1).iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (1..*first).chain([next]).collect::<Vec<_>>());
    assert!(
        std::fs::read_dir(dir.path()).unwrap().any(|e| e
            .unwrap()
            .path()
            .to_string_lossy()
            .contains("damaged"))
    );
}

#[test]
fn a_flipped_bit_is_found_when_reading_and_only_its_chunk_is_skipped() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let mut books = Books::default();
    for n in 0..30 {
        append(&mut journal, &mut books, vec![record(n, 10_000), record(n, 10_000)]);
    }
    journal.close();
    let (_, path) = files::list(dir.path()).unwrap().remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.windows(5000).position(|w| w.iter().all(|b| *b == 9)).unwrap();
    bytes[middle + 100] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let (journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let offsets: Vec<u64> = read_all(&journal.reader(), 1).iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (1..=18).chain(21..=60).collect::<Vec<_>>());
    // Counted once, however many readers meet it.
    assert_eq!(read_all(&journal.reader(), 1).len(), 58);
    assert_eq!((journal.totals().damages, journal.totals().records_damaged), (1, 2));
}

#[test]
fn a_destroyed_segment_in_the_middle_holds_up_no_reader_and_its_records_are_counted() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let mut books = Books::default();
    for n in 0..500 {
        append(&mut journal, &mut books, vec![record(n, 10_000)]);
    }
    journal.close();
    let segments = files::list(dir.path()).unwrap();
    assert!(segments.len() >= 4);
    let ((first, path), (next, _)) = (&segments[1], &segments[2]);
    std::fs::write(path, vec![0xA5; 300_000]).unwrap();
    let (journal, state) = Journal::open(dir.path(), &small()).unwrap();
    assert_eq!(Books::restore(state).total().accepted, 500);
    for reader in [journal.reader(), journal.reader(), JournalReader::open_read_only(dir.path()).unwrap()] {
        let offsets: Vec<u64> = read_all(&reader, 1).iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (1..*first).chain(*next..=500).collect::<Vec<_>>());
    }
    assert_eq!((journal.totals().damages, journal.totals().records_damaged), (1, next - first));
}

#[test]
fn samples_of_a_destroyed_segment_are_counted_when_it_is_evicted() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let mut books = Books::default();
    for n in 0..500 {
        append(&mut journal, &mut books, vec![record(n, 10_000)]);
    }
    for (_, path) in &files::list(dir.path()).unwrap()[1..3] {
        std::fs::write(path, vec![0xA5; 300_000]).unwrap();
    }
    for n in 500..2000 {
        append(&mut journal, &mut books, vec![record(n, 10_000)]);
    }
    let records = read_all(&journal.reader(), 1);
    assert!(records[0].offset > 500);
    assert_eq!(books.total().evicted + records.len() as u64, 2000);
}

#[test]
fn after_a_failed_commit_the_same_batch_goes_to_a_new_file_and_is_read_once() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let mut books = Books::default();
    append(&mut journal, &mut books, vec![record(1, 100)]);
    let (_, path) = files::list(dir.path()).unwrap().remove(0);
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let records = vec![record(2, 100)];
    books.accept(&records);
    let error = journal.append(records, &mut books).unwrap_err();
    assert!(error.to_string().contains("locked"), "{error}");
    journal.append(error.records, &mut books).unwrap();
    append(&mut journal, &mut books, vec![record(3, 100)]);
    assert_eq!(journal.totals().failures, 1);
    drop(journal);
    let (journal, state) = Journal::open(dir.path(), &small()).unwrap();
    assert_eq!(Books::restore(state).total().accepted, 3);
    let seen: Vec<u64> = read_all(&journal.reader(), 1).iter().map(|record| record.first_sample).collect();
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn a_folder_that_vanishes_fails_commits_and_one_that_comes_back_heals_them() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("journal");
    let config = config::Journal { segment_size: ByteSize::mib(1), ..small() };
    let (mut journal, _) = Journal::open(&folder, &config).unwrap();
    let mut books = Books::default();
    for n in 0..110 {
        append(&mut journal, &mut books, vec![record(n, 10_000)]);
    }
    std::fs::rename(&folder, dir.path().join("away")).unwrap();
    let mut records: Vec<_> = (0..150).map(|n| record(n, 10_000)).collect();
    books.accept(&records);
    let mut failures = 0;
    // The open file goes on taking commits; the next segment cannot be made.
    loop {
        match journal.append(records, &mut books) {
            Ok(_) => {
                records = vec![record(1, 10_000)];
                books.accept(&records);
            }
            Err(error) => {
                records = error.records;
                failures += 1;
                if failures == 3 {
                    break;
                }
            }
        }
    }
    std::fs::rename(dir.path().join("away"), &folder).unwrap();
    journal.append(records, &mut books).unwrap();
    assert_eq!(read_all(&journal.reader(), 1).len() as u64, books.total().accepted);
}

#[test]
fn a_reader_waits_for_the_next_commit() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let reader = journal.reader();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || reader.read(1, 1000, Duration::from_secs(30)).unwrap());
        append(&mut journal, &mut Books::default(), vec![record(1, 10)]);
        assert!(matches!(waiting.join().unwrap(), Read::Batch(view) if view.next() == 2));
    });
}

#[test]
fn changed_state_without_records_is_durable() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
    let mut books = Books::default();
    append(&mut journal, &mut books, vec![record(1, 10)]);
    books.evicted(&key(1), 5);
    journal.append(Vec::new(), &mut books).unwrap();
    drop(journal);
    let (journal, state) = Journal::open(dir.path(), &small()).unwrap();
    assert_eq!(Books::restore(state).books, books.books);
    assert_eq!(journal.next_offset(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_history_of_appends_and_reopens_reads_back_what_was_committed(
        steps in prop::collection::vec((0usize..4, 1usize..40, 1usize..60_000), 1..40),
    ) {
        let dir = TempDir::new().unwrap();
        let (mut journal, _) = Journal::open(dir.path(), &small()).unwrap();
        let mut books = Books::default();
        let mut written = 0u64;
        for (step, count, len) in steps {
            if step == 0 {
                drop(journal);
                let (reopened, state) = Journal::open(dir.path(), &small()).unwrap();
                prop_assert_eq!(&Books::restore(state).books, &books.books);
                journal = reopened;
            } else {
                append(&mut journal, &mut books, (0..count as u64).map(|k| record(written + k, len)).collect());
                written += count as u64;
            }
        }
        let records = read_all(&journal.reader(), 1);
        prop_assert_eq!(records.len() as u64 + books.total().evicted, written);
        for record in records {
            prop_assert_eq!(record.first_sample + 1, record.offset);
            prop_assert!(record.body.iter().all(|b| *b == record.first_sample as u8));
        }
    }
}
