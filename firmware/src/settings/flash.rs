//! Settings in flash, by `sequential-storage`: two pages or more, records one after the other, each with a checksum; a page is
//! erased only when its newest record stands in another. So whenever power is cut, the newest whole record is found again.
//!
//! A page's marker whose writing was cut is written again over itself: flash with error correction over each word must take that
//! (not confirmed on silicon).

use super::{Store, StoreError};
use core::ops::Range;
use embedded_storage_async::nor_flash::NorFlash;
use sequential_storage::Error;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};
use spindle_common::wire::STREAMS_MAX;

/// Longest record: a message with the node's name, boot and settings of eight streams, each field at its longest.
pub const RECORD_LEN_MAX: usize =
    2 + 33 + 10 + (5 + 3 + 3 + 1 + STREAMS_MAX * (1 + 1 + 1 + 1 + 3 + 1 + 3 + (4 + 5 + 3 + 3 + 3))) + 4;

/// A record with its key, rounded up to the coarsest word that a flash is written in (32 bytes).
const BUFFER_LEN: usize = (1 + RECORD_LEN_MAX).next_multiple_of(32);

/// The only key.
const KEY: u8 = 1;

/// The flash that was given cannot hold settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("settings need two whole pages of flash, each with room for a record of {RECORD_LEN_MAX} bytes")]
pub struct StoreTooSmall;

/// Keeps settings in a part of a flash.
pub struct FlashStore<F: NorFlash> {
    map: MapStorage<u8, F, Cache<Uncached, Uncached, Uncached, u8>>,
    buffer: [u8; BUFFER_LEN],
}

impl<F: NorFlash> FlashStore<F> {
    /// In these bytes of the flash: two pages or more, from the start of one to the end of another, and of nobody else's.
    ///
    /// # Errors
    /// When they are not, or are too small.
    pub fn new(flash: F, range: Range<u32>) -> Result<Self, StoreTooSmall> {
        // Besides the record a page has two words of its own, and the record a header of a few words.
        if F::ERASE_SIZE < BUFFER_LEN + 8 * F::WRITE_SIZE.max(8) {
            return Err(StoreTooSmall);
        }
        let config = MapConfig::try_new(range).map_err(|_| StoreTooSmall)?;
        Ok(Self { map: MapStorage::new(flash, config, Cache::new_uncached()), buffer: [0; BUFFER_LEN] })
    }

    /// The flash.
    pub fn into_flash(self) -> F {
        self.map.destroy().0
    }
}

impl<F: NorFlash> Store for FlashStore<F> {
    async fn load(&mut self, out: &mut [u8]) -> Result<Option<usize>, StoreError> {
        let Self { map, buffer } = self;
        let Some(record) = map.fetch_item::<&[u8]>(buffer, &KEY).await.map_err(|error| words(&error))? else {
            return Ok(None);
        };
        let place = out.get_mut(..record.len()).ok_or(StoreError("the record is too long"))?;
        place.copy_from_slice(record);
        Ok(Some(record.len()))
    }

    async fn keep(&mut self, record: &[u8]) -> Result<(), StoreError> {
        let Self { map, buffer } = self;
        match map.store_item(buffer, &KEY, &record).await {
            Ok(()) => Ok(()),
            // Nothing in it can be made sense of, so nothing is lost by starting anew.
            Err(Error::Corrupted { .. }) => {
                map.erase_all().await.map_err(|error| words(&error))?;
                map.store_item(buffer, &KEY, &record).await.map_err(|error| words(&error))
            }
            Err(error) => Err(words(&error)),
        }
    }
}

const fn words<E>(error: &Error<E>) -> StoreError {
    StoreError(match error {
        Error::Storage { .. } => "it does not take or give data",
        Error::FullStorage | Error::ItemTooBig => "it is full",
        Error::Corrupted { .. } => "its contents are spoiled",
        _ => "it cannot be used",
    })
}
