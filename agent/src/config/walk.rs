//! Walks a TOML document along a JSON Schema and reports every place where the two differ.

use super::error::{nearest, suggest};
use super::schema;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A difference, at a byte of the text.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) byte: usize,
    pub(super) at: String,
    pub(super) what: String,
    pub(super) right: String,
    /// For an unknown key: the one that was probably meant.
    pub(super) meant: Option<String>,
}

/// All differences between `document` and `schema`.
pub(super) fn differences(document: &DeTable<'_>, schema: &Value) -> Vec<Difference> {
    let mut walk = Walk { root: schema, found: Vec::new() };
    walk.table(document, 0, schema, "");
    walk.found
}

struct Walk<'s> {
    root: &'s Value,
    found: Vec<Difference>,
}

impl<'s> Walk<'s> {
    fn report(&mut self, byte: usize, at: &str, what: String, right: String) {
        self.found.push(Difference { byte, at: at.into(), what, right, meant: None });
    }

    /// Follows references and looks through "this or null".
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return target.map_or(schema, |target| self.resolve(target));
        }
        let real = |option: &&Value| option.get("type").and_then(Value::as_str) != Some("null");
        match schema.get("anyOf").and_then(Value::as_array) {
            Some(options) => options.iter().find(real).map_or(schema, |option| self.resolve(option)),
            None => schema,
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, schema: &'s Value, at: &str) {
        let schema = self.resolve(schema);
        let byte = value.span().start;
        if let Some(words) = words(schema) {
            return self.word(value.get_ref(), byte, &words, at);
        }
        let Some(kind) = kind(schema) else { return };
        match (kind, value.get_ref()) {
            ("object", DeValue::Table(table)) => self.table(table, byte, schema, at),
            ("array", DeValue::Array(items)) => {
                self.array_len(items.len(), byte, schema, at);
                if let Some(item_schema) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.value(item, item_schema, &format!("{at}[{index}]"));
                    }
                }
            }
            ("string", DeValue::String(text)) => self.text(text, byte, schema, at),
            ("integer", DeValue::Integer(number)) => {
                self.range(number.as_str(), number.radix(), byte, schema, at)
            }
            ("number", DeValue::Integer(_) | DeValue::Float(_)) | ("boolean", DeValue::Boolean(_)) => {}
            (expected, found) => {
                let right = right_form(expected, schema);
                self.report(byte, at, format!("is {}", name_of(found)), format!("write {right}"));
            }
        }
    }

    fn table(&mut self, table: &DeTable<'_>, byte: usize, schema: &'s Value, at: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let rest = schema.get("additionalProperties");
        let mut meant = Vec::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let inner_at = join(at, name);
            if let Some(inner) = properties.and_then(|properties| properties.get(name)) {
                self.value(value, inner, &inner_at);
            } else if let Some(inner) = rest.filter(|rest| rest.is_object()) {
                self.value(value, inner, &inner_at);
            } else {
                let known: Vec<&str> =
                    properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let absent = known.iter().copied().filter(|known| !table.contains_key(*known));
                let candidate = nearest(name, absent);
                let right = match candidate {
                    Some(candidate) => format!("did you mean `{candidate}`?"),
                    None => self.elsewhere(name).unwrap_or_else(|| suggest(name, &known)),
                };
                self.report(key.span().start, &inner_at, "unknown key".into(), right);
                if let (Some(candidate), Some(found)) = (candidate, self.found.last_mut()) {
                    found.meant = Some(candidate.to_owned());
                    meant.push(candidate);
                }
            }
        }
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) =
                required.as_str().filter(|name| !table.contains_key(*name) && !meant.contains(name))
            else {
                continue;
            };
            let inner = properties.and_then(|properties| properties.get(name));
            let form = inner.map(|inner| {
                let inner = self.resolve(inner);
                kind(inner).map_or_else(|| "a value".into(), |kind| right_form(kind, inner))
            });
            let right = format!("add `{name} = ...`, {}", form.unwrap_or_default());
            self.report(byte, &join(at, name), "is missing".into(), right);
        }
    }

    /// A key that stands in the wrong table: which one knows it.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let sections = self.root.get("properties")?.as_object()?;
        sections.iter().find_map(|(section, schema)| {
            let inner = self.resolve(schema);
            inner.get("properties")?.get(name).map(|_| format!("it belongs under [{section}]"))
        })
    }

    fn array_len(&mut self, len: usize, byte: usize, schema: &Value, at: &str) {
        let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
        let (min, max) = (limit("minItems").unwrap_or(0), limit("maxItems").unwrap_or(u64::MAX));
        if !(min..=max).contains(&(len as u64)) {
            self.report(byte, at, format!("has {len} entries"), format!("write {min}"));
        }
    }

    fn word(&mut self, value: &DeValue<'_>, byte: usize, words: &[&str], at: &str) {
        match value {
            DeValue::String(text) if words.contains(&text.as_ref()) => {}
            DeValue::String(text) => {
                self.report(byte, at, format!("`{text}` is unknown"), suggest(text, words))
            }
            other => {
                let right = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
                self.report(byte, at, format!("is {}", name_of(other)), format!("write {right}"));
            }
        }
    }

    fn text(&mut self, text: &str, byte: usize, schema: &Value, at: &str) {
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        let fine = match format {
            schema::DURATION => humantime::parse_duration(text).is_ok(),
            schema::SIZE => {
                text.parse::<bytesize::ByteSize>().is_ok() && !text.trim().bytes().all(|b| b.is_ascii_digit())
            }
            schema::ADDRESS => text.parse::<std::net::SocketAddr>().is_ok(),
            _ => true,
        };
        if !fine {
            self.report(
                byte,
                at,
                format!("`{text}` is not understood"),
                format!("write {}", right_form("string", schema)),
            );
        }
    }

    fn range(&mut self, digits: &str, radix: u32, byte: usize, schema: &Value, at: &str) {
        let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (low, high) = match schema.get("format").and_then(Value::as_str) {
            Some("uint8") => (0.0, f64::from(u8::MAX)),
            Some("uint16") => (0.0, f64::from(u16::MAX)),
            Some("uint32") => (0.0, f64::from(u32::MAX)),
            Some("uint" | "uint64") => (0.0, i64::MAX as f64),
            Some("int32") => (f64::from(i32::MIN), f64::from(i32::MAX)),
            _ => (i64::MIN as f64, i64::MAX as f64),
        };
        let (low, high) = (limit("minimum").unwrap_or(low), limit("maximum").unwrap_or(high));
        let number = i64::from_str_radix(&digits.replace('_', ""), radix).ok();
        if !number.is_some_and(|number| (low..=high).contains(&(number as f64))) {
            self.report(
                byte,
                at,
                format!("{digits} is out of range"),
                format!("write a number from {low} to {high}"),
            );
        }
    }
}

