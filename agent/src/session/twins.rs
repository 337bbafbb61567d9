//! Two boards with one node id, or one board that is heard by two ways: told by turns back and forth. A restart changes the
//! boot once, and what was still under way of the old one comes at once; only two boards go on by turns for seconds.

use crate::source::SourceId;
use spindle_common::id::BootId;

/// Turns back to one that had been left, none longer than [`WINDOW_NS`] after the one before, that show two.
const TURNS: u32 = 4;
const WINDOW_NS: u64 = 60_000_000_000;
/// They must go on for longer than a broker or a network holds messages of an earlier boot back.
const SPAN_NS: u64 = 3_000_000_000;
/// Without a turn for so long, the case is closed.
const QUIET_NS: u64 = 600_000_000_000;
/// Boots and ways that are remembered to know a turn back.
const REMEMBERED: usize = 4;

/// One who speaks for the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Speaker {
    pub(super) boot: BootId,
    pub(super) source: SourceId,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Who spoke, the newest last.
    speakers: Vec<Speaker>,
    /// Turns back in a row, and when the first and the last of them were taken, monotonic ns.
    turns: u32,
    first_ns: u64,
    last_ns: u64,
    /// When two took turns last, monotonic ns, and since when they are known to, UTC ns.
    found: Option<(u64, i64)>,
}

impl Twins {
    /// Somebody spoke; true when that shows for the first time that there are two. `new` is false for what had come before:
    /// a repeat of an earlier boot's message is nobody's turn.
    pub(super) fn heard(&mut self, speaker: Speaker, new: bool, mono_ns: u64, utc_ns: i64) -> bool {
        if self.speakers.last() == Some(&speaker) {
            return false;
        }
        let known = self.speakers.iter().position(|known| *known == speaker);
        if !new && self.speakers.iter().any(|known| known.boot != speaker.boot) {
            return false;
        }
        if let Some(at) = known {
            self.speakers.remove(at);
        } else if self.speakers.len() >= REMEMBERED {
            self.speakers.remove(0);
        }
        self.speakers.push(speaker);
        if known.is_none() {
            return false;
        }
        if self.turns == 0 || mono_ns.saturating_sub(self.last_ns) > WINDOW_NS {
            (self.turns, self.first_ns) = (0, mono_ns);
        }
        self.turns = self.turns.saturating_add(1);
        self.last_ns = mono_ns;
        if self.turns < TURNS || mono_ns.saturating_sub(self.first_ns) < SPAN_NS {
            return false;
        }
        match &mut self.found {
            Some((last_ns, _)) if mono_ns.saturating_sub(*last_ns) < QUIET_NS => {
                *last_ns = mono_ns;
                false
            }
            found => {
                *found = Some((mono_ns, utc_ns));
                true
            }
        }
    }

    /// Those who take turns, and since when (UTC ns), while they do.
    pub(super) fn found(&self, mono_ns: u64) -> Option<(&[Speaker], i64)> {
        let (last_ns, since_ns) = self.found?;
        (mono_ns.saturating_sub(last_ns) < QUIET_NS).then_some((self.speakers.as_slice(), since_ns))
    }
}
