//! Run-time settings on the node: checked against what it can do, kept where power cuts cannot hurt, applied by the sampling tasks.
//!
//! What is kept is the `InForce` message as it would be sent: it carries the format's version and a checksum.

mod flash;

pub use flash::{FlashStore, RECORD_LEN_MAX, StoreTooSmall};

use crate::node::{Facts, Node, PendingAnswer};
use core::fmt::Write as _;
use embassy_sync::blocking_mutex::raw::RawMutex;
use heapless::String;
use spindle_common::settings::{Abilities, Refused, Settings};
use spindle_common::wire::messages::{Outcome, TEXT_LEN_MAX};
use spindle_common::wire::{InForce, Message, Set, TRIGGER_LEN_MAX, block_len_max, decode};

/// Why settings were not kept or not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("flash: {0}")]
pub struct StoreError(pub &'static str);

/// Where settings are kept.
#[allow(async_fn_in_trait, reason = "tasks of one board run on one executor and need no Send")]
pub trait Store {
    /// Reads what was kept last into `out` and returns its length; `None` when nothing ever was.
    ///
    /// # Errors
    /// When the memory cannot be read.
    async fn load(&mut self, out: &mut [u8]) -> Result<Option<usize>, StoreError>;

    /// Keeps this in place of what was kept before, so that it is there again after a restart. When it returns, or power is cut, one
    /// of the two is kept whole.
    ///
    /// # Errors
    /// When the memory cannot be written; what was kept before stays.
    async fn keep(&mut self, record: &[u8]) -> Result<(), StoreError>;
}

/// Why a node starts with the settings built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The memory cannot be read.
    #[error("{0}")]
    Store(StoreError),
    /// What is there is no record of this node's settings.
    #[error("kept settings are not readable")]
    Unreadable,
    /// They are for other sensors or another link.
    #[error("kept settings do not fit: {0}")]
    Refused(Refused),
}

/// The settings to start with: those kept, if there are any that this node can use, otherwise `built_in`.
pub async fn at_start(
    store: &mut impl Store,
    facts: &Facts<'_>,
    message_len_max: usize,
    built_in: Settings,
) -> (Settings, Option<Unusable>) {
    let mut record = [0; RECORD_LEN_MAX];
    let len = match store.load(&mut record).await {
        Ok(Some(len)) => len,
        Ok(None) => return (built_in, None),
        Err(error) => return (built_in, Some(Unusable::Store(error))),
    };
    let kept = match record.get(..len).map(decode) {
        Some(Ok(Message::InForce(kept))) if kept.node == facts.node => kept.settings,
        _ => return (built_in, Some(Unusable::Unreadable)),
    };
    match check(&kept, facts, message_len_max) {
        Ok(()) => (kept, None),
        Err(refused) => (built_in, Some(Unusable::Refused(refused))),
    }
}

/// Whether a node can do this: its sensors, its link, its buffers; and messages fit in `message_len_max` bytes.
///
/// # Errors
/// What is wrong first.
pub fn check(settings: &Settings, facts: &Facts<'_>, message_len_max: usize) -> Result<(), Refused> {
    let limits = &facts.limits;
    settings.check(&Abilities {
        streams: &facts.streams,
        link_bits_per_s: limits.link_bits_per_s,
        block_samples_max: limits.block_samples_max,
        burst_samples_max: limits.burst_samples_max,
    })?;
    for (stream, info) in settings.streams.iter().flat_map(|stream| {
        facts.streams.iter().filter(|info| info.stream == stream.stream).map(move |info| (stream, info))
    }) {
        let axes = stream.axes.count_ones() as usize;
        let encoding = stream.codec.encoding(info.bits);
        let len = |samples: u32| block_len_max(axes, samples as usize, encoding);
        let fitting = |spare: usize| {
            let bytes = message_len_max.saturating_sub(len(0) + spare);
            u16::try_from(bytes / (len(1) - len(0)).max(1)).unwrap_or(u16::MAX)
        };
        if stream.block_samples > fitting(0) {
            let (block_samples, most) = (stream.block_samples, fitting(0));
            return Err(Refused::Block { stream: stream.stream.0, block_samples, most });
        }
        let samples = u32::from(stream.trigger.before) + u32::from(stream.trigger.after);
        if samples > u32::from(fitting(TRIGGER_LEN_MAX)) {
            let most = fitting(TRIGGER_LEN_MAX);
            return Err(Refused::Burst { stream: stream.stream.0, samples, most });
        }
    }
    Ok(())
}

/// Takes settings from the gateway: checks, keeps and applies them, or answers why not. The answer to settings that are taken
/// goes out when they are in force.
pub(crate) async fn take<M, B, const BLOCKS: usize>(
    node: &Node<'_, M, B, BLOCKS>,
    set: &Set<'_>,
    store: &mut impl Store,
) where
    M: RawMutex,
    B: AsRef<[u8]> + AsMut<[u8]>,
{
    let mut text: String<TEXT_LEN_MAX> = String::new();
    // Texts that do not fit are cut short; the outcome says what matters.
    if let Err(refused) = check(&set.settings, &node.facts, node.message_len_max()) {
        let _ = write!(text, "{refused}");
        node.answer_later(PendingAnswer { id: set.id, outcome: Outcome::Refused, text });
        return;
    }
    let mut record = [0; RECORD_LEN_MAX];
    let in_force = InForce { node: node.facts.node, boot: node.facts.boot, settings: set.settings.clone() };
    let kept = match in_force.encode(&mut record) {
        Ok(len) => store.keep(record.get(..len).unwrap_or_default()).await,
        Err(_) => Err(StoreError("settings cannot be encoded")),
    };
    match kept {
        Err(error) => {
            let _ = write!(text, "{error}; the settings before stay in force");
            node.answer_later(PendingAnswer { id: set.id, outcome: Outcome::Failed, text });
        }
        Ok(()) => {
            let _ = write!(text, "version {} is in force", set.settings.version);
            let answer = PendingAnswer { id: set.id, outcome: Outcome::Done, text };
            if let Some(mut replaced) = node.renew(set.settings.clone(), answer) {
                replaced.outcome = Outcome::Failed;
                replaced.text.clear();
                let _ = replaced.text.push_str("replaced by newer settings before they were in force");
                node.answer_later(replaced);
            }
        }
    }
}
