//! Each verb as a user types it: its help, its success, its error.

use spindle_tests::agent::spindle;
use std::process::Output;

const VERBS: [&str; 9] =
    ["run", "validate", "init", "tap", "simulate", "replay", "balance", "completions", "demo"];

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn each_verb_has_help_and_is_named_in_the_overview() {
    let overview = spindle(&["--help"]).unwrap();
    assert!(overview.status.success());
    for verb in VERBS {
        let listed = text(&overview).lines().any(|line| line.trim_start().starts_with(verb));
        assert!(listed, "{verb} is not in the overview:\n{}", text(&overview));
        let help = spindle(&[verb, "--help"]).unwrap();
        assert!(help.status.success(), "{verb} --help: {}", text(&help));
        assert!(text(&help).contains(&format!("Usage: spindle {verb}")), "{}", text(&help));
        let wide = text(&help).lines().find(|line| line.chars().count() > 120).map(str::to_owned);
        assert!(wide.is_none(), "{verb} --help has a line of more than 120 columns: {wide:?}");
    }
}

#[test]
fn each_verb_refuses_an_unknown_option_with_exit_code_2() {
    for verb in VERBS {
        let output = spindle(&[verb, "--no-such-option"]).unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb}: {}", text(&output));
        assert!(text(&output).contains("--no-such-option"), "{verb}: {}", text(&output));
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = spindle(&["completions", shell]).unwrap();
        assert!(output.status.success() && text(&output).contains("spindle"), "{shell}: {}", text(&output));
    }
}
