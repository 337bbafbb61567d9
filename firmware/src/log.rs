//! Logs, by defmt behind the feature of its name; without it they cost nothing.

/// `log!(info, "text {}", value)`: level, text and values as defmt takes them.
macro_rules! log {
    ($level:ident, $text:literal $(, $value:expr)* $(,)?) => {{
        #[cfg(feature = "defmt")]
        defmt::$level!($text $(, $value)*);
        #[cfg(not(feature = "defmt"))]
        {
            $(let _ = &$value;)*
        }
    }};
}
pub(crate) use log;
