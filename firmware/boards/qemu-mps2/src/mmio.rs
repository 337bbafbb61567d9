//! Registers of the machine's devices.

/// A 32-bit register.
#[derive(Debug, Clone, Copy)]
pub struct Reg(usize);

impl Reg {
    /// The register at `address`, which must be one of a device or of the processor itself; anything else fails the build.
    pub const fn at(address: usize) -> Self {
        let of_a_device = address >= 0x4000_0000 && address < 0x6000_0000;
        let of_the_processor = address >= 0xE000_E000 && address < 0xE000_F000;
        assert!((of_a_device || of_the_processor) && address.is_multiple_of(4));
        Self(address)
    }

    /// Reads it.
    pub fn read(self) -> u32 {
        // SAFETY: `at` lets only aligned device registers through; they hold no Rust object, and any word read is valid.
        unsafe { core::ptr::with_exposed_provenance::<u32>(self.0).read_volatile() }
    }

    /// Writes it.
    pub fn write(self, value: u32) {
        // SAFETY: as for `read`. No device here reaches into memory by itself, so no write can break a Rust object.
        unsafe { core::ptr::with_exposed_provenance_mut::<u32>(self.0).write_volatile(value) }
    }
}
