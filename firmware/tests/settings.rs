//! Settings in flash, with power cut at every write and erase, also in its middle; and those that are refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use embassy_futures::block_on;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use spindle_common::id::{BootId, StreamId};
use spindle_common::settings::{Settings, Step};
use spindle_common::wire::messages::ResetCause;
use spindle_common::wire::{Encoding, InForce, StreamInfo};
use spindle_firmware::node::{Facts, Limits};
use spindle_firmware::settings::{FlashStore, Store, Unusable, at_start};

const PAGE: usize = 2048;
const LEN: usize = 2 * PAGE;

/// NOR flash written in words of `W` bytes: erasing sets every bit, writing only clears them, and a word is written once between
/// erasures; but one whose writing was cut may be written again, over what is there.
#[derive(Clone)]
struct Flash<const W: usize> {
    cells: Vec<u8>,
    written: Vec<bool>,
    /// Words written or erased until power is cut, in the middle of that one.
    power: Option<u32>,
    worked: u32,
    seed: u32,
}

impl<const W: usize> Flash<W> {
    fn new() -> Self {
        Self { cells: vec![0xFF; LEN], written: vec![false; LEN / W], power: None, worked: 0, seed: 9 }
    }

    fn random(&mut self) -> u8 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        self.seed as u8
    }

    /// Whether power is cut now; then this word is left half done.
    fn cut(&mut self) -> Result<bool, NorFlashErrorKind> {
        self.worked += 1;
        match &mut self.power {
            Some(0) => Err(NorFlashErrorKind::Other),
            Some(left) => {
                *left -= 1;
                Ok(*left == 0)
            }
            None => Ok(false),
        }
    }
}

impl<const W: usize> ErrorType for Flash<W> {
    type Error = NorFlashErrorKind;
}

impl<const W: usize> ReadNorFlash for Flash<W> {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        bytes.copy_from_slice(&self.cells[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        LEN
    }
}

impl<const W: usize> NorFlash for Flash<W> {
    const WRITE_SIZE: usize = W;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        for at in from as usize..to as usize {
            if at % 256 == 0 && self.cut()? {
                // Cells in the middle of being erased read as anything between.
                for cell in at..to as usize {
                    let random = self.random();
                    self.cells[cell] |= random;
                }
                return Err(NorFlashErrorKind::Other);
            }
            self.cells[at] = 0xFF;
            self.written[at / W] = false;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        assert!((offset as usize).is_multiple_of(W) && bytes.len().is_multiple_of(W));
        for (word, bytes) in (offset as usize / W..).zip(bytes.chunks(W)) {
            assert!(!self.written[word], "a word is written twice");
            let cut = self.cut()?;
            let kept = if cut { usize::from(self.random()) % W } else { W };
            // A cut leaves whole bytes, then one with some of its bits, then nothing.
            for (place, byte) in bytes.iter().enumerate().take(kept + 1) {
                let not_yet = if place < kept { 0 } else { self.random() };
                self.cells[word * W + place] &= byte | not_yet;
            }
            self.written[word] = !cut;
            if cut {
                return Err(NorFlashErrorKind::Other);
            }
        }
        Ok(())
    }
}

fn facts() -> Facts<'static> {
    let stream = |index, sensor| StreamInfo {
        stream: StreamId(index),
        sensor,
        model: "iis3dwb",
        axes: "xyz",
        rate_nominal_mhz: 26_666_667,
        scale: 1.2e-3,
        bits: 16,
        block_samples: 512,
        encoding: Encoding::Raw16,
    };
    Facts {
        site: "plant",
        machine: "mill-1",
        node: "node-1",
        board: "host",
        firmware: "1",
        boot: BootId(1),
        reset_cause: ResetCause::PowerOn,
        last_panic: "",
        streams: [stream(0, "a"), stream(1, "b")].into_iter().collect(),
        lifetime: None,
        limits: Limits {
            link_bits_per_s: 100_000_000,
            block_samples_max: 1024,
            burst_samples_max: 2048,
            message_len_max: 20_000,
        },
    }
}

fn settings(version: u32) -> Settings {
    let mut settings = Settings::built_in(&facts().streams);
    settings.version = version;
    settings.streams[0].block_samples = 100 + (version % 900) as u16;
    settings.streams[1].step = [Step::Raw, Step::Decimated, Step::Features][version as usize % 3];
    settings
}

