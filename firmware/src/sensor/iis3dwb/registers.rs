//! Register map of the IIS3DWB, as far as it is used. Source: ST's datasheet of the IIS3DWB and application note AN5444;
//! addresses and bits agree with ST's public C driver.

/// Set in the address byte of a read.
pub const READ: u8 = 0x80;

/// FIFO watermark, bits 7..0.
pub const FIFO_CTRL1: u8 = 0x07;
/// Bit 0: watermark bit 8; bit 7: stop on watermark.
pub const FIFO_CTRL2: u8 = 0x08;
/// Bits 3..0: batch rate of the accelerometer; 10: 26.667 kHz.
pub const FIFO_CTRL3: u8 = 0x09;
/// Batching of acceleration at 26.667 kHz.
pub const BDR_XL_26K7: u8 = 0x0A;
/// Bits 2..0: mode (0 bypass, 6 continuous); bits 7..6: timestamp every 1, 8, 32 frames.
pub const FIFO_CTRL4: u8 = 0x0A;
/// FIFO off and emptied.
pub const FIFO_BYPASS: u8 = 0x00;
/// Continuous mode, one timestamp word every 32 frames.
pub const FIFO_CONTINUOUS_TS32: u8 = 0xC6;
/// Routing to INT1; bit 3: FIFO watermark.
pub const INT1_CTRL: u8 = 0x0D;
/// FIFO watermark on INT1.
pub const INT1_FIFO_TH: u8 = 0x08;
/// Fixed identity.
pub const WHO_AM_I: u8 = 0x0F;
/// What [`WHO_AM_I`] reads.
pub const ID: u8 = 0x7B;
/// Bits 7..5: 101 enables the accelerometer; bits 3..2: full scale.
pub const CTRL1_XL: u8 = 0x10;
/// Accelerometer on, at 26.667 kHz.
pub const XL_ENABLE: u8 = 0xA0;
/// Bit 0: software reset; bit 2: address auto-increment; bit 6: block data update.
pub const CTRL3_C: u8 = 0x12;
/// Software reset; reads 1 until done.
pub const SW_RESET: u8 = 0x01;
/// Auto-increment and block data update.
pub const IF_INC_BDU: u8 = 0x44;
/// Bit 2: I2C off.
pub const CTRL4_C: u8 = 0x13;
/// I2C off, as the bus is SPI.
pub const I2C_DISABLE: u8 = 0x04;
/// Bits 1..0: self-test (1 positive, 2 negative).
pub const CTRL5_C: u8 = 0x14;
/// Positive self-test.
pub const ST_POSITIVE: u8 = 0x01;
/// Bit 5: timestamp counter on.
pub const CTRL10_C: u8 = 0x19;
/// Timestamp counter on.
pub const TIMESTAMP_EN: u8 = 0x20;
/// Bit 0: new acceleration.
pub const STATUS_REG: u8 = 0x1E;
/// Temperature, 16 bits little-endian, 256 counts per °C, 0 at 25 °C.
pub const OUT_TEMP_L: u8 = 0x20;
/// Acceleration, 3 x 16 bits little-endian.
pub const OUTX_L_A: u8 = 0x28;
/// Unread FIFO words, bits 7..0; the next register holds bits 9..8 and the flags.
pub const FIFO_STATUS1: u8 = 0x3A;
/// In the second status byte: bits 9..8 of the number of unread words.
pub const DIFF_HIGH: u8 = 0x03;
/// In the second status byte: an overrun happened since the last read of it.
pub const OVER_RUN_LATCHED: u8 = 0x08;
/// In the second status byte: the FIFO will overwrite its oldest word next.
pub const FIFO_FULL: u8 = 0x20;
/// In the second status byte: the FIFO has overwritten words and is still full.
pub const FIFO_OVR: u8 = 0x40;
/// In the second status byte: watermark reached.
pub const FIFO_WTM: u8 = 0x80;
/// Difference of the effective rate from the nominal, signed, 0.15 % a step.
pub const INTERNAL_FREQ_FINE: u8 = 0x63;
/// First of the 7 bytes of a FIFO word; the address wraps after the seventh, so one burst reads many words.
pub const FIFO_DATA_OUT_TAG: u8 = 0x78;

/// FIFO depth in words.
pub const FIFO_WORDS: usize = 512;
/// Bytes of a FIFO word: a tag and three 16-bit values.
pub const WORD_LEN: usize = 7;
/// `TAG_SENSOR` (bits 7..3 of the tag) of an acceleration word.
pub const TAG_XL: u8 = 0x02;
/// `TAG_SENSOR` of a timestamp word: 32 bits little-endian in the first four data bytes.
pub const TAG_TIMESTAMP: u8 = 0x04;

/// A tag byte: sensor in bits 7..3, slot counter in bits 2..1, even parity in bit 0.
#[must_use]
pub const fn tag(sensor: u8, slot: u8) -> u8 {
    let byte = sensor << 3 | (slot & 3) << 1;
    byte | (byte.count_ones() & 1) as u8
}
