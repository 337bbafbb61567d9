//! UTC from a time server by SNTP version 4 (RFC 4330, and RFC 5905 for the bound of the error). The packets are pure functions;
//! [`run`] does the waiting over whatever sends datagrams.

use super::{Doubt, RoundTrip, TICK_HZ, Timebase, UtcPair, UtcSource};
use core::cell::Cell;
use embassy_sync::blocking_mutex::{Mutex, raw::RawMutex};
use embassy_time::{Duration, with_timeout};
use spindle_common::wire::messages::TimeSource;

/// Bytes of a packet without authentication.
pub const PACKET_LEN: usize = 48;

/// The server's UDP port.
pub const PORT: u16 = 123;

/// Seconds from 1900 to 1970.
const EPOCH_S: i64 = 2_208_988_800;

/// Questions of a round; the quickest answer is kept.
const ASKS: u32 = 4;

/// Longest pause after rounds without an answer, or when the server asks for fewer questions, s.
const PAUSE_MAX_S: u64 = 3_600;

/// Why a packet tells no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SntpError {
    /// Shorter than a packet.
    #[error("packet of {0} bytes is shorter than 48")]
    Short(usize),
    /// No answer of a server, or not of version 3 or 4.
    #[error("not a server's answer")]
    Mode,
    /// It does not repeat our time stamp: an old answer, or somebody else's.
    #[error("the answer is to another question")]
    Origin,
    /// Stratum 0: the server wants to be left alone, or has a reason of its own.
    #[error("the server says {}", core::str::from_utf8(.0).unwrap_or("nothing readable"))]
    Kiss([u8; 4]),
    /// The server's own clock is not set, or its stratum is out of range.
    #[error("the server does not know the time")]
    Unsynchronised,
    /// The round trip tells no time.
    #[error(transparent)]
    Doubt(#[from] Doubt),
    /// No answer.
    #[error("no answer")]
    Silence,
    /// The socket failed.
    #[error("the network failed")]
    Network,
}

/// A question. `nonce` is random or at least never the same twice: the answer must repeat it.
#[must_use]
pub fn request(nonce: u64) -> [u8; PACKET_LEN] {
    let mut packet = [0; PACKET_LEN];
    // No leap warning, version 4, mode 3 (client).
    packet[0] = 4 << 3 | 3;
    packet[40..].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// The pair that an answer gives, and the time that question and answer were under way, ns. The question with this nonce went
/// out at tick `asked`, the answer came in at `answered`.
///
/// # Errors
/// Why it tells no time.
pub fn read(packet: &[u8], nonce: u64, asked: u64, answered: u64) -> Result<(UtcPair, i64), SntpError> {
    let Some(packet) = packet.first_chunk::<PACKET_LEN>() else { return Err(SntpError::Short(packet.len())) };
    let [head, stratum, ..] = *packet;
    if head & 7 != 4 || !matches!(head >> 3 & 7, 3 | 4) {
        return Err(SntpError::Mode);
    }
    if long(packet, 24) != nonce {
        return Err(SntpError::Origin);
    }
    if stratum == 0 {
        return Err(SntpError::Kiss([packet[12], packet[13], packet[14], packet[15]]));
    }
    let (received, sent) = (long(packet, 32), long(packet, 40));
    if head >> 6 == 3 || stratum > 15 || received == 0 || sent == 0 {
        return Err(SntpError::Unsynchronised);
    }
    // What the server says of the way to its own reference.
    let root_ns = short_ns(packet, 4) / 2 + short_ns(packet, 8);
    let trip = RoundTrip { asked, received_ns: utc_ns(received), sent_ns: utc_ns(sent), answered };
    Ok(trip.pair(u32::try_from(root_ns).unwrap_or(u32::MAX), TimeSource::Sntp)?)
}

fn word(packet: &[u8; PACKET_LEN], at: usize) -> u32 {
    packet.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn long(packet: &[u8; PACKET_LEN], at: usize) -> u64 {
    u64::from(word(packet, at)) << 32 | u64::from(word(packet, at + 4))
}

/// A duration in 1/65536 s, in ns.
fn short_ns(packet: &[u8; PACKET_LEN], at: usize) -> u64 {
    (u64::from(word(packet, at)) * 1_000_000_000) >> 16
}

/// UTC of a time stamp. Its seconds wrap in 2036; those whose top bit is clear are of the era that begins then (RFC 4330,
/// section 3), so this holds until 2104.
fn utc_ns(stamp: u64) -> i64 {
    let seconds = (stamp >> 32).cast_signed();
    let era = if stamp >> 63 == 1 { 0 } else { 1 << 32 };
    let fraction_ns = (((stamp & 0xFFFF_FFFF) * 1_000_000_000) >> 32).cast_signed();
    (seconds + era - EPOCH_S) * 1_000_000_000 + fraction_ns
}

/// Sends and receives datagrams to and from the server only.
#[allow(async_fn_in_trait, reason = "tasks of one board run on one executor and need no Send")]
pub trait Datagram {
    /// Why it failed.
    type Error: core::fmt::Debug;
    /// Sends one.
    async fn send(&mut self, packet: &[u8]) -> Result<(), Self::Error>;
    /// Receives one into `packet` and returns its length; one that is longer is cut off.
    async fn receive(&mut self, packet: &mut [u8]) -> Result<usize, Self::Error>;
}

/// The newest pair, from the task that asks to the uplink that tells it.
pub struct NewestPair<M: RawMutex>(Mutex<M, Cell<Option<UtcPair>>>);

impl<M: RawMutex> NewestPair<M> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Cell::new(None)))
    }
}

