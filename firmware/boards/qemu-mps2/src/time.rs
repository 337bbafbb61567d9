//! Time: microseconds from the Ethernet chip's free-running 25 MHz counter, alarms from SysTick. Counting SysTick's
//! interrupts instead loses 0.15 % in QEMU (measured), as each start of it comes late.

use crate::mmio::Reg;
use core::cell::RefCell;
use core::task::Waker;
use cortex_m_rt::exception;
use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;

/// Both counters run at the machine's 25 MHz.
const CYCLES_PER_TICK: u64 = 25_000_000 / embassy_time_driver::TICK_HZ;

const FREE_RUN: Reg = Reg::at(0x4020_009C);
const SYST_CSR: Reg = Reg::at(0xE000_E010);
const SYST_RVR: Reg = Reg::at(0xE000_E014);
const SYST_CVR: Reg = Reg::at(0xE000_E018);

/// Longest that SysTick counts: 0.67 s, so that the 32-bit counter (172 s) is read often enough to be extended.
const CYCLES_MAX: u64 = 0x00FF_FFFF;

/// SysTick needs a few cycles to count at all.
const CYCLES_MIN: u64 = 50;

/// The counter: 25 million steps a second, by the machine's own clock.
pub fn steps() -> u32 {
    FREE_RUN.read()
}

struct State {
    queue: Queue,
    /// The counter as last read, with its overflows.
    cycles: u64,
}

struct Clock {
    state: Mutex<RefCell<State>>,
}

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock {
    state: Mutex::new(RefCell::new(State { queue: Queue::new(), cycles: 0 })),
});

impl State {
    fn cycles(&mut self) -> u64 {
        let low = u64::from(steps());
        let high = self.cycles & !0xFFFF_FFFF;
        let carry = if low < self.cycles & 0xFFFF_FFFF { 1 << 32 } else { 0 };
        self.cycles = high + carry + low;
        self.cycles
    }

    fn now(&mut self) -> u64 {
        self.cycles() / CYCLES_PER_TICK
    }

    /// Wakes who is due and sets the next alarm.
    fn turn(&mut self) {
        let now = self.now();
        let next = self.queue.next_expiration(now);
        let cycles = next.saturating_sub(now).saturating_mul(CYCLES_PER_TICK).clamp(CYCLES_MIN, CYCLES_MAX);
        SYST_CSR.write(0);
        SYST_RVR.write(u32::try_from(cycles).unwrap_or(u32::MAX));
        SYST_CVR.write(0);
        // Enabled, with interrupt, on the processor's clock.
        SYST_CSR.write(0b111);
    }
}

impl Clock {
    fn with<R>(&self, section: CriticalSection<'_>, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.borrow(section).borrow_mut())
    }
}

impl Driver for Clock {
    fn now(&self) -> u64 {
        critical_section::with(|section| self.with(section, State::now))
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|section| {
            self.with(section, |state| {
                if state.queue.schedule_wake(at, waker) {
                    state.turn();
                }
            });
        });
    }
}

/// Steps since the machine was switched on.
pub fn steps_in_all() -> u64 {
    critical_section::with(|section| CLOCK.with(section, State::cycles))
}

/// Starts the alarms; before this only `now` works.
pub fn start() {
    critical_section::with(|section| CLOCK.with(section, State::turn));
}

#[exception]
fn SysTick() {
    start();
}
