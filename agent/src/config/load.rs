//! From text to a configuration, or to everything that is wrong with it.

use super::check::check;
use super::error::{ConfigErrors, Problem};
use super::{Config, schema, walk};
use crate::hardware;
use spindle_common::hardware::{HardwareError, Machine};
use std::collections::BTreeMap;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Reads the configuration in the file at `path`. Relative paths in it stay relative to the process's folder.
///
/// # Errors
/// Everything that is wrong, each with its line.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, &file),
        Err(error) => {
            let right = "`spindle init FILE` writes one to start from".to_owned();
            let right = if error.kind() == std::io::ErrorKind::NotFound { right } else { String::new() };
            let problem =
                Problem { file: None, line: 0, column: 0, at: String::new(), what: error.to_string(), right };
            Err(ConfigErrors { file, problems: vec![problem] })
        }
    }
}

/// Reads the configuration in `text`; `file` names it in errors.
///
/// # Errors
/// Everything that is wrong, each with its line.
pub fn parse(text: &str, file: &str) -> Result<Config, ConfigErrors> {
    let mut problems = Vec::new();
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let byte = error.span().map_or(0, |span| span.start);
        problems.push(problem(text, byte, String::new(), error.message().to_owned(), String::new()));
    }
    let document = document.into_inner();
    // After a syntax error the rest of the document is a guess: what follows from it would mislead.
    let differences =
        if syntax.is_empty() { walk::differences(&document, &schema::of_config()) } else { Vec::new() };
    let config =
        if differences.is_empty() { toml::from_str::<Config>(text) } else { mended(text, &differences) };
    for difference in differences {
        let walk::Difference { byte, at, what, right, .. } = difference;
        problems.push(problem(text, byte, at, what, right));
    }
    let mut config = match config {
        Ok(config) => Some(config),
        Err(error) if problems.is_empty() => {
            let byte = error.span().map_or(0, |span| span.start);
            problems.push(problem(text, byte, String::new(), error.message().to_owned(), String::new()));
            None
        }
        Err(_) => None,
    };
    if let Some(config) = &mut config {
        check(config, &mut |at, what, right| {
            problems.push(problem(text, locate(&document, &at), at, what, right));
        });
        match machines(config) {
            Ok(machines) => config.machines = machines,
            Err(errors) => problems.extend(errors),
        }
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
            problems.dedup();
            Err(ConfigErrors { file: file.into(), problems })
        }
    }
}

/// The configuration as it would be without its `differences`, so that what remains can be checked in the same run: unknown
/// keys become those that were meant or go, bad values go.
fn mended(text: &str, differences: &[walk::Difference]) -> Result<Config, toml::de::Error> {
    let mut table: toml::Table = toml::from_str(text)?;
    for difference in differences {
        mend(&mut table, &difference.at, difference.meant.as_deref());
    }
    table.try_into()
}

fn mend(table: &mut toml::Table, at: &str, meant: Option<&str>) {
    let (name, mut rest) = first_name(at);
    if rest.is_empty() {
        if let (Some(value), Some(meant)) = (table.remove(name), meant) {
            table.insert(meant.to_owned(), value);
        }
        return;
    }
    let mut value = table.get_mut(name);
    while let Some((index, after)) = first_index(rest) {
        value = value.and_then(|value| value.get_mut(index));
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    if let Some(toml::Value::Table(inner)) = value
        && !rest.is_empty()
    {
        mend(inner, rest, meant);
    }
}

/// The machines in the folder of hardware configurations, or what is wrong with its files; that it is a folder is checked elsewhere.
fn machines(config: &Config) -> Result<BTreeMap<String, Machine>, Vec<Problem>> {
    let Some(folder) = config.gateway.hardware_configs.as_ref().filter(|folder| folder.is_dir()) else {
        return Ok(BTreeMap::new());
    };
    let problem = |error: HardwareError| Problem {
        file: Some(error.path),
        line: error.line,
        column: 1,
        at: String::new(),
        what: error.reason,
        right: String::new(),
    };
    match hardware::load(folder) {
        Ok(catalog) => Ok(catalog.machines),
        Err(errors) => Err(errors.0.into_iter().map(problem).collect()),
    }
}

fn problem(text: &str, byte: usize, at: String, what: String, right: String) -> Problem {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Problem { file: None, line, column, at, what, right }
}

/// The byte at which the value of `at` (`source.mqtt[0].address`) stands; of a missing one, its nearest parent.
fn locate(document: &DeTable<'_>, at: &str) -> usize {
    let mut byte = 0;
    let mut table = Some(document);
    let mut rest = at;
    while let (Some(here), false) = (table, rest.is_empty()) {
        let (name, after) = first_name(rest);
        let Some((key, value)) = here.iter().find(|(key, _)| key.get_ref() == name) else { break };
        byte = key.span().start;
        let mut value = value;
        rest = after;
        while let Some((index, after)) = first_index(rest) {
            let DeValue::Array(items) = value.get_ref() else { break };
            let Some(item) = items.get(index) else { break };
            value = item;
            byte = item.span().start;
            rest = after;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
    }
    byte
}

/// `a.b` → (`a`, `.b`); `"a.b".c` → (`a.b`, `.c`); `a[0].b` → (`a`, `[0].b`).
fn first_name(path: &str) -> (&str, &str) {
    if let Some(quoted) = path.strip_prefix('"')
        && let Some((name, after)) = quoted.split_once('"')
    {
        return (name, after);
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, after) = path.split_at(end);
    (name, after.strip_prefix('.').unwrap_or(after))
}

fn first_index(path: &str) -> Option<(usize, &str)> {
    let (index, after) = path.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, after))
}