fn record(settings: &Settings) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    let len =
        InForce { node: "node-1", boot: BootId(1), settings: settings.clone() }.encode(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

fn start<const W: usize>(flash: Flash<W>) -> (FlashStore<Flash<W>>, Settings, Option<Unusable>) {
    let mut store = FlashStore::new(flash, 0..LEN as u32).unwrap();
    let facts = facts();
    let (settings, unusable) =
        block_on(at_start(&mut store, &facts, 20_000, Settings::built_in(&facts.streams)));
    (store, settings, unusable)
}

/// Updates until the pages have gone round several times; then, for every word that those updates write or erase, the same
/// again with power cut in its middle.
fn survives_cuts_everywhere<const W: usize>() {
    let mut whole = Flash::<W>::new();
    let mut before = Vec::new();
    for version in 1..=100 {
        let (mut store, found, _) = start(whole);
        assert_eq!(found.version, version - 1);
        before.push(store.into_flash().clone());
        store = start(before.last().unwrap().clone()).0;
        block_on(store.keep(&record(&settings(version)))).unwrap();
        whole = store.into_flash();
    }
    assert!(
        whole.worked as usize > LEN / W * 5 / 4,
        "every page was written more than once: {}",
        whole.worked
    );
    let mut cuts = 0;
    for (version, flash) in (1u32..).zip(&before) {
        for cut in 1.. {
            let mut flash = flash.clone();
            (flash.power, flash.seed) = (Some(cut), version * 7919 + cut);
            let mut store = FlashStore::new(flash, 0..LEN as u32).unwrap();
            let kept = block_on(store.keep(&record(&settings(version))));
            let mut flash = store.into_flash();
            let finished = flash.power != Some(0);
            flash.power = None;
            let (mut store, found, unusable) = start(flash);
            assert_eq!(unusable, None, "version {version}, cut {cut}");
            let old = if version == 1 { Settings::built_in(&facts().streams) } else { settings(version - 1) };
            let expected = if kept.is_ok() { vec![settings(version)] } else { vec![settings(version), old] };
            assert!(expected.contains(&found), "version {version}, cut {cut}: {found:?}");
            block_on(store.keep(&record(&settings(999)))).unwrap();
            let (_, found, _) = start(store.into_flash());
            assert_eq!(found, settings(999), "version {version}, cut {cut}: the next update");
            if finished {
                assert!(kept.is_ok());
                break;
            }
            cuts += 1;
        }
    }
    assert!(cuts > 500, "{cuts}");
    eprintln!("{cuts} cuts of words of {W} bytes");
}

#[test]
fn settings_survive_a_power_cut_at_each_write_of_single_bytes() {
    survives_cuts_everywhere::<1>();
}

#[test]
fn settings_survive_a_power_cut_at_each_write_of_words() {
    survives_cuts_everywhere::<4>();
}

#[test]
fn settings_survive_a_power_cut_at_each_write_of_quad_words() {
    survives_cuts_everywhere::<16>();
}

#[test]
fn kept_settings_that_do_not_fit_or_are_no_settings_leave_those_built_in() {
    let built_in = Settings::built_in(&facts().streams);
    let keep = |bytes: &[u8]| {
        let (mut store, found, unusable) = start(Flash::<4>::new());
        assert_eq!((found, unusable), (built_in.clone(), None));
        block_on(store.keep(bytes)).unwrap();
        let (_, found, unusable) = start(store.into_flash());
        (found, unusable.map(|unusable| unusable.to_string()))
    };
    assert_eq!(keep(&record(&settings(5))), (settings(5), None));
    let mut large = settings(5);
    large.streams[0].block_samples = 1025;
    let text = "kept settings do not fit: stream 0: blocks of 1025 samples; this board holds 1024";
    assert_eq!(keep(&record(&large)), (built_in.clone(), Some(text.into())));
    let unreadable = (built_in.clone(), Some("kept settings are not readable".into()));
    assert_eq!(keep(b"anything"), unreadable);
    let mut spoiled = record(&settings(5));
    spoiled[20] ^= 1;
    assert_eq!(keep(&spoiled), unreadable);
}
