//! What must hold: checked as it happens, and at the end.

use super::board::{Board, Made, crc};
use spindle_agent::journal::{Book, State};
use spindle_agent::record::{Gap, Record, RecordKind, record_flags};
use spindle_common::id::Seq;
use spindle_common::wire::{self, Message};
use std::collections::BTreeMap;

/// Time stamps without a flag may be off by so much: half of the longest exchange that is believed, and some.
const TIME_ERROR_NS: u64 = 3_000_000_000;

/// What became of what a board sealed, as the board knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// In its ring, or gone with its memory.
    Held,
    /// Pushed out of the full ring.
    Dropped,
    /// Acknowledged.
    Freed,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    made: Made,
    fate: Fate,
    /// In the journal.
    stored: bool,
}

/// A boot, by what really happened.
#[derive(Debug)]
pub(super) struct Boot {
    pub(super) node: usize,
    pub(super) alive: bool,
    first_seq: Seq,
    items: Vec<Item>,
    /// (stream, first, count) of samples lost in FIFOs.
    overruns: Vec<(u8, u64, u64)>,
    /// Of the ring's oldest.
    oldest: Seq,
    /// By stream: next sample in order; gaps; samples that came late into a gap.
    streams: [Journaled; 3],
}

#[derive(Debug, Default)]
struct Journaled {
    last_seq: Option<Seq>,
    next_sample: u64,
    gaps: Vec<(u64, u64)>,
    late: Vec<(u64, u64)>,
    last_ns: i64,
    accepted: u64,
    withheld: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) boots: BTreeMap<u64, Boot>,
    pub(super) records: u64,
    pub(super) late: u64,
    pub(super) gap_samples: u64,
    /// UTC ns of virtual time 0.
    pub(super) epoch_ns: i64,
    /// Whether stamps can be held against the truth.
    pub(super) clocks_are_true: bool,
    pub(super) unflagged: u64,
}

impl Oracle {
    pub(super) fn booted(&mut self, boot: u64, node: usize, first_seq: Seq) {
        let streams = <[Journaled; 3]>::default();
        let items = Vec::new();
        let boot_ =
            Boot { node, alive: true, first_seq, items, overruns: Vec::new(), oldest: first_seq, streams };
        self.boots.insert(boot, boot_);
    }

    pub(super) fn died(&mut self, boot: u64) {
        if let Some(boot) = self.boots.get_mut(&boot) {
            boot.alive = false;
        }
    }

    pub(super) fn overrun(&mut self, boot: u64, stream: u8, (first, count): (u64, u64)) {
        if let Some(boot) = self.boots.get_mut(&boot) {
            boot.overruns.push((stream, first, count));
        }
    }

    /// A board sealed something, and its ring may have dropped for it.
    pub(super) fn sealed(&mut self, boot: u64, made: Vec<Made>, held: (Seq, Seq)) -> Result<(), String> {
        let Some(boot) = self.boots.get_mut(&boot) else { return Ok(()) };
        for made in made {
            if made.seq.since(boot.first_seq) as usize != boot.items.len() {
                return Err(format!("board numbered {:?} what is its {}th", made.seq, boot.items.len()));
            }
            boot.items.push(Item { made, fate: Fate::Held, stored: false });
        }
        boot.moved(held.0, Fate::Dropped)
    }

    /// A board heard an acknowledgement.
    pub(super) fn freed(&mut self, boot: u64, held: (Seq, Seq)) -> Result<(), String> {
        self.boots.get_mut(&boot).map_or(Ok(()), |boot| boot.moved(held.0, Fate::Freed))
    }

    /// Records are durable from now on.
    pub(super) fn committed(&mut self, records: &[Record]) -> Result<(), String> {
        for record in records {
            self.records += 1;
            match record.kind {
                RecordKind::Gap => self.gap(record)?,
                RecordKind::DeadLetter => {
                    return Err(format!("refused: {}", String::from_utf8_lossy(&record.body)));
                }
                RecordKind::Block | RecordKind::Node => self.message(record)?,
                RecordKind::Json | RecordKind::Context => return Err("a record that nobody sent".into()),
            }
        }
        Ok(())
    }

