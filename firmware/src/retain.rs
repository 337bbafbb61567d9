//! Memory that survives a reset: why the last run ended, the last panic's text, counters over resets, the last run's totals.
//!
//! A board places one [`Retained`] where its start-up code clears nothing (cortex-m-rt: section `.uninit`). Power-on leaves
//! garbage there, a reset in the middle of a write leaves half a record; each record has a magic word and a CRC-32C, and one
//! that does not agree with them is refused as if it had never been written. Words are atomics, so a panic or an interrupt
//! may write at any time, and nothing here needs `unsafe`.

use core::fmt::{self, Write as _};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};
use heapless::String;
use spindle_common::wire::crc32c;
use spindle_common::wire::messages::{Lifetime, ResetCause, TEXT_LEN_MAX};

/// Text of a panic.
pub type Text = String<TEXT_LEN_MAX>;

/// Bytes of a source path that a panic's text keeps: the end of it tells the file.
const PATH_LEN_MAX: usize = 48;

const TEXT_WORDS: usize = TEXT_LEN_MAX.div_ceil(4);

/// Where a record lies: magic word, CRC, then `len` words.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: usize,
    len: usize,
    magic: u32,
}

// A record whose fields change gets another magic word, so that a new firmware refuses what an old one left.
const LIFETIME: Place = Place { at: 0, len: 6, magic: 0x5350_4C31 };
const TOTALS: Place = Place { at: 8, len: 11, magic: 0x5350_5431 };
const WORDS: Place = Place { at: 22, len: 2, magic: 0x5350_5731 };
const PANIC: Place = Place { at: 26, len: 1 + TEXT_WORDS, magic: 0x5350_5031 };
const LEN: usize = PANIC.at + 2 + PANIC.len;

/// Totals of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// How long it lasted, s.
    pub uptime_s: u32,
    /// Frames taken by all sensors together.
    pub taken: u64,
    /// Frames that full FIFOs lost.
    pub lost_overrun: u64,
    /// Frames that the full ring lost.
    pub lost_ring: u64,
    /// Blocks that the full ring dropped.
    pub dropped: u32,
    /// Blocks sent again.
    pub resent: u32,
    /// Connections made.
    pub connects: u32,
    /// Blocks in the ring that the gateway had not acknowledged.
    pub unacknowledged: u32,
}

/// What a start finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// Why the last run ended.
    pub cause: Cause,
    /// Counters since the memory last lost its contents, this start included. What the last run left unsent is as of its last
    /// roll call, so up to a second old.
    pub lifetime: Lifetime,
    /// The last run's totals, as last noted; `None` when they were not kept.
    pub previous: Option<Totals>,
    /// Text of the last panic, also when it was more than one reset ago; empty if none is known.
    pub last_panic: Text,
}

/// A [`ResetCause`] that defaults to not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause(pub ResetCause);

impl Default for Cause {
    fn default() -> Self {
        Self(ResetCause::Unknown)
    }
}

/// Last words of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastWords {
    Panic,
    Restart,
    Hung(u32),
}

/// The memory. One per board, in a `static`.
#[derive(Debug)]
pub struct Retained {
    words: [AtomicU32; LEN],
}

impl Default for Retained {
    fn default() -> Self {
        Self::new()
    }
}

