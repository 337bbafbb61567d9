//! Identities. `(node, boot, stream, sequence)` names a block for ever.

use serde::{Deserialize, Serialize};

/// Longest name of a site, machine, node or sensor, in bytes.
pub const NAME_LEN_MAX: usize = 32;

/// One run of a node's firmware, from reset to reset. Opaque: compare for equality only. A board draws it at random
/// (mixed with a counter that it keeps, where it can keep one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootId(pub u64);

/// A sensor's index on its node, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u8);

/// Position of a message in its node's sequence within one boot: blocks, features and bursts of all streams of the node
/// count in one sequence, so that one cumulative acknowledgement covers them. Wraps; compare with [`Seq::precedes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seq(pub u32);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// This number moved on by `count`.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// How far `self` lies after `earlier`, modulo 2^32; more than `i32::MAX` means that it lies before it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Whether `self` comes before `other` in serial-number arithmetic (RFC 1982).
    #[must_use]
    pub const fn precedes(self, other: Self) -> bool {
        let ahead = other.0.wrapping_sub(self.0);
        ahead != 0 && ahead < 1 << 31
    }
}

/// Whether `name` can name a site, machine, node or sensor: 1 to 32 bytes of `A-Z a-z 0-9 . _ -`, so that it is one level
/// of an MQTT topic, one part of a Kafka key and one file name, and never `.` or `..`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= NAME_LEN_MAX && name.bytes().all(allowed) && !matches!(name, "." | "..")
}
