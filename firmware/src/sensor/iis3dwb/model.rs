//! The IIS3DWB at register level: identity, reset, FIFO with watermark and overrun, timestamps, self-test response, an
//! output rate some percent off nominal.

pub use crate::sensor::model::Fault;

use super::registers as reg;
use super::{FullScale, RATE_NOMINAL_MHZ};
use crate::clock::Timebase;
use crate::sensor::model::{self, Access, Part};
use crate::sensor::signal::Signal;
use heapless::Deque;

/// Timestamp ticks per frame: 80 kHz against 26.667 kHz.
const STAMP_PER_FRAME: u64 = 3;

/// How far the outputs move in self-test, m/s² (inside the datasheet's 0.8 to 3.2 g).
const SELF_TEST_MOVE: f32 = 1.6 * 9.806_65;

/// The chip's inside.
pub struct Chip<S> {
    source: S,
    part: Part,
    registers: [u8; 128],
    fifo: Deque<[u8; reg::WORD_LEN], { reg::FIFO_WORDS }>,
    freq_fine: i8,
    last: [i16; 3],
    fresh: bool,
    overrun_latched: bool,
    overrun: bool,
}

/// The chip on its bus.
pub type Model<S, T> = model::Model<Chip<S>, T>;

impl<S: Signal, T: Timebase> Model<S, T> {
    /// A part whose rate is `rate_error` off (0.012: 1.2 % fast), as its trim register tells to 0.15 %.
    pub fn new(source: S, time: T, rate_error: f64) -> Self {
        let rate_hz = f64::from(RATE_NOMINAL_MHZ) / 1000.0 * (1.0 + rate_error);
        #[allow(clippy::cast_possible_truncation, reason = "`as` saturates, as the register does")]
        let freq_fine = libm::round(rate_error / 0.0015) as i8;
        let chip = Chip {
            source,
            part: Part::new(rate_hz),
            registers: [0; 128],
            fifo: Deque::new(),
            freq_fine,
            last: [0; 3],
            fresh: false,
            overrun_latched: false,
            overrun: false,
        };
        Self::wire(chip, time)
    }
}

impl<S: Signal> model::Chip for Chip<S> {
    fn access(byte: u8) -> Access {
        Access { register: byte & !reg::READ, reads: byte & reg::READ != 0, counts_up: true }
    }

    fn part(&self) -> &Part {
        &self.part
    }

    fn part_mut(&mut self) -> &mut Part {
        &mut self.part
    }

    fn advance(&mut self, now: u64) {
        let due = self.part.due(now);
        let (scale, batching) = (self.scale(), self.batching());
        while self.part.taken < due && !self.part.ended {
            // A frame may bring a timestamp word with it.
            if self.part.patient && self.fifo.len() + 2 > reg::FIFO_WORDS {
                return;
            }
            let Some(frame) = self.source.next(scale) else {
                self.part.ended = true;
                return;
            };
            self.last = frame;
            self.fresh = true;
            if batching {
                self.batch(frame);
            }
            self.part.taken += 1;
        }
    }

    fn read(&mut self, access: Access, out: &mut [u8]) {
        if access.register == reg::FIFO_DATA_OUT_TAG {
            for word in out.chunks_mut(reg::WORD_LEN) {
                let next = self.fifo.pop_front().unwrap_or_default();
                word.copy_from_slice(&next[..word.len()]);
            }
            self.overrun = false;
            if self.part.fault == Some(Fault::Garble)
                && let Some(byte) = out.first_mut()
            {
                *byte ^= 0x10;
                self.part.fault = None;
            }
            return;
        }
        for (place, offset) in out.iter_mut().zip(0u8..) {
            *place = self.read_register(access.register.wrapping_add(offset) & 0x7F);
        }
    }

    fn write(&mut self, register: u8, value: u8, now: u64) {
        if register == reg::CTRL3_C && value & reg::SW_RESET != 0 {
            self.registers = [0; 128];
            self.part.restart(None);
            self.empty();
            return;
        }
        let sampled = self.sampling();
        self.registers[usize::from(register & 0x7F)] = value;
        if register == reg::FIFO_CTRL4 && value & 7 == 0 {
            self.empty();
        }
        if self.sampling() != sampled {
            self.part.restart(self.sampling().then_some(now));
        }
    }

    fn interrupts(&self) -> bool {
        self.routed() && self.fifo.len() >= self.watermark()
    }

    fn interrupts_at(&self) -> Option<u64> {
        if !self.routed() || !self.sampling() || !self.batching() {
            return None;
        }
        let missing = self.watermark().saturating_sub(self.fifo.len()) as u64;
        // Each 32 frames bring a 33rd word; they may bring the watermark sooner.
        self.part.tick_after((missing * 32).div_ceil(33).max(1))
    }

