//! The raw topic read back: from Kafka records to samples.

use crate::kafka::KafkaRecord;
use anyhow::{Context, Result, bail, ensure};
use spindle_common::wire::{self, Message};
use std::collections::{BTreeMap, BTreeSet};

/// The samples of one stream of one boot of one node, in order.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// `site/machine/sensor`.
    pub key: String,
    /// Index of the first sample.
    pub first_sample: u64,
    /// One entry a channel.
    pub channels: Vec<Vec<i32>>,
    /// Blocks.
    pub blocks: usize,
    /// Holes: (index of the first missing sample, how many).
    pub gaps: Vec<(u64, u64)>,
}

impl Stream {
    /// Samples per channel.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Channel by channel turned into sample by sample, as a FIFO gives them.
    #[must_use]
    pub fn interleaved(&self) -> Vec<i32> {
        (0..self.len()).flat_map(|index| self.channels.iter().map(move |channel| channel[index])).collect()
    }
}

/// Which stream: `(node, boot, stream)`.
pub type StreamId = (String, u64, u8);

/// How many different records these are, by `ce_id`.
#[must_use]
pub fn count_different(records: &[KafkaRecord]) -> usize {
    records.iter().map(KafkaRecord::id).collect::<BTreeSet<_>>().len()
}

/// Drops records whose `ce_id` came before, as a consumer behind an at-least-once producer does; says how many.
///
/// # Errors
/// When a record of the same id is not the same bytes.
pub fn without_duplicates(records: Vec<KafkaRecord>) -> Result<(Vec<KafkaRecord>, usize)> {
    let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut unique = Vec::with_capacity(records.len());
    let mut duplicates = 0;
    for record in records {
        if let Some(before) = seen.get(record.id()) {
            ensure!(*before == record.value, "{} came twice with different bytes", record.id());
            duplicates += 1;
        } else {
            seen.insert(record.id().to_owned(), record.value.clone());
            unique.push(record);
        }
    }
    Ok((unique, duplicates))
}

/// Puts the records of a raw topic together. A duplicate of the same `ce_id` is refused, as is a record whose key, id or
/// bytes do not fit together, or a stream whose order in its partition is not the order of its samples.
///
/// # Errors
/// What was found wrong, naming the record.
pub fn streams(records: &[KafkaRecord]) -> Result<BTreeMap<StreamId, Stream>> {
    let mut seen = BTreeSet::new();
    let mut streams: BTreeMap<StreamId, Stream> = BTreeMap::new();
    let mut buffer = Vec::new();
    for record in records {
        let id = record.id();
        ensure!(seen.insert(id.to_owned()), "{id} is in the topic twice");
        if record.header("content-type") == "application/json" {
            continue;
        }
        let message = wire::decode(&record.value).with_context(|| format!("decode {id}"))?;
        let Message::Block(block) = message else { bail!("{id} is no block") };
        let header = &block.header;
        let named = format!("{}/{:016x}/{}/{}", header.node, header.boot.0, header.stream.0, header.seq.0);
        ensure!(id == named, "record {id} holds block {named}");
        buffer.resize(header.len(), 0);
        block.decode_samples(&mut buffer).with_context(|| format!("samples of {id}"))?;
        let stream =
            streams.entry((header.node.to_owned(), header.boot.0, header.stream.0)).or_insert_with(|| {
                let channels = vec![Vec::new(); usize::from(header.axes)];
                Stream {
                    key: record.key.clone(),
                    first_sample: header.first_sample,
                    channels,
                    ..Stream::default()
                }
            });
        ensure!(stream.key == record.key, "{id} has key {} after {}", record.key, stream.key);
        let missing: u64 = stream.gaps.iter().map(|(_, count)| count).sum();
        let next = stream.first_sample + stream.len() as u64 + missing;
        ensure!(
            header.first_sample >= next,
            "{id} starts at {} but its stream was at {next}",
            header.first_sample
        );
        if header.first_sample > next {
            stream.gaps.push((next, header.first_sample - next));
        }
        for (channel, samples) in stream.channels.iter_mut().zip(buffer.chunks(usize::from(header.samples))) {
            channel.extend_from_slice(samples);
        }
        stream.blocks += 1;
    }
    Ok(streams)
}

/// Position of the first difference, with both values; `None` when the same.
#[must_use]
pub fn first_difference(left: &[i32], right: &[i32]) -> Option<String> {
    if let Some(index) = left.iter().zip(right).position(|(a, b)| a != b) {
        return Some(format!("value {index} is {} here and {} there", left[index], right[index]));
    }
    (left.len() != right.len()).then(|| format!("{} values here and {} there", left.len(), right.len()))
}
