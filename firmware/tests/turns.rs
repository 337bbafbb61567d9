//! What is full of a circular buffer that DMA fills, told by its place and the time.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use spindle_firmware::sensor::analog::Turns;

const COUNTS: usize = 256;
/// 20 ticks a conversion.
const RATE_MHZ: u64 = 50_000_000;

fn turns() -> Turns<4> {
    Turns::new(COUNTS, RATE_MHZ, 1_000)
}

/// Looks when the DMA has done so many conversions, `late` ticks after the last of them.
fn look(turns: &mut Turns<4>, done: u64, late: u64) {
    turns.look(1_000 + done * 20 + late, usize::try_from(done % 1024).unwrap());
}

#[test]
fn each_piece_is_told_once_in_its_order_with_the_tick_of_its_last_conversion() {
    let mut turns = turns();
    look(&mut turns, 255, 7);
    assert_eq!(turns.full(), None);
    for piece in 0..10u64 {
        look(&mut turns, (piece + 1) * 256 + piece * 20, 3);
        let full = turns.full().expect("a full piece");
        let from = usize::try_from(piece % 4 * 256).unwrap();
        assert_eq!((full.place.clone(), full.lost), (from..from + COUNTS, 0));
        assert_eq!(full.tick, 1_000 + (piece + 1) * 5_120 + 3);
        assert!(turns.take(&full));
        assert_eq!(turns.full(), None);
    }
}

#[test]
fn pieces_that_wait_keep_their_ticks_and_what_was_overwritten_is_counted() {
    let mut turns = turns();
    look(&mut turns, 3 * 256 + 40, 0);
    for piece in 1..=3u64 {
        let full = turns.full().expect("a full piece");
        assert_eq!((full.tick, full.lost), (1_000 + piece * 5_120, 0));
        assert!(turns.take(&full));
    }
    // Seven pieces later four were overwritten: three of the four places are whole.
    look(&mut turns, 10 * 256 + 1, 0);
    let full = turns.full().expect("a full piece");
    assert_eq!((full.lost, full.tick, full.place.start), (4, 1_000 + 8 * 5_120, 3 * 256));
}

#[test]
fn whole_turns_between_two_looks_are_told_by_the_time() {
    for pieces in 1..100u64 {
        for late in [0, 19, 4_000] {
            let mut turns = turns();
            look(&mut turns, pieces * 256 + 100, late);
            let full = turns.full().expect("a full piece");
            assert_eq!(full.lost, pieces.saturating_sub(3), "{pieces} pieces, late by {late}");
            let first = pieces.saturating_sub(3) + 1;
            assert_eq!(full.tick, 1_000 + first * 5_120 + late, "{pieces} pieces, late by {late}");
        }
    }
}

#[test]
fn a_copy_that_the_dma_has_run_into_is_refused_and_its_piece_counts_as_lost() {
    let mut turns = turns();
    look(&mut turns, 3 * 256, 0);
    let full = turns.full().expect("a full piece");
    look(&mut turns, 4 * 256, 0);
    assert!(!turns.take(&full));
    let full = turns.full().expect("a full piece");
    assert_eq!((full.lost, full.place.start), (1, 256));
    assert!(turns.take(&full));
}
