//! The chips that a virtual board can carry, each as its register-level model under its real driver.

use crate::sensor::{adxl345, adxl355, iis3dwb};

/// A chip and its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chip {
    /// ST IIS3DWB.
    Iis3dwb(iis3dwb::FullScale),
    /// Analog Devices ADXL355.
    Adxl355(adxl355::FullScale),
    /// Analog Devices ADXL345.
    Adxl345(adxl345::FullScale),
}

impl Chip {
    /// The chip of this type, a file in `hardware-configs/sensors`, at this full scale. `None` when there is no model of it
    /// or it has no such range.
    #[must_use]
    pub fn named(model: &str, full_scale_g: f64) -> Option<Self> {
        match model {
            "iis3dwb" => iis3dwb::FullScale::from_g(full_scale_g).map(Self::Iis3dwb),
            "adxl355" => adxl355::FullScale::from_g(full_scale_g).map(Self::Adxl355),
            "adxl345" => adxl345::FullScale::from_g(full_scale_g).map(Self::Adxl345),
            _ => None,
        }
    }

    /// Its type.
    #[must_use]
    pub const fn model(self) -> &'static str {
        match self {
            Self::Iis3dwb(_) => "iis3dwb",
            Self::Adxl355(_) => "adxl355",
            Self::Adxl345(_) => "adxl345",
        }
    }

    /// Nominal sample rate, mHz.
    #[must_use]
    pub const fn rate_nominal_mhz(self) -> u32 {
        match self {
            Self::Iis3dwb(_) => iis3dwb::RATE_NOMINAL_MHZ,
            Self::Adxl355(_) => adxl355::RATE_NOMINAL_MHZ,
            Self::Adxl345(_) => adxl345::RATE_NOMINAL_MHZ,
        }
    }

    /// Bits of its converter.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Iis3dwb(_) => 16,
            Self::Adxl355(_) => 20,
            Self::Adxl345(_) => 13,
        }
    }

    /// m/s² per count.
    #[must_use]
    pub const fn scale(self) -> f32 {
        match self {
            Self::Iis3dwb(full_scale) => full_scale.scale(),
            Self::Adxl355(full_scale) => full_scale.scale(),
            Self::Adxl345(_) => adxl345::SCALE,
        }
    }
}