fn join(at: &str, name: &str) -> String {
    let name = if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() };
    if at.is_empty() { name } else { format!("{at}.{name}") }
}

/// The words that an enumeration knows.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(listed) = schema.get("enum").and_then(Value::as_array) {
        return Some(listed.iter().filter_map(Value::as_str).collect());
    }
    let options = schema.get("oneOf").and_then(Value::as_array)?;
    let mut words = Vec::new();
    for option in options {
        match option.get("enum").and_then(Value::as_array) {
            Some(listed) => words.extend(listed.iter().filter_map(Value::as_str)),
            None => words.push(option.get("const").and_then(Value::as_str)?),
        }
    }
    Some(words)
}

/// The schema's type; of "this or null", this.
fn kind(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        _ => None,
    }
}

fn right_form(kind: &str, schema: &Value) -> String {
    match (kind, schema.get("format").and_then(Value::as_str)) {
        (_, Some(schema::DURATION)) => {
            "a duration with its unit, such as \"250ms\", \"3s\" or \"1h 30min\"".into()
        }
        (_, Some(schema::SIZE)) => "a size with its unit, such as \"64 KiB\", \"4 MiB\" or \"8 GiB\"".into(),
        (_, Some(schema::ADDRESS)) => "an IP address and a port, such as \"127.0.0.1:1883\"".into(),
        ("string", _) => "text in quotes".into(),
        ("integer", _) => "a whole number".into(),
        ("number", _) => "a number".into(),
        ("boolean", _) => "true or false".into(),
        ("array", _) => "a list in [ ]".into(),
        ("object", _) => "a table".into(),
        (other, _) => other.into(),
    }
}

fn name_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
