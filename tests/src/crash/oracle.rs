//! What must be true after each round, and a memory of what Kafka held, so that each record is read once.

use super::account::Account;
use super::hash;
use crate::agent::Agent;
use crate::kafka::{Kafka, KafkaRecord, Reader};
use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use spindle_common::wire::{self, Message};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// What a sensor's books may say, over all boots so far.
#[derive(Debug, Clone, Copy, Default)]
struct Bounds {
    taken: (u64, u64),
    lost: (u64, u64),
}

/// The memory.
pub struct Oracle {
    patience: Duration,
    raw: Reader,
    outputs: Vec<Reader>,
    dead_letters: Reader,
    /// Hash of each record by its id: raw ones, and outputs.
    blocks: HashMap<String, u64>,
    records: HashMap<(usize, u64), u64>,
    /// Newest number by stream of a boot.
    newest: HashMap<String, u32>,
    /// Samples of different records by sensor.
    stored: HashMap<String, u64>,
    bounds: BTreeMap<String, Bounds>,
    /// Acknowledged blocks so far, and those of them that were found in Kafka.
    pub acknowledged: (u64, u64),
    /// Raw records that came again.
    pub duplicates: u64,
    /// Features, rollups and alerts that were read, and those that came again.
    pub outputs_read: (u64, u64),
}

impl Oracle {
    /// Of the topics of this prefix; what does not come within `patience` is lost.
    ///
    /// # Errors
    /// When Kafka gives no consumers.
    pub fn new(kafka: &Kafka, prefix: &str, patience: Duration) -> Result<Self> {
        let reader = |topic: &str| kafka.reader(&format!("{prefix}.{topic}.v1"));
        Ok(Self {
            patience,
            raw: reader("raw")?,
            outputs: vec![reader("features")?, reader("alerts")?],
            dead_letters: reader("dlq")?,
            blocks: HashMap::new(),
            records: HashMap::new(),
            newest: HashMap::new(),
            stored: HashMap::new(),
            bounds: BTreeMap::new(),
            acknowledged: (0, 0),
            duplicates: 0,
            outputs_read: (0, 0),
        })
    }

    /// Judges a round when all its boards have ended.
    ///
    /// # Errors
    /// What is not as it was promised.
    pub fn judge(&mut self, agent: &Agent, boards: &[&Account]) -> Result<()> {
        self.wait_promised(boards)?;
        for board in boards {
            self.widen(board);
        }
        self.wait_balanced(agent)?;
        self.read_outputs()?;
        self.dead_letters.catch_up()?;
        if let Some(letter) = self.dead_letters.records.first() {
            bail!("a dead letter: {}", String::from_utf8_lossy(&letter.value));
        }
        Ok(())
    }

    /// Every acknowledged block is in Kafka with the bytes that the board sent.
    fn wait_promised(&mut self, boards: &[&Account]) -> Result<()> {
        let promises = boards
            .iter()
            .flat_map(|board| board.promises.iter().map(move |promise| (board.id(promise), promise.hash)));
        let mut open: Vec<(String, u64)> = promises.collect();
        let promised = open.len() as u64;
        self.acknowledged.0 += promised;
        let found = wait::until("all acknowledged blocks in Kafka", self.patience, || {
            self.read_raw()?;
            for (id, promised) in &open {
                if let Some(found) = self.blocks.get(id) {
                    ensure!(found == promised, "{id} is in Kafka with other bytes than the board's");
                }
            }
            open.retain(|(id, _)| !self.blocks.contains_key(id));
            Ok(open.is_empty().then_some(()))
        });
        self.acknowledged.1 += promised - open.len() as u64;
        found.with_context(|| {
            let first: Vec<&str> = open.iter().take(5).map(|(id, _)| id.as_str()).collect();
            format!("LOST: {} acknowledged blocks are not in Kafka, such as {first:?}", open.len())
        })
    }

