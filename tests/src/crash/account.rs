//! What a board was promised and what it counted, from its ledger.

use super::board::{PLACE, Spec};
use super::ledger::{Counts, Entry, LedgerReader, Promise};
use anyhow::{Context, Result, bail};

/// A board's ledger as read so far.
#[derive(Debug)]
pub struct Account {
    /// What the board was told.
    pub spec: Spec,
    reader: LedgerReader,
    /// Blocks that were acknowledged.
    pub promises: Vec<Promise>,
    /// By sensor: samples that the gateway may have heard of.
    pub told: Vec<u64>,
    /// Its own counts, once it has ended in order.
    pub counts: Option<Counts>,
}

impl Account {
    /// Of a board that has just started.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        let (reader, told) = (LedgerReader::new(&spec.ledger), vec![0; spec.sensors.len()]);
        Self { spec, reader, promises: Vec::new(), told, counts: None }
    }

    /// Reads what is new and gives the number of acknowledged blocks.
    ///
    /// # Errors
    /// When the ledger is not as it should be, or the board sent two blocks of one number.
    pub fn look(&mut self) -> Result<usize> {
        for entry in self.reader.news()? {
            match entry {
                Entry::Acknowledged(promise) => self.promises.push(promise),
                Entry::Told { stream, taken } => {
                    *self.told.get_mut(usize::from(stream)).context("an unknown sensor in a ledger")? = taken;
                }
                Entry::Forked { seq } => bail!("{} sent two blocks of number {seq}", self.spec.node),
                Entry::Ended(counts) => self.counts = Some(counts),
            }
        }
        Ok(self.promises.len())
    }

    /// `site/machine/sensor` of a sensor.
    #[must_use]
    pub fn key(&self, stream: usize) -> String {
        format!("{PLACE}/{}", self.spec.sensors[stream].name)
    }

    /// The record's `ce_id` of a promised block.
    #[must_use]
    pub fn id(&self, promise: &Promise) -> String {
        format!("{}/{:016x}/{}/{}", self.spec.node, self.spec.boot, promise.stream, promise.seq)
    }
}
