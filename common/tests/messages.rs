//! Every kind of message with any values that its fields may have.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use proptest::prelude::*;
use spindle_common::id::{BootId, Seq, StreamId, is_name};
use spindle_common::settings::{Codec, Settings, Step, StreamSettings, TriggerSettings};
use spindle_common::wire::messages::{Outcome, Request, ResetCause, TimeSource, Trigger, TriggerKind};
use spindle_common::wire::{
    Ack, Answer, AxisFeatures, Birth, Block, BlockHeader, Burst, Command, Encoding, Features, InForce,
    Lifetime, Message, MoreStatus, Offline, SAMPLE_INDEX_MAX, Set, Status, StepStatus, StreamInfo,
    StreamStatus, TimeAsk, TimePair, TimeTell, decode, frame,
};

/// A text that lives as long as the test: messages borrow theirs.
fn kept(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn name() -> impl Strategy<Value = &'static str> {
    "[A-Za-z0-9._-]{1,32}".prop_filter("a name", |text| is_name(text)).prop_map(kept)
}

fn text(len_max: usize) -> impl Strategy<Value = &'static str> {
    "\\PC{0,40}".prop_filter("short enough", move |text| text.len() <= len_max).prop_map(kept)
}

fn boot() -> impl Strategy<Value = BootId> {
    any::<u64>().prop_map(BootId)
}

fn stream() -> impl Strategy<Value = StreamId> {
    (0_u8..8).prop_map(StreamId)
}

fn seq() -> impl Strategy<Value = Seq> {
    any::<u32>().prop_map(Seq)
}

fn index() -> impl Strategy<Value = u64> {
    prop_oneof![0..=SAMPLE_INDEX_MAX, 0_u64..1000]
}

fn finite() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("finite", |value| value.is_finite())
}

fn scale() -> impl Strategy<Value = f32> {
    finite().prop_map(|value| value.abs().max(f32::MIN_POSITIVE))
}

fn raw() -> impl Strategy<Value = (Encoding, u8)> {
    prop_oneof![(Just(Encoding::Raw16), 2_u8..=16), (Just(Encoding::Raw24), 2_u8..=24),]
}

fn block() -> impl Strategy<Value = Block<'static>> {
    let identity = (name(), boot(), stream(), seq(), index(), any::<u64>());
    let rates = (1_u32.., 1_u32.., any::<u32>(), scale(), raw());
    let decimation = prop_oneof![Just(1_u16), 2_u16..=256];
    let shape = (1_u8..=8, 1_u16..40, 0_u16..32, any::<u8>(), decimation);
    (identity, rates, shape).prop_map(|(identity, rates, (axes, samples, flags, fill, decimation))| {
        let (node, boot, stream, seq, first_sample, tick) = identity;
        let (tick_hz, rate_nominal_mhz, rate_measured_mhz, scale, (encoding, bits)) = rates;
        let header = BlockHeader {
            node,
            boot,
            stream,
            seq,
            first_sample,
            tick,
            tick_hz,
            rate_nominal_mhz,
            rate_measured_mhz,
            scale,
            bits,
            axes,
            samples,
            flags,
            encoding,
            decimation,
        };
        let len = header.len() * encoding.sample_bits() as usize / 8;
        Block { header, samples: Box::leak(vec![fill; len].into_boxed_slice()) }
    })
}

