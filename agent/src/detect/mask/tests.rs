use super::*;

const RATE_HZ: f64 = 2_000.0;
const LINE_HZ: f64 = 243.2;

/// A cycle of noise on three axes, with a spindle's line of this amplitude on the second one, in the middle of a band.
fn cycle(seed: u64, seconds: f64, gain: f64, line: f64) -> Cycle {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f64 / f64::from(1 << 24) - 0.5
    };
    let frame = |index: usize| {
        let turn = core::f64::consts::TAU * LINE_HZ * index as f64 / RATE_HZ;
        // Gravity on the third axis.
        let values = [uniform(), uniform() + line * turn.sin(), uniform() - 10.0];
        let [x, y, z] = values.map(|value| (gain * value) as f32);
        [x, y, z, 0.0]
    };
    let frames: Vec<Frame> = (0..(seconds * RATE_HZ) as usize).map(frame).collect();
    let mut bands = Bands::new(RATE_HZ).expect("a rate");
    let mut cycle = Cycle::new(3);
    for window in frames.windows(bands.len()).step_by(bands.hop()) {
        bands.add(window, &mut cycle);
    }
    cycle
}

fn signature(seed: u64, gain: f64, line: f64) -> Signature {
    cycle(seed, 10.0, gain, line).signature().expect("long enough")
}

fn references(count: u64) -> Vec<Reference> {
    (0..count).map(|seed| Reference { own: seed == 0, signature: signature(100 + seed, 1.0, 0.5) }).collect()
}

fn scored(judgement: Judgement) -> Scored {
    let Judgement::Scored(scored) = judgement else { panic!("{judgement:?}") };
    scored
}

#[test]
fn a_cycle_like_the_good_ones_is_near() {
    let scored = scored(judge(&signature(1, 1.0, 0.5), &references(5), ALL_HZ));
    assert!(scored.score_db < 4.0, "{scored:?}");
}

#[test]
fn a_risen_line_is_found_and_explained() {
    for range in [ALL_HZ, spindle_range_hz(LINE_HZ)] {
        let scored = scored(judge(&signature(2, 1.0, 8.0), &references(5), range));
        // One band of the five by 24 dB, and its neighbours by the window's skirts.
        assert!(scored.score_db > 5.0, "{scored:?}");
        assert_eq!(scored.excesses.len(), WORST);
        let top = scored.excesses[0];
        // 8 over 0.5 is 24 dB.
        assert!(top.axis == 1 && (top.hz - LINE_HZ).abs() < 1.0 && (top.db - 24.0).abs() < 1.5, "{top:?}");
    }
}

#[test]
fn what_lies_outside_of_the_range_does_not_count() {
    let scored = scored(judge(&signature(2, 1.0, 8.0), &references(5), spindle_range_hz(500.0)));
    assert!(scored.score_db < 4.0, "{scored:?}");
}

#[test]
fn too_few_references_are_learning_and_not_fine() {
    let bad = signature(3, 1.0, 8.0);
    assert_eq!(judge(&bad, &[], ALL_HZ), Judgement::Learning { references: 0, own: 0 });
    assert_eq!(judge(&bad, &references(4), ALL_HZ), Judgement::Learning { references: 4, own: 1 });
    let mut others = references(6);
    others.remove(0);
    assert_eq!(judge(&bad, &others, ALL_HZ), Judgement::Learning { references: 5, own: 0 });
}

#[test]
fn references_of_another_shape_do_not_count() {
    let mut references = references(5);
    references[4].signature = Cycle { axes: 2, ..cycle(9, 10.0, 1.0, 0.5) }.signature().expect("a signature");
    let judgement = judge(&signature(4, 1.0, 0.5), &references, ALL_HZ);
    assert_eq!(judgement, Judgement::Learning { references: 4, own: 1 });
    assert!(scored(judge(&signature(4, 1.0, 0.5), &self::references(5), ALL_HZ)).nearest < 5);
}

#[test]
fn half_of_a_rise_of_everything_is_forgiven() {
    let twice = scored(judge(&signature(5, 2.0, 0.5), &references(5), ALL_HZ));
    let same = scored(judge(&signature(5, 1.0, 0.5), &references(5), ALL_HZ));
    assert!((twice.score_db - same.score_db - 3.0).abs() < 0.7, "{} {}", twice.score_db, same.score_db);
}

#[test]
fn the_nearest_reference_decides() {
    let mut references = references(5);
    references[3].signature = signature(7, 1.0, 8.0);
    let scored = scored(judge(&signature(2, 1.0, 8.0), &references, ALL_HZ));
    assert!(scored.nearest == 3 && scored.score_db < 4.0, "{scored:?}");
}

#[test]
fn a_short_cycle_has_no_signature() {
    assert_eq!(cycle(1, 3.5, 1.0, 0.5).signature(), None);
    assert!(cycle(1, 4.0, 1.0, 0.5).signature().is_some());
}

#[test]
fn a_level_is_right_to_a_fraction_of_a_db() {
    // A line of amplitude 8 has a mean square of 32: 15.05 dB.
    let signature = signature(8, 1.0, 8.0);
    let loudest = signature.levels_db.iter().copied().fold(f32::MIN, f32::max);
    assert!((loudest - 15.05).abs() < 1.0, "{loudest}");
    assert_eq!(signature.levels_db.len(), 3 * 86);
}
