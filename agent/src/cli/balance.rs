//! `spindle balance`: the books of guarantee G5.

use super::Outcome;
use super::place::Place;
use crate::journal::{self, Book};
use anyhow::Context as _;

/// Show per sensor where each sample went, and whether the books balance
///
/// Samples taken by the sensor = stored + withheld by its node + rejected + lost before the gateway. A node withholds what its
/// settings say: samples thinned out by decimation, or stood for by features. Stored ones may since have been evicted for want of
/// space. Duplicates were dropped and count nowhere else. Sensors that send JSON give no account of what they took.
/// The books hold at rest: while data flows, the newest blocks may be under way and show as missing. Safe while the gateway runs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 1 when the books of a sensor do not balance.\n\nExamples:\n  spindle balance --config gateway.toml\n  \
                        spindle balance --data-dir /var/lib/spindle --json | jq '.sensors[] | select(.balanced | not)'"
)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object: {"balanced", "sensors": [{"sensor", "taken", "stored", ...}]}
    #[arg(long)]
    json: bool,
}

/// The books of one sensor.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Row {
    /// `site/machine/sensor`.
    pub sensor: String,
    /// Samples per channel that the sensor took, by its node's account; none when it gives no account.
    pub taken: Option<u64>,
    /// Committed to the journal, once each.
    pub stored: u64,
    /// Kept back by the node's settings: thinned out, or stood for by features.
    pub withheld: u64,
    /// Came again and were dropped.
    pub duplicate: u64,
    /// Refused, and in the dead letters.
    pub rejected: u64,
    /// Lost before the gateway.
    pub lost: u64,
    /// Of the stored ones: evicted since.
    pub evicted: u64,
    /// Held for order, not yet stored.
    pub held: u64,
    /// Taken and found nowhere (negative: found and not taken).
    pub missing: i64,
    /// Whether nothing is missing.
    pub balanced: bool,
}

impl Row {
    /// The row of a sensor's book.
    #[must_use]
    pub fn new(sensor: String, book: &Book) -> Self {
        let taken = (book.taken > 0).then_some(book.taken);
        let found = book.accepted + book.withheld + book.rejected + book.lost + book.held;
        let missing = taken.map_or(0, |taken| i128::from(taken) - i128::from(found));
        let missing = i64::try_from(missing).unwrap_or(i64::MAX);
        Self {
            sensor,
            taken,
            stored: book.accepted,
            withheld: book.withheld,
            duplicate: book.duplicate,
            rejected: book.rejected,
            lost: book.lost,
            evicted: book.evicted,
            held: book.held,
            missing,
            balanced: missing == 0,
        }
    }
}

impl Args {
    /// Prints the books.
    pub fn run(self) -> anyhow::Result<Outcome> {
        let dir = self.place.data_dir()?.join("journal");
        let state = match journal::state(&dir) {
            // A gateway that has not committed anything yet.
            Err(journal::JournalError::Unborn { .. }) => journal::State::default(),
            state => state.with_context(|| format!("cannot read the books in {}", dir.display()))?,
        };
        let rows: Vec<Row> =
            state.books.iter().map(|(key, book)| Row::new(key.0.to_string(), book)).collect();
        let balanced = rows.iter().all(|row| row.balanced);
        if self.json {
            println!("{}", serde_json::json!({ "balanced": balanced, "sensors": rows }));
        } else {
            print!("{}", table(&rows));
        }
        Ok(if balanced { Outcome::Done } else { Outcome::Wrong })
    }
}

/// The books as a table of at most 80 columns where names allow it, with a closing line.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let width = rows.iter().map(|row| row.sensor.len()).max().unwrap_or(0).clamp(6, 24);
    let heads = ["taken", "stored", "lost", "rejected", "missing", "dup"];
    let widths = [11, 11, 7, 8, 7, 7];
    let mut line = |name: &str, cells: &[String]| {
        text.push_str(&format!("{name:<width$}"));
        for (cell, width) in cells.iter().zip(widths) {
            text.push_str(&format!(" {cell:>width$}"));
        }
        text.push('\n');
    };
    line("sensor", &heads.map(str::to_owned));
    for row in rows {
        let taken = row.taken.map_or_else(|| "-".to_owned(), |taken| taken.to_string());
        let cells = [row.stored, row.lost, row.rejected].map(|count| count.to_string());
        let [stored, lost, rejected] = cells;
        line(
            &row.sensor,
            &[taken, stored, lost, rejected, row.missing.to_string(), row.duplicate.to_string()],
        );
    }
    let evicted: u64 = rows.iter().map(|row| row.evicted).sum();
    let withheld: u64 = rows.iter().map(|row| row.withheld).sum();
    if withheld > 0 {
        text.push_str(&format!("withheld by nodes as set: {withheld} samples (per sensor: --json)\n"));
    }
    if evicted > 0 {
        text.push_str(&format!("of the stored, {evicted} samples were evicted since for want of space\n"));
    }
    let wrong = rows.iter().filter(|row| !row.balanced).count();
    if wrong == 0 {
        text.push_str(&format!(
            "balance: the books of {} balance\n",
            super::count(rows.len(), "sensor", "sensors")
        ));
    } else {
        text.push_str(&format!(
            "balance: the books of {wrong} of {} DO NOT balance\n",
            super::count(rows.len(), "sensor", "sensors")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance_when_each_sample_taken_is_found_somewhere() {
        let book = Book {
            taken: 100,
            accepted: 10,
            withheld: 70,
            lost: 15,
            rejected: 5,
            duplicate: 40,
            ..Book::default()
        };
        assert!(table(&[Row::new("a/b/c".into(), &book)]).contains("withheld by nodes as set: 70 samples"));
        assert!(Row::new("a/b/c".into(), &book).balanced);
        let short = Book { taken: 101, ..book };
        assert_eq!(Row::new("a/b/c".into(), &short).missing, 1);
        assert_eq!(Row::new("a/b/c".into(), &Book { taken: 99, ..book }).missing, -1);
    }

    #[test]
    fn a_sensor_without_an_account_is_shown_and_not_judged() {
        let row = Row::new("a/b/json".into(), &Book { accepted: 7, ..Book::default() });
        assert!(row.balanced);
        assert!(table(&[row]).contains("the books of 1 sensor balance"));
    }

    #[test]
    fn the_table_fits_80_columns() {
        let book = Book { taken: 12_345_678_901, accepted: 12_345_678_901, ..Book::default() };
        let text = table(&[Row::new("plant/mill-1/spindle".into(), &book)]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
