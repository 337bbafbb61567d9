//! A piece of memory at 3 MB that behaves like NOR flash and keeps its contents over resets: sectors of 4 kB are erased to
//! ones, words of 4 bytes are written once. For settings.

use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// Where it lies; `memory.x` keeps the image below.
const BASE: usize = 0x0030_0000;

/// Its size, bytes.
pub const LEN: usize = 64 * 1024;

const SECTOR: usize = 4096;
const WORD: usize = 4;

/// Stands behind the last sector once the memory is in use: at power-on it holds zeros, and new flash is erased.
const MARK: u32 = 0x464C_5348;

/// Why an access was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Out of bounds or not aligned.
    Range(NorFlashErrorKind),
    /// A bit would have to become one again: the place was not erased.
    NotErased,
}

impl NorFlashError for Error {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Range(kind) => *kind,
            Self::NotErased => NorFlashErrorKind::Other,
        }
    }
}

/// The flash; there is one.
pub struct Flash {
    words: &'static mut [u32],
}

impl Flash {
    /// Takes it. Returns `None` when it was taken before.
    pub fn take() -> Option<Self> {
        static TAKEN: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);
        if TAKEN.swap(true, core::sync::atomic::Ordering::SeqCst) {
            return None;
        }
        let start = core::ptr::with_exposed_provenance_mut::<u32>(BASE);
        // SAFETY: the machine has plain memory here, memory.x gives it to nobody else, `TAKEN` lets only one caller in, and
        // any word is a valid `u32`.
        let all = unsafe { core::slice::from_raw_parts_mut(start, LEN / WORD + 1) };
        let (mark, words) = all.split_last_mut()?;
        if *mark != MARK {
            words.fill(u32::MAX);
            *mark = MARK;
        }
        Some(Self { words })
    }

    fn range(&mut self, offset: usize, len: usize, align: usize) -> Result<&mut [u32], Error> {
        if !offset.is_multiple_of(align) || !len.is_multiple_of(align) {
            return Err(Error::Range(NorFlashErrorKind::NotAligned));
        }
        let words = self.words.get_mut(offset / WORD..offset.saturating_add(len) / WORD);
        words.ok_or(Error::Range(NorFlashErrorKind::OutOfBounds))
    }
}

impl ErrorType for Flash {
    type Error = Error;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = WORD;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Error> {
        let words = self.range(offset as usize, bytes.len(), WORD)?;
        for (place, word) in bytes.chunks_exact_mut(WORD).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        LEN
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = SECTOR;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Error> {
        let len = to.saturating_sub(from) as usize;
        self.range(from as usize, len, SECTOR)?.fill(u32::MAX);
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let words = self.range(offset as usize, bytes.len(), WORD)?;
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(WORD)) {
            let &[a, b, c, d] = chunk else { continue };
            let wanted = u32::from_le_bytes([a, b, c, d]);
            *word &= wanted;
            if *word != wanted {
                return Err(Error::NotErased);
            }
        }
        Ok(())
    }
}
