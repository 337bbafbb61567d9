//! What lies between TLS and the byte stream below: one record on its way in and what is on its way out.
//!
//! embedded-tls loses its place when a read or a write is given up half-way, and MQTT gives up waiting whenever something else is
//! to be done. So TLS never waits here: it is asked to read only when a whole record is there, and to write only when there is
//! room for one. Waiting is done on the stream below, where nothing is lost by giving up.

use core::cell::RefCell;
use core::convert::Infallible;
use core::future::poll_fn;
use core::task::Poll;
use embedded_io_async::{Error as _, ErrorKind, ErrorType, Read, Write};

/// Plain text of one record: what is agreed with the broker (RFC 6066, maximum fragment length 2^12).
const FRAGMENT_LEN: usize = 4096;
const HEADER_LEN: usize = 5;
/// What encryption may add to a record (RFC 8446, 5.2).
const EXPANSION_LEN: usize = 256;
/// embedded-tls keeps so much of its write buffer free (`TLS_RECORD_OVERHEAD`).
const OVERHEAD_LEN: usize = 128;

/// Longest record that comes in, without its header.
pub(super) const BODY_LEN: usize = FRAGMENT_LEN + EXPANSION_LEN;
/// Longest record that goes out.
pub(super) const OUT_LEN: usize = FRAGMENT_LEN + OVERHEAD_LEN;

/// Content types (RFC 8446, 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// An encrypted record has at least its content type and a tag of 16 bytes; embedded-tls relies on it.
const ENCRYPTED_LEN_MIN: usize = 17;

/// What breaks the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The stream below broke.
    #[error("connection broken: {0:?}")]
    Below(ErrorKind),
    /// The peer closed it.
    #[error("the broker closed the connection")]
    Closed,
    /// Longer than agreed, empty, or not encrypted where it must be.
    #[error("the broker sent a record that is too long or out of place")]
    Record,
}

/// Which records may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    /// Nothing that is not encrypted: anyone on the way can put that in.
    Open,
}

/// The two queues.
pub(super) struct Queues {
    phase: Phase,
    record: [u8; HEADER_LEN + BODY_LEN],
    /// Bytes of the record that are here, and that TLS has read.
    filled: usize,
    taken: usize,
    /// TLS waits for a record.
    is_wanted: bool,
    out: [u8; OUT_LEN],
    /// Bytes to go out, and of these gone.
    queued: usize,
    gone: usize,
}

impl Queues {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Handshake,
            record: [0; HEADER_LEN + BODY_LEN],
            filled: 0,
            taken: 0,
            is_wanted: false,
            out: [0; OUT_LEN],
            queued: 0,
            gone: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.phase = Phase::Handshake;
        self.is_wanted = false;
        (self.filled, self.taken, self.queued, self.gone) = (0, 0, 0, 0);
    }

    /// Length of the record, as far as it is known: of the header, and of the whole once that is there.
    fn record_len(&self) -> Result<usize, WireError> {
        if self.filled < HEADER_LEN {
            return Ok(HEADER_LEN);
        }
        let [kind, _, _, high, low, ..] = self.record;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let is_in_place = match kind {
            APPLICATION_DATA => len >= ENCRYPTED_LEN_MIN,
            CHANGE_CIPHER_SPEC | ALERT | HANDSHAKE => self.phase == Phase::Handshake,
            _ => false,
        };
        if is_in_place && len <= BODY_LEN { Ok(HEADER_LEN + len) } else { Err(WireError::Record) }
    }

    fn is_whole(&self) -> bool {
        self.filled > HEADER_LEN && self.record_len() == Ok(self.filled)
    }
}

/// From now on all must be encrypted.
pub(super) fn opened(queues: &RefCell<Queues>) {
    queues.borrow_mut().phase = Phase::Open;
}

/// Whether TLS waits for a record that is not here.
pub(super) fn is_wanted(queues: &RefCell<Queues>) -> bool {
    let queues = queues.borrow();
    queues.is_wanted && !queues.is_whole()
}

/// Sends what is queued. Nothing is lost or sent twice when it is given up.
#[allow(clippy::await_holding_refcell_ref, reason = "TLS, the only other user, is not polled meanwhile")]
pub(super) async fn drain(queues: &RefCell<Queues>, io: &mut impl Write) -> Result<(), WireError> {
    let mut queues = queues.borrow_mut();
    while queues.gone < queues.queued {
        let rest = queues.out.get(queues.gone..queues.queued).unwrap_or_default();
        match io.write(rest).await {
            Ok(0) => return Err(WireError::Closed),
            Ok(count) => queues.gone += count,
            Err(error) => return Err(WireError::Below(error.kind())),
        }
    }
    (queues.queued, queues.gone) = (0, 0);
    Ok(())
}

/// Reads until a whole record is here. Goes on where it stopped when it was given up.
#[allow(clippy::await_holding_refcell_ref, reason = "TLS, the only other user, is not polled meanwhile")]
pub(super) async fn pull(queues: &RefCell<Queues>, io: &mut impl Read) -> Result<(), WireError> {
    let mut queues = queues.borrow_mut();
    while !queues.is_whole() {
        let len = queues.record_len()?;
        let filled = queues.filled;
        let Some(place) = queues.record.get_mut(filled..len).filter(|place| !place.is_empty()) else {
            // A record without contents.
            return Err(WireError::Record);
        };
        match io.read(place).await {
            Ok(0) => return Err(WireError::Closed),
            Ok(count) => queues.filled += count,
            Err(error) => return Err(WireError::Below(error.kind())),
        }
    }
    queues.is_wanted = false;
    Ok(())
}

/// The queues as a stream for TLS, which pends where there is nothing or no room; whoever polls it knows when to do so again.
pub(super) struct Wire<'d>(pub(super) &'d RefCell<Queues>);

impl ErrorType for Wire<'_> {
    type Error = Infallible;
}

impl Read for Wire<'_> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        poll_fn(|_| {
            let mut queues = self.0.borrow_mut();
            if !queues.is_whole() {
                queues.is_wanted = true;
                return Poll::Pending;
            }
            let rest = queues.record.get(queues.taken..queues.filled).unwrap_or_default();
            let count = rest.len().min(bytes.len());
            for (place, byte) in bytes.iter_mut().zip(rest) {
                *place = *byte;
            }
            queues.taken += count;
            if queues.taken == queues.filled {
                (queues.filled, queues.taken) = (0, 0);
            }
            Poll::Ready(Ok(count))
        })
        .await
    }
}

impl Write for Wire<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        poll_fn(|_| {
            let mut queues = self.0.borrow_mut();
            let queued = queues.queued;
            let room = queues.out.get_mut(queued..).unwrap_or_default();
            let count = room.len().min(bytes.len());
            if count == 0 && !bytes.is_empty() {
                return Poll::Pending;
            }
            for (place, byte) in room.iter_mut().zip(bytes) {
                *place = *byte;
            }
            queues.queued += count;
            Poll::Ready(Ok(count))
        })
        .await
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