impl Retained {
    /// Empty memory. In a section that is not cleared this value is never written; what is found there is judged by
    /// [`Retained::boot`].
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [const { AtomicU32::new(0) }; LEN] }
    }

    /// Takes what the last run left, counts this start, and makes room for this run's words. Call it once, first thing.
    ///
    /// `hardware` is what the chip's own reset flags say, [`ResetCause::Unknown`] where it has none. They win where only
    /// they can know (power, brown-out, pin); otherwise the last words do, because a panic and an asked-for restart reach the
    /// chip as a software or watchdog reset.
    pub fn boot(&self, hardware: ResetCause) -> Boot {
        let kept = self.read::<{ LIFETIME.len }>(LIFETIME);
        let mut lifetime = kept.map_or(Lifetime::default(), lifetime_of);
        let words = self.last_words();
        let cause = match (hardware, words) {
            (ResetCause::PowerOn | ResetCause::BrownOut | ResetCause::Pin, _) => hardware,
            (_, Some(LastWords::Panic)) => ResetCause::Panic,
            (_, Some(LastWords::Restart)) => ResetCause::Software,
            (_, Some(LastWords::Hung(_))) => ResetCause::Watchdog,
            // Memory that was lost has been without power.
            (ResetCause::Unknown, None) if kept.is_none() => ResetCause::PowerOn,
            (_, None) => hardware,
        };
        count(&mut lifetime.boots);
        match cause {
            ResetCause::Watchdog => count(&mut lifetime.watchdog_resets),
            ResetCause::Panic => count(&mut lifetime.panics),
            ResetCause::BrownOut => count(&mut lifetime.brown_outs),
            ResetCause::Software => count(&mut lifetime.software_resets),
            ResetCause::Unknown | ResetCause::PowerOn | ResetCause::Pin => {}
        }
        if cause == ResetCause::Watchdog {
            lifetime.hung_tasks = if let Some(LastWords::Hung(tasks)) = words { tasks } else { 0 };
        }
        let previous = self.read::<{ TOTALS.len }>(TOTALS).map(Totals::from_words);
        if let Some(totals) = previous {
            lifetime.dropped_before = totals.dropped;
            lifetime.unacknowledged_before = totals.unacknowledged;
        }
        self.write(LIFETIME, &words_of(&lifetime));
        self.forget(TOTALS);
        self.forget(WORDS);
        Boot { cause: Cause(cause), lifetime, previous, last_panic: self.panic_text().unwrap_or_default() }
    }

    /// For the panic handler: keeps where and why. The board resets afterwards.
    pub fn note_panic(&self, info: &PanicInfo<'_>) {
        let (path, line) = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
        self.note_panic_text(format_args!("{}:{line}: {}", end_of(path), info.message()));
    }

    /// Keeps a panic's text; what does not fit is cut off.
    pub fn note_panic_text(&self, text: fmt::Arguments<'_>) {
        let mut cut = Cut(Text::new());
        // Fails only when the text was cut.
        let _ = cut.write_fmt(text);
        let text = cut.0.as_bytes();
        let mut words = [0; PANIC.len];
        words[0] = u32::try_from(text.len()).unwrap_or(0);
        for (word, bytes) in words[1..].iter_mut().zip(text.chunks(4)) {
            let mut all = [0; 4];
            all[..bytes.len()].copy_from_slice(bytes);
            *word = u32::from_le_bytes(all);
        }
        self.write(PANIC, &words);
        self.say(LastWords::Panic);
    }

    /// The board is about to restart because it was asked to.
    pub fn note_restart(&self) {
        self.say(LastWords::Restart);
    }

    /// These tasks have not checked in for long: should the watchdog bite now, they are to blame.
    pub fn note_hung(&self, tasks: u32) {
        self.say(LastWords::Hung(tasks));
    }

    /// Every task has checked in again.
    pub fn note_well(&self) {
        self.forget(WORDS);
    }

    /// This run's totals so far.
    pub fn note_totals(&self, totals: &Totals) {
        self.write(TOTALS, &totals.to_words());
    }

    fn say(&self, words: LastWords) {
        let words = match words {
            LastWords::Panic => [1, 0],
            LastWords::Restart => [2, 0],
            LastWords::Hung(tasks) => [3, tasks],
        };
        self.write(WORDS, &words);
    }

    fn last_words(&self) -> Option<LastWords> {
        match self.read::<{ WORDS.len }>(WORDS)? {
            [1, _] => Some(LastWords::Panic),
            [2, _] => Some(LastWords::Restart),
            [3, tasks] => Some(LastWords::Hung(tasks)),
            _ => None,
        }
    }

    fn panic_text(&self) -> Option<Text> {
        let words = self.read::<{ PANIC.len }>(PANIC)?;
        let mut bytes = [0; TEXT_WORDS * 4];
        for (place, word) in bytes.chunks_exact_mut(4).zip(&words[1..]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let text = core::str::from_utf8(bytes.get(..words[0] as usize)?).ok()?;
        Text::try_from(text).ok()
    }

    /// The magic word goes first and comes back last, so that half a write is never taken for a whole one.
    fn write(&self, place: Place, words: &[u32]) {
        self.forget(place);
        for (cell, word) in self.cells(place).zip(words) {
            cell.store(*word, Ordering::SeqCst);
        }
        self.words[place.at + 1].store(checksum(words), Ordering::SeqCst);
        self.words[place.at].store(place.magic, Ordering::SeqCst);
    }

    fn read<const N: usize>(&self, place: Place) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (word, cell) in words.iter_mut().zip(self.cells(place)) {
            *word = cell.load(Ordering::SeqCst);
        }
        let magic = self.words[place.at].load(Ordering::SeqCst);
        let sum = self.words[place.at + 1].load(Ordering::SeqCst);
        (magic == place.magic && sum == checksum(&words)).then_some(words)
    }

    fn forget(&self, place: Place) {
        self.words[place.at].store(0, Ordering::SeqCst);
    }

    fn cells(&self, place: Place) -> impl Iterator<Item = &AtomicU32> {
        self.words.iter().skip(place.at + 2).take(place.len)
    }
}

