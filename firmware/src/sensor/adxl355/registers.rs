//! Register map of the ADXL355, as far as it is used. Source: Analog Devices' datasheet of the ADXL354/ADXL355;
//! addresses and bits agree with the Linux driver and the maker's no-OS driver.

/// Address byte: the register shifted left by one; bit 0 set for a read.
pub const READ: u8 = 0x01;

/// First of the three identity bytes.
pub const DEVID_AD: u8 = 0x00;
/// What the identity registers read: maker, MEMS, part.
pub const ID: [u8; 3] = [0xAD, 0x1D, 0xED];
/// Status flags; the next register holds the number of FIFO entries.
pub const STATUS: u8 = 0x04;
/// In [`STATUS`]: a new sample since the last read of it.
pub const DATA_RDY: u8 = 0x01;
/// In [`STATUS`]: the FIFO has reached its watermark.
pub const FIFO_FULL: u8 = 0x02;
/// In [`STATUS`]: the FIFO overran and its oldest entries are lost.
pub const FIFO_OVR: u8 = 0x04;
/// In [`STATUS`]: the part still loads its trim values.
pub const NVM_BUSY: u8 = 0x10;
/// Valid entries in the FIFO, 0 to 96.
pub const FIFO_ENTRIES: u8 = 0x05;
/// Temperature, 12 bits, high nibble first.
pub const TEMP2: u8 = 0x06;
/// Acceleration, 3 x 3 bytes, most significant first, 20 bits left-justified.
pub const XDATA3: u8 = 0x08;
/// FIFO entries; the address stays, so one burst reads many.
pub const FIFO_DATA: u8 = 0x11;
/// In the third byte of an entry: the entry is of the x axis.
pub const X_MARKER: u8 = 0x01;
/// In the third byte of an entry: the FIFO was empty, the entry is none.
pub const EMPTY: u8 = 0x02;
/// In the third byte of an entry: bits that are always zero.
pub const ZEROS: u8 = 0x0C;
/// Bits 3..0: rate and low-pass filter (0: 4 kHz, corner at 1 kHz); bits 6..4: high-pass (0: off).
pub const FILTER: u8 = 0x28;
/// 4 kHz, no high-pass.
pub const ODR_4000: u8 = 0x00;
/// Entries at which FIFO_FULL rises.
pub const FIFO_SAMPLES: u8 = 0x29;
/// Routing to the pins.
pub const INT_MAP: u8 = 0x2A;
/// FIFO watermark on INT1.
pub const FULL_EN1: u8 = 0x02;
/// Bits 1..0: range (1: ±2 g, 2: ±4 g, 3: ±8 g); bit 6: interrupts are active high.
pub const RANGE: u8 = 0x2C;
/// Interrupts are active high.
pub const INT_POL_HIGH: u8 = 0x40;
/// Bit 0: standby (set after a reset).
pub const POWER_CTL: u8 = 0x2D;
/// Standby.
pub const STANDBY: u8 = 0x01;
/// Measures, thermometer on.
pub const MEASURE: u8 = 0x00;
/// Bit 0: self-test mode; bit 1: the force.
pub const SELF_TEST: u8 = 0x2E;
/// Self-test mode without the force.
pub const ST1: u8 = 0x01;
/// The electrostatic force.
pub const ST2: u8 = 0x02;
/// A write of [`RESET_CODE`] resets the part.
pub const RESET: u8 = 0x2F;
/// See [`RESET`].
pub const RESET_CODE: u8 = 0x52;

/// FIFO depth in entries of one axis each.
pub const ENTRIES_MAX: usize = 96;
/// Bytes of an entry.
pub const ENTRY_LEN: usize = 3;

/// Thermometer's counts at 25 °C (datasheet, typical; older drivers have 1852 from an early revision).
pub const TEMP_AT_25: i32 = 1885;
/// Thermometer's counts per 100 °C (datasheet, typical: -9.05 per °C).
pub const TEMP_PER_100: i32 = -905;
