//! Everything that is wrong with a configuration.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file, when it is another than the configuration: one in `gateway.hardware_configs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in the file, from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// Column in the line, from 1, in characters.
    pub column: usize,
    /// Where in the configuration: `source.mqtt[0].address`; empty for the file as a whole.
    pub at: String,
    /// What is wrong.
    pub what: String,
    /// What would be right; may be empty.
    pub right: String,
}

/// All that is wrong with one file, and then with those it refers to, in order of lines. Displays as one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
pub struct ConfigErrors {
    /// The file.
    pub file: String,
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", problem.file.as_ref().unwrap_or(&self.file))?;
            if problem.line > 0 {
                write!(f, ":{}:{}", problem.line, problem.column)?;
            }
            if !problem.at.is_empty() {
                write!(f, ": {}", problem.at)?;
            }
            write!(f, ": {}", problem.what)?;
            if !problem.right.is_empty() {
                write!(f, "; {}", problem.right)?;
            }
        }
        Ok(())
    }
}

/// The known word nearest to `word`, when one is near enough to be meant.
#[must_use]
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| {
            let score = strsim::jaro_winkler(&lower, &candidate.to_lowercase());
            let contained = candidate.len() > 3 && (lower.contains(candidate) || candidate.contains(&lower));
            (candidate, if contained { score.max(0.85) } else { score })
        })
        .filter(|(_, score)| *score > 0.78)
        .max_by(|left, right| left.1.total_cmp(&right.1))
        .map(|(candidate, _)| candidate)
}

/// "did you mean `x`?", or the list of what is known.
#[must_use]
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!(
            "known are {}",
            known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}
