//! Starts a sensor by its configured type, so that a board's binary holds pins only: it gives a bus and an interrupt pin (or
//! a converter), and the node's file says what is wired there.

use super::analog::{AdcStream, Analog};
use super::{adxl345, adxl355, iis3dwb};
use crate::acquire::{self, Options};
use crate::clock::Timebase;
use crate::config::SensorConfig;
use crate::node::Node;
use crate::reduce::Buffers;
use embassy_sync::blocking_mutex::raw::RawMutex;
use embedded_hal_async::digital::Wait;
use embedded_hal_async::spi::SpiDevice;

/// Why a port was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The firmware has no driver of this type, or not on this kind of port.
    #[error("sensor {name}: no driver of type {model} for this port")]
    Model {
        /// The sensor.
        name: &'static str,
        /// Its type.
        model: &'static str,
    },
    /// The driver has no such range.
    #[error("sensor {name}: the driver of {model} has no such full scale")]
    Range {
        /// The sensor.
        name: &'static str,
        /// Its type.
        model: &'static str,
    },
}

/// Samples the chip on this bus and interrupt pin until the node halts the stream. Bus mode and clock are the board's to set,
/// see [`SensorConfig::spi_mode`] and [`SensorConfig::spi_hz_max`].
///
/// `PLANAR` is the length of a block's and of a burst's buffer, see [`NodeConfig::planar_len_max`](crate::config::NodeConfig::planar_len_max).
/// Buffer and driver live in the future, not on the stack.
///
/// # Errors
/// When the firmware cannot drive what is configured.
pub async fn run<const PLANAR: usize, M, B, const BLOCKS: usize, S, P, T>(
    node: &Node<'_, M, B, BLOCKS>,
    (spi, int1): (S, P),
    time: &T,
    config: &SensorConfig,
    options: Options<'_>,
) -> Result<(), PortError>
where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
    S: SpiDevice,
    P: Wait,
    T: Timebase,
{
    let SensorConfig { name, model, full_scale_g, .. } = *config;
    let (full_scale_g, no_range) = (f64::from(full_scale_g), PortError::Range { name, model });
    match model {
        "iis3dwb" => {
            let full_scale = iis3dwb::FullScale::from_g(full_scale_g).ok_or(no_range)?;
            let config = iis3dwb::Config { full_scale, ..iis3dwb::Config::default() };
            let mut driver = iis3dwb::Iis3dwb::new(spi, int1, time, config);
            acquire::run(node, &mut driver, time, Buffers::<i16, PLANAR>::new().lend(), options).await;
        }
        "adxl355" => {
            let full_scale = adxl355::FullScale::from_g(full_scale_g).ok_or(no_range)?;
            let config = adxl355::Config { full_scale, ..adxl355::Config::default() };
            let mut driver = adxl355::Adxl355::new(spi, int1, time, config);
            acquire::run(node, &mut driver, time, Buffers::<i32, PLANAR>::new().lend(), options).await;
        }
        "adxl345" => {
            let full_scale = adxl345::FullScale::from_g(full_scale_g).ok_or(no_range)?;
            let config = adxl345::Config { full_scale, ..adxl345::Config::default() };
            let mut driver = adxl345::Adxl345::new(spi, int1, time, config);
            acquire::run(node, &mut driver, time, Buffers::<i16, PLANAR>::new().lend(), options).await;
        }
        _ => return Err(PortError::Model { name, model }),
    }
    Ok(())
}

/// Samples the analog sensor on this converter until the node halts the stream. `BUFFER`: conversions in the largest piece.
///
/// # Errors
/// When what is configured is no analog sensor.
pub async fn run_analog<const PLANAR: usize, const BUFFER: usize, M, B, const BLOCKS: usize, A, T>(
    node: &Node<'_, M, B, BLOCKS>,
    adc: A,
    time: &T,
    config: &SensorConfig,
    options: Options<'_>,
) -> Result<(), PortError>
where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
    A: AdcStream,
    T: Timebase,
{
    if config.spi_hz_max > 0 {
        return Err(PortError::Model { name: config.name, model: config.model });
    }
    let mut driver = Analog::<_, BUFFER>::new(adc, config);
    acquire::run(node, &mut driver, time, Buffers::<i16, PLANAR>::new().lend(), options).await;
    Ok(())
}