/// What is told of the last run is not kept any longer.
fn lifetime_of(words: [u32; LIFETIME.len]) -> Lifetime {
    let [boots, watchdog_resets, panics, brown_outs, software_resets, hung_tasks] = words;
    let (dropped_before, unacknowledged_before) = (0, 0);
    Lifetime {
        boots,
        watchdog_resets,
        panics,
        brown_outs,
        software_resets,
        hung_tasks,
        dropped_before,
        unacknowledged_before,
    }
}

fn words_of(lifetime: &Lifetime) -> [u32; LIFETIME.len] {
    let Lifetime { boots, watchdog_resets, panics, brown_outs, software_resets, hung_tasks, .. } = *lifetime;
    [boots, watchdog_resets, panics, brown_outs, software_resets, hung_tasks]
}

impl Totals {
    fn from_words(words: [u32; TOTALS.len]) -> Self {
        let [uptime_s, t0, t1, o0, o1, r0, r1, dropped, resent, connects, unacknowledged] = words;
        let long = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let (taken, lost_overrun, lost_ring) = (long(t0, t1), long(o0, o1), long(r0, r1));
        Self { uptime_s, taken, lost_overrun, lost_ring, dropped, resent, connects, unacknowledged }
    }

    #[allow(clippy::cast_possible_truncation, reason = "both halves are kept")]
    fn to_words(self) -> [u32; TOTALS.len] {
        let halves = |long: u64| (long as u32, (long >> 32) as u32);
        let (t0, t1) = halves(self.taken);
        let (o0, o1) = halves(self.lost_overrun);
        let (r0, r1) = halves(self.lost_ring);
        [self.uptime_s, t0, t1, o0, o1, r0, r1, self.dropped, self.resent, self.connects, self.unacknowledged]
    }
}

fn checksum(words: &[u32]) -> u32 {
    let mut sum = 0x5350_494E;
    for word in words {
        // Chained over words, so that no buffer of bytes is needed; each step mixes the last sum in.
        let [a, b, c, d] = word.to_le_bytes();
        let [e, f, g, h] = u32::to_le_bytes(sum);
        sum = crc32c(&[e, f, g, h, a, b, c, d]);
    }
    sum
}

fn count(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}

/// The end of a path, from a character on.
fn end_of(path: &str) -> &str {
    let mut from = path.len().saturating_sub(PATH_LEN_MAX);
    while !path.is_char_boundary(from) {
        from += 1;
    }
    path.get(from..).unwrap_or(path)
}

