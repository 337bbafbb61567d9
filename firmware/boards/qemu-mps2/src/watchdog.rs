//! The CMSDK watchdog: at the end of the first period it raises the NMI, at the end of the second it resets the board.

use crate::RETAINED;
use crate::mmio::Reg;
use core::sync::atomic::{AtomicPtr, Ordering};
use cortex_m_rt::exception;
use spindle_firmware::app::{WATCHDOG_TIMEOUT_MS, Watchdog};

const LOAD: Reg = Reg::at(0x4000_8000);
const CONTROL: Reg = Reg::at(0x4000_8008);
const INTCLR: Reg = Reg::at(0x4000_800C);
const LOCK: Reg = Reg::at(0x4000_8C00);

/// What opens the lock (ARM CMSDK, WDOGLOCK).
const UNLOCK: u32 = 0x1ACC_E551;

/// Periods of 25 MHz cycles: two of them until the reset.
const CYCLES: u32 = WATCHDOG_TIMEOUT_MS / 2 * 25_000;

/// The watchdog, running.
pub struct Cmsdk(());

impl Cmsdk {
    /// Starts it; `shell` is asked for the tasks to blame shortly before it bites.
    pub fn start(shell: &'static crate::BoardShell) -> Self {
        SHELL.store(core::ptr::from_ref(shell).cast_mut(), Ordering::SeqCst);
        LOCK.write(UNLOCK);
        LOAD.write(CYCLES);
        // Interrupt and reset.
        CONTROL.write(0b11);
        LOCK.write(0);
        Self(())
    }
}

impl Watchdog for Cmsdk {
    fn feed(&mut self) {
        LOCK.write(UNLOCK);
        // Any write counts from LOAD again.
        INTCLR.write(1);
        LOCK.write(0);
    }
}

static SHELL: AtomicPtr<crate::BoardShell> = AtomicPtr::new(core::ptr::null_mut());

#[exception]
unsafe fn NonMaskableInt() {
    // SAFETY: null, or from a `&'static` in `start`; what is called uses atomics only.
    match unsafe { SHELL.load(Ordering::SeqCst).as_ref() } {
        Some(shell) => shell.about_to_be_bitten(),
        None => RETAINED.note_hung(0),
    }
    // Left uncleared, so that the second period ends in the reset; without the interrupt, which would come at once again.
    LOCK.write(UNLOCK);
    CONTROL.write(0b11);
    LOCK.write(0);
}
