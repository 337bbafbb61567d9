//! Many seeds on several threads.

use super::{Failure, Outcome, run};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Seeds between two words about how far it is.
const WORD_EVERY: u64 = 10_000;

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.records += other.records;
        self.gap_samples += other.gap_samples;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.starts += other.starts;
        self.unflagged += other.unflagged;
        self.twins += other.twins;
    }
}

/// Plays `seeds` seeds from `from` on, on so many threads (0: as many as there are processors), and sums up what they came to.
///
/// # Errors
/// The lowest seed of those that failed, played again with its trace; the others are not played to their end.
pub fn run_all(
    from: u64,
    seeds: u64,
    threads: usize,
    word: impl Fn(u64) + Sync,
) -> Result<Outcome, Box<Failure>> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if threads == 0 { processors } else { threads };
    let next = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        let mut sum = Outcome::default();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= seeds || failed.load(Ordering::Relaxed) {
                return Ok(sum);
            }
            if index > 0 && index.is_multiple_of(WORD_EVERY) {
                word(index);
            }
            match run(from.wrapping_add(index), false) {
                Ok(outcome) => sum.add(&outcome),
                Err(failure) => {
                    failed.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let results: Vec<Result<Outcome, Box<Failure>>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
    });
    let mut sum = Outcome::default();
    let mut first: Option<Box<Failure>> = None;
    for result in results {
        match result {
            Ok(part) => sum.add(&part),
            Err(failure) if first.as_ref().is_none_or(|first| failure.seed < first.seed) => {
                first = Some(failure)
            }
            Err(_) => {}
        }
    }
    match first {
        None => Ok(sum),
        Some(failure) => Err(run(failure.seed, true).err().unwrap_or(failure)),
    }
}