fn birth() -> impl Strategy<Value = Birth<'static>> {
    let info = (name(), name(), "[a-z0-9]{1,8}", 1_u32.., scale(), raw(), 1_u16..=8192);
    let causes = [
        ResetCause::Unknown,
        ResetCause::PowerOn,
        ResetCause::Pin,
        ResetCause::Software,
        ResetCause::Watchdog,
        ResetCause::BrownOut,
        ResetCause::Panic,
    ];
    let who = (name(), boot(), name(), name(), name(), text(32));
    let how = (1_u32.., prop::sample::select(causes.to_vec()), text(160), any::<u32>(), any::<u16>());
    let lifetime = prop::option::of(prop::array::uniform8(any::<u32>()));
    (who, how, lifetime, prop::collection::vec(info, 0..=8)).prop_map(|(who, how, lifetime, infos)| {
        let (node, boot, site, machine, board, firmware) = who;
        let (tick_hz, reset_cause, last_panic, settings_version, ring_capacity) = how;
        let streams = infos.into_iter().enumerate().map(|(index, info)| {
            let (sensor, model, axes, rate_nominal_mhz, scale, (encoding, bits), block_samples) = info;
            let (stream, axes) = (StreamId(index as u8), kept(axes));
            StreamInfo { stream, sensor, model, axes, rate_nominal_mhz, scale, bits, block_samples, encoding }
        });
        let streams = streams.collect();
        Birth {
            node,
            boot,
            site,
            machine,
            board,
            firmware,
            tick_hz,
            reset_cause,
            last_panic,
            settings_version,
            ring_capacity,
            streams,
            lifetime: lifetime.map(|counts| Lifetime {
                boots: counts[0],
                watchdog_resets: counts[1],
                panics: counts[2],
                brown_outs: counts[3],
                software_resets: counts[4],
                hung_tasks: counts[5],
                dropped_before: counts[6],
                unacknowledged_before: counts[7],
            }),
        }
    })
}

fn features() -> impl Strategy<Value = Features<'static>> {
    let axis = prop::array::uniform6(finite()).prop_map(
        |[rms, peak, peak_to_peak, kurtosis, velocity_rms, mean]| AxisFeatures {
            rms,
            peak,
            peak_to_peak,
            kurtosis,
            velocity_rms,
            mean,
        },
    );
    let identity = (name(), boot(), stream(), seq(), index(), 1_u32..);
    let rest = (any::<u64>(), 1_u32.., any::<u32>(), 0_u16..32, prop::collection::vec(axis, 1..=8));
    (identity, rest).prop_map(|((node, boot, stream, seq, first_sample, samples), rest)| {
        let (tick, tick_hz, rate_measured_mhz, flags, axes) = rest;
        let axes = axes.into_iter().collect();
        Features {
            node,
            boot,
            stream,
            seq,
            first_sample,
            samples,
            tick,
            tick_hz,
            rate_measured_mhz,
            flags,
            axes,
        }
    })
}

