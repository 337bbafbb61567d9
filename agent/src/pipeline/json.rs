//! Records are written as JSON text directly: no intermediate tree, one allocation a record.

use crate::record::SensorKey;
use std::fmt::Write;

/// Appends `text` as a JSON string.
pub(crate) fn text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends a number with the fewest digits that give the same f32 again, or `null` when there is none or it is not finite.
pub(crate) fn number_or_null(out: &mut String, value: Option<f32>) {
    let Some(value) = value.filter(|v| v.is_finite()) else {
        out.push_str("null");
        return;
    };
    let magnitude = value.abs();
    // Rust's plain form has no exponent; very small and large values would be written with dozens of zeros.
    if magnitude != 0.0 && !(1e-5..1e9).contains(&magnitude) {
        let _ = write!(out, "{value:e}");
    } else {
        let _ = write!(out, "{value}");
    }
}

/// Appends an integer.
pub(crate) fn integer(out: &mut String, value: i64) {
    let _ = write!(out, "{value}");
}

/// Appends `,"site":...,"machine":...,"sensor":...`.
pub(crate) fn key_fields(out: &mut String, key: &SensorKey) {
    for (name, value) in [("site", &key.site), ("machine", &key.machine), ("sensor", &key.sensor)] {
        let _ = write!(out, ",\"{name}\":");
        text(out, value);
    }
}

/// Appends `,"name":"2026-01-02T03:04:05.678901234Z"` (RFC 3339, nine decimals).
pub(crate) fn time_field(out: &mut String, name: &str, time_ns: i64) {
    let days = time_ns.div_euclid(86_400_000_000_000);
    let of_day = time_ns.rem_euclid(86_400_000_000_000);
    let (year, month, day) = civil_from_days(days);
    let (seconds, ns) = (of_day / 1_000_000_000, of_day % 1_000_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(
        out,
        ",\"{name}\":\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z\""
    );
}

/// Proleptic Gregorian date of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
/// i64 nanoseconds reach from the year 1677 to 2262, so four digits are enough.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let written = |ns| {
            let mut out = String::new();
            time_field(&mut out, "t", ns);
            out
        };
        assert_eq!(written(0), ",\"t\":\"1970-01-01T00:00:00.000000000Z\"");
        assert_eq!(written(951_782_400_000_000_001), ",\"t\":\"2000-02-29T00:00:00.000000001Z\"");
        assert_eq!(written(-1), ",\"t\":\"1969-12-31T23:59:59.999999999Z\"");
        for ns in [1_795_000_000_123_456_789_i64, i64::MAX, i64::MIN, 1_709_164_800_000_000_000] {
            let stamp = jiff::Timestamp::from_nanosecond(i128::from(ns)).expect("in range");
            assert_eq!(written(ns), format!(",\"t\":\"{stamp:.9}\""));
        }
    }

    #[test]
    fn numbers_come_back_as_the_same_f32() {
        for value in [0.0, 1.5, -2.25e-7, 3.4e38, 1e-45, 0.1, 123_456.79] {
            let mut out = String::new();
            number_or_null(&mut out, Some(value));
            assert_eq!(serde_json::from_str::<f32>(&out).expect(&out), value, "{out}");
        }
        let mut out = String::new();
        number_or_null(&mut out, Some(f32::NAN));
        number_or_null(&mut out, None);
        assert_eq!(out, "nullnull");
    }

    #[test]
    fn strings_are_escaped() {
        let mut out = String::new();
        text(&mut out, "a\"b\\c\n\u{e9}");
        assert_eq!(serde_json::from_str::<String>(&out).expect(&out), "a\"b\\c\n\u{e9}");
    }
}
