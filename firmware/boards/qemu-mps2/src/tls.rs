//! TLS to the broker, and a word on the console when it is not reached or not believed.

use crate::host;
use core::fmt::Display;
use spindle_firmware::config::TlsFiles;
use spindle_firmware::transport::Dial;
use spindle_firmware::transport::tls::{TlsBuffers, TlsDial};
use static_cell::ConstStaticCell;

/// TLS over `dial`. To be called once.
pub fn wrap<D: Dial<Error: Display>>(dial: D, broker: &'static str, files: TlsFiles) -> impl Dial {
    static BUFFERS: ConstStaticCell<TlsBuffers> = ConstStaticCell::new(TlsBuffers::new());
    let fill: fn(&mut [u8]) = host::fill_random;
    Told(TlsDial::new(dial, broker, files, BUFFERS.take(), fill))
}

struct Told<D>(D);

impl<D: Dial<Error: Display>> Dial for Told<D> {
    type Io<'d>
        = D::Io<'d>
    where
        Self: 'd;
    type Error = D::Error;

    async fn dial(&mut self) -> Result<D::Io<'_>, D::Error> {
        let result = self.0.dial().await;
        if let Err(error) = &result {
            host::print(format_args!("no link: {error}"));
        }
        result
    }
}
