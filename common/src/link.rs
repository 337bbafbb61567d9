//! What a stream costs on its link: the same sum for `validate`, for the firmware's build and for a node that is asked to send
//! more than fits.

use crate::settings::Step;
use crate::wire::{Encoding, TRIGGER_LEN_MAX, block_len_max, frame};

/// Share of a link that data may use.
pub const SHARE_MAX: f64 = 0.8;

/// Bits on the line per byte: 8N1 on a UART; over Ethernet the two more stand for the headers of MQTT, TCP, IP and Ethernet.
pub const BITS_PER_BYTE: f64 = 10.0;

/// Longest features message: a header, and six floats for each of eight channels.
const FEATURES_LEN_MAX: usize = 2 + 33 + 10 + 1 + 5 + 10 + 5 + 10 + 5 + 5 + 3 + 1 + 8 * 24 + 4;

/// What is sent of one sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// How it reports.
    pub step: Step,
    /// Channels sent.
    pub axes: usize,
    /// Samples per channel and block.
    pub block_samples: u16,
    /// Encoding of blocks. Rice is reckoned as raw: noise may not shrink at all.
    pub encoding: Encoding,
    /// The sensor's rate, Hz.
    pub rate_hz: f64,
    /// Samples of the sensor per sample sent in step `Decimated`.
    pub decimation: u16,
}

impl Load {
    /// Bits per second on the line at most, bursts not counted: they go out as room is left.
    #[must_use]
    pub fn bits_per_s(&self) -> f64 {
        let block = |rate_hz: f64| {
            let len = block_len_max(self.axes, self.block_samples.into(), self.encoding);
            frame::len_max(len) as f64 * BITS_PER_BYTE * rate_hz / f64::from(self.block_samples.max(1))
        };
        match self.step {
            Step::Raw => block(self.rate_hz),
            Step::Decimated => block(self.rate_hz / f64::from(self.decimation.max(1))),
            Step::Features => frame::len_max(FEATURES_LEN_MAX + TRIGGER_LEN_MAX) as f64 * BITS_PER_BYTE,
        }
    }
}

/// Whether loads of so many bits per second together leave a link of `capacity_bits_per_s` enough room.
#[must_use]
pub fn fits(bits_per_s: f64, capacity_bits_per_s: f64) -> bool {
    bits_per_s <= capacity_bits_per_s * SHARE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iis3dwb(axes: usize, step: Step) -> Load {
        let encoding = Encoding::Raw16;
        Load { step, axes, block_samples: 512, encoding, rate_hz: 26_666.667, decimation: 16 }
    }

    #[test]
    fn raw_data_of_three_fast_axes_fits_no_uart_at_921600_baud_but_one_axis_does() {
        assert!(!fits(iis3dwb(3, Step::Raw).bits_per_s(), 921_600.0));
        assert!(fits(iis3dwb(1, Step::Raw).bits_per_s(), 921_600.0));
        assert!(fits(iis3dwb(3, Step::Raw).bits_per_s(), 3_000_000.0));
    }

    #[test]
    fn each_step_costs_less_than_the_one_before() {
        let cost = |step| iis3dwb(3, step).bits_per_s();
        assert!(cost(Step::Raw) > 10.0 * cost(Step::Decimated));
        assert!(cost(Step::Decimated) > 10.0 * cost(Step::Features));
    }
}
