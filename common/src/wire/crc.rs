//! CRC-32C (Castagnoli, RFC 3720): in hardware on hosts, by a table in flash on boards.

/// CRC-32C of `bytes`: reflected polynomial 0x82F63B78, initial value and final XOR 0xFFFFFFFF.
/// The check value of `123456789` is 0xE3069283.
#[cfg(feature = "std")]
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// CRC-32C of `bytes`: reflected polynomial 0x82F63B78, initial value and final XOR 0xFFFFFFFF.
/// The check value of `123456789` is 0xE3069283.
#[cfg(not(feature = "std"))]
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    software(bytes)
}

/// A word at a time: what the register becomes is a sum (XOR) over its 32 bits, so it can be looked up in three parts of 8, 12
/// and 12 bits: each is one instruction to take out. Ten instructions for four bytes on a Cortex-M4, where a table of bytes
/// takes 24; costs 33 kB of flash.
#[cfg(any(test, not(feature = "std")))]
fn software(bytes: &[u8]) -> u32 {
    !more(!0, bytes)
}

/// CRC-32C of `head` and of the samples behind it, which are put into `out` on the way: the checksum has to load every word
/// of them anyway, and a `memcpy` to a place that is not aligned takes more instructions than the checksum.
#[cfg(any(test, not(feature = "std")))]
pub(super) fn crc32c_copying(head: &[u8], samples: &[i16], out: &mut [u8]) -> u32 {
    let mut crc = more(!0, head);
    let (pairs, last) = samples.as_chunks::<2>();
    let (places, rest) = out.as_chunks_mut::<4>();
    let put = |crc, ([first, second], place): (&[i16; 2], &mut [u8; 4])| {
        let both = u32::from(first.cast_unsigned()) | u32::from(second.cast_unsigned()) << 16;
        *place = both.to_le_bytes();
        word(crc, both)
    };
    // By eight, so that keeping count is little against it.
    let ((pairs8, pairs), (places8, places)) = (pairs.as_chunks::<8>(), places.as_chunks_mut::<8>());
    for (pairs, places) in pairs8.iter().zip(places8) {
        crc = pairs.iter().zip(places).fold(crc, put);
    }
    crc = pairs.iter().zip(places).fold(crc, put);
    if let ([last], Some(place)) = (last, rest.first_chunk_mut::<2>()) {
        *place = last.to_le_bytes();
        crc = more(crc, place);
    }
    !crc
}

#[cfg(any(test, not(feature = "std")))]
fn word(crc: u32, word: u32) -> u32 {
    let sum = crc ^ word;
    LOW[(sum & 0xFF) as usize] ^ MIDDLE[(sum >> 8 & 0xFFF) as usize] ^ HIGH[(sum >> 20) as usize]
}

/// What further bytes make of the register.
#[cfg(any(test, not(feature = "std")))]
fn more(crc: u32, bytes: &[u8]) -> u32 {
    let word = |crc, bytes: &[u8; 4]| word(crc, u32::from_le_bytes(*bytes));
    let (words, rest) = bytes.as_chunks::<4>();
    let (eights, words) = words.as_chunks::<8>();
    let mut crc = eights.iter().fold(crc, |crc, eight| eight.iter().fold(crc, word));
    crc = words.iter().fold(crc, word);
    for byte in rest {
        // A byte below 24 zero bits ahead of it: the remainder of the low 8 bits alone.
        crc = (crc >> 8) ^ step(crc & 0xFF ^ u32::from(*byte), 8);
    }
    crc
}

#[cfg(any(test, not(feature = "std")))]
static LOW: [u32; 256] = table(0);
#[cfg(any(test, not(feature = "std")))]
static MIDDLE: [u32; 4096] = table(8);
#[cfg(any(test, not(feature = "std")))]
static HIGH: [u32; 4096] = table(20);

/// Per number of so many bits: what 32 steps make of it, shifted left by `shift`.
#[cfg(any(test, not(feature = "std")))]
const fn table<const LEN: usize>(shift: u32) -> [u32; LEN] {
    let mut table = [0; LEN];
    let mut index = 1;
    while index < LEN {
        // Linear: a number is the sum of its highest bit and the rest.
        let bit = 1 << index.ilog2();
        table[index] =
            if bit == index { step((index as u32) << shift, 32) } else { table[bit] ^ table[index - bit] };
        index += 1;
    }
    table
}

#[cfg(any(test, not(feature = "std")))]
const fn step(mut crc: u32, bits: u32) -> u32 {
    let mut bit = 0;
    while bit < bits {
        crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        bit += 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_rfc_3720_comes_out_of_both_implementations() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(software(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(software(&[0; 32]), 0x8A91_36AA);
        assert_eq!(software(b""), crc32c(b""));
    }

    #[test]
    fn samples_copied_on_the_way_have_the_checksum_and_the_bytes_of_samples_put_there_before() {
        let samples = [1, -2, i16::MIN, i16::MAX, 258, -259, 7];
        for count in 0..=samples.len() {
            for head in 0..9 {
                let mut message = [0x5A; 24];
                let (head, out) = message.split_at_mut(head);
                let checksum = crc32c_copying(head, &samples[..count], &mut out[..2 * count]);
                let (head_len, end) = (head.len(), head.len() + 2 * count);
                assert_eq!(checksum, crc32c(&message[..end]), "{count} samples behind {head_len} bytes");
                for (sample, pair) in samples[..count].iter().zip(message[head_len..end].as_chunks::<2>().0) {
                    assert_eq!(i16::from_le_bytes(*pair), *sample);
                }
                assert!(message[end..].iter().all(|&byte| byte == 0x5A));
            }
        }
    }

    #[test]
    fn both_implementations_agree_at_every_length_and_on_every_byte() {
        let mut bytes = [0_u8; 300];
        let mut random = 1_u32;
        for byte in &mut bytes {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (random >> 24) as u8;
        }
        for len in 0..bytes.len() {
            assert_eq!(software(&bytes[..len]), crc32c(&bytes[..len]), "{len} bytes");
        }
        for byte in 0..=u8::MAX {
            assert_eq!(software(&[byte; 5]), crc32c(&[byte; 5]), "{byte}");
        }
    }
}