    fn read_raw(&mut self) -> Result<()> {
        self.raw.catch_up()?;
        for record in std::mem::take(&mut self.raw.records) {
            let id = record.id().to_owned();
            let Ok(Message::Block(block)) = wire::decode(&record.value) else {
                bail!("raw record {id} holds no block")
            };
            let header = block.header;
            let stream = format!("{}/{:016x}/{}", header.node, header.boot.0, header.stream.0);
            ensure!(id == format!("{stream}/{}", header.seq.0), "raw record {id} holds another block");
            let hash = hash(&record.value);
            if let Some(before) = self.blocks.insert(id.clone(), hash) {
                ensure!(before == hash, "{id} is in Kafka with two different values");
                self.duplicates += 1;
                continue;
            }
            if let Some(before) = self.newest.insert(stream, header.seq.0) {
                ensure!(before < header.seq.0, "{id} came after number {before} of its sensor");
            }
            let samples = u64::from(header.samples) * u64::from(header.decimation);
            *self.stored.entry(record.key).or_default() += samples;
        }
        Ok(())
    }

    /// What the books may say of this boot: exactly the board's own counts, or, of one that was killed, something between what
    /// was acknowledged and what it had sent.
    fn widen(&mut self, board: &Account) {
        for stream in 0..board.spec.sensors.len() {
            let bounds = self.bounds.entry(board.key(stream)).or_default();
            let (taken, lost) = match &board.counts {
                Some(counts) => {
                    let (taken, lost) = counts.streams.get(stream).copied().unwrap_or_default();
                    // What its ring dropped may have arrived before.
                    ((taken, taken), (0, lost))
                }
                None => {
                    let ends = board.promises.iter().filter(|promise| usize::from(promise.stream) == stream);
                    let told = board.told.get(stream).copied().unwrap_or_default();
                    ((ends.map(|promise| promise.end).max().unwrap_or(0), told), (0, told))
                }
            };
            bounds.taken = (bounds.taken.0 + taken.0, bounds.taken.1 + taken.1);
            bounds.lost = (bounds.lost.0 + lost.0, bounds.lost.1 + lost.1);
        }
    }

    /// The books come to rest, balance, agree with the boards' own counts and with what is in Kafka.
    fn wait_balanced(&mut self, agent: &Agent) -> Result<()> {
        let mut wrong = None;
        let settled = wait::until("books that balance", self.patience, || {
            self.read_raw()?;
            let books = agent.books()?;
            wrong = self.wrong_in(&books);
            Ok(wrong.is_none().then_some(()))
        });
        settled.with_context(|| format!("the books are wrong: {}", wrong.unwrap_or_default()))
    }

    fn wrong_in(&self, books: &serde_json::Value) -> Option<String> {
        let rows = books["sensors"].as_array()?;
        for (key, bounds) in &self.bounds {
            let Some(row) = rows.iter().find(|row| row["sensor"] == key.as_str()) else {
                return Some(format!("{key} is not in them"));
            };
            let count = |name: &str| row[name].as_u64().unwrap_or(0);
            let stored = self.stored.get(key).copied().unwrap_or(0);
            let within = |value: u64, (least, most): (u64, u64)| (least..=most).contains(&value);
            let parts = count("stored") + count("withheld") + count("rejected") + count("lost");
            let is_right = row["balanced"] == true
                && count("taken") == parts
                && count("stored") == stored
                && [count("rejected"), count("withheld"), count("held")] == [0; 3]
                && within(count("taken"), bounds.taken)
                && within(count("lost"), bounds.lost);
            if !is_right {
                return Some(format!("{row}; in Kafka are {stored} samples, and by the boards {bounds:?}"));
            }
        }
        None
    }

    /// No feature, rollup or alert has two values under one id.
    fn read_outputs(&mut self) -> Result<()> {
        for (topic, reader) in self.outputs.iter_mut().enumerate() {
            reader.catch_up()?;
            for record in reader.records.drain(..) {
                self.outputs_read.0 += 1;
                let value = hash(&record.value);
                if let Some(before) = self.records.insert((topic, hash(record.id().as_bytes())), value) {
                    ensure!(before == value, "{} has two values, one of them {}", record.id(), text(&record));
                    self.outputs_read.1 += 1;
                }
            }
        }
        Ok(())
    }

    /// Different raw records so far.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

fn text(record: &KafkaRecord) -> String {
    String::from_utf8_lossy(&record.value).into_owned()
}
