//! Settings, and how far they are in force: between whoever gives them and the sampling tasks that work by them.

use super::{Node, PendingAnswer};
use crate::reduce::degraded;
use crate::settings::Unusable;
use embassy_sync::blocking_mutex::raw::RawMutex;
use spindle_common::id::StreamId;
use spindle_common::settings::{Settings, StreamSettings};
use spindle_common::wire::STREAMS_MAX;

/// Settings, and how far they are in force.
pub(super) struct Force {
    pub(super) settings: Settings,
    /// Steps that streams which may degrade are down.
    down: u8,
    /// Counts changes of the two.
    generation: u32,
    /// By stream: the generation that its task works by.
    applied: [u32; STREAMS_MAX],
    /// By stream: what it works by, as its memory allows.
    pub(super) sent: [Option<StreamSettings>; STREAMS_MAX],
    /// The generation that the gateway was told of, and whether its settings changed since.
    told: u32,
    renewed: bool,
    /// Whom to answer when they are in force.
    waiting: Option<PendingAnswer>,
    /// Why those that were kept are not in force.
    unusable: Option<Unusable>,
}

impl Force {
    /// These settings, which no stream works by yet.
    pub(super) const fn new(settings: Settings) -> Self {
        Self {
            settings,
            down: 0,
            generation: 1,
            applied: [0; STREAMS_MAX],
            sent: [None; STREAMS_MAX],
            told: 1,
            renewed: false,
            waiting: None,
            unusable: None,
        }
    }
}

/// A change that is in force on every stream now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Streams report in other steps.
    Steps,
    /// Other settings.
    Settings,
}

impl<M: RawMutex, B: AsRef<[u8]> + AsMut<[u8]>, const BLOCKS: usize> Node<'_, M, B, BLOCKS> {
    /// What a stream's sampling task is to work by, and the number to say in [`Node::applied`].
    #[must_use]
    pub fn plan(&self, stream: StreamId) -> Option<(u32, StreamSettings)> {
        self.with(|inner| {
            let Force { settings, down, generation, .. } = &inner.force;
            let settings = settings.streams.iter().find(|settings| settings.stream == stream)?;
            Some((*generation, degraded(settings, *down)))
        })
    }

    /// A stream's sampling task works by the plan of this number from now on, as far as `sent` says.
    pub fn applied(&self, stream: StreamId, generation: u32, sent: &StreamSettings) {
        let index = usize::from(stream.0).min(STREAMS_MAX - 1);
        self.with(|inner| {
            inner.force.applied[index] = generation;
            inner.force.sent[index] = Some(*sent);
            inner.steps[index].step = sent.step;
        });
        self.sealed.signal(());
    }

    /// A stream's sampling task has ended: no settings wait for it any more.
    pub fn ended(&self, stream: StreamId) {
        let index = usize::from(stream.0).min(STREAMS_MAX - 1);
        self.with(|inner| inner.force.applied[index] = u32::MAX);
        self.sealed.signal(());
    }

    /// Takes other settings; `answer` goes out when every stream works by them. Returns the answer of settings that these
    /// replace before they were in force.
    pub fn renew(&self, settings: Settings, answer: PendingAnswer) -> Option<PendingAnswer> {
        let replaced = self.with(|inner| {
            inner.force.settings = settings;
            inner.force.generation = inner.force.generation.saturating_add(1);
            inner.force.renewed = true;
            inner.force.unusable = None;
            inner.force.waiting.replace(answer)
        });
        self.wake_streams();
        replaced
    }

    /// Lets the streams that may degrade go down to so many steps below their settings.
    pub fn degrade(&self, down: u8) {
        let changed = self.with(|inner| {
            let force = &mut inner.force;
            let can = force.settings.streams.iter().any(|stream| stream.may_degrade);
            let changed = can && force.down != down;
            force.down = down;
            force.generation = force.generation.saturating_add(u32::from(changed));
            changed
        });
        if changed {
            self.wake_streams();
        }
    }

    fn wake_streams(&self) {
        for requests in self.requests.iter().take(self.facts.streams.len()) {
            requests.settings.signal(());
        }
    }

    /// Once after each change, when it is in force on every stream: what is to be told, and the answer to whoever asked for it.
    pub fn take_change(&self) -> Option<(Change, Option<PendingAnswer>)> {
        self.with(|inner| {
            let force = &mut inner.force;
            let everywhere = force
                .applied
                .iter()
                .take(self.facts.streams.len())
                .all(|applied| *applied >= force.generation);
            if force.told == force.generation || !everywhere {
                return None;
            }
            force.told = force.generation;
            let renewed = core::mem::take(&mut force.renewed);
            let change = if renewed { Change::Settings } else { Change::Steps };
            Some((change, force.waiting.take()))
        })
    }

    /// Notes why the settings that were kept are not in force: told to who asks for a report, until others come.
    pub fn note_unusable(&self, unusable: Option<Unusable>) {
        self.with(|inner| inner.force.unusable = unusable);
    }

    /// See [`Node::note_unusable`].
    #[must_use]
    pub fn unusable(&self) -> Option<Unusable> {
        self.with(|inner| inner.force.unusable)
    }

    /// Seconds between statuses, and between (tick, UTC) pairs.
    #[must_use]
    pub fn intervals_s(&self) -> (u16, u16) {
        self.with(|inner| (inner.force.settings.status_every_s, inner.force.settings.time_every_s))
    }
}