impl<M: RawMutex> Default for NewestPair<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: RawMutex> UtcSource for &NewestPair<M> {
    fn pair(&mut self) -> Option<UtcPair> {
        self.0.lock(Cell::get)
    }
}

/// Asks once.
///
/// # Errors
/// Why there is no pair.
pub async fn ask(
    socket: &mut impl Datagram,
    time: &impl Timebase,
    nonce: u64,
) -> Result<(UtcPair, i64), SntpError> {
    let packet = request(nonce);
    let asked = time.now();
    socket.send(&packet).await.map_err(|_| SntpError::Network)?;
    let answer = async {
        loop {
            let mut packet = [0; PACKET_LEN];
            let len = socket.receive(&mut packet).await.map_err(|_| SntpError::Network)?;
            let answered = time.now();
            match read(packet.get(..len).unwrap_or_default(), nonce, asked, answered) {
                // A late answer to an earlier question: ours may still come.
                Err(SntpError::Origin | SntpError::Short(_)) => {}
                result => return result,
            }
        }
    };
    with_timeout(Duration::from_secs(2), answer).await.unwrap_or(Err(SntpError::Silence))
}

/// The task of a board with a time server: asks four times in each round and keeps the quickest answer, for ever. `random`
/// starts the nonces. Without an answer, or when the server asks for peace, the pause doubles, up to an hour.
pub async fn run<M: RawMutex>(
    socket: &mut impl Datagram,
    time: &impl Timebase,
    newest: &NewestPair<M>,
    every_s: u16,
    random: u64,
    mut alive: impl FnMut(),
) -> ! {
    let mut nonce = random;
    let mut pause_s = u64::from(every_s.max(1));
    loop {
        let mut best: Option<(UtcPair, i64)> = None;
        let mut peace = false;
        for _ in 0..ASKS {
            alive();
            nonce = nonce.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match ask(socket, time, nonce).await {
                Ok((pair, way_ns)) if best.is_none_or(|(_, best_ns)| way_ns < best_ns) => {
                    best = Some((pair, way_ns));
                }
                Err(SntpError::Kiss(_)) => {
                    peace = true;
                    break;
                }
                _ => {}
            }
        }
        if let Some((pair, _)) = best {
            newest.0.lock(|cell| cell.set(Some(pair)));
        }
        pause_s =
            if best.is_some() && !peace { every_s.max(1).into() } else { (pause_s * 2).min(PAUSE_MAX_S) };
        for _ in 0..pause_s {
            alive();
            time.until(time.now() + u64::from(TICK_HZ)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u64 = 0x1234_5678_9ABC_DEF0;
    /// 2026-01-01 00:00:00 UTC.
    const UTC_S: i64 = 1_767_225_600;

    fn stamp(utc_ns: i64) -> [u8; 8] {
        let seconds = (utc_ns.div_euclid(1_000_000_000) + EPOCH_S) as u64 & 0xFFFF_FFFF;
        let fraction = ((utc_ns.rem_euclid(1_000_000_000) as u64) << 32) / 1_000_000_000;
        (seconds << 32 | fraction).to_be_bytes()
    }

    fn answer(received_ns: i64, sent_ns: i64) -> [u8; PACKET_LEN] {
        let mut packet = [0; PACKET_LEN];
        packet[0] = 4 << 3 | 4;
        packet[1] = 2;
        // Root delay 2 ms, root dispersion 1 ms, in 1/65536 s.
        packet[6..8].copy_from_slice(&131u16.to_be_bytes());
        packet[10..12].copy_from_slice(&66u16.to_be_bytes());
        packet[24..32].copy_from_slice(&NONCE.to_be_bytes());
        packet[32..40].copy_from_slice(&stamp(received_ns));
        packet[40..48].copy_from_slice(&stamp(sent_ns));
        packet
    }

    #[test]
    fn an_answer_gives_the_middle_with_the_way_and_the_servers_own_error_as_its_bound() {
        for utc_s in [UTC_S, 2_085_978_496 + 5, 4_000_000_000] {
            let utc_ns = utc_s * 1_000_000_000 + 250_000_000;
            let (pair, way_ns) =
                read(&answer(utc_ns, utc_ns + 100_000), NONCE, 10_000, 11_100).expect("good");
            assert_eq!(pair.tick, 10_550);
            assert!((way_ns - 1_000_000).abs() < 3, "{way_ns}");
            assert!((pair.utc_ns - utc_ns - 50_000).abs() < 3, "{}", pair.utc_ns - utc_ns);
            assert!((2_500_000..2_520_000).contains(&pair.error_ns), "{}", pair.error_ns);
            assert_eq!(pair.source, TimeSource::Sntp);
        }
    }

    #[test]
    fn what_tells_no_time_is_refused_with_its_reason() {
        let utc_ns = UTC_S * 1_000_000_000;
        let good = answer(utc_ns, utc_ns);
        let read_with = |change: &dyn Fn(&mut [u8; PACKET_LEN])| {
            let mut packet = good;
            change(&mut packet);
            read(&packet, NONCE, 0, 1000).expect_err("refused")
        };
        assert_eq!(read(&good[..47], NONCE, 0, 1000), Err(SntpError::Short(47)));
        assert_eq!(read_with(&|packet| packet[0] = 4 << 3 | 3), SntpError::Mode);
        assert_eq!(read_with(&|packet| packet[0] = 1 << 3 | 4), SntpError::Mode);
        assert_eq!(read_with(&|packet| packet[31] ^= 1), SntpError::Origin);
        let kiss = read_with(&|packet| {
            packet[1] = 0;
            packet[12..16].copy_from_slice(b"RATE");
        });
        assert_eq!(
            (kiss, std::format!("{kiss}")),
            (SntpError::Kiss(*b"RATE"), "the server says RATE".into())
        );
        assert_eq!(read_with(&|packet| packet[0] |= 0xC0), SntpError::Unsynchronised);
        assert_eq!(read_with(&|packet| packet[1] = 16), SntpError::Unsynchronised);
        assert_eq!(read_with(&|packet| packet[40..48].fill(0)), SntpError::Unsynchronised);
        assert_eq!(read(&good, NONCE, 0, 2_000_001), Err(SntpError::Doubt(Doubt::Slow)));
        assert_eq!(read(&good, NONCE, 5, 4), Err(SntpError::Doubt(Doubt::Inconsistent)));
        let held = answer(utc_ns, utc_ns + 5_000_000);
        assert_eq!(read(&held, NONCE, 0, 1000), Err(SntpError::Doubt(Doubt::Inconsistent)));
    }

    #[test]
    fn a_question_is_a_client_packet_of_version_4_with_the_nonce_as_its_time() {
        let packet = request(NONCE);
        assert_eq!((packet[0], long(&packet, 40)), (0x23, NONCE));
        assert!(packet[1..40].iter().all(|byte| *byte == 0));
    }
}