/// A writer that cuts off what does not fit, at a character.
struct Cut(Text);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.0.push(character).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory(words: &[u32]) -> Retained {
        let memory = Retained::new();
        for (cell, word) in memory.words.iter().zip(words) {
            cell.store(*word, Ordering::SeqCst);
        }
        memory
    }

    fn contents(memory: &Retained) -> std::vec::Vec<u32> {
        memory.words.iter().map(|cell| cell.load(Ordering::SeqCst)).collect()
    }

    #[test]
    fn memory_without_contents_is_a_power_on_with_nothing_to_tell() {
        let boot = Retained::new().boot(ResetCause::Unknown);
        let lifetime = Lifetime { boots: 1, ..Lifetime::default() };
        assert_eq!(boot, Boot { cause: Cause(ResetCause::PowerOn), lifetime, ..Boot::default() });
    }

    #[test]
    fn the_text_of_a_panic_arrives_after_the_restart_and_is_kept_over_later_ones() {
        let memory = Retained::new();
        memory.boot(ResetCause::PowerOn);
        memory.note_panic_text(format_args!("src/main.rs:7: {} is not {}", 1, 2));
        let boot = memory.boot(ResetCause::Software);
        assert_eq!(
            (boot.cause.0, boot.last_panic.as_str()),
            (ResetCause::Panic, "src/main.rs:7: 1 is not 2")
        );
        assert_eq!((boot.lifetime.boots, boot.lifetime.panics, boot.lifetime.software_resets), (2, 1, 0));
        let boot = memory.boot(ResetCause::Pin);
        assert_eq!((boot.cause.0, boot.lifetime.panics), (ResetCause::Pin, 1));
        assert_eq!(boot.last_panic, "src/main.rs:7: 1 is not 2");
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character() {
        let memory = Retained::new();
        let long = "é".repeat(100);
        memory.note_panic_text(format_args!("x{long}"));
        let boot = memory.boot(ResetCause::Unknown);
        assert_eq!(boot.last_panic.len(), TEXT_LEN_MAX - 1);
        assert!(boot.last_panic.ends_with('é'));
    }

    #[test]
    fn the_tasks_that_hung_are_named_unless_they_came_back() {
        let memory = Retained::new();
        memory.boot(ResetCause::PowerOn);
        memory.note_hung(0b101);
        let boot = memory.boot(ResetCause::Watchdog);
        assert_eq!((boot.cause.0, boot.lifetime.hung_tasks), (ResetCause::Watchdog, 0b101));
        memory.note_hung(0b10);
        memory.note_well();
        let boot = memory.boot(ResetCause::Unknown);
        assert_eq!((boot.cause.0, boot.lifetime.watchdog_resets), (ResetCause::Unknown, 1));
    }

    #[test]
    fn what_only_the_chip_can_know_wins_over_the_last_words() {
        let memory = Retained::new();
        memory.boot(ResetCause::PowerOn);
        memory.note_restart();
        assert_eq!(memory.boot(ResetCause::BrownOut).lifetime.brown_outs, 1);
        memory.note_restart();
        let boot = memory.boot(ResetCause::Watchdog);
        assert_eq!((boot.cause.0, boot.lifetime.watchdog_resets), (ResetCause::Software, 0));
    }

    #[test]
    fn the_totals_of_the_last_run_are_told_once() {
        let memory = Retained::new();
        let totals = Totals {
            uptime_s: 60,
            taken: u64::MAX - 1,
            lost_overrun: 1 << 40,
            lost_ring: 3,
            dropped: 4,
            resent: 5,
            connects: 6,
            unacknowledged: 7,
        };
        memory.note_totals(&totals);
        let boot = memory.boot(ResetCause::Unknown);
        assert_eq!(boot.previous, Some(totals));
        assert_eq!((boot.lifetime.dropped_before, boot.lifetime.unacknowledged_before), (4, 7));
        let boot = memory.boot(ResetCause::Unknown);
        assert_eq!((boot.previous, boot.lifetime.unacknowledged_before), (None, 0));
    }

    #[test]
    fn a_single_flipped_bit_anywhere_in_a_record_refuses_it() {
        let memory_full = Retained::new();
        memory_full.boot(ResetCause::PowerOn);
        memory_full.note_totals(&Totals { taken: 7, ..Totals::default() });
        let whole = contents(&memory_full);
        for place in [LIFETIME, TOTALS] {
            for bit in 0..(place.len + 2) * 32 {
                let mut torn = whole.clone();
                torn[place.at + bit / 32] ^= 1 << (bit % 32);
                let boot = memory(&torn).boot(ResetCause::Software);
                let (boots, previous) = (boot.lifetime.boots, boot.previous.is_some());
                let expected = if place.at == LIFETIME.at { (1, true) } else { (2, false) };
                assert_eq!((boots, previous), expected, "bit {bit} of the record at {}", place.at);
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_a_panic(words in proptest::collection::vec(any::<u32>(), LEN)) {
            let boot = memory(&words).boot(ResetCause::Unknown);
            prop_assert_eq!(boot.lifetime.boots, 1);
            prop_assert!(boot.previous.is_none() && boot.last_panic.is_empty());
        }

        #[test]
        fn a_length_or_text_that_cannot_be_is_refused_even_with_a_right_checksum(
            words in proptest::collection::vec(any::<u32>(), PANIC.len)
        ) {
            let memory = Retained::new();
            memory.write(PANIC, &words);
            let text = memory.boot(ResetCause::Unknown).last_panic;
            prop_assert!(text.len() <= TEXT_LEN_MAX);
        }
    }
}
