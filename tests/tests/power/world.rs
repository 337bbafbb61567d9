//! A gateway's storage at work in one thread: journal with the session's state, pipeline with its outputs, and a
//! destination's cursors. The same seed does the same; a reference of all records and outputs is kept beside it.

use bytes::Bytes;
use parking_lot::Mutex;
use spindle_agent::clock::Now;
use spindle_agent::config::{self, Config, Synchronous};
use spindle_agent::forward::cursor::CursorStore;
use spindle_agent::journal::{Journal, JournalReader, Key, Read, State};
use spindle_agent::outputs::{self, OutputLog};
use spindle_agent::pipeline::{Pipeline, Runner};
use spindle_agent::record::{Output, Record, RecordKind};
use spindle_agent::session::{Session, Work};
use spindle_agent::source::{Incoming, SourceId};
use spindle_tests::disk::Dice;
use spindle_tests::node::Script;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// 1 January 2027, UTC.
const START_NS: i64 = 1_798_761_600_000_000_000;
/// Samples of a JSON message.
const JSON_SAMPLES: u64 = 4;

/// The configuration of a gateway with a journal of four segments.
pub(crate) fn config(dir: &Path) -> Config {
    let text = format!(
        "[gateway]\nname = \"g\"\ndata_dir = {dir:?}\n\n[journal]\nsize_max = \"4 MiB\"\nsegment_size = \"1 MiB\"\n\
         commit_bytes_max = \"512 KiB\"\ntail_size = \"64 KiB\"\n\n\
         [source.listener]\nbind = \"127.0.0.1:0\"\n\n[[source.json]]\nname = \"j\"\ntopic = \"j/{{machine}}/{{sensor}}\"\nsite = \"hall\"\nrate_hz = 100.0\nunit = \"g\"\n\
         channels = [{{ axis = \"x\", field = \"x\" }}]\n"
    );
    config::parse(&text, "gateway.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// Records and what follows from them, when nothing fails.
#[derive(Default)]
pub(crate) struct Reference {
    /// By offset, from 1.
    pub(crate) records: Vec<Record>,
    /// Offsets at which a commit may end.
    pub(crate) ends: BTreeSet<u64>,
}

/// The storage, open.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) journal: Journal,
    session: Session,
    cursors: CursorStore,
    script: Script,
    blocks: u32,
    /// Whether the board's birth came since the start: a gateway asks for it.
    announced: bool,
    messages: u64,
    now: Now,
    dice: Dice,
    pub(crate) reference: Reference,
    /// Cursors that were saved: of the journal's lane, of the outputs'.
    pub(crate) saved: Vec<(u64, u64)>,
}

fn session(config: &Config, state: State) -> Session {
    Session::new(&config.session, &config.source.json, vec!["disk".into()], state, Arc::default())
}

impl World {
    pub(crate) fn open(dir: &Path, seed: u64) -> Self {
        Self::open_with(dir, seed, Synchronous::Full)
    }

    pub(crate) fn open_with(dir: &Path, seed: u64, synchronous: Synchronous) -> Self {
        let mut config = config(dir);
        config.journal.synchronous = synchronous;
        let (journal, state) = Journal::open(&dir.join("journal"), &config.journal).unwrap();
        Self {
            session: session(&config, state),
            cursors: CursorStore::open(dir, "kafka").unwrap(),
            config,
            journal,
            script: Script::new("n1", u32::MAX),
            blocks: 0,
            announced: false,
            messages: 0,
            now: Now { utc_ns: START_NS, mono_ns: 0 },
            dice: Dice::new(seed),
            reference: Reference { records: Vec::new(), ends: [1].into() },
            saved: vec![(1, 1)],
        }
    }

    /// Ends as a killed process does, but for the lock, and starts again.
    pub(crate) fn reopen(self) -> Self {
        let Self { config, journal, script, blocks, messages, now, dice, reference, saved, .. } = self;
        let announced = false;
        drop(journal);
        let dir = &config.gateway.data_dir;
        let (journal, state) = Journal::open(&dir.join("journal"), &config.journal).unwrap();
        let (session, cursors) = (session(&config, state), CursorStore::open(dir, "kafka").unwrap());
        Self {
            config,
            journal,
            session,
            cursors,
            script,
            blocks,
            announced,
            messages,
            now,
            dice,
            reference,
            saved,
        }
    }

    /// What comes next: blocks of a board and a few messages of another maker's sensor.
    pub(crate) fn take(&mut self, blocks: u32) -> Work {
        let mut work = Work::default();
        if !self.announced {
            self.announced = true;
            let birth = self.script.birth().unwrap();
            self.session.take(wire(birth), self.now, &mut work);
        }
        for _ in 0..blocks {
            let block = self.script.block(self.blocks).unwrap();
            self.blocks += 1;
            self.now.utc_ns += 125_000_000;
            self.now.mono_ns += 125_000_000;
            self.session.take(wire(block), self.now, &mut work);
            if self.dice.below(8) == 0 {
                self.messages += 1;
                let payload = format!("{{\"x\": [{}, 1, 2, 3]}}", self.messages);
                let topic = Some(Bytes::from_static(b"j/mill/other"));
                self.session.take(incoming(topic, payload.into()), self.now, &mut work);
            }
        }
        work
    }

    /// Commits; what was committed becomes part of the reference. `failed` is told each time it fails, and it is tried again.
    pub(crate) fn commit(&mut self, work: Work, mut failed: impl FnMut(u32)) {
        let mut records = work.records;
        for tries in 1.. {
            match self.journal.append(records, &mut self.session) {
                Ok(batch) => {
                    self.reference.records.extend(batch.records.iter().cloned());
                    self.reference.ends.insert(self.journal.next_offset());
                    return;
                }
                Err(error) => {
                    records = error.records;
                    failed(tries);
                }
            }
        }
    }

    /// Random number of blocks for a step.
    pub(crate) fn some(&mut self, max: u64) -> u32 {
        1 + self.dice.below(max) as u32
    }

    /// The pipeline from its checkpoint to the journal's end, as a process of its own would.
    pub(crate) fn run_pipeline(&self) -> OutputLog {
        run_pipeline(&self.config, &self.journal.reader())
    }

    /// A destination has delivered all.
    pub(crate) fn save_cursors(&mut self, outputs: u64) {
        let next = self.journal.next_offset();
        self.saved.push((next, outputs));
        self.cursors.save(&[("raw", next), ("features", outputs)]).unwrap();
    }
}

pub(crate) fn run_pipeline(config: &Config, reader: &JournalReader) -> OutputLog {
    let dir = &config.gateway.data_dir;
    let log = OutputLog::open(dir, &config.outputs).unwrap();
    let runner = Runner::new(config, reader.clone(), log).unwrap();
    let monitor = runner.monitor();
    let end = reader.next_offset().unwrap();
    runner.run(|| monitor.stats().next_offset >= end).unwrap();
    OutputLog::open(dir, &config.outputs).unwrap()
}

fn wire(payload: Bytes) -> Incoming {
    incoming(None, payload)
}

fn incoming(topic: Option<Bytes>, payload: Bytes) -> Incoming {
    Incoming { source: SourceId(0), topic, payload, redelivered: false, token: None }
}

/// What must be found after a cut.
pub(crate) struct Oracle {
    reference: Reference,
    /// Outputs of the whole history, and how many of them there are after each record.
    outputs: Vec<Output>,
    counts: Vec<usize>,
    checked: Mutex<u64>,
}

impl Oracle {
    pub(crate) fn new(config: &Config, reference: Reference) -> Self {
        let mut pipeline = Pipeline::new(config);
        let mut outputs = Vec::new();
        let mut counts = vec![0];
        for record in &reference.records {
            pipeline.push(record, &mut outputs);
            counts.push(outputs.len());
        }
        Self { reference, outputs, counts, checked: Mutex::new(0) }
    }

    fn samples(&self, until: u64) -> BTreeMap<Key, u64> {
        let mut samples = BTreeMap::new();
        for record in &self.reference.records[..until as usize - 1] {
            let count = match record.kind {
                RecordKind::Block => 512,
                RecordKind::Json => JSON_SAMPLES,
                _ => continue,
            };
            *samples.entry(Key(record.key.clone())).or_default() += count;
        }
        samples
    }

    /// Opens what is in `dir` and looks at all of it. `acknowledged` is the offset after the last record whose commit had
    /// returned, `begun` the one after the last whose commit had begun. Outputs before id `published` were shown to readers.
    pub(crate) fn check(
        &self,
        dir: &Path,
        acknowledged: u64,
        begun: u64,
        published: u64,
        saved: &[(u64, u64)],
    ) {
        let config = config(dir);
        let (mut journal, state) = self.check_journal(dir, acknowledged, begun);
        let (reader, next) = (journal.reader(), journal.next_offset());
        let log = OutputLog::open(dir, &config.outputs).unwrap();
        let checkpoint = log.load().unwrap().checkpoint;
        assert!(checkpoint <= next, "checkpoint {checkpoint} is beyond the journal's end {next}");
        assert!(log.stats().next_id >= published, "outputs that were shown are gone");
        let cursors = CursorStore::open(dir, "kafka").unwrap();
        let (raw, features) = (cursors.load("raw").unwrap(), cursors.load("features").unwrap());
        assert!(raw <= next && features <= log.stats().next_id, "a cursor is beyond its log");
        assert!(saved.contains(&(raw, features)), "cursors {raw}, {features} were never saved together");
        drop(log);
        self.check_outputs(run_pipeline(&config, &reader), next);
        self.go_on(&config, &mut journal, state);
        *self.checked.lock() += 1;
    }

    /// The journal's and the state's part of it.
    pub(crate) fn check_journal(&self, dir: &Path, acknowledged: u64, begun: u64) -> (Journal, State) {
        let (journal, state) = Journal::open(&dir.join("journal"), &config(dir).journal).unwrap();
        let next = journal.next_offset();
        assert!(next >= acknowledged, "{next} is next, but {} was acknowledged", acknowledged - 1);
        assert!(next <= begun, "{next} is next, but {begun} was not begun");
        assert!(self.reference.ends.contains(&next), "{next} is in the midst of a commit");
        assert_eq!(journal.totals().segments_damaged, 0, "it looks like damage");
        let reader = journal.reader();
        let oldest = reader.oldest_offset().unwrap();
        self.check_records(&reader, oldest, next);
        self.check_state(&state, oldest, next);
        (journal, state)
    }

    /// Each record from the oldest on, bit for bit, in order, once.
    fn check_records(&self, reader: &JournalReader, oldest: u64, next: u64) {
        let mut at = oldest;
        while at < next {
            match reader.read(at, 1 << 20, Duration::ZERO).unwrap() {
                Read::Batch(view) => {
                    for record in &view {
                        let expected = &self.reference.records[at as usize - 1];
                        assert_eq!(format!("{record:?}"), format!("{expected:?}"));
                        at += 1;
                    }
                }
                other => panic!("at {at} of {next}: {other:?}"),
            }
        }
        assert!(matches!(reader.read(next, 1, Duration::ZERO), Ok(Read::Idle)), "nothing beyond the end");
    }

    /// The books and the nodes' places are those of the records.
    fn check_state(&self, state: &State, oldest: u64, next: u64) {
        let (accepted, evicted) = (self.samples(next), self.samples(oldest));
        for (key, book) in &state.books {
            let of = |samples: &BTreeMap<Key, u64>| samples.get(key).copied().unwrap_or(0);
            assert_eq!((book.accepted, book.evicted), (of(&accepted), of(&evicted)), "books of {}", key.0);
            assert_eq!(book.taken.max(book.accepted), book.accepted + book.lost, "books of {}", key.0);
        }
        let records = &self.reference.records[..next as usize - 1];
        let blocks = records.iter().filter(|record| record.kind == RecordKind::Block).count();
        let wanted = state.nodes.first().and_then(|node| node.boots.last()).map_or(0, |boot| boot.next);
        assert_eq!(wanted as usize, blocks, "the board would be asked for the wrong block");
        let json = state.json.first().map_or(0, |json| json.next_sample);
        let messages = records.iter().filter(|record| record.kind == RecordKind::Json).count();
        assert_eq!(json, messages as u64 * JSON_SAMPLES, "a JSON sensor's numbering");
    }

    /// After the pipeline has caught up: exactly the outputs that the records make.
    fn check_outputs(&self, log: OutputLog, next: u64) {
        let count = self.counts[next as usize - 1];
        assert_eq!(log.stats().next_id, count as u64 + 1, "outputs are missing, or come twice");
        let mut reader = log.reader();
        let mut at = 1;
        while at <= count as u64 {
            let outputs::Read::Batch(batch) = reader.read(at, 1 << 20, Duration::ZERO).unwrap() else {
                panic!("output {at} of {count} is missing");
            };
            for output in batch {
                let expected = &self.outputs[at as usize - 1];
                assert_eq!((&output.ce_id, &output.json), (&expected.ce_id, &expected.json));
                at += 1;
            }
        }
    }

    /// The next block is taken and durable.
    fn go_on(&self, config: &Config, journal: &mut Journal, state: State) {
        let blocks = state.nodes.first().and_then(|node| node.boots.last()).map_or(0, |boot| boot.next);
        let mut session = session(config, state);
        let mut work = Work::default();
        let script = Script::new("n1", u32::MAX);
        let now = Now { utc_ns: START_NS + i64::from(blocks) * 125_000_000, mono_ns: 1 };
        session.take(wire(script.birth().unwrap()), now, &mut work);
        session.take(wire(script.block(blocks).unwrap()), now, &mut work);
        let taken: Vec<RecordKind> = work.records.iter().map(|record| record.kind).collect();
        assert_eq!(taken.last(), Some(&RecordKind::Block), "{taken:?}");
        journal.append(work.records, &mut session).unwrap();
    }

    pub(crate) fn checked(&self) -> u64 {
        *self.checked.lock()
    }
}
