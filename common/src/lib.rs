//! What the sensor node and the gateway share: the wire format, ids and units as types, the time base and the
//! signal processing. `no_std`, no `unsafe`, no allocation; it knows of no transport, board, file or database.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod dsp;
#[cfg(feature = "std")]
pub mod hardware;
pub mod id;
pub mod link;
pub mod settings;
pub mod time;
pub mod wire;