fn status() -> impl Strategy<Value = Status<'static>> {
    let stream = (index(), index(), index(), any::<u32>(), any::<i16>());
    let counters = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u32>());
    let held = 0_u32..1 << 31;
    let more = prop::option::of((any::<[u32; 3]>(), (step(), index(), any::<u32>(), any::<u32>())));
    let counters = (counters, more);
    (name(), boot(), any::<u64>(), seq(), held, counters, prop::collection::vec(stream, 0..=8)).prop_map(
        |(node, boot, tick, oldest, held, counters, streams)| {
            let ((ring_used, dropped, resent, connects), more) = counters;
            let more = more.map(|([answers_dropped, inbox_dropped, line_errors], step)| {
                let (step, withheld, bursts, bursts_missed) = step;
                let status = StepStatus { step, withheld, bursts, bursts_missed };
                let steps = streams.iter().map(|_| status).collect();
                MoreStatus { answers_dropped, inbox_dropped, line_errors, steps }
            });
            let streams = streams.into_iter().enumerate().map(|(index, stream)| {
                let (taken, lost_overrun, lost_ring, bus_errors, temperature_centi_c) = stream;
                let stream = StreamId(index as u8);
                StreamStatus { stream, taken, lost_overrun, lost_ring, bus_errors, temperature_centi_c }
            });
            let (next, streams) = (oldest.plus(held), streams.collect());
            Status { node, boot, tick, oldest, next, ring_used, dropped, resent, connects, streams, more }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop::sample::select(vec![Step::Raw, Step::Decimated, Step::Features])
}

fn settings() -> impl Strategy<Value = Settings> {
    let trigger = (finite(), any::<u32>(), any::<u16>(), any::<u16>(), any::<u16>());
    let stream = (step(), any::<bool>(), 1_u8.., 2_u16..=256, any::<bool>(), 1_u16..=8192, trigger);
    let every = (any::<u32>(), 1_u16..=3600, 1_u16..=3600);
    (every, prop::collection::vec(stream, 0..=8)).prop_map(|(every, streams)| {
        let streams = streams.into_iter().enumerate().map(|(index, stream)| {
            let (step, may_degrade, axes, decimation, rice, block_samples, trigger) = stream;
            let (level, every_s, before, after, rest_s) = trigger;
            let trigger = TriggerSettings { level: level.abs(), every_s, before, after, rest_s };
            let codec = if rice { Codec::Rice } else { Codec::Raw };
            let stream = StreamId(index as u8);
            StreamSettings { stream, step, may_degrade, axes, decimation, codec, block_samples, trigger }
        });
        let (version, status_every_s, time_every_s) = every;
        Settings { version, status_every_s, time_every_s, streams: streams.collect() }
    })
}

fn message() -> impl Strategy<Value = Message<'static>> {
    let kinds = [TriggerKind::Level, TriggerKind::Command, TriggerKind::Periodic];
    let trigger = (prop::sample::select(kinds.to_vec()), index(), finite())
        .prop_map(|(kind, sample, level)| Trigger { kind, sample, level: level.abs() });
    let sources = [TimeSource::Host, TimeSource::Sntp, TimeSource::Gateway, TimeSource::Ptp];
    let pair = (
        name(),
        boot(),
        any::<u64>(),
        1_u32..,
        any::<i64>(),
        any::<u32>(),
        prop::sample::select(sources.to_vec()),
    );
    let request = prop_oneof![
        Just(Request::Report),
        Just(Request::Identify),
        stream().prop_map(|stream| Request::SelfTest { stream }),
        Just(Request::Reboot),
    ];
    let outcomes = prop::sample::select(vec![Outcome::Done, Outcome::Failed, Outcome::Refused]);
    prop_oneof![
        block().prop_map(Message::Block),
        birth().prop_map(Message::Birth),
        features().prop_map(Message::Features),
        (trigger, block()).prop_map(|(trigger, mut block)| {
            block.header.decimation = 1;
            Message::Burst(Burst { trigger, block })
        }),
        status().prop_map(Message::Status),
        pair.prop_map(|(node, boot, tick, tick_hz, utc_ns, error_ns, source)| {
            Message::TimePair(TimePair { node, boot, tick, tick_hz, utc_ns, error_ns, source })
        }),
        (name(), boot(), seq()).prop_map(|(node, boot, next)| Message::Ack(Ack { node, boot, next })),
        (name(), any::<u32>(), request).prop_map(|(node, id, request)| Message::Command(Command {
            node,
            id,
            request
        })),
        (name(), boot(), any::<u32>(), outcomes, text(160)).prop_map(|(node, boot, id, outcome, text)| {
            Message::Answer(Answer { node, boot, id, outcome, text })
        }),
        (name(), boot()).prop_map(|(node, boot)| Message::Offline(Offline { node, boot })),
        (name(), any::<u32>(), settings())
            .prop_map(|(node, id, settings)| { Message::Set(Set { node, id, settings }) }),
        (name(), boot(), settings())
            .prop_map(|(node, boot, settings)| { Message::InForce(InForce { node, boot, settings }) }),
        (name(), boot(), any::<u32>(), any::<u64>())
            .prop_map(|(node, boot, id, tick)| { Message::TimeAsk(TimeAsk { node, boot, id, tick }) }),
        (name(), boot(), any::<u32>(), any::<u64>(), any::<(i64, i64)>(), any::<u32>()).prop_map(
            |(node, boot, id, tick, (one, other), error_ns)| {
                let (received_ns, sent_ns) = (one.min(other), one.max(other));
                Message::TimeTell(TimeTell { node, boot, id, tick, received_ns, sent_ns, error_ns })
            }
        ),
    ]
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let len = message.encode(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was(message in message()) {
        let bytes = encoded(&message);
        prop_assert_eq!(decode(&bytes), Ok(message));
    }

    #[test]
    fn a_message_with_any_one_bit_flipped_or_cut_anywhere_is_refused(
        message in message(),
        place in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&message);
        prop_assert!(decode(&bytes[..place.index(bytes.len())]).is_err());
        let bit = place.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in 1_u8..=14,
        version in 1_u8..=2,
    ) {
        prop_assert!(decode(&bytes).is_err());
        // With version, kind and checksum put right, so that the header is reached.
        let len = bytes.len();
        if len >= 6 {
            (bytes[0], bytes[1]) = (version, kind);
            let checksum = spindle_common::wire::crc32c(&bytes[..len - 4]);
            bytes[len - 4..].copy_from_slice(&checksum.to_le_bytes());
            if let Ok(message) = decode(&bytes) {
                prop_assert!(encoded(&message).len() <= len);
            }
        }
    }

    #[test]
    fn frames_find_their_way_back_after_any_garbage(
        garbage in prop::collection::vec(any::<u8>(), 0..400),
        messages in prop::collection::vec(message(), 1..4),
        portion in 1_usize..50,
    ) {
        let mut line = garbage;
        line.push(0);
        let sent: Vec<Vec<u8>> = messages.iter().map(encoded).collect();
        for message in &sent {
            let mut framed = vec![0; frame::len_max(message.len())];
            let len = frame::encode(message, &mut framed).unwrap();
            line.extend(&framed[..len]);
        }
        let mut decoder = frame::Decoder::<4096>::new();
        let mut received = Vec::new();
        for bytes in line.chunks(portion) {
            decoder.feed(bytes, |content| received.push(content.to_vec()));
        }
        prop_assert!(received.ends_with(&sent), "{} frames of {}", received.len(), sent.len());
    }
}

