//! The demo as a user runs it.

use spindle_tests::agent::Verb;
use std::time::Duration;

#[test]
fn the_demo_ends_by_itself_with_an_alert_and_balanced_books_in_plain_lines_of_80_columns() {
    let demo = Verb::start(&["demo", "--for", "20s", "--plain"]).unwrap();
    let text = demo.finish(Duration::from_secs(60)).unwrap();
    assert!(!text.contains('\x1b'), "plain means no escape sequences:\n{text}");
    let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "lines of more than 80 columns: {wide:?}");
    for word in ["alert", "mock", "balance"] {
        assert!(text.to_lowercase().contains(word), "{word:?} is not in:\n{text}");
    }
}
