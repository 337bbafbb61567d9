//! A serial port that goes on after a garbled byte: a byte with a wrong stop bit, or one that came too fast, costs the frame that
//! it was in, whose checksum tells, and not the link.

use super::Dial;
use core::convert::Infallible;
use core::sync::atomic::{AtomicU32, Ordering};
use embassy_futures::yield_now;
use embedded_io_async::{ErrorType, Read, Write};

/// After so many errors with no byte between them the port is taken for broken, and the link is opened anew.
const ERRORS_IN_ROW_MAX: u8 = 16;

/// A port that is always there.
#[derive(Debug)]
pub struct Line<I> {
    port: I,
    errors: &'static AtomicU32,
}

impl<I> Line<I> {
    /// Adds to `errors` each time that reading fails, which is one byte or more; wraps.
    pub const fn new(port: I, errors: &'static AtomicU32) -> Self {
        Self { port, errors }
    }
}

impl<I: Read + Write> Dial for Line<I> {
    type Io<'d>
        = LineIo<'d, I>
    where
        I: 'd;
    type Error = Infallible;

    async fn dial(&mut self) -> Result<LineIo<'_, I>, Infallible> {
        Ok(LineIo { port: &mut self.port, errors: self.errors })
    }
}

/// An open [`Line`].
#[derive(Debug)]
pub struct LineIo<'d, I> {
    port: &'d mut I,
    errors: &'static AtomicU32,
}

impl<I: ErrorType> ErrorType for LineIo<'_, I> {
    type Error = I::Error;
}

impl<I: Read> Read for LineIo<'_, I> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, I::Error> {
        let mut in_row = 0;
        loop {
            let error = match self.port.read(bytes).await {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            self.errors.fetch_add(1, Ordering::Relaxed);
            in_row += 1;
            if in_row == ERRORS_IN_ROW_MAX {
                return Err(error);
            }
            // A port may fail at once and again: the other tasks go on between.
            yield_now().await;
        }
    }
}

impl<I: Write> Write for LineIo<'_, I> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, I::Error> {
        self.port.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), I::Error> {
        self.port.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embassy_futures::block_on;
    use embedded_io_async::ErrorKind;
    use std::boxed::Box;

    /// Fails so many times before each byte.
    struct Noisy {
        errors: u8,
        left: u8,
    }

    impl ErrorType for Noisy {
        type Error = ErrorKind;
    }

    impl Read for Noisy {
        async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ErrorKind> {
            if self.left > 0 {
                self.left -= 1;
                return Err(ErrorKind::Other);
            }
            self.left = self.errors;
            bytes[0] = 7;
            Ok(1)
        }
    }

    impl Write for Noisy {
        async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            Ok(bytes.len())
        }

        async fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    fn read_two(errors: u8) -> ([Result<usize, ErrorKind>; 2], u32) {
        let counter: &'static AtomicU32 = Box::leak(Box::default());
        let mut line = Line::new(Noisy { errors, left: errors }, counter);
        let results = block_on(async {
            let mut io = line.dial().await.unwrap();
            let mut byte = [0];
            [io.read(&mut byte).await, io.read(&mut byte).await]
        });
        (results, counter.load(Ordering::Relaxed))
    }

    #[test]
    fn a_garbled_byte_is_counted_and_the_next_is_read() {
        assert_eq!(read_two(0), ([Ok(1), Ok(1)], 0));
        assert_eq!(read_two(3), ([Ok(1), Ok(1)], 6));
    }

    #[test]
    fn a_port_that_only_fails_ends_the_link() {
        let (results, errors) = read_two(u8::MAX);
        assert_eq!(results, [Err(ErrorKind::Other), Err(ErrorKind::Other)]);
        assert_eq!(errors, 2 * u32::from(ERRORS_IN_ROW_MAX));
    }
}
