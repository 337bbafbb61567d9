//! The runner on a real journal and a real outputs log.

use super::*;
use crate::journal::{Journal, JournalReader, State, Stateful};
use crate::outputs::{OutputLog, OutputReader, Read};
use std::path::Path;
use std::time::Duration;

/// No session: the journal's own books are not what is tested here.
struct NoState;

impl Stateful for NoState {
    fn changes(&self) -> State {
        State::default()
    }
    fn committed(&mut self) {}
    fn snapshot(&self) -> State {
        State::default()
    }
    fn evicted(&mut self, _: &Arc<SensorKey>, _: u64) {}
}

fn wave(t: f64) -> f64 {
    3.0 * (2.0 * std::f64::consts::PI * 130.0 * t).sin()
}

fn board() -> Board {
    Board { rate_nominal_hz: 2000.0, rate_hz: 2000.0, block_len: 100, ..Board::new() }
}

fn outputs_of(dir: &Path) -> Vec<(u64, String, String)> {
    let mut reader = OutputReader::open_read_only(dir);
    let mut all = Vec::new();
    while let Read::Batch(batch) =
        reader.read(all.len() as u64 + 1, usize::MAX, Duration::ZERO).expect("reads")
    {
        let texts = batch.into_iter().map(|o| {
            let json = String::from_utf8(o.json.to_vec()).expect("text");
            (o.id, o.ce_id.to_string(), json)
        });
        all.extend(texts);
    }
    all
}

fn work(config: &Config, dir: &Path, reader: JournalReader) -> RunnerStats {
    let log = OutputLog::open(dir, &config.outputs).expect("opens");
    Runner::new(config, reader, log).expect("starts").run(|| false).expect("ends well")
}

#[test]
fn what_is_put_out_does_not_depend_on_when_the_gateway_ran() {
    let config = config();
    let records = board().blocks(0..10_000, &[&wave, &wave]);
    // In one go.
    let whole = tempfile::tempdir().expect("a folder");
    let (mut journal, _) = Journal::open(&whole.path().join("journal"), &config.journal).expect("opens");
    for part in records.chunks(7) {
        journal.append(part.to_vec(), &mut NoState).expect("appends");
    }
    let reader = journal.reader();
    journal.close();
    let stats = work(&config, whole.path(), reader);
    assert_eq!((stats.pipeline.records, stats.pipeline.windows), (100, 5));
    // Stopped and started again after every few records.
    let parts = tempfile::tempdir().expect("a folder");
    for part in records.chunks(13) {
        let (mut journal, _) = Journal::open(&parts.path().join("journal"), &config.journal).expect("opens");
        journal.append(part.to_vec(), &mut NoState).expect("appends");
        let reader = journal.reader();
        journal.close();
        work(&config, parts.path(), reader);
    }
    let expected = outputs_of(whole.path());
    assert_eq!(expected.len(), 10);
    assert_eq!(outputs_of(parts.path()), expected);
    // Nothing is left to do.
    let (journal, _) = Journal::open(&parts.path().join("journal"), &config.journal).expect("opens");
    let reader = journal.reader();
    journal.close();
    assert_eq!(work(&config, parts.path(), reader).pipeline.records, 0);
}

#[test]
fn a_replaced_journal_is_read_from_its_start() {
    let config = config();
    let dir = tempfile::tempdir().expect("a folder");
    for (boot, seconds) in [(1, 5), (2, 2)] {
        let folder = dir.path().join(format!("journal-{boot}"));
        let (mut journal, _) = Journal::open(&folder, &config.journal).expect("opens");
        let blocks = Board { boot, ..board() }.blocks(0..seconds * 2000, &[&wave]);
        journal.append(blocks, &mut NoState).expect("appends");
        let reader = journal.reader();
        journal.close();
        let stats = work(&config, dir.path(), reader);
        assert_eq!(stats.pipeline.windows, seconds);
    }
}
