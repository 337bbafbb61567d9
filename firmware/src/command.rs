//! What the gateway can ask of a node, and the answers.

use crate::node::{Node, PendingAnswer};
use core::fmt::Write as _;
use embassy_sync::blocking_mutex::raw::RawMutex;
use heapless::String;
use spindle_common::wire::Command;
use spindle_common::wire::messages::{Outcome, Request, TEXT_LEN_MAX};

/// Does what was asked, or hands it to the task that can; the answer goes out by the node's queue. Returns true when the
/// board shall restart.
pub(crate) fn handle<M, B, const BLOCKS: usize>(
    node: &Node<'_, M, B, BLOCKS>,
    command: &Command<'_>,
    report: impl FnOnce(),
) -> bool
where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
{
    let mut outcome = Outcome::Done;
    let mut text: String<TEXT_LEN_MAX> = String::new();
    let mut restart = false;
    match command.request {
        Request::Report => {
            report();
            if let Some(unusable) = node.unusable() {
                // Cut short if it does not fit.
                let _ = write!(text, "{unusable}; those built in are in force");
            }
        }
        Request::Identify => node.identify.signal(()),
        Request::SelfTest { stream } if node.stream(stream).is_some() => {
            // The sampling task answers when the test is over.
            node.requests(stream).self_test.signal(command.id);
            return false;
        }
        Request::SelfTest { .. } => {
            outcome = Outcome::Refused;
            // Fits: the text is shorter than the limit.
            let _ = text.push_str("no such sensor");
        }
        Request::Reboot => restart = true,
    }
    node.answer_later(PendingAnswer { id: command.id, outcome, text });
    restart
}
