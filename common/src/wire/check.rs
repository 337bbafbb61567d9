//! The range of every field, checked alike before encoding and after decoding.

use super::messages::{BurstHeader, Request, TEXT_LEN_MAX};
use super::{
    AXES_MAX, Ack, Answer, BLOCK_SAMPLES_MAX, Birth, BlockHeader, Command, Encoding, Features, InForce,
    Offline, SAMPLE_INDEX_MAX, STREAMS_MAX, Set, Status, StreamInfo, TimeAsk, TimePair, TimeTell, VERSION_2,
    block::flags,
};
use crate::dsp::decimate::FACTOR_MAX;
use crate::id::{NAME_LEN_MAX, StreamId, is_name};

/// A message or header whose fields have ranges.
pub(super) trait Checked {
    /// Version in which such a message is written.
    const VERSION: u8 = super::VERSION;

    /// Name of the first field outside its range, if any.
    fn field_out_of_range(&self) -> Option<&'static str>;
}

/// The first rule that does not hold names its field.
pub(crate) fn first_broken(rules: &[(bool, &'static str)]) -> Option<&'static str> {
    rules.iter().find(|(holds, _)| !holds).map(|(_, field)| *field)
}

fn is_stream(stream: StreamId) -> bool {
    usize::from(stream.0) < STREAMS_MAX
}

fn is_scale(scale: f32) -> bool {
    scale.is_finite() && scale > 0.0
}

fn are_bits(bits: u8, encoding: Encoding) -> bool {
    (2..=24).contains(&bits) && u32::from(bits) <= encoding.sample_bits()
}

/// Whether no stream is named twice and every one is in range.
pub(crate) fn are_streams(streams: impl Iterator<Item = StreamId>) -> bool {
    let mut seen = 0_u32;
    for stream in streams {
        if !is_stream(stream) || seen & (1 << stream.0) != 0 {
            return false;
        }
        seen |= 1 << stream.0;
    }
    true
}

impl Checked for BlockHeader<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[
            (is_name(self.node), "node"),
            (is_stream(self.stream), "stream"),
            (self.first_sample <= SAMPLE_INDEX_MAX, "first_sample"),
            (self.tick_hz > 0, "tick_hz"),
            (self.rate_nominal_mhz > 0, "rate_nominal_mhz"),
            (is_scale(self.scale), "scale"),
            (are_bits(self.bits, self.encoding), "bits"),
            ((1..=AXES_MAX).contains(&usize::from(self.axes)), "axes"),
            ((1..=BLOCK_SAMPLES_MAX).contains(&usize::from(self.samples)), "samples"),
            (self.flags & !flags::ALL == 0, "flags"),
            ((1..=FACTOR_MAX).contains(&u32::from(self.decimation)), "decimation"),
        ])
    }
}

impl Checked for BurstHeader<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[
            (self.trigger.sample <= SAMPLE_INDEX_MAX, "trigger.sample"),
            (self.trigger.level.is_finite() && self.trigger.level >= 0.0, "trigger.level"),
            // A burst shows what a trigger saw: every sample.
            (self.block.decimation == 1, "decimation"),
        ])
        .or_else(|| self.block.field_out_of_range())
    }
}

impl Checked for StreamInfo<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        let letters = self.axes.bytes().all(|byte| byte.is_ascii_alphanumeric());
        first_broken(&[
            (is_name(self.sensor), "streams.sensor"),
            (is_name(self.model), "streams.model"),
            (letters && (1..=AXES_MAX).contains(&self.axes.len()), "streams.axes"),
            (self.rate_nominal_mhz > 0, "streams.rate_nominal_mhz"),
            (is_scale(self.scale), "streams.scale"),
            (are_bits(self.bits, self.encoding), "streams.bits"),
            ((1..=BLOCK_SAMPLES_MAX).contains(&usize::from(self.block_samples)), "streams.block_samples"),
        ])
    }
}

impl Checked for Birth<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[
            (is_name(self.node), "node"),
            (is_name(self.site), "site"),
            (is_name(self.machine), "machine"),
            (is_name(self.board), "board"),
            (self.firmware.len() <= NAME_LEN_MAX, "firmware"),
            (self.tick_hz > 0, "tick_hz"),
            (self.last_panic.len() <= TEXT_LEN_MAX, "last_panic"),
            (are_streams(self.streams.iter().map(|info| info.stream)), "streams.stream"),
        ])
        .or_else(|| self.streams.iter().find_map(Checked::field_out_of_range))
    }
}

impl Checked for Features<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        let finite = self.axes.iter().all(|axis| {
            let values =
                [axis.rms, axis.peak, axis.peak_to_peak, axis.kurtosis, axis.velocity_rms, axis.mean];
            values.iter().all(|value| value.is_finite())
        });
        first_broken(&[
            (is_name(self.node), "node"),
            (is_stream(self.stream), "stream"),
            (self.first_sample <= SAMPLE_INDEX_MAX, "first_sample"),
            (self.samples > 0, "samples"),
            (self.tick_hz > 0, "tick_hz"),
            (self.flags & !flags::ALL == 0, "flags"),
            (!self.axes.is_empty() && finite, "axes"),
        ])
    }
}

impl Checked for Status<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        let counted = |count: u64| count <= SAMPLE_INDEX_MAX;
        first_broken(&[
            (is_name(self.node), "node"),
            (!self.next.precedes(self.oldest), "oldest"),
            (are_streams(self.streams.iter().map(|status| status.stream)), "streams.stream"),
            (self.streams.iter().all(|status| counted(status.taken)), "streams.taken"),
            (self.streams.iter().all(|status| counted(status.lost_overrun)), "streams.lost_overrun"),
            (self.streams.iter().all(|status| counted(status.lost_ring)), "streams.lost_ring"),
        ])
    }
}

impl Checked for TimePair<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[(is_name(self.node), "node"), (self.tick_hz > 0, "tick_hz")])
    }
}

impl Checked for Set<'_> {
    const VERSION: u8 = VERSION_2;

    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[(is_name(self.node), "node")]).or_else(|| self.settings.field_out_of_range())
    }
}

impl Checked for InForce<'_> {
    const VERSION: u8 = VERSION_2;

    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[(is_name(self.node), "node")]).or_else(|| self.settings.field_out_of_range())
    }
}

impl Checked for TimeAsk<'_> {
    const VERSION: u8 = VERSION_2;

    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[(is_name(self.node), "node")])
    }
}

impl Checked for TimeTell<'_> {
    const VERSION: u8 = VERSION_2;

    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[(is_name(self.node), "node"), (self.received_ns <= self.sent_ns, "sent_ns")])
    }
}

impl Checked for Ack<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[(is_name(self.node), "node")])
    }
}

impl Checked for Command<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        let stream_known = match self.request {
            Request::SelfTest { stream } => is_stream(stream),
            Request::Report | Request::Identify | Request::Reboot => true,
        };
        first_broken(&[(is_name(self.node), "node"), (stream_known, "request.stream")])
    }
}

impl Checked for Answer<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[(is_name(self.node), "node"), (self.text.len() <= TEXT_LEN_MAX, "text")])
    }
}

impl Checked for Offline<'_> {
    fn field_out_of_range(&self) -> Option<&'static str> {
        first_broken(&[(is_name(self.node), "node")])
    }
}
