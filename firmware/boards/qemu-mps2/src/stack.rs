//! How much of the stack was ever used: start-up paints it, and what is not paint any more was used.

/// What cortex-m-rt paints with.
const PAINT: u32 = 0xCCCC_CCCC;

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

/// Most bytes of the stack that were in use at once so far, and how many there are.
pub fn used() -> (usize, usize) {
    let (top, mut at) = ((&raw const _stack_start), (&raw const _stack_end));
    let size = top.addr() - at.addr();
    // SAFETY: both symbols are the linker's, word-aligned, and everything between them is the stack's plain memory. It is
    // read word by word as volatile, since what lies below the stack pointer belongs to no Rust object.
    unsafe {
        while at < top && at.read_volatile() == PAINT {
            at = at.add(1);
        }
    }
    (top.addr() - at.addr(), size)
}
