//! The STM32H563's own matters: clocks, how and why it restarts, faults of its flash, its name on the network.

use cortex_m::peripheral::SCB;
use cortex_m_rt::exception;
use embassy_stm32::rcc::{
    AHBPrescaler, APBPrescaler, Hse, HseMode, Pll, PllDiv, PllMul, PllPreDiv, PllSource, Sysclk, VoltageScale,
};
use embassy_stm32::time::Hertz;
use embassy_stm32::{Config, pac};
use spindle_common::wire::messages::ResetCause;

/// 250 MHz from the 8 MHz that the board's ST-LINK gives (UM3115), so the tick counter is as steady as a crystal.
///
/// PLL1 runs at 500 MHz. Its output Q is 20 MHz because it drives the SPI buses, which divide by powers of two: 10 MHz
/// and 5 MHz, the highest clocks of our sensors, come out exactly.
pub fn clocks() -> Config {
    let mut config = Config::default();
    config.rcc.hsi = None;
    config.rcc.hse = Some(Hse { freq: Hertz(8_000_000), mode: HseMode::BypassDigital });
    config.rcc.pll1 = Some(Pll {
        source: PllSource::HSE,
        prediv: PllPreDiv::DIV2,
        mul: PllMul::MUL125,
        divp: Some(PllDiv::DIV2),
        divq: Some(PllDiv::DIV25),
        divr: None,
    });
    config.rcc.sys = Sysclk::PLL1_P;
    config.rcc.ahb_pre = AHBPrescaler::DIV1;
    config.rcc.apb1_pre = APBPrescaler::DIV1;
    config.rcc.apb2_pre = APBPrescaler::DIV1;
    config.rcc.apb3_pre = APBPrescaler::DIV1;
    config.rcc.voltage_scale = VoltageScale::Scale0;
    config
}

/// Why the chip restarted (RM0481, RCC_RSR). Clears the flags, so that the next restart tells its own cause.
pub fn reset_cause() -> ResetCause {
    let flags = pac::RCC.rsr().read();
    pac::RCC.rsr().modify(|flags| flags.set_rmvf(true));
    if flags.iwdgrstf() || flags.wwdgrstf() {
        ResetCause::Watchdog
    } else if flags.sftrstf() {
        ResetCause::Software
    } else if flags.borrstf() {
        // The chip has one flag for power-on and for brown-out.
        ResetCause::PowerOn
    } else if flags.pinrstf() {
        ResetCause::Pin
    } else {
        ResetCause::Unknown
    }
}

/// Resets the board; RAM keeps its contents.
pub fn reset() -> ! {
    SCB::sys_reset()
}

/// Takes note of a word of flash with more wrong bits than its check bits correct, which the chip tells by a non-maskable
/// interrupt (RM0481, FLASH_ECCDETR). In bank 2 only settings lie: a write that was cut by the end of power leaves such a
/// word, and the record's checksum refuses what was read. False when it was anything else.
fn forgive_settings() -> bool {
    let fault = pac::FLASH.eccdetr().read();
    let is_settings = fault.eccd() && fault.bk_ecc();
    if is_settings {
        // Writing a one clears the flag.
        pac::FLASH.eccdetr().write(|fault| fault.set_eccd(true));
    }
    is_settings
}

// SAFETY: the handler only touches a register of the flash that nothing else uses, stores into atomics and resets.
#[exception]
unsafe fn NonMaskableInt() {
    if !forgive_settings() {
        crate::shelf::fault(format_args!("non-maskable interrupt"))
    }
}

/// A locally administered address from the chip's unique number: the same after each restart, different on each board.
pub fn mac_address() -> [u8; 6] {
    // Read by words: the area does not take reads of single bytes.
    let id = [0, 1, 2].map(|word| pac::UID.uid(word).read());
    // FNV-1a, so that all 96 bits count: boards of one wafer differ in few of them.
    let hash = id.into_iter().flat_map(u32::to_le_bytes).fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [0x02, a, b, c, d, e]
}