    fn message(&mut self, record: &Record) -> Result<(), String> {
        let (boot, seq) = match wire::decode(&record.body) {
            Ok(Message::Block(block)) => (block.header.boot, block.header.seq),
            Ok(Message::Features(features)) => (features.boot, features.seq),
            Ok(Message::Burst(burst)) => (burst.block.header.boot, burst.block.header.seq),
            Ok(_) => return Ok(()),
            Err(error) => return Err(format!("journal holds what cannot be read: {error}")),
        };
        let what = format!("boot {:x} seq {}", boot.0, seq.0);
        let Some(boot) = self.boots.get_mut(&boot.0) else { return Err(format!("{what}: no such boot")) };
        let index = seq.since(boot.first_seq) as usize;
        let Some(item) = boot.items.get_mut(index) else { return Err(format!("{what}: never made")) };
        if item.stored {
            return Err(format!("{what}: in the journal twice"));
        }
        item.stored = true;
        if crc(&record.body) != item.made.digest {
            return Err(format!("{what}: other bytes than were made"));
        }
        let made = item.made;
        let Some(stream) = boot.streams.get_mut(usize::from(made.stream)) else { return Ok(()) };
        let late = record.flags & record_flags::LATE != 0;
        if late {
            self.late += 1;
            stream.late.extend((made.covered > 0).then_some((made.first_sample, made.covered)));
        } else {
            // A burst repeats samples: what comes after it may be older.
            if made.covered > 0 {
                if stream.last_seq.is_some_and(|last| !last.precedes(seq)) {
                    return Err(format!("{what}: after {:?}, and not flagged as late", stream.last_seq));
                }
                stream.last_seq = Some(seq);
                if made.first_sample != stream.next_sample {
                    let next = stream.next_sample;
                    return Err(format!(
                        "{what}: begins at {}, but {next} is next and no gap says so",
                        made.first_sample
                    ));
                }
                stream.next_sample = made.first_sample + made.covered;
            }
            if record.time_ns <= stream.last_ns {
                return Err(format!(
                    "{what}: time does not go on: {} after {}",
                    record.time_ns, stream.last_ns
                ));
            }
            stream.last_ns = record.time_ns;
        }
        stream.accepted += made.stored;
        stream.withheld += made.covered - made.stored;
        if record.flags & (record_flags::CLOCK_ARRIVAL | record_flags::CLOCK_DOUBTFUL) == 0 {
            self.unflagged += 1;
            let truth_ns = self.epoch_ns + made.taken_at as i64;
            let off_ns = record.time_ns.abs_diff(truth_ns);
            if self.clocks_are_true && off_ns > TIME_ERROR_NS {
                return Err(format!("{what}: time is off by {} ms and not flagged", off_ns / 1_000_000));
            }
        }
        Ok(())
    }

    fn gap(&mut self, record: &Record) -> Result<(), String> {
        let gap: Gap = postcard::from_bytes(&record.body).map_err(|error| error.to_string())?;
        let what = format!(
            "gap of {} samples from {} of boot {:x} stream {}",
            gap.samples, gap.first_sample, gap.boot, gap.stream
        );
        let Some(boot) = self.boots.get_mut(&gap.boot) else { return Err(format!("{what}: no such boot")) };
        let Some(stream) = boot.streams.get_mut(usize::from(gap.stream)) else { return Err(what) };
        if gap.first_sample != stream.next_sample || gap.samples == 0 {
            return Err(format!("{what}: {} is next", stream.next_sample));
        }
        stream.next_sample = gap.first_sample + gap.samples;
        stream.gaps.push((gap.first_sample, gap.samples));
        self.gap_samples += gap.samples;
        Ok(())
    }

    /// Whether all that live boards made is where it belongs.
    pub(super) fn is_settled(&self, boards: &[Option<Board>]) -> bool {
        boards.iter().flatten().all(|board| {
            let (oldest, next) = board.held();
            oldest == next
        })
    }

