//! The image: built by the source tree's `tests/firmware`, which finds the compiler or says how to get one.

use super::tools::Tool;
use crate::runtime::Stop;
use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use spindle_common::hardware::Board;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Exit code of `tests/firmware` when a tool is missing.
const TOOL_MISSING: i32 = 3;
/// Characters of the build's last line that are shown while it works.
const SHOWN_MAX: usize = 80;
/// Lines of a failed build that are shown.
const LINES_MAX: usize = 40;

/// A built image, as `tests/firmware` tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Image {
    /// The file.
    pub(super) elf: PathBuf,
    flash_bytes: u64,
    ram_bytes: u64,
    stack_room_bytes: u64,
    /// Whether it is within the board's budget.
    pub(super) within_budget: bool,
}

/// Builds the image.
///
/// # Errors
/// It cannot be built; what the build said has been shown.
pub(super) fn image(tool: &Tool, path: &OsStr, stop: &Stop, quiet: bool) -> anyhow::Result<Image> {
    let mut build = tool.start(path)?;
    let spinner = spinner(quiet);
    let status = build.wait(stop, |line| {
        spinner.set_message(line.trim().chars().take(SHOWN_MAX).collect::<String>());
        spinner.tick();
    });
    spinner.finish_and_clear();
    let (status, printed) = (status?, build.printed());
    // One that is over its budget is told as well, and then the status is 1.
    let image = printed.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    if let Some(image) = image {
        return Ok(image);
    }
    let said = build.said();
    let lines: Vec<_> = said.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES_MAX)..] {
        eprintln!("{line}");
    }
    match status.code() {
        Some(TOOL_MISSING) => {
            bail!("the image was not built: a tool is missing, see above for the command that gets it")
        }
        _ => bail!("the image was not built ({status}); to see all of it: {}", tool.words()),
    }
}

fn spinner(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} building, {elapsed}: {msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

impl Image {
    /// What it takes of the board and of the board's budget, a line each.
    pub(super) fn sizes(&self, board: &Board) -> String {
        let mut text = String::new();
        let budget = board.budget;
        for (what, bytes, has, may) in [
            ("flash", self.flash_bytes, board.processor.flash_bytes, budget.map(|budget| budget.flash_bytes)),
            ("RAM", self.ram_bytes, board.processor.ram_bytes, budget.map(|budget| budget.ram_bytes)),
        ] {
            let _ = write!(text, "   {what:<5} {:>9} bytes", grouped(bytes));
            for (of, limit) in [("the board's", has), ("its budget of", may)] {
                if let Some(limit) = limit.filter(|&limit| limit > 0) {
                    let _ = write!(text, ", {} % of {of} {}", bytes * 100 / limit, grouped(limit));
                }
            }
            text.push('\n');
        }
        let _ = write!(text, "   stack {:>9} bytes left", grouped(self.stack_room_bytes));
        if let Some(budget) = budget {
            let _ = write!(text, ", at least {} wanted", grouped(budget.stack_bytes));
        }
        text.push('\n');
        text
    }

    /// Its content.
    pub(super) fn read(&self) -> anyhow::Result<Vec<u8>> {
        std::fs::read(&self.elf).with_context(|| self.elf.display().to_string())
    }
}

/// 1234567 as 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware;
    use spindle_common::hardware::Budget;
    use std::path::Path;

    #[test]
    fn sizes_are_told_in_bytes_and_shares_of_the_board_and_its_budget() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-configs");
        let catalog = hardware::load(&folder).unwrap();
        let image: Image = serde_json::from_str(
            r#"{"board":"qemu-mps2","elf":"x","flash_bytes":262144,"ram_bytes":2097152,"stack_room_bytes":999,"within_budget":true}"#,
        )
        .unwrap();
        let mut board = catalog.boards["qemu-mps2"].clone();
        // The file's own budget moves with the firmware.
        board.budget = Some(Budget { flash_bytes: 589_824, ram_bytes: 2_621_440, stack_bytes: 32_768 });
        assert_eq!(
            image.sizes(&board),
            "   flash   262,144 bytes, 6 % of the board's 4,194,304, 44 % of its budget of 589,824\n   \
             RAM   2,097,152 bytes, 50 % of the board's 4,194,304, 80 % of its budget of 2,621,440\n   \
             stack       999 bytes left, at least 32,768 wanted\n"
        );
    }
}
