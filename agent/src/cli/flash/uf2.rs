//! UF2, the form in which a board's boot loader takes an image as a file on its drive: blocks of 512 bytes, each for itself, so
//! that the loader can write each as it comes. Layout: the UF2 specification (github.com/microsoft/uf2); pages of 256 bytes
//! at multiples of 256, as the RP2350's boot ROM wants them (RP2350 datasheet, chapter on the UF2 boot mode).

use anyhow::{Context as _, bail, ensure};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a block.
const BLOCK_LEN: usize = 512;
/// Bytes of the image in a block.
const PAGE_LEN: usize = 256;
/// Where they begin.
const PAGE_AT: usize = 32;
const MAGIC_START: [u32; 2] = [0x0A32_4655, 0x9E5D_5157];
const MAGIC_END: u32 = 0x0AB1_6F30;
/// Flag: the last word of the header is a family id.
const FAMILY_ID_PRESENT: u32 = 0x2000;
/// What erased flash reads.
const ERASED: u8 = 0xFF;

/// `PT_LOAD`: a segment that is loaded.
const LOAD: u32 = 1;
/// Length of an entry of the program header table.
const PROGRAM_HEADER_LEN: usize = 32;

/// A piece of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    /// Where it is stored: the physical address, which for initial values of variables is in flash.
    pub(super) address: u32,
    /// What is stored there.
    pub(super) bytes: &'a [u8],
}

/// The loadable segments of a 32-bit little-endian ELF file that hold anything.
///
/// # Errors
/// It is no such file.
pub(super) fn segments(elf: &[u8]) -> anyhow::Result<Vec<Segment<'_>>> {
    ensure!(elf.starts_with(b"\x7fELF\x01\x01"), "is no 32-bit little-endian ELF file");
    let table = usize::try_from(word(elf, 28)?)?;
    let (entry_len, count) = (usize::from(half(elf, 42)?), usize::from(half(elf, 44)?));
    ensure!(count == 0 || entry_len >= PROGRAM_HEADER_LEN, "has program headers of {entry_len} bytes");
    let mut found = Vec::new();
    for index in 0..count {
        let at = table + index * entry_len;
        let [kind, offset, address, len] =
            [word(elf, at)?, word(elf, at + 4)?, word(elf, at + 12)?, word(elf, at + 16)?];
        if kind != LOAD || len == 0 {
            continue;
        }
        let start = usize::try_from(offset)?;
        let bytes = elf.get(start..start + usize::try_from(len)?).context("is cut off")?;
        found.push(Segment { address, bytes });
    }
    ensure!(!found.is_empty(), "has nothing to load");
    Ok(found)
}

/// The UF2 file of an image. `flash` is where flash lies; what is not part of a page that is touched stays as it is, as far as
/// the boot loader's erasing goes.
///
/// # Errors
/// A segment lies outside of flash.
pub(super) fn file(segments: &[Segment<'_>], family_id: u32, flash: &Range<u64>) -> anyhow::Result<Vec<u8>> {
    let mut pages: BTreeMap<u32, [u8; PAGE_LEN]> = BTreeMap::new();
    for segment in segments {
        let start = u64::from(segment.address);
        let end = start + segment.bytes.len() as u64;
        if start < flash.start || end > flash.end {
            bail!(
                "a segment lies at {start:#010x} to {end:#010x}, flash at {:#010x} to {:#010x}",
                flash.start,
                flash.end
            );
        }
        for (address, &byte) in (segment.address..=u32::MAX).zip(segment.bytes) {
            let offset = address as usize % PAGE_LEN;
            let page = pages.entry(address - offset as u32).or_insert([ERASED; PAGE_LEN]);
            page[offset] = byte;
        }
    }
    let total = u32::try_from(pages.len())?;
    let mut out = Vec::with_capacity(pages.len() * BLOCK_LEN);
    for (number, (address, page)) in (0u32..).zip(&pages) {
        let start = out.len();
        let header = [
            MAGIC_START[0],
            MAGIC_START[1],
            FAMILY_ID_PRESENT,
            *address,
            PAGE_LEN as u32,
            number,
            total,
            family_id,
        ];
        out.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        debug_assert_eq!(out.len() - start, PAGE_AT);
        out.extend_from_slice(page);
        out.resize(start + BLOCK_LEN - 4, 0);
        out.extend_from_slice(&MAGIC_END.to_le_bytes());
    }
    Ok(out)
}

fn word(elf: &[u8], at: usize) -> anyhow::Result<u32> {
    let bytes = elf.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).context("is cut off")
}

