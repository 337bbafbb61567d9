//! The ADXL345 at register level: identity, FIFO of frames with watermark and overrun, a lowest bit that is 0 at the
//! high rates, self-test response, an output rate some percent off nominal. It is supplied with 3.3 V.

pub use crate::sensor::model::Fault;

use super::registers as reg;
use super::{FullScale, RATE_NOMINAL_MHZ, SCALE};
use crate::clock::Timebase;
use crate::sensor::model::{self, Access, Part};
use crate::sensor::signal::Signal;
use heapless::Deque;

/// How far the outputs move in self-test at 3.3 V, m/s² (inside the datasheet's limits; the y axis moves down).
const SELF_TEST_MOVE: [f32; 3] = [1.5 * 9.806_65, -1.5 * 9.806_65, 2.5 * 9.806_65];

/// Registers.
const REGISTERS: usize = 0x40;

/// The chip's inside.
pub struct Chip<S> {
    source: S,
    part: Part,
    registers: [u8; REGISTERS],
    fifo: Deque<[i16; 3], { reg::FRAMES_MAX }>,
    last: [i16; 3],
    fresh: bool,
}

/// The chip on its bus.
pub type Model<S, T> = model::Model<Chip<S>, T>;

impl<S: Signal, T: Timebase> Model<S, T> {
    /// A part whose rate is `rate_error` off (0.012: 1.2 % fast).
    pub fn new(source: S, time: T, rate_error: f64) -> Self {
        let part = Part::new(f64::from(RATE_NOMINAL_MHZ) / 1000.0 * (1.0 + rate_error));
        let mut registers = [0; REGISTERS];
        registers[usize::from(reg::BW_RATE)] = 0x0A;
        Self::wire(Chip { source, part, registers, fifo: Deque::new(), last: [0; 3], fresh: false }, time)
    }
}

impl<S: Signal> model::Chip for Chip<S> {
    fn access(byte: u8) -> Access {
        let (reads, counts_up) = (byte & reg::READ != 0, byte & reg::MULTI != 0);
        Access { register: byte & !(reg::READ | reg::MULTI), reads, counts_up }
    }

    fn part(&self) -> &Part {
        &self.part
    }

    fn part_mut(&mut self) -> &mut Part {
        &mut self.part
    }

    fn advance(&mut self, now: u64) {
        // At 800 Hz, in the self-test, one in four of the clock's frames is taken.
        let due = self.part.due(now) >> self.slower();
        let [least, most] = self.full_scale().ends();
        while self.part.taken < due && !self.part.ended {
            if self.part.patient && self.fifo.is_full() {
                return;
            }
            let Some(frame) = self.source.next(SCALE) else {
                self.part.ended = true;
                return;
            };
            #[allow(clippy::cast_possible_truncation, reason = "the ends are 13 bits")]
            let (least, most) = (least as i16, most as i16);
            self.last = frame.map(|count| (count & !1).clamp(least, most));
            self.fresh = true;
            if self.streaming() {
                if self.fifo.is_full() {
                    self.fifo.pop_front();
                }
                // There is room: the oldest was just dropped.
                let _ = self.fifo.push_back(self.last);
                self.source.batched(self.last);
            }
            self.part.taken += 1;
        }
    }

    fn read(&mut self, access: Access, out: &mut [u8]) {
        let frame =
            (access.register == reg::DATAX0).then(|| self.pop()).map(|frame| frame.map(i16::to_le_bytes));
        let mut register = access.register;
        for place in out {
            let at = usize::from(register.wrapping_sub(reg::DATAX0));
            *place = match &frame {
                Some(frame) if at < reg::FRAME_LEN => frame[at / 2][at % 2],
                _ => self.read_register(register),
            };
            if at == 1 && self.part.fault == Some(Fault::Garble) {
                *place ^= 0x40;
                self.part.fault = None;
            }
            register = register.wrapping_add(u8::from(access.counts_up));
        }
    }

    fn write(&mut self, register: u8, value: u8, now: u64) {
        let Some(place) = self.registers.get_mut(usize::from(register)) else { return };
        *place = value;
        if register == reg::FIFO_CTL && value >> 6 == 0 {
            self.fifo.clear();
        }
        if register == reg::POWER_CTL {
            self.part.restart((value & reg::MEASURE != 0).then_some(now));
        }
    }

    fn interrupts(&self) -> bool {
        self.routed() && self.fifo.len() >= self.watermark()
    }

    fn interrupts_at(&self) -> Option<u64> {
        if !self.routed() || !self.streaming() {
            return None;
        }
        let missing = self.watermark().saturating_sub(self.fifo.len()).max(1);
        self.part.tick_after(missing as u64)
    }

    fn is_empty(&self) -> bool {
        self.fifo.is_empty()
    }
}

impl<S> Chip<S> {
    fn register(&self, register: u8) -> u8 {
        self.registers.get(usize::from(register)).copied().unwrap_or(0)
    }

    fn routed(&self) -> bool {
        self.register(reg::INT_ENABLE) & !self.register(reg::INT_MAP) & reg::WATERMARK != 0
    }

    fn streaming(&self) -> bool {
        self.register(reg::FIFO_CTL) & 0xC0 == reg::FIFO_STREAM
    }

    fn watermark(&self) -> usize {
        usize::from(self.register(reg::FIFO_CTL) & 0x1F).max(1)
    }

    fn slower(&self) -> u8 {
        reg::RATE_3200.saturating_sub(self.register(reg::BW_RATE) & 0x0F)
    }

    fn full_scale(&self) -> FullScale {
        match self.register(reg::DATA_FORMAT) & 3 {
            0 => FullScale::G2,
            1 => FullScale::G4,
            2 => FullScale::G8,
            _ => FullScale::G16,
        }
    }

    /// The oldest frame, or, with the FIFO empty or off, the last one once more.
    fn pop(&mut self) -> [i16; 3] {
        self.fresh = false;
        let mut frame = self.fifo.pop_front().unwrap_or(self.last);
        if self.register(reg::DATA_FORMAT) & reg::SELF_TEST != 0
            && self.part.fault != Some(Fault::DeadSelfTest)
        {
            for (count, moved) in frame.iter_mut().zip(SELF_TEST_MOVE) {
                #[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
                let moved = libm::roundf(moved / SCALE) as i16;
                *count = count.saturating_add(moved);
            }
        }
        frame
    }

    fn read_register(&self, register: u8) -> u8 {
        let bit = |set: bool, mask: u8| if set { mask } else { 0 };
        match register {
            reg::DEVID => match self.part.fault {
                Some(Fault::WrongId(id)) => id,
                _ => reg::ID,
            },
            reg::INT_SOURCE => {
                bit(self.fresh, reg::DATA_READY)
                    | bit(self.fifo.len() >= self.watermark(), reg::WATERMARK)
                    | bit(self.fifo.is_full(), reg::OVERRUN)
            }
            reg::FIFO_STATUS => self.fifo.len().to_le_bytes()[0],
            _ => self.register(register),
        }
    }
}
