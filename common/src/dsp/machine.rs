//! Where a machine's parts make lines: rolling bearings, gears, cutters.
//!
//! Rolling bearings: kinematics without slip, outer ring at rest (for instance R. B. Randall and J. Antoni, Mech. Syst. Signal
//! Process. 25, 2011, equations 1 to 4). Load raises the contact angle and balls slip: true lines lie some tenths of a percent,
//! seldom more than 1 to 2 %, off.

use core::f64::consts::PI;
use serde::{Deserialize, Serialize};

/// A rolling bearing's geometry; both diameters in one unit, whichever.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bearing {
    /// Balls or rollers of one row.
    pub elements: u32,
    /// Diameter of one.
    pub element_diameter: f64,
    /// Diameter of the circle that their centres are on.
    pub pitch_diameter: f64,
    /// Contact angle, degrees.
    #[serde(default)]
    pub contact_angle_deg: f64,
}

/// A bearing's lines in orders: multiples of the shaft's speed relative to the outer ring.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BearingOrders {
    /// Elements passing a spot on the outer ring (BPFO).
    pub outer: f64,
    /// Elements passing a spot on the inner ring (BPFI); side-bands at the shaft's speed.
    pub inner: f64,
    /// Turns of an element about itself (BSF).
    pub spin: f64,
    /// A spot on an element striking either ring, twice a turn (2 x BSF); side-bands at the cage's speed.
    pub element: f64,
    /// Turns of the cage (FTF).
    pub cage: f64,
}

/// Why there are no lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Too few elements.
    #[error("a bearing has at least 3 elements")]
    Elements,
    /// Diameters do not fit each other.
    #[error("a bearing's element diameter must be above 0 and below the pitch diameter")]
    Diameters,
    /// Contact angle out of range.
    #[error("a contact angle is 0 to below 90 degrees")]
    Angle,
}

impl Bearing {
    /// Its lines.
    ///
    /// # Errors
    /// [`GeometryError`] for a geometry that no bearing has.
    pub fn orders(&self) -> Result<BearingOrders, GeometryError> {
        if self.elements < 3 {
            return Err(GeometryError::Elements);
        }
        // Each also false for what is not a number.
        if !(self.element_diameter > 0.0
            && self.element_diameter < self.pitch_diameter
            && self.pitch_diameter.is_finite())
        {
            return Err(GeometryError::Diameters);
        }
        if !(0.0..90.0).contains(&self.contact_angle_deg) {
            return Err(GeometryError::Angle);
        }
        let ratio =
            self.element_diameter / self.pitch_diameter * libm::cos(self.contact_angle_deg * PI / 180.0);
        let elements = f64::from(self.elements);
        let spin = self.pitch_diameter / (2.0 * self.element_diameter) * (1.0 - ratio * ratio);
        Ok(BearingOrders {
            outer: elements / 2.0 * (1.0 - ratio),
            inner: elements / 2.0 * (1.0 + ratio),
            spin,
            element: 2.0 * spin,
            cage: (1.0 - ratio) / 2.0,
        })
    }
}

/// Tooth mesh of a gear of so many teeth, Hz; side-bands at the speed of the shaft with the fault.
#[must_use]
pub fn gear_mesh_hz(teeth: u32, shaft_hz: f64) -> f64 {
    f64::from(teeth) * shaft_hz
}

/// Tooth pass of a cutter, Hz.
#[must_use]
pub fn tooth_pass_hz(flutes: u32, spindle_rpm: f64) -> f64 {
    f64::from(flutes) * spindle_rpm / 60.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_6205_are_those_that_its_data_set_publishes() {
        // SKF 6205-2RS of the CWRU data set: 9 balls of 0.3126 in on a circle of 1.537 in.
        let bearing =
            Bearing { elements: 9, element_diameter: 0.3126, pitch_diameter: 1.537, contact_angle_deg: 0.0 };
        let orders = bearing.orders().unwrap();
        for (found, published) in [
            (orders.outer, 3.5848),
            (orders.inner, 5.4152),
            (orders.cage, 0.3983),
            (orders.spin, 2.3567),
            // Published as the ball's.
            (orders.element, 4.7135),
        ] {
            assert!((found - published).abs() < 1e-4, "{found} for {published}");
        }
        assert!((orders.outer + orders.inner - 9.0).abs() < 1e-12);
    }

    #[test]
    fn geometry_that_no_bearing_has_is_refused() {
        let good =
            Bearing { elements: 9, element_diameter: 8.0, pitch_diameter: 39.0, contact_angle_deg: 15.0 };
        assert!(good.orders().is_ok());
        assert_eq!(Bearing { elements: 2, ..good }.orders(), Err(GeometryError::Elements));
        assert_eq!(Bearing { element_diameter: 40.0, ..good }.orders(), Err(GeometryError::Diameters));
        assert_eq!(Bearing { element_diameter: f64::NAN, ..good }.orders(), Err(GeometryError::Diameters));
        assert_eq!(Bearing { contact_angle_deg: 90.0, ..good }.orders(), Err(GeometryError::Angle));
    }

    #[test]
    fn gears_and_cutters_multiply() {
        assert_eq!(gear_mesh_hz(17, 10.0), 170.0);
        assert_eq!(tooth_pass_hz(4, 9000.0), 600.0);
    }
}
