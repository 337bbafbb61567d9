//! The books: per sensor where each sample went (guarantee G5).

use crate::journal::{Book, Key};
use crate::record::SensorKey;
use std::collections::HashMap;
use std::sync::Arc;

/// Samples of sensors beyond the most that are kept apart.
const OTHER: &str = "other";

/// A sensor's place in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(usize);

#[derive(Debug)]
pub(super) struct Books {
    slots: HashMap<Arc<SensorKey>, Slot>,
    books: Vec<(Arc<SensorKey>, Book)>,
    changed: Vec<bool>,
    changes: Vec<Slot>,
    sensors_max: usize,
}

impl Books {
    /// Empty books of at most `sensors_max` sensors; those beyond share one book.
    pub(super) fn new(sensors_max: usize) -> Self {
        Self {
            slots: HashMap::new(),
            books: Vec::new(),
            changed: Vec::new(),
            changes: Vec::new(),
            sensors_max: sensors_max.max(1),
        }
    }

    pub(super) fn restore(&mut self, books: Vec<(Key, Book)>) {
        for (key, book) in books {
            let slot = self.insert(&key.0);
            if let Some(entry) = self.books.get_mut(slot.0) {
                // What was held when it was written is gone, and will be sent again.
                entry.1 = Book { held: 0, ..book };
            }
        }
    }

    /// The sensor's slot, and its key as shared by all.
    pub(super) fn slot(&mut self, key: &Arc<SensorKey>) -> Slot {
        match self.slots.get(key) {
            Some(slot) => *slot,
            None if self.books.len() < self.sensors_max => self.insert(key),
            None => {
                let name: Arc<str> = OTHER.into();
                let other = SensorKey { site: name.clone(), machine: name.clone(), sensor: name };
                self.insert(&Arc::new(other))
            }
        }
    }

    fn insert(&mut self, key: &Arc<SensorKey>) -> Slot {
        let next = Slot(self.books.len());
        let slot = *self.slots.entry(key.clone()).or_insert(next);
        if slot == next {
            self.books.push((key.clone(), Book::default()));
            self.changed.push(false);
        }
        slot
    }

    /// The sensor's book, to be written in.
    pub(super) fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Book)) {
        if let (Some((_, book)), Some(changed)) = (self.books.get_mut(slot.0), self.changed.get_mut(slot.0)) {
            change(book);
            if !*changed {
                *changed = true;
                self.changes.push(slot);
            }
        }
    }

    pub(super) fn changes(&self) -> Vec<(Key, Book)> {
        self.changes.iter().filter_map(|slot| self.books.get(slot.0)).map(row).collect()
    }

    pub(super) fn committed(&mut self) {
        for slot in self.changes.drain(..) {
            if let Some(changed) = self.changed.get_mut(slot.0) {
                *changed = false;
            }
        }
    }

    /// Every sensor's book, in the order in which the sensors became known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<SensorKey>, &Book)> {
        self.books.iter().map(|(key, book)| (key, book))
    }

    pub(super) fn all(&self) -> Vec<(Key, Book)> {
        self.books.iter().map(row).collect()
    }
}

fn row((key, book): &(Arc<SensorKey>, Book)) -> (Key, Book) {
    (Key(key.clone()), *book)
}
