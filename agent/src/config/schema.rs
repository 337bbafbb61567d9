//! The configuration's JSON Schema, made from the types, and the text forms that it knows by name. The check of a file
//! walks the same schema, so the two cannot disagree.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// Format name of [`DurationText`].
pub const DURATION: &str = "spindle-duration";
/// Format name of [`SizeText`].
pub const SIZE: &str = "spindle-size";
/// Format name of [`AddressText`].
pub const ADDRESS: &str = "spindle-address";

/// A duration with its unit, such as `"250ms"` or `"1h 30min"`.
#[derive(Debug)]
pub struct DurationText;
/// A size with its unit, such as `"64 MiB"`.
#[derive(Debug)]
pub struct SizeText;
/// An IP address and a port, such as `"0.0.0.0:1883"`.
#[derive(Debug)]
pub struct AddressText;

macro_rules! text {
    ($type:ty, $name:literal, $format:expr, $description:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "description": $description })
            }
        }
    };
}
text!(DurationText, "Duration", DURATION, "A duration with its unit: 250ms, 3s, 5min, 1h 30min, 7days.");
text!(SizeText, "Size", SIZE, "A size with its unit: 64 KiB, 4 MiB, 8 GiB.");
text!(AddressText, "Address", ADDRESS, "An IP address and a port: 127.0.0.1:1883, [::]:1883.");

/// The JSON Schema of `gateway.toml`.
#[must_use]
pub fn of_config() -> serde_json::Value {
    let mut schema = schemars::schema_for!(super::Config);
    schema.insert("title".into(), "Spindle gateway configuration".into());
    schema.to_value()
}
