//! A virtual board's flash: memory, and a file behind it where one is named.

use super::VirtualBoard;
use crate::settings::{FlashStore, StoreTooSmall};
use core::ops::Range;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use std::path::PathBuf;
use std::vec::Vec;

const PAGE_LEN: usize = 4096;
const LEN: usize = 2 * PAGE_LEN;

/// Two pages that are written in words of four bytes.
pub(crate) struct HostFlash {
    bytes: Vec<u8>,
    file: Option<PathBuf>,
}

/// The flash of this board. A file that is missing or of another length is as good as an erased flash.
pub(crate) fn open_store(board: &VirtualBoard) -> Result<FlashStore<HostFlash>, StoreTooSmall> {
    let file = board.flash.clone();
    let kept = file.as_ref().and_then(|file| std::fs::read(file).ok()).filter(|bytes| bytes.len() == LEN);
    let bytes = kept.unwrap_or_else(|| std::vec![0xFF; LEN]);
    FlashStore::new(HostFlash { bytes, file }, 0..LEN as u32)
}

impl HostFlash {
    fn cells(&mut self, range: Range<usize>) -> Result<&mut [u8], NorFlashErrorKind> {
        self.bytes.get_mut(range).ok_or(NorFlashErrorKind::OutOfBounds)
    }

    fn save(&self) -> Result<(), NorFlashErrorKind> {
        let Some(file) = &self.file else { return Ok(()) };
        std::fs::write(file, &self.bytes).map_err(|_| NorFlashErrorKind::Other)
    }
}

impl ErrorType for HostFlash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for HostFlash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        let from = offset as usize;
        bytes.copy_from_slice(self.cells(from..from + bytes.len())?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl NorFlash for HostFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE_LEN;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        self.cells(from as usize..to as usize)?.fill(0xFF);
        self.save()
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        let from = offset as usize;
        for (cell, byte) in self.cells(from..from + bytes.len())?.iter_mut().zip(bytes) {
            *cell &= byte;
        }
        self.save()
    }
}
