//! The LAN9118 Ethernet chip for embassy-net. Registers and bits: SMSC's datasheet of the LAN9118, as far as QEMU models it.

use crate::irq;
use crate::mmio::Reg;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Context;
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;

const BASE: usize = 0x4020_0000;
const RX_DATA: Reg = Reg::at(BASE);
const TX_DATA: Reg = Reg::at(BASE + 0x20);
const RX_STATUS: Reg = Reg::at(BASE + 0x40);
const TX_STATUS: Reg = Reg::at(BASE + 0x48);
const ID_REV: Reg = Reg::at(BASE + 0x50);
const IRQ_CFG: Reg = Reg::at(BASE + 0x54);
const INT_STS: Reg = Reg::at(BASE + 0x58);
const INT_EN: Reg = Reg::at(BASE + 0x5C);
const FIFO_INT: Reg = Reg::at(BASE + 0x68);
const TX_CFG: Reg = Reg::at(BASE + 0x70);
const RX_FIFO_INF: Reg = Reg::at(BASE + 0x7C);
const TX_FIFO_INF: Reg = Reg::at(BASE + 0x80);
const MAC_CSR_CMD: Reg = Reg::at(BASE + 0xA4);
const MAC_CSR_DATA: Reg = Reg::at(BASE + 0xA8);

/// In `ID_REV`, upper half.
const ID: u32 = 0x0118;
/// Interrupt on, active high, push-pull.
const IRQ_ACTIVE_HIGH: u32 = 0x111;
/// A frame's status is in the receive status FIFO.
const INT_RX: u32 = 1 << 3;
/// The PHY has something to tell.
const INT_PHY: u32 = 1 << 18;
const TX_ON: u32 = 1 << 1;
const RX_ERROR: u32 = 1 << 15;

const CSR_BUSY: u32 = 1 << 31;
const CSR_READ: u32 = 1 << 30;
const MAC_CR: u32 = 1;
const MAC_ADDRH: u32 = 2;
const MAC_ADDRL: u32 = 3;
const MAC_MII_ACC: u32 = 6;
const MAC_MII_DATA: u32 = 7;
const MAC_TX_RX_ON: u32 = 1 << 3 | 1 << 2;
/// The PHY's address on its bus.
const PHY: u32 = 1 << 11;
const MII_BUSY: u32 = 1;
const PHY_STATUS: u32 = 1;
const PHY_STATUS_LINK: u32 = 1 << 2;
const PHY_INT_SOURCE: u32 = 29;
const PHY_INT_MASK: u32 = 30;
/// Link went down; negotiation complete.
const PHY_INT_LINK: u32 = 1 << 4 | 1 << 6;

/// Largest Ethernet frame without its checksum.
const FRAME_LEN: usize = 1514;
/// The same in whole words, as the FIFOs want them.
const BUFFER_LEN: usize = FRAME_LEN.next_multiple_of(4);

static WAKER: AtomicWaker = AtomicWaker::new();
static PHY_TELLS: AtomicBool = AtomicBool::new(true);

/// A register of the MAC never stays busy for long; a chip that does is not there.
const CSR_LOOKS: u32 = 1000;

/// The chip.
pub struct Lan9118 {
    rx: [u8; BUFFER_LEN],
    tx: [u8; BUFFER_LEN],
    link: LinkState,
    address: [u8; 6],
}

impl Lan9118 {
    /// Starts the chip. `None` when another answers.
    pub fn start() -> Option<Self> {
        if ID_REV.read() >> 16 != ID {
            return None;
        }
        let [a, b, c, d] = csr_read(MAC_ADDRL).to_le_bytes();
        let [e, f, ..] = csr_read(MAC_ADDRH).to_le_bytes();
        TX_CFG.write(TX_ON);
        csr_write(MAC_CR, MAC_TX_RX_ON);
        phy_write(PHY_INT_MASK, PHY_INT_LINK);
        FIFO_INT.write(0);
        IRQ_CFG.write(IRQ_ACTIVE_HIGH);
        INT_STS.write(u32::MAX);
        INT_EN.write(INT_RX | INT_PHY);
        irq::enable(irq::ETHERNET);
        Some(Self {
            rx: [0; BUFFER_LEN],
            tx: [0; BUFFER_LEN],
            link: LinkState::Down,
            address: [a, b, c, d, e, f],
        })
    }