    fn is_empty(&self) -> bool {
        self.fifo.is_empty()
    }
}

impl<S: Signal> Chip<S> {
    fn sampling(&self) -> bool {
        self.registers[usize::from(reg::CTRL1_XL)] & 0xE0 == reg::XL_ENABLE
    }

    fn batching(&self) -> bool {
        let on = self.registers[usize::from(reg::FIFO_CTRL4)] & 7 == 6;
        on && self.registers[usize::from(reg::FIFO_CTRL3)] & 0xF == reg::BDR_XL_26K7
    }

    fn routed(&self) -> bool {
        self.registers[usize::from(reg::INT1_CTRL)] & reg::INT1_FIFO_TH != 0
    }

    fn watermark(&self) -> usize {
        let high = usize::from(self.registers[usize::from(reg::FIFO_CTRL2)] & 1) << 8;
        (high | usize::from(self.registers[usize::from(reg::FIFO_CTRL1)])).max(1)
    }

    fn scale(&self) -> f32 {
        match self.registers[usize::from(reg::CTRL1_XL)] >> 2 & 3 {
            0 => FullScale::G2,
            1 => FullScale::G16,
            2 => FullScale::G4,
            _ => FullScale::G8,
        }
        .scale()
    }

    fn batch(&mut self, frame: [i16; 3]) {
        let slot = self.part.taken.to_le_bytes()[0] & 3;
        let [x, y, z] = frame.map(i16::to_le_bytes);
        self.push([reg::tag(reg::TAG_XL, slot), x[0], x[1], y[0], y[1], z[0], z[1]]);
        let stamped = self.registers[usize::from(reg::CTRL10_C)] & reg::TIMESTAMP_EN != 0;
        let every_32 = self.registers[usize::from(reg::FIFO_CTRL4)] >> 6 == 3;
        if stamped && every_32 && self.part.taken.is_multiple_of(32) {
            let [a, b, c, d, ..] = (self.part.taken * STAMP_PER_FRAME).to_le_bytes();
            self.push([reg::tag(reg::TAG_TIMESTAMP, slot), a, b, c, d, 0, 0]);
        }
        self.source.batched(frame);
    }

    fn push(&mut self, word: [u8; reg::WORD_LEN]) {
        if self.fifo.is_full() {
            self.fifo.pop_front();
            self.overrun_latched = true;
            self.overrun = true;
        }
        // There is room: the oldest was just dropped.
        let _ = self.fifo.push_back(word);
    }

    fn empty(&mut self) {
        self.fifo.clear();
        (self.overrun, self.overrun_latched) = (false, false);
    }

    fn read_register(&mut self, register: u8) -> u8 {
        const STATUS2: u8 = reg::FIFO_STATUS1 + 1;
        const OUT_END: u8 = reg::OUTX_L_A + 5;
        match register {
            reg::WHO_AM_I => match self.part.fault {
                Some(Fault::WrongId(id)) => id,
                _ => reg::ID,
            },
            reg::INTERNAL_FREQ_FINE => self.freq_fine.cast_unsigned(),
            reg::STATUS_REG => u8::from(self.fresh),
            reg::FIFO_STATUS1 => self.fifo.len().to_le_bytes()[0],
            STATUS2 => {
                let len = self.fifo.len();
                let bit = |set: bool, mask: u8| if set { mask } else { 0 };
                (len >> 8).to_le_bytes()[0] & reg::DIFF_HIGH
                    | bit(core::mem::take(&mut self.overrun_latched), reg::OVER_RUN_LATCHED)
                    | bit(self.fifo.is_full(), reg::FIFO_FULL)
                    | bit(self.overrun, reg::FIFO_OVR)
                    | bit(len >= self.watermark(), reg::FIFO_WTM)
            }
            reg::OUTX_L_A..=OUT_END => {
                let at = register - reg::OUTX_L_A;
                if at == 5 {
                    self.fresh = false;
                }
                let value = self.last[usize::from(at / 2)].saturating_add(self.self_test_counts());
                value.to_le_bytes()[usize::from(at % 2)]
            }
            _ => self.registers[usize::from(register)],
        }
    }

    fn self_test_counts(&self) -> i16 {
        let on = self.registers[usize::from(reg::CTRL5_C)] & 3 == reg::ST_POSITIVE;
        if !on || self.part.fault == Some(Fault::DeadSelfTest) {
            return 0;
        }
        #[allow(clippy::cast_possible_truncation, reason = "`as` saturates")]
        let counts = libm::roundf(SELF_TEST_MOVE / self.scale()) as i16;
        counts
    }
}
