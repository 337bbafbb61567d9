//! What writer and readers in this process share: the newest batches in memory, and the list of segments.

use super::BatchView;
use crate::record::{Batch, Record};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Memory that a record takes besides its body, about.
const RECORD_OVERHEAD: usize = 128;
/// Damaged places that are remembered; when there are more, all are forgotten, and count again when another reader meets them.
const DAMAGES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    grown: Condvar,
}

#[derive(Debug)]
struct Inner {
    /// Newest batches with the bytes that each takes.
    batches: VecDeque<(Arc<Batch>, usize)>,
    bytes: usize,
    bytes_max: usize,
    /// Offset after the last record.
    next: u64,
    /// First offset and file of each segment, in order.
    segments: Vec<(u64, PathBuf)>,
    closed: bool,
    damage: Damage,
}

/// What readers found damaged.
#[derive(Debug, Default)]
struct Damage {
    /// First offsets after the damaged places that are known.
    known: BTreeSet<u64>,
    places: u64,
    records: u64,
}

/// Where a reader finds the record it asked for.
pub(super) enum Place {
    Memory(BatchView),
    /// In this file, which holds the records before `end`.
    Segment {
        path: PathBuf,
        end: u64,
    },
    /// Gone; the oldest that is left is this.
    Evicted(u64),
    /// Not there yet.
    Ahead,
    /// Not there, and never will be.
    Closed,
}

impl Shared {
    pub(super) fn new(next: u64, segments: Vec<(u64, PathBuf)>, bytes_max: usize) -> Self {
        let inner = Inner {
            batches: VecDeque::new(),
            bytes: 0,
            bytes_max,
            next,
            segments,
            closed: false,
            damage: Damage::default(),
        };
        Self { inner: Mutex::new(inner), grown: Condvar::new() }
    }

    pub(super) fn push(&self, batch: &Arc<Batch>) {
        let bytes = batch.records.iter().map(|record| record.body.len() + RECORD_OVERHEAD).sum();
        let mut inner = self.inner.lock();
        if let Some(last) = batch.records.last() {
            inner.next = last.offset + 1;
        }
        inner.batches.push_back((batch.clone(), bytes));
        inner.bytes += bytes;
        while inner.bytes > inner.bytes_max && inner.batches.len() > 1 {
            if let Some((_, freed)) = inner.batches.pop_front() {
                inner.bytes -= freed;
            }
        }
        drop(inner);
        self.grown.notify_all();
    }

    pub(super) fn set_segments(&self, segments: Vec<(u64, PathBuf)>) {
        self.inner.lock().segments = segments;
    }

    /// Counts the damaged records `from..next`; says whether they are the first reader's to be told of.
    pub(super) fn note_damage(&self, from: u64, next: u64) -> bool {
        let damage = &mut self.inner.lock().damage;
        if damage.known.len() >= DAMAGES_MAX {
            damage.known.clear();
        }
        let new = damage.known.insert(next);
        if new {
            damage.places += 1;
            damage.records += next.saturating_sub(from);
        }
        new
    }

    /// Damaged places that readers met, and the records in them.
    pub(super) fn damage(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.damage.places, inner.damage.records)
    }

    /// No more will be written: wakes all readers.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.grown.notify_all();
    }

    pub(super) fn next(&self) -> u64 {
        self.inner.lock().next
    }

    pub(super) fn oldest(&self) -> u64 {
        let inner = self.inner.lock();
        inner.segments.first().map_or(inner.next, |(first, _)| *first)
    }

    /// Finds record `from`, waiting up to `wait` for it to be written.
    pub(super) fn find(&self, from: u64, bytes_max: usize, wait: Duration) -> Place {
        let mut inner = self.inner.lock();
        if from >= inner.next && !inner.closed {
            self.grown.wait_while_for(&mut inner, |inner| from >= inner.next && !inner.closed, wait);
        }
        if from >= inner.next {
            return if inner.closed { Place::Closed } else { Place::Ahead };
        }
        inner.place(from, bytes_max)
    }
}

impl Inner {
    fn place(&self, from: u64, bytes_max: usize) -> Place {
        let index = self.batches.partition_point(|(batch, _)| first_of(batch) <= from);
        if let Some((batch, _)) = index.checked_sub(1).and_then(|index| self.batches.get(index)) {
            let start = usize::try_from(from - first_of(batch)).unwrap_or(usize::MAX);
            if start < batch.records.len() {
                return Place::Memory(BatchView::new(batch.clone(), start, bytes_max));
            }
        }
        let index = self.segments.partition_point(|(first, _)| *first <= from);
        match index.checked_sub(1).and_then(|index| self.segments.get(index)) {
            Some((_, path)) => {
                let end = self.segments.get(index).map_or(self.next, |(first, _)| *first);
                // What is in memory is read from there, also when the file is damaged.
                let tail = self.batches.front().map(|(batch, _)| first_of(batch));
                let end = tail.filter(|tail| *tail > from).map_or(end, |tail| end.min(tail));
                Place::Segment { path: path.clone(), end }
            }
            None => Place::Evicted(self.segments.first().map_or(self.next, |(first, _)| *first)),
        }
    }
}

fn first_of(batch: &Batch) -> u64 {
    batch.records.first().map_or(u64::MAX, |record: &Record| record.offset)
}
