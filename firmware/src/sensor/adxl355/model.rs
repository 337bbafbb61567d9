//! The ADXL355 at register level: identity, reset, FIFO of single axes with watermark and overrun, self-test response,
//! thermometer, an output rate some percent off nominal. The watermark's bit, and with it the pin, falls when STATUS is
//! read with the FIFO below its watermark.

pub use crate::sensor::model::Fault;

use super::fifo;
use super::registers as reg;
use super::{FullScale, RATE_NOMINAL_MHZ};
use crate::clock::Timebase;
use crate::sensor::ends;
use crate::sensor::model::{self, Access, Part};
use crate::sensor::signal::Signal;
use heapless::Deque;

/// How far the outputs move in self-test, m/s² (the datasheet's typical 0.3, 0.3 and 1.5 g).
const SELF_TEST_MOVE: [f32; 3] = [0.3 * 9.806_65, 0.3 * 9.806_65, 1.5 * 9.806_65];

/// What the thermometer reads: 25 °C.
const TEMP: [u8; 2] = [0x07, 0x5D];

/// Registers that can be written and read back.
const REGISTERS: usize = 0x40;

/// The chip's inside.
pub struct Chip<S> {
    source: S,
    part: Part,
    registers: [u8; REGISTERS],
    fifo: Deque<[u8; reg::ENTRY_LEN], { reg::ENTRIES_MAX }>,
    last: [i32; 3],
    status: u8,
}

/// The chip on its bus.
pub type Model<S, T> = model::Model<Chip<S>, T>;

impl<S: Signal<i32>, T: Timebase> Model<S, T> {
    /// A part whose rate is `rate_error` off (0.012: 1.2 % fast).
    pub fn new(source: S, time: T, rate_error: f64) -> Self {
        let part = Part::new(f64::from(RATE_NOMINAL_MHZ) / 1000.0 * (1.0 + rate_error));
        let registers = [0; REGISTERS];
        let mut chip = Chip { source, part, registers, fifo: Deque::new(), last: [0; 3], status: 0 };
        chip.reset();
        Self::wire(chip, time)
    }
}

impl<S: Signal<i32>> model::Chip for Chip<S> {
    fn access(byte: u8) -> Access {
        Access { register: byte >> 1, reads: byte & reg::READ != 0, counts_up: true }
    }

    fn part(&self) -> &Part {
        &self.part
    }

    fn part_mut(&mut self) -> &mut Part {
        &mut self.part
    }

    fn advance(&mut self, now: u64) {
        let due = self.part.due(now);
        let scale = self.scale();
        while self.part.taken < due && !self.part.ended {
            if self.part.patient && self.fifo.len() + 3 > reg::ENTRIES_MAX {
                return;
            }
            let Some(frame) = self.source.next(scale) else {
                self.part.ended = true;
                return;
            };
            let [least, most] = ends(20);
            self.last = frame.map(|count| count.clamp(least, most));
            let [x, y, z] = self.last;
            self.push(fifo::entry(x, reg::X_MARKER));
            self.push(fifo::entry(y, 0));
            self.push(fifo::entry(z, 0));
            self.status |= reg::DATA_RDY;
            if self.fifo.len() >= self.watermark() {
                self.status |= reg::FIFO_FULL;
            }
            self.source.batched(self.last);
            self.part.taken += 1;
        }
    }

    fn read(&mut self, access: Access, out: &mut [u8]) {
        if access.register == reg::FIFO_DATA {
            for entry in out.chunks_mut(reg::ENTRY_LEN) {
                let next = self.fifo.pop_front().unwrap_or([0, 0, reg::EMPTY]);
                entry.copy_from_slice(&next[..entry.len()]);
            }
            if self.part.fault == Some(Fault::Garble)
                && let Some(byte) = out.get_mut(2)
            {
                *byte ^= reg::X_MARKER;
                self.part.fault = None;
            }
            return;
        }
        for (place, offset) in out.iter_mut().zip(0u8..) {
            *place = self.read_register(access.register.wrapping_add(offset));
        }
    }

