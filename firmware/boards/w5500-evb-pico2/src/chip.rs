//! The RP2350's own matters: how and why it restarts, and its name on the network.

use embassy_rp::peripherals::WATCHDOG;
use embassy_rp::watchdog::Watchdog;
use embassy_rp::{otp, pac};
use spindle_common::wire::messages::ResetCause;

/// Why the chip restarted (RP2350 datasheet: WATCHDOG REASON, POWMAN CHIP_RESET). The watchdog's word comes first, because its
/// reset leaves the power manager's flags as the last one of the whole chip set them.
pub fn reset_cause() -> ResetCause {
    let watchdog = pac::WATCHDOG.reason().read();
    if watchdog.timer() {
        return ResetCause::Watchdog;
    }
    if watchdog.force() {
        return ResetCause::Software;
    }
    let chip = pac::POWMAN.chip_reset().read();
    if chip.had_bor() {
        ResetCause::BrownOut
    } else if chip.had_por() {
        ResetCause::PowerOn
    } else if chip.had_run_low() {
        ResetCause::Pin
    } else {
        ResetCause::Unknown
    }
}

/// Resets the board; RAM keeps its contents. Through the watchdog, because the processor's own reset leaves the peripherals as
/// they are (RP2350 datasheet, chapter 7).
pub fn reset() -> ! {
    // SAFETY: nothing else of this program runs any more that could use the watchdog at the same time.
    let watchdog = unsafe { WATCHDOG::steal() };
    Watchdog::new(watchdog).trigger_reset();
    loop {
        cortex_m::asm::nop();
    }
}

/// A locally administered address from the chip's unique number: the same after each restart, different on each board.
pub fn mac_address() -> [u8; 6] {
    // Without a readable number all boards share one address, which only matters with two of them on one network.
    let id = otp::get_chipid().unwrap_or(1);
    let [_, _, _, a, b, c, d, e] = id.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    [0x02, a, b, c, d, e]
}
