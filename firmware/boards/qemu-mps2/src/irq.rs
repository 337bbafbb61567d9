//! The machine's interrupts, by QEMU's wiring of the AN386 (hw/arm/mps2.c) and ARM's application note.

use crate::{lan9118, uart};
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;

/// An interrupt's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Irq(u16);

/// UART 0 has received.
pub const UART0_RX: Irq = Irq(0);
/// UART 0 has sent.
pub const UART0_TX: Irq = Irq(1);
/// The Ethernet chip.
pub const ETHERNET: Irq = Irq(13);

// SAFETY: the numbers are those of the machine; all are below the 32 that it has.
unsafe impl InterruptNumber for Irq {
    fn number(self) -> u16 {
        self.0
    }
}

/// Lets it through.
pub fn enable(irq: Irq) {
    // SAFETY: no critical section here relies on a masked interrupt; shared state is behind critical sections.
    unsafe { NVIC::unmask(irq) };
}

#[exception]
unsafe fn DefaultHandler(number: i16) {
    match u16::try_from(number).map(Irq) {
        Ok(UART0_RX) => uart::received(),
        Ok(UART0_TX) => uart::sent(),
        Ok(ETHERNET) => lan9118::interrupt(),
        // Nothing else was let through.
        _ => {}
    }
}
