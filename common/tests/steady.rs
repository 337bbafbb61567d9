//! No stage allocates once its plans and buffers are made.
#![allow(clippy::unwrap_used, reason = "tests")]

use spindle_common::dsp::{
    Analyser, Average, Averaging, BandSum, Conditioner, Corner, Decimator, Displacement, Envelope, Extremes,
    Frame, Grid, Kurtogram, Lines, Resampler, Scaling, Segmenter, SpeedSearch, Velocity, Welch, Window,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is handed on to the system's allocator as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RATE_HZ: f64 = 26_667.0;
const LEN: usize = 4096;

#[test]
fn nothing_is_allocated_per_block() {
    let grid = Grid { len: LEN, rate_hz: RATE_HZ };
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 65536.0 - 0.5
    };
    let frames: Vec<Frame> = (0..4 * LEN).map(|_| [next(); 4]).collect();
    let mut velocity = Velocity::new(10.0, 1000.0, RATE_HZ).unwrap();
    let mut displacement = Displacement::new(10.0, 1000.0, RATE_HZ).unwrap();
    let mut band = Conditioner::<4>::new(Some(Corner { hz: 1000.0, order: 4 }), None, RATE_HZ).unwrap();
    let mut decimator = Decimator::new(10).unwrap();
    let mut resampler = Resampler::new(RATE_HZ, 25_600.0).unwrap();
    let mut analyser = Analyser::new(LEN, Window::Hann).unwrap();
    let mut welch = Welch::new(LEN, LEN / 2, Averaging::Linear);
    let mut envelope = Envelope::new(LEN, 4000.0, 8000.0, RATE_HZ).unwrap();
    let mut segmenter = Segmenter::new(LEN, LEN);
    let mut average = Average::new(Averaging::PeakHold, envelope.grid().bins());
    let mut kurtogram = Kurtogram::new(LEN, 8).unwrap();
    let mut search = SpeedSearch::new(grid.bins(), 5);
    let mut density = vec![[0.0; 4]; grid.bins()];
    let user = BandSum::new(1000.0, 5000.0, grid).unwrap();
    let mut extremes = Extremes::EMPTY;
    let mut pass = || {
        for block in frames.chunks(256) {
            velocity.energy(block);
            displacement.extremes(block, &mut extremes);
            band.energy(block);
            decimator.push(block, |_, _| ());
            resampler.push(block, |_, _| ());
            welch.push(block, &mut analyser);
            segmenter.push(block, |_, segment| {
                average.add(envelope.squares(segment));
                kurtogram.run(segment, RATE_HZ);
            });
        }
        welch.average().write(&analyser.scale(Scaling::Density, RATE_HZ), &mut density);
        let lines = Lines::new(&density, 0, grid, Window::Hann).unwrap();
        let rms = lines.harmonic_rms(500.0, 5, 0.01);
        assert!(lines.chatter(500.0, 3, [100.0, 4000.0], 0.001).is_some());
        assert!(search.estimate(&density, 3, grid, 100.0, 110.0).is_none());
        welch.clear();
        user.rms(&density)[0] + rms
    };
    assert!(pass() > 0.0);
    let before = ALLOCATED.with(Cell::get);
    assert!(pass() > 0.0);
    assert_eq!(ALLOCATED.with(Cell::get) - before, 0);
}
