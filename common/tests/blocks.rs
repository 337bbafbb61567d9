//! Blocks: every encoding gives back what went in.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use proptest::prelude::*;
use spindle_common::id::{BootId, Seq, StreamId};
use spindle_common::wire::{BlockHeader, Encoding, Message, Samples, block_len_max, decode, encode_block};

fn header(encoding: Encoding, axes: u8, samples: u16) -> BlockHeader<'static> {
    BlockHeader {
        node: "node-1",
        boot: BootId(7),
        stream: StreamId(0),
        seq: Seq(1),
        first_sample: 0,
        tick: 0,
        tick_hz: 1_000_000,
        rate_nominal_mhz: 26_667_000,
        rate_measured_mhz: 0,
        scale: 0.001,
        bits: 16,
        axes,
        samples,
        flags: 0,
        encoding,
        decimation: 1,
    }
}

/// Encodes, decodes as counts and as `f32`, compares, and gives the message's length and encoding.
fn round_trip(wanted: Encoding, axes: u8, samples: &[i32]) -> (usize, Encoding) {
    let per_channel = samples.len() / usize::from(axes);
    let header = header(wanted, axes, per_channel as u16);
    let mut buffer = vec![0; block_len_max(usize::from(axes), per_channel, wanted)];
    let len = encode_block(&header, Samples::I32(samples), &mut buffer).unwrap();
    let Ok(Message::Block(block)) = decode(&buffer[..len]) else { panic!("not a block") };
    let mut counts = vec![0; samples.len()];
    block.decode_samples(&mut counts).unwrap();
    assert_eq!(counts, samples);
    let mut floats = vec![0.0; samples.len()];
    block.decode_f32(2.0, &mut floats).unwrap();
    assert!(floats.iter().zip(samples).all(|(&float, &count)| float == 2.0 * count as f32));
    assert_eq!(block.header, BlockHeader { encoding: block.header.encoding, ..header });
    (len, block.header.encoding)
}

/// Signals of many shapes: noise of any loudness, with outliers, constants, walks.
fn signal(bits: u32) -> impl Strategy<Value = (u8, Vec<i32>)> {
    let half = 1_i32 << (bits - 1);
    (1_u8..=4, 1_usize..300, 0_u32..bits, any::<bool>(), 0_u32..20).prop_flat_map(
        move |(axes, per_channel, loudness, walk, outliers)| {
            let len = usize::from(axes) * per_channel;
            (
                prop::collection::vec(
                    (-(1_i32 << loudness)..1 << loudness, 0_u32..100, -half..half),
                    len..=len,
                ),
                Just((axes, walk, outliers)),
            )
                .prop_map(move |(steps, (axes, walk, outliers))| {
                    let mut level = 0;
                    let samples = steps.into_iter().map(|(step, luck, anything)| {
                        level = if walk {
                            (level + step).clamp(-half, half - 1)
                        } else {
                            step.clamp(-half, half - 1)
                        };
                        if luck < outliers { anything } else { level }
                    });
                    (axes, samples.collect())
                })
        },
    )
}

proptest! {
    #[test]
    fn samples_of_16_bits_come_back_from_every_encoding((axes, samples) in signal(16)) {
        let (raw, _) = round_trip(Encoding::Raw16, axes, &samples);
        let (packed, became) = round_trip(Encoding::Rice16, axes, &samples);
        prop_assert!(packed < raw || became == Encoding::Raw16);
        round_trip(Encoding::Raw24, axes, &samples);
        round_trip(Encoding::Rice24, axes, &samples);
    }

    #[test]
    fn samples_of_24_bits_come_back_from_every_encoding((axes, samples) in signal(24)) {
        let (raw, _) = round_trip(Encoding::Raw24, axes, &samples);
        let (packed, became) = round_trip(Encoding::Rice24, axes, &samples);
        prop_assert!(packed < raw || became == Encoding::Raw24);
    }

    #[test]
    fn any_bytes_behind_a_good_header_decode_or_are_refused_without_a_panic(
        samples in prop::collection::vec(any::<u8>(), 0..600),
        axes in 1_u8..=8,
        per_channel in 1_u16..300,
        wide in any::<bool>(),
    ) {
        let encoding = if wide { Encoding::Rice24 } else { Encoding::Rice16 };
        let header = header(encoding, axes, per_channel);
        let block = spindle_common::wire::Block { header, samples: &samples };
        let mut out = vec![0; header.len()];
        let half = 1 << (encoding.sample_bits() - 1);
        if block.decode_samples(&mut out).is_ok() {
            prop_assert!(out.iter().all(|sample| (-half..half).contains(sample)));
        }
    }
}

#[test]
fn a_smooth_signal_packs_to_less_than_half() {
    let samples: Vec<i32> =
        (0..1536).map(|i| (f64::from(i % 512) * 0.05).sin().mul_add(9000.0, 2000.0) as i32).collect();
    let (len, encoding) = round_trip(Encoding::Rice16, 3, &samples);
    assert_eq!(encoding, Encoding::Rice16);
    assert!(len < 1536, "{len}");
}

#[test]
fn noise_over_the_whole_range_falls_back_to_raw() {
    let mut state = 1_u32;
    let samples: Vec<i32> = (0..512)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state as i32) >> 16
        })
        .collect();
    assert_eq!(round_trip(Encoding::Rice16, 1, &samples).1, Encoding::Raw16);
}

#[test]
fn extremes_of_the_range_survive_every_predictor() {
    for period in 1..6 {
        for (encoding, top) in [(Encoding::Rice16, 32_767), (Encoding::Rice24, 8_388_607)] {
            let samples: Vec<i32> =
                (0..400).map(|i| if i / period % 2 == 0 { top } else { -top - 1 }).collect();
            round_trip(encoding, 2, &samples);
        }
    }
}
