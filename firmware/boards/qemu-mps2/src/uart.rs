//! The CMSDK UART 0: interrupts fill a ring as bytes come in; what goes out waits for the transmitter's interrupt.

use crate::irq;
use crate::mmio::Reg;
use core::cell::RefCell;
use core::convert::Infallible;
use core::future::poll_fn;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::Poll;
use critical_section::Mutex;
use embassy_futures::yield_now;
use embassy_sync::waitqueue::AtomicWaker;
use embedded_io_async::{ErrorType, Read, Write};
use heapless::Deque;
use spindle_firmware::transport::Dial;

const DATA: Reg = Reg::at(0x4000_4000);
const STATE: Reg = Reg::at(0x4000_4004);
const CTRL: Reg = Reg::at(0x4000_4008);
const INTCLEAR: Reg = Reg::at(0x4000_400C);
const BAUDDIV: Reg = Reg::at(0x4000_4010);

const STATE_TX_FULL: u32 = 1 << 0;
const STATE_RX_FULL: u32 = 1 << 1;
const STATE_RX_OVERRUN: u32 = 1 << 3;
/// Both ways on, both interrupts on.
const CTRL_ON: u32 = 0b1111;
const INT_TX: u32 = 1 << 0;
const INT_RX: u32 = 1 << 1;

/// Divides the machine's 25 MHz; the chip's smallest. QEMU sends as fast as the other end reads, whatever this says.
const DIVIDER: u32 = 16;

/// Most bytes sent before other tasks have their turn.
const BURST_LEN: usize = 64;

/// What came in and was not read yet. Acks and commands are small; what does not fit is dropped and counted, and the frame's
/// checksum tells.
static RECEIVED: Mutex<RefCell<Deque<u8, 1024>>> = Mutex::new(RefCell::new(Deque::new()));
static RX_WAKER: AtomicWaker = AtomicWaker::new();
static TX_WAKER: AtomicWaker = AtomicWaker::new();
static RX_DROPPED: AtomicU32 = AtomicU32::new(0);

/// The line.
pub struct Uart(());

impl Uart {
    /// Switches it on.
    pub fn start() -> Self {
        BAUDDIV.write(DIVIDER);
        CTRL.write(CTRL_ON);
        irq::enable(irq::UART0_RX);
        irq::enable(irq::UART0_TX);
        Self(())
    }

    /// Bytes that came in and were lost.
    pub fn dropped() -> u32 {
        RX_DROPPED.load(Ordering::Relaxed)
    }
}

/// A byte came in.
pub fn received() {
    // Cleared first: a byte that comes after the last look asks again.
    INTCLEAR.write(INT_RX);
    critical_section::with(|section| {
        let mut bytes = RECEIVED.borrow_ref_mut(section);
        while STATE.read() & STATE_RX_FULL != 0 {
            let [byte, ..] = DATA.read().to_le_bytes();
            if bytes.push_back(byte).is_err() {
                RX_DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        if STATE.read() & STATE_RX_OVERRUN != 0 {
            STATE.write(STATE_RX_OVERRUN);
            RX_DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    });
    RX_WAKER.wake();
}

/// A byte went out.
pub fn sent() {
    INTCLEAR.write(INT_TX);
    TX_WAKER.wake();
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        poll_fn(|context| {
            RX_WAKER.register(context.waker());
            let count = critical_section::with(|section| {
                let mut received = RECEIVED.borrow_ref_mut(section);
                let count = received.len().min(bytes.len());
                for (place, byte) in bytes.iter_mut().zip(core::iter::from_fn(|| received.pop_front())) {
                    *place = byte;
                }
                count
            });
            if count > 0 || bytes.is_empty() { Poll::Ready(Ok(count)) } else { Poll::Pending }
        })
        .await
    }
}

impl Write for Uart {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        // The chip takes each byte at once, and QEMU makes a system call of it: without a pause the line would hold the
        // processor for as long as there is something to send.
        yield_now().await;
        let bytes = bytes.get(..BURST_LEN).unwrap_or(bytes);
        poll_fn(|context| {
            TX_WAKER.register(context.waker());
            let mut count = 0;
            while count < bytes.len() && STATE.read() & STATE_TX_FULL == 0 {
                DATA.write(bytes[count].into());
                count += 1;
            }
            if count > 0 || bytes.is_empty() { Poll::Ready(Ok(count)) } else { Poll::Pending }
        })
        .await
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A line is always open.
pub struct Line(pub Uart);

impl Dial for Line {
    type Io<'d> = &'d mut Uart;
    type Error = Infallible;

    async fn dial(&mut self) -> Result<&mut Uart, Infallible> {
        Ok(&mut self.0)
    }
}
