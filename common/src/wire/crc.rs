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

#[cfg(any(test, not(feature = "std")))]
fn software(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xFF) as usize])
}

#[cfg(any(test, not(feature = "std")))]
static TABLE: [u32; 256] = table();

#[cfg(any(test, not(feature = "std")))]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
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
}