    /// What must hold at rest.
    pub(super) fn settled(&self, boards: &[Option<Board>], state: &State) -> Result<(), String> {
        let mut books: BTreeMap<(usize, u8), Book> = BTreeMap::new();
        for (id, boot) in &self.boots {
            for (index, stream) in boot.streams.iter().enumerate() {
                let what = format!("boot {id:x} stream {index}");
                let missing = boot.missing(index as u8, stream.next_sample)?;
                let gaps: u64 = stream.gaps.iter().map(|gap| gap.1).sum();
                let late: u64 = stream.late.iter().map(|late| late.1).sum();
                stream.late_was_missed().map_err(|error| format!("{what}: {error}"))?;
                if gaps != missing + late {
                    return Err(format!(
                        "{what}: {missing} samples are missing and {late} came late, but gaps say {gaps}"
                    ));
                }
                let book = books.entry((boot.node, index as u8)).or_default();
                book.accepted += stream.accepted;
                book.withheld += stream.withheld;
                book.lost += missing;
                // A dead board may have told of more than came; then that is a gap, and counted above.
                book.taken += stream.next_sample;
            }
        }
        for board in boards.iter().flatten() {
            let Some(boot) = self.boots.get(&board.boot.0) else { continue };
            for (index, stream) in boot.streams.iter().enumerate() {
                let (taken, lost) = board.counters(index as u8);
                let missing = boot.missing(index as u8, stream.next_sample)?;
                if stream.next_sample != taken {
                    return Err(format!(
                        "board {} took {taken} of stream {index}, the journal knows of {}",
                        board.place, stream.next_sample
                    ));
                }
                if missing > lost {
                    return Err(format!(
                        "board {} lost {lost} of stream {index}, but {missing} are missing",
                        board.place
                    ));
                }
            }
        }
        for ((node, stream), truth) in books {
            let name = super::board::SENSORS[node][usize::from(stream)];
            let book = state.books.iter().find(|(key, _)| &*key.0.sensor == name).map(|(_, book)| *book);
            let book = book.unwrap_or_default();
            let has = (book.taken, book.accepted, book.withheld, book.lost, book.rejected, book.held);
            if has != (truth.taken, truth.accepted, truth.withheld, truth.lost, 0, 0) {
                return Err(format!("books of {name} say {book:?}, the truth is {truth:?}"));
            }
        }
        Ok(())
    }
}

impl Boot {
    fn moved(&mut self, oldest: Seq, fate: Fate) -> Result<(), String> {
        while self.oldest != oldest {
            let index = self.oldest.since(self.first_seq) as usize;
            let Some(item) = self.items.get_mut(index) else {
                return Err(format!("ring goes on at {oldest:?}, which was never made"));
            };
            item.fate = fate;
            if fate == Fate::Freed && !item.stored {
                return Err(format!("board freed {:?}, which is not committed", item.made.seq));
            }
            self.oldest = self.oldest.next();
        }
        Ok(())
    }

    /// Samples of a stream before `end` that are not in the journal, each for a reason.
    fn missing(&self, stream: u8, end: u64) -> Result<u64, String> {
        let mut missing = 0;
        for item in self.items.iter().filter(|item| item.made.stream == stream && !item.stored) {
            if self.alive && item.fate != Fate::Dropped {
                return Err(format!(
                    "{:?} of a board that lives is {:?} and not in the journal",
                    item.made.seq, item.fate
                ));
            }
            let made = item.made;
            missing += made.covered.min(end.saturating_sub(made.first_sample));
        }
        let overruns = self.overruns.iter().filter(|overrun| overrun.0 == stream);
        Ok(missing + overruns.map(|(_, first, count)| (*count).min(end.saturating_sub(*first))).sum::<u64>())
    }
}

impl Journaled {
    /// What came late must lie in a gap, each in its own part of it.
    fn late_was_missed(&self) -> Result<(), String> {
        for (first, count) in &self.late {
            if !self.gaps.iter().any(|gap| gap.0 <= *first && first + count <= gap.0 + gap.1) {
                return Err(format!(
                    "samples {first} and {count} on came late, but no gap had said that they are missing"
                ));
            }
        }
        Ok(())
    }
}