fn half(elf: &[u8], at: usize) -> anyhow::Result<u16> {
    let bytes = elf.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map(|bytes| u16::from_le_bytes(*bytes)).context("is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: u32 = 0xE48B_FF59;
    const FLASH: Range<u64> = 0x1000_0000..0x1020_0000;

    /// An ELF file with these (kind, physical address, virtual address, bytes).
    fn elf(entries: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let mut file = vec![0; 52];
        file[..6].copy_from_slice(b"\x7fELF\x01\x01");
        file[28..32].copy_from_slice(&52u32.to_le_bytes());
        file[42..44].copy_from_slice(&32u16.to_le_bytes());
        file[44..46].copy_from_slice(&u16::try_from(entries.len()).unwrap().to_le_bytes());
        let mut offset = 52 + 32 * entries.len();
        for (kind, physical, virtual_address, bytes) in entries {
            let len = bytes.len() as u32;
            for word in [*kind, offset as u32, *virtual_address, *physical, len, len, 5, 4] {
                file.extend(word.to_le_bytes());
            }
            offset += bytes.len();
        }
        for (_, _, _, bytes) in entries {
            file.extend_from_slice(bytes);
        }
        file
    }

    #[test]
    fn a_block_has_the_layout_of_the_specification() {
        let content: Vec<u8> = (0..=255).collect();
        let out = file(&[Segment { address: 0x1000_0100, bytes: &content }], FAMILY, &FLASH).unwrap();
        assert_eq!(out.len(), 512);
        // The specification's table: magic "UF2\n", magic, flags, address, size, number, total, family; data; magic.
        assert_eq!(&out[..4], b"UF2\n");
        assert_eq!(out[4..8], [0x57, 0x51, 0x5D, 0x9E]);
        assert_eq!(out[8..12], [0x00, 0x20, 0x00, 0x00]);
        assert_eq!(out[12..16], [0x00, 0x01, 0x00, 0x10]);
        assert_eq!(out[16..20], [0x00, 0x01, 0x00, 0x00]);
        assert_eq!(out[20..24], [0; 4]);
        assert_eq!(out[24..28], [1, 0, 0, 0]);
        assert_eq!(out[28..32], [0x59, 0xFF, 0x8B, 0xE4]);
        assert_eq!(out[32..288], content);
        assert!(out[288..508].iter().all(|&byte| byte == 0));
        assert_eq!(out[508..], [0x30, 0x6F, 0xB1, 0x0A]);
    }

    #[test]
    fn segments_share_pages_are_ordered_and_leave_the_rest_as_erased_flash() {
        let late = [2; 300];
        let early = [1; 4];
        let segments =
            [Segment { address: 0x1000_01FC, bytes: &late }, Segment { address: 0x1000_01F0, bytes: &early }];
        let out = file(&segments, FAMILY, &FLASH).unwrap();
        let blocks: Vec<_> = out.chunks(512).collect();
        let addresses: Vec<_> = blocks.iter().map(|block| word(block, 12).unwrap()).collect();
        assert_eq!(addresses, [0x1000_0100, 0x1000_0200, 0x1000_0300]);
        assert!(
            blocks
                .iter()
                .zip(0..)
                .all(|(block, n)| word(block, 20).unwrap() == n && word(block, 24).unwrap() == 3)
        );
        let page = &blocks[0][32..288];
        assert!(page[..0xF0].iter().all(|&byte| byte == 0xFF));
        assert_eq!(page[0xF0..], [1, 1, 1, 1, 255, 255, 255, 255, 255, 255, 255, 255, 2, 2, 2, 2]);
        assert_eq!(blocks[2][32..32 + 40], [2; 40]);
        assert_eq!(blocks[2][32 + 40], 0xFF);
    }

    #[test]
    fn what_is_stored_is_taken_from_physical_addresses_and_what_takes_no_place_is_left_out() {
        let file = elf(&[
            (1, 0x1000_0000, 0x1000_0000, b"code"),
            (1, 0x1000_0004, 0x2000_0000, b"data"),
            (1, 0x2000_0004, 0x2000_0004, b""),
            (0x6474_E551, 0, 0, b"stack"),
        ]);
        let found = segments(&file).unwrap();
        assert_eq!(
            found,
            [
                Segment { address: 0x1000_0000, bytes: b"code" },
                Segment { address: 0x1000_0004, bytes: b"data" }
            ]
        );
    }

    #[test]
    fn a_segment_outside_of_flash_and_a_file_that_is_cut_off_are_refused() {
        let outside = file(&[Segment { address: 0x2000_0000, bytes: b"ram" }], FAMILY, &FLASH).unwrap_err();
        assert!(outside.to_string().contains("0x20000000 to 0x20000003"), "{outside}");
        let whole = elf(&[(1, 0x1000_0000, 0, b"code")]);
        for len in 0..whole.len() {
            assert!(segments(&whole[..len]).is_err(), "{len}");
        }
        assert!(segments(b"\x7fELF\x02\x01").unwrap_err().to_string().contains("32-bit"));
    }
}