#[test]
fn nothing_out_of_range_is_written() {
    let ack = Ack { node: "no/name", boot: BootId(1), next: Seq(0) };
    assert_eq!(ack.encode(&mut [0; 64]).unwrap_err().to_string(), "field node is out of range");
    let mut streams = heapless::Vec::new();
    let status = StreamStatus {
        stream: StreamId(1),
        taken: 0,
        lost_overrun: 0,
        lost_ring: 0,
        bus_errors: 0,
        temperature_centi_c: 0,
    };
    streams.extend([status, status]);
    let (node, boot) = ("node-1", BootId(1));
    let status = Status {
        node,
        boot,
        tick: 0,
        oldest: Seq(0),
        next: Seq(0),
        ring_used: 0,
        dropped: 0,
        resent: 0,
        connects: 0,
        streams,
        more: None,
    };
    assert_eq!(status.encode(&mut [0; 64]).unwrap_err().to_string(), "field streams.stream is out of range");
}

#[test]
fn an_unknown_version_and_an_unknown_kind_are_named() {
    let mut bytes = encoded(&Message::Offline(Offline { node: "a", boot: BootId(1) }));
    for version in [2, 3] {
        bytes[0] = version;
        let unknown = format!(
            "wire version {version} is unknown for this kind; this side reads version 1, and 2 of the kinds that it adds or extends"
        );
        assert_eq!(decode(&bytes).unwrap_err().to_string(), unknown);
    }
    for (version, kind) in [(1, 99), (1, 11), (2, 15)] {
        (bytes[0], bytes[1]) = (version, kind);
        assert_eq!(decode(&bytes).unwrap_err().to_string(), format!("message kind {kind} is unknown"));
    }
}
