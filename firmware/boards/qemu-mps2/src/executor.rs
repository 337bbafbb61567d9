//! Embassy's executor with a sleep that QEMU honours: it runs on through WFE, which embassy's own uses, but sleeps in WFI.

use crate::{load, time};
use core::sync::atomic::{AtomicBool, Ordering};
use embassy_executor::{Spawner, raw};
use static_cell::StaticCell;

static WOKEN: AtomicBool = AtomicBool::new(false);

#[unsafe(export_name = "__pender")]
fn pender(_context: *mut ()) {
    WOKEN.store(true, Ordering::SeqCst);
}

/// Runs the tasks that `start` spawns, for ever.
pub fn run(start: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    load::STARTING.add(time::steps());
    start(executor.spawner());
    loop {
        // SAFETY: this is the only place that polls, and a task cannot reach it.
        unsafe { executor.poll() };
        // With interrupts masked none can come between the look and the sleep; a pending one still ends WFI.
        cortex_m::interrupt::disable();
        if !WOKEN.swap(false, Ordering::SeqCst) {
            load::ASLEEP.of(cortex_m::asm::wfi);
        }
        // SAFETY: no critical section is open here.
        unsafe { cortex_m::interrupt::enable() };
    }
}