    fn write(&mut self, register: u8, value: u8, now: u64) {
        if register == reg::RESET {
            if value == reg::RESET_CODE {
                self.reset();
            }
            return;
        }
        // What lies below is read-only.
        if register < 0x1E {
            return;
        }
        let Some(place) = self.registers.get_mut(usize::from(register)) else { return };
        *place = value;
        if register == reg::POWER_CTL {
            self.part.restart((value & reg::STANDBY == 0).then_some(now));
        }
    }

    fn interrupts(&self) -> bool {
        self.routed() && self.status & reg::FIFO_FULL != 0
    }

    fn interrupts_at(&self) -> Option<u64> {
        if !self.routed() {
            return None;
        }
        let missing = self.watermark().saturating_sub(self.fifo.len()).div_ceil(3).max(1);
        self.part.tick_after(missing as u64)
    }

    fn is_empty(&self) -> bool {
        self.fifo.is_empty()
    }
}

impl<S: Signal<i32>> Chip<S> {
    fn register(&self, register: u8) -> u8 {
        self.registers.get(usize::from(register)).copied().unwrap_or(0)
    }

    fn routed(&self) -> bool {
        let active_high = self.register(reg::RANGE) & reg::INT_POL_HIGH != 0;
        active_high && self.register(reg::INT_MAP) & reg::FULL_EN1 != 0
    }

    fn watermark(&self) -> usize {
        usize::from(self.register(reg::FIFO_SAMPLES)).max(1)
    }

    fn scale(&self) -> f32 {
        match self.register(reg::RANGE) & 3 {
            2 => FullScale::G4,
            3 => FullScale::G8,
            _ => FullScale::G2,
        }
        .scale()
    }

    fn reset(&mut self) {
        self.registers = [0; REGISTERS];
        for (register, value) in
            [(reg::FIFO_SAMPLES, 0x60), (reg::RANGE, 0x81), (reg::POWER_CTL, reg::STANDBY)]
        {
            self.registers[usize::from(register)] = value;
        }
        self.part.restart(None);
        self.fifo.clear();
        self.status = 0;
    }

    fn push(&mut self, entry: [u8; reg::ENTRY_LEN]) {
        if self.fifo.is_full() {
            self.fifo.pop_front();
            self.status |= reg::FIFO_OVR;
        }
        // There is room: the oldest was just dropped.
        let _ = self.fifo.push_back(entry);
    }

    fn read_register(&mut self, register: u8) -> u8 {
        const TEMP1: u8 = reg::TEMP2 + 1;
        const DATA_END: u8 = reg::XDATA3 + 8;
        match register {
            0..=2 => match self.part.fault {
                Some(Fault::WrongId(id)) => id,
                _ => reg::ID[usize::from(register)],
            },
            reg::STATUS => {
                let status = self.status;
                let reached = self.fifo.len() >= self.watermark();
                self.status = if reached { reg::FIFO_FULL } else { 0 };
                status
            }
            reg::FIFO_ENTRIES => self.fifo.len().to_le_bytes()[0],
            reg::TEMP2 => TEMP[0],
            TEMP1 => TEMP[1],
            reg::XDATA3..=DATA_END => {
                let at = usize::from(register - reg::XDATA3);
                let axis = at / reg::ENTRY_LEN;
                fifo::entry(self.last[axis] + self.self_test_counts(axis), 0)[at % reg::ENTRY_LEN]
            }
            _ => self.register(register),
        }
    }

    fn self_test_counts(&self, axis: usize) -> i32 {
        let on = self.register(reg::SELF_TEST) == reg::ST1 | reg::ST2;
        if !on || self.part.fault == Some(Fault::DeadSelfTest) {
            return 0;
        }
        #[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
        let counts = libm::roundf(SELF_TEST_MOVE[axis] / self.scale()) as i32;
        counts
    }
}