    fn has_frame() -> bool {
        // Cleared first: a frame that comes after the look sets it again.
        INT_STS.write(INT_RX);
        RX_FIFO_INF.read() >> 16 & 0xFF != 0
    }

    fn has_room() -> bool {
        // The frame and its two command words.
        (TX_FIFO_INF.read() & 0xFFFF) as usize >= BUFFER_LEN + 8
    }
}

/// From the interrupt: quiet until the next receive asks for it again.
pub fn interrupt() {
    if INT_STS.read() & INT_PHY != 0 {
        // Reading it takes the interrupt back.
        phy_read(PHY_INT_SOURCE);
        INT_STS.write(INT_PHY);
        PHY_TELLS.store(true, Ordering::SeqCst);
    }
    INT_EN.write(INT_PHY);
    WAKER.wake();
}

impl Driver for Lan9118 {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, context: &mut Context<'_>) -> Option<(Received<'_>, ToSend<'_>)> {
        WAKER.register(context.waker());
        if !Self::has_frame() || !Self::has_room() {
            INT_EN.write(INT_RX | INT_PHY);
            return None;
        }
        let status = RX_STATUS.read();
        let len = (status >> 16 & 0x3FFF) as usize;
        let mut places = self.rx.chunks_exact_mut(4);
        for _ in 0..len.div_ceil(4) {
            let word = RX_DATA.read();
            if let Some(place) = places.next() {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
        // The length counts the frame's checksum. A broken frame is handed up empty, and the stack drops it.
        let len = if status & RX_ERROR == 0 { len.saturating_sub(4).min(FRAME_LEN) } else { 0 };
        Some((Received(self.rx.get_mut(..len)?), ToSend(&mut self.tx)))
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Option<ToSend<'_>> {
        WAKER.register(context.waker());
        Self::has_room().then_some(ToSend(&mut self.tx))
    }

    fn link_state(&mut self, context: &mut Context<'_>) -> LinkState {
        WAKER.register(context.waker());
        if PHY_TELLS.swap(false, Ordering::SeqCst) {
            let up = critical_section::with(|_| phy_read(PHY_STATUS)) & PHY_STATUS_LINK != 0;
            self.link = if up { LinkState::Up } else { LinkState::Down };
        }
        self.link
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME_LEN;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address)
    }
}

/// A frame that came in.
pub struct Received<'a>(&'a mut [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

/// Room for a frame that goes out.
pub struct ToSend<'a>(&'a mut [u8; BUFFER_LEN]);

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        // The stack keeps to the MTU that the driver names; should it not, its writer would be cut, not the memory behind.
        let len = len.min(FRAME_LEN);
        let result = fill(&mut self.0[..len]);
        // Command A: first and last segment, length of the buffer; command B: length of the packet.
        let length = len as u32;
        TX_DATA.write(1 << 13 | 1 << 12 | length);
        TX_DATA.write(length << 16 | length);
        for word in self.0.chunks_exact(4).take(len.div_ceil(4)) {
            if let &[a, b, c, d] = word {
                TX_DATA.write(u32::from_le_bytes([a, b, c, d]));
            }
        }
        // Taken from its FIFO, or that would fill.
        while TX_FIFO_INF.read() >> 16 & 0xFF != 0 {
            TX_STATUS.read();
        }
        result
    }
}

fn csr_ready() {
    for _ in 0..CSR_LOOKS {
        if MAC_CSR_CMD.read() & CSR_BUSY == 0 {
            return;
        }
    }
}

fn csr_read(register: u32) -> u32 {
    MAC_CSR_CMD.write(CSR_BUSY | CSR_READ | register);
    csr_ready();
    MAC_CSR_DATA.read()
}

fn csr_write(register: u32, value: u32) {
    MAC_CSR_DATA.write(value);
    MAC_CSR_CMD.write(CSR_BUSY | register);
    csr_ready();
}

fn phy_read(register: u32) -> u32 {
    csr_write(MAC_MII_ACC, PHY | register << 6 | MII_BUSY);
    csr_read(MAC_MII_DATA)
}

fn phy_write(register: u32, value: u32) {
    csr_write(MAC_MII_DATA, value);
    csr_write(MAC_MII_ACC, PHY | register << 6 | 1 << 1 | MII_BUSY);
}
