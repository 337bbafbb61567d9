//! Register map of the ADXL345, as far as it is used. Source: Analog Devices' datasheet of the ADXL345, rev. E;
//! addresses and bits agree with the Linux driver.

/// Set in the address byte of a read.
pub const READ: u8 = 0x80;
/// Set in the address byte where the address counts up.
pub const MULTI: u8 = 0x40;

/// Fixed identity.
pub const DEVID: u8 = 0x00;
/// What [`DEVID`] reads.
pub const ID: u8 = 0xE5;
/// Bits 3..0: rate.
pub const BW_RATE: u8 = 0x2C;
/// 3200 Hz.
pub const RATE_3200: u8 = 0x0F;
/// 800 Hz.
pub const RATE_800: u8 = 0x0D;
/// Bit 3: measures (else standby).
pub const POWER_CTL: u8 = 0x2D;
/// Measures.
pub const MEASURE: u8 = 0x08;
/// Which events reach a pin.
pub const INT_ENABLE: u8 = 0x2E;
/// Events whose bit is 0 go to INT1.
pub const INT_MAP: u8 = 0x2F;
/// Events that are pending, enabled or not. Those of data are cleared by reading data.
pub const INT_SOURCE: u8 = 0x30;
/// Event: a new sample.
pub const DATA_READY: u8 = 0x80;
/// Event: the FIFO has reached its watermark.
pub const WATERMARK: u8 = 0x02;
/// Event: the FIFO is full, and may have dropped its oldest frames.
pub const OVERRUN: u8 = 0x01;
/// Bit 7: self-test; bit 5: interrupts active low; bit 3: full resolution; bits 1..0: range.
pub const DATA_FORMAT: u8 = 0x31;
/// Self-test force.
pub const SELF_TEST: u8 = 0x80;
/// Full resolution: 3.9 mg per count in every range.
pub const FULL_RES: u8 = 0x08;
/// First of the 6 data bytes, little-endian. Reading them takes the oldest frame out of the FIFO.
pub const DATAX0: u8 = 0x32;
/// Bits 7..6: mode; bits 4..0: watermark.
pub const FIFO_CTL: u8 = 0x38;
/// FIFO off and emptied.
pub const FIFO_BYPASS: u8 = 0x00;
/// Stream mode: keeps the newest 32 frames.
pub const FIFO_STREAM: u8 = 0x80;
/// Bits 5..0: frames in the FIFO.
pub const FIFO_STATUS: u8 = 0x39;

/// FIFO depth in frames.
pub const FRAMES_MAX: usize = 32;
/// Bytes of a frame.
pub const FRAME_LEN: usize = 6;
