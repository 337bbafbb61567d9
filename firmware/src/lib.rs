//! Spindle's sensor node: everything but pins, `no_std`, static memory, generic over `embedded-hal-async`,
//! `embedded-io-async` and embassy-time. A board's binary gives it a sensor bus, an interrupt pin, a way to dial the
//! gateway and a place for the ring.
//!
//! A sample walks it like this: a [`sensor`] driver reads its FIFO; [`acquire`] lets [`reduce`] make blocks or features of
//! it, as the [`settings`] say, which are encoded into the [`ring`]; [`uplink`] decides what to send when, and its shell sends it over a [`transport`]; a block leaves the ring
//! when the gateway has said that it is durable, or when the full ring drops its oldest (counted).
//!
//! The feature `host` adds virtual boards: the same core with modelled chips, many in one process.
#![cfg_attr(not(any(test, feature = "host")), no_std)]

pub mod acquire;
pub mod app;
pub mod clock;
pub mod command;
pub mod config;
#[cfg(feature = "host")]
pub mod host;
pub mod light;
mod log;
pub mod node;
pub mod reduce;
pub mod retain;
pub mod ring;
pub mod sensor;
pub mod settings;
pub mod supervise;
pub mod transport;
pub mod uplink;
